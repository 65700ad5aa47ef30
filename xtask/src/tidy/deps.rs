//! Who may depend on whom: the table of `ARCHITECTURE.md`, held to the letter.
//!
//! A crate of ours exists because its absence from a dependency list says something; so the lists are checked.

use super::{Finding, Source};

/// For each crate (the folder below `crates/`, and `xtask`) those of ours it may depend on.
const OURS: &[(&str, &[&str])] = &[
    ("core", &[]),
    ("sys", &["core"]),
    ("lua-wire", &["core"]),
    ("api", &["core"]),
    ("driver-sim", &["core"]),
    ("confine", &["core"]),
    ("driver-lua", &["core", "sys", "confine", "lua-wire"]),
    ("packages", &["core", "sys", "confine"]),
    ("libvirt-wire", &[]),
    ("xapi", &[]),
    ("guest-image", &[]),
    ("libvirt-lab", &["guest-image"]),
    ("ssh-lab", &[]),
    ("xapi-sim", &["xapi", "sys", "guest-image"]),
    ("remote", &["core", "sys", "lua-wire"]),
    ("guest", &["core", "sys", "remote"]),
    ("driver-ssh", &["core", "sys", "remote"]),
    ("xml", &["core"]),
    ("seed", &["core", "xml"]),
    ("driver-xcpng", &["core", "sys", "xapi", "seed", "guest"]),
    ("driver-libvirt", &["core", "sys", "libvirt-wire", "xml", "seed", "guest"]),
    ("daemon", &["core", "sys", "api", "driver-lua", "driver-ssh", "driver-xcpng", "xapi", "driver-libvirt", "guest", "packages"]),
    ("vmoon", &["core", "sys", "api", "daemon", "driver-lua", "packages", "guest-image", "xapi-sim"]),
    ("fuzz", &["core", "sys", "api", "lua-wire", "driver-lua", "remote", "libvirt-wire", "xapi", "xml"]),
    ("xtask", &[]),
];

/// What the tests of every crate may use besides.
const OURS_IN_TESTS: &[&str] = &["driver-sim", "guest-image", "libvirt-lab", "ssh-lab", "xapi-sim"];

/// Crates whose foreign dependencies are all named here: they stay small, pure and quick to build.
const FOREIGN: &[(&str, &[&str])] =
    &[("core", &["async-trait", "serde", "serde_json", "uuid"]), ("lua-wire", &["serde", "serde_json"]), ("xtask", &[])];

/// Foreign crates that only these of ours may use.
const RESERVED: &[(&str, &[&str])] = &[
    ("mlua-sys", &["driver-lua"]),
    ("rusqlite", &["daemon"]),
    ("hyper", &["api", "daemon", "xapi", "xapi-sim"]),
    ("hyper-util", &["api", "daemon", "xapi", "xapi-sim"]),
    ("tokio-tungstenite", &["api", "daemon"]),
    ("clap", &["vmoon"]),
    ("clap_complete", &["vmoon"]),
    ("indicatif", &["vmoon"]),
    ("reedline", &["vmoon"]),
    ("tracing-subscriber", &["vmoon"]),
    ("russh", &["remote"]),
    ("russh-sftp", &["remote"]),
    ("pubgrub", &["packages"]),
    ("ureq", &["packages"]),
    ("libfuzzer-sys", &["fuzz"]),
    ("quick-xml", &["xml", "xapi", "xapi-sim"]),
];

pub(super) fn check(source: &Source, findings: &mut Vec<Finding>) {
    let folder = match source.path.split('/').collect::<Vec<_>>().as_slice() {
        ["crates", folder, "Cargo.toml"] => (*folder).to_owned(),
        ["xtask", "Cargo.toml"] => "xtask".to_owned(),
        _ => return,
    };
    let Some((_, ours)) = OURS.iter().find(|(name, _)| *name == folder) else {
        findings.push(Finding::error(&source.path, 0, format!("`{folder}` is not in the table of dependencies (xtask/src/tidy/deps.rs)")));
        return;
    };
    for Dependency { line, name, for_tests } in dependencies(&source.text) {
        let problem = if let Some(other) = our_folder(&name) {
            let allowed = ours.contains(&other) || (for_tests && OURS_IN_TESTS.contains(&other));
            (!allowed).then(|| format!("`{folder}` may not depend on `{other}`"))
        } else if for_tests {
            None
        } else if let Some((_, listed)) = FOREIGN.iter().find(|(crate_, _)| *crate_ == folder) {
            (!listed.contains(&name.as_str())).then(|| format!("`{folder}` may not depend on `{name}`; it may on: {}", listed.join(", ")))
        } else {
            let reserved = RESERVED.iter().find(|(crate_, _)| *crate_ == name);
            reserved
                .filter(|(_, users)| !users.contains(&folder.as_str()))
                .map(|(_, users)| format!("`{name}` is for {} only", users.join(", ")))
        };
        if let Some(problem) = problem {
            findings.push(Finding::error(&source.path, line, problem));
        }
    }
}

/// The folder of a crate of ours, from its package name.
fn our_folder(package: &str) -> Option<&str> {
    if package == "vmoon" { Some(package) } else { package.strip_prefix("vmoon-") }
}

