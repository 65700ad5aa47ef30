//! The one place where the daemon waits for time to pass: back-off between attempts, and deadlines.

use std::time::Duration;

/// Waits. Only for spacing attempts at something outside our control; what can be awaited is awaited. Nothing is not waited
/// for: tokio's clock counts milliseconds and rounds up.
#[expect(clippy::disallowed_methods, reason = "spacing attempts is the one thing that needs time to pass")]
pub(crate) async fn pause(duration: Duration) {
    if !duration.is_zero() {
        tokio::time::sleep(duration).await;
    }
}

/// How long to wait before attempt `n` (from 0): nothing, then 50 ms doubling up to 5 s.
pub(crate) fn back_off(n: u32) -> Duration {
    if n == 0 { Duration::ZERO } else { Duration::from_millis(50u64 << (n - 1).min(7)).min(Duration::from_secs(5)) }
}

/// Waits until then; for ever if there is no then.
pub(crate) async fn until(when: Option<tokio::time::Instant>) {
    match when {
        Some(when) => tokio::time::sleep_until(when).await,
        None => std::future::pending().await,
    }
}
