//! The table of attempts from inside real machines: a C module makes them in a running Lua VM, as somebody's module could.
//!
//! `crates/confine` tries them in processes that it confines itself, with every choice of layers. Here the whole is tried: settings,
//! grants, zygote or launcher, interpreter. A machine in which something was stopped goes on to the next attempt; one that
//! reached something, ended, or has used something up is replaced.

mod stage;

use stage::{Stage, Tried, Vm};
use vmoon_confine::{
    Layer, Profile,
    attempts::{self, Attempt, Outcome},
};

/// The layers that may be left off here; which one of them stops an attempt is in the table.
const LAYERS: [Layer; 4] = [Layer::Privileges, Layer::Rlimits, Layer::Landlock, Layer::Seccomp];

fn root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Who attacks.
#[derive(Clone, Copy)]
struct Attacker {
    runtime: &'static str,
    profile: Profile,
}

impl Attacker {
    async fn vm(self, stage: &Stage, without: &[Layer]) -> Vm {
        if self.profile == Profile::Sealed && self.runtime == "builtin" {
            return stage.sealed(without);
        }
        // In `sealed` the libraries load no module; in the others they do, and hold as well.
        let lua = (self.profile == Profile::Sealed).then_some(Layer::Lua);
        let without: Vec<Layer> = without.iter().copied().chain(lua).collect();
        stage.machine(self.runtime, self.profile, &without).await
    }

    /// Whether the table speaks of this machine: one that may load a module may map code.
    fn concerns(self, attempt: &Attempt) -> bool {
        !(attempt.needs.code && self.profile == Profile::Sealed)
    }

    /// All attempts with these layers off; a sentence for each that ends otherwise than the table says.
    async fn series(self, stage: &Stage, without: &[Layer], all: &[Attempt]) -> Vec<String> {
        let mut problems = Vec::new();
        let mut vm = None;
        for attempt in all.iter().filter(|attempt| self.concerns(attempt)) {
            let outcome = attempt.outcome(self.profile);
            // What succeeds when something is off is for `reached`, and what takes seconds is tried once.
            if !without.is_empty() && (outcome.succeeds_without(without) || attempt.needs.slow) {
                continue;
            }
            let mut attacker = match vm.take() {
                Some(vm) => vm,
                None => self.vm(stage, without).await,
            };
            let tried = stage.make(&mut attacker, attempt).await;
            let wanted = *outcome == Outcome::Allowed;
            let Attacker { runtime, profile } = self;
            let place = format!("{} in {profile} of {runtime} without {}", attempt.name, stage::shown(without));
            match &tried {
                Tried::Reached if !wanted => problems.push(format!("{place}: SUCCEEDED")),
                Tried::Stopped(_) | Tried::Ended(_) if wanted => problems.push(format!("{place}: {tried:?}, though it is allowed")),
                // Stopped by a lack that an earlier attempt has left behind says nothing.
                Tried::Stopped(libc::EMFILE | libc::ENFILE) if attempt.group != "Exhaustion" => {
                    problems.push(format!("{place}: {tried:?}"))
                }
                _ => {}
            }
            if matches!(tried, Tried::Stopped(_) | Tried::NoStage) && attempt.group != "Exhaustion" && attacker.answers() {
                vm = Some(attacker);
            } else {
                stage.end(attacker).await;
            }
        }
        if let Some(vm) = vm {
            stage.end(vm).await;
        }
        problems
    }

    /// All attempts with all layers off that stop them: each must reach what it wants, if it does in a trusted machine.
    async fn reached(self, stage: &Stage, all: &[Attempt]) -> Vec<String> {
        let mut problems = Vec::new();
        for attempt in all.iter().filter(|attempt| self.concerns(attempt)) {
            let Outcome::Stopped(layers) = attempt.outcome(self.profile) else { continue };
            let mut layers = layers.clone();
            // The broker's filter refuses sockets as well.
            if self.profile == Profile::Net && layers.contains(&Layer::Seccomp) && !layers.contains(&Layer::Broker) {
                layers.push(Layer::Broker);
            }
            let mut vm = self.vm(stage, &layers).await;
            let tried = stage.make(&mut vm, attempt).await;
            stage.end(vm).await;
            if tried == Tried::Reached || tried == Tried::NoStage {
                continue;
            }
            let trusted = Attacker { profile: Profile::Trusted, ..self };
            let mut vm = trusted.vm(stage, &[]).await;
            let free = stage.make(&mut vm, attempt).await;
            stage.end(vm).await;
            let Attacker { runtime, profile } = self;
            if free == Tried::Reached {
                problems.push(format!("{} in {profile} of {runtime} without {}: {tried:?}", attempt.name, stage::shown(&layers)));
            } else if !(attempt.needs.kernel || (attempt.needs.root && !root())) {
                problems.push(format!("{} in trusted of {runtime}: {free:?}", attempt.name));
            }
        }
        problems
    }

    async fn whole_table(self) {
        let all = attempts::all().unwrap();
        let stage = Stage::set().await;
        let mut problems = self.series(&stage, &[], &all).await;
        for layer in LAYERS {
            problems.extend(self.series(&stage, &[layer], &all).await);
        }
        problems.extend(self.reached(&stage, &all).await);
        assert!(problems.is_empty(), "{} problems:\n{}", problems.len(), problems.join("\n"));
    }
}

#[tokio::test]
async fn sealed_machines_hold() {
    Attacker { runtime: "builtin", profile: Profile::Sealed }.whole_table().await;
}

#[tokio::test]
async fn machines_with_files_hold() {
    Attacker { runtime: "builtin", profile: Profile::Files }.whole_table().await;
}

#[tokio::test]
async fn machines_with_hosts_hold() {
    Attacker { runtime: "builtin", profile: Profile::Net }.whole_table().await;
}

#[tokio::test]
async fn installed_interpreters_with_hosts_hold() {
    Attacker { runtime: "lua5.4", profile: Profile::Net }.whole_table().await;
}

#[tokio::test]
async fn sealed_installed_interpreters_hold() {
    Attacker { runtime: "lua5.4", profile: Profile::Sealed }.whole_table().await;
}

#[tokio::test]
async fn installed_interpreters_with_files_hold() {
    for runtime in ["lua5.4", "luajit"] {
        let attacker = Attacker { runtime, profile: Profile::Files };
        let (all, stage) = (attempts::all().unwrap(), Stage::set().await);
        let mut problems = attacker.series(&stage, &[], &all).await;
        if runtime == "lua5.4" {
            problems.extend(attacker.reached(&stage, &all).await);
        }
        assert!(problems.is_empty(), "{} problems:\n{}", problems.len(), problems.join("\n"));
    }
}
