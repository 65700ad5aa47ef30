//! What the driver makes of machines that end in all the ways there are.

use crate::client::{Client, HOST};
use async_trait::async_trait;
use std::{path::Path, sync::Arc, time::Duration};
use vmoon_core::{
    Code, MachineId, Result,
    driver::{Channel, ChannelKind, Driver, Exit, Handle, Journal, LinkItem, Observed, SessionLink, StopMode},
    frame::{Eval, Frame, tag},
    operation::{Progress, Undo},
    spec::MachineSpec,
};
use vmoon_driver_lua::{LuaConfig, LuaDriver};
use vmoon_sys::process::{Identity, Pidfd};

struct Quiet;

#[async_trait]
impl Journal for Quiet {
    fn progress(&self, _: Progress) {}
    async fn undo(&self, _: Undo) -> Result<()> {
        Ok(())
    }
}

pub(crate) struct World {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) driver: LuaDriver,
}

impl Drop for World {
    fn drop(&mut self) {
        crate::end_holders(self.dir.path());
    }
}

fn driver(state: &Path) -> LuaDriver {
    LuaDriver::new(LuaConfig { state: state.to_owned(), host_exe: HOST.into(), host_args: vec![], environments: None })
}

impl World {
    pub(crate) fn new() -> Self {
        // A path longer than a socket's may be.
        let dir = tempfile::Builder::new().prefix(&"long".repeat(40)).tempdir().unwrap();
        let driver = driver(dir.path());
        Self { dir, driver }
    }

    pub(crate) async fn machine(&self, settings: serde_json::Value) -> (MachineId, Handle) {
        let id = MachineId::from_uuid(uuid::Uuid::now_v7());
        let serde_json::Value::Object(settings) = settings else { panic!() };
        let spec = MachineSpec { kind: "lua".into(), settings, ..MachineSpec::default() };
        let facts = self.driver.facts().await.unwrap();
        let plan = self.driver.plan("m", &spec, &facts).unwrap();
        let handle = self.driver.create(id, &plan, &Quiet).await.unwrap();
        (id, handle)
    }

    pub(crate) fn life(&self, id: MachineId, life: u64) -> std::path::PathBuf {
        self.dir.path().join("run").join(vmoon_sys::process::boot_id()).join(id.to_string()).join(life.to_string())
    }

    pub(crate) fn process(&self, id: MachineId, life: u64) -> Identity {
        let meta: serde_json::Value = vmoon_sys::atomic::read_json(&self.life(id, life).join("meta.json")).unwrap().unwrap();
        serde_json::from_value(meta["process"].clone()).unwrap()
    }

    pub(crate) async fn off(&self, handle: &Handle) -> Option<Exit> {
        match self.driver.observe(handle).await.observed {
            Observed::Off(exit) => exit,
            other => panic!("{other:?}"),
        }
    }
}

fn channel(life: u64) -> Channel {
    Channel { name: "main".into(), kind: ChannelKind::Repl, life }
}

pub(crate) fn kill(process: &Identity) {
    let fd = Pidfd::open(process).unwrap().unwrap();
    fd.send(rustix::process::Signal::KILL).unwrap();
    assert!(fd.wait(Duration::from_secs(10)).unwrap());
}

async fn eval(link: &mut SessionLink, id: u64, code: &str) {
    let payload = Eval { deadline_ms: 0, token: b"", code: code.as_bytes() }.to_vec();
    link.writer.send(Frame { tag: tag::EVAL, id, payload: &payload }).await.unwrap();
}

/// Reads to the end of the link; output bytes, the offset reached, and how it ended.
async fn read_all(link: &mut SessionLink, mut at: u64) -> (Vec<u8>, u64, Exit) {
    let (mut buf, mut out) = (Vec::new(), Vec::new());
    loop {
        match tokio::time::timeout(Duration::from_secs(60), link.reader.next(&mut buf)).await.unwrap().unwrap() {
            LinkItem::Ended(exit) => return (out, at, exit),
            LinkItem::Broken => panic!("the link broke"),
            LinkItem::Direct => {}
            LinkItem::Stream { at: begin } => {
                assert_eq!(begin, at);
                let mut rest = &buf[..];
                while let Some((frame, n)) = Frame::decode(rest).unwrap() {
                    at += frame.stream_len();
                    if frame.tag == tag::STDOUT {
                        out.extend_from_slice(frame.payload);
                    }
                    rest = &rest[n..];
                }
                assert!(rest.is_empty(), "a part of a frame was delivered");
            }
        }
    }
}

