//! Who connects to the holder in order to copy it.

use super::core::Core;
use crate::forking::{Said, Talk, Told};
use vmoon_core::frame::tag;

impl Core {
    /// Whoever has said this on a new connection may ask for a copy, or is told why not.
    pub(super) fn welcome(&mut self, talk: Talk, payload: &[u8]) {
        let why = match serde_json::from_slice(payload) {
            Ok(Told::Ask { key }) if same(key.as_bytes(), self.key.as_bytes()) => self.reasons(),
            Ok(_) => vec!["the key is not that of this machine".into()],
            Err(error) => vec![format!("not a request: {error}")],
        };
        if why.is_empty() {
            self.asker = Some(talk);
        } else {
            // Who does not read that finds the connection closed.
            let _ = talk.say(tag::FORKING, &Said::Refused { why }, &[]);
        }
    }

    /// Why it cannot be copied at this moment.
    fn reasons(&self) -> Vec<String> {
        let mut why = Vec::new();
        if let Some(running) = &self.running {
            why.push(format!("command {} runs", running.id));
        }
        if !self.queue.is_empty() {
            why.push(format!("{} commands wait", self.queue.len()));
        }
        if self.quit.is_some() {
            why.push("it is ending".into());
        }
        if self.asker.is_some() {
            why.push("it is being copied already".into());
        }
        why
    }
}

/// Compares without telling by the time it takes where the first difference is.
pub(super) fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |sum, (x, y)| sum | (x ^ y)) == 0
}
