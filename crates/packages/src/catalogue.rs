//! What is known of rocks without asking a server, and the sets of rocks that environments are bootstrapped with.
//!
//! Both are data: `data/catalogue.toml` and `data/profiles/NAME.toml`, compiled in. People's own sets are files of the same form as profiles.

use crate::{
    constraint::Dependency,
    name::RockName,
    search::{self, About},
};
use serde::Deserialize;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::LazyLock,
};
use vmoon_core::{
    Code, Error, Result,
    name::{self, escape},
};

/// How many profiles may extend each other in a row.
const MAX_CHAIN: usize = 16;
/// The longest text of a set, in bytes.
const MAX_TEXT: usize = 1 << 20;

/// What is known of one rock.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Known {
    /// Its name on the public server.
    pub name: RockName,
    /// What it is for, one line.
    pub summary: String,
    /// Words it is found by.
    #[serde(default)]
    pub labels: Vec<String>,
    /// The modules people load of it; it may have more.
    pub modules: Vec<String>,
    /// Other names it is known by.
    #[serde(default)]
    pub also: Vec<String>,
    /// Rocks that go well with it.
    #[serde(default)]
    pub recommends: Vec<RockName>,
    /// What it is built against.
    #[serde(default)]
    pub needs: Option<Needs>,
}

/// A C library that must be there before a rock can be built.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Needs {
    /// A header of it.
    pub file: String,
    /// The Debian package that has the header.
    pub package: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    rock: Vec<Known>,
}

/// The catalogue: rocks by name.
pub fn rocks() -> &'static BTreeMap<RockName, Known> {
    static ROCKS: LazyLock<BTreeMap<RockName, Known>> = LazyLock::new(|| {
        let written: Written = toml::from_str(include_str!("../data/catalogue.toml")).expect("the catalogue compiled in is tested");
        written.rock.into_iter().map(|known| (known.name.clone(), known)).collect()
    });
    &ROCKS
}

/// For searching: names, summaries, labels and modules of all rocks of the catalogue. What rockspecs say goes before it.
pub fn about() -> BTreeMap<RockName, About> {
    let about = |known: &Known| About { summary: known.summary.clone(), labels: known.labels.clone(), modules: known.modules.clone() };
    rocks().iter().map(|(name, known)| (name.clone(), about(known))).collect()
}

/// The rock that people mean by a word which is no rock's name on the servers: by another name of it, or by a module that it gives. `cjson` is `lua-cjson`, `lfs`
/// is `luafilesystem`, `bio.utils` is `bio-utils`.
pub fn meant(word: &str) -> Option<&'static Known> {
    let lower = word.to_lowercase();
    let by = |has: &dyn Fn(&Known) -> bool| rocks().values().find(|known| has(known));
    by(&|known| known.name.as_str() == lower)
        .or_else(|| by(&|known| known.also.contains(&lower)))
        .or_else(|| by(&|known| known.modules.iter().any(|module| module == word)))
        .or_else(|| by(&|known| known.modules.iter().any(|module| word.starts_with(&format!("{module}.")))))
}

/// What goes well with these rocks and is not among them, each with the rock because of which it is said, the most recommended first.
pub fn recommended<'a>(installed: impl IntoIterator<Item = &'a RockName>) -> Vec<(&'static Known, Vec<RockName>)> {
    let installed: BTreeSet<&RockName> = installed.into_iter().collect();
    let mut because: BTreeMap<&RockName, Vec<RockName>> = BTreeMap::new();
    for name in &installed {
        for other in rocks().get(*name).into_iter().flat_map(|known| &known.recommends) {
            if !installed.contains(other) {
                because.entry(other).or_default().push((*name).clone());
            }
        }
    }
    let mut found: Vec<_> = because.into_iter().filter_map(|(name, why)| Some((rocks().get(name)?, why))).collect();
    found.sort_by(|a, b| b.1.len().cmp(&a.1.len()).then_with(|| a.0.name.cmp(&b.0.name)));
    found
}

