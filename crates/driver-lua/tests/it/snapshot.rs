//! Snapshots: what is kept, what is returned to, what outlives what, and what is refused. Real processes below a zygote.

use crate::{
    client::{Client, HOST},
    death::World,
};
use serde_json::json;
use std::path::{Path, PathBuf};
use vmoon_core::{
    Code, MachineId, Result,
    ability::{NewSnapshot, Snapshot},
    driver::{Driver, Handle, Observed, StopMode},
    frame::tag,
};
use vmoon_driver_lua::{LuaConfig, LuaDriver};
use vmoon_sys::process::{Identity, Pidfd};

/// One running machine.
struct Stage {
    world: World,
    id: MachineId,
    handle: Handle,
}

impl Stage {
    async fn new(settings: serde_json::Value) -> Self {
        let world = World::new();
        let (id, handle) = world.machine(settings).await;
        world.driver.start(&handle).await.unwrap();
        Self { world, id, handle }
    }

    /// A client of the life that runs.
    async fn client(&self) -> Client {
        let Observed::On(channels) = self.world.driver.observe(&self.handle).await.observed else { panic!("it does not run") };
        Client::at_path(&self.world.life(self.id, channels[0].life), 0)
    }

    /// What an expression is in the life that runs.
    async fn value(&self, code: &str) -> String {
        // A new client hears everything from the beginning.
        let frames = self.client().await.run(code);
        frames.iter().rev().find(|frame| frame.tag == tag::VALUES).unwrap_or_else(|| panic!("{code}: {frames:?}")).text()
    }

    async fn keep(&self, name: &str) -> Result<Snapshot> {
        self.world.driver.snapshots().unwrap().create(&self.handle, &NewSnapshot { name: name.into(), memory: None }).await
    }

    async fn back(&self, name: &str) -> Result<()> {
        self.world.driver.snapshots().unwrap().revert(&self.handle, name).await
    }

    async fn list(&self) -> Vec<Snapshot> {
        self.world.driver.snapshots().unwrap().list(&self.handle).await.unwrap()
    }

    async fn tree(&self) -> Vec<String> {
        let shown = |s: Snapshot| format!("{}<{}{}", s.name, s.parent.unwrap_or_default(), if s.current { "*" } else { "" });
        self.list().await.into_iter().map(shown).collect()
    }

    async fn drop_snapshot(&self, name: &str) {
        self.world.driver.snapshots().unwrap().delete(&self.handle, name).await.unwrap();
    }

    /// The processes of snapshots.
    fn frozen(&self) -> Vec<(PathBuf, Identity)> {
        let lives = self.world.life(self.id, 1).parent().unwrap().to_owned();
        let entries = std::fs::read_dir(lives).into_iter().flatten().flatten().map(|entry| entry.path());
        let frozen = entries.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("frozen-"));
        let mut all: Vec<_> = frozen.filter_map(|path| Some((path.clone(), process(&path)?))).collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all
    }
}

fn process(life: &Path) -> Option<Identity> {
    let meta: serde_json::Value = vmoon_sys::atomic::read_json(&life.join("meta.json")).unwrap()?;
    serde_json::from_value(meta["process"].clone()).unwrap()
}

fn gone(process: &Identity) -> bool {
    Pidfd::open(process).unwrap().is_none_or(|fd| fd.wait(crate::client::PATIENCE).unwrap())
}

#[tokio::test]
async fn a_machine_returns_to_where_it_was_as_often_as_wanted() {
    let stage = Stage::new(json!({})).await;
    stage.client().await.run("n = 1; local up = 10; function step() n, up = n + 1, up + 1 return n .. ' ' .. up end");
    stage.client().await.run("local f = io.open('note', 'w') f:write('then') f:close()");
    let made = stage.keep("a").await.unwrap();
    assert!(made.memory && made.current && made.note.contains("computer"), "{made:?}");
    for _ in 0..2 {
        // What happens after it does not reach it.
        assert_eq!(stage.value("step()").await, "2 11");
        stage.client().await.run("local f = io.open('note', 'w') f:write('now') f:close() io.open('other', 'w'):close()");
        stage.back("a").await.unwrap();
        assert_eq!(stage.value("n").await, "1");
        assert_eq!(stage.value("io.open('note'):read('*a')").await, "then");
        assert_eq!(stage.value("io.open('other') == nil").await, "true");
    }
    // The last life is a machine like any other: it is stopped, and its files are there when it is started.
    stage.client().await.run("local f = io.open('late', 'w') f:write('x') f:close()");
    stage.world.driver.stop(&stage.handle, StopMode::Force).await.unwrap();
    stage.world.driver.start(&stage.handle).await.unwrap();
    assert_eq!(stage.value("n").await, "nil");
    assert_eq!(stage.value("io.open('late'):read('*a')").await, "x");
    // A stopped machine runs when it is returned.
    stage.world.driver.stop(&stage.handle, StopMode::Force).await.unwrap();
    stage.back("a").await.unwrap();
    assert_eq!(stage.value("step()").await, "2 11");
}

