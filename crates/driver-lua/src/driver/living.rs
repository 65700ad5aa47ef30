//! What is known of machines without reading it again. A holder writes about itself once, so what it has written is true as long as it lives, and that is
//! asked each time. Of a machine that was made a moment ago one look is spared: the one that follows its creation. And a holder is called while it begins, so that
//! whoever opens its session finds it listening.

use crate::layout::{Layout, Life, Meta};
use std::{
    collections::{HashMap, HashSet},
    os::unix::net::UnixStream,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use vmoon_core::{Error, MachineId, Result};

/// The machines that were seen to run, and in which life, and those that were just made.
#[derive(Debug, Default)]
pub(super) struct Living(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    run: HashMap<MachineId, (u64, Arc<Meta>)>,
    made: HashSet<MachineId>,
    /// Calls to holders that have just begun, and in which life, for whoever opens their session.
    calls: HashMap<MachineId, (u64, UnixStream)>,
}

impl Living {
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A machine was made whole and has never run.
    pub(super) fn made(&self, id: MachineId) {
        self.lock().made.insert(id);
    }

    /// Whether nothing has happened to a machine since it was made, as far as anybody has asked here; said once.
    pub(super) fn is_new(&self, id: MachineId) -> bool {
        self.lock().made.remove(&id)
    }

    /// The life of a machine, if it was seen and its holder still runs.
    pub(super) fn get(&self, id: MachineId) -> Option<(u64, Arc<Meta>)> {
        let known = self.lock().run.get(&id).cloned()?;
        if known.1.process.is_alive() {
            return Some(known);
        }
        self.forget(id);
        None
    }

    /// Whether it was seen to run, whatever became of it.
    pub(super) fn knows(&self, id: MachineId) -> bool {
        self.lock().run.contains_key(&id)
    }

    /// A machine was seen to run.
    pub(super) fn saw(&self, id: MachineId, life: u64, mut meta: Meta) {
        // They are read when somebody wants to know, and are the largest part.
        meta.layers = None;
        let mut known = self.lock();
        known.made.remove(&id);
        known.run.insert(id, (life, Arc::new(meta)));
    }

    /// Its holder was called as it began.
    pub(super) fn called(&self, id: MachineId, life: u64, call: UnixStream) {
        self.lock().calls.insert(id, (life, call));
    }

    /// That call; given once, and to who wants that life.
    pub(super) fn call(&self, id: MachineId, life: u64) -> Option<UnixStream> {
        let (of, call) = self.lock().calls.remove(&id)?;
        (of == life).then_some(call)
    }

    /// It runs no more, or is no more.
    pub(super) fn forget(&self, id: MachineId) {
        let mut known = self.lock();
        known.made.remove(&id);
        known.calls.remove(&id);
        known.run.remove(&id);
    }

    /// The life with that number, and its holder if that runs.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub(super) fn find(&self, layout: &Layout, id: MachineId, number: u64) -> Result<Option<(Life, Option<Arc<Meta>>)>> {
        if let Some((life, meta)) = self.get(id).filter(|(life, _)| *life == number) {
            return Ok(Some((layout.life(id, life), Some(meta))));
        }
        let life = layout.life(id, number);
        let meta = life.meta()?;
        let there = || life.dir.try_exists().map_err(|error| Error::io("look at what a machine has left", error));
        if meta.is_none() && !there()? {
            return Ok(None);
        }
        Ok(Some((life, meta.filter(|meta| meta.process.is_alive()).map(Arc::new))))
    }
}
