//! What is chosen, and what is said when there is no choice.

use super::*;
use crate::{
    lock::{Arch, Why},
    lua_version::LuaVersion,
    manifest::Manifest,
    rockspec::PLATFORMS,
    servers::Server,
};
use serde_json::json;
use std::cell::RefCell;

/// A world of rocks: `NAME VERSION: DEPENDENCY, DEPENDENCY`, one a line; servers are parted by `--`.
struct World {
    index: Index,
    needs: BTreeMap<(RockName, Version), Vec<String>>,
    asked: RefCell<Vec<String>>,
}

impl World {
    fn new(text: &str) -> Self {
        let mut needs = BTreeMap::new();
        let mut servers = Vec::new();
        for (i, rocks) in text.split("--").enumerate() {
            let mut compact = String::from("vmoon manifest 1\n");
            for line in rocks.lines().map(str::trim).filter(|line| !line.is_empty()) {
                let (rock, dependencies) = line.split_once(':').unwrap();
                let (name, version) = rock.split_once(' ').unwrap();
                compact.push_str(&format!("={name}\n{version} rockspec src\n"));
                let dependencies = dependencies.split(';').map(|d| d.trim().to_owned()).filter(|d| !d.is_empty()).collect();
                needs.insert((name.parse().unwrap(), version.parse().unwrap()), dependencies);
            }
            compact.push_str("!0\n");
            let server = Server::new(&format!("s{i}"), &format!("file:///s{i}"), false).unwrap();
            servers.push((server, Manifest::from_compact(compact.as_bytes())));
        }
        Self { index: Index::new(LuaVersion::V54, servers), needs, asked: RefCell::default() }
    }

    fn solve(&self, wanted: &str, locked: &str, update: &Update) -> Result<String> {
        let mut lock = Lock::empty(LuaVersion::V54);
        for rock in locked.split_whitespace() {
            let (name, version) = rock.split_once('@').unwrap();
            let (name, version): (RockName, Version) = (name.parse().unwrap(), version.parse().unwrap());
            let dependencies = self.needs[&(name.clone(), version.clone())].iter().map(|d| d.parse().unwrap()).collect();
            let url = format!("file:///s0/{name}-{version}.src.rock");
            let rock = LockedRock {
                name: name.clone(),
                version,
                arch: Arch::Src,
                url,
                sha256: String::new(),
                source: None,
                dependencies,
                why: Why::Asked,
                modules: Vec::new(),
            };
            lock.rocks.insert(name, rock);
        }
        let wanted: Vec<Dependency> = wanted.split(';').map(|d| d.parse().unwrap()).collect();
        let request = Request { index: &self.index, wanted: &wanted, lock: &lock, update, stop: &Stop::new() };
        let solution = solve(request, self)?;
        Ok(solution.rocks.iter().map(|(name, solved)| format!("{name}@{}", solved.version)).collect::<Vec<_>>().join(" "))
    }

    fn chosen(&self, wanted: &str) -> String {
        self.solve(wanted, "", &Update::Nothing).unwrap()
    }

    fn refused(&self, wanted: &str) -> Error {
        self.solve(wanted, "", &Update::Nothing).unwrap_err()
    }

    fn explanation(&self, wanted: &str) -> Vec<String> {
        let error = self.refused(wanted);
        assert_eq!(error.code(), Code::PackageConflict, "{error}");
        let detail = error.detail_value().unwrap()["explanation"].as_array().unwrap();
        detail.iter().map(|s| s.as_str().unwrap().to_owned()).collect()
    }
}

impl Rockspecs for World {
    fn rockspec(&self, _: &Index, entry: &Entry) -> Result<Arc<Rockspec>> {
        self.asked.borrow_mut().push(format!("{}@{}", entry.name, entry.version));
        let needs = &self.needs[&(entry.name.clone(), entry.version.clone())];
        if needs.iter().any(|need| need == "BROKEN") {
            return Err(Error::new(Code::PackageInvalid, "the rockspec is broken"));
        }
        if needs.iter().any(|need| need == "SERVER") {
            return Err(Error::new(Code::PackageServer, "the server hangs"));
        }
        let platforms: Vec<&str> = needs.iter().filter_map(|need| need.strip_prefix("ONLY ")).collect();
        let dependencies: Vec<&String> = needs.iter().filter(|need| !need.starts_with("ONLY") && *need != "HOOK").collect();
        let hooks =
            if needs.iter().any(|need| need == "HOOK") { json!({"platforms": {"unix": {"post_install": "make x"}}}) } else { json!({}) };
        let spec = json!({
            "rockspec_format": "3.0", "package": entry.name, "version": entry.version, "source": {"url": "file:///x"},
            "dependencies": dependencies, "supported_platforms": platforms, "hooks": hooks,
        });
        Rockspec::from_value(&spec, PLATFORMS).map(Arc::new)
    }
}

