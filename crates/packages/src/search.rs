//! Finding rocks: by words in names, summaries, labels and modules; and the names that are near to one that does not exist.

use crate::{index::Index, name::RockName, rockspec::Rockspec, version::Version};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// What is known of a rock beside its versions; manifests do not have it, so it comes from rockspecs that were read and from the catalogue.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct About {
    /// One line.
    pub summary: String,
    /// Words to be found by.
    pub labels: Vec<String>,
    /// The modules it gives.
    pub modules: Vec<String>,
}

impl About {
    /// What a rockspec says.
    pub fn of(spec: &Rockspec) -> Self {
        let modules = spec.build.modules.keys().cloned();
        let install = spec.build.install.lua.iter().chain(&spec.build.install.lib);
        let installed = install.filter_map(|entry| entry.name.clone().or_else(|| module_of_file(&entry.file)));
        let modules: BTreeSet<String> = modules.chain(installed).collect();
        let summary = spec.description.summary.clone().unwrap_or_default();
        Self { summary: one_line(&summary), labels: spec.description.labels.clone(), modules: modules.into_iter().collect() }
    }
}

impl About {
    /// Takes over what another source knows besides.
    pub fn add(&mut self, other: &Self) {
        if self.summary.is_empty() {
            self.summary.clone_from(&other.summary);
        }
        for (ours, theirs) in [(&mut self.labels, &other.labels), (&mut self.modules, &other.modules)] {
            for word in theirs {
                if !ours.contains(word) {
                    ours.push(word.clone());
                }
            }
        }
    }
}

fn module_of_file(file: &str) -> Option<String> {
    let name = file.rsplit('/').next()?;
    name.rsplit_once('.').map(|(stem, _)| stem.to_owned())
}

fn one_line(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    vmoon_core::name::escape(&words.join(" ")).chars().take(200).collect()
}

/// One rock that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its name.
    pub name: RockName,
    /// Its newest version that can be installed here, released if any is.
    pub newest: Option<Version>,
    /// One line about it; empty where none is known.
    pub summary: String,
    /// The modules it is known to give.
    pub modules: Vec<String>,
    /// How well it fits; greater is better.
    pub score: u32,
}

/// Rocks in which every word occurs, in the name, a module, a label or the summary, best first, at most `most`. No word finds all.
pub fn search(index: &Index, about: &BTreeMap<RockName, About>, words: &[String], most: usize) -> Vec<Found> {
    let words: Vec<String> = words.iter().flat_map(|word| word.split_whitespace().map(str::to_lowercase).collect::<Vec<_>>()).collect();
    let mut modules: BTreeMap<&RockName, Vec<&str>> = BTreeMap::new();
    for (module, rocks) in index.modules() {
        rocks.into_iter().for_each(|rock| modules.entry(rock).or_default().push(module));
    }
    let nothing = About::default();
    let mut hits: Vec<(u32, &RockName, Vec<&str>)> = Vec::new();
    for name in index.names() {
        let about = about.get(name).unwrap_or(&nothing);
        let mut given: Vec<&str> = about.modules.iter().map(String::as_str).collect();
        given.extend(modules.get(name).into_iter().flatten());
        given.sort_unstable();
        given.dedup();
        let scores: Option<Vec<u32>> = words.iter().map(|word| score(word, name.as_str(), &given, about)).collect();
        if let Some(scores) = scores {
            hits.push((scores.iter().sum(), name, given));
        }
    }
    hits.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.as_str().len().cmp(&b.1.as_str().len())).then_with(|| a.1.cmp(b.1)));
    let found = hits.into_iter().take(most).map(|(score, name, modules)| Found {
        name: name.clone(),
        newest: newest(index, name),
        summary: about.get(name).unwrap_or(&nothing).summary.clone(),
        modules: modules.into_iter().map(str::to_owned).collect(),
        score,
    });
    found.collect()
}

/// How well one word fits; `None` if it occurs nowhere.
fn score(word: &str, name: &str, modules: &[&str], about: &About) -> Option<u32> {
    let best = [
        (name == word, 100),
        (modules.contains(&word), 90),
        (name.split(['-', '_', '.']).any(|part| part == word), 60),
        (name.starts_with(word), 50),
        (name.contains(word), 40),
        (about.labels.iter().any(|label| label.eq_ignore_ascii_case(word)), 35),
        (modules.iter().any(|module| module.to_lowercase().contains(word)), 30),
        (about.summary.to_lowercase().contains(word), 20),
    ];
    best.into_iter().find(|(fits, _)| *fits).map(|(_, score)| score)
}

/// The newest version that can be installed here; a released one if there is any.
pub fn newest(index: &Index, name: &RockName) -> Option<Version> {
    let candidates = index.candidates(name);
    let released = candidates.iter().rev().find(|candidate| !candidate.version.is_unreleased());
    released.or(candidates.last()).map(|candidate| candidate.version.clone())
}

