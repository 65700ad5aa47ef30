//! What the tests need beside Rust, and how to get it on Debian.
//!
//! Tests never skip silently: a component that is missing makes the test that needs it fail. So it is installed here, by apt, as root or through a
//! sudo that asks nothing; elsewhere the list is printed.

use crate::{say, source};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// How we know that a component is there.
#[derive(Clone, Copy)]
enum Probe {
    /// An executable of this name is on the PATH.
    Program(&'static str),
    /// This file is below `/usr/lib/ARCH/` or `/usr/lib/`.
    Library(&'static str),
    /// This file is below `/usr/share/`.
    Shared(&'static str),
    /// The package is unpacked into a folder of the target directory, and not installed: nobody wants a second kernel on his computer.
    Unpacked,
    /// The package's source is in a folder of the target directory.
    Source,
}

/// One component: how to see it, the Debian package that brings it, what it is for.
struct Component {
    probe: Probe,
    package: &'static str,
    purpose: &'static str,
}

const COMPONENTS: &[Component] = &[
    Component { probe: Probe::Program("lua5.1"), package: "lua5.1", purpose: "the runtime lua5.1" },
    Component { probe: Probe::Program("lua5.2"), package: "lua5.2", purpose: "the runtime lua5.2" },
    Component { probe: Probe::Program("lua5.3"), package: "lua5.3", purpose: "the runtime lua5.3" },
    Component { probe: Probe::Program("lua5.4"), package: "lua5.4", purpose: "the runtime lua5.4" },
    Component { probe: Probe::Program("luajit"), package: "luajit", purpose: "the runtime luajit" },
    Component { probe: Probe::Library("lua/5.4/socket/core.so"), package: "lua-socket", purpose: "proof that C modules load" },
    Component { probe: Probe::Library("lua/5.4/zlib.so"), package: "lua-zlib", purpose: "gzip in the biology rocks" },
    Component { probe: Probe::Library("lua/5.1/curl.so"), package: "lua-curl", purpose: "the profiles of packages" },
    Component { probe: Probe::Library("lua/5.3/posix.so"), package: "lua-posix", purpose: "the profiles of packages" },
    Component { probe: Probe::Library("lua/5.4/yaml.so"), package: "lua-yaml", purpose: "the profiles of packages" },
    Component { probe: Probe::Library("lua/5.4/term/core.so"), package: "lua-term", purpose: "the profiles of packages" },
    Component { probe: Probe::Library("lua/5.4/system/core.so"), package: "lua-system", purpose: "the profiles of packages" },
    Component { probe: Probe::Shared("lua/5.4/pl/init.lua"), package: "lua-penlight", purpose: "the profiles of packages" },
    Component { probe: Probe::Shared("lua/5.3/MessagePack.lua"), package: "lua-messagepack", purpose: "the profiles of packages" },
    Component { probe: Probe::Shared("lua/5.3/inspect.lua"), package: "lua-inspect", purpose: "the profiles of packages" },
    Component { probe: Probe::Shared("lua/5.4/busted.lua"), package: "lua-busted", purpose: "the profiles of packages" },
    Component { probe: Probe::Shared("lua/5.4/luassert/init.lua"), package: "lua-luassert", purpose: "the profiles of packages" },
    Component { probe: Probe::Library("lua/5.4/lpeg.so"), package: "lua-lpeg", purpose: "a C module on the tests' rocks server" },
    Component { probe: Probe::Library("lua/5.4/lfs.so"), package: "lua-filesystem", purpose: "a C module on the tests' rocks server" },
    Component { probe: Probe::Library("lua/5.4/cjson.so"), package: "lua-cjson", purpose: "a C module on the tests' rocks server" },
    Component { probe: Probe::Program("git"), package: "git", purpose: "sources in repositories" },
    Component { probe: Probe::Program("make"), package: "make", purpose: "rocks that are built by a makefile" },
    Component { probe: Probe::Program("cmake"), package: "cmake", purpose: "rocks that are built by cmake" },
    Component {
        probe: Probe::Library("libcurl.so"),
        package: "libcurl4-openssl-dev",
        purpose: "a rock that is built from Debian's source",
    },
    Component { probe: Probe::Source, package: "lua-curl", purpose: "a rock that is built from Debian's source" },
    Component { probe: Probe::Program("luarocks"), package: "luarocks", purpose: "comparison of versions, constraints and servers" },
    Component { probe: Probe::Program("python3"), package: "python3", purpose: "a foreign client on the socket" },
    Component { probe: Probe::Library("python3.11/ensurepip/__init__.py"), package: "python3-venv", purpose: "foreign clients of XAPI" },
    Component { probe: Probe::Program("node"), package: "nodejs", purpose: "foreign clients of XAPI" },
    Component { probe: Probe::Program("npm"), package: "npm", purpose: "foreign clients of XAPI" },
    Component { probe: Probe::Program("gcc"), package: "gcc", purpose: "the embedded Lua and SQLite" },
    Component { probe: Probe::Program("libvirtd"), package: "libvirt-daemon-system", purpose: "a libvirt daemon for tests" },
    Component {
        probe: Probe::Library("libvirt/connection-driver/libvirt_driver_qemu.so"),
        package: "libvirt-daemon-driver-qemu",
        purpose: "its QEMU driver",
    },
    Component { probe: Probe::Program("virsh"), package: "libvirt-clients", purpose: "another client of it, to compare with" },
    Component { probe: Probe::Program("qemu-system-x86_64"), package: "qemu-system-x86", purpose: "virtual machines" },
    Component { probe: Probe::Program("qemu-img"), package: "qemu-utils", purpose: "disks of virtual machines" },
    Component { probe: Probe::Program("xmllint"), package: "libxml2-utils", purpose: "XML of machines against libvirt's schema" },
    Component { probe: Probe::Program("xorriso"), package: "xorriso", purpose: "seeds of machines, read by others" },
    Component { probe: Probe::Program("isoinfo"), package: "genisoimage", purpose: "seeds of machines, read by others" },
    Component { probe: Probe::Program("blkid"), package: "util-linux", purpose: "seeds of machines, read by others" },
    Component { probe: Probe::Program("swtpm"), package: "swtpm", purpose: "virtual machines with a TPM" },
    Component { probe: Probe::Program("swtpm_setup"), package: "swtpm-tools", purpose: "virtual machines with a TPM" },
    Component { probe: Probe::Shared("OVMF/OVMF_CODE_4M.ms.fd"), package: "ovmf", purpose: "virtual machines with UEFI and Secure Boot" },
    Component { probe: Probe::Program("dnsmasq"), package: "dnsmasq-base", purpose: "networks of virtual machines" },
    Component { probe: Probe::Program("iptables"), package: "iptables", purpose: "networks of virtual machines" },
    Component {
        probe: Probe::Library("python3/dist-packages/libvirt.py"),
        package: "python3-libvirt",
        purpose: "a library to compare with",
    },
    Component { probe: Probe::Program("unshare"), package: "util-linux", purpose: "a libvirt daemon apart from the computer's" },
    Component { probe: Probe::Program("ip"), package: "iproute2", purpose: "a libvirt daemon apart from the computer's" },
    Component { probe: Probe::Program("ssh-keygen"), package: "openssh-client", purpose: "keys of hosts and users in tests over SSH" },
    Component { probe: Probe::Library("openssh/sftp-server"), package: "openssh-sftp-server", purpose: "files over SSH" },
    Component { probe: Probe::Program("sshd"), package: "openssh-server", purpose: "hosts of tests over SSH" },
    Component { probe: Probe::Program("busybox"), package: "busybox-static", purpose: "the guest of tests" },
    Component { probe: Probe::Unpacked, package: "linux-image-cloud-amd64", purpose: "the guest of tests: its kernel" },
    Component { probe: Probe::Unpacked, package: "qemu-guest-agent", purpose: "the guest of tests: its agent" },
    Component { probe: Probe::Unpacked, package: "dropbear-bin", purpose: "the guest of tests: its SSH server" },
    Component { probe: Probe::Unpacked, package: "libtomcrypt1", purpose: "the guest of tests: its SSH server" },
    Component { probe: Probe::Unpacked, package: "libtommath1", purpose: "the guest of tests: its SSH server" },
];

/// Installs what is missing.
///
/// # Errors
/// What is missing and cannot be installed.
pub(crate) fn run() -> Result<(), String> {
    rust_components()?;
    let missing = missing();
    if missing.is_empty() {
        say::line("all components are there");
        return Ok(());
    }
    let packages: Vec<&str> = missing.iter().map(|c| c.package).collect();
    let by_hand = format!("missing: {}; install them by hand (Debian: apt-get install {})", purposes(&missing), packages.join(" "));
    if !on_path("apt-get") {
        return Err(format!("no apt-get here. {by_hand}"));
    }
    let Some(prefix) = root_prefix() else { return Err(format!("not root, and sudo would ask. {by_hand}")) };
    say::line(format_args!("installing {}", packages.join(" ")));
    // Lists may be stale or absent on a fresh machine, and unreachable on one without a network: the install decides.
    if let Err(problem) = apt(prefix, &["update"]) {
        say::problem(problem);
    }
    let (to_unpack, to_install): (Vec<&Component>, Vec<&Component>) =
        missing.iter().partition(|component| matches!(component.probe, Probe::Unpacked | Probe::Source));
    if !to_install.is_empty() {
        let mut install = vec!["install", "-y", "--no-install-recommends", "--allow-downgrades"];
        install.extend(to_install.iter().map(|component| component.package));
        // Its parts must be of one version: a newer one that came from elsewhere goes back to that of the release.
        let utils = codename().map(|name| format!("qemu-utils/{name}"));
        if install.contains(&"qemu-system-x86") {
            install.extend(utils.as_deref());
        }
        apt(prefix, &install)?;
    }
    for component in to_unpack {
        match component.probe {
            Probe::Source => source::fetch(component.package, &source::place(component.package, &unpacked(component.package)?))?,
            _ => unpack(component.package)?,
        }
    }
    let missing = self::missing();
    if missing.is_empty() { Ok(()) } else { Err(format!("installed, but still not found: {}", purposes(&missing))) }
}

/// Names what is missing and installs nothing. The tests that need it will fail and say so.
pub(crate) fn report() -> Result<(), String> {
    for component in missing() {
        say::problem(format_args!("missing: {} (Debian package {})", component.purpose, component.package));
    }
    Ok(())
}

fn missing() -> Vec<&'static Component> {
    COMPONENTS.iter().filter(|component| !component.found()).collect()
}

fn purposes(components: &[&Component]) -> String {
    components.iter().map(|c| c.purpose).collect::<Vec<_>>().join(", ")
}

impl Component {
    fn found(&self) -> bool {
        match self.probe {
            Probe::Program(name) => on_path(name),
            Probe::Library(file) => in_library_folders(Path::new("/usr/lib"), file),
            Probe::Shared(file) => Path::new("/usr/share").join(file).exists(),
            Probe::Unpacked => unpacked(self.package).is_ok_and(|folder| folder.is_dir()),
            Probe::Source => unpacked(self.package).is_ok_and(|folder| source::is_in(&source::place(self.package, &folder))),
        }
    }
}

/// Where a package that is only unpacked is kept: below the target directory that this program is in, where the tests look too.
fn unpacked(package: &str) -> Result<PathBuf, String> {
    let exe = std::env::current_exe().map_err(|e| format!("this program: {e}"))?;
    let target = exe.ancestors().find(|folder| folder.join("CACHEDIR.TAG").is_file());
    Ok(target.ok_or("this program is not in a target directory of cargo")?.join("debian").join(package))
}

/// Downloads a package and unpacks it; for a package that only names another, that one.
fn unpack(package: &str) -> Result<(), String> {
    let place = unpacked(package)?;
    let beside = place.with_extension("new");
    let problem = |e: std::io::Error| format!("{}: {e}", beside.display());
    if beside.exists() {
        std::fs::remove_dir_all(&beside).map_err(problem)?;
    }
    std::fs::create_dir_all(&beside).map_err(problem)?;
    let depends = Command::new("apt-cache").args(["depends", "--important", package]).stdin(Stdio::null()).output();
    let depends = depends.map_err(|e| format!("apt-cache: {e}"))?;
    let depends = String::from_utf8_lossy(&depends.stdout).into_owned();
    // `linux-image-cloud-amd64` depends on `linux-image-6.1.0-56-cloud-amd64`, which has the files.
    let same = |name: &&str| package.starts_with("linux-image-") && name.starts_with("linux-image-");
    let real = depends.lines().filter_map(|line| line.trim().strip_prefix("Depends: ")).find(same).unwrap_or(package);
    say::line(format_args!("unpacking {real}"));
    in_folder(&beside, "apt-get", &["-q", "download", real])?;
    let file = std::fs::read_dir(&beside)
        .map_err(problem)?
        .flatten()
        .map(|entry| entry.path())
        .find(|p| p.extension().is_some_and(|e| e == "deb"));
    let file = file.ok_or_else(|| format!("{real} was not downloaded"))?;
    in_folder(&beside, "dpkg-deb", &["--extract", &file.display().to_string(), "."])?;
    std::fs::remove_file(&file).and_then(|()| std::fs::rename(&beside, &place)).map_err(problem)
}

/// What this release of Debian is called.
fn codename() -> Option<String> {
    let about = std::fs::read_to_string("/etc/os-release").ok()?;
    about.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME=")).map(|name| name.trim_matches('"').to_owned())
}

fn in_folder(folder: &Path, program: &str, args: &[&str]) -> Result<(), String> {
    let status = Command::new(program).args(args).current_dir(folder).stdin(Stdio::null()).stdout(Stdio::null()).status();
    let status = status.map_err(|e| format!("{program}: {e}"))?;
    if status.success() { Ok(()) } else { Err(format!("{program} {}: {status}", args.join(" "))) }
}

fn on_path(program: &str) -> bool {
    // Daemons are in folders that are on root's path only.
    let daemons = ["/usr/sbin", "/sbin"].into_iter().map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).chain(daemons).any(|folder| executable(&folder.join(program)))
}

fn executable(file: &PathBuf) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(file).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// Whether `file` is in `lib` or in one of its architectures' folders (`/usr/lib/x86_64-linux-gnu`).
fn in_library_folders(lib: &Path, file: &str) -> bool {
    lib.join(file).is_file() || std::fs::read_dir(lib).into_iter().flatten().flatten().any(|folder| folder.path().join(file).is_file())
}

/// rustfmt and clippy, which minimal toolchains lack.
fn rust_components() -> Result<(), String> {
    for (tool, component) in [("cargo-fmt", "rustfmt"), ("cargo-clippy", "clippy")] {
        if quiet(tool, &["--version"]) {
            continue;
        }
        say::line(format_args!("installing the Rust component {component}"));
        let added = Command::new("rustup").args(["component", "add", component]).stdin(Stdio::null()).status();
        if !added.is_ok_and(|status| status.success()) {
            return Err(format!("{component} is missing; install it (rustup component add {component})"));
        }
    }
    Ok(())
}

/// What to put before a command that needs root: nothing for root, sudo where it asks nothing, else `None`.
fn root_prefix() -> Option<&'static [&'static str]> {
    let root = Command::new("id").arg("-u").stdin(Stdio::null()).output().is_ok_and(|out| out.stdout.trim_ascii() == b"0");
    if root {
        Some(&[])
    } else if quiet("sudo", &["-n", "true"]) {
        Some(&["sudo", "-n"])
    } else {
        None
    }
}

