//! Machines under QEMU, by plain emulation.

use super::{Body, End, Maker, Order, Plan, Soon, qmp::Qmp};
use serde_json::json;
use std::{
    ffi::OsString,
    fs::File,
    io,
    os::{
        fd::AsFd as _,
        unix::{fs::OpenOptionsExt as _, net::UnixStream as StdUnixStream},
    },
    path::{Path, PathBuf},
    process::Child,
};
use tokio::net::UnixStream;
use vmoon_guest_image::Guest;
use vmoon_sys::child::Tied;

/// The program.
const PROGRAM: &str = "qemu-system-x86_64";
/// What the guest needs at least, MiB, and what a machine of a simulator gets at most.
const MEMORY: (u64, u64) = (192, 1024);
const MAX_CPUS: u32 = 4;

/// Makes machines that boot a guest under QEMU.
#[derive(Clone, Debug)]
pub struct Qemu {
    program: PathBuf,
    guest: Guest,
}

impl Qemu {
    /// For this guest.
    ///
    /// # Errors
    /// If QEMU is not installed.
    pub fn new(guest: Guest) -> Result<Self, String> {
        let program = find(PROGRAM).ok_or_else(|| format!("{PROGRAM} is not installed"))?;
        Ok(Self { program, guest })
    }
}

/// A program on the PATH.
pub(super) fn find(name: &str) -> Option<PathBuf> {
    let path = vmoon_sys::paths::inherited(&["PATH"]).into_iter().next().map_or_else(OsString::new, |(_, path)| path);
    // Daemons are in folders that are on root's path only.
    let all = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    all.map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// A value within an option of QEMU: commas are doubled there.
fn value(path: &Path) -> String {
    path.display().to_string().replace(',', ",,")
}

fn arguments(guest: &Guest, plan: &Plan) -> Vec<String> {
    let mut words = plan.words.clone();
    if plan.disks.iter().any(|(_, writes)| *writes) {
        words.push("home".into());
    }
    let name: String = plan.name.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').take(60).collect();
    let mut all: Vec<String> =
        ["-machine", "q35", "-accel", "tcg", "-cpu", "max", "-nodefaults", "-no-user-config", "-no-reboot"].map(String::from).into();
    let mut add = |option: &str, value: String| all.extend([option.to_owned(), value]);
    add("-m", (plan.memory >> 20).clamp(MEMORY.0, MEMORY.1).to_string());
    add("-smp", plan.cpus.min(MAX_CPUS).to_string());
    add("-kernel", guest.kernel.display().to_string());
    add("-initrd", guest.initrd.display().to_string());
    add("-append", format!("console=tty0 console=ttyS0 quiet name={} {}", if name.is_empty() { "guest" } else { &name }, words.join(" ")));
    add("-chardev", "socket,id=qmp,fd=3".into());
    add("-mon", "chardev=qmp,mode=control".into());
    add("-chardev", "socket,id=serial,fd=4".into());
    add("-serial", "chardev:serial".into());
    add("-vga", "std".into());
    add("-display", "none".into());
    add("-vnc", format!("unix:{}", value(&screen(plan))));
    add("-device", "virtio-rng-pci".into());
    if let Some(mac) = &plan.mac {
        add("-netdev", format!("user,id=n,hostfwd=tcp:{}:{}-:22", plan.address, plan.port));
        let mac = if mac.is_empty() { String::new() } else { format!(",mac={mac}") };
        add("-device", format!("virtio-net-pci,netdev=n,romfile={mac}"));
    }
    for (n, (file, writes)) in plan.disks.iter().enumerate() {
        let only = if *writes { "" } else { ",readonly=on" };
        add("-drive", format!("if=none,id=d{n},format=raw{only},file={}", value(file)));
        add("-device", format!("virtio-blk-pci,drive=d{n}"));
    }
    if plan.memory_file.is_some() {
        add("-incoming", "fd:5".into());
    }
    all
}

fn screen(plan: &Plan) -> PathBuf {
    plan.folder.join("screen")
}

impl Maker for Qemu {
    fn start(&self, plan: &Plan) -> io::Result<Box<dyn Body>> {
        let (ours, qmp) = StdUnixStream::pair()?;
        let (console, serial) = StdUnixStream::pair()?;
        let log = File::options().create(true).append(true).mode(0o600).open(plan.folder.join("log"))?;
        let memory = plan.memory_file.as_ref().map(File::open).transpose()?;
        let mut extra = vec![(qmp.as_fd(), 3), (serial.as_fd(), 4)];
        extra.extend(memory.as_ref().map(|file| (file.as_fd(), 5)));
        let child = Tied { exe: &self.program, args: arguments(&self.guest, plan), output: [log.as_fd(), log.as_fd()], extra }.spawn()?;
        // From here on the process ends if anything fails.
        let mut machine = Machine { child, qmp: None, serial: None, screen: screen(plan), log: plan.folder.join("log") };
        for end in [&ours, &console] {
            end.set_nonblocking(true)?;
        }
        machine.qmp = Some(Qmp::new(UnixStream::from_std(ours)?));
        machine.serial = Some(UnixStream::from_std(console)?);
        Ok(Box::new(machine))
    }

    fn about(&self) -> String {
        "VMs are QEMU machines by plain emulation, with SSH and Lua.".into()
    }
}

struct Machine {
    child: Child,
    /// None only before it is set up.
    qmp: Option<Qmp>,
    serial: Option<UnixStream>,
    screen: PathBuf,
    log: PathBuf,
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_file(&self.screen);
    }
}

