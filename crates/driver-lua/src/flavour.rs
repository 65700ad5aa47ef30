//! The flavours of the embedded runtime. A build holds one of them: `builtin` is always that of the program itself, and every other
//! one is a program of its own beside it, which is a holder, a zygote and a launcher like ours and differs in its Lua only.
//!
//! What differs between the Lua versions where C is called is in this file, too, so that nothing else asks for a feature of the
//! build.

use mlua_sys::{self as ffi, lua_Alloc, lua_State};
use std::{
    env,
    ffi::{CStr, OsString, c_int, c_void},
    path::{Path, PathBuf},
    process::ExitCode,
};

/// A Lua that machines can have inside their holder.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Flavour {
    /// The runtime's name in settings.
    pub(crate) runtime: &'static str,
    /// What it says it is.
    pub(crate) says: &'static str,
    /// The version whose packages it loads.
    pub(crate) lua: &'static str,
    /// The program that holds it, where it is not built in.
    program: &'static str,
    /// The feature of the build.
    feature: &'static str,
    /// It turns programs into machine code.
    pub(crate) compiles: bool,
}

/// All of them.
pub(crate) const ALL: [Flavour; 4] = [
    Flavour { runtime: "builtin-5.1", says: "Lua 5.1", lua: "5.1", program: "vmoon-lua-51", feature: "lua51", compiles: false },
    Flavour { runtime: "builtin-5.4", says: "Lua 5.4", lua: "5.4", program: "vmoon-lua-54", feature: "lua54", compiles: false },
    Flavour { runtime: "builtin-5.5", says: "Lua 5.5", lua: "5.5", program: "vmoon-lua-55", feature: "lua55", compiles: false },
    Flavour { runtime: "builtin-luajit", says: "LuaJIT 2.1", lua: "5.1", program: "vmoon-lua-luajit", feature: "luajit", compiles: true },
];

/// The one that is built in.
pub(crate) const OURS: &Flavour = &ALL[if cfg!(feature = "lua51") {
    0
} else if cfg!(feature = "lua55") {
    2
} else if cfg!(feature = "luajit") {
    3
} else {
    1
}];

/// The part of the path under which Debian and its relatives keep libraries of this architecture.
#[cfg(target_arch = "aarch64")]
macro_rules! multiarch {
    () => {
        "/usr/lib/aarch64-linux-gnu/lua/"
    };
}
#[cfg(not(target_arch = "aarch64"))]
macro_rules! multiarch {
    () => {
        "/usr/lib/x86_64-linux-gnu/lua/"
    };
}

/// A C string of pieces.
macro_rules! text {
    ($($piece:expr),+) => {
        match CStr::from_bytes_with_nul(concat!($($piece,)+ "\0").as_bytes()) {
            Ok(text) => text,
            Err(_) => c"",
        }
    };
}

/// Where modules are, for a version and for the names of the variables that say otherwise.
macro_rules! places {
    ($version:literal, $path:literal, $cpath:literal) => {
        /// Where distributions install modules in Lua, to be appended.
        pub(crate) const MORE_PATH: &CStr = text!(";/usr/share/lua/", $version, "/?.lua;/usr/share/lua/", $version, "/?/init.lua");
        /// Where they install modules in C, to be appended.
        pub(crate) const MORE_CPATH: &CStr =
            text!(";", multiarch!(), $version, "/?.so;/usr/lib/lua/", $version, "/?.so;/usr/lib64/lua/", $version, "/?.so");
        /// Where Debian and its relatives keep modules; Lua's own defaults know `/usr/local` only.
        pub(crate) const LUA_PATH: &CStr = text!(
            "/usr/local/share/lua/",
            $version,
            "/?.lua;/usr/local/share/lua/",
            $version,
            "/?/init.lua;/usr/local/lib/lua/",
            $version,
            "/?.lua;/usr/local/lib/lua/",
            $version,
            "/?/init.lua;/usr/share/lua/",
            $version,
            "/?.lua;/usr/share/lua/",
            $version,
            "/?/init.lua;./?.lua;./?/init.lua"
        );
        /// The same for modules in C.
        pub(crate) const LUA_CPATH: &CStr = text!(
            "/usr/local/lib/lua/",
            $version,
            "/?.so;",
            multiarch!(),
            $version,
            "/?.so;/usr/lib/lua/",
            $version,
            "/?.so;/usr/local/lib/lua/",
            $version,
            "/loadall.so;./?.so"
        );
        /// The variables that say where modules in Lua are.
        pub(crate) const PATH_VARIABLES: [&CStr; 2] = [$path, c"LUA_PATH"];
        /// The variables that say where modules in C are.
        pub(crate) const CPATH_VARIABLES: [&CStr; 2] = [$cpath, c"LUA_CPATH"];
    };
}

