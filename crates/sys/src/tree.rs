//! Ends a process with everything that came from it.
//!
//! Three nets, since each has holes: children of children by parent id (a `setsid` child does not escape it), every
//! process of the root's session (an orphan does not escape it), and every process that bears a mark in its environment (an
//! orphan that also called `setsid` does not escape it).

mod children;
mod scan;

use crate::process::{Identity, Pidfd, Stat, boot_id};
use rustix::process::Signal;
use std::{
    collections::HashSet,
    io,
    time::{Duration, Instant},
};

/// The variable in which a process that forks marked children says its own pid, so that it is never taken for one of them.
/// Its children inherit the variable, and it is not their pid.
pub const ZYGOTE: &str = "VMOON_ZYGOTE";

/// Kills `root`, if it lives, and all that came from it; `mark` is a `NAME=value` that stood in the environment of `root`
/// when it was started. Returns when they are dead; calling it for a root that is dead clears what it left behind.
///
/// # Errors
/// Those of the kernel calls; `TimedOut` if something does not die within `limit` (it hangs in the kernel).
pub fn kill(root: &Identity, mark: Option<&str>, limit: Duration) -> io::Result<()> {
    if root.boot != boot_id() {
        return Ok(());
    }
    let until = Instant::now() + limit;
    let fd = Pidfd::open(root)?;
    if let Some(fd) = &fd {
        // Frozen, it can start nothing new while its descendants are counted.
        fd.send(Signal::STOP)?;
    }
    kill_found(root, mark, until)?;
    if let Some(fd) = fd {
        fd.send(Signal::KILL)?;
        wait(vec![fd], until)?;
    }
    // Freezing takes effect a little after the call: what the root started in its last moment is found now.
    kill_found(root, mark, until)
}

/// As [`kill`], for a root that is the subreaper of its descendants (prctl(2), `PR_SET_CHILD_SUBREAPER`). While it lives, every
/// orphan of its tree is its child, so looking by parents finds all, at the price of its own tree and not of all that runs; `mark` counts
/// only if it is dead.
///
/// # Errors
/// As [`kill`].
pub fn kill_subreaper(root: &Identity, mark: Option<&str>, limit: Duration) -> io::Result<()> {
    let alive = if root.boot == boot_id() { Pidfd::open(root)? } else { None };
    let Some(fd) = alive else { return kill(root, mark, limit) };
    let until = Instant::now() + limit;
    fd.send(Signal::STOP)?;
    // Freezing takes effect a little after the call; until then it may start something that nobody has seen.
    while Stat::read(root.pid).is_some_and(|stat| stat.start == root.start && !stat.is_frozen() && !stat.is_dead()) {
        if Instant::now() > until {
            return Err(io::ErrorKind::TimedOut.into());
        }
        std::thread::yield_now();
    }
    kill_seen(|| below(root).unwrap_or_else(|| descendants(root, None)), until)?;
    fd.send(Signal::KILL)?;
    wait(vec![fd], until)
}

/// As [`kill`], for a root that could start nothing.
///
/// # Errors
/// As [`kill`].
pub fn kill_alone(root: &Identity, limit: Duration) -> io::Result<()> {
    let alive = if root.boot == boot_id() { Pidfd::open(root)? } else { None };
    let Some(fd) = alive else { return Ok(()) };
    fd.send(Signal::KILL)?;
    wait(vec![fd], Instant::now() + limit)
}

/// Kills all that came from `root`, but not `root` itself, which may be the caller.
///
/// # Errors
/// As [`kill`].
pub fn kill_offspring(root: &Identity, limit: Duration) -> io::Result<()> {
    let until = Instant::now() + limit;
    kill_found(root, None, until)
}

/// Sends a signal to all that came from `root`, but not to `root` itself. What cannot be signalled is passed over.
pub fn signal_offspring(root: &Identity, signal: Signal) {
    for identity in offspring(root, None) {
        if let Ok(Some(fd)) = Pidfd::open(&identity) {
            let _ = fd.send(signal);
        }
    }
}

fn kill_found(root: &Identity, mark: Option<&str>, until: Instant) -> io::Result<()> {
    kill_seen(|| descendants(root, mark), until)
}

