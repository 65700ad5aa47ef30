//! Locks of other programs, read as what they pin: `luarocks.lock` of LuaRocks 3 and `lux.lock` of Lux.
//!
//! Neither says all that ours does (`luarocks.lock` has no check sums, those of `lux.lock` are of folders), so an import is a list of exact versions for
//! the solver; addresses and check sums are made anew. What they pin may not fit together: LuaRocks is known to write locks that do not match what
//! it installed.

use crate::{
    constraint::{Constraints, Dependency},
    name::RockName,
    version::Version,
};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use vmoon_core::{Code, Error, Result, name::escape};

/// More rocks than this are nonsense.
const MAX_ROCKS: usize = 10_000;

/// What a foreign lock says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Import {
    /// What was asked for.
    pub wanted: Vec<Dependency>,
    /// The exact version of every rock, as constraints for the solver.
    pub pins: Vec<Dependency>,
    /// What could not be taken over, in sentences.
    pub notes: Vec<String>,
}

/// Reads a `luarocks.lock`, evaluated (it is Lua that returns a table; see [`crate::evaluate::Evaluator::rockspec`]). It does not say which rocks were asked
/// for: all of them are.
///
/// # Errors
/// [`Code::PackageInvalid`] if it is none.
pub fn import_luarocks(value: &Value) -> Result<Import> {
    let bad = |why: String| Error::new(Code::PackageInvalid, format!("the luarocks.lock cannot be used: {why}"));
    let Some(tables) = value.as_object() else { return Err(bad("it does not return a table".into())) };
    let mut import = Import::default();
    let mut problems = Vec::new();
    let mut pins: BTreeMap<RockName, Version> = BTreeMap::new();
    for kind in ["dependencies", "build_dependencies", "test_dependencies"] {
        let rocks = match tables.get(kind) {
            None => continue,
            Some(Value::Array(none)) if none.is_empty() => continue,
            Some(Value::Object(rocks)) => rocks,
            Some(_) => {
                problems.push(format!("{kind} is no table of versions"));
                continue;
            }
        };
        for (name, version) in rocks {
            let parsed = name.parse::<RockName>().and_then(|name| Ok((name, version.as_str().unwrap_or_default().parse::<Version>()?)));
            match parsed {
                Ok((name, _)) if name.is_lua() => {}
                Ok((name, version)) => {
                    pins.entry(name).or_insert(version);
                }
                Err(error) => problems.push(error.message().to_owned()),
            }
        }
    }
    if !tables.keys().any(|key| key.ends_with("dependencies")) {
        problems.push("it has no dependencies".to_owned());
    }
    finish(&mut problems, pins.len()).map_err(bad)?;
    import.pins = pins.into_iter().map(|(name, version)| Dependency { name, constraints: Constraints::exactly(version) }).collect();
    import.wanted = import.pins.iter().map(|pin| Dependency::any(pin.name.clone())).collect();
    Ok(import)
}

/// Reads a `lux.lock`: JSON of format 1 or 2, of a project (`dependencies`, `test_dependencies`, `build_dependencies`) or of a tree. Lux keeps several versions
/// of one rock; of such a rock the newest that is asked for is pinned, else none, and a note says so.
///
/// # Errors
/// [`Code::PackageInvalid`] if it is none.
pub fn import_lux(text: &[u8]) -> Result<Import> {
    let bad = |why: String| Error::new(Code::PackageInvalid, format!("the lux.lock cannot be used: {why}"));
    let value: Value = serde_json::from_slice(text).map_err(|error| bad(format!("it is no JSON: {error}")))?;
    match value.get("version").and_then(Value::as_str) {
        Some(version) if version.starts_with("1.") || version.starts_with("2.") => {}
        Some(version) => return Err(bad(format!("its format {} is not known", escape(version)))),
        None => return Err(bad("it does not say which format it has".into())),
    }
    let mut import = Import::default();
    let mut problems = Vec::new();
    let mut versions: BTreeMap<RockName, BTreeSet<Version>> = BTreeMap::new();
    let mut asked: BTreeMap<RockName, Dependency> = BTreeMap::new();
    let parts = ["dependencies", "test_dependencies", "build_dependencies"].iter().filter_map(|part| value.get(*part));
    for part in parts.chain(value.get("rocks").is_some().then_some(&value)) {
        read_part(part, &mut versions, &mut asked, &mut problems);
    }
    if versions.is_empty()
        && value.get("rocks").is_none()
        && value.get("dependencies").is_none()
        && value.get("test_dependencies").is_none()
    {
        problems.push("it has no rocks".to_owned());
    }
    finish(&mut problems, versions.len()).map_err(bad)?;
    for (name, versions) in versions {
        let pinned = match (versions.len(), asked.get(&name)) {
            (1, _) => versions.first().cloned(),
            (_, Some(wanted)) => versions.iter().rev().find(|version| wanted.constraints.allow(version)).cloned(),
            _ => None,
        };
        if versions.len() > 1 {
            let all: Vec<&str> = versions.iter().map(Version::as_str).collect();
            let taken = pinned.as_ref().map_or("the solver chooses".to_owned(), |version| format!("{version} is taken"));
            import.notes.push(format!("it has {name} in versions {}; an environment has one of each rock: {taken}", all.join(", ")));
        }
        if let Some(version) = pinned {
            import.pins.push(Dependency { name, constraints: Constraints::exactly(version) });
        }
    }
    import.wanted = asked.into_values().collect();
    Ok(import)
}