/// A set of rocks that an environment can be bootstrapped with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// What it is called: a name as machines have.
    pub name: String,
    /// What it is for, one line.
    pub summary: String,
    /// The profile that it has everything of, too.
    pub extends: Option<String>,
    /// Its rocks, without those of the profile it extends.
    pub rocks: Vec<Dependency>,
}

/// A profile as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenProfile {
    #[serde(default)]
    summary: String,
    #[serde(default)]
    extends: Option<String>,
    rocks: Vec<String>,
}

const PROFILES: &[(&str, &str)] = &[
    ("minimal", include_str!("../data/profiles/minimal.toml")),
    ("standard", include_str!("../data/profiles/standard.toml")),
    ("full", include_str!("../data/profiles/full.toml")),
    ("network", include_str!("../data/profiles/network.toml")),
    ("development", include_str!("../data/profiles/development.toml")),
    ("bioxen-minimal", include_str!("../data/profiles/bioxen-minimal.toml")),
    ("bioxen-standard", include_str!("../data/profiles/bioxen-standard.toml")),
    ("bioxen-full", include_str!("../data/profiles/bioxen-full.toml")),
];

/// The profiles that vmoon brings along, smaller ones first.
pub fn profiles() -> &'static [Profile] {
    static ALL: LazyLock<Vec<Profile>> = LazyLock::new(|| {
        let read = |(name, text): &(&str, &str)| Profile::parse(name, text).expect("the profiles compiled in are tested");
        PROFILES.iter().map(read).collect()
    });
    &ALL
}

/// The profile of this name that vmoon brings along.
///
/// # Errors
/// [`Code::NotFound`] with those that there are.
pub fn profile(name: &str) -> Result<&'static Profile> {
    profiles().iter().find(|profile| profile.name == name).ok_or_else(|| {
        let names: Vec<&str> = profiles().iter().map(|profile| profile.name.as_str()).collect();
        let shown: String = escape(name).chars().take(60).collect();
        let near = names.iter().filter_map(|one| Some((search::distance(&shown, one, 3)?, one))).min();
        let hint = match near {
            Some((_, near)) => format!("did you mean {near}? there are {}", names.join(", ")),
            None => format!("there are {}; a file of your own is given by its path", names.join(", ")),
        };
        Error::new(Code::NotFound, format!("there is no profile \"{shown}\"")).hint(hint)
    })
}

impl Profile {
    /// Reads a set: TOML with `rocks`, a list of names with constraints as rockspecs write them, and if wanted `summary` and `extends`.
    ///
    /// # Errors
    /// `name.invalid`; [`Code::Usage`] for what is no such file, with every rock that cannot be read.
    pub fn parse(name: &str, text: &str) -> Result<Self> {
        name::check(name)?;
        let bad = |why: String| {
            Error::new(Code::Usage, format!("the set {name} cannot be read: {why}"))
                .hint("it has a line like: rocks = [\"lua-cjson\", \"lpeg >= 1.0\"]")
        };
        if text.len() > MAX_TEXT {
            return Err(bad(format!("it has more than {MAX_TEXT} bytes")));
        }
        let written: WrittenProfile = toml::from_str(text).map_err(|error| bad(error.to_string().trim_end().to_owned()))?;
        if let Some(extends) = &written.extends {
            name::check(extends)?;
        }
        let mut problems = Vec::new();
        let mut rocks: Vec<Dependency> = Vec::new();
        for line in &written.rocks {
            match line.parse::<Dependency>() {
                Ok(rock) if rock.name.is_lua() => {
                    problems.push(format!("\"{}\": the Lua version belongs to the environment", escape(line)))
                }
                Ok(rock) if rocks.iter().any(|other| other.name == rock.name) => problems.push(format!("{} stands there twice", rock.name)),
                Ok(rock) => rocks.push(rock),
                Err(error) => problems.push(error.message().to_owned()),
            }
        }
        if !problems.is_empty() {
            return Err(bad(problems.join("; ")));
        }
        let summary: Vec<&str> = written.summary.split_whitespace().collect();
        Ok(Self { name: name.to_owned(), summary: escape(&summary.join(" ")).chars().take(200).collect(), extends: written.extends, rocks })
    }

