//! Snapshots: frozen copies of a running machine to return to.
//!
//! A snapshot is a copy (`clone` says how it is made) that nobody talks to: a process that waits, with a socket, a key and a directory of its own
//! below the machine's lives, and with the work directory as it was. To return to it, it is copied again, and that copy is the machine's next life.
//! It runs no code of the user, so it is not narrowed: its copies may still be given any home in the nursery it was made in.
//!
//! It survives the daemon and its machine's stops, and dies with the computer; `<state>/lua/<machine>/snapshots/<name>.json` is the record that outlives it.

use super::{Inner, LuaDriver, clone::Kind, known, lives};
use crate::{
    homes,
    layout::{Life, MARK, Meta, Record, mark, remove_dir},
};
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};
use vmoon_core::{
    Code, Error, MachineId, Result,
    ability::{NewSnapshot, Snapshot, Snapshots},
    driver::Handle,
    name,
};
use vmoon_sys::{atomic, clock, paths, process::boot_id, tree};

/// No life has so large a number: the marks of snapshots are not those of lives.
const FROZEN: u64 = 1 << 40;
/// How long the process of a snapshot may take to be dead.
const DEATH: Duration = Duration::from_secs(10);
/// The most of one machine: each is a process.
const MOST: usize = 64;

/// What is known of a snapshot.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Frozen {
    name: String,
    parent: Option<String>,
    created_ms: u64,
    /// The boot of the computer in which its process was made.
    boot: String,
    /// The number that its process bears in place of that of a life.
    number: u64,
    /// Its home, below the state directory.
    home: PathBuf,
    /// Where the homes of its copies are to be, below the state directory.
    nursery: PathBuf,
    /// Written last.
    complete: bool,
}

impl Frozen {
    fn life(&self, inner: &Inner, id: MachineId) -> Life {
        Life { number: self.number, dir: inner.layout.lives_dir(id).join(format!("frozen-{}", self.number - FROZEN)) }
    }

    /// Its process, if that lives.
    fn process(&self, inner: &Inner, id: MachineId) -> Result<Option<(Life, Meta)>> {
        if self.boot != boot_id() {
            return Ok(None);
        }
        let life = self.life(inner, id);
        Ok(life.meta()?.filter(|meta| meta.process.is_alive()).map(|meta| (life, meta)))
    }

    /// What is wrong with it; empty if nothing is.
    fn trouble(&self, inner: &Inner, id: MachineId) -> Result<&'static str> {
        Ok(match self.process(inner, id)? {
            Some(_) => "",
            None if self.boot != boot_id() => "lost: the computer was restarted",
            None => "lost: its process has ended",
        })
    }
}

/// What is said of a snapshot that lives.
const NOTE: &str = "in memory: lost when the computer restarts";

fn directory(inner: &Inner, id: MachineId) -> PathBuf {
    inner.layout.machine(id).join("snapshots")
}

fn path(inner: &Inner, id: MachineId, name: &str) -> PathBuf {
    directory(inner, id).join(format!("{name}.json"))
}

/// The name of the snapshot that the machine goes on from.
fn current_path(inner: &Inner, id: MachineId) -> PathBuf {
    inner.layout.machine(id).join("snapshot")
}

