//! From the settings of a machine to the rules of its process and of its libraries: what its profile grants. Looks at the file
//! system for what there is and where symbolic links lead.

use crate::settings::{Confinement, Settings};
use std::{
    path::{Path, PathBuf},
    sync::OnceLock,
};
use vmoon_confine::{
    Layer, Limits, Profile, Rules,
    grant::{HARMLESS_DEVICES, Kind},
    launch::needs,
    paths::resolve,
};
use vmoon_core::{name::escape, spec::Problems};
use vmoon_lua_wire::sandbox::{self, Grants};

/// Where packages and the libraries of C modules are: Lua's own defaults (luaconf.h) and those of Debian, Fedora and Arch.
const PACKAGES: [&str; 4] = ["/usr/share/lua", "/usr/local/share/lua", "/usr/local/lib/lua", "/usr/lib/lua"];
/// What a C module is linked with.
const LIBRARIES: [&str; 6] = ["/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/etc/ld.so.cache"];
/// What the C library reads by itself: time zones, locales.
const DATA: [&str; 4] = ["/usr/share/zoneinfo", "/usr/lib/locale", "/etc/localtime", "/usr/share/locale"];
/// Address space beyond the program's memory: stacks, libraries, what the allocator keeps, bytes.
const SLACK: u64 = 256 << 20;

/// What every machine of a kind is granted, looked up once: paths without symbolic links, of what there is.
struct Usual {
    read: Vec<PathBuf>,
    write: Vec<PathBuf>,
    execute: Vec<PathBuf>,
}

/// Where packages in Lua are, of what there is, without symbolic links.
pub(crate) fn packages() -> Vec<PathBuf> {
    there(PACKAGES.into_iter())
}

/// What C modules are linked with, of what there is, without symbolic links.
pub(crate) fn linked() -> Vec<PathBuf> {
    there(LIBRARIES.into_iter())
}

fn usual() -> &'static Usual {
    static USUAL: OnceLock<Usual> = OnceLock::new();
    USUAL.get_or_init(|| {
        let devices = HARMLESS_DEVICES.iter().filter(|device| **device != "/dev/null").copied();
        Usual {
            read: there(PACKAGES.into_iter().chain(DATA).chain(devices)),
            write: there(["/dev/null"].into_iter()),
            execute: there(LIBRARIES.into_iter().chain(PACKAGES)),
        }
    })
}

fn there<'a>(paths: impl Iterator<Item = &'a str>) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = paths.filter_map(|path| Path::new(path).canonicalize().ok()).collect();
    found.sort();
    found.dedup();
    found
}

/// The user's home directory, without symbolic links.
pub(crate) fn home() -> Option<PathBuf> {
    static HOME: OnceLock<PathBuf> = OnceLock::new();
    if let Some(home) = HOME.get() {
        return Some(home.clone());
    }
    let home = PathBuf::from(std::env::var_os("HOME")?).canonicalize().ok()?;
    Some(HOME.get_or_init(|| home).clone())
}

/// Who grants: where vmoon keeps its state and where the user is at home, both of which are not granted by accident.
pub(crate) struct Granter<'a> {
    pub(crate) state: &'a Path,
    pub(crate) home: Option<&'a Path>,
}