fn read_part(
    part: &Value,
    versions: &mut BTreeMap<RockName, BTreeSet<Version>>,
    asked: &mut BTreeMap<RockName, Dependency>,
    problems: &mut Vec<String>,
) {
    let none = serde_json::Map::new();
    let rocks = part.get("rocks").and_then(Value::as_object).unwrap_or(&none);
    // Format 1 lists the ids, format 2 has them by name.
    let entrypoints: BTreeSet<&str> = match part.get("entrypoints") {
        Some(Value::Array(ids)) => ids.iter().filter_map(Value::as_str).collect(),
        Some(Value::Object(ids)) => ids.values().filter_map(Value::as_str).collect(),
        _ => BTreeSet::new(),
    };
    for (id, rock) in rocks {
        let text = |field: &str| rock.get(field).and_then(Value::as_str).unwrap_or_default();
        let parsed = text("name").parse::<RockName>().and_then(|name| Ok((name, text("version").parse::<Version>()?)));
        let (name, version) = match parsed {
            Ok(parsed) => parsed,
            Err(error) => {
                problems.push(error.message().to_owned());
                continue;
            }
        };
        if entrypoints.contains(id.as_str()) {
            match text("constraint").parse::<Constraints>() {
                Ok(constraints) => {
                    asked.entry(name.clone()).or_insert(Dependency { name: name.clone(), constraints });
                }
                Err(error) => problems.push(format!("{name}: {}", error.message())),
            }
        }
        versions.entry(name).or_default().insert(version);
    }
}

fn finish(problems: &mut Vec<String>, rocks: usize) -> std::result::Result<(), String> {
    if rocks > MAX_ROCKS {
        problems.push(format!("it has {rocks} rocks"));
    }
    let more = problems.len().saturating_sub(10);
    problems.truncate(10);
    if more > 0 {
        problems.push(format!("and {more} more"));
    }
    if problems.is_empty() { Ok(()) } else { Err(problems.join("; ")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn shown(dependencies: &[Dependency]) -> Vec<String> {
        dependencies.iter().map(Dependency::to_string).collect()
    }

    #[test]
    fn a_lock_of_luarocks_pins_all_it_names() {
        let lock = json!({"dependencies": {"lua": "5.4-1", "lpeg": "1.0.2-1", "Penlight": "1.13.1-1"}, "build_dependencies": [], "test_dependencies": {"busted": "2.1-1"}});
        let import = import_luarocks(&lock).unwrap();
        assert_eq!(shown(&import.pins), ["busted == 2.1-1", "lpeg == 1.0.2-1", "penlight == 1.13.1-1"]);
        assert_eq!(shown(&import.wanted), ["busted", "lpeg", "penlight"]);
    }

    #[test]
    fn a_lock_of_lux_may_have_two_versions_of_one_rock() {
        let rocks = json!({
            "a": {"name": "top", "version": "1.0-1", "constraint": ">=1.0, <2.0", "dependencies": ["b", "c"]},
            "b": {"name": "low", "version": "1.7.0-1", "constraint": ">=1.7.0"},
            "c": {"name": "mid", "version": "2.0-1", "dependencies": ["d"]},
            "d": {"name": "low", "version": "1.10.1-1"},
        });
        let project = json!({"version": "2.0.0", "dependencies": {"rocks": rocks, "entrypoints": {"top": "a"}}});
        let tree = json!({"version": "1.0.0", "rocks": rocks, "entrypoints": ["a"]});
        for lock in [project, tree] {
            let import = import_lux(lock.to_string().as_bytes()).unwrap();
            assert_eq!(shown(&import.pins), ["mid == 2.0-1", "top == 1.0-1"]);
            assert_eq!(shown(&import.wanted), ["top >= 1.0, < 2.0"]);
            assert_eq!(import.notes, ["it has low in versions 1.7.0-1, 1.10.1-1; an environment has one of each rock: the solver chooses"]);
        }
    }

    #[test]
    fn what_is_no_lock_is_refused() {
        for bad in [
            json!(null),
            json!([]),
            json!({}),
            json!({"dependencies": {"../x": "1-1"}}),
            json!({"dependencies": {"x": 7}}),
            json!({"dependencies": "x"}),
        ] {
            assert_eq!(import_luarocks(&bad).unwrap_err().code(), Code::PackageInvalid, "{bad}");
        }
        for bad in [
            "",
            "{",
            "{}",
            "{\"version\":\"3.0\"}",
            "{\"version\":\"2.0.0\"}",
            r#"{"version":"2.0.0","rocks":{"a":{"name":"../x","version":"1-1"}}}"#,
            r#"{"version":"2.0.0","rocks":{"a":{"name":"x","version":"1-1","constraint":">>1"}},"entrypoints":["a"]}"#,
        ] {
            assert_eq!(import_lux(bad.as_bytes()).unwrap_err().code(), Code::PackageInvalid, "{bad}");
        }
    }
}
