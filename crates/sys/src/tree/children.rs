//! Who came from a process, by the kernel's own lists of children (`/proc/PID/task/TID/children`, proc(5)).
//!
//! It costs what the tree is large, where a look at all processes costs what the computer runs. The kernel promises a whole
//! list only of a process that is stopped: an entry may be passed over when one before it is removed meanwhile. Of a frozen
//! process none is removed, because nobody reaps.

use crate::process::Stat;
use std::{collections::HashSet, fs, io::ErrorKind};

/// The descendants of `root`, itself not counted, dead ones that nobody has reaped among them. `None` where the kernel has no such lists.
pub(super) fn below(root: i32) -> Option<Vec<(i32, Option<Stat>)>> {
    let mut seen = HashSet::from([root]);
    let mut queue = vec![root];
    let mut found = Vec::new();
    while let Some(pid) = queue.pop() {
        for child in of(pid)? {
            if seen.insert(child) {
                queue.push(child);
                found.push((child, Stat::read(child)));
            }
        }
    }
    Some(found)
}

/// The children of all threads of a process; none if it is gone.
fn of(pid: i32) -> Option<Vec<i32>> {
    let mut children = Vec::new();
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return Some(children) };
    for thread in threads.flatten() {
        match fs::read_to_string(thread.path().join("children")) {
            Ok(text) => children.extend(text.split_ascii_whitespace().filter_map(|pid| pid.parse::<i32>().ok())),
            // Either the thread has ended since, or there are no such files at all.
            Err(error) if error.kind() == ErrorKind::NotFound => {
                if thread.path().is_dir() {
                    return None;
                }
            }
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
            Err(_) => return None,
        }
    }
    Some(children)
}
