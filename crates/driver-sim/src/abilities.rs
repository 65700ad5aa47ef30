//! What simulated machines can do beyond living: snapshots, programs, addresses, a screen, changes, copies.

use crate::{
    driver::SimDriver,
    machine::{Kept, Machine, Power},
    world::native,
};
use async_trait::async_trait;
use serde_json::{Map, Value, json};
use vmoon_core::{
    Code, Error, Result,
    ability::{
        Address, Addresses, Change, Display, DisplayOffer, Effect, Ended, Exec, NewSnapshot, Picture, Program, Snapshot, Snapshots, Tune,
    },
    driver::{Clones, Driver as _, Exit, Handle, Plan, as_original},
    spec::Problems,
};

/// A picture of one dark pixel.
const PIXEL: &[u8] = b"\x89PNG\x0d\x0a\x1a\x0a\x00\x00\x00\x0dIHDR\x00\x00\x00\x01\x00\x00\x00\x01\x08\x00\x00\x00\x00:~\x9bU\x00\x00\x00\x0aIDATx\xdac`\x00\x00\x00\x02\x00\x01\xe5'\xde\xfc\x00\x00\x00\x00IEND\xaeB`\x82";

fn no_snapshot(name: &str) -> Error {
    Error::new(Code::SnapshotNotFound, format!("the machine has no snapshot named \"{}\"", vmoon_core::name::escape(name)))
}

fn shown(machine: &Machine, kept: &Kept) -> Snapshot {
    Snapshot {
        name: kept.name.clone(),
        parent: kept.parent.clone(),
        created_ms: kept.created_ms,
        memory: kept.running,
        current: machine.current.as_ref() == Some(&kept.name),
        note: String::new(),
    }
}

#[async_trait]
impl Snapshots for SimDriver {
    async fn list(&self, handle: &Handle) -> Result<Vec<Snapshot>> {
        // Kept in the order they were made, so parents come first.
        self.on("snapshot.list", handle, |machine, _| Ok(machine.snapshots.iter().map(|kept| shown(machine, kept)).collect())).await
    }

    async fn create(&self, handle: &Handle, new: &NewSnapshot) -> Result<Snapshot> {
        self.on("snapshot.create", handle, |machine, now| {
            if machine.snapshots.iter().any(|kept| kept.name == new.name) {
                let text = format!("the machine has a snapshot named \"{}\" already", vmoon_core::name::escape(&new.name));
                return Err(Error::new(Code::SnapshotExists, text));
            }
            let runs = machine.power() != Power::Off;
            if new.memory == Some(true) && !runs {
                return Err(Error::new(Code::MachineStopped, "a machine that is off has no memory to keep"));
            }
            let running = new.memory.unwrap_or(runs) && runs;
            let parent = machine.current.replace(new.name.clone());
            let kept = Kept { name: new.name.clone(), parent, created_ms: now, running, memory: machine.memory };
            machine.snapshots.push(kept.clone());
            Ok(shown(machine, &kept))
        })
        .await
    }

    async fn revert(&self, handle: &Handle, name: &str) -> Result<()> {
        self.on("snapshot.revert", handle, |machine, now| {
            let kept = machine.snapshots.iter().find(|kept| kept.name == name).cloned().ok_or_else(|| no_snapshot(name))?;
            machine.power_off(Exit::Killed);
            machine.memory = kept.memory;
            machine.current = Some(kept.name);
            if kept.running {
                machine.power_on(now);
            }
            Ok(())
        })
        .await
    }

    async fn delete(&self, handle: &Handle, name: &str) -> Result<()> {
        self.on("snapshot.delete", handle, |machine, _| {
            let Some(place) = machine.snapshots.iter().position(|kept| kept.name == name) else { return Ok(()) };
            let gone = machine.snapshots.remove(place);
            for child in machine.snapshots.iter_mut().filter(|kept| kept.parent.as_deref() == Some(name)) {
                child.parent.clone_from(&gone.parent);
            }
            if machine.current.as_deref() == Some(name) {
                machine.current = gone.parent;
            }
            Ok(())
        })
        .await
    }
}

