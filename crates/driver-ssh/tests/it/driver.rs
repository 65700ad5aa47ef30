//! What the driver says of a host, and what it refuses.

use std::time::Duration;
use tokio::time::timeout;
use vmoon_core::{
    Code, MachineId, OperationId,
    ability::{Changed, Program},
    driver::{Channel, ChannelKind, Driver, Handle, LinkItem, Observed, Offset, StopMode, Verdict},
    frame::{Frame, tag},
    machine::Verb,
    operation::OpRecord,
    spec::MachineSpec,
};
use vmoon_driver_ssh::{SshConfig, SshDriver};
use vmoon_remote::Auth;
use vmoon_ssh_lab::{Lab, Tools, me};
use vmoon_sys::{login::Login, random};

pub(crate) fn config(lab: &Lab) -> SshConfig {
    SshConfig {
        id: "lab".into(),
        uri: format!("{}@127.0.0.1:{}", me(), lab.place.port()),
        user: None,
        auth: Auth { identities: vec![lab.identity()], ..Auth::default() },
        pins: vec![lab.fingerprint()],
        user_files: false,
        login: Login::default(),
        lua: None,
        environments: None,
    }
}

async fn channels(driver: &SshDriver, handle: &Handle) -> Vec<Channel> {
    match driver.observe(handle).await.observed {
        Observed::On(channels) => channels,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_host_is_one_machine_that_only_has_sessions() {
    let lab = Lab::new(Tools::BusyBox, "lua5.4").await;
    let driver = SshDriver::new(config(&lab)).expect("a driver");
    let greeting = driver.test().await.expect("a host");
    assert!(greeting.user == me() && greeting.lua.is_some_and(|lua| lua.ends_with("/bin/lua")));
    assert_eq!(driver.probe().await[0].verdict, Verdict::Ok);
    let found = driver.list().await.expect("a list");
    assert_eq!((found.len(), found[0].name.as_str(), found[0].id), (1, "127.0.0.1", None));
    let handle = &found[0].handle;
    let names: Vec<(String, ChannelKind)> = channels(&driver, handle).await.into_iter().map(|c| (c.name, c.kind)).collect();
    assert_eq!(names, [("main".into(), ChannelKind::Repl), ("shell".into(), ChannelKind::Terminal)]);
    for refused in [
        driver.start(handle).await.expect_err("start"),
        driver.stop(handle, StopMode::Polite).await.expect_err("stop"),
        driver.stop(handle, StopMode::Force).await.expect_err("kill"),
        driver.delete(handle).await.expect_err("delete"),
    ] {
        assert_eq!(refused.code(), Code::DriverUnsupported);
        assert!(refused.message().starts_with("machines of kind ssh cannot be "), "{refused}");
    }
    let facts = driver.facts().await.expect("facts");
    let problems = driver.plan("x", &MachineSpec { kind: "ssh".into(), ..MachineSpec::default() }, &facts).expect_err("a plan");
    assert_eq!(problems.0[0].code, Some(Code::DriverUnsupported));
    let id = MachineId::from_uuid(random::uuid());
    let op = OpRecord::new(OperationId::from_uuid(random::uuid()), Verb::Create, id, 0, Duration::ZERO);
    assert!(driver.recover(&op, &[]).await.is_ok());
    assert_eq!(driver.observe(&Handle("{}".into())).await.observed, Observed::Missing);
    let program =
        Program { argv: vec!["sh".into(), "-c".into(), "echo $0; exit 3".into(), "it's".into()], stdin: vec![], deadline_ms: 10_000 };
    let ended = driver.exec().expect("exec").exec(handle, &program).await.expect("a program");
    assert_eq!((ended.code, ended.stdout.as_slice()), (Some(3), &b"it's\n"[..]));
    let addresses = driver.addresses().expect("addresses").addresses(handle).await.expect("addresses");
    assert_eq!(addresses[0].ip, "127.0.0.1");
    assert_eq!(driver.describe(handle).await["link"], "connected");
    let no_such = Channel { name: "serial".into(), kind: ChannelKind::Terminal, life: 1 };
    assert_eq!(driver.open(handle, &no_such, 0).await.err().map(|error| error.code()), Some(Code::SessionChannel));
    assert_eq!(SshDriver::new(SshConfig { uri: "a b".into(), ..config(&lab) }).err().map(|error| error.code()), Some(Code::Usage));
    assert_eq!(SshDriver::new(SshConfig { id: "../x".into(), ..config(&lab) }).err().map(|error| error.code()), Some(Code::NameInvalid));
}

#[tokio::test]
async fn a_host_that_cannot_be_asked_is_unreachable_and_comes_back() {
    let lab = Lab::new(Tools::BusyBox, "lua5.4").await;
    let driver = SshDriver::new(config(&lab)).expect("a driver");
    let mut notices = driver.watch().expect("notices");
    let handle = driver.list().await.expect("a list")[0].handle.clone();
    assert_eq!(notices.next().await, Some(Changed::All));
    lab.cut();
    timeout(Duration::from_secs(20), notices.next()).await.expect("a notice of the loss");
    assert!(!channels(&driver, &handle).await.is_empty(), "it is there again");
    let mut wrong = config(&lab);
    wrong.pins = vec!["SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA".into()];
    let wrong = SshDriver::new(wrong).expect("a driver");
    assert_eq!(wrong.observe(&handle).await.observed, Observed::Unreachable);
    assert_eq!(wrong.test().await.expect_err("another key").code(), Code::ConnectionUntrusted);
    assert!(wrong.describe(&handle).await["link"].as_str().is_some_and(|link| link.contains("has changed")));
    let mut nobody = config(&lab);
    nobody.uri = "x@127.0.0.1:1".into();
    let nobody = SshDriver::new(nobody).expect("a driver");
    assert_eq!(nobody.observe(&handle).await.observed, Observed::Unreachable);
}

#[tokio::test]
async fn a_shell_has_lives_and_does_not_come_back() {
    let lab = Lab::new(Tools::System, "lua5.4").await;
    let driver = SshDriver::new(config(&lab)).expect("a driver");
    let handle = driver.list().await.expect("a list")[0].handle.clone();
    let shell = channels(&driver, &handle).await.remove(1);
    let mut link = driver.open(&handle, &shell, 0).await.expect("a shell");
    link.writer.send(Frame { tag: tag::INPUT, id: 0, payload: b"exit 4\n" }).await.expect("keys");
    let mut end: Offset = 0;
    let mut buf = Vec::new();
    loop {
        match timeout(Duration::from_secs(20), link.reader.next(&mut buf)).await.expect("in time").expect("an item") {
            LinkItem::Stream { at } => {
                assert_eq!(at, end);
                end += buf.len() as u64;
            }
            LinkItem::Ended(exit) => break assert_eq!(exit, vmoon_core::driver::Exit::Code { code: 4 }),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(driver.open(&handle, &shell, end).await.err().map(|error| error.code()), Some(Code::SessionEnded));
    let next = channels(&driver, &handle).await.remove(1);
    assert!(next.life > shell.life);
    // After a restart of the daemon, nobody holds a shell that had begun.
    let again = SshDriver::new(config(&lab)).expect("a driver");
    assert_eq!(again.open(&handle, &next, 5).await.err().map(|error| error.code()), Some(Code::SessionEnded));
}