/// The rocks that `luarocks` gets wrong: it installs bxalpha 2.0 under bxbeta, which needs less, and says that all is well.
const BX: &str = "
    bxalpha 1.0-1: lua >= 5.1
    bxalpha 1.1-1: lua >= 5.1
    bxalpha 2.0-1: lua >= 5.1
    bxbeta 1.0-1: lua >= 5.1; bxalpha >= 1.0, < 2.0
    bxgamma 0.3-1: lua >= 5.1; bxbeta >= 1.0; bxalpha ~> 1.0
    bxdelta 1.0-1: bxbeta; bxalpha >= 2.0
";

#[test]
fn the_newest_version_that_fits_all_is_chosen() {
    let world = World::new(BX);
    assert_eq!(world.chosen("bxalpha"), "bxalpha@2.0-1");
    assert_eq!(world.chosen("bxbeta"), "bxalpha@1.1-1 bxbeta@1.0-1");
    assert_eq!(world.chosen("bxgamma"), "bxalpha@1.0-1 bxbeta@1.0-1 bxgamma@0.3-1");
    assert_eq!(world.chosen("bxbeta; bxalpha"), "bxalpha@1.1-1 bxbeta@1.0-1");
}

#[test]
fn a_conflict_is_explained() {
    let world = World::new(BX);
    assert_eq!(
        world.explanation("bxbeta; bxalpha >= 2.0"),
        [
            "Because bxbeta 1.0-1 needs bxalpha >= 1.0, < 2.0 and you want bxalpha >= 2.0, bxbeta 1.0-1 cannot be used.",
            "And because you want bxbeta, there is no choice that fits."
        ]
    );
    assert_eq!(
        world.explanation("bxdelta"),
        [
            "Because bxbeta 1.0-1 needs bxalpha >= 1.0, < 2.0 and bxdelta 1.0-1 needs bxalpha >= 2.0, bxbeta 1.0-1 and bxdelta 1.0-1 cannot be used together.",
            "And because bxdelta 1.0-1 needs bxbeta and you want bxdelta, there is no choice that fits."
        ]
    );
}

#[test]
fn what_no_server_has_is_said_with_what_is_near() {
    let world = World::new(BX);
    let error = world.refused("bxalfa; nothing-like-it; bxbeta >= 7; bxgamma");
    assert_eq!(error.code(), Code::PackageNotFound);
    assert_eq!(
        error.message(),
        "the server does not have bxalfa; the server does not have nothing-like-it; no server has bxbeta >= 7 (there is 1.0-1)"
    );
    assert_eq!(error.hint_text(), Some("is it one of these? bxalpha"));
    assert_eq!(world.refused("lua >= 5.1").code(), Code::Usage);
}

#[test]
fn dependencies_that_are_nowhere_are_explained() {
    let world = World::new(
        "a 1-1: bxalfa >= 1\n bxalpha 1-1:\n c 1-1: bxalpha >= 3\n d 1-1: lua >= 5.1, < 5.4\n e 1-1: ONLY windows\n f 1-1: BROKEN\n
        g 1-1: utf8 >= 5.5\n h 1-1: ns/rock",
    );
    assert_eq!(
        world.explanation("a"),
        [
            "Because a 1-1 needs bxalfa >= 1 (the server does not have bxalfa; near to it: bxalpha) and you want a, there is no choice that fits."
        ]
    );
    assert_eq!(world.explanation("c"), ["Because c 1-1 needs bxalpha >= 3 (there is 1-1) and you want c, there is no choice that fits."]);
    assert_eq!(
        world.explanation("d"),
        ["Because d 1-1 needs lua >= 5.1, < 5.4 (this environment is for Lua 5.4) and you want d, there is no choice that fits."]
    );
    assert_eq!(
        world.explanation("e"),
        ["Because e 1-1 cannot be used (it is for other systems (windows)) and you want e, there is no choice that fits."]
    );
    assert_eq!(
        world.explanation("f"),
        ["Because f 1-1 cannot be used (the rockspec is broken) and you want f, there is no choice that fits."]
    );
    assert_eq!(
        world.explanation("g"),
        ["Because g 1-1 needs utf8 >= 5.5 (the interpreter brings 5.4-1) and you want g, there is no choice that fits."]
    );
    assert_eq!(
        world.explanation("h"),
        [
            "Because h 1-1 cannot be used (the rockspec of h has mistakes: dependencies: \"ns/rock\" is a rock of a namespace, which vmoon cannot ask for) and you want h, there is no choice that fits."
        ]
    );
}

