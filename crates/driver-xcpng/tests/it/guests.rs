//! Sessions, programs, consoles and screens of guests, at a private SSH server that stands for each VM, on this very computer.

use crate::{
    driver_with,
    machines::{client, make},
    ring,
};
use serde_json::{Value, json};
use std::time::Duration;
use tempfile::TempDir;
use tokio::{io::AsyncReadExt as _, net::UnixStream, time::timeout};
use vmoon_core::{
    Code,
    ability::{NewSnapshot, Program},
    driver::{Channel, ChannelKind, Driver, Handle, LinkItem, Observed},
    frame::{Eval, Frame, tag},
};
use vmoon_driver_xcpng::XcpngDriver;
use vmoon_guest::{Config, Guests};
use vmoon_sys::login::Login;
use vmoon_xapi_sim::{Server, Settings, machines::Sshd};

const PATIENCE: Duration = Duration::from_secs(60);

struct Lab {
    server: Server,
    driver: XcpngDriver,
    folder: TempDir,
    user: String,
}

async fn lab() -> Lab {
    let mut server = Server::start(&Settings { tools: Duration::ZERO, ..Settings::default() }).await.unwrap();
    server.boot(Box::new(Sshd::new("a test wants it").unwrap_or_else(|why| panic!("{why}; run cargo xtask install"))), PATIENCE).unwrap();
    // The paths of sockets must stay short.
    let folder = tempfile::Builder::new().prefix("xd").tempdir_in("/tmp").unwrap();
    let login = Login { home: Some(folder.path().into()), ..Login::from_env() };
    let user = login.user.clone().unwrap_or_else(|| "root".into());
    let guests = Guests::new(Config { dir: folder.path().join("guests"), connection: "lab".into(), login, environments: None });
    let driver = driver_with(&server, ring(&server), Some(guests), Some(folder.path().into()));
    Lab { server, driver, folder, user }
}

impl Lab {
    async fn running(&self, name: &str, template: &str, given: Value) -> Handle {
        let mut all = json!({ "template": template, "user": self.user });
        all.as_object_mut().unwrap().extend(given.as_object().cloned().unwrap());
        let (_, handle) = make(&self.driver, name, all).await.unwrap();
        self.driver.start(&handle).await.unwrap();
        handle
    }

    /// Waits for its address: the pool tells when something changes.
    async fn address(&self, handle: &Handle) {
        let mut notices = self.driver.watch().unwrap();
        let waiting = async {
            while self.driver.addresses().unwrap().addresses(handle).await.unwrap().is_empty() {
                let _ = timeout(Duration::from_millis(200), notices.next()).await;
            }
        };
        timeout(PATIENCE, waiting).await.expect("it never has an address");
    }

    async fn channels(&self, handle: &Handle) -> Vec<Channel> {
        match self.driver.observe(handle).await.observed {
            Observed::On(channels) => channels,
            other => panic!("{other:?}"),
        }
    }
}

fn program(words: &[&str]) -> Program {
    Program { argv: words.iter().map(|word| (*word).to_owned()).collect(), stdin: Vec::new(), deadline_ms: 30_000 }
}

#[tokio::test]
async fn a_guest_of_ours_is_entered_with_our_key_and_known_by_its_own() {
    let lab = lab().await;
    let handle = lab.running("moon", "guest", json!({})).await;
    let channels = lab.channels(&handle).await;
    let names: Vec<&str> = channels.iter().map(|channel| channel.name.as_str()).collect();
    assert_eq!(names, ["main", "shell", "serial"]);
    assert!(lab.driver.abilities(&handle).eval);
    lab.address(&handle).await;
    let ended = lab.driver.exec().unwrap().exec(&handle, &program(&["printf", "%s", "a b"])).await.unwrap();
    assert_eq!((ended.code, ended.stdout.as_slice()), (Some(0), &b"a b"[..]));
    // Lua in it: what was set stays, also for whoever comes back.
    let main = &channels[0];
    let mut link = lab.driver.open(&handle, main, 0).await.unwrap();
    let mut buf = Vec::new();
    let mut at = 0;
    for (id, code, wanted) in [(1, "x = 42", ""), (2, "return x", "42")] {
        let eval = Eval { deadline_ms: 0, token: b"", code: code.as_bytes() }.to_vec();
        link.writer.send(Frame { tag: tag::EVAL, id, payload: &eval }).await.unwrap();
        let mut values = String::new();
        let waiting = async {
            'all: loop {
                match link.reader.next(&mut buf).await.unwrap() {
                    LinkItem::Stream { at: begins } => {
                        at = begins + buf.len() as u64;
                        let mut rest = &buf[..];
                        while let Ok(Some((frame, used))) = Frame::decode(rest) {
                            if frame.tag == tag::VALUES && frame.id == id {
                                values = String::from_utf8_lossy(frame.payload).into_owned();
                            }
                            if frame.tag == tag::DONE && frame.id == id {
                                break 'all;
                            }
                            rest = &rest[used..];
                        }
                    }
                    LinkItem::Direct => {}
                    other => panic!("{other:?}"),
                }
            }
        };
        timeout(PATIENCE, waiting).await.expect("no answer");
        assert!(values.contains(wanted), "{values:?}");
    }
    assert!(at > 0);
    drop(link);
    let facts = lab.driver.describe(&handle).await;
    assert_eq!(facts["ssh_user"], lab.user.as_str());
    assert!(facts["ssh_fingerprint"].as_str().unwrap().starts_with("SHA256:"));
    // Deleted, it is forgotten with its seed.
    lab.driver.delete(&handle).await.unwrap();
    assert!(!lab.driver.abilities(&handle).eval);
    assert!(!lab.server.sim.names("VDI").iter().any(|name| name.contains("seed")));
}

