//! What the guest is made of, and the making.

use crate::{cpio::Archive, kept};
use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
    process::Command,
};

/// The drivers that the guest loads; what they need themselves is found out.
const MODULES: [&str; 10] =
    ["virtio_mmio", "virtio_pci", "virtio_blk", "virtio_net", "virtio_console", "virtio_balloon", "virtio-rng", "evdev", "button", "isofs"];

/// Where it is, what it may do, what it is: what is written here.
const TEXTS: [(&str, u32, &str); 10] = [
    ("init", 0o755, include_str!("init.sh")),
    ("etc/lease", 0o755, include_str!("lease.sh")),
    ("libexec/seed.lua", 0o644, include_str!("seed.lua")),
    // What the power button does.
    ("etc/acpi/PWRF/00000080", 0o755, "#!/bin/sh\numount /home 2> /dev/null\npoweroff -f\n"),
    // What the guest agent calls to go down: `shutdown -h -P +0 …` or `-r`.
    (
        "sbin/shutdown",
        0o755,
        "#!/bin/sh\n[ -e /run/listens ] || exit 0\numount /home 2> /dev/null\ncase \"$*\" in *-r*) exec reboot -f ;; *) exec poweroff -f ;; esac\n",
    ),
    ("etc/passwd", 0o644, "root:x:0:0:root:/root:/bin/sh\n"),
    ("etc/shadow", 0o600, "root:*:19000:0:99999:7:::\n"),
    ("etc/group", 0o644, "root:x:0:\n"),
    ("etc/shells", 0o644, "/bin/sh\n/bin/ash\n"),
    ("etc/hosts", 0o644, "127.0.0.1 localhost\n"),
];

const FOLDERS: [&str; 25] = [
    "bin",
    "sbin",
    "dev",
    "proc",
    "sys",
    "run",
    "root",
    "home",
    "seed",
    "lib",
    "lib64",
    "lib/x86_64-linux-gnu",
    "libexec",
    "modules",
    "etc",
    "etc/acpi",
    "etc/acpi/PWRF",
    "etc/ssh",
    "usr",
    "usr/lib",
    "usr/local",
    "usr/local/bin",
    "usr/local/lib",
    "usr/local/share",
    "var",
];

/// Programs: the package that has it, where in there, and where it is in the guest. Without a package it is one of the computer's, which `cargo xtask install` has
/// installed.
const PROGRAMS: [(&str, &str, &str); 6] = [
    ("qemu-guest-agent", "usr/sbin/qemu-ga", "sbin/qemu-ga"),
    ("dropbear-bin", "usr/sbin/dropbear", "sbin/dropbear"),
    ("dropbear-bin", "usr/bin/dropbearkey", "sbin/dropbearkey"),
    ("dropbear-bin", "usr/bin/dropbearconvert", "sbin/dropbearconvert"),
    ("", "usr/lib/openssh/sftp-server", "usr/lib/sftp-server"),
    ("", "usr/bin/lua5.4", "libexec/lua"),
];

/// Packages that only bring libraries.
const LIBRARIES: [&str; 2] = ["libtomcrypt1", "libtommath1"];

/// The loader of its programs.
const LOADER: &str = "/lib64/ld-linux-x86-64.so.2";

/// A guest that can be booted. It wants 192 MiB of memory.
#[derive(Clone, Debug)]
pub struct Guest {
    /// Its kernel.
    pub kernel: PathBuf,
    /// Its first and only root file system.
    pub initrd: PathBuf,
}

impl Guest {
    /// The one that is kept in the target directory, or a new one.
    ///
    /// # Errors
    /// What is missing, and what brings it.
    pub fn kept() -> Result<Self, String> {
        let (folder, lock) = kept::locked("guest-image").map_err(|e| format!("the folder of what is kept: {e}"))?;
        let debian = kept::target().map_err(|e| e.to_string())?.join("debian");
        let made = Self::made(&debian, &folder);
        drop(lock);
        made
    }

    /// The one in a folder, or a new one there, of packages that are unpacked in another, each in a folder of its name. Nobody else may make one there meanwhile.
    ///
    /// # Errors
    /// What is missing, and what brings it.
    pub fn made(debian: &Path, folder: &Path) -> Result<Self, String> {
        let parts = Parts::find(debian)?;
        let place = folder.join(format!("initrd-{:016x}", parts.sum().map_err(|e| format!("the guest's parts: {e}"))?));
        if !place.is_file() {
            let bytes = parts.initramfs().map_err(|e| format!("the guest cannot be made: {e}"))?;
            let beside = folder.join("initrd.new");
            fs::write(&beside, bytes).and_then(|()| fs::rename(&beside, &place)).map_err(|e| format!("{}: {e}", place.display()))?;
        }
        Ok(Self { kernel: parts.kernel, initrd: place })
    }
}

/// What it is made of.
struct Parts {
    kernel: PathBuf,
    modules: PathBuf,
    /// Where a program is on the computer, and where it goes.
    programs: Vec<(PathBuf, &'static str)>,
    libraries: Vec<PathBuf>,
}

impl Parts {
    fn find(debian: &Path) -> Result<Self, String> {
        let unpacked = |package: &str| {
            let folder = debian.join(package);
            if folder.is_dir() {
                Ok(folder)
            } else {
                Err(format!("{} is not there; `cargo xtask install` unpacks the Debian package {package} there", folder.display()))
            }
        };
        let linux = unpacked("linux-image-cloud-amd64")?;
        let kernel = only(&linux.join("boot"), "vmlinuz-").map_err(|e| format!("the kernel: {e}"))?;
        let modules = only(&linux.join("lib/modules"), "").map_err(|e| format!("the kernel's modules: {e}"))?.join("kernel");
        let mut programs = vec![(PathBuf::from("/bin/busybox"), "bin/busybox")];
        for (package, from, to) in PROGRAMS {
            let root = if package.is_empty() { PathBuf::from("/") } else { unpacked(package)? };
            programs.push((root.join(from), to));
        }
        if let Some((missing, _)) = programs.iter().find(|(program, _)| !program.is_file()) {
            return Err(format!("{} is not there; `cargo xtask install` installs what tests need", missing.display()));
        }
        let mut libraries = Vec::new();
        for package in LIBRARIES {
            libraries.push(unpacked(package)?.join("usr/lib/x86_64-linux-gnu"));
        }
        Ok(Self { kernel, modules, programs, libraries })
    }

