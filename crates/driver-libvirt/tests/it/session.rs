//! Users without privileges: machines of their own session, and a socket that is closed to them. The tests run themselves again as the user nobody.

use super::{
    place::{Place, created},
    terminal::PATIENCE,
};
use serde_json::json;
use std::{
    env, fs,
    os::unix::fs::{PermissionsExt as _, chown},
    path::Path,
    process::{Child, Command, Stdio},
};
use vmoon_core::{
    Code,
    driver::{Driver, Observed, Verdict},
};
use vmoon_driver_libvirt::{LibvirtConfig, LibvirtDriver};
use vmoon_libvirt_wire::{Client, Options, UnixSocket, flags::PoolStart};

/// The user nobody of Debian.
const NOBODY: u32 = 65_534;
/// What the test that runs as nobody is to do.
const TASK: &str = "VMOON_TEST_AS_NOBODY";

/// Runs [`as_nobody`] as the user nobody, with a home of its own.
fn run_as_nobody(dir: &Path, task: &str) {
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).unwrap();
    let exe = dir.join("tests");
    fs::copy(env::current_exe().unwrap(), &exe).unwrap();
    for folder in ["home", "run"] {
        fs::create_dir(dir.join(folder)).unwrap();
        chown(dir.join(folder), Some(NOBODY), Some(NOBODY)).unwrap();
        fs::set_permissions(dir.join(folder), fs::Permissions::from_mode(0o700)).unwrap();
    }
    let id = NOBODY.to_string();
    let output = Command::new("setpriv")
        .args(["--reuid", &id, "--regid", &id, "--clear-groups"])
        .arg(exe)
        .args(["--exact", "session::as_nobody", "--nocapture"])
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("HOME", dir.join("home"))
        .env("XDG_RUNTIME_DIR", dir.join("run"))
        .env(TASK, task)
        .current_dir("/")
        .output()
        .expect("setpriv of util-linux is there");
    assert!(output.status.success(), "{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
}

/// Does nothing unless it was started by one of the tests below.
#[tokio::test]
async fn as_nobody() {
    match env::var(TASK).unwrap_or_default().split_once(' ') {
        Some(("session", _)) => session().await,
        Some(("denied", socket)) => denied(socket).await,
        _ => {}
    }
}

/// A daemon that ends with its test.
struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn session() {
    let home = env::var("HOME").unwrap();
    let runtime = env::var("XDG_RUNTIME_DIR").unwrap();
    let config = Path::new(&home).join(".config/libvirt");
    fs::create_dir_all(&config).unwrap();
    // Without a log daemon that would outlive the test.
    fs::write(config.join("qemu.conf"), "stdio_handler = \"file\"\n").unwrap();
    let driver = LibvirtDriver::connect(&LibvirtConfig {
        uri: "qemu:///session".into(),
        runtime: Some(runtime.clone().into()),
        ..LibvirtConfig::default()
    });
    let driver = driver.unwrap();
    let absent = driver.list().await.unwrap_err();
    assert!(absent.code() == Code::DriverUnreachable && absent.hint_text().is_some(), "{}", absent.chain());
    let checks = driver.probe().await;
    assert!(checks.len() == 1 && checks[0].verdict == Verdict::Fail && !checks[0].fix.is_empty(), "{checks:?}");

    let daemon = Command::new("libvirtd").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let _daemon = Daemon(daemon.expect("libvirtd is there: cargo xtask install"));
    let mut notices = driver.watch().unwrap();
    tokio::time::timeout(PATIENCE, notices.next()).await.expect("the session's libvirtd answers").unwrap();

    let images = Path::new(&home).join("images");
    fs::create_dir(&images).unwrap();
    let socket = UnixSocket::places(Some(Path::new(&runtime))).remove(0);
    // The same session by another URI is known to be the same.
    let other = LibvirtConfig { uri: format!("qemu+unix:///session?socket={}", socket.display()), ..LibvirtConfig::default() };
    let identity = driver.identity().await;
    assert!(identity.is_some() && identity == LibvirtDriver::connect(&other).unwrap().identity().await, "{identity:?}");
    let client = Client::connect(UnixSocket(socket), "qemu:///session", Options::default()).await.unwrap();
    let xml = format!("<pool type='dir'><name>default</name><target><path>{}</path></target></pool>", images.display());
    let pool = client.pool_define(&xml).await.unwrap();
    client.pool_start(&pool, PoolStart::NONE).await.unwrap();

    // The template's network is none of a session: the machine gets its user's, and the plan says so.
    let settings = json!({"memory": "64MiB", "cpus": 1, "disk": "16MiB", "firmware": "bios", "accelerator": "tcg", "user": "ada"});
    let handle = created(&driver, "mine", settings).await;
    driver.start(&handle).await.unwrap_or_else(|error| panic!("{}", error.chain()));
    assert!(matches!(driver.observe(&handle).await.observed, Observed::On(_)));
    driver.delete(&handle).await.unwrap();
    assert_eq!(fs::read_dir(&images).unwrap().count(), 0);
    for check in driver.probe().await {
        assert_ne!(check.verdict, Verdict::Fail, "{check:?}");
    }
}

async fn denied(socket: &str) {
    let config = LibvirtConfig { uri: format!("qemu+unix:///system?socket={socket}"), ..LibvirtConfig::default() };
    let driver = LibvirtDriver::connect(&config).unwrap();
    let error = driver.list().await.unwrap_err();
    assert_eq!(error.code(), Code::ConnectionPermission, "{}", error.chain());
    assert!(error.hint_text().is_some_and(|hint| hint.contains("group libvirt")), "{:?}", error.hint_text());
    let checks = driver.probe().await;
    assert!(checks[0].verdict == Verdict::Fail && checks[0].fix.contains("usermod"), "{checks:?}");
}

#[test]
fn machines_of_a_session_need_no_privileges() {
    let dir = tempfile::tempdir().unwrap();
    run_as_nobody(dir.path(), "session -");
}

#[tokio::test]
async fn who_may_not_enter_learns_how() {
    let place = Place::new().await;
    for folder in ["", "run", "run/libvirt"] {
        fs::set_permissions(place.lab.path().join(folder), fs::Permissions::from_mode(0o755)).unwrap();
    }
    fs::set_permissions(place.lab.socket(), fs::Permissions::from_mode(0o600)).unwrap();
    let dir = tempfile::tempdir().unwrap();
    run_as_nobody(dir.path(), &format!("denied {}", place.lab.socket().display()));
}
