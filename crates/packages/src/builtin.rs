//! The rocks server inside vmoon: five biology rocks, compiled in as their sources, packed when they are asked for.
//!
//! It has the files that any rocks server has, so that nobody who reads servers need know that it is one of a kind: manifests (as JSON, which needs no
//! interpreter), rockspecs, `.all.rock`, `.src.rock` and the sources' archives. Packing is deterministic: files are stored uncompressed with a fixed time, so
//! that the check sums in people's locks hold whatever compressor a later vmoon is built with. What was released once never changes its bytes; a change is a
//! new revision (the test compares with `crates/packages/rocks/SHA256SUMS`).

use crate::{digest, lua_version::LuaVersion};
use serde_json::{Map, Value, json};
use std::{
    borrow::Cow,
    io::{Cursor, Write as _},
};
use zip::{CompressionMethod, DateTime, ZipWriter, result::ZipResult, write::SimpleFileOptions};

/// The address of this server, without the names of files.
pub const URL: &str = "builtin:";

/// One rock that vmoon brings along.
#[derive(Debug)]
pub struct BuiltinRock {
    /// Its name.
    pub name: &'static str,
    /// Its version, without the revision: `1.0.0`.
    pub version: &'static str,
    /// The revision of its rockspec.
    pub revision: u32,
    /// Its rockspec, Lua text.
    pub rockspec: &'static str,
    /// Its page of documentation, Markdown.
    pub readme: &'static str,
    /// Its modules: name, and text.
    pub modules: &'static [(&'static str, &'static str)],
}

macro_rules! rock {
    ($name:literal $version:literal - $revision:literal: $($module:literal $file:literal),+ $(,)?) => {
        BuiltinRock {
            name: $name,
            version: $version,
            revision: $revision,
            rockspec: include_str!(concat!("../rocks/", $name, "/", $name, "-", $version, "-", $revision, ".rockspec")),
            readme: include_str!(concat!("../rocks/", $name, "/README.md")),
            modules: &[$(($module, include_str!(concat!("../rocks/", $name, "/src/", $file)))),+],
        }
    };
}

static ROCKS: &[BuiltinRock] = &[
    rock!("bio-utils" "1.0.0" - 1:
        "bio.utils" "bio/utils.lua",
        "bio.utils.alphabet" "bio/utils/alphabet.lua",
        "bio.utils.codons" "bio/utils/codons.lua",
        "bio.utils.composition" "bio/utils/composition.lua",
        "bio.utils.genetic_code" "bio/utils/genetic_code.lua",
        "bio.utils.melting" "bio/utils/melting.lua",
        "bio_utils" "bio_utils.lua",
    ),
    rock!("blast-parser" "1.0.0" - 1:
        "bio.blast" "bio/blast.lua",
        "bio.blast.hits" "bio/blast/hits.lua",
        "bio.blast.report" "bio/blast/report.lua",
        "bio.blast.tabular" "bio/blast/tabular.lua",
        "bio.blast.xml" "bio/blast/xml.lua",
        "blast_parser" "blast_parser.lua",
    ),
    rock!("genome-tools" "1.0.0" - 1:
        "bio.genome" "bio/genome.lua",
        "bio.genome.density" "bio/genome/density.lua",
        "bio.genome.gff3" "bio/genome/gff3.lua",
        "bio.genome.intervals" "bio/genome/intervals.lua",
        "bio.genome.orfs" "bio/genome/orfs.lua",
        "genome_tools" "genome_tools.lua",
    ),
    rock!("phylo-tree" "1.0.0" - 1:
        "bio.phylo" "bio/phylo.lua",
        "bio.phylo.cluster" "bio/phylo/cluster.lua",
        "bio.phylo.compare" "bio/phylo/compare.lua",
        "bio.phylo.distance" "bio/phylo/distance.lua",
        "bio.phylo.newick" "bio/phylo/newick.lua",
        "bio.phylo.walk" "bio/phylo/walk.lua",
        "phylo_tree" "phylo_tree.lua",
    ),
    rock!("sequence-parser" "1.0.0" - 1:
        "bio.sequences" "bio/sequences.lua",
        "bio.sequences.fasta" "bio/sequences/fasta.lua",
        "bio.sequences.fastq" "bio/sequences/fastq.lua",
        "bio.sequences.genbank" "bio/sequences/genbank.lua",
        "bio.sequences.location" "bio/sequences/location.lua",
        "bio.sequences.source" "bio/sequences/source.lua",
        "sequence_parser" "sequence_parser.lua",
    ),
];

/// The rocks, by name.
pub fn rocks() -> &'static [BuiltinRock] {
    ROCKS
}

/// The content of a file of this server, by its name (what stands behind `builtin:`); `None` if there is no such file.
///
/// There are `manifest-VERSION.json` for each Lua version, and for each rock `NAME-VERSION-REVISION` with `.rockspec`, `.all.rock` and `.src.rock`, and
/// `NAME-VERSION.zip`, the sources, which is where the rockspecs say they are.
pub fn file(name: &str) -> Option<Cow<'static, [u8]>> {
    if LuaVersion::ALL.into_iter().any(|lua| name == format!("manifest-{lua}.json")) {
        return Some(Cow::Owned(manifest().to_string().into_bytes()));
    }
    let rock = ROCKS.iter().find(|rock| name.strip_prefix(rock.name).is_some_and(|rest| rest.starts_with('-')))?;
    let packed = match name.strip_prefix(rock.stem().as_str()) {
        Some(".rockspec") => return Some(Cow::Borrowed(rock.rockspec.as_bytes())),
        Some(".all.rock") => rock.all(),
        Some(".src.rock") => rock.src(),
        _ if name == rock.archive_name() => rock.sources(),
        _ => return None,
    };
    // Writing to memory does not fail, and names and sizes are ours; if it ever did, the file would not be there.
    packed.ok().map(Cow::Owned)
}

