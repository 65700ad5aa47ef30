//! What is sent to a host and what is compiled there. Reads files of the tree; decides without asking the host anything.

use super::{
    Environment, Recipe, TreeFile,
    elf::{self, Computer},
};
use sha2::{Digest as _, Sha256};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};
use vmoon_core::{Code, Error, Result};

/// The largest file that is carried, bytes.
const LARGEST: u64 = 256 << 20;

/// Where the content of a file comes from.
#[derive(Clone, Debug)]
pub(super) enum Source {
    /// A file of this computer, of that size.
    Here(PathBuf, u64),
    /// A module of a recipe: both by their numbers.
    Compiled(usize, usize),
}

/// One file of the tree to come.
#[derive(Clone, Debug)]
pub(super) struct Item {
    pub(super) path: String,
    /// What it is called among the files there.
    pub(super) key: String,
    pub(super) source: Source,
}

impl Item {
    pub(super) fn is_native(&self) -> bool {
        self.path.ends_with(".so")
    }
}

/// Everything that makes the tree.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) key: String,
    pub(super) items: Vec<Item>,
    pub(super) recipes: Vec<Recipe>,
    /// Which rocks are compiled, and why.
    pub(super) compiled: Vec<(String, String)>,
}

/// Whether a file is a C module.
pub(super) fn is_native(file: &TreeFile) -> bool {
    file.path.ends_with(".so")
}

/// A SHA-256 as it is written here.
pub(super) fn digest(parts: &[&[u8]]) -> String {
    let mut sum = Sha256::new();
    for part in parts {
        // With their lengths, so that they cannot run into each other.
        sum.update((part.len() as u64).to_le_bytes());
        sum.update(part);
    }
    hex(&sum.finalize())
}