#[async_trait]
impl Exec for SimDriver {
    /// Programs: `echo TEXT…`, `cat`, `exit STATUS`, `fail TEXT…` (to standard error, status 1), `signal NUMBER`, `hang`.
    async fn exec(&self, handle: &Handle, program: &Program) -> Result<Ended> {
        let ended =
            |code: i32, stdout: Vec<u8>, stderr: Vec<u8>| Ended { code: Some(code), signal: None, stdout, stderr, truncated: false };
        let number = |text: Option<&String>| text.and_then(|text| text.parse().ok()).unwrap_or(0);
        let (word, rest) = program.argv.split_first().ok_or_else(|| Error::new(Code::Usage, "no program is named"))?;
        let text = || format!("{}\n", rest.join(" ")).into_bytes();
        let done = self
            .on("exec", handle, |machine, now| {
                if machine.power() != Power::On {
                    return Err(Error::new(Code::MachineStopped, "the machine does not run"));
                }
                Ok(match word.as_str() {
                    "echo" => Ok(ended(0, text(), Vec::new())),
                    "cat" => Ok(ended(0, program.stdin.clone(), Vec::new())),
                    "fail" => Ok(ended(1, Vec::new(), text())),
                    "exit" => Ok(ended(number(rest.first()), Vec::new(), Vec::new())),
                    "signal" => Ok(Ended { code: None, signal: Some(number(rest.first())), ..ended(0, Vec::new(), Vec::new()) }),
                    "hang" => Err(now),
                    _ => return Err(Error::new(Code::FileNotFound, format!("{}: no such program", vmoon_core::name::escape(word)))),
                })
            })
            .await?;
        match done {
            Ok(ended) => Ok(ended),
            Err(began) => {
                self.world().until(|world| world.now() >= began + program.deadline_ms).await;
                Err(Error::new(Code::OperationDeadline, "the program did not end in time; it may still run"))
            }
        }
    }
}

#[async_trait]
impl Addresses for SimDriver {
    async fn addresses(&self, handle: &Handle) -> Result<Vec<Address>> {
        self.on("addresses", handle, |machine, _| Ok(if machine.power() == Power::On { machine.addresses.clone() } else { Vec::new() }))
            .await
    }
}

#[async_trait]
impl Display for SimDriver {
    async fn offers(&self, handle: &Handle) -> Result<Vec<DisplayOffer>> {
        let offer = DisplayOffer { protocol: "vnc".into(), uri: "vnc://127.0.0.1:5900".into() };
        self.on("display", handle, |machine, _| Ok(if machine.power() == Power::On { vec![offer] } else { Vec::new() })).await
    }

    async fn screenshot(&self, handle: &Handle) -> Result<Picture> {
        self.on("screenshot", handle, |machine, _| match machine.power() {
            Power::On => Ok(Picture { media_type: "image/png".into(), bytes: PIXEL.to_vec() }),
            _ => Err(Error::new(Code::MachineStopped, "a machine that is off shows nothing")),
        })
        .await
    }
}

#[async_trait]
impl Tune for SimDriver {
    async fn tune(&self, handle: &Handle, settings: &Map<String, Value>, dry_run: bool) -> Result<Vec<Change>> {
        self.on("tune", handle, |machine, _| {
            let (mut problems, mut changes) = (Problems::default(), Vec::new());
            let (mut memory, mut autostart) = (machine.memory, machine.autostart);
            for (name, value) in settings {
                let path = format!("settings.{name}");
                match name.as_str() {
                    "memory" => match value.as_u64().filter(|n| (1..=1024).contains(n)) {
                        Some(new) => {
                            let what = format!("memory {memory} MiB → {new} MiB");
                            let effect = if machine.power() == Power::Off { Effect::Now } else { Effect::NextStart };
                            changes.push(Change { setting: name.clone(), what, effect });
                            memory = new;
                        }
                        None => problems.add(path, format!("{value} does not fit: memory in MiB, 1 to 1024")),
                    },
                    "autostart" => match value.as_bool() {
                        Some(new) => {
                            let what = format!("autostart {}", if new { "on" } else { "off" });
                            changes.push(Change { setting: name.clone(), what, effect: Effect::Now });
                            autostart = new;
                        }
                        None => problems.add(path, format!("{value} does not fit: true or false")),
                    },
                    _ => problems.add(path, "it cannot be changed; what can be are memory and autostart"),
                }
            }
            problems.or(()).map_err(Error::from)?;
            if !dry_run {
                (machine.memory, machine.autostart) = (memory, autostart);
            }
            Ok(changes)
        })
        .await
    }

    async fn rename(&self, handle: &Handle, name: &str) -> Result<Handle> {
        self.on("rename", handle, |machine, _| {
            machine.name = name.to_owned();
            Ok(handle.clone())
        })
        .await
    }
}

#[async_trait]
impl Clones for SimDriver {
    async fn plan(&self, name: &str, original: &Handle) -> Result<Plan> {
        let from = native(original).unwrap_or_default();
        self.on("clone", original, |machine, _| match machine.power() {
            Power::On => Ok(Plan {
                name: name.to_owned(),
                steps: vec![format!("copy {}", machine.name), "let the copy go on".into()],
                settings: json!({ "memory": machine.memory, "guest": machine.guest, "clone": from }),
            }),
            _ => Err(Error::new(Code::MachineStopped, "only a machine that runs can be copied")),
        })
        .await
    }

    async fn plan_with(&self, name: &str, original: &Handle, settings: &Map<String, Value>) -> Result<Plan> {
        as_original(&self.info(), &[], true, settings).or(())?;
        Clones::plan(self, name, original).await
    }
}
