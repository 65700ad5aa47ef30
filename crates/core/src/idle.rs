//! When a machine that nothing uses expires. Pure: whoever asks says what time it is and what is going on.
//!
//! Times are milliseconds of one monotonic clock, whatever its beginning. Nothing has to be polled: [`decide`] says when it
//! has to be asked again at the earliest, and whatever happens meanwhile only moves that moment further away.

use crate::spec::Lifetime;

/// What goes on in a machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Activity {
    /// A command runs or waits in one of its sessions.
    pub busy: bool,
    /// Somebody is attached and may write.
    pub writer: bool,
    /// Something is being done to it.
    pub operation: bool,
    /// When it was last used: a command began or ended, a writer left, or it was started.
    pub last_ms: u64,
}

/// What to do about a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Nothing; ask again then, or when the machine is started again.
    AskAt(u64),
    /// It was idle for long enough: ask it to stop. It is kept.
    Stop,
    /// It was idle for long enough and is temporary: delete it.
    Delete,
}

/// Decides about a running machine that may be idle for `idle_seconds`.
pub fn decide(idle_seconds: u64, lifetime: Lifetime, activity: Activity, now_ms: u64) -> Decision {
    let allowed = idle_seconds.saturating_mul(1_000);
    if activity.busy || activity.writer || activity.operation {
        // Whatever is going on ends now at the earliest, and the machine is idle from then on.
        return Decision::AskAt(now_ms.saturating_add(allowed));
    }
    let due = activity.last_ms.saturating_add(allowed);
    match lifetime {
        _ if now_ms < due => Decision::AskAt(due),
        Lifetime::Kept => Decision::Stop,
        Lifetime::Attached => Decision::Delete,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: Activity = Activity { busy: false, writer: false, operation: false, last_ms: 1_000 };

    #[test]
    fn a_machine_expires_exactly_when_it_was_idle_for_long_enough() {
        assert_eq!(decide(30, Lifetime::Kept, IDLE, 30_999), Decision::AskAt(31_000));
        assert_eq!(decide(30, Lifetime::Kept, IDLE, 31_000), Decision::Stop);
        assert_eq!(decide(30, Lifetime::Attached, IDLE, 31_000), Decision::Delete);
        assert_eq!(decide(u64::MAX, Lifetime::Kept, IDLE, u64::MAX - 1), Decision::AskAt(u64::MAX), "no overflow");
    }

    #[test]
    fn what_is_used_never_expires_and_is_asked_about_again_no_earlier_than_it_could() {
        for activity in [Activity { busy: true, ..IDLE }, Activity { writer: true, ..IDLE }, Activity { operation: true, ..IDLE }] {
            assert_eq!(decide(30, Lifetime::Kept, activity, 1_000_000), Decision::AskAt(1_030_000), "{activity:?}");
        }
    }

    /// A clock turned by hand through a machine's day: what is asked at the moments named is answered in time, never early.
    #[test]
    fn asking_only_at_the_moments_named_misses_nothing() {
        // Commands run in these spans; the machine may be idle for 10 s.
        let spans = [(0u64, 3_000u64), (9_000, 9_500), (15_000, 40_000), (49_999, 50_000)];
        let activity = |now: u64| Activity {
            busy: spans.iter().any(|(from, to)| (*from..*to).contains(&now)),
            last_ms: spans.iter().flat_map(|(from, to)| [*from, *to]).filter(|at| *at <= now).max().unwrap_or(0),
            ..Activity::default()
        };
        let (mut now, mut asked) = (0, 0);
        while let Decision::AskAt(next) = decide(10, Lifetime::Kept, activity(now), now) {
            assert!(next > now);
            (now, asked) = (next, asked + 1);
        }
        assert_eq!(now, 60_000, "ten seconds after the last command");
        assert!(asked < 10, "{asked}");
    }
}
