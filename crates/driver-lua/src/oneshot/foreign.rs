//! Becomes another Lua interpreter that shall run the program, confined unless it is trusted.
//!
//! This file must not know the embedded Lua.

use super::{Chunk, OURS, Program, Source, UNUSABLE, access, complain, map::installed};
use crate::settings::INTERPRETERS;
use std::{
    ffi::{CString, OsString},
    fs::File,
    io::{self, Read as _, Seek as _, Write as _},
    os::{
        fd::IntoRawFd as _,
        unix::ffi::{OsStrExt as _, OsStringExt as _},
    },
    path::Path,
};
use vmoon_lua_wire::{program::Modules, sandbox::SANDBOX};

/// Runs the code of `-e` in any Lua: a script whose first arguments are how many pieces there are, and the pieces. Prints their values.
const WRAPPER: &str = "local n,t=tonumber(table.remove(arg,1)),{} for i=1,n do t[i]=table.remove(arg,1) end \
    arg[0]='-e' arg[-1]='vmoon' for i=-9,-2 do arg[i]=nil end \
    local l,u,o,e,x,s=loadstring or load,table.unpack or unpack,print,io.stderr,os.exit,select \
    local function p(...) if s('#',...)>0 then o(...) end end \
    for i=1,n do local f,m=l(t[i],'=(command line)') if not f then e:write('vmoon: ',m,'\\n') x(1) end p(f(u(arg))) end";

/// Runs any program confined: its first arguments are the paths of the sandbox and of the program's text, what is granted, the name
/// of the chunk, `arg[0]`, whether values are printed, how many more pieces of code there are, and their paths.
const CONFINED: &str = "local t={} for i=1,7 do t[i]=table.remove(arg,1) end local n=tonumber(t[7]) \
    arg[0]=t[5] arg[-1]='vmoon' for i=-9,-2 do arg[i]=nil end \
    local l,u=loadstring or load,table.unpack or unpack \
    local function r(n) local f=assert(io.open(n,'rb')) local s=f:read('*a') f:close() return s or '' end \
    local c={r(t[2])} for i=1,n do c[i+1]=r(table.remove(arg,1)) end assert(l(r(t[1]),'=[vmoon]'))(t[3]) \
    l=loadstring or load local o,e,x,s=print,io.stderr,os.exit,select \
    local function p(...) if t[6]=='1' and s('#',...)>0 then o(...) end end \
    for i=1,n+1 do local f,m=l(c[i],t[4]) if not f then e:write('vmoon: ',m,'\\n') x(1) end p(f(u(arg))) end";

/// A path under which the interpreter finds this text: an open file without a name, which it inherits.
fn inherited(text: &[u8]) -> Result<OsString, u8> {
    let made = || -> io::Result<OsString> {
        let fd = rustix::fs::memfd_create(c"vmoon-run", rustix::fs::MemfdFlags::empty())?;
        let mut file = File::from(fd);
        file.write_all(text)?;
        Ok(format!("/dev/fd/{}", file.into_raw_fd()).into())
    };
    made().map_err(|error| {
        complain(&format!("the code cannot be handed to another interpreter: {error}"));
        OURS
    })
}

/// Replaces this process; gives a code only if that fails.
pub(super) fn exec(runtime: &str, program: &Program) -> u8 {
    let became = || {
        let path = access::interpreter(runtime)?;
        let access = access::decide(&program.access, &program.source, Some(&path), program.environment.as_ref())?;
        // One of a known name is one: it is not asked, which would take longer than many a program.
        if !INTERPRETERS.contains(&runtime) {
            installed::verify(&path, &access)?;
        }
        if let Some(modules) = &access.modules {
            tell(modules)?;
        }
        if access.is_free() { free(&path, program) } else { confined(&path, program, &access) }
    };
    match became() {
        Ok(never) => match never {},
        Err(code) => code,
    }
}

/// Tells the interpreter that this process becomes where modules are, by its own variables (lua(1)); those of a version come first.
fn tell(modules: &Modules) -> Result<(), u8> {
    let text = |text: &str| CString::new(text).map_err(|_| zero_byte());
    let (path, cpath) = (text(&modules.path)?, text(&modules.cpath)?);
    // SAFETY: C strings; the process has one thread, so nobody reads the environment meanwhile.
    let failed = unsafe {
        for name in [c"LUA_PATH_5_2", c"LUA_PATH_5_3", c"LUA_PATH_5_4", c"LUA_CPATH_5_2", c"LUA_CPATH_5_3", c"LUA_CPATH_5_4"] {
            libc::unsetenv(name.as_ptr());
        }
        libc::setenv(c"LUA_PATH".as_ptr(), path.as_ptr(), 1) | libc::setenv(c"LUA_CPATH".as_ptr(), cpath.as_ptr(), 1)
    };
    if failed == 0 {
        return Ok(());
    }
    complain("the interpreter cannot be told where its modules are");
    Err(OURS)
}

