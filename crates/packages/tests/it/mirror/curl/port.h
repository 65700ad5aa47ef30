/* What Lua 5.2 and later lack of the names that this source was written with. Included before everything else. */
#include <lua.h>
#include <lauxlib.h>
#include <curl/curl.h>
/* The source takes these for missing if no macro bears the name; in a curl of today they are enumerators. */
#define CURLOPT_WRITEDATA CURLOPT_WRITEDATA
#define CURLOPT_READDATA CURLOPT_READDATA
#define CURLOPT_HEADERDATA CURLOPT_HEADERDATA

#if LUA_VERSION_NUM >= 502
#define luaL_reg luaL_Reg
#undef luaL_register
#define luaL_register port_register
static inline void port_register(lua_State *L, const char *name, const luaL_Reg *functions) {
  if (name != NULL) lua_newtable(L);
  luaL_setfuncs(L, functions, 0);
}
#endif
#if LUA_VERSION_NUM >= 503
#undef luaL_checkint
#undef luaL_checklong
#define luaL_checkint(L, n) ((int)luaL_checkinteger(L, n))
#define luaL_checklong(L, n) ((long)luaL_checkinteger(L, n))
#undef lua_strlen
#define lua_strlen(L, n) lua_rawlen(L, n)
#endif