#[test]
fn a_long_explanation_goes_step_by_step() {
    let world =
        World::new("foo 1.0-1: a; b\n foo 1.1-1: x; y\n a 1.0-1: b >= 2\n b 1.0-1:\n b 2.0-1:\n x 1.0-1: y >= 2\n y 1.0-1:\n y 2.0-1:");
    assert_eq!(
        world.explanation("foo; y < 2; b < 2"),
        [
            "Because a 1.0-1 needs b >= 2 and foo 1.0-1 needs a, foo 1.0-1 needs b 2.0-1. (1)",
            "Because x 1.0-1 needs y >= 2 and foo 1.1-1 needs x, foo 1.1-1 needs y 2.0-1.",
            "And because foo 1.0-1 needs b 2.0-1 (1), every version of foo needs b 2.0-1 or y 2.0-1.",
            "And because you want b < 2, every version of foo needs y 2.0-1.",
            "And because you want foo and you want y < 2, there is no choice that fits.",
        ]
    );
    let world = World::new("a 1-1: nothere\n a 2-1: alsonot\n b 1-1: x < 1\n b 2-1: x < 2\n c 1-1: x >= 2\n x 0.5-1:\n x 1-1:\n x 2-1:");
    assert_eq!(
        world.explanation("a"),
        [
            "Because a 1-1 needs nothere (the server does not have nothere) and a 2-1 needs alsonot (the server does not have alsonot), \
             every version of a cannot be used.",
            "And because you want a, there is no choice that fits.",
        ]
    );
    assert_eq!(
        world.explanation("b; c"),
        [
            "Because b 1-1 needs x < 1 and b 2-1 needs x < 2, every version of b needs x 0.5-1 or 1-1.",
            "And because c 1-1 needs x >= 2, every version of b and c 1-1 cannot be used together.",
            "And because you want b and you want c, there is no choice that fits.",
        ]
    );
}

#[test]
fn a_cycle_is_no_problem_and_an_impossible_one_is_explained() {
    let world = World::new("a 1-1: b\n b 1-1: c >= 1\n c 1-1: a\n x 1-1: y\n x 2-1: y\n y 1-1: x < 2\n y 2-1: x < 2; a");
    assert_eq!(world.chosen("a"), "a@1-1 b@1-1 c@1-1");
    assert_eq!(world.chosen("x"), "a@1-1 b@1-1 c@1-1 x@1-1 y@2-1");
    assert_eq!(
        world.explanation("x >= 2"),
        [
            "Because every version of y needs x < 2 and x 2-1 needs y, x 2-1 cannot be used.",
            "And because you want x >= 2, there is no choice that fits."
        ]
    );
}

#[test]
fn versions_that_cannot_be_used_are_stepped_over() {
    let world = World::new("a 1-1:\n a 2-1: BROKEN\n a 3-1: lua >= 5.5\n a 4-1: ONLY macosx\n a 5-1: HOOK\n b 1-1: SERVER");
    assert_eq!(world.chosen("a"), "a@1-1");
    // A server that does not answer says nothing of the version: the search ends.
    assert_eq!(world.refused("b").code(), Code::PackageServer);
}