/// The program is the interpreter's own.
fn free(path: &Path, program: &Program) -> Result<std::convert::Infallible, u8> {
    let mut argv: Vec<Vec<u8>> = vec![path.as_os_str().as_bytes().to_vec()];
    match &program.source {
        Source::Code(code) => {
            argv.extend([inherited(WRAPPER.as_bytes())?.into_vec(), (1 + program.more.len()).to_string().into_bytes(), code.clone()]);
            argv.extend(program.more.iter().cloned());
        }
        Source::File(path) => {
            // An interpreter takes a name that begins with a dash for an option.
            let name = path.as_os_str().as_bytes();
            argv.push(if name.starts_with(b"-") { [b"./", name].concat() } else { name.to_vec() });
            super::read_file(path)?;
        }
        Source::Stdin => argv.push(b"-".to_vec()),
    }
    argv.extend(program.args.iter().map(|arg| arg.clone().into_vec()));
    let argv = argv.into_iter().map(CString::new).collect::<Result<Vec<_>, _>>().map_err(|_| zero_byte())?;
    let mut pointers: Vec<_> = argv.iter().map(|arg| arg.as_ptr()).collect();
    pointers.push(std::ptr::null());
    // SAFETY: a list of C strings that ends with a null pointer; the process has one thread.
    unsafe { libc::execv(pointers[0], pointers.as_ptr()) };
    Err(not_run(path, &io::Error::last_os_error().to_string()))
}

/// The launcher confines this process before it becomes the interpreter, and a script the libraries before the program runs.
fn confined(path: &Path, program: &Program, access: &access::Access) -> Result<std::convert::Infallible, u8> {
    let Chunk { text, mut name, zero, print } = super::load(&program.source)?;
    name.pop();
    let grants = &access.grants;
    let settings = if grants.is_trusted() { None } else { Some(grants.settings()) };
    // A trusted program with limits alone keeps its libraries: an empty script holds nothing.
    let sandbox = inherited(if settings.is_some() { SANDBOX.as_bytes() } else { b"" })?;
    let mut command: Vec<OsString> = vec![path.into(), inherited(CONFINED.as_bytes())?, sandbox, inherited(&text)?];
    command.extend([settings.unwrap_or_default().into(), OsString::from_vec(name), zero, if print { "1" } else { "0" }.into()]);
    command.push(program.more.len().to_string().into());
    for code in &program.more {
        let chunk = super::load(&Source::Code(code.clone()))?;
        command.push(inherited(&chunk.text)?);
    }
    command.extend(program.args.iter().cloned());
    if command.iter().any(|arg| arg.as_bytes().contains(&0)) {
        return Err(zero_byte());
    }
    if let Some(sentence) = access::weakness(&access.rules, &vmoon_confine::probe()) {
        complain(&sentence);
    }
    let mut report = memory()?;
    let mut rules = memory()?;
    let handed = serde_json::to_writer(&rules, &access.rules).map_err(io::Error::from).and_then(|()| rules.rewind());
    let said = report.try_clone();
    let (Ok(()), Ok(said)) = (handed, said) else {
        complain("the rules cannot be handed to the launcher");
        return Err(OURS);
    };
    let numbers = [rules.into_raw_fd(), said.into_raw_fd()].map(|fd| OsString::from(fd.to_string()));
    // Returns only if the interpreter could not be executed.
    let _ = vmoon_confine::launch::main(numbers.into_iter().chain(command));
    let mut lines = Vec::new();
    let _ = report.rewind().and_then(|()| report.read_to_end(&mut lines));
    let why = vmoon_confine::launch::outcome(&lines).err().unwrap_or_default();
    Err(not_run(path, &why))
}

/// A file in memory that the interpreter does not inherit.
fn memory() -> Result<File, u8> {
    rustix::fs::memfd_create(c"vmoon-run", rustix::fs::MemfdFlags::CLOEXEC).map(File::from).map_err(|error| {
        complain(&format!("the rules cannot be handed to the launcher: {error}"));
        OURS
    })
}

fn zero_byte() -> u8 {
    complain("an argument of another interpreter cannot hold a zero byte");
    OURS
}

fn not_run(path: &Path, why: &str) -> u8 {
    complain(&format!("the interpreter {} cannot be run: {why}", vmoon_core::name::escape(&path.to_string_lossy())));
    UNUSABLE
}
