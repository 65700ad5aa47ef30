//! Becomes another Lua interpreter that shall run the program.
//!
//! This file must not know the embedded Lua.

use super::{MISSING, OURS, Program, Source, UNUSABLE, complain};
use std::{
    ffi::CString,
    fs::File,
    io::{self, Write as _},
    os::{
        fd::IntoRawFd as _,
        unix::ffi::{OsStrExt as _, OsStringExt as _},
    },
};

/// Runs the code of `-e` in any Lua: a script whose first argument is the code. Prints its values.
const WRAPPER: &str = "local c=table.remove(arg,1) arg[0]='-e' arg[-1]='vmoon' for i=-9,-2 do arg[i]=nil end \
    local f,m=(loadstring or load)(c,'=(command line)') if not f then io.stderr:write('vmoon: ',m,'\\n') os.exit(1) end \
    local function p(...) if select('#',...)>0 then print(...) end end p(f((table.unpack or unpack)(arg)))";

/// A path under which the interpreter finds the wrapper: an open file without a name, which it inherits.
fn wrapper() -> io::Result<Vec<u8>> {
    let fd = rustix::fs::memfd_create(c"vmoon-run", rustix::fs::MemfdFlags::empty())?;
    let mut file = File::from(fd);
    file.write_all(WRAPPER.as_bytes())?;
    Ok(format!("/dev/fd/{}", file.into_raw_fd()).into_bytes())
}

/// Replaces this process; gives a code only if that fails.
pub(super) fn exec(runtime: &str, program: &Program) -> u8 {
    let mut argv: Vec<Vec<u8>> = vec![runtime.into()];
    match &program.source {
        Source::Code(code) => match wrapper() {
            Ok(path) => argv.extend([path, code.clone()]),
            Err(error) => {
                complain(&format!("the code cannot be handed to another interpreter: {error}"));
                return OURS;
            }
        },
        Source::File(path) => {
            // An interpreter takes a name that begins with a dash for an option.
            let name = path.as_os_str().as_bytes();
            argv.push(if name.starts_with(b"-") { [b"./", name].concat() } else { name.to_vec() });
            if let Err(code) = super::read_file(path) {
                return code;
            }
        }
        Source::Stdin => argv.push(b"-".to_vec()),
    }
    argv.extend(program.args.iter().map(|arg| arg.clone().into_vec()));
    let Ok(argv) = argv.into_iter().map(CString::new).collect::<Result<Vec<_>, _>>() else {
        complain("an argument of another interpreter cannot hold a zero byte");
        return OURS;
    };
    let mut pointers: Vec<_> = argv.iter().map(|arg| arg.as_ptr()).collect();
    pointers.push(std::ptr::null());
    // SAFETY: a list of C strings that ends with a null pointer; the process has one thread.
    unsafe { libc::execvp(pointers[0], pointers.as_ptr()) };
    let error = io::Error::last_os_error();
    let shown = vmoon_core::name::escape(runtime);
    match error.kind() {
        io::ErrorKind::NotFound => {
            complain(&format!(
                "there is no interpreter {shown} on this computer; install it, or leave --runtime out for the built-in Lua 5.4"
            ));
            MISSING
        }
        _ => {
            complain(&format!("the interpreter {shown} cannot be run: {error}"));
            UNUSABLE
        }
    }
}