impl Machine {
    fn qmp(&mut self) -> io::Result<&mut Qmp> {
        self.qmp.as_mut().ok_or_else(|| io::Error::other("it is not set up"))
    }

    async fn save(&mut self, to: &Path) -> io::Result<()> {
        let file = File::options().create(true).truncate(true).write(true).mode(0o600).open(to)?;
        let qmp = self.qmp()?;
        let capabilities = json!({"capabilities": [{"capability": "events", "state": true}]});
        qmp.execute("migrate-set-capabilities", capabilities, None).await?;
        qmp.execute("migrate-set-parameters", json!({"max-bandwidth": 100_u64 << 30}), None).await?;
        qmp.execute("getfd", json!({"fdname": "memory"}), Some(file.as_fd())).await?;
        qmp.execute("migrate", json!({"uri": "fd:memory"}), None).await?;
        qmp.migrated().await
    }

    /// What it said last, as one line.
    fn last_words(&self) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        log.lines().next_back().unwrap_or("without a word").to_owned()
    }
}

impl Body for Machine {
    fn serial(&mut self) -> Option<UnixStream> {
        self.serial.take()
    }

    fn screen(&self) -> Option<PathBuf> {
        Some(self.screen.clone())
    }

    fn obey(&mut self, order: Order) -> Soon<'_, io::Result<()>> {
        Box::pin(async move {
            let command = match order {
                Order::Pause => "stop",
                Order::Go => "cont",
                Order::Button => "system_powerdown",
                Order::Save(to) => return self.save(&to).await,
            };
            self.qmp()?.execute(command, json!({}), None).await.map(drop)
        })
    }

    fn ended(&mut self) -> Soon<'_, End> {
        Box::pin(async move {
            let Ok(qmp) = self.qmp() else { return End::Died("it was not set up".into()) };
            loop {
                match qmp.event().await {
                    // Without `qmp_capabilities` there are events too, but no commands.
                    Ok(Some(event)) if event["event"] == "SHUTDOWN" => {
                        return match event["data"]["reason"].as_str() {
                            Some("guest-reset") => End::Reset,
                            Some("guest-panic") => End::Died("the guest panicked".into()),
                            _ => End::Off,
                        };
                    }
                    Ok(Some(_)) => {}
                    Ok(None) | Err(_) => return End::Died(format!("QEMU has ended: {}", self.last_words())),
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[test]
    fn what_people_write_stays_a_value() {
        let guest = Guest { kernel: "/k".into(), initrd: "/i".into() };
        let plan = Plan {
            name: "a b,c=d root=/dev/x".into(),
            memory: 1 << 40,
            cpus: 99,
            words: vec!["deaf".into()],
            mac: Some("02:00:00:00:00:01".into()),
            address: Ipv4Addr::new(127, 64, 0, 2),
            port: 2222,
            disks: vec![("/x,y".into(), true), ("/seed".into(), false)],
            memory_file: None,
            folder: "/f".into(),
        };
        let all = arguments(&guest, &plan).join(" ");
        for part in [
            "-m 1024 ",
            "-smp 4 ",
            "name=abcdrootdevx deaf home ",
            "hostfwd=tcp:127.64.0.2:2222-:22",
            "file=/x,,y ",
            "readonly=on,file=/seed",
        ] {
            assert!(all.contains(part), "{part}: {all}");
        }
        assert!(!all.contains("-incoming"));
    }
}