const FLOOD: &str = "for i = 1, 300000 do io.write(('%099d\\n'):format(i)) end io.write('up') io.stdout:flush() while true do end";

fn is_prefix_of_flood(out: &[u8]) -> bool {
    out.chunks(100).enumerate().all(|(i, line)| line.len() < 100 || line == format!("{:099}\n", i + 1).as_bytes())
}

#[tokio::test]
async fn what_a_killed_holder_had_said_is_delivered() {
    let world = World::new();
    let (id, handle) = world.machine(serde_json::json!({})).await;
    world.driver.start(&handle).await.unwrap();
    let mut link = world.driver.open(&handle, &channel(1), 0).await.unwrap();
    eval(&mut link, 1, FLOOD).await;
    let mut buf = Vec::new();
    let LinkItem::Stream { at: 0 } = link.reader.next(&mut buf).await.unwrap() else { panic!() };
    drop(link); // nobody reads: it goes to the ring and the spill file
    let life = world.life(id, 1);
    // 300 000 lines of 100 bytes; all but what the ring took is in the file when the last of it is written.
    while std::fs::metadata(life.join("spill")).map_or(0, |file| file.len()) < 28_900_000 {
        tokio::task::yield_now().await;
    }
    kill(&world.process(id, 1));
    assert_eq!(world.off(&handle).await, Some(Exit::Signal { signal: 9 }));
    let mut link = world.driver.open(&handle, &channel(1), 0).await.unwrap();
    assert_eq!(link.last_command, 1);
    let (out, end, exit) = read_all(&mut link, 0).await;
    assert!(out.len() >= 28_900_000 && is_prefix_of_flood(&out), "{}", out.len());
    assert_eq!(exit, Exit::Signal { signal: 9 });
    let again = world.driver.open(&handle, &channel(1), end).await;
    assert_eq!(again.err().unwrap().code(), Code::SessionEnded);
    // The next life has offsets of its own; the old one is still there to be read once.
    world.driver.start(&handle).await.unwrap();
    let mut link = world.driver.open(&handle, &channel(2), 0).await.unwrap();
    eval(&mut link, 1, "os.exit(0)").await;
    assert_eq!(read_all(&mut link, 0).await.2, Exit::Code { code: 0 });
    world.driver.start(&handle).await.unwrap();
    assert!(!world.life(id, 1).exists(), "files of old lives are left");
    world.driver.delete(&handle).await.unwrap();
}

/// A holder is called while it begins. Whoever opens its session hears it there; where somebody else was quicker the next one is a call of its own.
#[tokio::test]
async fn a_session_is_opened_on_the_call_of_its_start_or_without_it() {
    let world = World::new();
    for somebody_else in [false, true] {
        let (id, handle) = world.machine(serde_json::json!({})).await;
        world.driver.start(&handle).await.unwrap();
        let life = world.life(id, 1);
        if somebody_else {
            assert_eq!(Client::at_path(&life, 0).value("1"), "1");
        } else {
            // Nobody can call it any more.
            std::fs::remove_file(life.join("sock")).unwrap();
        }
        let mut link = world.driver.open(&handle, &channel(1), 0).await.unwrap();
        if somebody_else {
            // Its answer was heard there, or nothing any more; in any case the place is taken, and the next one is no call of the start.
            link = world.driver.open(&handle, &channel(1), 0).await.unwrap();
        }
        eval(&mut link, 2, "6 * 7").await;
        let (mut buf, mut values) = (Vec::new(), Vec::new());
        while values.last().is_none_or(|last| last != "42") {
            let LinkItem::Stream { .. } = link.reader.next(&mut buf).await.unwrap() else { continue };
            let mut rest = &buf[..];
            while let Some((frame, n)) = Frame::decode(rest).unwrap() {
                if frame.tag == tag::VALUES {
                    values.push(String::from_utf8_lossy(frame.payload).into_owned());
                }
                rest = &rest[n..];
            }
        }
        assert_eq!(values.len(), if somebody_else { 2 } else { 1 }, "{values:?}");
        drop(link);
        // There was one call, for one who opens it.
        assert_eq!(world.driver.open(&handle, &channel(1), 0).await.is_ok(), somebody_else);
        world.driver.stop(&handle, StopMode::Force).await.unwrap();
    }
}

