//! The guest: Debian's kernel, busybox and the guest agent in one small initramfs, made once and kept in the target directory.

use crate::{cpio::Archive, kept};
use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
    process::Command,
};

/// The drivers that the guest loads; what they need themselves is found out.
const MODULES: [&str; 9] =
    ["virtio_pci", "virtio_blk", "virtio_net", "virtio_console", "virtio_balloon", "virtio-rng", "evdev", "button", "isofs"];

/// What process 1 of the guest does. Words of the kernel's command line that concern it: `deaf` (the power button does nothing, and so does a request to
/// shut down), `mute` (no guest agent), `name=…` (its host name).
const INIT: &str = r#"#!/bin/sh
export PATH=/bin:/sbin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts
mount -t devpts pts /dev/pts
name=guest
for word in $(cat /proc/cmdline); do
  case $word in
    name=*) name=${word#name=} ;;
    deaf) deaf=yes ;;
    mute) mute=yes ;;
  esac
done
hostname "$name"
while read module; do insmod "/modules/$module"; done < /modules/order
for port in /sys/class/virtio-ports/*; do
  mkdir -p /dev/virtio-ports
  [ -e "$port/name" ] && ln -sf "/dev/${port##*/}" "/dev/virtio-ports/$(cat "$port/name")"
done
[ -z "$deaf" ] && touch /run/listens && acpid -c /etc/acpi -l /dev/null
ip link set lo up
if [ -e /sys/class/net/eth0 ]; then
  ip link set eth0 up
  udhcpc -i eth0 -s /etc/lease -n -q -t 5 -T 1 > /dev/null 2>&1 &
fi
agent=/dev/virtio-ports/org.qemu.guest_agent.0
[ -z "$mute" ] && [ -e $agent ] && qemu-ga -d -m virtio-serial -p $agent -t /run -f /run/qemu-ga.pid
echo "GUEST READY $name"
while :; do setsid cttyhack sh; done
"#;

/// What the lease is used for.
const LEASE: &str = r#"#!/bin/sh
case $1 in
  deconfig) ip link set "$interface" up ;;
  bound | renew)
    ip addr flush dev "$interface"
    ip addr add "$ip/$mask" dev "$interface"
    [ -n "$router" ] && ip route replace default via "${router%% *}" dev "$interface"
    ;;
esac
"#;

/// What the power button does.
const POWER: &str = "#!/bin/sh\npoweroff -f\n";

/// What the guest agent calls to go down: `shutdown -h -P +0 …` or `-r`.
const SHUTDOWN: &str = "#!/bin/sh\n[ -e /run/listens ] || exit 0\ncase \"$*\" in *-r*) exec reboot -f ;; *) exec poweroff -f ;; esac\n";

/// A guest that can be booted.
#[derive(Clone, Debug)]
pub struct Guest {
    /// Its kernel.
    pub kernel: PathBuf,
    /// Its first and only root file system.
    pub initrd: PathBuf,
}

impl Guest {
    /// The one that is kept, or a new one.
    pub(crate) fn get() -> Result<Self, String> {
        let (folder, lock) = kept::locked().map_err(|e| format!("the folder of what is kept: {e}"))?;
        let debian = kept::target().map_err(|e| e.to_string())?.join("debian");
        let unpacked = |package: &str| {
            let folder = debian.join(package);
            if folder.is_dir() {
                Ok(folder)
            } else {
                Err(format!("{} is not there; `cargo xtask install` unpacks the Debian package {package} there", folder.display()))
            }
        };
        let (linux, agent) = (unpacked("linux-image-cloud-amd64")?, unpacked("qemu-guest-agent")?);
        let kernel = only(&linux.join("boot"), "vmlinuz-").map_err(|e| format!("the kernel: {e}"))?;
        let place = folder.join(format!("initrd-{}", kept::version(&kernel).map_err(|e| format!("the kernel: {e}"))?));
        // What it is made of is part of its name, and so is what is written here.
        let place = place.with_extension(format!("{:x}", sum(&[INIT, LEASE, POWER, SHUTDOWN, &MODULES.join(" ")])));
        if !place.is_file() {
            let bytes = initramfs(&linux, &agent).map_err(|e| format!("the guest cannot be made: {e}"))?;
            let beside = folder.join("initrd.new");
            fs::write(&beside, bytes).and_then(|()| fs::rename(&beside, &place)).map_err(|e| format!("{}: {e}", place.display()))?;
        }
        drop(lock);
        Ok(Self { kernel, initrd: place })
    }
}

