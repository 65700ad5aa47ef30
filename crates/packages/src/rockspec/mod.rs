//! What a rockspec says, read from the JSON of its globals and with the overrides of the platform applied.
//!
//! Nothing of it is trusted: names, versions and file names are checked here, so that later steps need not.

use crate::{
    constraint::Dependency,
    name::RockName,
    rockspec::{fields::Fields, value::apply_platforms},
    version::Version,
};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use vmoon_core::{Code, Error, Result};

mod fields;
mod value;

/// What this system is called in `supported_platforms` and in `platforms` tables, the more general first.
pub const PLATFORMS: &[&str] = &["unix", "linux"];

/// A rockspec of format 1.0 to 3.0.
#[derive(Clone, Debug, PartialEq)]
pub struct Rockspec {
    /// `rockspec_format`; 1.0 where it says nothing.
    pub rockspec_format: Version,
    /// `package`, in lower case.
    pub package: RockName,
    /// `version`, with the revision of the rockspec.
    pub version: Version,
    /// What is needed when the rock is used, the interpreter (`lua`) included.
    pub dependencies: Vec<Dependency>,
    /// What is needed when the rock is built.
    pub build_dependencies: Vec<Dependency>,
    /// Foreign libraries, headers and programs that the build needs, by the name they have in variables (`OPENSSL`).
    pub external_dependencies: BTreeMap<String, ExternalDependency>,
    /// As written: `linux`, `!windows`. See [`Rockspec::supports`].
    pub supported_platforms: Vec<String>,
    /// Where its source is.
    pub source: SourceSpec,
    /// What people read.
    pub description: Description,
    /// How it is built.
    pub build: BuildSpec,
    /// How its files are put in place.
    pub deploy: Deploy,
    /// `hooks.post_install`: a command line to be run when it was installed. vmoon does not run it, so such a rock is not chosen.
    pub post_install: Option<String>,
}

/// The table `source`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SourceSpec {
    /// `https://…`, `git+https://…`, `git://…`, `file://…`.
    pub url: String,
    /// A tag of the repository.
    pub tag: Option<String>,
    /// A branch of the repository.
    pub branch: Option<String>,
    /// MD5 of the archive, in hexadecimal. Says that nothing was damaged; proves nothing.
    pub md5: Option<String>,
    /// The folder in the archive that is the source.
    pub dir: Option<String>,
    /// The name of the archive where the URL does not tell.
    pub file: Option<String>,
    /// The module of a repository of old.
    pub module: Option<String>,
}

/// The table `description`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Description {
    /// One line.
    pub summary: Option<String>,
    /// Paragraphs.
    pub detailed: Option<String>,
    /// Where to read more.
    pub homepage: Option<String>,
    /// Its licence, as its author calls it.
    pub license: Option<String>,
    /// Who takes care of it.
    pub maintainer: Option<String>,
    /// Where mistakes are reported.
    pub issues_url: Option<String>,
    /// Words to be found by.
    pub labels: Vec<String>,
}

/// One entry of `external_dependencies`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ExternalDependency {
    /// A program.
    pub program: Option<String>,
    /// A header, as in `#include`.
    pub header: Option<String>,
    /// A library, as `ssl` or `libssl.so`.
    pub library: Option<String>,
}

/// The table `build`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BuildSpec {
    /// `builtin`, `none`, `make`, `cmake`, `command`, or another.
    pub kind: String,
    /// The modules of a `builtin` rock, by module name. A module without a name in the rockspec has the name its file gives it.
    pub modules: BTreeMap<String, Module>,
    /// A `builtin` rock of format 3.0 that names no modules: they are found in `src`, `lua` or the top folder.
    pub autodetect: bool,
    /// Files put in place as they are.
    pub install: Install,
    /// Folders copied beside the rock (`doc`, `test`).
    pub copy_directories: Vec<String>,
    /// `variables`, `build_variables` and `install_variables` in one for the kinds that run programs.
    pub variables: BTreeMap<String, String>,
    /// Patches, by their name: text of a unified diff, applied before the build.
    pub patches: BTreeMap<String, String>,
    /// Everything else that stands in `build`, for kinds that know it.
    pub more: Map<String, Value>,
}