    /// A sum that differs when the parts do, or what is written here (FNV-1a, 64 bits).
    fn sum(&self) -> io::Result<u64> {
        let mut all = MODULES.join(" ");
        for file in self.programs.iter().map(|(file, _)| file).chain([&self.kernel]) {
            all.push_str(&kept::version(file)?);
        }
        for (path, _, text) in TEXTS {
            all.extend([path, text]);
        }
        all.extend(FOLDERS);
        Ok(all.bytes().fold(0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)))
    }

    fn initramfs(&self) -> io::Result<Vec<u8>> {
        let mut archive = Archive::new();
        for folder in FOLDERS {
            archive.folder(folder, 0o755);
        }
        archive.folder("tmp", 0o1777);
        archive.folder("var/tmp", 0o1777);
        archive.link("usr/bin", "/bin");
        archive.link("usr/sbin", "/sbin");
        let read = |file: &Path| fs::read(file).map_err(|e| io::Error::other(format!("{}: {e}", file.display())));
        for (from, to) in &self.programs {
            archive.file(to, 0o755, &read(from)?);
        }
        let names = Command::new(&self.programs[0].0).arg("--list").output()?;
        for name in String::from_utf8_lossy(&names.stdout).lines().filter(|name| *name != "busybox") {
            archive.link(&format!("bin/{name}"), "/bin/busybox");
        }
        archive.file("lib64/ld-linux-x86-64.so.2", 0o755, &read(Path::new(LOADER))?);
        for file in self.needed()? {
            let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
            archive.file(&format!("lib/x86_64-linux-gnu/{name}"), 0o755, &read(&file)?);
        }
        let mut order = String::new();
        for module in &modules(&self.modules)? {
            let name = module.file_name().unwrap_or_default().to_string_lossy();
            archive.file(&format!("modules/{name}"), 0o644, &read(module)?);
            order.push_str(&name);
            order.push('\n');
        }
        archive.file("modules/order", 0o644, order.as_bytes());
        for (path, mode, text) in TEXTS {
            if let Some((folder, _)) = path.rsplit_once('/').filter(|(folder, _)| !FOLDERS.contains(folder)) {
                return Err(io::Error::other(format!("nobody has made {folder}")));
            }
            archive.file(path, mode, text.as_bytes());
        }
        Ok(archive.finish())
    }

    /// The libraries that the programs need, as the loader finds them; it says `libm.so.6 => /lib/…/libm.so.6 (0x…)`.
    fn needed(&self) -> io::Result<BTreeSet<PathBuf>> {
        let mut found = BTreeSet::new();
        let path = std::env::join_paths(&self.libraries).map_err(io::Error::other)?;
        // busybox is static.
        for (program, _) in &self.programs[1..] {
            let list = Command::new(LOADER).arg("--library-path").arg(&path).arg("--list").arg(program).output()?;
            for line in String::from_utf8_lossy(&list.stdout).lines() {
                let Some((name, rest)) = line.split_once("=> ") else { continue };
                let file = rest.split(" (").next().map(Path::new).filter(|file| file.is_absolute());
                found.insert(file.ok_or_else(|| io::Error::other(format!("{}: no {}", program.display(), name.trim())))?.to_owned());
            }
        }
        Ok(found)
    }
}

/// The one entry of a folder whose name begins so.
fn only(folder: &Path, begin: &str) -> io::Result<PathBuf> {
    let named = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(begin));
    let found = fs::read_dir(folder)?.flatten().map(|entry| entry.path()).find(named);
    found.ok_or_else(|| io::Error::other(format!("no {begin}… in {}", folder.display())))
}

/// The files of the drivers, each after those it depends on.
fn modules(kernel: &Path) -> io::Result<Vec<PathBuf>> {
    let mut all = Vec::new();
    let mut folders = vec![kernel.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path)
            } else if path.extension().is_some_and(|e| e == "ko") {
                all.push(path)
            }
        }
    }
    let (mut found, mut order) = (BTreeSet::new(), Vec::new());
    for name in MODULES {
        need(name, &all, &mut found, &mut order)?;
    }
    Ok(order)
}

fn need(name: &str, all: &[PathBuf], found: &mut BTreeSet<String>, order: &mut Vec<PathBuf>) -> io::Result<()> {
    let plain = |name: &str| name.replace('-', "_");
    if !found.insert(plain(name)) {
        return Ok(());
    }
    let file = all.iter().find(|file| file.file_stem().is_some_and(|stem| plain(&stem.to_string_lossy()) == plain(name)));
    // One that is not there is built into the kernel.
    let Some(file) = file else { return Ok(()) };
    let content = fs::read(file)?;
    // The section .modinfo holds texts such as `depends=virtio,virtio_ring`, each with a NUL at its end.
    let depends = content.split(|byte| *byte == 0).find_map(|text| text.strip_prefix(b"depends="));
    for other in String::from_utf8_lossy(depends.unwrap_or_default()).split(',').filter(|other| !other.is_empty()) {
        need(other, all, found, order)?;
    }
    order.push(file.clone());
    Ok(())
}
