//! Machines under libvirt that are worked in like Lua machines: from nothing to a session, through the daemon's death and the guest's, to nothing.
//!
//! Everything runs in a lab of libvirt's, with a NAT network of its own, where the guests can be reached.

use crate::{
    environments,
    home::{Home, Ran},
};
use serde_json::Value;
use std::{
    fs,
    io::Write as _,
    process::{Command, Stdio},
};
use vmoon_libvirt_lab::Lab;

const NETWORK: &str = "<network><name>inside</name><forward mode='nat'/><bridge name='vlab0'/><ip address='192.0.2.1' netmask='255.255.255.0'>\
     <dhcp><range start='192.0.2.10' end='192.0.2.20'/></dhcp></ip></network>";

/// A user's home in a lab.
struct Place {
    lab: Lab,
    home: Home,
}

impl Place {
    fn new() -> Self {
        let place = Self { lab: Lab::start(), home: Home::new() };
        let images = place.lab.path().join("images");
        fs::create_dir(&images).unwrap();
        let network = place.lab.path().join("network.xml");
        fs::write(&network, NETWORK).unwrap();
        let (images, network) = (images.display().to_string(), network.display().to_string());
        place.virsh(&["pool-define-as", "default", "dir", "--target", &images]);
        place.virsh(&["pool-start", "default"]);
        place.virsh(&["net-define", &network]);
        place.virsh(&["net-start", "inside"]);
        place.vmoon(&["connection", "add", "libvirt", "qemu:///system", "--name", "kvm"]).ok();
        place
    }