/// One entry of a dependency list.
#[derive(Debug, PartialEq, Eq)]
struct Dependency {
    line: usize,
    name: String,
    for_tests: bool,
}

/// Reads the dependency lists of a manifest. Knows the spellings cargo allows: `a.workspace = true`, `a = "1"`, `a = { package = "b" }`,
/// `[dependencies.a]`, and lists below `[target.….]`.
fn dependencies(manifest: &str) -> Vec<Dependency> {
    let mut found: Vec<Dependency> = Vec::new();
    // In a list: whether it is for tests. In the table of one dependency: that one.
    let mut list = None;
    let mut table = false;
    for (at, line) in manifest.lines().enumerate() {
        let line = line.trim();
        if let Some(header) = line.strip_prefix('[') {
            let header = header.trim_end_matches(']');
            (list, table) = (None, false);
            for (kind, for_tests) in [("dev-dependencies", true), ("build-dependencies", false), ("dependencies", false)] {
                if header == kind || header.ends_with(&format!(".{kind}")) {
                    list = Some(for_tests);
                    break;
                }
                let one = header.strip_prefix(&format!("{kind}.")).or_else(|| header.split_once(&format!(".{kind}.")).map(|(_, one)| one));
                if let Some(name) = one {
                    found.push(Dependency { line: at + 1, name: unquoted(name), for_tests });
                    table = true;
                    break;
                }
            }
        } else if let Some((key, value)) = line.split_once('=')
            && !line.starts_with('#')
        {
            if table && key.trim() == "package" {
                if let Some(last) = found.last_mut() {
                    last.name = unquoted(value);
                }
            } else if let Some(for_tests) = list {
                let key = key.trim().split('.').next().unwrap_or_default();
                let renamed = value.split_once("package").and_then(|(_, rest)| rest.split('"').nth(1));
                found.push(Dependency { line: at + 1, name: renamed.map_or_else(|| unquoted(key), str::to_owned), for_tests });
            }
        }
    }
    found
}

fn unquoted(name: &str) -> String {
    name.trim().trim_matches(['"', '\'']).to_owned()
}

#[cfg(test)]
mod tests {
    use super::super::findings;
    use super::*;

    #[test]
    fn every_spelling_of_a_dependency_is_read() {
        let manifest = "\
[package]
name = \"x\"
[dependencies]
a.workspace = true
b = \"1\"
c = { package = \"real-c\", version = \"1\" }
# d = \"1\"
[dependencies.e]
version = \"1\"
[dev-dependencies]
f = \"1\"
[target.'cfg(unix)'.dependencies]
g = { workspace = true }
[build-dependencies.h]
package = \"real-h\"
[lints]
workspace = true
";
        let found: Vec<(String, bool)> = dependencies(manifest).into_iter().map(|d| (d.name, d.for_tests)).collect();
        let expected = [("a", false), ("b", false), ("real-c", false), ("e", false), ("f", true), ("g", false), ("real-h", false)];
        assert_eq!(found, expected.map(|(name, for_tests)| (name.to_owned(), for_tests)));
    }

    #[test]
    fn the_table_of_our_crates_is_held() {
        let bad = findings(check, "crates/api/Cargo.toml", "[dependencies]\nvmoon-core.workspace = true\nvmoon-daemon.workspace = true\n");
        assert_eq!(bad, ["error: crates/api/Cargo.toml:3: `api` may not depend on `daemon`"]);
        assert_eq!(findings(check, "crates/core/Cargo.toml", "[dev-dependencies]\nvmoon-sys.workspace = true\n").len(), 1);
        assert!(findings(check, "crates/daemon/Cargo.toml", "[dev-dependencies]\nvmoon-driver-sim.workspace = true\n").is_empty());
        assert_eq!(findings(check, "crates/daemon/Cargo.toml", "[dependencies]\nvmoon-driver-sim.workspace = true\n").len(), 1);
        assert_eq!(findings(check, "crates/driver-sim/Cargo.toml", "[dependencies]\nvmoon.workspace = true\n").len(), 1);
    }

    #[test]
    fn a_crate_that_is_not_in_the_table_is_found() {
        assert_eq!(findings(check, "crates/new/Cargo.toml", "[package]\n").len(), 1);
    }

    #[test]
    fn foreign_crates_stay_where_they_belong() {
        assert_eq!(findings(check, "crates/core/Cargo.toml", "[dependencies]\ntokio.workspace = true\n").len(), 1);
        assert_eq!(findings(check, "crates/core/Cargo.toml", "[dependencies]\nrustix.workspace = true\n").len(), 1);
        assert_eq!(findings(check, "xtask/Cargo.toml", "[dependencies]\nserde = \"1\"\n").len(), 1);
        assert_eq!(findings(check, "crates/vmoon/Cargo.toml", "[dependencies]\nrusqlite.workspace = true\n").len(), 1);
        assert!(
            findings(check, "crates/daemon/Cargo.toml", "[dependencies]\nrusqlite.workspace = true\ntokio.workspace = true\n").is_empty()
        );
    }
}
