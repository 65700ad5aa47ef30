//! Every attempt of the table is made in every profile, with all layers, with each one switched off, and with those that stop it switched off.
//!
//! What is made is a real call in a real process that was confined by [`vmoon_confine::apply`]. Run by root the table is tested as root and as an ordinary user.

mod launch;
mod stage;

use stage::{Result as Tried, Stage};
use std::io::Write as _;
use vmoon_confine::attempts::{self, Attempt, Outcome};
use vmoon_confine::{Layer, Limits, Prepared, Profile, Rules, Status, probe};

/// The layers that are tested here: those that [`vmoon_confine::apply`] applies.
const LAYERS: [Layer; 4] = [Layer::Privileges, Layer::Rlimits, Layer::Landlock, Layer::Seccomp];

/// An ordinary user, who needs no entry anywhere.
const NOBODY: u32 = 65_534;

/// Whether root runs the tests.
fn root() -> bool {
    // SAFETY: geteuid(2) always succeeds.
    unsafe { libc::geteuid() == 0 }
}

#[test]
fn the_layers_stop_what_the_table_says() {
    let report = probe();
    for layer in [Layer::Landlock, Layer::Seccomp] {
        assert_eq!(report.get(layer), Some(&Status::On), "this test needs a kernel with all layers (Linux 6.12 and later)");
    }
    let problems = whole_table(&stage::library(), root());
    assert!(problems.is_empty(), "{} problems:\n{}", problems.len(), problems.join("\n"));
}

#[test]
fn they_stop_an_ordinary_user_as_well() {
    if !root() {
        return; // then the other test has shown just that
    }
    let library = stage::library();
    let status = stage::in_child(|| {
        stage::become_user(NOBODY);
        let problems = whole_table(&library, false);
        for problem in &problems {
            let _ = writeln!(std::io::stderr(), "as an ordinary user: {problem}");
        }
        i32::from(!problems.is_empty())
    });
    assert_eq!(status, Tried::Ended(0), "the table does not hold for an ordinary user; see above");
}

/// What a profile grants on the stage.
fn rules(stage: &Stage, profile: Profile, without: &[Layer]) -> Rules {
    let trusted = profile == Profile::Trusted;
    let work = matches!(profile, Profile::Files | Profile::Net);
    Rules {
        profile,
        read: vec![stage.granted.clone()],
        write: if work { vec![stage.work.clone()] } else { vec![] },
        // In `sealed` nothing is granted for execution, in the others C modules are.
        execute: if work { vec![stage.modules.clone()] } else { vec![] },
        programs: false,
        compiles: false,
        hosts: vec![],
        limits: if trusted {
            Limits::default()
        } else {
            Limits { memory: Some(256 << 20), cpu: Some(1), file_size: Some(64 << 20), open_files: Some(64) }
        },
        without: without.to_vec(),
    }
}

/// Tests all lines; returns a sentence for each that does not hold.
fn whole_table(library: &stage::Library, root: bool) -> Vec<String> {
    let prepared = Prepared::new();
    let stage = Stage::set();
    let mut problems = Vec::new();
    for attempt in attempts::all().expect("the table") {
        let run = |profile: Profile, without: &[Layer]| stage.make(library, &attempt, &rules(&stage, profile, without), &prepared);
        let free = run(Profile::Trusted, &[]);
        let possible = free == Tried::Ended(0);
        let excused = attempt.needs.kernel || (attempt.needs.root && !root);
        if !(possible || excused) {
            problems.push(format!("{}: not even `trusted` can do it: {free}", attempt.name));
        }
        for profile in [Profile::Sealed, Profile::Files, Profile::Net] {
            for without in choices(&attempt, profile) {
                let result = run(profile, &without);
                let wanted = attempt.outcome(profile).succeeds_without(&without);
                let off = without.iter().map(|layer| layer.as_str()).collect::<Vec<_>>().join("+");
                let off = if off.is_empty() { "nothing".to_owned() } else { off };
                if result == Tried::Ended(0) && !wanted {
                    problems.push(format!("{} in {profile} without {off}: SUCCEEDED", attempt.name));
                } else if result != Tried::Ended(0) && wanted && possible {
                    problems.push(format!("{} in {profile} without {off}: {result}, though nothing should stop it", attempt.name));
                }
            }
        }
    }
    problems
}

/// Which layers to switch off for a line: none, each, all that stop it, and all of these but one.
fn choices(attempt: &Attempt, profile: Profile) -> Vec<Vec<Layer>> {
    let Outcome::Stopped(layers) = attempt.outcome(profile) else { return vec![vec![]] };
    let here: Vec<Layer> = layers.iter().copied().filter(|layer| LAYERS.contains(layer)).collect();
    let mut choices = vec![vec![], here.clone()];
    if !attempt.needs.slow {
        choices.extend(LAYERS.iter().map(|layer| vec![*layer]));
    }
    for kept in &here {
        choices.push(here.iter().copied().filter(|layer| layer != kept).collect());
    }
    for choice in &mut choices {
        choice.sort();
        // The broker is not applied by this crate's `apply`, so where it is one of those that stop an attempt it is off throughout.
        if layers.contains(&Layer::Broker) {
            choice.push(Layer::Broker);
        }
    }
    choices.sort();
    choices.dedup();
    choices
}