#[cfg(any(feature = "lua51", feature = "luajit"))]
places!("5.1", c"LUA_PATH", c"LUA_CPATH");
#[cfg(feature = "lua54")]
places!("5.4", c"LUA_PATH_5_4", c"LUA_CPATH_5_4");
#[cfg(feature = "lua55")]
places!("5.5", c"LUA_PATH_5_5", c"LUA_CPATH_5_5");

impl Flavour {
    /// The flavour that is called so in settings; `builtin` is ours.
    pub(crate) fn of(runtime: &str) -> Option<&'static Self> {
        if runtime == crate::settings::BUILTIN {
            return Some(OURS);
        }
        ALL.iter().find(|flavour| flavour.runtime == runtime)
    }

    /// Whether it is the one that is built in.
    pub(crate) fn is_ours(&self) -> bool {
        self == OURS
    }

    /// The program that holds it; `None` where it is built in.
    ///
    /// # Errors
    /// A sentence that says what is missing and how to get it.
    pub(crate) fn find(&self) -> Result<Option<PathBuf>, String> {
        if self.is_ours() {
            return Ok(None);
        }
        let found = directories().into_iter().map(|dir| dir.join(self.program)).find(|path| crate::settings::is_program(path));
        found.map(Some).ok_or_else(|| {
            format!(
                "{} ({}) is a program of its own, {}, which is not beside vmoon; build it with: \
                 cargo build --release -p vmoon-driver-lua --no-default-features --features {} --bin {2}",
                self.runtime, self.says, self.program, self.feature
            )
        })
    }
}

/// Where programs of flavours are: beside our own, or in `libexec/vmoon` beside its directory.
fn directories() -> Vec<PathBuf> {
    let Some(dir) = env::current_exe().ok().and_then(|exe| exe.parent().map(Path::to_owned)) else { return Vec::new() };
    let libexec = dir.parent().map(|above| above.join("libexec/vmoon"));
    [Some(dir), libexec].into_iter().flatten().collect()
}

/// Runs the program of a flavour: a holder, or what the first argument names, as of our own program.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let mut args = args.into_iter().skip(1).peekable();
    if args.next_if(|first| first == crate::zygote::VERB).is_some() {
        return crate::zygote::main();
    }
    if args.next_if(|first| first == crate::host::LAUNCHER).is_some() {
        return crate::host::launch(args);
    }
    if args.next_if(|first| first == crate::oneshot::elsewhere::VERB).is_some() {
        return crate::oneshot::elsewhere::main(args);
    }
    crate::host::main(args)
}

/// Whether garbage is collected when there is no memory for something, before that is an error.
pub(crate) const COLLECTS_IN_NEED: bool = cfg!(any(feature = "lua54", feature = "lua55"));
/// Whether a state that was given no allocator has one of its own, whose blocks no other can take over.
pub(crate) const ALLOCATES: bool = cfg!(feature = "luajit");
/// Whether one hook is that of all coroutines, so that nobody has to know which of them runs.
pub(crate) const ONE_HOOK: bool = cfg!(feature = "luajit");

/// As `lua_newstate`. Strings hash by the seed where a version takes one (5.5); LuaJIT asks the kernel for its own, and Lua 5.1 has none.
///
/// # Safety
/// As that function.
pub(crate) unsafe fn new_state(allocate: lua_Alloc, memory: *mut c_void, seed: u32) -> *mut lua_State {
    // SAFETY: by the caller's promise.
    unsafe {
        #[cfg(feature = "lua55")]
        return ffi::lua_newstate(allocate, memory, seed);
        #[cfg(not(feature = "lua55"))]
        {
            let _ = seed;
            ffi::lua_newstate(allocate, memory)
        }
    }
}

