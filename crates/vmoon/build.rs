//! Links the binary so that C modules loaded by the embedded Lua find the Lua API in it. Only that API is exported:
//! exporting every symbol (`-rdynamic`) would cost each start of the program the time to look through thousands of them.

fn main() {
    for symbols in ["lua_*", "luaL_*", "luaopen_*"] {
        println_cargo(&format!("rustc-link-arg-bins=-Wl,--export-dynamic-symbol={symbols}"));
    }
    println_cargo("rerun-if-changed=build.rs");
}

/// Cargo reads instructions from a build script's standard output.
fn println_cargo(instruction: &str) {
    println!("cargo:{instruction}");
}