#[tokio::test]
async fn snapshots_form_a_tree_and_their_children_survive_them() {
    let stage = Stage::new(json!({})).await;
    stage.keep("a").await.unwrap();
    stage.client().await.run("n = 'b'");
    stage.keep("b").await.unwrap();
    stage.back("a").await.unwrap();
    stage.client().await.run("n = 'c'");
    stage.keep("c").await.unwrap();
    assert_eq!(stage.tree().await, ["a<", "b<a", "c<a*"]);
    stage.back("b").await.unwrap();
    assert_eq!(stage.value("n").await, "b");
    assert_eq!(stage.tree().await, ["a<", "b<a*", "c<a"]);
    let before = stage.frozen();
    assert_eq!(before.len(), 3);
    stage.drop_snapshot("a").await;
    stage.drop_snapshot("a").await;
    assert_eq!(stage.tree().await, ["b<*", "c<"]);
    assert!(gone(&before[0].1), "the process of a removed snapshot lives");
    assert!(!before[0].0.exists());
    // What was copied from it does not need it.
    stage.back("c").await.unwrap();
    assert_eq!(stage.value("n").await, "c");
}

#[tokio::test]
async fn every_profile_can_be_returned_and_stays_confined() {
    for profile in ["sealed", "files", "trusted"] {
        let stage = Stage::new(json!({ "profile": profile })).await;
        stage.client().await.run("n = 1");
        stage.keep("a").await.unwrap();
        stage.client().await.run("n = 2");
        stage.back("a").await.unwrap();
        assert_eq!(stage.value("n").await, "1", "{profile}");
        let open = stage.value("local f = io and io.open('/etc/passwd') if f then f:close() end return f ~= nil and f ~= false").await;
        assert_eq!(open, if profile == "trusted" { "true" } else { "false" }, "{profile}");
        // Returned to is a copy, whose own snapshot can be returned to.
        stage.client().await.run("n = 3");
        stage.keep("b").await.unwrap();
        stage.client().await.run("n = 4");
        stage.back("b").await.unwrap();
        assert_eq!(stage.value("n").await, "3", "{profile}");
    }
}

#[tokio::test]
async fn seeds_differ_between_what_is_returned() {
    let stage = Stage::new(json!({})).await;
    stage.client().await.run("math.randomseed(42)");
    stage.keep("a").await.unwrap();
    let mut seen = Vec::new();
    for _ in 0..3 {
        stage.back("a").await.unwrap();
        seen.push(stage.value("math.random()").await);
    }
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 3);
}

#[tokio::test]
async fn a_fresh_driver_returns_to_it_and_kill_leaves_it() {
    let stage = Stage::new(json!({})).await;
    stage.client().await.run("n = 1");
    stage.keep("a").await.unwrap();
    stage.world.driver.stop(&stage.handle, StopMode::Force).await.unwrap();
    let config = LuaConfig { state: stage.world.dir.path().to_owned(), host_exe: HOST.into(), host_args: vec![], environments: None };
    let fresh = LuaDriver::new(config);
    fresh.snapshots().unwrap().revert(&stage.handle, "a").await.unwrap();
    assert_eq!(stage.value("n").await, "1");
    let frozen = stage.frozen();
    fresh.delete(&stage.handle).await.unwrap();
    assert!(frozen.len() == 1 && gone(&frozen[0].1), "a snapshot outlives its machine");
    let clones = stage.world.dir.path().join("clones");
    let left: Vec<_> = std::fs::read_dir(clones).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test]
async fn what_cannot_be_is_refused_and_loses_nothing() {
    let stage = Stage::new(json!({})).await;
    stage.client().await.run("n = 1");
    let code = |result: Result<()>| result.unwrap_err().code();
    assert_eq!(code(stage.back("never").await), Code::SnapshotNotFound);
    for name in ["../x", "", "a b", "-a"] {
        assert_eq!(code(stage.keep(name).await.map(drop)), Code::NameInvalid, "{name}");
        assert_eq!(code(stage.back(name).await), Code::SnapshotNotFound, "{name}");
    }
    stage.keep("a").await.unwrap();
    assert_eq!(code(stage.keep("a").await.map(drop)), Code::SnapshotExists);
    // An open file is no state that can be kept.
    stage.client().await.run("f = io.open('open', 'w')");
    let refused = stage.keep("b").await.unwrap_err();
    assert_eq!(refused.code(), Code::MachineNotCopyable);
    assert!(refused.to_string().contains("open"), "{refused}");
    stage.client().await.run("f:close()");
    // Its process dies: it is said, and the machine is not touched.
    vmoon_sys::tree::kill(&stage.frozen()[0].1, None, crate::client::PATIENCE).unwrap();
    assert!(stage.list().await[0].note.contains("lost"), "{:?}", stage.list().await);
    assert_eq!(code(stage.back("a").await), Code::SnapshotNotFound);
    assert_eq!(stage.value("n").await, "1");
    // What a crash has left half made is cleared away by the next.
    let record = stage.world.dir.path().join("lua").join(stage.id.to_string()).join("snapshots/a.json");
    let mut text: serde_json::Value = vmoon_sys::atomic::read_json(&record).unwrap().unwrap();
    text["complete"] = false.into();
    vmoon_sys::atomic::write_json(&record, &text).unwrap();
    assert_eq!(stage.tree().await, Vec::<String>::new());
    stage.keep("a").await.unwrap();
    stage.world.driver.stop(&stage.handle, StopMode::Force).await.unwrap();
    assert_eq!(code(stage.keep("b").await.map(drop)), Code::MachineStopped);
}