/// Kills what a look sees until two looks have seen nothing new.
fn kill_seen(look: impl Fn() -> (Vec<Identity>, HashSet<i32>), until: Instant) -> io::Result<()> {
    let mut seen = HashSet::new();
    let mut before = None;
    loop {
        let (living, all) = look();
        let found: Vec<Identity> = living.into_iter().filter(|identity| seen.insert(identity.clone())).collect();
        if found.is_empty() {
            // A look takes time: what forks and dies during it may hide its child. Two looks that see the same, the dead
            // included, have missed nothing.
            if all.is_empty() || before.as_ref() == Some(&all) {
                return Ok(());
            }
            before = Some(all);
            continue;
        }
        before = None;
        let mut dying: Vec<Pidfd> = Vec::new();
        for identity in found {
            if let Some(fd) = Pidfd::open(&identity)? {
                match fd.send(Signal::KILL) {
                    Err(error) if error.kind() != io::ErrorKind::PermissionDenied => return Err(error),
                    Err(_) => {} // a set-uid program: not ours to end, and not ours to wait for
                    Ok(()) => dying.push(fd),
                }
            }
        }
        // A descendant may be in the middle of a fork as it is killed: what it leaves is seen when it is dead, not before.
        wait(dying, until)?;
    }
}

fn wait(dying: Vec<Pidfd>, until: Instant) -> io::Result<()> {
    for fd in dying {
        if !fd.wait(until.saturating_duration_since(Instant::now()))? {
            return Err(io::ErrorKind::TimedOut.into());
        }
    }
    Ok(())
}

/// How many processes that came from `root` are alive, `root` not counted.
pub fn count(root: &Identity, mark: Option<&str>) -> usize {
    offspring(root, mark).len()
}

fn offspring(root: &Identity, mark: Option<&str>) -> Vec<Identity> {
    descendants(root, mark).0
}

/// As [`descendants`] by parents alone, for a root that is frozen; `None` where the kernel does not tell.
fn below(root: &Identity) -> Option<(Vec<Identity>, HashSet<i32>)> {
    let found = children::below(root.pid)?;
    let all = found.iter().map(|(pid, _)| *pid).collect();
    let living = found
        .into_iter()
        .filter_map(|(pid, stat)| Some((pid, stat.filter(|stat| !stat.is_dead())?)))
        .map(|(pid, stat)| Identity { pid, start: stat.start, boot: root.boot.clone() })
        .collect();
    Some((living, all))
}

