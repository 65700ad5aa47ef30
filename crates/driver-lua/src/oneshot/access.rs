//! What a one-shot program may do: from what was asked for to the rules of its process and of its libraries, and how they are
//! put in force. Who asks for nothing gets the profile `sealed`, the folder of the program's file, and installed packages in Lua.
//!
//! This file must not know how a program is run.

use super::{MISSING, OURS, Source, UNUSABLE, complain};
use crate::{
    environments::{self, Environment},
    flavour::OURS as OUR_LUA,
    grants::{Granter, home, libraries, linked, packages},
    settings::{BUILTIN, Settings},
};
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};
use vmoon_confine::{Layer, Prepared, Profile, Rules, Status, grant::Kind, paths::resolve};
use vmoon_core::spec::{MachineSpec, Problems};
use vmoon_lua_wire::{program::Modules, sandbox::Grants};

/// The exit code when what was asked for makes no sense.
pub(super) const USAGE: u8 = 2;
/// Where vmoon's state would be if nobody said; no folder lies there.
const NO_STATE: &str = "/dev/null/vmoon";

/// What a program may do, decided.
#[derive(Clone, Debug)]
pub(crate) struct Access {
    /// For the kernel.
    pub(crate) rules: Rules,
    /// For the libraries.
    pub(crate) grants: Grants,
    /// The most the Lua state may allocate, bytes.
    pub(crate) memory: Option<u64>,
    /// The folder of the program's file, if it may be read: modules are looked for there, too.
    pub(crate) folder: Option<PathBuf>,
    /// Where modules are looked for, if not where the computer has them.
    pub(crate) modules: Option<Modules>,
}

/// Decides. `settings` are those of a machine that are about what it may do; `program` is the interpreter, if not the embedded one.
///
/// # Errors
/// The exit code; the reason was told on standard error.
pub(crate) fn decide(
    settings: &Map<String, Value>,
    source: &Source,
    program: Option<&Path>,
    environment: Option<&Environment>,
) -> Result<Access, u8> {
    let usage = |problems: Problems| {
        problems.0.iter().for_each(|problem| complain(&format!("{}: {}", option(&problem.path), problem.message)));
        USAGE
    };
    let mut settings = settings.clone();
    if !settings.contains_key("profile") {
        let profile = if settings.contains_key("net") { Profile::Net } else { Profile::Sealed };
        settings.insert("profile".into(), profile.as_str().into());
    }
    // What an installed interpreter cannot do is said by its settings.
    if let Some(program) = program.and_then(Path::to_str) {
        settings.insert("runtime".into(), program.into());
    }
    let spec = MachineSpec { kind: "lua".into(), settings, ..MachineSpec::default() };
    let settings = Settings::read(&spec).map_err(usage)?;
    let profile = settings.confinement.profile;
    let state = vmoon_sys::paths::Paths::from_env().map_or_else(|_| NO_STATE.into(), |paths| paths.state);
    let (state, home) = (state.canonicalize().unwrap_or(state), home());
    let granter = Granter { state: &state, home: home.as_deref() };
    let mut problems = Problems::default();
    let warnings = granter.judge(&settings.confinement, &mut problems);
    if !problems.0.is_empty() {
        return Err(usage(problems));
    }
    warnings.iter().for_each(|warning| complain(&format!("beware: {}", vmoon_core::name::escape(warning))));
    let refused = |sentence: String| {
        complain(&sentence);
        UNUSABLE
    };
    let mut rules = granter.rules(&settings, program, None).map_err(refused)?;
    rules.compiles = profile != Profile::Trusted && program.is_none() && OUR_LUA.compiles;
    let mut grants = libraries(&settings, None);
    let mut folder = None;
    let mut modules = None;
    if let Some(environment) = environment {
        if let Some(why) = environment.unfit(program.and_then(Path::to_str).unwrap_or(BUILTIN)) {
            complain(&format!("--env: {why}"));
            return Err(USAGE);
        }
        modules = Some(environment.modules(profile != Profile::Sealed).map_err(refused)?);
        let linked = if profile == Profile::Sealed { linked() } else { Vec::new() };
        environments::grant(&mut rules, &mut grants, None, Some(environment), &linked);
    }
    if profile != Profile::Trusted {
        let own = match source {
            Source::File(path) => own(path, &state, home.as_deref()),
            Source::Code(_) | Source::Stdin => None,
        };
        folder = own.clone().filter(|path| path.is_dir());
        let packages = if profile == Profile::Sealed && environment.is_none() { packages() } else { Vec::new() };
        grants.read.extend(own.iter().chain(&packages).map(|path| path.to_string_lossy().into_owned()));
        if !rules.execute.is_empty() {
            rules.execute.extend(folder.clone());
        }
        rules.read.extend(own.into_iter().chain(packages));
    }
    Ok(Access { rules, grants, memory: settings.memory, folder, modules })
}