    fn virsh(&self, args: &[&str]) -> String {
        let out = self.lab.command("virsh").args(["-q", "-c", "qemu:///system"]).args(args).stdin(Stdio::null()).output().unwrap();
        assert!(out.status.success(), "virsh {args:?}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8_lossy(&out.stdout).trim().to_owned()
    }

    /// The binary in the lab, with the environment of this home.
    fn command(&self, args: &[&str]) -> Command {
        let own = self.home.command(args);
        // What hangs is a failure, not a test without end.
        let mut command = self.lab.command("timeout");
        command.args([if args.contains(&"40m") { "2500" } else { "300" }, "env", "-i"]);
        for (name, value) in own.get_envs() {
            if let Some(value) = value {
                command.arg(format!("{}={}", name.display(), value.display()));
            }
        }
        command.args(["USER=ada", "VMOON_NO_PROGRESS=1"]).arg(own.get_program()).args(own.get_args());
        command.current_dir(self.home.path(".")).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn vmoon(&self, args: &[&str]) -> Ran {
        Ran::of(self.command(args).output().unwrap())
    }

    fn feed(&self, args: &[&str], bytes: &[u8]) -> Ran {
        let mut child = self.command(args).stdin(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(bytes).unwrap();
        Ran::of(child.wait_with_output().unwrap())
    }

    fn json(&self, args: &[&str]) -> Value {
        let said = self.vmoon(&[&["-o", "json"], args].concat()).ok();
        serde_json::from_str(&said).unwrap_or_else(|_| panic!("no JSON: {said}"))
    }

    /// Makes and starts a machine, and waits until it has a session.
    fn create(&self, name: &str, words: &str, settings: &[&str]) {
        let guest = Lab::guest();
        let own = [
            format!("kernel={}", guest.kernel.display()),
            format!("initrd={}", guest.initrd.display()),
            // A busy computer that emulates is too late for the check of the timer, and the kernel would wait for it.
            format!("cmdline=console=ttyS0 quiet no_timer_check {words}"),
        ];
        let fixed = ["memory=192MiB", "cpus=1", "disk=0", "firmware=bios", "network=inside", "accelerator=tcg", "graphics=none"];
        let target = format!("kvm:{name}");
        let mut args = vec!["create", &target, "--until", "session", "--timeout", "5m"];
        let key = |setting: &str| setting.split('=').next().map(str::to_owned);
        let usual = fixed.iter().filter(|usual| !settings.iter().any(|own| key(own) == key(usual)));
        for setting in usual.chain(settings).copied().chain(own.iter().map(String::as_str)) {
            args.extend(["--set", setting]);
        }
        self.vmoon(&args).ok();
    }

    /// An environment made by hand, with a module in C.
    fn generation(&self, name: &str) {
        let place = environments::Made::new(self.home.path("state"), self.home.path("."));
        place.generation(name, "5.4", 1, "hello");
    }

    fn kill_daemon(&self) {
        let pid = fs::read_to_string(self.home.path("state/vmoon/daemon.lock")).unwrap();
        let killed = self.lab.command("kill").args(["-9", pid.trim()]).status().unwrap();
        assert!(killed.success());
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = fs::read_to_string(self.home.path("state/vmoon/daemon.log")).unwrap_or_default();
            let last: Vec<&str> = log.lines().rev().take(30).collect();
            let mut stderr = std::io::stderr();
            let _ = writeln!(stderr, "{}", last.into_iter().rev().collect::<Vec<_>>().join("\n"));
        }
        // Everything else ends with the lab.
        let _ = self.vmoon(&["daemon", "stop"]);
    }
}

/// The whole story of issue and user: create, start, session, `x = 42`, later `print(x)`, another terminal, the daemon's death, the guest's, nothing left.
#[test]
fn a_guest_is_a_machine_with_lua_from_nothing_to_nothing() {
    let place = Place::new();
    // Its agent is mute: its address is that of its lease, and programs go over SSH.
    place.create("web01", "mute", &["seed=yes", "hostname=web01"]);
    let shown = place.json(&["show", "web01"]);
    assert!(shown["facts"]["ssh_user"] == "vmoon" && shown["facts"]["ssh_identity"] == "vmoon's own key", "{shown}");

    place.vmoon(&["eval", "web01", "x = 42"]).ok();
    assert_eq!(place.vmoon(&["eval", "web01", "print(x)"]).ok(), "42\n");
    let attached = place.feed(&["attach", "web01"], b"print(x + 1)\n").ok();
    assert!(attached.contains("43"), "{attached}");
    assert_eq!(place.vmoon(&["ssh", "web01", "--", "hostname"]).ok(), "web01\n");
    assert_eq!(place.vmoon(&["ssh", "web01", "--", "sh", "-c", "echo $USER; exit 3"]).code, 3);
    assert_eq!(place.feed(&["ssh", "web01", "-i", "--", "tr", "a-z", "A-Z"], b"a & b <c>\n").ok(), "A & B <C>\n");
    assert_eq!(place.vmoon(&["exec", "web01", "--", "id", "-un"]).ok(), "vmoon\n", "there is no agent");
    let serial = place.vmoon(&["session", "list", "-o", "json"]).ok();
    assert!(
        serial.contains("\"serial\"") && serial.contains("\"main\"") && !serial.contains("\"shell\""),
        "a shell is opened when it is wanted: {serial}"
    );

    // Packages, while the session runs: a rock, and an environment with a module in C.
    let reverse = "print(require('bio.utils').reverse_complement('AACG'), x)";
    let refused = place.vmoon(&["-o", "json", "eval", "web01", reverse]);
    assert!(refused.err.contains("not found"), "{refused:?}");
    place.vmoon(&["pkg", "install", "bio-utils", "--machine", "web01", "--offline"]).ok();
    assert_eq!(place.vmoon(&["eval", "web01", reverse]).ok(), "CGTT\t42\n");
    let shown = place.json(&["show", "web01"]);
    assert!(shown["facts"]["env"] == "web01" && shown["facts"]["generation"].is_u64(), "{shown}");
    place.generation("native");
    let dry = place.vmoon(&["env", "apply", "native", "web01", "--dry-run"]).ok();
    assert!(dry.contains("sends 2 files"), "{dry}");
    place.vmoon(&["env", "apply", "native", "web01"]).ok();
    assert_eq!(place.vmoon(&["eval", "web01", "print(require('answer'), require('greet').say(), x)"]).ok(), "forty-two\thello\t42\n");
    place.vmoon(&["env", "apply", "web01", "web01"]).ok();
    assert!(place.vmoon(&["-o", "json", "env", "rm", "web01", "--yes"]).err.contains("environment.in_use"));

    // Files: both ways, whole directories too.
    let bytes: Vec<u8> = (0..1_500_000_u32).map(|n| ((n * 31) >> 3) as u8).collect();
    fs::write(place.home.path("data.bin"), &bytes).unwrap();
    let own = |name: &str| place.home.path(name).display().to_string();
    place.vmoon(&["cp", &own("data.bin"), "web01:up.bin"]).ok();
    let sum = |text: String| text.split(' ').next().unwrap_or_default().to_owned();
    let there = sum(place.vmoon(&["ssh", "web01", "--", "sha256sum", "up.bin"]).ok());
    let here = Command::new("sha256sum").arg(place.home.path("data.bin")).output().unwrap();
    assert_eq!(there, sum(String::from_utf8(here.stdout).unwrap()));
    place.vmoon(&["cp", "web01:up.bin", &own("down.bin")]).ok();
    assert!(fs::read(place.home.path("down.bin")).unwrap() == bytes);
    fs::create_dir_all(place.home.path("tree/inner")).unwrap();
    fs::write(place.home.path("tree/inner/b b"), "b").unwrap();
    place.vmoon(&["cp", "-r", &own("tree"), "web01:tree"]).ok();
    place.vmoon(&["cp", "-r", "web01:tree", &own("again")]).ok();
    assert_eq!(fs::read_to_string(place.home.path("again/inner/b b")).unwrap(), "b");
    assert!(place.vmoon(&["-o", "json", "cp", "web01:none", &own("x")]).err.contains("file.not_found"));

    // A shell that stays when its terminal goes.
    place.feed(&["ssh", "web01"], b"echo shell-$((40 + 2)); y=7\n").ok();
    place.vmoon(&["send", "web01/shell", "echo y is $y"]).ok();
    let text = read_until(&place, "web01/shell", "y is 7");
    assert!(text.contains("y is 7"), "{text}");

    place.kill_daemon();
    assert_eq!(place.vmoon(&["eval", "web01", "print(x)"]).ok(), "42\n", "the session has not noticed");

    // The guest boots anew behind our back.
    place.virsh(&["reset", "web01"]);
    place.vmoon(&["wait", "web01", "--until", "ssh", "--timeout", "5m"]).ok();
    let mut tries = 0;
    while place.vmoon(&["eval", "web01", "print(x)", "--timeout", "60s"]).out != "nil\n" {
        tries += 1;
        assert!(tries < 10, "no session after the boot: {:?}", place.vmoon(&["session", "list"]));
    }
    let sessions = place.vmoon(&["session", "list", "--ended", "-o", "json"]).ok();
    assert!(sessions.contains("rebooted"), "{sessions}");
    // What the guest has lost with its memory was sent again before the session began.
    assert_eq!(place.vmoon(&["eval", "web01", reverse]).ok(), "CGTT\tnil\n");

    // Stopped and started: another life, the same host key.
    place.vmoon(&["stop", "web01", "--force"]).ok();
    let error = place.vmoon(&["-o", "json", "ssh", "web01", "--", "true"]);
    assert!(error.err.contains("machine.stopped"), "{error:?}");
    for args in [
        &["cp", &own("data.bin"), "web01:x"][..],
        &["env", "apply", "native", "web01"],
        &["pkg", "install", "bio-utils", "--machine", "web01", "--offline"],
    ] {
        let error = place.vmoon(&[&["-o", "json"], args].concat());
        assert!(error.err.contains("machine.stopped") && error.err.contains("vmoon start web01"), "{args:?}: {error:?}");
    }
    place.vmoon(&["start", "web01", "--until", "session", "--timeout", "5m"]).ok();
    assert_eq!(place.vmoon(&["eval", "web01", "print(x)"]).ok(), "nil\n");

    place.vmoon(&["rm", "web01", "--force", "--yes"]).ok();
    let left = |path: &str| fs::read_dir(place.home.path(path)).map_or(0, Iterator::count);
    assert_eq!(left("state/vmoon/guests"), 3, "the key, its public half and the connection's directory");
    assert_eq!(fs::read_dir(place.lab.path().join("images")).unwrap().count(), 0);
    place.vmoon(&["connection", "rm", "kvm", "--yes"]).ok();
    assert_eq!(left("state/vmoon/guests"), 2, "how machines of the connection were entered is forgotten");
}

fn read_until(place: &Place, session: &str, wanted: &str) -> String {
    let mut said = String::new();
    for _ in 0..200 {
        said = place.vmoon(&["read", session]).ok();
        if said.contains(wanted) {
            break;
        }
    }
    said
}

/// What is foreign is entered once somebody says how, and its key is confirmed first.
#[test]
fn a_foreign_guest_is_entered_when_somebody_says_how() {
    let place = Place::new();
    place.create(
        "theirs",
        "mute nolua",
        &["seed=yes", "user=ada", "ssh=no", "ssh-key=ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ"],
    );
    let channels = place.vmoon(&["show", "theirs", "-o", "json"]).ok();
    assert!(!channels.contains("ssh_user"), "{channels}");
    let error = place.vmoon(&["-o", "json", "eval", "theirs", "return 1"]);
    assert!(error.err.contains("session.channel"), "{error:?}");
    place.vmoon(&["wait", "theirs", "--until", "ssh", "--timeout", "5m"]).ok();
    // Nobody is asked where there is no terminal.
    let error = place.vmoon(&["-o", "json", "ssh", "theirs", "--", "true"]);
    let line = error.err.lines().last().unwrap_or_default();
    let told: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("{error:?}"));
    let print = told["error"]["detail"]["fingerprint"].as_str().unwrap_or_else(|| panic!("{error:?}")).to_owned();
    assert_eq!(told["error"]["code"], "connection.untrusted");
    let set = format!("ssh-fingerprint={print}");
    assert!(told["error"]["hint"].as_str().is_some_and(|hint| hint.ends_with(&format!("vmoon set theirs {set}"))), "{error:?}");
    let error = place.vmoon(&["-o", "json", "cp", "theirs:x", "/nowhere/y"]);
    assert!(error.err.contains("connection.untrusted"), "{error:?}");
    place.vmoon(&["set", "theirs", &set]).ok();
    // The key is none of ours.
    let error = place.vmoon(&["-o", "json", "ssh", "theirs", "--", "true"]);
    assert!(error.err.contains("connection.auth") && error.err.contains("ssh-identity"), "{error:?}");
    let problems = place.vmoon(&["-o", "json", "set", "theirs", "ssh-port=0", "memory=x", "ssh-user=a b"]);
    assert!(["ssh-port", "memory", "ssh-user"].iter().all(|name| problems.err.contains(name)), "all problems at once: {problems:?}");
    place.vmoon(&["set", "theirs", "ssh-user=", "ssh-fingerprint="]).ok();
    assert!(!place.vmoon(&["show", "theirs", "-o", "json"]).ok().contains("ssh_user"));
    place.vmoon(&["rm", "theirs", "--force", "--yes"]).ok();
}

/// A machine with the copy of a disk is entered as the first one is; the copy of one that nobody knows how to enter is not.
#[test]
fn a_copy_of_a_guest_is_entered_like_its_original() {
    let place = Place::new();
    place.create("first", "mute home", &["seed=yes", "disk=64MiB", "user=ada", "hostname=first"]);
    let error = place.vmoon(&["-o", "json", "clone", "first", "second"]);
    assert!(error.err.contains("machine.not_copyable"), "{error:?}");
    place.vmoon(&["stop", "first", "--force"]).ok();
    place.vmoon(&["clone", "first", "second"]).ok();
    let (first, second) = (place.json(&["show", "first"]), place.json(&["show", "second"]));
    for fact in ["ssh_user", "ssh_identity", "ssh_fingerprint"] {
        assert!(first["facts"][fact].is_string() && first["facts"][fact] == second["facts"][fact], "{fact}: {first} {second}");
    }
    place.vmoon(&["set", "first", "ssh-user="]).ok();
    assert_eq!(place.json(&["show", "second"])["facts"]["ssh_user"], "ada", "it has a record of its own");
    place.vmoon(&["clone", "first", "third"]).ok();
    let error = place.vmoon(&["-o", "json", "ssh", "third", "--", "true"]);
    assert!(error.err.contains("machine.stopped") || error.err.contains("vmoon set third ssh-user=USER"), "{error:?}");
    // With the seed of its original it shows the same host key, and takes the same key of ours; its session is its own.
    place.vmoon(&["start", "second", "--until", "session", "--timeout", "5m"]).ok();
    assert_eq!(place.vmoon(&["eval", "second", "print(x)"]).ok(), "nil\n");
    assert_eq!(place.vmoon(&["ssh", "second", "--", "id", "-un"]).ok(), "ada\n");
    for name in ["first", "second", "third"] {
        place.vmoon(&["rm", name, "--force", "--yes"]).ok();
    }
    let records = fs::read_dir(place.home.path("state/vmoon/guests")).unwrap().flatten().filter(|entry| entry.path().is_dir());
    assert_eq!(records.flat_map(|dir| fs::read_dir(dir.path()).unwrap()).count(), 0, "what was known of them is forgotten");
}

/// The computer of a lab as one that is reached over SSH: each connection to a port of this one is an sshd there.
struct Far {
    place: Place,
    port: u16,
}

impl Far {
    fn new() -> Self {
        let place = Place::new();
        place.vmoon(&["connection", "rm", "kvm", "--yes"]).ok();
        place.vmoon(&["daemon", "stop"]).ok();
        let home = place.home.path(".");
        let (ssh, there) = (home.join(".ssh"), place.lab.path().to_owned());
        fs::create_dir(&ssh).unwrap();
        fs::create_dir_all(there.join("run/sshd")).unwrap();
        let key = vmoon_ssh_lab::key(&ssh, "id_ed25519", "ed25519", "");
        let host = vmoon_ssh_lab::key(&there, "host", "ed25519", "");
        fs::copy(key.with_extension("pub"), there.join("authorized")).unwrap();
        let config = there.join("sshd_config");
        let there = there.display();
        let text = format!(
            "HostKey {there}/host\nAuthorizedKeysFile {there}/authorized\nStrictModes no\nUsePAM no\nPermitRootLogin yes\nPidFile none\nPasswordAuthentication no\n"
        );
        fs::write(&config, text).unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let shown = fs::read_to_string(host.with_extension("pub")).unwrap();
        fs::write(ssh.join("known_hosts"), format!("[127.0.0.1]:{port} {shown}")).unwrap();
        // The ssh of the computer looks into the account's own home, whatever HOME says.
        let bin = home.join("bin");
        fs::create_dir(&bin).unwrap();
        fs::copy(ssh.join("known_hosts"), bin.join("known_hosts")).unwrap();
        let known = bin.join("known_hosts").display().to_string();
        fs::write(bin.join("ssh"), format!("#!/bin/sh\nexec /usr/bin/ssh -F none -o UserKnownHostsFile={known} \"$@\"\n")).unwrap();
        fs::set_permissions(bin.join("ssh"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let mut sshd = place.lab.command("/usr/sbin/sshd");
        sshd.args(["-i", "-f"]).arg(&config).stderr(Stdio::null());
        std::thread::spawn(move || {
            while let Ok((client, _)) = listener.accept() {
                let client = std::os::fd::OwnedFd::from(client);
                sshd.stdin(client.try_clone().unwrap()).stdout(client);
                // It ends with its connection, or with the lab.
                drop(sshd.spawn().expect("openssh-server is installed: cargo xtask install"));
                sshd.stdin(Stdio::null()).stdout(Stdio::null());
            }
        });
        Self { place, port }
    }

    /// The binary on this side, where no address of the lab leads anywhere.
    fn vmoon(&self, args: &[&str]) -> Ran {
        let mut command = self.place.home.command(args);
        let path = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", self.place.home.path("bin").display());
        Ran::of(command.env("PATH", path).env("USER", "root").env("VMOON_NO_PROGRESS", "1").output().unwrap())
    }
}

impl Drop for Far {
    fn drop(&mut self) {
        let _ = self.vmoon(&["daemon", "stop"]);
    }
}

/// A guest behind the NAT of another computer: reached through that one, with one connection to it.
#[test]
fn a_guest_of_another_computer_is_entered_through_it() {
    let far = Far::new();
    let key = far.place.home.path(".ssh/id_ed25519").display().to_string();
    let uri = format!("qemu+ssh://root@127.0.0.1:{}/system?keyfile={key}", far.port);
    far.vmoon(&["connection", "add", "libvirt", &uri, "--name", "kvm"]).ok();
    let guest = Lab::guest();
    let own = [
        format!("kernel={}", guest.kernel.display()),
        format!("initrd={}", guest.initrd.display()),
        "cmdline=console=ttyS0 quiet mute".to_owned(),
    ];
    let fixed = [
        "memory=192MiB",
        "cpus=1",
        "disk=0",
        "firmware=bios",
        "network=inside",
        "accelerator=tcg",
        "graphics=none",
        "seed=yes",
        "hostname=far",
    ];
    let mut args = vec!["create", "kvm:far", "--until", "ssh", "--timeout", "5m"];
    for setting in fixed.iter().copied().chain(own.iter().map(String::as_str)) {
        args.extend(["--set", setting]);
    }
    far.vmoon(&args).ok();
    far.vmoon(&["eval", "far", "x = 42"]).ok();
    assert_eq!(far.vmoon(&["eval", "far", "print(x)"]).ok(), "42\n");
    assert_eq!(far.vmoon(&["ssh", "far", "--", "hostname"]).ok(), "far\n");
    let place = far.vmoon(&["-o", "json", "show", "far"]).ok();
    let shown: Value = serde_json::from_str(&place).unwrap();
    let address = shown["facts"]["ssh_place"].as_str().unwrap_or_else(|| panic!("{place}"));
    assert!(address.starts_with("192.0.2."), "{address}");
    assert!(std::net::TcpStream::connect_timeout(&address.parse().unwrap(), std::time::Duration::from_secs(1)).is_err(), "not from here");
    // A computer that is not trusted for that: the error is about it, and not about the guest.
    far.vmoon(&["daemon", "stop"]).ok();
    fs::write(far.place.home.path(".ssh/known_hosts"), "").unwrap();
    let error = far.vmoon(&["-o", "json", "ssh", "far", "--", "true"]);
    let said = "guests of 127.0.0.1 are reached through it, and it cannot be entered";
    assert!(error.code != 0 && error.err.contains(said) && !error.err.contains("vmoon set far"), "{error:?}");
    // A computer that ssh does not let us reach at all: what ssh says is told.
    far.vmoon(&["daemon", "stop"]).ok();
    fs::write(far.place.home.path("bin/known_hosts"), "").unwrap();
    let error = far.vmoon(&["-o", "json", "ssh", "far", "--", "true"]);
    assert!(error.code != 0 && error.err.contains("Host key verification failed"), "{error:?}");
}

/// A guest of a real distribution, with cloud-init: from clone to SSH to a Lua prompt. It needs an image and minutes: `cargo xtask cloud-guest IMAGE`.
#[cfg(feature = "cloud-guest")]
#[test]
fn a_cloud_image_is_entered() {
    let given = |name: &str| std::env::var(name).ok();
    let image = given("VMOON_CLOUD_IMAGE").expect("cargo xtask cloud-guest IMAGE names the image");
    let place = Place::new();
    let base = format!("base={image}");
    let boot = given("VMOON_CLOUD_KERNEL").zip(given("VMOON_CLOUD_INITRD")).map(|(kernel, initrd)| {
        let cmdline = "cmdline=root=/dev/vda rw console=ttyS0 systemd.show_status=yes".to_owned();
        vec![format!("kernel={kernel}"), format!("initrd={initrd}"), cmdline, "firmware=bios".to_owned()]
    });
    let mut args = vec!["create", "kvm:cloud", "--until", "session", "--timeout", "40m", "--set", &base];
    for setting in ["memory=1GiB", "cpus=2", "disk=4GiB", "network=inside", "accelerator=tcg", "graphics=none"] {
        args.extend(["--set", setting]);
    }
    for setting in boot.iter().flatten() {
        args.extend(["--set", setting]);
    }
    let begin = std::time::Instant::now();
    place.vmoon(&args).ok();
    let took = begin.elapsed();
    place.vmoon(&["eval", "cloud", "x = 42"]).ok();
    assert_eq!(place.vmoon(&["eval", "cloud", "print(x, _VERSION)"]).ok().trim(), "42\tLua 5.4");
    assert_eq!(place.vmoon(&["ssh", "cloud", "--", "hostname"]).ok(), "cloud\n");
    assert_eq!(place.vmoon(&["ssh", "cloud", "--", "sudo", "-n", "id", "-u"]).ok(), "0\n");
    let system =
        place.vmoon(&["ssh", "cloud", "--", "sh", "-c", ". /etc/os-release; echo $PRETTY_NAME; cloud-init --version; ssh -V 2>&1"]).ok();
    let mut stderr = std::io::stderr();
    let _ = writeln!(stderr, "a session after {} s:\n{system}", took.as_secs());
    // A copy is entered like its original: the same login, the same keys, a session of its own.
    place.vmoon(&["stop", "cloud", "--timeout", "10m"]).ok();
    place.vmoon(&["clone", "cloud", "twin"]).ok();
    place.vmoon(&["start", "twin", "--until", "session", "--timeout", "40m"]).ok();
    assert_eq!(place.vmoon(&["eval", "twin", "print(x)"]).ok(), "nil\n");
    assert_eq!(place.vmoon(&["ssh", "twin", "--", "sudo", "-n", "id", "-u"]).ok(), "0\n");
    for name in ["cloud", "twin"] {
        place.vmoon(&["rm", name, "--force", "--yes"]).ok();
    }
}