#[tokio::test]
async fn a_link_survives_the_death_of_its_holder_in_the_middle_of_a_stream() {
    let world = World::new();
    for round in 0..5 {
        let (id, handle) = world.machine(serde_json::json!({})).await;
        world.driver.start(&handle).await.unwrap();
        let mut link = world.driver.open(&handle, &channel(1), 0).await.unwrap();
        eval(&mut link, 1, FLOOD).await;
        let (mut buf, mut out, mut at) = (Vec::new(), Vec::new(), 0);
        while out.len() < round * 3_000_000 {
            let LinkItem::Stream { at: begin } = link.reader.next(&mut buf).await.unwrap() else { continue };
            assert_eq!(begin, at);
            let mut rest = &buf[..];
            while let Some((frame, n)) = Frame::decode(rest).unwrap() {
                at += frame.stream_len();
                if frame.tag == tag::STDOUT {
                    out.extend_from_slice(frame.payload);
                }
                rest = &rest[n..];
            }
            link.writer.send(Frame { tag: tag::ACK, id: 0, payload: &at.to_le_bytes() }).await.unwrap();
        }
        kill(&world.process(id, 1));
        let (rest, _, exit) = read_all(&mut link, at).await;
        out.extend_from_slice(&rest);
        assert_eq!(exit, Exit::Signal { signal: 9 });
        assert!(is_prefix_of_flood(&out), "round {round}");
        world.driver.delete(&handle).await.unwrap();
    }
}

#[tokio::test]
async fn left_overs_of_a_killed_holder_are_ended() {
    let world = World::new();
    let (id, handle) = world.machine(serde_json::json!({ "profile": "trusted" })).await;
    world.driver.start(&handle).await.unwrap();
    let mut link = world.driver.open(&handle, &channel(1), 0).await.unwrap();
    let code = "for _, c in ipairs{'sleep 1000 &', 'setsid sleep 1001 &', '(setsid sh -c \"sleep 1002; true\" &)'} do os.execute(c) end print('up')";
    eval(&mut link, 1, code).await;
    let (mut buf, mut at) = (Vec::new(), 0);
    while !buf.windows(3).any(|part| part == b"up\n") {
        link.reader.next(&mut buf).await.unwrap();
        at += buf.len() as u64;
    }
    let process = world.process(id, 1);
    let mark = format!("VMOON_LIFE={id}/1");
    assert!(vmoon_sys::tree::count(&process, Some(&mark)) >= 3);
    kill(&process);
    assert_eq!(read_all(&mut link, at).await.2, Exit::Signal { signal: 9 });
    assert_eq!(vmoon_sys::tree::count(&process, Some(&mark)), 0);
    world.driver.delete(&handle).await.unwrap();
}

#[tokio::test]
async fn force_ends_a_machine_with_everything_and_says_so() {
    let world = World::new();
    let (id, handle) = world.machine(serde_json::json!({ "ring": "256KiB", "profile": "trusted" })).await;
    world.driver.start(&handle).await.unwrap();
    let mut link = world.driver.open(&handle, &channel(1), 0).await.unwrap();
    eval(&mut link, 1, "os.execute('setsid sleep 1000 &') while true do end").await;
    let mut buf = Vec::new();
    link.reader.next(&mut buf).await.unwrap();
    let process = world.process(id, 1);
    world.driver.stop(&handle, StopMode::Force).await.unwrap();
    assert!(!process.is_alive());
    assert_eq!(vmoon_sys::tree::count(&process, Some(&format!("VMOON_LIFE={id}/1"))), 0);
    assert_eq!(world.off(&handle).await, Some(Exit::Killed));
    assert_eq!(read_all(&mut link, buf.len() as u64).await.2, Exit::Killed);
}

