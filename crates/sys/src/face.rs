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
