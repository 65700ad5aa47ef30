//! What everybody sees of locks, generations and files.

use crate::{
    catalogue,
    environment::{Entry, Environment, Problem, ProblemKind},
    lock::Lock,
    plan::{self, Action, Build, Plan},
};
use vmoon_core::{
    Result,
    package::{Difference, GenerationInfo, HistoryEntry, PackagePlan, PackageStep, ProfileInfo, RockInfo},
};

/// The rocks of a lock, by name.
pub(super) fn rocks(lock: &Lock) -> Vec<RockInfo> {
    lock.rocks
        .values()
        .map(|rock| RockInfo {
            name: rock.name.to_string(),
            version: rock.version.to_string(),
            arch: rock.arch.to_string(),
            asked: lock.is_asked(&rock.name),
            needed_by: lock.dependents(&rock.name).into_iter().map(|other| other.name.to_string()).collect(),
            dependencies: rock.dependencies.iter().map(ToString::to_string).collect(),
            modules: rock.modules.clone(),
            url: rock.url.clone(),
            sha256: rock.sha256.clone(),
            newer: None,
            unasked: Vec::new(),
        })
        .collect()
}

fn said(entry: &Entry) -> String {
    if entry.asked.is_empty() { entry.what.clone() } else { format!("{} {}", entry.what, entry.asked.join(" ")) }
}

/// The generations of an environment, the newest first.
pub(super) fn generations(environment: &Environment) -> Result<Vec<GenerationInfo>> {
    let mut all: Vec<GenerationInfo> = environment
        .infos()?
        .into_iter()
        .map(|info| GenerationInfo {
            number: info.entry.generation,
            created_ms: info.entry.at_ms,
            current: info.current,
            what: said(&info.entry),
            rocks: environment.lock_of(info.entry.generation).map_or(0, |lock| lock.rocks.len() as u64),
        })
        .collect();
    all.reverse();
    Ok(all)
}

/// One switch.
pub(super) fn entry(entry: Entry) -> HistoryEntry {
    HistoryEntry { at_ms: entry.at_ms, generation: entry.generation, what: said(&entry), changes: entry.changes }
}

/// One file that is not as it should be.
pub(super) fn difference(problem: Problem) -> Difference {
    let what = match problem.kind {
        ProblemKind::Missing => "missing",
        ProblemKind::Changed => "changed",
        ProblemKind::Extra => "extra",
    };
    Difference { file: problem.path, rock: problem.rock.map(|rock| rock.to_string()), what: what.to_owned() }
}

fn build(build: &Build) -> String {
    match build {
        Build::Nothing => "nothing".to_owned(),
        Build::Unpack => "unpack".to_owned(),
        Build::Copy => "copy".to_owned(),
        Build::Compile => "compile".to_owned(),
        Build::AsLocked => "as locked".to_owned(),
        Build::Luarocks(kind) => kind.clone(),
    }
}

/// A plan; rocks that stay are counted only.
pub(super) fn plan(environment: &str, generation: u64, plan: &Plan, (notes, unasked): (Vec<String>, Vec<String>)) -> PackagePlan {
    let (kept, done): (Vec<_>, Vec<_>) = plan.steps.iter().partition(|step| step.action == Action::Keep);
    PackagePlan {
        environment: environment.to_owned(),
        lua: plan.lua.to_string(),
        generation,
        steps: done
            .into_iter()
            .map(|step| PackageStep {
                action: step.action.as_str().to_owned(),
                name: step.rock.name.to_string(),
                version: step.rock.version.to_string(),
                from: if let Action::Replace { from } = &step.action { Some(from.to_string()) } else { None },
                download_bytes: step.download_bytes,
                build: build(&step.build),
                url: step.rock.url.clone(),
                why: step.why.clone(),
            })
            .collect(),
        kept: kept.len() as u64,
        orphans: plan::orphans(&plan.lock).iter().map(ToString::to_string).collect(),
        notes,
        unasked,
    }
}

/// The profiles, with all their packages.
pub(super) fn profiles() -> Result<Vec<ProfileInfo>> {
    let shown = |profile: &catalogue::Profile| {
        let packages = profile.all_rocks(|_| Ok(None))?.iter().map(ToString::to_string).collect();
        Ok(ProfileInfo { name: profile.name.clone(), summary: profile.summary.clone(), packages })
    };
    catalogue::profiles().iter().map(shown).collect()
}
