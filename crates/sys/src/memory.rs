//! What a process costs: memory and processor time.

use crate::process::Stat;
use std::{fs, time::Duration};

/// Memory of a process, bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Resident set size: every page it maps.
    pub rss: u64,
    /// Proportional set size: a page shared by n processes counts one n-th.
    pub pss: u64,
    /// Pages nobody else maps.
    pub private: u64,
}

/// The memory of a process (`/proc/PID/smaps_rollup`, proc_pid_smaps_rollup(5)); `None` if it is gone or not ours.
pub fn of(pid: i32) -> Option<Memory> {
    Some(parse(&fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?))
}

fn parse(text: &str) -> Memory {
    let field = |name: &str| {
        text.lines()
            .filter_map(|line| line.strip_prefix(name)?.strip_prefix(':')?.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok())
            .sum::<u64>()
            * 1024
    };
    Memory { rss: field("Rss"), pss: field("Pss"), private: field("Private_Clean") + field("Private_Dirty") }
}

/// The processor time a process has used, user and system, in steps of 10 ms; `None` if it is gone.
pub fn cpu_time(pid: i32) -> Option<Duration> {
    // SAFETY: sysconf reads a constant and touches no memory of ours.
    let hertz = unsafe { libc::sysconf(libc::_SC_CLK_TCK) }.max(1) as u64;
    Stat::read(pid).map(|stat| Duration::from_millis(stat.cpu * 1000 / hertz))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_memory_is_plausible_and_a_missing_process_has_none() {
        let me = std::process::id() as i32;
        let memory = of(me).unwrap();
        assert!(memory.rss >= memory.pss && memory.pss >= memory.private && memory.private > 10_000, "{memory:?}");
        assert!(cpu_time(me).unwrap() < Duration::from_secs(3600));
        assert_eq!((of(-1), cpu_time(-1)), (None, None));
    }

    #[test]
    fn fields_are_summed_by_their_whole_name() {
        let text =
            "55d0-7ffe ---p 0 00:00 0 [rollup]\nRss:  10 kB\nPss:   4 kB\nPss_Anon:  3 kB\nPrivate_Clean: 1 kB\nPrivate_Dirty: 2 kB\n";
        assert_eq!(parse(text), Memory { rss: 10 << 10, pss: 4 << 10, private: 3 << 10 });
    }
}