impl Granter<'_> {
    /// Looks at every path of the settings; the warnings.
    pub(crate) fn judge(&self, confinement: &Confinement, problems: &mut Problems) -> Vec<String> {
        let mut warnings = Vec::new();
        for (name, kind, paths) in [("read", Kind::Read, &confinement.read), ("write", Kind::Write, &confinement.write)] {
            for path in paths {
                match resolve(path, kind, self.state, self.home) {
                    Ok(granted) => warnings.extend(granted.warning),
                    Err(why) => problems.add(format!("settings.{name}"), why),
                }
            }
        }
        warnings
    }

    /// The rules of a process, but for the directories that are its own. `program` is the interpreter it runs, if not the embedded one,
    /// `flag` a directory of files by which it is told something.
    ///
    /// # Errors
    /// A sentence: what was granted when the machine was created cannot be granted any more.
    pub(crate) fn rules(&self, settings: &Settings, program: Option<&Path>, flag: Option<&Path>) -> Result<Rules, String> {
        let confinement = &settings.confinement;
        let mut rules = Rules {
            profile: confinement.profile,
            hosts: confinement.net.clone(),
            limits: Limits {
                memory: settings.memory.map(|bytes| bytes.saturating_add(SLACK)),
                cpu: confinement.cpu,
                file_size: confinement.file_size,
                open_files: confinement.open_files,
            },
            without: confinement.without.clone(),
            ..Rules::default()
        };
        if confinement.profile == Profile::Trusted {
            return Ok(rules);
        }
        let granted = |path: &PathBuf, kind| Ok::<_, String>(resolve(path, kind, self.state, self.home)?.path);
        rules.read = confinement.read.iter().map(|path| granted(path, Kind::Read)).collect::<Result<_, _>>()?;
        rules.write = confinement.write.iter().map(|path| granted(path, Kind::Write)).collect::<Result<_, _>>()?;
        if confinement.profile != Profile::Sealed {
            let usual = usual();
            rules.execute.extend(usual.execute.iter().cloned());
            // C modules in granted folders are the program's own.
            rules.execute.extend(rules.read.iter().cloned());
            rules.read.extend(usual.read.iter().cloned());
            rules.write.extend(usual.write.iter().cloned());
        }
        if let Some(program) = program {
            let needs = needs(program).map_err(|error| error.to_string())?;
            rules.read.extend(needs.read);
            rules.execute.extend(needs.execute);
        }
        rules.read.extend(flag.map(Path::to_owned));
        Ok(rules)
    }
}

/// What the Lua side is told.
pub(crate) fn libraries(settings: &Settings, work: Option<&Path>) -> Grants {
    let confinement = &settings.confinement;
    if confinement.without.contains(&Layer::Lua) {
        return Grants::default();
    }
    let profile = match confinement.profile {
        Profile::Sealed => sandbox::Profile::Sealed,
        Profile::Files => sandbox::Profile::Files,
        Profile::Net => sandbox::Profile::Net,
        Profile::Trusted => return Grants::default(),
    };
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let texts = |paths: &[PathBuf]| paths.iter().map(|path| text(path)).collect();
    Grants {
        profile,
        read: texts(&confinement.read),
        write: texts(&confinement.write),
        execute: Vec::new(),
        work: work.filter(|_| confinement.profile != Profile::Sealed).map(text),
        hosts: confinement.net.iter().map(|host| format!("{}:{}", host.host, host.port)).collect(),
        load: false,
    }
}

/// What was granted on request, one phrase each: `read /data`, `connect to example.org:443`.
pub(crate) fn list(confinement: &Confinement) -> Vec<String> {
    let shown = |path: &PathBuf| escape(&path.to_string_lossy());
    let mut list: Vec<String> = confinement.read.iter().map(|path| format!("read {}", shown(path))).collect();
    list.extend(confinement.write.iter().map(|path| format!("read and write {}", shown(path))));
    list.extend(confinement.net.iter().map(|host| format!("connect to {}:{}", escape(&host.host), host.port)));
    list
}

/// The limits that hold, one phrase each.
pub(crate) fn limits(settings: &Settings) -> Vec<String> {
    let confinement = &settings.confinement;
    let mib = |what: &str, bytes: Option<u64>| bytes.map(|bytes| format!("{what} {} MiB", bytes >> 20));
    let mut list: Vec<String> = [
        mib("memory", settings.memory),
        confinement.cpu.map(|seconds| format!("processor time {seconds} s")),
        settings.command_time.map(|seconds| format!("command time {seconds} s")),
        settings.output.map(|bytes| format!("output of a command {} KiB", bytes >> 10)),
        mib("file size", confinement.file_size),
        confinement.open_files.map(|files| format!("{files} open files")),
        mib("work directory (soft)", confinement.work_size),
    ]
    .into_iter()
    .flatten()
    .collect();
    if confinement.profile != Profile::Trusted {
        list.push("no processes".to_owned());
    }
    list
}