fn quiet(program: &str, args: &[&str]) -> bool {
    let status = Command::new(program).args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

fn apt(prefix: &[&str], args: &[&str]) -> Result<(), String> {
    // `env` because sudo drops variables.
    let mut words: Vec<&str> = prefix.to_vec();
    words.extend(["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-q", "-o", "DPkg::Lock::Timeout=300"]);
    words.extend(args);
    let shown = words.join(" ");
    let status = Command::new(words[0]).args(&words[1..]).stdin(Stdio::null()).status().map_err(|e| format!("{shown}: {e}"))?;
    if status.success() { Ok(()) } else { Err(format!("{shown}: {status}")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_is_not_there_is_missing() {
        let found = |probe| Component { probe, package: "none", purpose: "none" }.found();
        assert!(found(Probe::Program("sh")));
        assert!(!found(Probe::Program("no-such-program-of-vmoon")));
        assert!(!found(Probe::Unpacked));
    }

    #[test]
    fn a_library_is_found_below_the_folder_of_its_architecture() {
        let lib = Path::new(env!("CARGO_MANIFEST_DIR"));
        assert!(in_library_folders(lib, "Cargo.toml"));
        assert!(in_library_folders(lib, "main.rs"), "one folder down");
        assert!(!in_library_folders(lib, "lua/9.9/none.so"));
    }

    #[test]
    fn every_component_says_what_it_is_for() {
        for component in COMPONENTS {
            assert!(!component.package.is_empty() && !component.purpose.is_empty());
        }
    }
}