#[tokio::test]
async fn a_copy_is_entered_as_its_original_is() {
    let lab = lab().await;
    let (_, handle) = make(&lab.driver, "moon", json!({"template": "guest", "user": lab.user})).await.unwrap();
    let clones = lab.driver.clones().unwrap();
    let plan = clones.plan("twin", &handle).await.unwrap();
    assert!(plan.steps.iter().any(|step| step.contains("enter it as moon is entered")), "{:?}", plan.steps);
    let id = "01890000-0000-7000-8000-000000000301".parse().unwrap();
    let copy = lab.driver.create(id, &plan, &crate::machines::Quiet).await.unwrap();
    lab.driver.start(&copy).await.unwrap();
    lab.address(&copy).await;
    // Its server shows the key of the seed: no other would be believed.
    let ended = lab.driver.exec().unwrap().exec(&copy, &program(&["printf", "%s", "twin"])).await.unwrap();
    assert_eq!((ended.code, ended.stdout.as_slice()), (Some(0), &b"twin"[..]));
    lab.driver.delete(&copy).await.unwrap();
    assert!(!lab.driver.abilities(&copy).eval && lab.driver.abilities(&handle).eval);
    // Of one that nobody enters nothing is inherited, and that is said.
    let (_, dark) = make(&lab.driver, "dark", json!({"template": "guest"})).await.unwrap();
    let plan = clones.plan("night", &dark).await.unwrap();
    assert!(plan.steps.iter().any(|step| step.contains("vmoon set night ssh-user=USER")), "{:?}", plan.steps);
    assert!(!plan.steps.iter().any(|step| step.contains("the seed")), "{:?}", plan.steps);
}

#[tokio::test]
async fn one_that_is_not_to_be_entered_offers_no_session_until_that_is_said() {
    let lab = lab().await;
    let handle = lab.running("dark", "guest", json!({"ssh": "no"})).await;
    let names = |channels: Vec<Channel>| channels.into_iter().map(|channel| channel.name).collect::<Vec<_>>();
    assert_eq!(names(lab.channels(&handle).await), ["serial"]);
    let error = lab.driver.exec().unwrap().exec(&handle, &program(&["true"])).await.unwrap_err();
    assert!(error.to_record().hint.unwrap_or_default().contains("ssh-user"), "{error}");
    let said = crate::settings(json!({"ssh-user": "ada", "ssh-port": 2222}));
    let planned = lab.driver.tune().unwrap().tune(&handle, &said, true).await.unwrap();
    assert_eq!(planned.len(), 2);
    assert_eq!(names(lab.channels(&handle).await), ["serial"], "it was only planned");
    lab.driver.tune().unwrap().tune(&handle, &said, false).await.unwrap();
    assert_eq!(names(lab.channels(&handle).await), ["main", "shell", "serial"]);
}