/// The manifest, the same for every Lua version: all rocks are for 5.1 to 5.5.
fn manifest() -> Value {
    let mut repository = Map::new();
    let mut modules = Map::new();
    for rock in ROCKS {
        let version = format!("{}-{}", rock.version, rock.revision);
        for (module, _) in rock.modules {
            modules.insert((*module).to_owned(), json!([format!("{}/{version}", rock.name)]));
        }
        repository.insert(rock.name.to_owned(), json!({ version: [{ "arch": "all" }, { "arch": "rockspec" }, { "arch": "src" }] }));
    }
    json!({ "repository": repository, "modules": modules, "commands": {} })
}

/// The check sums of everything that is packed, one line for each file as sha256sum(1) writes them, sorted by name.
pub fn sums() -> String {
    let mut lines = Vec::new();
    for rock in ROCKS {
        let stem = rock.stem();
        for name in [format!("{stem}.all.rock"), format!("{stem}.rockspec"), format!("{stem}.src.rock"), rock.archive_name()] {
            let sum = file(&name).map(|bytes| {
                let mut hasher = digest::Hasher::new();
                hasher.update(&bytes);
                hasher.finish()
            });
            lines.push(format!("{}  {name}\n", sum.unwrap_or_default()));
        }
    }
    lines.concat()
}

impl BuiltinRock {
    /// `NAME-VERSION-REVISION`, with which the names of its files begin.
    pub fn stem(&self) -> String {
        format!("{}-{}-{}", self.name, self.version, self.revision)
    }

    fn archive_name(&self) -> String {
        format!("{}-{}.zip", self.name, self.version)
    }

    /// Where a module's file is below a directory of Lua modules: `bio/utils.lua`.
    pub fn module_file(module: &str) -> String {
        format!("{}.lua", module.replace('.', "/"))
    }

    /// The binary rock for every machine: what a tree has, ready to be copied.
    fn all(&self) -> ZipResult<Vec<u8>> {
        let mut files = vec![(format!("{}.rockspec", self.stem()), self.rockspec.as_bytes())];
        files.extend(self.modules.iter().map(|(module, text)| (format!("lua/{}", Self::module_file(module)), text.as_bytes())));
        files.push(("doc/README.md".to_owned(), self.readme.as_bytes()));
        pack(&files)
    }

    /// Rockspec and the archive of sources.
    fn src(&self) -> ZipResult<Vec<u8>> {
        let sources = self.sources()?;
        pack(&[(format!("{}.rockspec", self.stem()), self.rockspec.as_bytes()), (self.archive_name(), &sources)])
    }

    /// The sources as the rockspec wants them: below `NAME-VERSION/`.
    fn sources(&self) -> ZipResult<Vec<u8>> {
        let root = format!("{}-{}", self.name, self.version);
        let mut files: Vec<_> =
            self.modules.iter().map(|(module, text)| (format!("{root}/src/{}", Self::module_file(module)), text.as_bytes())).collect();
        files.push((format!("{root}/README.md"), self.readme.as_bytes()));
        pack(&files)
    }
}

fn pack(files: &[(String, &[u8])]) -> ZipResult<Vec<u8>> {
    let options = SimpleFileOptions::default()
        .compression_method(CompressionMethod::Stored)
        .last_modified_time(DateTime::default())
        .unix_permissions(0o644);
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in files {
        writer.start_file(name.as_str(), options)?;
        writer.write_all(bytes)?;
    }
    Ok(writer.finish()?.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{manifest::Manifest, name::RockName};

    #[test]
    fn the_manifest_is_read_without_an_interpreter() {
        let bytes = file("manifest-5.4.json").unwrap();
        let manifest = Manifest::from_json(&bytes).unwrap();
        assert_eq!((manifest.rocks.len(), manifest.passed_over), (5, 0));
        let name: RockName = "bio-utils".parse().unwrap();
        assert_eq!(manifest.rocks[&name][0].version.as_str(), "1.0.0-1");
        assert_eq!(manifest.modules["bio.utils"], [name]);
    }

    #[test]
    fn there_is_what_the_manifest_says_and_nothing_else() {
        for rock in rocks() {
            let stem = rock.stem();
            for suffix in [".rockspec", ".all.rock", ".src.rock"] {
                assert!(file(&format!("{stem}{suffix}")).is_some_and(|bytes| !bytes.is_empty()), "{stem}{suffix}");
            }
        }
        for name in [
            "",
            "manifest",
            "manifest-5.4.zip",
            "bio-utils",
            "bio-utils-1.0.0-1",
            "bio-utils-1.0.0-2.rockspec",
            "../bio-utils-1.0.0.zip",
            "bio-utils-",
        ] {
            assert!(file(name).is_none(), "{name}");
        }
    }

    #[test]
    fn packing_twice_gives_the_same_bytes() {
        for rock in rocks() {
            assert_eq!(rock.all().unwrap(), rock.all().unwrap());
            assert_eq!(rock.src().unwrap(), rock.src().unwrap());
        }
    }
}