/// The step of a plan that says what the machine may do.
pub(crate) fn sentence(settings: &Settings) -> String {
    let confinement = &settings.confinement;
    let what = match confinement.profile {
        Profile::Sealed => "it may compute, and nothing else",
        Profile::Files => "it may use its working directory and read installed packages",
        Profile::Net => "it may use its working directory, read installed packages and connect to named hosts",
        Profile::Trusted => "it may do whatever you may",
    };
    let granted = list(confinement);
    let besides = if granted.is_empty() { String::new() } else { format!("; besides: {}", granted.join(", ")) };
    let memory = settings.memory.map_or_else(String::new, |bytes| format!("; at most {} MiB of memory", bytes >> 20));
    format!("confine it at every start with the profile {}: {what}{besides}{memory}", confinement.profile)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules_of(profile: Profile, granted: &Path, program: Option<&Path>) -> Result<Rules, String> {
        let mut settings = Settings::default();
        settings.confinement.profile = profile;
        settings.confinement.read = vec![granted.to_owned()];
        Granter { state: Path::new("/state"), home: None }.rules(&settings, program, None)
    }

    #[test]
    fn a_sealed_machine_has_what_was_granted_and_nothing_else() {
        let data = tempfile::tempdir().unwrap();
        let data = data.path().canonicalize().unwrap();
        let rules = rules_of(Profile::Sealed, &data, None).unwrap();
        assert_eq!((rules.read, rules.write, rules.execute), (vec![data.clone()], vec![], vec![]));
        let rules = rules_of(Profile::Sealed, &data, Some(Path::new("/bin/sh"))).unwrap();
        assert!(rules.execute.contains(&Path::new("/bin/sh").canonicalize().unwrap()) && rules.write.is_empty());
    }

    #[test]
    fn files_has_packages_and_nothing_wide() {
        let data = tempfile::tempdir().unwrap();
        let rules = rules_of(Profile::Files, data.path(), None).unwrap();
        assert!(!rules.execute.is_empty() && rules.write.contains(&"/dev/null".into()));
        let all = || rules.read.iter().chain(&rules.write).chain(&rules.execute);
        assert!(!all().any(|path| ["/", "/etc", "/home", "/root", "/usr", "/proc", "/state"].iter().any(|wide| path == Path::new(wide))));
        assert_eq!(rules.limits.memory, Settings::default().memory.map(|bytes| bytes + SLACK));
    }

    #[test]
    fn what_is_gone_or_is_ours_is_not_granted() {
        assert!(rules_of(Profile::Files, Path::new("/no/such/folder"), None).is_err());
        let state = tempfile::tempdir().unwrap();
        let state = state.path().canonicalize().unwrap();
        let mut confinement = Confinement { write: vec![state.clone()], ..Confinement::default() };
        let granter = Granter { state: &state, home: None };
        let mut problems = Problems::default();
        granter.judge(&confinement, &mut problems);
        assert_eq!((problems.0.len(), problems.0[0].path.as_str()), (1, "settings.write"));
        confinement.write = vec!["/tmp".into()];
        let mut problems = Problems::default();
        let warnings = Granter { state: Path::new("/state"), home: None }.judge(&confinement, &mut problems);
        assert_eq!((problems.0.len(), warnings.len()), (0, 1), "{warnings:?}");
    }

    #[test]
    fn trusted_is_not_limited_by_paths_and_a_layer_can_be_left_off() {
        let rules = rules_of(Profile::Trusted, Path::new("/no/such/folder"), None).unwrap();
        assert!(rules.read.is_empty() && rules.execute.is_empty());
        let mut settings = Settings::default();
        assert!(!libraries(&settings, Some(Path::new("/work"))).is_trusted());
        settings.confinement.without = vec![Layer::Lua];
        assert!(libraries(&settings, Some(Path::new("/work"))).is_trusted());
    }
}