#[test]
fn what_is_locked_stays_unless_it_must_change_or_is_asked_to() {
    let world = World::new("a 1-1: b\n a 2-1: b >= 2\n b 1-1:\n b 2-1:\n b 2-2:\n c 1-1: b\n c 2-1:");
    let locked = "a@1-1 b@1-1 c@1-1";
    let solve = |wanted: &str, update: &Update| world.solve(wanted, locked, update).unwrap();
    assert_eq!(solve("a; c", &Update::Nothing), locked);
    assert!(world.asked.borrow().is_empty(), "rockspecs of what is installed were read");
    let one = Update::Rocks(["c".parse().unwrap()].into());
    assert_eq!(solve("a; c", &one), "a@1-1 b@1-1 c@2-1");
    // An update of a needs a newer b; c stays.
    let one = Update::Rocks(["a".parse().unwrap()].into());
    assert_eq!(solve("a; c", &one), "a@2-1 b@2-2 c@1-1");
    assert_eq!(solve("a; c", &Update::Everything), "a@2-1 b@2-2 c@2-1");
    assert_eq!(solve("a >= 2; c", &Update::Nothing), "a@2-1 b@2-2 c@1-1");
    assert_eq!(solve("c", &Update::Nothing), "b@1-1 c@1-1");
}

#[test]
fn what_is_locked_can_stay_when_no_server_has_it_any_more() {
    let mut world = World::new("old 1-1: gone\n gone 1-1:\n new 1-1: gone");
    world.index = World::new("new 1-1:").index;
    assert_eq!(world.solve("old; new", "old@1-1 gone@1-1", &Update::Everything).unwrap(), "gone@1-1 new@1-1 old@1-1");
}

#[test]
fn the_newest_state_of_a_repository_is_taken_only_when_asked_for() {
    let world = World::new("a 1-1:\n a scm-1:\n b dev-1:\n c 1-1: a scm\n d 1-1: a; c\n e 1-1: b; f\n f 1-1: g\n g 1-1: b == dev");
    assert_eq!(world.chosen("a"), "a@1-1");
    assert_eq!(world.chosen("a@scm"), "a@scm-1");
    assert_eq!(world.chosen("d"), "a@scm-1 c@1-1 d@1-1");
    assert_eq!(world.chosen("e"), "b@dev-1 e@1-1 f@1-1 g@1-1", "asked for by a rock that is met after b was refused");
    assert_eq!(
        world.explanation("b"),
        ["Because b dev-1 is not released, and taken only when asked for (b@dev-1) and you want b, there is no choice that fits."]
    );
}

#[test]
fn the_first_server_that_has_a_rock_decides() {
    let world = World::new("private 1.0-1:\n -- private 9.0-1:\n other 1-1: private");
    assert_eq!(world.chosen("other"), "other@1-1 private@1.0-1");
    assert_eq!(
        world.refused("private >= 2").message(),
        "no server has private >= 2 (there is 1.0-1), but s1 has it: a server that is asked before that has private too, and decides"
    );
}

#[test]
fn a_search_can_be_stopped() {
    let world = World::new(BX);
    let stop = Stop::new();
    stop.stop();
    let (lock, update) = (Lock::empty(LuaVersion::V54), Update::Nothing);
    let wanted = ["bxgamma".parse().unwrap()];
    let request = Request { index: &world.index, wanted: &wanted, lock: &lock, update: &update, stop: &stop };
    assert_eq!(solve(request, &world).unwrap_err().code(), Code::Cancelled);
}

/// Sixty rocks of ten versions, each of which needs others of the same age or older; the newest ten of one do not fit, so that the search must go back.
#[test]
fn fifty_rocks_are_solved_in_no_time() {
    let mut text = String::new();
    for rock in 0..60u32 {
        for version in 1..=10u32 {
            let mut needs: Vec<String> =
                (1..=3).map(|k| rock + k * k).filter(|n| *n < 60).map(|n| format!("r{n} >= {}, <= {version}", version - 1)).collect();
            if rock == 59 && version > 4 {
                needs.push("lua >= 5.5".into());
            }
            text.push_str(&format!("r{rock} {version}-1: {}\n", needs.join(";")));
        }
    }
    let world = World::new(&text);
    let start = std::time::Instant::now();
    let chosen = world.chosen("r0");
    let took = start.elapsed();
    assert!(chosen.split(' ').count() >= 50, "{chosen}");
    assert!(took < std::time::Duration::from_secs(1), "{took:?}");
    assert!(world.solve("r0 >= 9; r59", "", &Update::Nothing).is_ok());
    let error = world.refused("r0 >= 9; r59 >= 5");
    assert!(error.message().len() < 20_000, "{}", error.message().len());
}
