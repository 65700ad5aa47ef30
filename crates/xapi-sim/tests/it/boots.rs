//! VMs that really boot: from the template to a shell over SSH, and everything that is done to them.

use crate::patient;
use serde_json::{Value, json};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    process::Command,
    time::timeout,
};
use vmoon_guest_image::Guest;
use vmoon_xapi::{Client, Console, cache::Record, records::Vm, watch::Watch};
use vmoon_xapi_sim::{
    Server, Settings,
    machines::{Qemu, Sshd},
};

const PATIENCE: Duration = Duration::from_secs(90);

struct Pool {
    server: Server,
    client: Client,
    watch: Watch,
    /// Holds the key `mine`.
    folder: tempfile::TempDir,
}

async fn run(program: &str, words: &[&str]) -> String {
    let out = Command::new(program).args(words).stdin(Stdio::null()).output().await.unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(out.status.success(), "{program}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

impl Pool {
    /// One whose guests have so long to obey their power button.
    async fn new(qemu: bool, wait: Duration) -> Self {
        let mut server = Server::start(&Settings::default()).await.unwrap();
        if qemu {
            let guest = Guest::kept().unwrap_or_else(|why| panic!("{why}"));
            server.boot(Box::new(Qemu::new(guest).unwrap()), wait).unwrap();
        } else {
            server.boot(Box::new(Sshd::new("a test wants it").unwrap()), wait).unwrap();
        }
        let client = patient(&server, PATIENCE);
        let watch = Watch::begin(client.clone(), &["VM", "VM_guest_metrics"]).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let key = folder.path().join("mine");
        run("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-C", "", "-f", key.to_str().unwrap()]).await;
        Self { server, client, watch, folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    async fn call(&self, method: &str, params: Vec<Value>) -> String {
        let answer = self.client.call(method, params).await.unwrap_or_else(|error| panic!("{method}: {error}"));
        answer.as_str().unwrap_or_default().to_owned()
    }

    /// A VM of a template with a seed that lets our key in.
    async fn made(&self, template: &str, name: &str) -> String {
        let found: Vec<String> = self.client.get("VM.get_by_name_label", vec![template.into()]).await.unwrap();
        let vm = self.call("VM.clone", vec![found[0].clone().into(), name.into()]).await;
        self.call("VM.provision", vec![vm.clone().into()]).await;
        let seed = seed(self.folder.path(), name).await;
        let repositories: Vec<String> = self.client.get("SR.get_by_name_label", vec!["Local storage".into()]).await.unwrap();
        let size = fs::metadata(&seed).unwrap().len();
        let vdi = json!({"name_label": "seed", "SR": repositories[0], "virtual_size": size, "type": "user", "sharable": false, "read_only": false, "other_config": {}});
        let vdi = self.call("VDI.create", vec![vdi]).await;
        fs::copy(&seed, self.server.sim.disk(&vdi).unwrap()).unwrap();
        let vbd = json!({
            "VM": vm, "VDI": vdi, "userdevice": "autodetect", "bootable": false, "mode": "RO", "type": "Disk", "empty": false, "unpluggable": true,
            "other_config": {}, "qos_algorithm_type": "", "qos_algorithm_params": {},
        });
        self.call("VBD.create", vec![vbd]).await;
        vm
    }

    async fn start(&self, vm: &str) {
        self.call("VM.start", vec![vm.into(), false.into(), false.into()]).await;
    }

    fn record(&self, vm: &str) -> Vm {
        self.watch.cache().get("VM", vm).unwrap().read().unwrap()
    }

    /// What the metrics of a VM say once this is so.
    async fn until(&mut self, what: &str, vm: &str, so: impl Fn(&Vm, &Value) -> bool) -> (Vm, Value) {
        let waiting = async {
            loop {
                // It may not have been heard of yet.
                if self.watch.cache().get("VM", vm).is_some() {
                    let record = self.record(vm);
                    let metrics = self.watch.cache().get("VM_guest_metrics", record.guest_metrics.as_str());
                    let metrics = metrics.map(Record::value).unwrap_or_default();
                    if so(&record, &metrics) {
                        return (record, metrics);
                    }
                }
                self.watch.next().await.unwrap();
            }
        };
        timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("{what}: it never came"))
    }

    /// Where it is once it is there.
    async fn address(&mut self, vm: &str) -> (String, String) {
        let (record, metrics) = self.until("an address", vm, |_, metrics| metrics["networks"]["0/ip"].is_string()).await;
        (metrics["networks"]["0/ip"].as_str().unwrap().to_owned(), record.other_config["vmoon:ssh-port"].clone())
    }

    async fn state(&mut self, vm: &str, state: &str) {
        self.until(state, vm, |record, _| format!("{:?}", record.power_state) == state).await;
    }

    /// What a command over SSH says; an error if nobody lets us in.
    async fn ssh(&self, (address, port): &(String, String), user: &str, command: &str) -> Result<String, String> {
        let (known, key) = (self.path("known"), self.path("mine"));
        let mut ssh = Command::new("ssh");
        ssh.args(["-F", "none", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no", "-o", "ConnectTimeout=20", "-p", port]);
        ssh.arg("-o")
            .arg(format!("UserKnownHostsFile={}", known.display()))
            .arg("-i")
            .arg(key)
            .args([&format!("{user}@{address}"), command]);
        let out = ssh.stdin(Stdio::null()).output().await.unwrap();
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        if out.status.success() { Ok(text) } else { Err(String::from_utf8_lossy(&out.stderr).into_owned()) }
    }
}

async fn seed(folder: &Path, name: &str) -> PathBuf {
    let files = folder.join(format!("{name}-seed"));
    fs::create_dir_all(&files).unwrap();
    let key = fs::read_to_string(folder.join("mine.pub")).unwrap();
    let config = json!({"hostname": name, "users": [{"name": "lua", "ssh_authorized_keys": [key.trim()]}]});
    fs::write(files.join("user-data"), format!("#cloud-config\n{config:#}\n")).unwrap();
    fs::write(files.join("meta-data"), json!({"instance-id": name}).to_string()).unwrap();
    let image = files.with_extension("iso");
    let words =
        ["-as", "mkisofs", "-quiet", "-volid", "cidata", "-joliet", "-rock", "-o", image.to_str().unwrap(), files.to_str().unwrap()];
    run("xorriso", &words).await;
    image
}

/// A console of a VM.
async fn console(pool: &Pool, vm: &str, protocol: &str) -> Console {
    for console in pool.record(vm).consoles {
        let record: Value = pool.client.get("console.get_record", vec![console.into()]).await.unwrap();
        if record["protocol"] == protocol {
            return pool.client.console(record["location"].as_str().unwrap()).await.unwrap();
        }
    }
    panic!("no console {protocol}");
}

#[tokio::test]
async fn from_a_template_to_a_shell_and_all_that_is_done_to_it() {
    let mut pool = Pool::new(true, PATIENCE).await;
    let vm = pool.made("guest", "moon").await;
    pool.start(&vm).await;
    let place = pool.address(&vm).await;
    assert_eq!(pool.ssh(&place, "lua", "hostname; lua -e 'print(6 * 7)'").await.unwrap(), "moon\n42\n");

    // Its consoles: the serial one with what it has said, and a screen.
    let mut near = console(&pool, &vm, "vt100").await;
    near.write_all(b"echo it is $((40 + 2))\n").await.unwrap();
    near.flush().await.unwrap();
    let mut seen = String::new();
    while !seen.contains("it is 42") {
        let mut bytes = [0; 1024];
        let count = timeout(PATIENCE, near.read(&mut bytes)).await.unwrap().unwrap();
        seen.push_str(&String::from_utf8_lossy(&bytes[..count]));
    }
    assert!(seen.contains("GUEST READY moon"), "{seen}");
    drop(near);
    let mut near = console(&pool, &vm, "rfb").await;
    let mut greeting = [0; 12];
    timeout(PATIENCE, near.read_exact(&mut greeting)).await.unwrap().unwrap();
    assert_eq!(&greeting, b"RFB 003.008\n");
    drop(near);

    // Memory and disk of one moment.
    pool.ssh(&place, "lua", "echo before > note; sync; echo before > /tmp/note").await.unwrap();
    let snapshot = pool.call("VM.checkpoint", vec![vm.clone().into(), "kept".into()]).await;
    pool.ssh(&place, "lua", "echo after > note; sync; echo after > /tmp/note").await.unwrap();
    pool.call("VM.suspend", vec![vm.clone().into()]).await;
    pool.state(&vm, "Suspended").await;
    assert!(pool.ssh(&place, "lua", "true").await.is_err());
    let resume = vec![vm.clone().into(), false.into(), false.into()];
    pool.call("VM.resume", resume.clone()).await;
    let place = pool.address(&vm).await;
    assert_eq!(pool.ssh(&place, "lua", "cat note /tmp/note").await.unwrap(), "after\nafter\n");
    pool.call("VM.revert", vec![snapshot.into()]).await;
    pool.state(&vm, "Suspended").await;
    pool.call("VM.resume", resume).await;
    let place = pool.address(&vm).await;
    assert_eq!(pool.ssh(&place, "lua", "cat note /tmp/note").await.unwrap(), "before\nbefore\n");

    // Standing still, it does not answer; going on, it does.
    pool.call("VM.pause", vec![vm.clone().into()]).await;
    let quick = timeout(Duration::from_secs(2), pool.ssh(&place, "lua", "true"));
    assert!(quick.await.is_err());
    pool.call("VM.unpause", vec![vm.clone().into()]).await;
    pool.ssh(&place, "lua", "true").await.unwrap();

    // What is on its disk outlives a reboot, what is in memory does not.
    let life = pool.record(&vm).guest_metrics;
    pool.call("VM.clean_reboot", vec![vm.clone().into()]).await;
    pool.until("another life", &vm, |record, _| record.guest_metrics != life && !record.guest_metrics.is_null()).await;
    let place = pool.address(&vm).await;
    assert_eq!(pool.ssh(&place, "lua", "cat note; ls /tmp").await.unwrap(), "before\n");

    pool.call("VM.clean_shutdown", vec![vm.clone().into()]).await;
    pool.state(&vm, "Halted").await;
    assert!(pool.ssh(&place, "lua", "true").await.is_err());
    pool.server.stop().await;
}

#[tokio::test]
async fn guests_have_faults_and_wills_of_their_own() {
    let mut pool = Pool::new(true, Duration::from_secs(3)).await;
    let (deaf, bare) = (pool.made("guest-deaf", "deaf").await, pool.made("guest-nossh", "bare").await);
    let nowhere = pool.made("guest-noip", "nowhere").await;
    for vm in [&deaf, &bare, &nowhere] {
        pool.start(vm).await;
    }
    let place = pool.address(&bare).await;
    assert!(pool.ssh(&place, "lua", "true").await.is_err(), "the port is closed");
    let (_, metrics) = pool.until("tools", &nowhere, |_, metrics| metrics["PV_drivers_version"]["major"].is_string()).await;
    assert_eq!(metrics["networks"], json!({}), "it has tools and no address");

    let place = pool.address(&deaf).await;
    let refused = pool.client.call("VM.clean_shutdown", vec![deaf.clone().into()]).await.unwrap_err();
    assert_eq!(refused.failure().unwrap().code, "VM_FAILED_SHUTDOWN_ACKNOWLEDGMENT");
    pool.ssh(&place, "lua", "true").await.unwrap();
    pool.call("VM.hard_shutdown", vec![deaf.clone().into()]).await;
    pool.state(&deaf, "Halted").await;

    // One that switches itself off is seen to be off.
    let mut near = console(&pool, &nowhere, "vt100").await;
    near.write_all(b"poweroff -f\n").await.unwrap();
    near.flush().await.unwrap();
    pool.state(&nowhere, "Halted").await;
    pool.server.stop().await;
}

#[tokio::test]
async fn where_nothing_boots_there_are_private_servers_that_say_so() {
    let mut pool = Pool::new(false, PATIENCE).await;
    let vm = pool.made("guest", "moon").await;
    pool.start(&vm).await;
    let place = pool.address(&vm).await;
    let me = run("id", &["-un"]).await;
    assert_eq!(pool.ssh(&place, me.trim(), "lua5.4 -e 'print(6 * 7)'").await.unwrap(), "42\n");
    let all: Value = pool.client.get("pool.get_all_records", vec![]).await.unwrap();
    assert!(all.to_string().contains("because nothing can boot here: a test wants it"), "{all}");
    let suspend = pool.client.call("VM.suspend", vec![vm.clone().into()]).await.unwrap_err();
    assert!(suspend.is("VM_LACKS_FEATURE"), "{suspend}");
    let allowed: Vec<String> = pool.client.get("VM.get_allowed_operations", vec![vm.clone().into()]).await.unwrap();
    assert!(
        allowed.contains(&"clean_shutdown".into()) && !allowed.iter().any(|one| one == "suspend" || one == "checkpoint"),
        "{allowed:?}"
    );
    // What goes on without its connection ends with the machine all the same.
    let orphan = pool.ssh(&place, me.trim(), "setsid sleep 600 >/dev/null 2>&1 </dev/null & echo $!").await.unwrap();
    let orphan = std::path::Path::new("/proc").join(orphan.trim());
    assert!(orphan.exists());
    pool.call("VM.clean_shutdown", vec![vm.clone().into()]).await;
    pool.state(&vm, "Halted").await;
    assert!(pool.ssh(&place, me.trim(), "true").await.is_err());
    while orphan.exists() {
        tokio::task::yield_now().await;
    }
}