/// Nothing has a memory here that could be kept, and who asks is told so in words.
#[tokio::test]
async fn one_that_cannot_be_suspended_says_so() {
    let lab = lab().await;
    let handle = lab.running("restless", "guest", json!({})).await;
    lab.address(&handle).await;
    let facts = lab.driver.describe(&handle).await;
    let allowed: Vec<&str> = facts["allowed"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert!(allowed.contains(&"snapshot") && !allowed.contains(&"suspend") && !allowed.contains(&"checkpoint"), "{allowed:?}");
    let snapshot = |memory| NewSnapshot { name: "now".into(), memory };
    for error in [
        lab.driver.suspend().unwrap().suspend(&handle).await.unwrap_err(),
        lab.driver.snapshots().unwrap().create(&handle, &snapshot(Some(true))).await.unwrap_err(),
    ] {
        assert!(error.code() == Code::GuestAgent && error.to_string().contains("takes no part in being suspended"), "{error}");
        assert!(error.hint_text().unwrap().contains("vmoon pause"));
    }
    assert!(matches!(lab.driver.observe(&handle).await.observed, Observed::On(_)), "it runs on");
    lab.driver.snapshots().unwrap().create(&handle, &snapshot(None)).await.unwrap();
}

#[tokio::test]
async fn a_closed_port_and_no_address_are_told_as_what_they_are() {
    let lab = lab().await;
    let closed = lab.running("closed", "guest-nossh", json!({})).await;
    lab.address(&closed).await;
    let error = lab.driver.exec().unwrap().exec(&closed, &program(&["true"])).await.unwrap_err();
    assert_eq!(error.code(), Code::DriverUnreachable, "{error}");
    // Where its SSH server would be is known all the same: at the port that was said for it.
    let pool = client(&lab.server);
    let vm: Vec<String> = pool.get("VM.get_by_name_label", vec!["closed".into()]).await.unwrap();
    for (method, more) in [("VM.remove_from_other_config", vec![]), ("VM.add_to_other_config", vec!["2222".into()])] {
        pool.call(method, [vec![vm[0].clone().into(), "vmoon:ssh-port".into()], more].concat()).await.unwrap();
    }
    let places = lab.driver.addresses().unwrap().ssh(&closed).await.unwrap().unwrap();
    assert!(!places.is_empty() && places.iter().all(|(_, port)| *port == 2222), "{places:?}");
    let nowhere = lab.running("nowhere", "guest-mute", json!({})).await;
    let mut notices = lab.driver.watch().unwrap();
    let waiting = async {
        // Until its tools have come up nothing is known of it.
        loop {
            let why = lab.driver.addresses().unwrap().missing(&nowhere).await.unwrap().unwrap();
            if why.contains("no lease") || why.contains("no network interface") {
                break;
            }
            assert!(why.contains("no guest tools"), "{why}");
            notices.next().await;
        }
    };
    timeout(PATIENCE, waiting).await.expect("why it has no address is never known");
    let silent = lab.running("silent", "guest-notools", json!({})).await;
    let why = lab.driver.addresses().unwrap().missing(&silent).await.unwrap().unwrap();
    assert!(why.contains("no guest tools"), "{why}");
    let error = lab.driver.exec().unwrap().exec(&nowhere, &program(&["true"])).await.unwrap_err();
    assert_eq!(error.code(), Code::GuestNoAddress, "{error}");
}

#[tokio::test]
async fn the_text_console_is_a_terminal_and_the_screen_has_a_private_socket() {
    let lab = lab().await;
    let handle = lab.running("screen", "linux-lua", json!({})).await;
    let channels = lab.channels(&handle).await;
    let serial = channels.iter().find(|channel| channel.name == "serial").unwrap();
    assert_eq!(serial.kind, ChannelKind::Terminal);
    let mut link = lab.driver.open(&handle, serial, 0).await.unwrap();
    let (mut buf, mut said) = (Vec::new(), Vec::new());
    let mut typed = false;
    let waiting = async {
        while !String::from_utf8_lossy(&said).contains("hello") {
            match link.reader.next(&mut buf).await.unwrap() {
                LinkItem::Stream { .. } => {
                    let mut rest = &buf[..];
                    while let Ok(Some((frame, used))) = Frame::decode(rest) {
                        if frame.tag == tag::STDOUT {
                            said.extend_from_slice(frame.payload);
                        }
                        rest = &rest[used..];
                    }
                }
                other => panic!("{other:?}"),
            }
            if !std::mem::replace(&mut typed, true) {
                link.writer.send(Frame { tag: tag::INPUT, id: 0, payload: b"hello" }).await.unwrap();
            }
        }
    };
    timeout(PATIENCE, waiting).await.expect("the console says nothing");
    assert!(String::from_utf8_lossy(&said).contains("login:"), "what it said first is there");
    let offers = lab.driver.display().unwrap().offers(&handle).await.unwrap();
    let path = offers[0].uri.strip_prefix("vnc+unix://").unwrap();
    assert!(path.starts_with(lab.folder.path().to_str().unwrap()));
    let mut viewer = UnixStream::connect(path).await.unwrap();
    let mut greeting = [0; 12];
    timeout(PATIENCE, viewer.read_exact(&mut greeting)).await.unwrap().unwrap();
    assert_eq!(&greeting, b"RFB 003.008\n");
    // The machine ends, and so does that life of its console, after all that it had said.
    lab.driver.stop(&handle, vmoon_core::driver::StopMode::Force).await.unwrap();
    assert!(matches!(lab.driver.observe(&handle).await.observed, Observed::Off(_)));
    let waiting = async { while !matches!(link.reader.next(&mut buf).await.unwrap(), LinkItem::Ended(_)) {} };
    timeout(PATIENCE, waiting).await.expect("it does not end");
    assert!(lab.driver.display().unwrap().offers(&handle).await.unwrap().is_empty());
    let error = lab.driver.display().unwrap().screenshot(&handle).await.unwrap_err();
    assert_eq!(error.code(), Code::MachineStopped);
    // What nothing is behind is refused with the reason, at once.
    lab.driver.start(&handle).await.unwrap();
    let error = lab.driver.display().unwrap().screenshot(&handle).await.unwrap_err();
    assert!(error.code() == Code::DriverUnsupported && error.to_string().contains("no machine is behind it"), "{error}");
}