/// The names that are near to this one, nearest first, at most `most`: rocks that give a module of this name, names that differ by a prefix or suffix
/// such as `lua-`, and names that differ by few letters.
pub fn nearest(index: &Index, name: &str, most: usize) -> Vec<RockName> {
    let name = name.to_lowercase();
    let bare = bare(&name);
    let mut near: Vec<(usize, &RockName)> = Vec::new();
    for rock in index.rocks_with_module(&name) {
        near.push((0, rock));
    }
    // A third of the letters may be wrong, but at least one.
    let bound = name.chars().count().div_ceil(3).clamp(1, 4);
    for rock in index.names() {
        let distance = if self::bare(rock.as_str()) == bare { Some(1) } else { distance(&name, rock.as_str(), bound).map(|d| d + 1) };
        let inside = (name.len() >= 3 && rock.as_str().contains(&name)).then_some(bound + 2);
        if let Some(distance) = distance.or(inside) {
            near.push((distance, rock));
        }
    }
    near.sort_by(|a, b| a.0.cmp(&b.0).then_with(|| a.1.as_str().len().cmp(&b.1.as_str().len())).then_with(|| a.1.cmp(b.1)));
    let mut names: Vec<RockName> = Vec::new();
    for (_, rock) in near {
        if !names.contains(rock) {
            names.push(rock.clone());
        }
        if names.len() == most {
            break;
        }
    }
    names
}

/// A name without what many rocks have before or after it.
fn bare(name: &str) -> String {
    let name = name.replace(['-', '_', '.'], "");
    let name = name.strip_prefix("lua").filter(|rest| rest.len() > 1).unwrap_or(&name);
    name.strip_suffix("lua").filter(|rest| rest.len() > 1).unwrap_or(name).to_owned()
}

/// How many letters must be added, left out, changed or swapped with their neighbour to get from one to the other; `None` if more than `bound`.
pub(crate) fn distance(a: &str, b: &str, bound: usize) -> Option<usize> {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    if a.len().abs_diff(b.len()) > bound {
        return None;
    }
    // The rows of the table for i - 2 and i - 1 letters of `a`.
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let change = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = change.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
        before = std::mem::replace(&mut last, row);
    }
    Some(last[b.len()]).filter(|d| *d <= bound)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{lua_version::LuaVersion, manifest::Manifest, servers::Server};

    fn index() -> Index {
        let text = "vmoon manifest 1\n=lua-cjson\n2.1.0-1 src\nscm-1 src\n=luafilesystem\n1.8.0-1 src\n=lpeg\n1.0.2-1 src\n=penlight\n1.0-1 all\n\
            =inspect\n3.1-1 src\n=bad\n1-1 win32-x86\n@cjson lua-cjson/2.1.0-1\n!0\n";
        let server = Server::new("s", "file:///s", false).unwrap();
        Index::new(LuaVersion::V54, vec![(server, Manifest::from_compact(text.as_bytes()))])
    }

    fn names(found: &[RockName]) -> Vec<&str> {
        found.iter().map(RockName::as_str).collect()
    }

    #[test]
    fn words_are_sought_in_names_modules_labels_and_summaries() {
        let mut about = BTreeMap::new();
        let lfs = About { summary: "Files and directories".into(), labels: vec!["Posix".into()], modules: vec!["lfs".into()] };
        about.insert("luafilesystem".parse().unwrap(), lfs);
        let find = |words: &[&str]| {
            let words: Vec<String> = words.iter().map(|w| (*w).to_owned()).collect();
            search(&index(), &about, &words, 10)
                .into_iter()
                .map(|f| (f.name.to_string(), f.newest.map(|v| v.to_string())))
                .collect::<Vec<_>>()
        };
        let lfs = ("luafilesystem".to_owned(), Some("1.8.0-1".to_owned()));
        for words in [&["lfs"][..], &["FILE", "directories"], &["posix"]] {
            assert_eq!(find(words), std::slice::from_ref(&lfs), "{words:?}");
        }
        assert_eq!(find(&["cjson"]), [("lua-cjson".to_owned(), Some("2.1.0-1".to_owned()))]);
        assert!(find(&["lfs", "nothing"]).is_empty());
        assert_eq!(find(&[]).len(), 6);
        assert_eq!(find(&["bad"]), [("bad".to_owned(), None)]);
    }

    #[test]
    fn near_names_are_found() {
        let index = index();
        for (wrong, right) in [
            ("cjson", "lua-cjson"),
            ("lua_cjson", "lua-cjson"),
            ("lepg", "lpeg"),
            ("penlite", "penlight"),
            ("filesystem", "luafilesystem"),
            ("insepct", "inspect"),
        ] {
            assert_eq!(names(&nearest(&index, wrong, 3))[0], right, "{wrong}");
        }
        assert!(nearest(&index, "quite-another-thing", 3).is_empty());
        assert!(nearest(&index, "", 3).len() <= 3);
    }
}