/// One module of a `builtin` rock.
#[derive(Clone, Debug, PartialEq)]
pub enum Module {
    /// A Lua file, by its path in the source.
    Lua(String),
    /// A C module.
    Native(NativeModule),
}

/// How a C module is made.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NativeModule {
    /// C files, by their paths in the source.
    pub sources: Vec<String>,
    /// `NAME` or `NAME=VALUE`.
    pub defines: Vec<String>,
    /// Folders with headers.
    pub incdirs: Vec<String>,
    /// Folders with libraries.
    pub libdirs: Vec<String>,
    /// Libraries, as `ssl`.
    pub libraries: Vec<String>,
}

/// The table `build.install`: where a file has no name, it keeps its own.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Install {
    /// Lua modules.
    pub lua: Vec<InstallEntry>,
    /// C modules that are ready.
    pub lib: Vec<InstallEntry>,
    /// Commands.
    pub bin: Vec<InstallEntry>,
    /// Configuration.
    pub conf: Vec<InstallEntry>,
}

/// One file to put in place.
#[derive(Clone, Debug, PartialEq)]
pub struct InstallEntry {
    /// The name of the module or file; `None` to keep the file's own.
    pub name: Option<String>,
    /// Its path in the source.
    pub file: String,
}

/// The table `deploy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deploy {
    /// Whether commands get a wrapper that sets the paths of modules.
    pub wrap_bin_scripts: bool,
}

impl Rockspec {
    /// Reads the globals of a rockspec, evaluated (see [`crate::evaluate::Evaluator::rockspec`]). `platforms` is usually [`PLATFORMS`].
    ///
    /// # Errors
    /// [`Code::PackageInvalid`], naming every field that is missing or wrong.
    pub fn from_value(globals: &Value, platforms: &[&str]) -> Result<Self> {
        let Some(globals) = globals.as_object() else {
            return Err(Error::new(Code::PackageInvalid, "the rockspec sets no globals"));
        };
        let mut globals = globals.clone();
        for table in ["build", "dependencies", "build_dependencies", "external_dependencies", "source", "hooks", "deploy"] {
            if let Some(value) = globals.get_mut(table) {
                apply_platforms(value, platforms);
            }
        }
        let fields = Fields::new(&globals);
        let spec = read(&fields);
        let problems = fields.problems();
        match spec {
            Some(spec) if problems.is_empty() => Ok(spec),
            _ => {
                let name = globals.get("package").and_then(Value::as_str).unwrap_or("?");
                let name = vmoon_core::name::escape(name).chars().take(80).collect::<String>();
                Err(Error::new(Code::PackageInvalid, format!("the rockspec of {name} has mistakes: {}", problems.join("; ")))
                    .hint("tell its author; another version of the rock may be right"))
            }
        }
    }

    /// Whether it can be used on these platforms: none that is listed with `!`, and one that is listed, if any is listed without.
    pub fn supports(&self, platforms: &[&str]) -> bool {
        let (negative, positive): (Vec<&str>, Vec<&str>) =
            self.supported_platforms.iter().map(String::as_str).partition(|platform| platform.starts_with('!'));
        let here = |platform: &&str| platforms.contains(&platform.trim_start_matches('!'));
        !negative.iter().any(here) && (positive.is_empty() || positive.iter().any(here))
    }

    /// Whether its format is at least this (`3.0`).
    pub fn format_is_at_least(&self, major: u32, minor: u32) -> bool {
        format!("{major}.{minor}").parse::<Version>().is_ok_and(|least| !self.rockspec_format.below(&least))
    }
}