/// The living ones, and the process ids of all, the dead included.
fn descendants(root: &Identity, mark: Option<&str>) -> (Vec<Identity>, HashSet<i32>) {
    let table = scan::now();
    let (all, children) = (&table.processes, &table.children);
    let root_stat = all.get(&root.pid).map(|process| process.stat);
    // If the pid belongs to somebody else now, so does its session.
    let ours = root_stat.is_none_or(|stat| stat.start == root.start);
    let mut found = HashSet::new();
    let mut queue = Vec::new();
    if ours {
        queue.push(root.pid);
        let session = table.sessions.get(&root.pid).into_iter().flatten();
        queue.extend(session.filter(|pid| all[pid].stat.start >= root.start));
    }
    if let Some(mark) = mark {
        let marked = all.iter().filter(|(_, process)| process.stat.start >= root.start && process.bears(mark.as_bytes()));
        queue.extend(marked.map(|(pid, _)| *pid));
    }
    while let Some(pid) = queue.pop() {
        if found.insert(pid) {
            queue.extend(children.get(&pid).into_iter().flatten());
        }
    }
    found.remove(&root.pid);
    let me = std::process::id() as i32;
    let living = found
        .iter()
        .copied()
        .filter(|pid| *pid != me && *pid > 1)
        .filter_map(|pid| all.get(&pid).map(|process| (pid, process.stat)))
        .filter(|(_, stat)| !stat.is_dead())
        .map(|(pid, stat)| Identity { pid, start: stat.start, boot: root.boot.clone() })
        .collect();
    (living, found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::{Detached, Reaped, reap};
    use std::{
        io::{BufRead as _, BufReader},
        os::fd::AsFd as _,
        path::Path,
    };

    /// A root with a child, an orphan of its session, and an orphan in a session of its own.
    fn family(mark: &str) -> (Identity, Vec<Identity>) {
        let (reader, writer) = io::pipe().unwrap();
        let script = "sleep 1000 & echo $!; (sleep 1000 & echo $!); (setsid sh -c 'echo $$; exec sleep 1000' &); wait";
        let (name, value) = mark.split_once('=').unwrap();
        let pid = Detached {
            exe: Path::new("/bin/sh"),
            args: vec!["-c".as_ref(), script.as_ref()],
            env: vec![(name, value)],
            stdio: [None, Some(writer.as_fd()), None],
        }
        .spawn()
        .unwrap();
        drop(writer);
        let root = Identity::of(pid).unwrap();
        let pids = BufReader::new(reader).lines().take(3).map(|line| Identity::of(line.unwrap().parse().unwrap()).unwrap());
        (root, pids.collect())
    }

    #[test]
    fn nothing_of_a_family_is_left_even_when_the_root_died_first() {
        for root_first in [false, true] {
            let mark = format!("VMOON_TREE_TEST={}-{root_first}", std::process::id());
            let (root, rest) = family(&mark);
            if root_first {
                Pidfd::open(&root).unwrap().unwrap().send(Signal::KILL).unwrap();
            }
            kill(&root, Some(&mark), Duration::from_secs(10)).unwrap();
            for process in &rest {
                assert!(!process.is_alive(), "{process:?} outlived its root");
            }
            assert!(!root.is_alive());
            assert_eq!(count(&root, Some(&mark)), 0);
            assert_eq!(reap(root.pid), Reaped::Signal(9));
            kill(&root, Some(&mark), Duration::from_secs(1)).unwrap();
        }
    }

    #[test]
    fn the_lists_of_children_tell_the_whole_tree_and_its_end_needs_no_other_look() {
        let (reader, writer) = io::pipe().unwrap();
        let script = "sleep 1000 & echo $!; sh -c 'sleep 1000 & echo $!; wait' & echo $!; wait";
        let child = Detached {
            exe: Path::new("/bin/sh"),
            args: vec!["-c".as_ref(), script.as_ref()],
            env: vec![],
            stdio: [None, Some(writer.as_fd()), None],
        };
        let root = Identity::of(child.spawn().unwrap()).unwrap();
        drop(writer);
        let pids: HashSet<i32> = BufReader::new(reader).lines().take(3).map(|line| line.unwrap().parse().unwrap()).collect();
        let rest: Vec<Identity> = pids.iter().map(|pid| Identity::of(*pid).unwrap()).collect();
        let (living, all) = below(&root).expect("this kernel has lists of children");
        assert_eq!((living.len(), &all), (3, &pids));
        kill_subreaper(&root, None, Duration::from_secs(10)).unwrap();
        assert!(!root.is_alive() && rest.iter().all(|process| !process.is_alive()), "something of the tree lives");
        assert_eq!(reap(root.pid), Reaped::Signal(9));
        assert_eq!(below(&root).map(|(living, all)| living.len() + all.len()), Some(0), "a process that is gone has no children");
    }

    #[test]
    fn one_that_could_start_nothing_is_ended_by_itself() {
        let child =
            Detached { exe: Path::new("/bin/sleep"), args: vec!["1000".as_ref()], env: vec![], stdio: [None, None, None] }.spawn().unwrap();
        let root = Identity::of(child).unwrap();
        kill_alone(&Identity { start: root.start - 1, ..root.clone() }, Duration::from_secs(1)).unwrap();
        assert!(root.is_alive(), "a stranger was killed");
        kill_alone(&root, Duration::from_secs(10)).unwrap();
        assert!(!root.is_alive());
        assert_eq!(reap(root.pid), Reaped::Signal(9));
        kill_alone(&root, Duration::from_secs(1)).unwrap();
    }

    #[test]
    fn a_process_that_took_over_the_pid_is_not_touched() {
        let (root, rest) = family(&format!("VMOON_TREE_TEST={}-other", std::process::id()));
        let earlier = Identity { start: root.start - 1, ..root.clone() };
        kill(&earlier, None, Duration::from_secs(1)).unwrap();
        assert!(root.is_alive() && rest.iter().all(Identity::is_alive), "strangers were killed");
        kill(&root, Some(&format!("VMOON_TREE_TEST={}-other", std::process::id())), Duration::from_secs(10)).unwrap();
        assert_eq!(reap(root.pid), Reaped::Signal(9));
    }
}
