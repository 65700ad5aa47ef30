/* The attempts of the table as a C module of Lua: `require "attempt"(name, stage)` gives their number. It declares what it
 * uses of Lua, the same in 5.1 to 5.4 and LuaJIT on 64-bit computers, so that one library serves all of them. */
#include <stddef.h>

typedef struct lua_State lua_State;
extern void lua_pushinteger(lua_State *L, long long n);
extern void lua_pushcclosure(lua_State *L, int (*f)(lua_State *L), int n);
extern const char *luaL_checklstring(lua_State *L, int arg, size_t *length);
extern int vmoon_attempt(const char *name, const char *stage);

int luaopen_attempt(lua_State *L);

static int make(lua_State *L)
{
    lua_pushinteger(L, vmoon_attempt(luaL_checklstring(L, 1, NULL), luaL_checklstring(L, 2, NULL)));
    return 1;
}

int luaopen_attempt(lua_State *L)
{
    lua_pushcclosure(L, make, 0);
    return 1;
}