fn read(fields: &Fields<'_>) -> Option<Rockspec> {
    let rockspec_format = fields.text("rockspec_format").unwrap_or_else(|| "1.0".into());
    let rockspec_format: Option<Version> = fields.parsed("rockspec_format", &rockspec_format);
    let newest: Version = "3.1".parse().ok()?;
    if let Some(format) = rockspec_format.as_ref().filter(|format| newest.below(format)) {
        fields.problem(format!("format {format} is newer than 3.1, the newest that vmoon reads"));
    }
    let package = fields.required("package").and_then(|text| fields.parsed("package", &text));
    let version = fields.required("version").and_then(|text| fields.parsed::<Version>("version", &text));
    if let Some(version) = version.as_ref().filter(|version| version.revision().is_none()) {
        fields.problem(format!("version {version} has no revision (write {version}-1)"));
    }
    let dependencies = fields.dependencies("dependencies");
    let build_dependencies = fields.dependencies("build_dependencies");
    let mut external_dependencies = BTreeMap::new();
    for (name, entry) in fields.table("external_dependencies").entries() {
        let dependency =
            ExternalDependency { program: entry.text("program"), header: entry.text("header"), library: entry.text("library") };
        external_dependencies.insert(name, dependency);
    }
    let source = source(&fields.table("source"));
    let description = description(&fields.table("description"));
    let format3 = rockspec_format.as_ref().is_some_and(|format| "3.0".parse::<Version>().is_ok_and(|three| !format.below(&three)));
    let build = build(&fields.table("build"), format3);
    let deploy = Deploy { wrap_bin_scripts: fields.table("deploy").flag("wrap_bin_scripts").unwrap_or(true) };
    Some(Rockspec {
        rockspec_format: rockspec_format?,
        package: package?,
        version: version?,
        dependencies,
        build_dependencies,
        external_dependencies,
        supported_platforms: fields.texts("supported_platforms"),
        source,
        description,
        build,
        deploy,
        post_install: fields.table("hooks").text("post_install"),
    })
}

fn source(table: &Fields<'_>) -> SourceSpec {
    SourceSpec {
        url: table.required("url").unwrap_or_default(),
        tag: table.text("tag").or_else(|| table.text("cvs_tag")),
        branch: table.text("branch"),
        md5: table.text("md5"),
        dir: table.path("dir"),
        file: table.path("file"),
        module: table.path("module").or_else(|| table.path("cvs_module")),
    }
}

fn description(table: &Fields<'_>) -> Description {
    Description {
        summary: table.text("summary"),
        detailed: table.text("detailed"),
        homepage: table.text("homepage"),
        license: table.text("license"),
        maintainer: table.text("maintainer"),
        issues_url: table.text("issues_url"),
        labels: table.texts("labels"),
    }
}

fn build(table: &Fields<'_>, format3: bool) -> BuildSpec {
    // `module` is an old name of `builtin` (luarocks/build.lua).
    let kind = match table.text("type").unwrap_or_else(|| "builtin".into()) {
        old if old == "module" => "builtin".into(),
        kind => kind,
    };
    let mut modules = BTreeMap::new();
    // Other kinds mean other things by it, or nothing.
    let entries = if kind == "builtin" { table.table("modules").values() } else { Vec::new() };
    let autodetect = kind == "builtin" && format3 && entries.is_empty();
    for (name, value) in entries {
        if let Some((name, module)) = table.module(name, value)
            && modules.insert(name.clone(), module).is_some()
        {
            table.problem(format!("two modules are called {name}"));
        }
    }
    let install = table.table("install");
    let mut variables = BTreeMap::new();
    for name in ["variables", "build_variables", "install_variables"] {
        variables.extend(table.table(name).named_texts());
    }
    let mut known = vec!["type", "install", "copy_directories", "variables", "patches", "platforms"];
    if kind == "builtin" {
        known.push("modules");
    }
    BuildSpec {
        kind,
        modules,
        autodetect,
        install: Install { lua: install.files("lua"), lib: install.files("lib"), bin: install.files("bin"), conf: install.files("conf") },
        copy_directories: table.paths("copy_directories"),
        variables,
        patches: table.table("patches").named_texts().into_iter().collect(),
        more: table.without(&known),
    }
}

#[cfg(test)]
mod tests;
