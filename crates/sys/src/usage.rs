//! What a process and its descendants use, from as few files of `/proc` as possible.

use crate::process::{Identity, boot_id};
use std::{fs, sync::OnceLock, time::Duration};

/// How many descendants are counted: an interpreter or two, not a fork bomb.
const FAMILY: usize = 64;

/// What a process and what it started use now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Used {
    /// Processor time, user and system, in steps of a clock tick (10 ms).
    pub cpu: Duration,
    /// Resident memory, bytes; pages that several processes map count whole in each.
    pub resident: u64,
}

/// What exactly this process uses, with up to 64 descendants; `None` if it has ended.
///
/// Descendants are those that `/proc/PID/task/PID/children` names (proc_pid_task(5), with CONFIG_PROC_CHILDREN); without that
/// file they are not counted. What ended descendants used is counted once their parent has waited for them.
pub fn used(process: &Identity) -> Option<Used> {
    if process.boot != boot_id() || process.pid <= 0 {
        return None;
    }
    let mut sum = Numbers::read(process.pid).filter(|numbers| numbers.start == process.start)?;
    let mut waiting = children(process.pid);
    let mut counted = 0;
    while let Some(pid) = waiting.pop()
        && counted < FAMILY
    {
        counted += 1;
        if let Some(numbers) = Numbers::read(pid) {
            sum.ticks += numbers.ticks;
            sum.pages += numbers.pages;
            waiting.extend(children(pid));
        }
    }
    let (hertz, page) = units();
    Some(Used { cpu: Duration::from_micros(sum.ticks * 1_000_000 / hertz), resident: sum.pages * page })
}

fn units() -> (u64, u64) {
    static UNITS: OnceLock<(u64, u64)> = OnceLock::new();
    *UNITS.get_or_init(|| {
        // SAFETY: sysconf reads a constant and touches no memory of ours.
        let read = |name| unsafe { libc::sysconf(name) }.max(1) as u64;
        (read(libc::_SC_CLK_TCK), read(libc::_SC_PAGESIZE))
    })
}

fn children(pid: i32) -> Vec<i32> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

/// The numbers of one line of `/proc/PID/stat` that count here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Numbers {
    /// Time used by itself and by children it has waited for, clock ticks (fields 14 to 17).
    ticks: u64,
    /// When it began (field 22).
    start: u64,
    /// Resident pages (field 24).
    pages: u64,
}

impl Numbers {
    fn read(pid: i32) -> Option<Self> {
        Self::parse(&fs::read(format!("/proc/{pid}/stat")).ok()?)
    }

    /// The command name may hold blanks and brackets: everything counts from the last bracket. A zombie has ended.
    fn parse(line: &[u8]) -> Option<Self> {
        let end = line.iter().rposition(|byte| *byte == b')')?;
        let mut fields = std::str::from_utf8(&line[end + 1..]).ok()?.split_ascii_whitespace();
        let state = fields.next()?;
        // Field 4 is next.
        let fields: Vec<u64> = fields.map(|field| field.parse().unwrap_or(0)).take(21).collect();
        let number = |field: usize| fields.get(field - 4).copied();
        let ticks = number(14)? + number(15)? + number(16)? + number(17)?;
        (!matches!(state, "Z" | "X" | "x")).then_some(Self { ticks, start: number(22)?, pages: number(24)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_use_is_plausible_and_a_strangers_is_none() {
        let me = Identity::of(std::process::id() as i32).unwrap();
        let used_now = used(&me).unwrap();
        assert!(used_now.resident > 500_000 && used_now.resident < 10 << 30, "{used_now:?}");
        assert!(used_now.cpu < Duration::from_secs(3600));
        assert_eq!(used(&Identity { start: me.start + 1, ..me.clone() }), None, "another process with our pid");
        assert_eq!(used(&Identity { pid: -1, ..me }), None);
    }

    #[test]
    fn fields_are_counted_from_the_last_bracket() {
        let line = b"7 (a) b) S 1 7 7 0 -1 4194560 100 0 0 0 11 22 33 44 20 0 1 0 555 1000 66 18446744073709551615 1 1";
        assert_eq!(Numbers::parse(line), Some(Numbers { ticks: 110, start: 555, pages: 66 }));
        assert_eq!(Numbers::parse(b"7 (a) Z 1 7 7 0 -1 0 0 0 0 0 1 1 0 0 20 0 1 0 5 0 0"), None);
        assert_eq!(Numbers::parse(b"7 (a"), None);
    }
}
