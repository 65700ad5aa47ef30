//! What `/proc` shows of us: the arguments and the environment we were started with, changed in place.
//!
//! A forked process shows the arguments and environment of its parent, since both are read from its memory. A parent that
//! was started with room for it gives each child its own before the fork.

use std::{fs, io, ops::Range};

/// The memory in which the kernel has put our arguments and our environment (proc_pid_stat(5), fields 48 to 51).
#[derive(Clone, Debug)]
pub struct Face {
    args: Range<usize>,
    env: Range<usize>,
}

/// The value of one variable of the initial environment, and the room it has.
#[derive(Clone, Debug)]
pub struct Slot(Range<usize>);

impl Face {
    /// Finds it.
    ///
    /// # Errors
    /// `Unsupported` where the kernel does not tell.
    pub fn find() -> io::Result<Self> {
        let line = fs::read("/proc/self/stat")?;
        let end = line.iter().rposition(|byte| *byte == b')').unwrap_or(0);
        let rest = String::from_utf8_lossy(&line[end + 1..]).into_owned();
        let fields: Vec<usize> = rest.split_ascii_whitespace().skip(45).take(4).filter_map(|field| field.parse().ok()).collect();
        match fields[..] {
            [args, args_end, env, env_end] if args > 0 && args < args_end && env > 0 && env <= env_end => {
                Ok(Self { args: args..args_end, env: env..env_end })
            }
            _ => Err(io::Error::new(io::ErrorKind::Unsupported, "the kernel does not tell where the arguments of this process are")),
        }
    }

    /// The place of a variable's value; `None` if we were not started with it.
    ///
    /// # Safety
    /// Nobody writes to the environment's memory meanwhile.
    pub unsafe fn variable(&self, name: &str) -> Option<Slot> {
        // SAFETY: the kernel's own bounds of memory that is never unmapped; nobody writes to it, by the caller's promise.
        let env = unsafe { std::slice::from_raw_parts(self.env.start as *const u8, self.env.len()) };
        let mut at = 0;
        for entry in env.split(|byte| *byte == 0) {
            if entry.strip_prefix(name.as_bytes()).is_some_and(|rest| rest.first() == Some(&b'=')) {
                let value = self.env.start + at + name.len() + 1;
                return Some(Slot(value..self.env.start + at + entry.len()));
            }
            at += entry.len() + 1;
        }
        None
    }

    /// Shows other arguments, cut to the room there is.
    ///
    /// # Safety
    /// We are the only thread, and nobody holds a reference to the arguments' memory.
    pub unsafe fn set_args(&self, args: &[&str]) {
        let mut text = Vec::with_capacity(self.args.len());
        for arg in args {
            text.extend_from_slice(arg.as_bytes());
            text.push(0);
        }
        // The last byte stays nul, or the kernel would take what follows for a part of it.
        text.truncate(self.args.len() - 1);
        // SAFETY: by the caller's promise.
        unsafe { fill(&self.args, &text) };
    }
}

impl Slot {
    /// How long a value may be, bytes.
    pub fn room(&self) -> usize {
        self.0.len()
    }

    /// Gives the variable another value, cut to its room: for us, for `/proc` and for what we start or fork.
    ///
    /// # Safety
    /// We are the only thread, and nobody holds a reference to the environment's memory.
    pub unsafe fn set(&self, value: &[u8]) {
        // SAFETY: by the caller's promise.
        unsafe { fill(&self.0, value) };
    }
}

/// Gives a process that was forked by us other arguments and these variables other values, as it would do itself by [`Face::set_args`] and
/// [`Slot::set`]: it has them when this returns, whatever it is doing.
///
/// # Errors
/// Those of process_vm_writev(2), which not every sandbox allows; the process may have some of it then.
pub fn show(pid: i32, face: &Face, args: &[&str], variables: &[(&Slot, &[u8])]) -> io::Result<()> {
    let padded = |room: &Range<usize>, text: &[u8], most: usize| {
        let mut bytes = text[..text.len().min(most)].to_vec();
        bytes.resize(room.len(), 0);
        bytes
    };
    let text: Vec<u8> = args.iter().flat_map(|arg| arg.bytes().chain([0])).collect();
    // As above, the last byte stays nul.
    let mut places = vec![(face.args.clone(), padded(&face.args, &text, face.args.len() - 1))];
    places.extend(variables.iter().map(|(slot, value)| (slot.0.clone(), padded(&slot.0, value, slot.0.len()))));
    let iovec = |base: usize, len: usize| libc::iovec { iov_base: base as *mut libc::c_void, iov_len: len };
    let ours: Vec<libc::iovec> = places.iter().map(|(room, bytes)| iovec(bytes.as_ptr().addr(), room.len())).collect();
    let theirs: Vec<libc::iovec> = places.iter().map(|(room, _)| iovec(room.start, room.len())).collect();
    let count = places.len() as libc::c_ulong;
    // SAFETY: reads our buffers, which live, and writes to another process only.
    let written = unsafe { libc::process_vm_writev(pid, ours.as_ptr(), count, theirs.as_ptr(), count, 0) };
    match usize::try_from(written) {
        Err(_) => Err(io::Error::last_os_error()),
        Ok(n) if n == places.iter().map(|(room, _)| room.len()).sum::<usize>() => Ok(()),
        Ok(_) => Err(io::ErrorKind::WriteZero.into()),
    }
}

/// Writes the text, cut to the room, and zeros behind it.
///
/// # Safety
/// `room` is memory of ours that nobody else reads or writes.
unsafe fn fill(room: &Range<usize>, text: &[u8]) {
    let n = text.len().min(room.len());
    // SAFETY: by the caller's promise; both writes stay inside the room.
    unsafe {
        std::ptr::copy_nonoverlapping(text.as_ptr(), room.start as *mut u8, n);
        std::ptr::write_bytes((room.start + n) as *mut u8, 0, room.len() - n);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_is_shown_as_its_parent_wants_it() {
        let face = Face::find().unwrap();
        // SAFETY: tests change no variable.
        let slot = unsafe { face.variable("PATH") }.unwrap();
        let (mut ready, writer) = io::pipe().unwrap();
        // SAFETY: the child makes system calls only.
        let pid = unsafe {
            crate::fork::fork(|| {
                let _ = rustix::io::write(&writer, b"x");
                libc::pause();
                0
            })
        }
        .unwrap();
        io::Read::read_exact(&mut ready, &mut [0]).unwrap();
        show(pid, &face, &["a", "b"], &[(&slot, b"/nowhere")]).unwrap();
        let read = |name: &str| fs::read(format!("/proc/{pid}/{name}")).unwrap();
        assert!(read("cmdline").starts_with(b"a\0b\0"));
        assert!(read("environ").split(|byte| *byte == 0).any(|entry| entry == b"PATH=/nowhere"));
        // SAFETY: a child of ours that was not reaped.
        unsafe { libc::kill(pid, libc::SIGKILL) };
        while crate::process::reap(pid) == crate::process::Reaped::Running {
            std::thread::yield_now();
        }
        assert!(show(pid, &face, &["a"], &[]).is_err());
    }

    #[test]
    fn the_bounds_are_those_of_our_own_memory() {
        let face = Face::find().unwrap();
        // SAFETY: tests change no variable.
        let slot = unsafe { face.variable("PATH") }.unwrap();
        assert_eq!(slot.room(), std::env::var_os("PATH").unwrap().len());
        // SAFETY: as above.
        assert!(unsafe { face.variable("PAT") }.is_none());
        assert_eq!(face.args.len(), fs::read("/proc/self/cmdline").unwrap().len());
    }
}
