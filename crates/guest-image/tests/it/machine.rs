//! A guest under QEMU, with the clients of OpenSSH to get into it.

use serde_json::{Value, json};
use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::{
        atomic::{AtomicU32, Ordering},
        mpsc::{Receiver, sync_channel},
    },
    time::{Duration, Instant},
};
use vmoon_guest_image::Guest;

/// Every wait of a test ends by then, on the slowest computer.
const PATIENCE: Duration = Duration::from_secs(90);
/// Not 22: that one is for root.
const PORT: u16 = 2222;

pub(crate) struct Machine {
    qemu: Child,
    console: Receiver<Vec<u8>>,
    heard: String,
    address: String,
    folder: PathBuf,
}

impl Machine {
    /// Boots one whose seed, if any, has this user data.
    pub(crate) fn boot(folder: &Path, words: &str, user_data: Option<(&str, &Value)>) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let guest = Guest::kept().unwrap_or_else(|why| panic!("{why}"));
        let n = std::process::id() * 16 + COUNT.fetch_add(1, Ordering::Relaxed);
        let address = format!("127.{}.{}.{}", 100 + (n >> 16) % 100, (n >> 8) % 256, n % 256);
        // It dies with us in whatever way.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "qemu-system-x86_64", "-M", "q35", "-accel", "tcg", "-cpu", "max", "-m", "192"]);
        command.args(["-nodefaults", "-no-user-config", "-display", "none", "-serial", "stdio"]);
        command.arg("-kernel").arg(&guest.kernel).arg("-initrd").arg(&guest.initrd);
        command.args(["-append", &format!("console=ttyS0 quiet {words}")]);
        command.arg("-qmp").arg(format!("unix:{},server=on,wait=off", folder.join("qmp").display()));
        command.args(["-netdev", &format!("user,id=n,hostfwd=tcp:{address}:{PORT}-:22"), "-device", "virtio-net-pci,netdev=n"]);
        if let Some((begin, data)) = user_data {
            let image = seed(folder, begin, data);
            command.args(["-drive", &format!("if=none,id=seed,format=raw,readonly=on,file={}", image.display())]);
            command.args(["-device", "virtio-blk-pci,drive=seed"]);
        }
        let mut qemu = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("setpriv and QEMU are installed");
        let mut out = qemu.stdout.take().unwrap();
        let (tell, console) = sync_channel(1024);
        drop(std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = out.read(&mut bytes) {
                if tell.send(bytes[..count].to_vec()).is_err() {
                    break;
                }
            }
        }));
        Self { qemu, console, heard: String::new(), address, folder: folder.to_owned() }
    }

    /// What the console has said, once it has said this.
    pub(crate) fn until(&mut self, words: &str) -> String {
        let end = Instant::now() + PATIENCE;
        while !self.heard.contains(words) {
            let left = end.saturating_duration_since(Instant::now());
            let more = self.console.recv_timeout(left).unwrap_or_else(|why| panic!("no \"{words}\" ({why}): {}", self.heard));
            self.heard.push_str(&String::from_utf8_lossy(&more));
        }
        self.heard.clone()
    }

    fn options(&self, command: &mut Command) {
        let known = self.folder.join("known");
        command.args(["-F", "none", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=accept-new", "-o", "ConnectTimeout=60"]);
        command.arg("-o").arg(format!("UserKnownHostsFile={}", known.display())).arg("-i").arg(self.folder.join("mine"));
    }

    pub(crate) fn ssh(&self, user: &str, words: &[&str]) -> Output {
        let mut command = Command::new("ssh");
        self.options(&mut command);
        command.args(["-p", &PORT.to_string(), &format!("{user}@{}", self.address)]).args(words);
        command.stdin(Stdio::null()).output().unwrap()
    }

    pub(crate) fn sftp(&self, user: &str, batch: &str) -> Output {
        let mut command = Command::new("sftp");
        self.options(&mut command);
        let file = self.folder.join("batch");
        fs::write(&file, batch).unwrap();
        command.arg("-b").arg(file).args(["-P", &PORT.to_string(), &format!("{user}@{}", self.address)]);
        command.stdin(Stdio::null()).output().unwrap()
    }

    /// Presses its power button; returns when that has reached the guest's hardware.
    pub(crate) fn power_button(&self) {
        let mut stream = UnixStream::connect(self.folder.join("qmp")).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut answers = BufReader::new(stream.try_clone().unwrap()).lines().map(Result::unwrap);
        assert!(answers.next().unwrap().contains("QMP"));
        for verb in ["qmp_capabilities", "system_powerdown"] {
            writeln!(stream, "{}", json!({"execute": verb})).unwrap();
            assert!(answers.any(|line| line.contains("return")), "{verb}");
        }
    }

    /// Waits for its end.
    pub(crate) fn ended(mut self) {
        let end = Instant::now() + PATIENCE;
        // Its console ends with it.
        while self.console.recv_timeout(end.saturating_duration_since(Instant::now())).is_ok() {}
        assert!(self.qemu.wait().unwrap().success());
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}

/// A seed with these user data.
fn seed(folder: &Path, begin: &str, data: &Value) -> PathBuf {
    let (files, image) = (folder.join("seed"), folder.join("seed.iso"));
    fs::create_dir_all(&files).unwrap();
    fs::write(files.join("user-data"), format!("{begin}{data:#}\n")).unwrap();
    fs::write(files.join("meta-data"), json!({"instance-id": "i-1"}).to_string()).unwrap();
    let mut command = Command::new("xorriso");
    command.args(["-as", "mkisofs", "-quiet", "-volid", "cidata", "-joliet", "-rock", "-o"]).arg(&image).arg(&files);
    let out = command.output().expect("xorriso is installed");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    image
}

/// Makes a key in a folder; its public half.
pub(crate) fn key(folder: &Path, name: &str) -> String {
    let file = folder.join(name);
    let out = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-C", "", "-f"]).arg(&file).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    fs::read_to_string(file.with_extension("pub")).unwrap().trim().to_owned()
}

/// The host key that it shows.
pub(crate) fn host_key(machine: &Machine) -> String {
    let words = ["-p", &PORT.to_string(), "-t", "ed25519", "-T", "60", &machine.address];
    let out = Command::new("ssh-keyscan").args(words).output().unwrap();
    String::from_utf8_lossy(&out.stdout).split_whitespace().nth(2).unwrap_or_default().to_owned()
}
