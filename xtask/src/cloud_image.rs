//! Makes a cloud image of Debian's packages, where no published one can be fetched: UEFI, GRUB, cloud-init, an SSH server, a guest agent, Lua. Root only; minutes.

use crate::say;
use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::Path,
    process::{Command, Stdio},
};

/// What the image is made of.
const PACKAGES: &str = "systemd-sysv,dbus,cloud-init,cloud-guest-utils,openssh-server,qemu-guest-agent,linux-image-cloud-amd64,initramfs-tools,netplan.io,\
    iproute2,sudo,udev,kmod,e2fsprogs,systemd-resolved,ca-certificates,lua5.4,grub-efi-amd64-bin";

/// What it is made with: a program, and the Debian package that brings it.
const TOOLS: [(&str, &str); 8] = [
    ("mmdebstrap", "mmdebstrap"),
    ("mkfs.vfat", "dosfstools"),
    ("mmd", "mtools"),
    ("mcopy", "mtools"),
    ("sfdisk", "fdisk"),
    ("mke2fs", "e2fsprogs"),
    ("qemu-img", "qemu-utils"),
    ("systemctl", "systemd"),
];

/// The sizes of the partitions, MiB: the firmware's and the system's.
const SIZES: (u64, u64) = (64, 2048);

fn run(dir: &Path, words: &[&str]) -> Result<(), String> {
    let [program, arguments @ ..] = words else { return Err("no program".into()) };
    say::line(format_args!("{}", words.join(" ")));
    let status = Command::new(program).args(arguments).current_dir(dir).stdin(Stdio::null()).status();
    match status.map_err(|e| format!("{program}: {e}"))? {
        status if status.success() => Ok(()),
        status => Err(format!("{program}: {status}")),
    }
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    fs::write(path, text).map_err(|e| format!("{}: {e}", path.display()))
}

/// The one file in a directory whose name begins like this.
fn only(dir: &Path, begins: &str) -> Result<String, String> {
    let entries = fs::read_dir(dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    let mut names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    names.find(|name| name.starts_with(begins)).ok_or_else(|| format!("there is no {begins} in {}", dir.display()))
}

/// Makes `cloud.qcow2` in a folder.
///
/// # Errors
/// What is missing, or which program failed.
pub(crate) fn make(folder: &str) -> Result<(), String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let there =
        |program: &str| std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]).any(|dir| dir.join(program).is_file());
    let mut missing: Vec<&str> = TOOLS.iter().filter(|(program, _)| !there(program)).map(|(_, package)| *package).collect();
    missing.dedup();
    if !missing.is_empty() {
        return Err(format!("it is made with programs that are not here: apt-get install {}", missing.join(" ")));
    }
    if fs::metadata("/proc/self").is_ok_and(|me| me.uid() != 0) {
        return Err("the files of the image belong to root: run it as root".into());
    }
    let dir = Path::new(folder);
    fs::create_dir_all(dir).map_err(|e| format!("{folder}: {e}"))?;
    let root = dir.join("root");
    if root.exists() {
        fs::remove_dir_all(&root).map_err(|e| format!("{}: {e}", root.display()))?;
    }
    let include = format!("--include={PACKAGES}");
    let exclude = ["doc", "man", "locale"].map(|part| format!("--dpkgopt=path-exclude=/usr/share/{part}/*"));
    run(dir, &["mmdebstrap", "--variant=minbase", "--mode=root", &include, &exclude[0], &exclude[1], &exclude[2], "bookworm", "root"])?;
    write(&root.join("etc/fstab"), "LABEL=cloud / ext4 defaults 0 1\n")?;
    write(&root.join("etc/cloud/cloud.cfg.d/90_dpkg.cfg"), "datasource_list: [ NoCloud, None ]\n")?;
    // Made anew by each machine.
    write(&root.join("etc/machine-id"), "")?;
    for key in fs::read_dir(root.join("etc/ssh")).map_err(|e| format!("etc/ssh: {e}"))?.flatten() {
        if key.file_name().to_string_lossy().starts_with("ssh_host_") {
            fs::remove_file(key.path()).map_err(|e| format!("{}: {e}", key.path().display()))?;
        }
    }
    run(dir, &["systemctl", "--root=root", "enable", "systemd-networkd", "systemd-resolved", "serial-getty@ttyS0"])?;
    let boot = root.join("boot");
    let (kernel, initrd) = (only(&boot, "vmlinuz-")?, only(&boot, "initrd.img-")?);
    let config = format!(
        "search --no-floppy --label cloud --set=root\nlinux /boot/{kernel} root=LABEL=cloud ro console=ttyS0\ninitrd /boot/{initrd}\nboot\n"
    );
    write(&root.join("grub.cfg"), &config)?;
    let modules = "--modules=part_gpt ext2 search_label normal linux fat serial";
    run(dir, &["chroot", "root", "grub-mkstandalone", "-O", "x86_64-efi", "-o", "/boot.efi", modules, "boot/grub/grub.cfg=/grub.cfg"])?;
    let (small, large) = SIZES;
    let (esp, system, disk) = (dir.join("esp.raw"), dir.join("system.raw"), dir.join("disk.raw"));
    for (file, size) in [(&esp, small), (&system, large), (&disk, small + large + 2)] {
        let made = fs::File::create(file).and_then(|made| made.set_len(size << 20));
        made.map_err(|e| format!("{}: {e}", file.display()))?;
    }
    run(dir, &["mkfs.vfat", "esp.raw"])?;
    run(dir, &["mmd", "-i", "esp.raw", "::/EFI", "::/EFI/BOOT"])?;
    run(dir, &["mcopy", "-i", "esp.raw", "root/boot.efi", "::/EFI/BOOT/BOOTX64.EFI"])?;
    for left in ["boot.efi", "grub.cfg"] {
        fs::remove_file(root.join(left)).map_err(|e| format!("{left}: {e}"))?;
    }
    run(dir, &["mke2fs", "-q", "-t", "ext4", "-L", "cloud", "-d", "root", "system.raw"])?;
    let table = format!("label: gpt\nstart=1MiB, size={small}MiB, type=U\nstart={}MiB, size={large}MiB, type=L\n", small + 1);
    write(&dir.join("table"), &table)?;
    let input = fs::File::open(dir.join("table")).map_err(|e| format!("table: {e}"))?;
    let parted =
        Command::new("sfdisk").args(["-q", "disk.raw"]).current_dir(dir).stdin(input).status().map_err(|e| format!("sfdisk: {e}"))?;
    if !parted.success() {
        return Err(format!("sfdisk: {parted}"));
    }
    for (file, at) in [("esp.raw", 1), ("system.raw", small + 1)] {
        run(dir, &["dd", &format!("if={file}"), "of=disk.raw", "bs=1M", &format!("seek={at}"), "conv=notrunc,sparse", "status=none"])?;
    }
    run(dir, &["qemu-img", "convert", "-O", "qcow2", "disk.raw", "cloud.qcow2"])?;
    for file in [&esp, &system, &disk, &dir.join("table")] {
        fs::remove_file(file).map_err(|e| format!("{}: {e}", file.display()))?;
    }
    fs::remove_dir_all(&root).map_err(|e| format!("{}: {e}", root.display()))?;
    say::line(format_args!("{}", dir.join("cloud.qcow2").display()));
    Ok(())
}
