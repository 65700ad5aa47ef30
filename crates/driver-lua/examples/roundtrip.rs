//! Prints the round trip on a holder's socket: `roundtrip HOLDER DIRECTORY [N]`.

use std::{io::Write as _, path::PathBuf};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args_os().skip(1).map(PathBuf::from);
    let (Some(exe), Some(dir)) = (args.next(), args.next()) else { return Err("usage: roundtrip HOLDER DIRECTORY [N]".into()) };
    let n = args.next().and_then(|n| n.to_str()?.parse().ok()).unwrap_or(10_000);
    let mut times = vmoon_driver_lua::bench::host_roundtrip(&exe, &[], &dir, n)?;
    times.sort();
    let at = |part: usize| times[times.len() * part / 100].as_nanos() as f64 / 1000.0;
    writeln!(std::io::stdout(), "p50 {:.1} µs, p95 {:.1} µs, p99 {:.1} µs of {n}", at(50), at(95), at(99))?;
    Ok(())
}
