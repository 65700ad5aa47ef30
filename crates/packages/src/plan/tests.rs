//! Plans, reasons, and who needs whom.

use super::*;
use crate::{index::Index, manifest::Manifest, servers::Server};
use vmoon_core::Code;

/// `wanted; wanted | NAME@VERSION DEPENDENCY, DEPENDENCY | …`
fn lock(text: &str) -> Lock {
    let mut parts = text.split('|').map(str::trim);
    let mut lock = Lock::empty(LuaVersion::V54);
    lock.wanted = parts.next().unwrap().split(';').filter(|w| !w.trim().is_empty()).map(|w| w.parse().unwrap()).collect();
    for part in parts {
        let (rock, needs) = part.split_once(' ').unwrap_or((part, ""));
        let (name, version) = rock.split_once('@').unwrap();
        let name: RockName = name.parse().unwrap();
        let rock = LockedRock {
            name: name.clone(),
            version: version.parse().unwrap(),
            arch: Arch::All,
            url: format!("file:///s/{name}-{version}.all.rock"),
            sha256: String::new(),
            source: None,
            dependencies: needs.split(',').filter(|n| !n.trim().is_empty()).map(|n| n.parse().unwrap()).collect(),
            why: Why::Asked,
            modules: Vec::new(),
        };
        lock.rocks.insert(name, rock);
    }
    lock.reason();
    lock
}

/// The plan from one lock to the choice another one stands for.
fn planned(current: &str, goal: &str, remove: &[&str], remove_orphans: bool) -> Vec<String> {
    let (current, goal) = (lock(current), lock(goal));
    let solved = |rock: &LockedRock| Solved {
        version: rock.version.clone(),
        origin: Origin::Lock(Box::new(rock.clone())),
        dependencies: rock.dependencies.clone(),
    };
    let solution = Solution { rocks: goal.rocks.iter().map(|(name, rock)| (name.clone(), solved(rock))).collect() };
    let remove: Vec<RockName> = remove.iter().map(|name| name.parse().unwrap()).collect();
    let plan = plan(Inputs {
        current: &current,
        wanted: &goal.wanted,
        servers: &[],
        solution: &solution,
        remove: &remove,
        remove_orphans,
        download: &|_| Some(7),
    });
    assert!(plan.lock.problems().is_empty(), "{:?}", plan.lock.problems());
    assert!(plan.steps.iter().all(|step| step.action == Action::Keep || step.action == Action::Remove || step.download_bytes == Some(7)));
    plan.steps.iter().map(|step| format!("{} {} {}: {}", step.action.as_str(), step.rock.name, step.rock.version, step.why)).collect()
}

#[test]
fn steps_come_in_the_order_of_needs_with_reasons() {
    assert_eq!(
        planned("", "top >= 1 | top@1-1 low, mid | mid@1-1 low >= 1 | low@2-1", &[], false),
        [
            "install low 2-1: mid 1-1 needs low >= 1, and 1 more needs it",
            "install mid 1-1: top 1-1 needs mid",
            "install top 1-1: you want top >= 1",
        ]
    );
    assert_eq!(
        planned("a; b | a@1-1 | b@1-1 | c@1-1 a", "a; b >= 2; d | a@2-1 | b@2-1 | d@1-1 a >= 2, e | e@1-1 d", &[], true),
        [
            "remove c 1-1: nothing needs it any more",
            "replace a 2-1: d 1-1 needs a >= 2",
            "replace b 2-1: you want b >= 2",
            "install e 1-1: d 1-1 needs e",
            "install d 1-1: you want d, and 1 more needs it",
        ]
    );
    assert_eq!(planned("a | a@2-1 b | b@1-1", "a | a@1-1", &[], true)[1], "replace a 1-1: the rest fits together so");
    assert_eq!(planned("a | a@1-1", "a | a@2-1", &[], false), ["replace a 2-1: 2-1 is newer"]);
}

#[test]
fn orphans_stay_unless_asked_or_broken() {
    let current = "a | a@1-1 b | b@1-1 | c@1-1 b >= 1 | d@1-1 c";
    assert_eq!(
        planned(current, "", &["a"], false),
        [
            "remove a 1-1: it is not wanted any more",
            "keep b 1-1: c 1-1 needs b >= 1",
            "keep c 1-1: d 1-1 needs c",
            "keep d 1-1: nothing needs it, and its removal is not asked for",
        ]
    );
    assert_eq!(planned(current, "", &["a"], true).iter().filter(|step| step.starts_with("remove")).count(), 4);
    // b 0.5 is too old for c, and d needs c: both go, and the plan says so.
    assert_eq!(
        planned(current, "a | a@1-1 b | b@0.5-1", &[], false)[..2],
        [
            "remove d 1-1: nothing needs it, and it needs c, which changes",
            "remove c 1-1: nothing needs it, and it needs b >= 1, which changes"
        ]
    );
}