    /// All rocks of the set and of those it extends, in order: the oldest ancestor's first. A rock that stands in several has the constraints of all.
    ///
    /// `find` gives people's own sets by name; where it gives none, those that vmoon brings along are looked at.
    ///
    /// # Errors
    /// [`Code::NotFound`] for a set that is not there, [`Code::Usage`] for sets that extend each other in a circle, and what `find` fails with.
    pub fn all_rocks(&self, mut find: impl FnMut(&str) -> Result<Option<Self>>) -> Result<Vec<Dependency>> {
        let mut chain = vec![self.clone()];
        while let Some((name, extends)) = chain.last().and_then(|last| Some((last.name.clone(), last.extends.clone()?))) {
            // A set that extends its own name adds to the one that vmoon brings along.
            let own = if name == extends { None } else { find(&extends)? };
            let next = match own {
                Some(own) => own,
                None => profile(&extends)?.clone(),
            };
            if chain.len() >= MAX_CHAIN || chain.contains(&next) {
                let names: Vec<&str> = chain.iter().map(|one| one.name.as_str()).collect();
                let message = format!("the sets extend each other in a circle, or too deeply: {} and {extends}", names.join(", "));
                return Err(Error::new(Code::Usage, message));
            }
            chain.push(next);
        }
        let mut rocks: Vec<Dependency> = Vec::new();
        for rock in chain.into_iter().rev().flat_map(|one| one.rocks) {
            match rocks.iter_mut().find(|other| other.name == rock.name) {
                Some(other) => other.constraints.0.extend(rock.constraints.0),
                None => rocks.push(rock),
            }
        }
        Ok(rocks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::builtin;

    fn names(profile: &str) -> String {
        let rocks = super::profile(profile).unwrap().all_rocks(|_| Ok(None)).unwrap();
        rocks.iter().map(|rock| rock.name.as_str()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn the_profiles_have_the_rocks_they_promise() {
        for (profile, rocks) in [
            ("minimal", "lua-cjson luafilesystem"),
            ("standard", "lua-cjson luafilesystem luasocket penlight"),
            ("full", "lua-cjson luafilesystem luasocket penlight lpeg lua-curl lua-messagepack lyaml lua-term luaposix"),
            ("network", "lua-cjson luafilesystem luasocket lua-curl lua-messagepack"),
            ("development", "lua-cjson luafilesystem penlight inspect busted luassert"),
            ("bioxen-minimal", "lua-cjson luafilesystem bio-utils"),
            ("bioxen-standard", "lua-cjson luafilesystem bio-utils luasocket sequence-parser phylo-tree"),
            ("bioxen-full", "lua-cjson luafilesystem bio-utils luasocket sequence-parser phylo-tree blast-parser genome-tools penlight"),
        ] {
            assert_eq!(names(profile), rocks, "{profile}");
        }
        assert_eq!(profiles().len(), 8);
    }

    #[test]
    fn every_rock_of_a_profile_or_a_recommendation_is_in_the_catalogue() {
        for profile in profiles() {
            for rock in &profile.rocks {
                assert!(rocks().contains_key(&rock.name), "{} of {}", rock.name, profile.name);
            }
            assert!(!profile.summary.is_empty());
        }
        for known in rocks().values() {
            assert!(!known.modules.is_empty() && !known.summary.is_empty(), "{}", known.name);
            assert!(known.recommends.iter().all(|name| rocks().contains_key(name) && *name != known.name), "{}", known.name);
        }
    }

    #[test]
    fn the_catalogue_says_of_our_own_rocks_what_they_give() {
        for rock in builtin::rocks() {
            let known = &rocks()[rock.name];
            let given: Vec<&str> = rock.modules.iter().map(|(module, _)| *module).collect();
            assert!(known.modules.iter().all(|module| given.contains(&module.as_str())), "{}", rock.name);
            assert!(rock.rockspec.contains(&format!("summary = \"{}.\"", known.summary)), "{}: the rockspec's summary differs", rock.name);
        }
    }

    #[test]
    fn a_module_or_another_name_finds_its_rock() {
        for (word, rock) in [
            ("cjson", "lua-cjson"),
            ("lfs", "luafilesystem"),
            ("socket.http", "luasocket"),
            ("socket.core", "luasocket"),
            ("MessagePack", "lua-messagepack"),
            ("lcurl", "lua-curl"),
            ("Lua-cURL", "lua-curl"),
            ("bio.utils", "bio-utils"),
            ("bio.blast.xml", "blast-parser"),
            ("pl", "penlight"),
            ("lpeg", "lpeg"),
        ] {
            assert_eq!(meant(word).map(|known| known.name.as_str()), Some(rock), "{word}");
        }
        assert!(["", "bio", "nothing", "../x", "cjson\n"].iter().all(|word| meant(word).is_none()));
    }

    #[test]
    fn recommendations_are_what_is_not_there_yet() {
        let installed: Vec<RockName> = ["bio-utils", "phylo-tree", "penlight"].map(|name| name.parse().unwrap()).into();
        let shown: Vec<(&str, usize)> = recommended(&installed).into_iter().map(|(known, why)| (known.name.as_str(), why.len())).collect();
        assert_eq!(shown, [("sequence-parser", 2), ("genome-tools", 1), ("inspect", 1)]);
        assert!(recommended(&[]).is_empty());
    }

    #[test]
    fn sets_of_ones_own_extend_others_and_tighten_them() {
        let own = Profile::parse("lab", "extends = \"minimal\"\nrocks = [\"lpeg >= 1.0\", \"lua-cjson < 3\"]").unwrap();
        let rocks = own.all_rocks(|_| Ok(None)).unwrap();
        assert_eq!(rocks.iter().map(Dependency::to_string).collect::<Vec<_>>(), ["lua-cjson < 3", "luafilesystem", "lpeg >= 1.0"]);
        let theirs = Profile::parse("minimal", "rocks = [\"inspect\"]").unwrap();
        let rocks = own.all_rocks(|name| Ok((name == "minimal").then(|| theirs.clone()))).unwrap();
        assert_eq!(rocks[0].name.as_str(), "inspect");
    }

    #[test]
    fn sets_that_are_wrong_say_everything_that_is() {
        let message = |text: &str| Profile::parse("lab", text).unwrap_err().message().to_owned();
        assert!(message("rocks = 3").contains("line 1"));
        assert!(message("rock = []").contains("rock"));
        let all = message("rocks = [\"../x\", \"lpeg >= \", \"lua >= 5.4\", \"inspect\", \"inspect\"]");
        assert!(all.contains("../x") && all.contains("the environment") && all.contains("inspect stands there twice"), "{all}");
        assert!(Profile::parse("../x", "rocks = []").is_err());
        assert!(Profile::parse("lab", "extends = \"../x\"\nrocks = []").is_err());
        assert!(Profile::parse("lab", &" ".repeat(MAX_TEXT + 1)).is_err());
        let error = profile("bioxen-ful").unwrap_err();
        assert_eq!(error.code(), Code::NotFound);
        assert!(error.hint_text().unwrap().contains("did you mean bioxen-full"));
    }

    #[test]
    fn sets_in_a_circle_are_told() {
        let set = |name: &str, extends: &str| Profile::parse(name, &format!("extends = \"{extends}\"\nrocks = []")).unwrap();
        let error = set("a", "b").all_rocks(|name| Ok(Some(if name == "b" { set("b", "a") } else { set("a", "b") }))).unwrap_err();
        assert!(error.message().contains("in a circle"), "{error}");
        // A set of one's own may have the name of the one it extends.
        let own = set("minimal", "minimal");
        assert_eq!(own.all_rocks(|_| Ok(None)).unwrap().len(), 2);
        let missing = set("a", "gone").all_rocks(|_| Ok(None)).unwrap_err();
        assert_eq!(missing.code(), Code::NotFound);
    }
}
