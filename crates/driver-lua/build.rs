//! Programs that embed Lua export its symbols, or C modules cannot be loaded; and those by which modules look names up.

fn main() {
    for symbols in ["lua_*", "luaL_*", "luaopen_*", "getaddrinfo", "freeaddrinfo", "gethostbyname"] {
        println!("cargo:rustc-link-arg-bins=-Wl,--export-dynamic-symbol={symbols}");
    }
    println!("cargo:rerun-if-changed=build.rs");
}
