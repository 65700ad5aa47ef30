//! Manifests of rocks servers: which rocks there are, in which versions and forms.
//!
//! Three forms are read: Lua, which is evaluated by an [`Evaluator`] unless it is plain data; JSON (`manifest-5.4.json` of the public server); and the compact
//! form that the evaluator answers with, which is also what is worth keeping in a cache. Entries that cannot be right (names with slashes, versions that are none) are
//! passed over and counted: one bad line does not make a server useless.

mod plain;

use crate::{
    evaluate::{Evaluator, Kind},
    lock::Arch,
    name::RockName,
    version::Version,
};
use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use std::{collections::BTreeMap, fmt, marker::PhantomData};
use vmoon_core::{Code, Error, Result};

/// The first line of the compact form. Then `=NAME` for each rock, `VERSION ARCH ARCH …` for each of its versions, `@MODULE ROCK/VERSION` for each
/// module that the manifest knows, and `!N` at the end: the number of entries that were passed over.
const COMPACT: &str = "vmoon manifest 1";

/// One version of a rock, in the forms a server has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The version.
    pub version: Version,
    /// The forms, in the order of the manifest.
    pub archs: Vec<Arch>,
}

/// What one server has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Manifest {
    /// The versions of each rock, oldest first.
    pub rocks: BTreeMap<RockName, Vec<Listed>>,
    /// For each module that the manifest knows of, the rocks that give it. The public server's manifests know none.
    pub modules: BTreeMap<String, Vec<RockName>>,
    /// Entries that were passed over.
    pub passed_over: usize,
}

impl Manifest {
    /// Reads a manifest of any form: JSON begins with `{`, what is neither that nor compact is Lua.
    ///
    /// # Errors
    /// [`Code::PackageInvalid`] for what is no manifest: a page of HTML, text cut short, a program that fails or does not end.
    pub fn read(bytes: &[u8], evaluator: &dyn Evaluator) -> Result<Self> {
        Kind::Manifest.check(bytes)?;
        let start = bytes.trim_ascii_start();
        match start.first() {
            None => Err(bad("it is empty")),
            Some(b'{') => Self::from_json(bytes),
            Some(b'<') => Err(page()),
            _ if bytes.starts_with(COMPACT.as_bytes()) => Self::from_compact(bytes),
            _ => match plain::read(bytes) {
                Some(manifest) => Ok(manifest),
                None => Self::from_compact(&evaluator.manifest(bytes)?),
            },
        }
    }

    /// Reads the compact form.
    ///
    /// # Errors
    /// [`Code::PackageInvalid`] if its first or last line is missing.
    pub fn from_compact(bytes: &[u8]) -> Result<Self> {
        let text = String::from_utf8_lossy(bytes);
        let mut lines = text.lines();
        if lines.next() != Some(COMPACT) {
            return Err(bad("its first line is not that of a manifest"));
        }
        let mut manifest = Self::default();
        // The rock whose versions are being read, and whether its name was one.
        let mut rock: Option<RockName> = None;
        let mut versions = Vec::new();
        let mut ended = false;
        for line in lines {
            match line.as_bytes().first() {
                Some(b'=') => {
                    manifest.add(rock.take(), std::mem::take(&mut versions));
                    rock = line[1..].parse().ok();
                    manifest.passed_over += usize::from(rock.is_none());
                }
                Some(b'@') => {
                    let (module, rock) = line[1..].rsplit_once(' ').unwrap_or_default();
                    manifest.module(module, rock);
                }
                Some(b'!') => {
                    manifest.passed_over += line[1..].parse::<usize>().unwrap_or(0);
                    ended = true;
                }
                _ => match listed(line) {
                    Some(listed) => versions.push(listed),
                    None => manifest.passed_over += 1,
                },
            }
        }
        manifest.add(rock, versions);
        if ended { Ok(manifest) } else { Err(bad("it is cut short")) }
    }