#[tokio::test]
async fn a_failed_start_says_why_and_leaves_no_process() {
    let world = World::new();
    let (_, handle) = world.machine(serde_json::json!({})).await;
    let bad = |exe: &str, args: &[&str]| {
        let host_args = args.iter().map(Into::into).collect();
        LuaDriver::new(LuaConfig { state: world.dir.path().to_owned(), host_exe: exe.into(), host_args, environments: None })
    };
    let error = bad("/no/such/program", &[]).start(&handle).await.unwrap_err();
    assert_eq!(error.code(), Code::DriverFailed);
    let error = bad("/bin/sh", &["-c", "echo 'it is Sunday' >&2; exit 1"]).start(&handle).await.unwrap_err();
    assert!(error.message().contains("it is Sunday"), "{error}");
    let error = bad("/bin/sh", &["-c", "ulimit -f 100; exec \"$0\" \"$1\"", HOST]).start(&handle).await.unwrap_err();
    assert!(error.message().contains("ring"), "{error}");
    assert_eq!(world.off(&handle).await, Some(Exit::Code { code: 1 }));
    world.driver.start(&handle).await.unwrap();
    assert!(matches!(world.driver.observe(&handle).await.observed, Observed::On(channels) if channels[0].life == 4));
}

#[tokio::test]
async fn an_earlier_boot_is_told_as_a_restart_of_the_computer() {
    let mut world = World::new();
    let (id, handle) = world.machine(serde_json::json!({})).await;
    assert_eq!(world.off(&handle).await, None);
    let earlier = world.dir.path().join("run").join("00000000-0000-4000-8000-000000000000").join(id.to_string()).join("7");
    std::fs::create_dir_all(&earlier).unwrap();
    std::fs::write(earlier.join("meta.json"), "{}").unwrap();
    // After a restart of the computer there is another driver.
    world.driver = driver(world.dir.path());
    assert_eq!(world.off(&handle).await, Some(Exit::Rebooted));
    world.driver.start(&handle).await.unwrap();
    assert!(matches!(world.driver.observe(&handle).await.observed, Observed::On(channels) if channels[0].life == 8));
    assert!(!earlier.exists());
}

#[tokio::test]
async fn starting_at_once_from_many_sides_makes_one_life() {
    let world = World::new();
    let (id, handle) = world.machine(serde_json::json!({})).await;
    let starts: Vec<_> = (0..8)
        .map(|_| {
            let (driver, handle) = (Arc::new(world.driver.clone()), handle.clone());
            tokio::spawn(async move { driver.start(&handle).await })
        })
        .collect();
    for start in starts {
        start.await.unwrap().unwrap();
    }
    assert!(world.life(id, 1).exists() && !world.life(id, 2).exists());
}

#[tokio::test]
async fn doctor_finds_something_to_say_of_everything() {
    let world = World::new();
    let checks = world.driver.probe().await;
    assert!(checks.len() >= 5);
    for check in checks {
        assert!(!check.requirement.is_empty() && !check.finding.is_empty(), "{check:?}");
    }
}

#[tokio::test]
async fn a_start_that_hangs_is_overtaken_by_force() {
    let world = World::new();
    let (id, handle) = world.machine(serde_json::json!({})).await;
    let hang = ["-c", "touch \"$0/hangs\"; exec sleep 1000"].map(Into::into).to_vec();
    let config = LuaConfig { state: world.dir.path().to_owned(), host_exe: "/bin/sh".into(), host_args: hang, environments: None };
    let (driver, starting) = (LuaDriver::new(config), handle.clone());
    let start = tokio::spawn(async move { driver.start(&starting).await });
    while !world.life(id, 1).join("hangs").exists() {
        tokio::task::yield_now().await;
    }
    let begun = std::time::Instant::now();
    world.driver.stop(&handle, StopMode::Force).await.unwrap();
    assert_eq!(start.await.unwrap().unwrap_err().code(), Code::DriverFailed);
    assert!(begun.elapsed() < Duration::from_secs(10), "force waited for the start");
    assert!(world.off(&handle).await.is_some());
}
