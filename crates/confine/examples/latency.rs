//! What each layer adds to a fork: `cargo run --release -p vmoon-confine --example latency`. The figures of decision 0014 are made by it.

use std::io::Write as _;
use std::time::Instant;
use vmoon_confine::{Layer, Limits, Prepared, Profile, Rules, apply};

/// Forks of each kind. They take turns, so that what disturbs the computer disturbs all of them alike.
const ROUNDS: usize = 1000;

fn main() {
    let begun = Instant::now();
    let prepared = Prepared::new();
    say(&format!("prepared in {:.1} us, the longest filter has {} instructions", micros(begun), prepared.filter_length()));
    let here = std::env::current_dir().and_then(|dir| dir.canonicalize()).expect("a current directory");
    let all = Rules {
        profile: Profile::Files,
        read: ["/usr/share", "/usr/lib", "/usr/local/share"].map(Into::into).to_vec(),
        write: vec![here],
        execute: vec!["/usr/local/lib".into()],
        limits: Limits { memory: Some(256 << 20), cpu: Some(60), file_size: Some(1 << 30), open_files: Some(64) },
        ..Rules::default()
    };
    let layers = [Layer::Privileges, Layer::Rlimits, Layer::Landlock, Layer::Seccomp];
    let only = |layer: Layer| Rules { without: layers.into_iter().filter(|other| *other != layer).collect(), ..all.clone() };
    let none = Rules { without: layers.to_vec(), ..all.clone() };
    let kinds: Vec<(String, Option<Rules>)> =
        [("a fork and nothing else".to_owned(), None), ("+ the call, all layers off".to_owned(), Some(none))]
            .into_iter()
            .chain(layers.into_iter().map(|layer| (format!("+ {layer}"), Some(only(layer)))))
            .chain([("+ all, profile files".to_owned(), Some(all.clone()))])
            .chain([(
                "+ all, profile sealed, nothing granted".to_owned(),
                Some(Rules { limits: all.limits.clone(), profile: Profile::Sealed, ..Rules::default() }),
            )])
            .collect();
    let mut times = vec![Vec::with_capacity(ROUNDS); kinds.len()];
    for _ in 0..ROUNDS {
        for (times, (_, rules)) in times.iter_mut().zip(&kinds) {
            times.push(one(rules.as_ref(), &prepared));
        }
    }
    let mut floor = None;
    for (times, (name, _)) in times.iter_mut().zip(&kinds) {
        times.sort_by(f64::total_cmp);
        let (p50, p99) = (times[ROUNDS / 2], times[ROUNDS * 99 / 100]);
        let floor = *floor.get_or_insert(p50);
        say(&format!("{name:40} p50 {p50:7.1} us  p99 {p99:7.1} us  adds {:6.1} us", p50 - floor));
    }
}

/// Forks a process that applies the rules and ends; how long until it is reaped, in microseconds.
fn one(rules: Option<&Rules>, prepared: &Prepared) -> f64 {
    let begun = Instant::now();
    // SAFETY: this process has one thread, so the child may do whatever this one may.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        let good = rules.is_none_or(|rules| apply(rules, prepared).is_ok());
        // SAFETY: ends the child without running what the parent has registered.
        unsafe { libc::_exit(i32::from(!good)) };
    }
    let mut status = 0;
    // SAFETY: writes one number.
    let reaped = unsafe { libc::waitpid(pid, &raw mut status, 0) };
    assert!(reaped == pid && status == 0, "the rules were not applied");
    micros(begun)
}

fn micros(begun: Instant) -> f64 {
    begun.elapsed().as_secs_f64() * 1e6
}

fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}