    /// Reads JSON: `{"repository": {NAME: {VERSION: [{"arch": ARCH}]}}, "modules": {MODULE: ["ROCK/VERSION"]}}`.
    ///
    /// # Errors
    /// [`Code::PackageInvalid`] for what is no such JSON.
    pub fn from_json(bytes: &[u8]) -> Result<Self> {
        let read: Json<'_> = serde_json::from_slice(bytes).map_err(|error| bad("its JSON is not that of a manifest").source(error))?;
        let mut manifest = Self::default();
        for (name, versions) in read.repository.0 {
            let Ok(name) = name.parse::<RockName>() else {
                manifest.passed_over += 1;
                continue;
            };
            let mut all = Vec::with_capacity(versions.0.len());
            for (version, items) in versions.0 {
                let archs: Vec<Arch> = items.iter().filter_map(|item| item.arch.parse().ok()).collect();
                match version.parse() {
                    Ok(version) if !archs.is_empty() => all.push(Listed { version, archs }),
                    _ => manifest.passed_over += 1,
                }
            }
            manifest.add(Some(name), all);
        }
        for (module, rocks) in read.modules.0 {
            for rock in rocks {
                manifest.module(&module, &rock);
            }
        }
        Ok(manifest)
    }

    /// The compact form.
    pub fn to_compact(&self) -> Vec<u8> {
        let mut out = format!("{COMPACT}\n");
        for (name, versions) in &self.rocks {
            out.push('=');
            out.push_str(name.as_str());
            out.push('\n');
            for listed in versions {
                out.push_str(listed.version.as_str());
                for arch in &listed.archs {
                    out.push(' ');
                    out.push_str(arch.as_str());
                }
                out.push('\n');
            }
        }
        for (module, rocks) in &self.modules {
            for rock in rocks {
                out.push_str(&format!("@{module} {rock}/\n"));
            }
        }
        out.push_str(&format!("!{}\n", self.passed_over));
        out.into_bytes()
    }

    fn add(&mut self, name: Option<RockName>, mut versions: Vec<Listed>) {
        let Some(name) = name.filter(|name| !name.is_lua() && !versions.is_empty()) else { return };
        // Names that differ in case are one rock.
        let all = self.rocks.entry(name).or_default();
        all.append(&mut versions);
        all.sort_by(|a, b| a.version.cmp(&b.version));
        all.dedup_by(|later, earlier| {
            let same = later.version == earlier.version;
            if same {
                earlier.archs.append(&mut later.archs);
            }
            same
        });
    }

    /// A module and a rock that gives it, `ROCK/VERSION`.
    fn module(&mut self, module: &str, rock: &str) {
        let rock = rock.split('/').next().and_then(|name| name.parse::<RockName>().ok());
        let fits = !module.is_empty() && module.len() <= 200 && !module.contains(|c: char| c.is_control() || c == ' ');
        match rock {
            Some(rock) if fits => {
                let rocks = self.modules.entry(module.to_owned()).or_default();
                if !rocks.contains(&rock) {
                    rocks.push(rock);
                }
            }
            _ => self.passed_over += 1,
        }
    }
}

/// `VERSION ARCH ARCH …`; `None` if the version is none or no form is known.
fn listed(line: &str) -> Option<Listed> {
    let mut words = line.split(' ');
    let version = words.next()?.parse().ok()?;
    let archs: Vec<Arch> = words.filter_map(|word| word.parse().ok()).collect();
    (!archs.is_empty()).then_some(Listed { version, archs })
}

/// Whether this is a page of HTML instead of anything a rocks server gives.
pub(crate) fn is_page(bytes: &[u8]) -> bool {
    bytes.trim_ascii_start().starts_with(b"<")
}

/// The error for a page of HTML.
pub(crate) fn page() -> Error {
    bad("it is a page of HTML").hint("the address is that of a web site; ask who keeps the server for the address of its rocks")
}

fn bad(why: &str) -> Error {
    Error::new(Code::PackageInvalid, format!("the manifest cannot be used: {why}"))
}

