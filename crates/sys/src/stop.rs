//! A wish to stop that one thread has and others look at, or are woken by.

use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};
use vmoon_core::{Code, Error, Result};

type Wake = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct Inner {
    stopped: AtomicBool,
    next: AtomicU64,
    wakes: Mutex<Vec<(u64, Wake)>>,
}

/// Says whether long work shall stop. All clones are one.
#[derive(Clone, Default)]
pub struct Stop(Arc<Inner>);

impl Stop {
    /// One that nobody has stopped.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks to stop, and calls everything that waits for it. The second time does nothing.
    pub fn stop(&self) {
        let wakes = {
            let mut wakes = self.0.wakes.lock().unwrap_or_else(PoisonError::into_inner);
            self.0.stopped.store(true, Ordering::SeqCst);
            std::mem::take(&mut *wakes)
        };
        for (_, wake) in wakes {
            wake();
        }
    }

    /// Whether it was asked to stop.
    pub fn is_stopped(&self) -> bool {
        self.0.stopped.load(Ordering::SeqCst)
    }

    /// Goes on unless it was asked to stop.
    ///
    /// # Errors
    /// [`Code::Cancelled`].
    pub fn check(&self) -> Result<()> {
        if self.is_stopped() { Err(Self::error()) } else { Ok(()) }
    }

    /// What a stopped operation answers.
    pub fn error() -> Error {
        Error::new(Code::Cancelled, "stopped on request; nothing was changed")
    }

    /// Calls `wake` when it is asked to stop, at once if it was already. What is given back forgets it when dropped. `wake` must be short: it runs in the
    /// thread that stops.
    pub fn on_stop(&self, wake: impl FnOnce() + Send + 'static) -> Waiting {
        let number = self.0.next.fetch_add(1, Ordering::Relaxed);
        let mut wakes = self.0.wakes.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_stopped() {
            drop(wakes);
            wake();
        } else {
            wakes.push((number, Box::new(wake)));
        }
        Waiting { stop: self.clone(), number }
    }
}

impl fmt::Debug for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Stop").field(&self.is_stopped()).finish()
    }
}

/// Somebody who is woken when work shall stop, until this is dropped.
#[derive(Debug)]
pub struct Waiting {
    stop: Stop,
    number: u64,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.stop.0.wakes.lock().unwrap_or_else(PoisonError::into_inner).retain(|(number, _)| *number != self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::sync_channel;

    #[test]
    fn who_waits_is_woken_once_and_who_left_is_not() {
        let stop = Stop::new();
        let (tell, told) = sync_channel(4);
        let (first, second) = (tell.clone(), tell.clone());
        let _kept = stop.on_stop(move || first.send(1).unwrap());
        drop(stop.on_stop(move || second.send(2).unwrap()));
        stop.check().unwrap();
        stop.clone().stop();
        stop.stop();
        assert_eq!(stop.check().unwrap_err().code(), Code::Cancelled);
        let _late = stop.on_stop(move || tell.send(3).unwrap());
        assert_eq!(told.try_iter().collect::<Vec<_>>(), [1, 3]);
    }
}