/// A sum that differs when the texts do (FNV-1a, 64 bits).
fn sum(texts: &[&str]) -> u64 {
    let bytes = texts.iter().flat_map(|text| text.bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// The one entry of a folder whose name begins so.
fn only(folder: &Path, begin: &str) -> io::Result<PathBuf> {
    let named = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(begin));
    let found = fs::read_dir(folder)?.flatten().map(|entry| entry.path()).find(named);
    found.ok_or_else(|| io::Error::other(format!("no {begin}… in {}", folder.display())))
}

fn initramfs(linux: &Path, agent: &Path) -> io::Result<Vec<u8>> {
    let mut archive = Archive::new();
    for folder in [
        "bin",
        "sbin",
        "dev",
        "proc",
        "sys",
        "run",
        "tmp",
        "lib",
        "lib64",
        "lib/x86_64-linux-gnu",
        "modules",
        "etc",
        "etc/acpi",
        "etc/acpi/PWRF",
    ] {
        archive.folder(folder);
    }
    let busybox = Path::new("/bin/busybox");
    archive.file("bin/busybox", 0o755, &fs::read(busybox).map_err(|e| io::Error::other(format!("busybox-static: {e}")))?);
    let names = Command::new(busybox).arg("--list").output()?;
    for name in String::from_utf8_lossy(&names.stdout).lines().filter(|name| *name != "busybox") {
        archive.link(&format!("bin/{name}"), "/bin/busybox");
    }
    let program = agent.join("usr/sbin/qemu-ga");
    archive.file("sbin/qemu-ga", 0o755, &fs::read(&program)?);
    let loader = Path::new("/lib64/ld-linux-x86-64.so.2");
    archive.file("lib64/ld-linux-x86-64.so.2", 0o755, &fs::read(loader)?);
    let libraries = Command::new(loader).arg("--list").arg(&program).output()?;
    for line in String::from_utf8_lossy(&libraries.stdout).lines() {
        // `libm.so.6 => /lib/…/libm.so.6 (0x…)`
        if let Some((_, rest)) = line.split_once("=> ")
            && let Some(file) = rest.split(" (").next().map(Path::new).filter(|file| file.is_absolute())
        {
            let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
            archive.file(&format!("lib/x86_64-linux-gnu/{name}"), 0o755, &fs::read(file)?);
        }
    }
    let mut order = String::new();
    let modules = modules(&only(&linux.join("lib/modules"), "")?.join("kernel"))?;
    for module in &modules {
        let name = module.file_name().unwrap_or_default().to_string_lossy();
        archive.file(&format!("modules/{name}"), 0o644, &fs::read(module)?);
        order.push_str(&name);
        order.push('\n');
    }
    archive.file("modules/order", 0o644, order.as_bytes());
    archive.file("etc/lease", 0o755, LEASE.as_bytes());
    archive.file("etc/acpi/PWRF/00000080", 0o755, POWER.as_bytes());
    archive.file("sbin/shutdown", 0o755, SHUTDOWN.as_bytes());
    archive.file("init", 0o755, INIT.as_bytes());
    Ok(archive.finish())
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

/// A domain that boots the guest. Its XML is for tests of the wire; a driver writes its own.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Its name: letters, digits and `-`.
    pub name: String,
    /// Words for the guest: `deaf`, `mute`.
    pub words: String,
    /// More devices, XML.
    pub devices: String,
}

impl Machine {
    /// A plain one: serial console, guest agent, VNC on a socket, no disk, no network.
    pub fn named(name: &str) -> Self {
        Self { name: name.to_owned(), words: String::new(), devices: String::new() }
    }

    /// Its definition.
    ///
    /// # Panics
    /// If the name has other letters.
    pub fn xml(&self, guest: &Guest) -> String {
        assert!(self.name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'), "a name for tests is plain");
        let (name, words, devices) = (&self.name, &self.words, &self.devices);
        let (kernel, initrd) = (guest.kernel.display(), guest.initrd.display());
        format!(
            "<domain type='qemu'><name>{name}</name><memory unit='MiB'>192</memory><vcpu>1</vcpu>\
             <os><type arch='x86_64' machine='q35'>hvm</type><kernel>{kernel}</kernel><initrd>{initrd}</initrd>\
             <cmdline>console=ttyS0 quiet name={name} {words}</cmdline></os>\
             <features><acpi/><apic/></features><cpu mode='maximum'/>\
             <devices><controller type='pci' model='pcie-root'/>{}\
             <controller type='usb' model='none'/>\
             <serial type='pty'><target port='0'/></serial><console type='pty'><target type='serial' port='0'/></console>\
             <channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>\
             <graphics type='vnc'><listen type='socket'/></graphics><video><model type='vga'/></video>\
             <memballoon model='virtio'/><rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>\
             {devices}</devices></domain>",
            "<controller type='pci' model='pcie-root-port'/>".repeat(8)
        )
    }
}