/// The option by which a setting is given.
fn option(path: &str) -> String {
    format!("--{}", path.trim_start_matches("settings."))
}

/// What is granted because the program lies there: its folder, or the file alone where the folder is one that would have to be
/// named to be granted (the home directory, `/tmp`, `/etc`).
fn own(file: &Path, state: &Path, home: Option<&Path>) -> Option<PathBuf> {
    let file = file.canonicalize().ok()?;
    let granted = |path: &Path| resolve(path, Kind::Read, state, home).ok();
    let folder = file.parent().and_then(granted).filter(|granted| granted.warning.is_none());
    Some(folder.or_else(|| granted(&file).filter(|_| file.is_file()))?.path)
}

impl Access {
    /// Whether nothing is to be put in force.
    pub(crate) fn is_free(&self) -> bool {
        self.rules == Rules { profile: Profile::Trusted, ..Rules::default() }
    }

    /// Confines this process, which must have one thread.
    ///
    /// # Errors
    /// A sentence: part of the rules hold then, so end the process.
    pub(crate) fn confine(&self, prepared: &Prepared) -> Result<Option<Weakness>, String> {
        if self.is_free() {
            return Ok(None);
        }
        if self.rules.profile == Profile::Net && !self.rules.without.contains(&Layer::Broker) {
            let guard = vmoon_confine::net::start(&self.rules.hosts, None).map_err(|error| error.to_string())?;
            guard.into_client().install().map_err(|_| "the broker for names is installed already".to_owned())?;
        }
        let report = vmoon_confine::apply(&self.rules, prepared).map_err(|error| error.to_string())?;
        Ok(weakness(&self.rules, &report))
    }
}

/// A sentence: what does not hold although it was asked for.
pub(crate) type Weakness = String;

/// What the kernel lacks of what the profile promises.
pub(crate) fn weakness(rules: &Rules, report: &vmoon_confine::Report) -> Option<Weakness> {
    if rules.profile == Profile::Trusted {
        return None;
    }
    let lacking = [(Layer::Landlock, "which files it may use"), (Layer::Seccomp, "sockets and processes")];
    let mut lacking = lacking.into_iter().filter(|(layer, _)| !rules.without.contains(layer));
    lacking.find_map(|(layer, what)| match report.get(layer) {
        Some(Status::Off { why }) => Some(format!("the kernel does not hold the program to its profile ({what}): {why}")),
        _ => None,
    })
}

/// The path of an interpreter, looked for as a shell does.
///
/// # Errors
/// The exit code; the reason was told.
pub(crate) fn interpreter(name: &str) -> Result<PathBuf, u8> {
    if name == BUILTIN {
        return Err(OURS);
    }
    let shown = vmoon_core::name::escape(name);
    let found = if name.contains('/') {
        Some(PathBuf::from(name))
    } else {
        let dirs = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&dirs).map(|dir| dir.join(name)).find(|path| path.is_file())
    };
    let missing = || {
        complain(&format!("there is no interpreter {shown} on this computer; install it, or leave --runtime out for the built-in Lua 5.4"));
        MISSING
    };
    found.and_then(|path| path.canonicalize().ok()).ok_or_else(missing)
}
