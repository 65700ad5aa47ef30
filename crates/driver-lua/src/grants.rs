//! From the settings of a machine to the rules of its process: which paths its profile grants. Pure, but for the question which
//! of the usual folders exist.

use crate::settings::{Confinement, Settings};
use std::path::{Path, PathBuf};
use vmoon_confine::{Limits, Profile, Rules};
use vmoon_core::name::escape;

/// Where packages and the libraries of C modules are: Lua's own defaults (luaconf.h) and those of Debian, Fedora and Arch.
const PACKAGES: [&str; 4] = ["/usr/share/lua", "/usr/local/share/lua", "/usr/local/lib/lua", "/usr/lib/lua"];
/// What a C module or an interpreter is linked with.
const LIBRARIES: [&str; 6] = ["/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/etc/ld.so.cache"];
/// What the C library reads by itself: time zones, locales, character sets.
const DATA: [&str; 4] = ["/usr/share/zoneinfo", "/usr/lib/locale", "/etc/localtime", "/usr/share/locale"];
/// Devices that hold nothing.
const DEVICES_READ: [&str; 3] = ["/dev/zero", "/dev/urandom", "/dev/random"];
const DEVICES_WRITE: [&str; 1] = ["/dev/null"];
/// Address space beyond the program's memory: stacks, libraries, what the allocator keeps, bytes.
const SLACK: u64 = 256 << 20;

/// The rules of a machine's process. `work` is its work directory, `program` the interpreter it runs, if not the embedded one.
pub(crate) fn rules(settings: &Settings, work: &Path, program: Option<&Path>) -> Rules {
    let confinement = &settings.confinement;
    let mut rules = paths(confinement, work, program);
    rules.limits = Limits {
        memory: settings.memory.map(|bytes| bytes.saturating_add(SLACK)),
        cpu: confinement.cpu,
        file_size: confinement.file_size,
        open_files: confinement.open_files,
    };
    rules.hosts.clone_from(&confinement.net);
    rules.without.clone_from(&confinement.without);
    rules
}

/// What was granted on request, one phrase each: `read /data`, `connect to example.org:443`.
pub(crate) fn list(confinement: &Confinement) -> Vec<String> {
    let shown = |path: &PathBuf| escape(&path.to_string_lossy());
    let mut list: Vec<String> = confinement.read.iter().map(|path| format!("read {}", shown(path))).collect();
    list.extend(confinement.write.iter().map(|path| format!("read and write {}", shown(path))));
    list.extend(confinement.net.iter().map(|host| format!("connect to {}:{}", escape(&host.host), host.port)));
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

fn paths(confinement: &Confinement, work: &Path, program: Option<&Path>) -> Rules {
    let mut rules = Rules { profile: confinement.profile, ..Rules::default() };
    if confinement.profile == Profile::Trusted {
        return rules;
    }
    let there = |paths: &[&str]| paths.iter().map(PathBuf::from).filter(|path| path.exists()).collect::<Vec<_>>();
    rules.read.clone_from(&confinement.read);
    rules.write.clone_from(&confinement.write);
    if confinement.profile != Profile::Sealed {
        rules.read.extend(there(&PACKAGES));
        rules.read.extend(there(&DATA));
        rules.read.extend(there(&DEVICES_READ));
        rules.write.extend(there(&DEVICES_WRITE));
        rules.write.push(work.to_owned());
        rules.execute.extend(there(&LIBRARIES));
        // C modules in the work directory and in granted folders are the program's own.
        rules.execute.push(work.to_owned());
        rules.execute.extend(confinement.read.iter().cloned());
    }
    if let Some(program) = program {
        rules.execute.push(program.to_owned());
        rules.execute.extend(there(&LIBRARIES));
    }
    rules.execute.sort();
    rules.execute.dedup();
    rules
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules_of(profile: Profile, program: Option<&str>) -> Rules {
        let mut settings = Settings::default();
        settings.confinement.profile = profile;
        settings.confinement.read = vec!["/data".into()];
        rules(&settings, Path::new("/work"), program.map(Path::new))
    }

    #[test]
    fn a_sealed_machine_has_what_was_granted_and_nothing_else() {
        let rules = rules_of(Profile::Sealed, None);
        assert_eq!((rules.read, rules.write, rules.execute), (vec![PathBuf::from("/data")], vec![], vec![]));
        let rules = rules_of(Profile::Sealed, Some("/usr/bin/lua5.4"));
        assert!(rules.execute.contains(&"/usr/bin/lua5.4".into()) && rules.write.is_empty());
    }

    #[test]
    fn files_has_its_work_directory_and_packages() {
        let rules = rules_of(Profile::Files, None);
        assert!(rules.write.contains(&"/work".into()));
        assert!(
            !rules
                .read
                .iter()
                .chain(&rules.write)
                .chain(&rules.execute)
                .any(|path| path == Path::new("/etc") || path == Path::new("/home"))
        );
        assert_eq!(rules.limits.memory, Settings::default().memory.map(|bytes| bytes + SLACK));
    }

    #[test]
    fn trusted_is_not_limited_by_paths() {
        let rules = rules_of(Profile::Trusted, None);
        assert!(rules.read.is_empty() && rules.execute.is_empty());
    }
}