/// The SHA-256 of a file's content.
pub(super) fn of_content(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The content of a file of the tree, if it is what it should be.
///
/// # Errors
/// [`Code::EnvironmentDamaged`], [`Code::FileFailed`].
pub(super) fn content(path: &Path, size: u64, sha256: &str) -> Result<Vec<u8>> {
    let bytes = std::fs::read(path).map_err(|error| Error::io(format_args!("read {}", path.display()), error))?;
    if bytes.len() as u64 != size || of_content(&bytes) != sha256 {
        return Err(Error::new(Code::EnvironmentDamaged, format!("{} is not what was installed", path.display()))
            .hint("vmoon pkg verify shows what has changed; vmoon env rollback goes back to an earlier state"));
    }
    Ok(bytes)
}

/// The C modules that do not fit, and why, in words that begin with the module.
pub(super) fn misfits(tree: &Path, files: &[TreeFile], there: &Computer) -> Result<Vec<(TreeFile, String)>> {
    let mut all = Vec::new();
    for file in files.iter().filter(|file| is_native(file) && file.size <= LARGEST) {
        let path = tree.join(&file.path);
        let bytes = std::fs::read(&path).map_err(|error| Error::io(format_args!("read {}", path.display()), error))?;
        if let Err(why) = elf::fits(&bytes, there) {
            all.push((file.clone(), format!("{} {why}", file.path.rsplit('/').next().unwrap_or(&file.path))));
        }
    }
    Ok(all)
}

/// Modules that do not fit, by their rocks, with all reasons.
pub(super) fn by_rock(misfits: &[(TreeFile, String)]) -> Vec<(Option<String>, String)> {
    let mut all: BTreeMap<Option<String>, Vec<String>> = BTreeMap::new();
    for (file, why) in misfits {
        all.entry(file.rock.clone()).or_default().push(why.clone());
    }
    let mut rows = Vec::new();
    for (rock, reasons) in all {
        match rock {
            Some(_) => rows.push((rock, reasons.join(", "))),
            None => rows.extend(reasons.into_iter().map(|why| (None, why))),
        }
    }
    rows
}

impl Plan {
    /// The tree of an environment whose misfits are made by these recipes: a rock, why, and how.
    ///
    /// # Errors
    /// [`Code::EnvironmentDamaged`] for a path that leads elsewhere or a file that is too large; [`Code::PackageBuild`] for a recipe
    /// that does not make what the rock has.
    pub(super) fn new(environment: &Environment, recipes: Vec<(String, String, Recipe)>, there: &Computer) -> Result<Self> {
        let mut items = Vec::new();
        for file in &environment.files {
            let plain = file.path.split('/').all(|part| !matches!(part, "" | "." | ".."))
                && (file.path.starts_with("share/") || file.path.starts_with("lib/"))
                && !file.path.contains(|c: char| c.is_control());
            if !plain || file.size > LARGEST || !super::record::is_key(&file.sha256) {
                return Err(Error::new(
                    Code::EnvironmentDamaged,
                    format!("\"{}\" cannot be carried to another computer", file.path.escape_debug()),
                ));
            }
            let rock = file.rock.as_deref().filter(|_| is_native(file));
            let recipe = rock.and_then(|rock| recipes.iter().position(|(name, ..)| name == rock));
            let item = match recipe {
                None => Item {
                    path: file.path.clone(),
                    key: file.sha256.clone(),
                    source: Source::Here(environment.tree.join(&file.path), file.size),
                },
                Some(at) => {
                    let (name, _, recipe) = &recipes[at];
                    let module = recipe.modules.iter().position(|module| module.path == file.path).ok_or_else(|| {
                        Error::new(Code::PackageBuild, format!("how {} of {name} is compiled is not known", file.path.escape_debug()))
                    })?;
                    Item { path: file.path.clone(), key: made_from(recipe, module, there), source: Source::Compiled(at, module) }
                }
            };
            items.push(item);
        }
        items.sort_by(|a, b| a.path.cmp(&b.path));
        let lines: Vec<String> = items.iter().map(|item| format!("{} {}", item.key, item.path)).collect();
        let parts: Vec<&[u8]> = lines.iter().map(|line| line.as_bytes()).collect();
        let compiled = recipes.iter().map(|(rock, why, _)| (rock.clone(), why.clone())).collect();
        Ok(Self { key: digest(&parts), items, recipes: recipes.into_iter().map(|(_, _, recipe)| recipe).collect(), compiled })
    }

    /// The directories of the tree, those above before those below.
    pub(super) fn directories(&self) -> BTreeSet<&str> {
        let mut all = BTreeSet::new();
        for item in &self.items {
            all.extend(item.path.match_indices('/').map(|(at, _)| &item.path[..at]));
        }
        all
    }

    /// The tree's list of its files.
    pub(super) fn manifest(&self) -> String {
        self.items.iter().map(|item| format!("{} {}\n", item.key, item.path)).collect()
    }

    /// What sending these items, by their numbers, comes to: how many different files, and their bytes.
    pub(super) fn weight(&self, missing: &BTreeSet<usize>) -> (usize, u64) {
        let mut sizes = BTreeMap::new();
        for item in missing.iter().filter_map(|at| self.items.get(*at)) {
            if let Source::Here(_, size) = item.source {
                sizes.insert(&item.key, size);
            }
        }
        (sizes.len(), sizes.values().sum())
    }

    /// What will be done, for people.
    pub(super) fn steps(&self, missing: &BTreeSet<usize>, host: &str, there: &Computer) -> Vec<String> {
        let (files, bytes) = self.weight(missing);
        let here =
            self.items.iter().filter(|item| matches!(item.source, Source::Here(..))).map(|item| &item.key).collect::<BTreeSet<_>>().len();
        let mut steps = Vec::new();
        steps.push(match (files, here - files) {
            (0, _) => format!("everything is on {host} already"),
            (_, 0) => format!("sends {files} files, {bytes} bytes, to {host}"),
            (_, had) => format!("sends {files} files, {bytes} bytes, to {host}; {had} are there already"),
        });
        for (at, (rock, why)) in self.compiled.iter().enumerate() {
            let new = missing.iter().any(|item| matches!(self.items[*item].source, Source::Compiled(recipe, _) if recipe == at));
            let verb = if new { "compiles" } else { "has compiled" };
            steps.push(format!("{verb} {rock} on {host}, which is {there}: {why}"));
        }
        steps
    }
}

/// What a compiled module is called: everything that it is made from.
fn made_from(recipe: &Recipe, module: usize, there: &Computer) -> String {
    let (kind, module) = (there.to_string(), &recipe.modules[module]);
    let mut parts: Vec<&[u8]> = vec![b"compiled", kind.as_bytes(), module.path.as_bytes()];
    parts.extend(module.arguments.iter().map(|argument| argument.as_bytes()));
    for (path, bytes) in &recipe.files {
        parts.extend([path.as_bytes(), bytes.as_slice()]);
    }
    digest(&parts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::environment::RecipeModule;
    use vmoon_core::ability::UsedEnvironment;

    fn file(path: &str, rock: Option<&str>) -> TreeFile {
        TreeFile { path: path.into(), sha256: of_content(path.as_bytes()), size: 10, rock: rock.map(str::to_owned) }
    }

    fn environment(files: Vec<TreeFile>) -> Environment {
        let used = UsedEnvironment { name: "e".into(), generation: 1, lua: "5.4".into() };
        Environment { used, tree: "/e".into(), files }
    }

    const THERE: Computer = Computer { machine: None, libc: None, glibc: None };

    #[test]
    fn a_plan_says_what_is_sent_and_compiled() {
        let files =
            vec![file("share/lua/5.4/a.lua", None), file("lib/lua/5.4/x/y.so", Some("xy")), file("share/lua/5.4/x/b.lua", Some("xy"))];
        let recipe = |arguments: &[&str]| Recipe {
            files: vec![("y.c".into(), b"int".to_vec())],
            modules: vec![RecipeModule {
                path: "lib/lua/5.4/x/y.so".into(),
                arguments: arguments.iter().map(|a| (*a).to_owned()).collect(),
            }],
        };
        let made = |arguments: &[&str]| {
            Plan::new(&environment(files.clone()), vec![("xy".into(), "y.so was".into(), recipe(arguments))], &THERE).unwrap()
        };
        let plan = made(&["-O2"]);
        assert_eq!(
            plan.directories().into_iter().collect::<Vec<_>>(),
            ["lib", "lib/lua", "lib/lua/5.4", "lib/lua/5.4/x", "share", "share/lua", "share/lua/5.4", "share/lua/5.4/x"]
        );
        assert_eq!(plan.weight(&[0, 1, 2].into()), (2, 20));
        let steps = plan.steps(&[0, 1].into(), "h", &THERE);
        assert_eq!(
            steps,
            ["sends 1 files, 10 bytes, to h; 1 are there already", "compiles xy on h, which is a computer of unknown kind: y.so was"]
        );
        assert_ne!(plan.key, made(&["-O3"]).key);
        let sent = Plan::new(&environment(files.clone()), Vec::new(), &THERE).unwrap();
        assert!(sent.key != plan.key && super::super::record::is_key(&sent.key));
        let none = Recipe { modules: Vec::new(), ..recipe(&[]) };
        assert_eq!(
            Plan::new(&environment(files), vec![("xy".into(), String::new(), none)], &THERE).unwrap_err().code(),
            Code::PackageBuild
        );
    }

    #[test]
    fn a_path_that_leads_elsewhere_is_refused() {
        for path in ["../x.lua", "share/../../x", "/etc/x", "share//x", "bin/x", "share/a\nb"] {
            assert_eq!(
                Plan::new(&environment(vec![file(path, None)]), Vec::new(), &THERE).unwrap_err().code(),
                Code::EnvironmentDamaged,
                "{path}"
            );
        }
    }

    #[test]
    fn reasons_are_gathered_by_rock() {
        let misfits = [
            (file("lib/a.so", Some("r")), "a.so 1".to_owned()),
            (file("lib/b.so", None), "b.so 2".into()),
            (file("lib/c.so", Some("r")), "c.so 3".into()),
        ];
        assert_eq!(by_rock(&misfits), [(None, "b.so 2".to_owned()), (Some("r".into()), "a.so 1, c.so 3".into())]);
    }
}