impl Inner {
    /// Those whose making was not cut off, oldest first. The rest is cleared away.
    fn frozen(&self, id: MachineId) -> Result<Vec<Frozen>> {
        let dir = directory(self, id);
        let entries = match fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(Error::io(format_args!("read {}", dir.display()), error)),
        };
        let mut all = Vec::new();
        for entry in entries {
            let path = entry.map_err(|error| Error::io(format_args!("read {}", dir.display()), error))?.path();
            if path.extension().is_some_and(|extension| extension == "json")
                && let Some(frozen) = atomic::read_json::<Frozen>(&path)?
            {
                all.push(frozen);
            }
        }
        all.sort_by(|a, b| (a.created_ms, &a.name).cmp(&(b.created_ms, &b.name)));
        Ok(all)
    }

    /// The same, after what a crash has left half made is gone. Only for who holds the machine's lock.
    fn settled(&self, id: MachineId) -> Result<Vec<Frozen>> {
        let (whole, cut): (Vec<_>, Vec<_>) = self.frozen(id)?.into_iter().partition(|frozen| frozen.complete);
        for frozen in cut {
            self.melt(id, &frozen)?;
        }
        Ok(whole)
    }

    fn current(&self, id: MachineId) -> Result<Option<String>> {
        match fs::read_to_string(current_path(self, id)) {
            Ok(name) => Ok(Some(name)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io("read which snapshot the machine goes on from", error)),
        }
    }

    fn snapshots(&self, id: MachineId) -> Result<Vec<Snapshot>> {
        self.record(id)?;
        let current = self.current(id)?;
        let mut listed = Vec::new();
        for frozen in self.frozen(id)?.into_iter().filter(|frozen| frozen.complete) {
            let trouble = frozen.trouble(self, id)?;
            listed.push(Snapshot {
                parent: frozen.parent,
                created_ms: frozen.created_ms,
                memory: true,
                current: current.as_deref() == Some(&frozen.name),
                note: if trouble.is_empty() { NOTE } else { trouble }.into(),
                name: frozen.name,
            });
        }
        Ok(listed)
    }

    fn freeze(&self, id: MachineId, new: &NewSnapshot) -> Result<Snapshot> {
        name::check(&new.name)?;
        if new.memory == Some(false) {
            return Err(Error::new(Code::DriverUnsupported, "a snapshot of a Lua machine always holds its memory")
                .hint("to keep files only, copy them: vmoon cp"));
        }
        let source = self.record(id)?;
        let _lock = lives::lock(&self.layout, id)?;
        let others = self.settled(id)?;
        if others.iter().any(|other| other.name == new.name) {
            return Err(Error::new(Code::SnapshotExists, format!("{} has a snapshot {} already", name::escape(&source.name), new.name))
                .hint("choose another name, or remove it: vmoon snapshot rm"));
        }
        if others.len() >= MOST {
            return Err(Error::new(Code::QuotaExceeded, format!("{} has {MOST} snapshots, each a process", name::escape(&source.name)))
                .hint("remove some: vmoon snapshot rm"));
        }
        let (source_life, source_meta) = self.living(&source)?;
        let (talk, runtime) = self.hold(&source, &source_life, &source_meta)?;

        let nursery = self.layout.nursery(&source);
        let home = homes::fresh(&nursery, id);
        let number = FROZEN + others.iter().map(|other| other.number - FROZEN).max().unwrap_or(0) + 1;
        let mut frozen = Frozen {
            name: new.name.clone(),
            parent: self.current(id)?,
            created_ms: clock::now_ms(),
            boot: boot_id().to_owned(),
            number,
            home: home.clone(),
            nursery,
            complete: false,
        };
        paths::private_dir(&directory(self, id))?;
        // Before there is anything of it: whoever finds it half made clears it away.
        atomic::write_json(&path(self, id, &new.name), &frozen)?;
        let record = Record { home: Some(home), ..source.clone() };
        let life = frozen.life(self, id);
        let made = self
            .layout
            .make_nursery(&source)
            .and_then(|_| self.layout.make_home(&record))
            .and_then(|()| self.copy_files(&source, &record))
            .and_then(|()| {
                remove_dir(&life.dir).map_err(|error| Error::io("make a snapshot", error))?;
                paths::private_dir(&life.dir)
            })
            .and_then(|()| self.fork(talk, (&source_life, &source_meta), &record, &life, runtime, Kind::Frozen))
            .and_then(|()| {
                frozen.complete = true;
                atomic::write_json(&path(self, id, &new.name), &frozen)
            })
            .and_then(|()| atomic::write(&current_path(self, id), new.name.as_bytes()));
        if let Err(error) = made {
            // What cannot be cleared away now is, with the next snapshot or with the machine.
            let _ = self.melt(id, &frozen);
            return Err(error);
        }
        Ok(Snapshot {
            name: frozen.name,
            parent: frozen.parent,
            created_ms: frozen.created_ms,
            memory: true,
            current: true,
            note: NOTE.into(),
        })
    }

    fn revert(&self, id: MachineId, name: &str) -> Result<()> {
        let mut record = self.record(id)?;
        let lock = lives::lock(&self.layout, id)?;
        let missing = |why: &str| {
            Err(Error::new(Code::SnapshotNotFound, format!("{} {why}", name::escape(&record.name)))
                .hint(format!("see: vmoon snapshot list {}", name::escape(&record.name))))
        };
        let Some(frozen) = self.settled(id)?.into_iter().find(|frozen| frozen.name == name) else {
            return missing(&format!("has no snapshot {}", name::escape(name)));
        };
        let Some((frozen_life, frozen_meta)) = frozen.process(self, id)? else {
            let trouble = frozen.trouble(self, id)?;
            return missing(&format!("cannot return to {name}, which is {trouble}"));
        };
        // From here on it stands still, as long as we live; nothing of the machine was touched.
        let (talk, runtime) = self.hold(&record, &frozen_life, &frozen_meta)?;
        let home = homes::fresh(&frozen.nursery, id);
        let then = Record { home: Some(frozen.home.clone()), ..record.clone() };
        let next = Record { home: Some(home.clone()), ..record.clone() };
        let undo = |error| {
            let _ = self.layout.vacate(&home);
            error
        };
        self.layout.make_home(&next).map_err(undo)?;
        self.copy_files(&then, &next).map_err(undo)?;
        let lives = self.layout.lives(id)?;
        let number = self.layout.last_number(id, &lives)? + 1;

        // What it was until now ends here. Should the rest fail, it is off, and can be returned to the snapshot again.
        lives::kill(&self.layout, id)?;
        let left = record.home.replace(home);
        self.layout.write(&record)?;
        self.abandon(id, left.as_deref());
        atomic::write(&current_path(self, id), name.as_bytes())?;
        lives::tidy(&self.layout, id, &lives, number);
        let life = lives::make_life(&self.layout, id, number)?;
        if let Err(error) = self.fork(talk, (&frozen_life, &frozen_meta), &record, &life, runtime, Kind::Living) {
            let _ = life.write_exit(&vmoon_core::driver::Exit::Code { code: 1 });
            return Err(error.hint("the machine is off and the snapshot is kept: try again"));
        }
        drop(lock);
        Ok(())
    }

    /// Empties the work directory that the machine has left. Others may have their homes beside it.
    fn abandon(&self, id: MachineId, home: Option<&Path>) {
        let _ = match home {
            Some(home) => self.layout.vacate(home),
            None => remove_dir(&self.layout.machine(id).join("work")),
        };
    }

    fn unfreeze(&self, id: MachineId, name: &str) -> Result<()> {
        let _lock = lives::lock(&self.layout, id)?;
        let all = self.settled(id)?;
        let Some(gone) = all.iter().find(|frozen| frozen.name == name) else { return Ok(()) };
        for child in all.iter().filter(|frozen| frozen.parent.as_deref() == Some(name)) {
            let adopted = Frozen { parent: gone.parent.clone(), ..child.clone() };
            atomic::write_json(&path(self, id, &child.name), &adopted)?;
        }
        if self.current(id)?.as_deref() == Some(name) {
            match &gone.parent {
                Some(parent) => atomic::write(&current_path(self, id), parent.as_bytes())?,
                None => fs::remove_file(current_path(self, id)).map_err(|error| Error::io("forget a snapshot", error))?,
            }
        }
        self.melt(id, gone)
    }

    /// Ends the process of a snapshot and removes what belongs to it, its record last.
    fn melt(&self, id: MachineId, frozen: &Frozen) -> Result<()> {
        let failed = |error| Error::io("remove a snapshot", error);
        if frozen.boot == boot_id() {
            let life = frozen.life(self, id);
            let mark = format!("{MARK}={}", mark(id, frozen.number));
            match life.meta()? {
                Some(meta) => tree::kill(&meta.process, Some(&mark), DEATH),
                None => lives::kill_marked(id, &life),
            }
            .map_err(failed)?;
            remove_dir(&life.dir).map_err(failed)?;
        }
        // Machines and snapshots that were made from it may live in its nursery.
        self.layout.vacate(&frozen.home).map_err(failed)?;
        match fs::remove_file(path(self, id, &frozen.name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(error)),
            _ => Ok(()),
        }
    }

    /// Removes every snapshot of a machine that is being deleted.
    pub(super) fn melt_all(&self, id: MachineId) -> Result<()> {
        self.frozen(id)?.iter().try_for_each(|frozen| self.melt(id, frozen))
    }
}

#[async_trait]
impl Snapshots for LuaDriver {
    async fn list(&self, handle: &Handle) -> Result<Vec<Snapshot>> {
        let id = known(handle)?;
        self.blocking(move |inner| inner.snapshots(id)).await
    }

    async fn create(&self, handle: &Handle, new: &NewSnapshot) -> Result<Snapshot> {
        let (id, new) = (known(handle)?, new.clone());
        self.blocking(move |inner| inner.freeze(id, &new)).await
    }

    async fn revert(&self, handle: &Handle, name: &str) -> Result<()> {
        let (id, name) = (known(handle)?, name.to_owned());
        self.blocking(move |inner| inner.revert(id, &name)).await
    }

    async fn delete(&self, handle: &Handle, name: &str) -> Result<()> {
        let (id, name) = (known(handle)?, name.to_owned());
        self.blocking(move |inner| inner.unfreeze(id, &name)).await
    }
}