/// The arguments of `math.randomseed`, of 128 random bits; how many there are.
///
/// # Safety
/// Two free slots on the stack.
pub(crate) unsafe fn push_seed(lua: *mut lua_State, bits: [i64; 2]) -> c_int {
    // SAFETY: by the caller's promise; numbers need no memory.
    unsafe {
        if cfg!(any(feature = "lua51", feature = "luajit")) {
            // One number, of which Lua 5.1 gives an int to srand(3).
            let most = if cfg!(feature = "luajit") { (1 << 53) - 1 } else { i32::MAX.into() };
            ffi::lua_pushinteger(lua, bits[0] & most);
            return 1;
        }
        ffi::lua_pushinteger(lua, bits[0]);
        ffi::lua_pushinteger(lua, bits[1]);
        2
    }
}

/// Collects garbage in two generations, where there is such a thing.
///
/// # Safety
/// A valid state.
pub(crate) unsafe fn generations(lua: *mut lua_State) {
    #[cfg(any(feature = "lua54", feature = "lua55"))]
    // SAFETY: by the caller's promise.
    unsafe {
        ffi::lua_gc(lua, ffi::LUA_GCGEN, 0 as c_int, 0 as c_int);
    }
    #[cfg(not(any(feature = "lua54", feature = "lua55")))]
    let _ = lua;
}

/// Why a coroutine cannot be resumed; null if `lua_resume` finds that out by itself, or if it can be.
///
/// # Safety
/// Two valid threads of one state.
pub(crate) unsafe fn unresumable(lua: *mut lua_State, co: *mut lua_State) -> Option<&'static CStr> {
    // SAFETY: by the caller's promise. As auxstatus and auxresume of Lua 5.1 (lbaselib.c).
    #[cfg(any(feature = "lua51", feature = "luajit"))]
    unsafe {
        const DEAD: &CStr = c"cannot resume dead coroutine";
        if lua == co {
            return Some(c"cannot resume running coroutine");
        }
        match ffi::lua_status(co) {
            ffi::LUA_YIELD => None,
            ffi::LUA_OK => {
                let mut frame: ffi::lua_Debug = std::mem::zeroed();
                if ffi::lua_getstack(co, 0, &raw mut frame) > 0 {
                    Some(c"cannot resume normal coroutine")
                } else {
                    (ffi::lua_gettop(co) == 0).then_some(DEAD)
                }
            }
            _ => Some(DEAD),
        }
    }
    #[cfg(not(any(feature = "lua51", feature = "luajit")))]
    {
        let _ = (lua, co);
        None
    }
}

/// Closes the variables of a coroutine that failed; its status then. Versions before 5.4 have no such variables.
///
/// # Safety
/// Two valid threads of one state.
pub(crate) unsafe fn close_thread(co: *mut lua_State, from: *mut lua_State) -> c_int {
    // SAFETY: by the caller's promise.
    unsafe {
        #[cfg(any(feature = "lua54", feature = "lua55"))]
        return ffi::lua_closethread(co, from);
        #[cfg(not(any(feature = "lua54", feature = "lua55")))]
        {
            let _ = from;
            ffi::lua_status(co)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_places() {
        assert!(OURS.is_ours() && Flavour::of("builtin") == Some(OURS) && Flavour::of(OURS.runtime) == Some(OURS));
        assert_eq!(OURS.find(), Ok(None));
        assert_eq!(Flavour::of("luajit"), None, "that is the installed one");
        let other = ALL.iter().find(|flavour| !flavour.is_ours()).unwrap();
        // Nothing is beside a test program.
        let why = other.find().unwrap_err();
        assert!(why.contains(other.program) && why.ends_with(&format!("--bin {}", other.program)), "{why}");
        for text in [MORE_PATH, MORE_CPATH, LUA_PATH, LUA_CPATH] {
            assert!(text.to_str().unwrap().contains(&format!("/lua/{}/?", OURS.lua)), "{text:?}");
        }
    }
}
