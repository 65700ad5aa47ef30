//! Prints how long an interrupt of the embedded Lua takes, in microseconds: median and 99th percentile. The argument is the holder
//! program.

use std::{env, io::Write as _, path::PathBuf};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let exe = PathBuf::from(env::args_os().nth(1).ok_or("usage: interrupts HOLDER")?);
    let dir = tempfile::tempdir()?;
    let mut times = vmoon_driver_lua::bench::interrupt_latency(&exe, &[], dir.path(), 400)?;
    times.sort_unstable();
    let at = |part: usize| times[times.len() * part / 100].as_micros();
    writeln!(std::io::stdout(), "p50 {} us, p99 {} us", at(50), at(99))?;
    Ok(())
}