#[derive(Deserialize)]
struct Json<'a> {
    #[serde(borrow)]
    repository: Entries<'a, Entries<'a, Vec<Item<'a>>>>,
    #[serde(borrow, default)]
    modules: Entries<'a, Vec<std::borrow::Cow<'a, str>>>,
}

#[derive(Deserialize)]
struct Item<'a> {
    #[serde(borrow)]
    arch: std::borrow::Cow<'a, str>,
}

/// A JSON object as a list of entries. An empty list is an empty object: encoders of Lua tables cannot tell them apart.
struct Entries<'a, T>(Vec<(std::borrow::Cow<'a, str>, T)>);

impl<T> Default for Entries<'_, T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de: 'a, 'a, T: Deserialize<'de>> Deserialize<'de> for Entries<'a, T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Reader<'a, T>(PhantomData<(&'a (), T)>);

        impl<'de: 'a, 'a, T: Deserialize<'de>> Visitor<'de> for Reader<'a, T> {
            type Value = Entries<'a, T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Self::Value, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Entries(entries))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> std::result::Result<Self::Value, A::Error> {
                match seq.next_element::<IgnoredAny>()? {
                    None => Ok(Entries(Vec::new())),
                    Some(_) => Err(serde::de::Error::invalid_type(serde::de::Unexpected::Seq, &self)),
                }
            }
        }

        deserializer.deserialize_any(Reader(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compact_and_json_say_the_same() {
        let compact =
            b"vmoon manifest 1\n=lpeg\n1.0.2-1 rockspec src\n0.9-1 rockspec\n=LPeg\n1.1-1 all linux-x86_64\n@lpeg lpeg/1.0.2-1\n!0\n";
        let json = br#"{"repository":{"lpeg":{"1.0.2-1":[{"arch":"rockspec"},{"arch":"src"}],"0.9-1":[{"arch":"rockspec"}]},
            "LPeg":{"1.1-1":[{"arch":"all"},{"arch":"linux-x86_64"}]}},"commands":[],"modules":{"lpeg":["lpeg/1.0.2-1"]},"more":7}"#;
        let read = Manifest::from_compact(compact).unwrap();
        assert_eq!(read, Manifest::from_json(json).unwrap());
        let versions: Vec<&str> = read.rocks["lpeg"].iter().map(|listed| listed.version.as_str()).collect();
        assert_eq!(versions, ["0.9-1", "1.0.2-1", "1.1-1"]);
        assert_eq!(read.modules["lpeg"].len(), 1);
        assert_eq!(Manifest::from_compact(&read.to_compact()).unwrap(), read);
    }

    #[test]
    fn entries_that_cannot_be_right_are_passed_over_and_counted() {
        let compact = b"vmoon manifest 1\n=../x\n1-1 src\n=good\n../1 src\n1-1 src ../y\n2-1 no/arch\n=lua\n5.4-1 src\n@m ../x/1\n!3\n";
        let read = Manifest::from_compact(compact).unwrap();
        assert_eq!(read.rocks.len(), 1);
        assert_eq!(read.rocks["good"], [Listed { version: "1-1".parse().unwrap(), archs: vec![Arch::Src] }]);
        assert_eq!(read.passed_over, 7, "{read:?}");
    }

    #[test]
    fn what_is_cut_short_or_no_manifest_is_refused() {
        for bytes in [&b""[..], b"vmoon manifest 1\n=a\n1-1 src\n", b"vmoon manifest 2\n!0\n"] {
            assert_eq!(Manifest::from_compact(bytes).unwrap_err().code(), Code::PackageInvalid);
        }
        for bytes in [&b"{}"[..], b"{\"repository\":[1]}", b"{\"repository\":{\"a\":", b"{\"repository\":{\"a\":{\"1-1\":[{\"arch\":7}]}}}"]
        {
            assert_eq!(Manifest::from_json(bytes).unwrap_err().code(), Code::PackageInvalid);
        }
        assert!(Manifest::from_json(b"{\"repository\":[]}").unwrap().rocks.is_empty());
    }
}
