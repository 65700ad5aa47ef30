//! Prints what making machines takes and what an idle one costs: `creation HOLDER DIRECTORY [N] [IDLE]`.

use std::{io::Write as _, path::PathBuf, time::Duration};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args_os().skip(1).map(PathBuf::from);
    let (Some(exe), Some(dir)) = (args.next(), args.next()) else { return Err("usage: creation HOLDER DIRECTORY [N] [IDLE]".into()) };
    let mut number = |default| args.next().and_then(|n| n.to_str()?.parse().ok()).unwrap_or(default);
    let (n, idle) = (number(500), number(0));
    let mut out = std::io::stdout();
    let holder = if exe.file_name().is_some_and(|name| name == "vmoon") { vec!["lua-host".into()] } else { vec![] };
    if n > 0 {
        let made = vmoon_driver_lua::bench::creation(&exe, &holder, &dir, n, 32)?;
        for (what, mut times) in [("first frame", made.first_frame), ("first answer", made.first_answer)] {
            times.sort();
            let at = |part: usize| Duration::as_secs_f64(&times[times.len() * part / 100]) * 1e6;
            writeln!(out, "{what}: p50 {:.0} µs, p90 {:.0} µs, p99 {:.0} µs of {n}", at(50), at(90), at(99))?;
        }
        writeln!(out, "{:.0} per second, 32 under way", made.per_second)?;
    }
    if idle > 0 {
        let cost = vmoon_driver_lua::bench::idle(&exe, &holder, &dir, idle)?;
        let kib = |bytes: u64| bytes >> 10;
        writeln!(out, "idle: machine {} KiB, PSS {} KiB, private {} KiB of {idle}", kib(cost.machine), kib(cost.pss), kib(cost.private))?;
    }
    Ok(())
}