#[test]
fn a_lock_is_installed_as_it_is() {
    let mut target = lock("a | a@1-1 b | b@1-1");
    let plan = sync(&target, &target, &|_| None);
    assert!(plan.is_empty());
    let before = target.clone();
    if let Some(rock) = target.rocks.get_mut("b") {
        rock.sha256 = "1".repeat(64);
    }
    assert!(sync(&before, &target, &|_| None).is_empty(), "what has no check sum yet differs from nothing");
    let mut other = target.clone();
    if let Some(rock) = other.rocks.get_mut("b") {
        rock.sha256 = "2".repeat(64);
    }
    let plan = sync(&target, &other, &|_| None);
    let step = &plan.steps[0];
    assert_eq!((step.why.as_str(), step.download_bytes, &step.build), ("its files have changed", None, &Build::Unpack));
    assert_eq!(counts(&plan), BTreeMap::from([("keep", 1), ("replace", 1)]));
}

#[test]
fn what_is_needed_does_not_go() {
    let lock = lock("a; d | a@1-1 b >= 1 | b@1-1 c | c@1-1 b | d@1-1 b");
    let names = |names: &[&str]| names.iter().map(|name| name.parse().unwrap()).collect::<Vec<RockName>>();
    let error = removable(&lock, &names(&["b"])).unwrap_err();
    assert_eq!((error.code(), error.message()), (Code::PackageRequired, "a 1-1 needs b >= 1; c 1-1 needs b; d 1-1 needs b"));
    assert_eq!(error.hint_text(), Some("remove a, c, d too, or keep it"));
    assert_eq!(removable(&lock, &names(&["x", "y"])).unwrap_err().message(), "not installed here: x, y");
    removable(&lock, &names(&["a", "b", "c", "d"])).unwrap();
    removable(&lock, &names(&["a"])).unwrap();
}

#[test]
fn every_way_that_leads_to_a_rock_is_told() {
    let lock = lock("a; d ~> 1 | a@1-1 b >= 1 | b@1-1 c | c@1-1 b | d@1-1 b, a | o@1-1 c");
    let ways = |name: &str| -> Vec<String> {
        let ways = why(&lock, &name.parse().unwrap()).unwrap();
        ways.iter().map(|way| way.iter().map(|link| link.needed.to_string()).collect::<Vec<_>>().join(" > ")).collect()
    };
    assert_eq!(ways("b"), ["a > b >= 1", "d ~> 1 > b", "d ~> 1 > a > b >= 1"]);
    assert_eq!(ways("a"), ["a", "d ~> 1 > a"]);
    assert!(ways("o").is_empty());
    assert_eq!(orphans(&lock).iter().map(RockName::as_str).collect::<Vec<_>>(), ["o"]);
    assert_eq!(why(&lock, &"x".parse().unwrap()).unwrap_err().code(), Code::PackageNotFound);
}

fn drawn(nodes: &[Node], depth: usize, out: &mut Vec<String>) {
    for node in nodes {
        out.push(format!("{}{} {}{}", " ".repeat(depth), node.name, node.version, if node.again { " *" } else { "" }));
        drawn(&node.needs, depth + 1, out);
    }
}

#[test]
fn a_tree_shows_each_rock_below_its_first() {
    let lock = lock("a; d | a@1-1 b | b@1-1 c, lua >= 5.1 | c@1-1 b | d@1-1 b, a | x@1-1 y | y@1-1 x, c");
    let mut out = Vec::new();
    drawn(&tree(&lock), 0, &mut out);
    assert_eq!(
        out,
        ["a 1-1", " b 1-1", "  c 1-1", "   b 1-1 *", "d 1-1", " b 1-1 *", " a 1-1 *", "x 1-1", " y 1-1", "  x 1-1 *", "  c 1-1 *"]
    );
}

#[test]
fn a_long_chain_is_no_problem() {
    let mut text = String::from("r0");
    for n in 0..5000 {
        text.push_str(&format!(" | r{n}@1-1 r{}", if n == 4999 { 0 } else { n + 1 }));
    }
    let lock = lock(&text);
    assert_eq!(graph::order(&lock)[0].as_str(), "r4999");
    assert_eq!(why(&lock, &"r100".parse().unwrap()).unwrap()[0].len(), 101);
    assert_eq!(tree(&lock).len(), 1);
}

#[test]
fn what_could_be_newer_and_what_holds_it_back() {
    let compact = "vmoon manifest 1\n=a\n1-1 src\n1.5-1 src\n2-1 src\nscm-1 src\n=b\n1-1 src\n=c\n1-1 src\n1-2 src\n!0\n";
    let server = Server::new("s", "file:///s", false).unwrap();
    let index = Index::new(LuaVersion::V54, vec![(server, Manifest::from_compact(compact.as_bytes()))]);
    let lock = lock("a; b; c < 2 | a@1-1 | b@1-1 a < 2 | c@1-1");
    let found: Vec<String> = outdated(&lock, &index)
        .into_iter()
        .map(|o| format!("{} {} -> {:?} {} {:?}", o.name, o.version, o.allowed.map(|v| v.to_string()), o.newest, o.held_by))
        .collect();
    assert_eq!(found, ["a 1-1 -> Some(\"1.5-1\") 2-1 [\"b 1-1 needs a < 2\"]", "c 1-1 -> Some(\"1-2\") 1-2 []"]);
}
