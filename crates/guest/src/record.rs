//! How one machine is entered, as it is kept; and which life of its Lua session comes next. Pure.
//!
//! The life of a session is a number of ours, not the guest's: a guest that was put back to a snapshot counts from an older number, and an observation must
//! not need the network. So a life is *bound* to the guest's own number when it is first opened, and whatever ends it makes the next one.

use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use vmoon_core::ability::UsedEnvironment;

/// Everything kept of one machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Record {
    /// The login name; without one nothing is offered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) user: Option<String>,
    /// The port, if it is not 22.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) port: Option<u16>,
    /// The file of a private key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) identity: Option<PathBuf>,
    /// Whether our own key was put in when the machine was made.
    pub(crate) own_key: bool,
    /// What the host's key may be, `SHA256:…`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) fingerprints: Vec<String>,
    /// The environment of packages that its Lua sessions are to use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) environment: Option<String>,
    /// What was last carried there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) carried: Option<UsedEnvironment>,
    /// Where it was last entered in this run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) place: Option<(String, u16)>,
    /// The run of the machine that the life belongs to, as its driver numbers them.
    pub(crate) run: Option<u64>,
    /// The life of the Lua session that is offered; 0 before there was one.
    pub(crate) life: u64,
    /// The guest's own number of that life, once it was opened.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) bound: Option<Bound>,
}

/// A life as the guest knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Bound {
    /// Its number there.
    pub(crate) number: u64,
    /// The boot of the guest that it belongs to.
    pub(crate) boot: String,
}

/// What a connection depends on: another one is made when it changes.
pub(crate) type Who = (Option<String>, Option<u16>, Option<PathBuf>, bool, Vec<String>);

impl Record {
    /// The machine was seen in this run; whether that makes a new life.
    pub(crate) fn seen(&mut self, run: u64, now: u64) -> bool {
        let new = self.run != Some(run) || self.life == 0;
        if new {
            (self.run, self.place) = (Some(run), None);
            self.next(now);
        }
        new
    }

    /// That life is over; whether that was news.
    pub(crate) fn over(&mut self, life: u64, now: u64) -> bool {
        let news = self.life == life;
        if news {
            self.next(now);
        }
        news
    }

    /// The next life: greater than all before, also than those of a record that was lost.
    fn next(&mut self, now: u64) {
        self.life = now.max(self.life + 1);
        self.bound = None;
    }

    /// That of a machine with a copy of its disks: entered alike, and nothing has run in it.
    pub(crate) fn of_copy(&self) -> Self {
        Self { run: None, life: 0, bound: None, place: None, ..self.clone() }
    }

    pub(crate) fn who(&self) -> Who {
        (self.user.clone(), self.port, self.identity.clone(), self.own_key, self.fingerprints.clone())
    }

    /// Whether nothing in it is worth keeping.
    pub(crate) fn is_empty(&self) -> bool {
        let unknown =
            self.user.is_none() && self.port.is_none() && self.identity.is_none() && !self.own_key && self.fingerprints.is_empty();
        unknown && self.environment.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_life_ends_with_its_run_or_when_it_is_over_and_numbers_never_return() {
        let mut record = Record::default();
        assert!(record.seen(7, 100) && !record.seen(7, 101));
        assert_eq!(record.life, 100);
        record.bound = Some(Bound { number: 3, boot: "b".into() });
        assert!(!record.over(99, 102), "another life");
        assert!(record.over(100, 102) && record.bound.is_none());
        assert_eq!(record.life, 102);
        // A clock that was put back.
        assert!(record.seen(8, 5));
        assert_eq!((record.life, record.run), (103, Some(8)));
        assert!(record.seen(7, 5), "a run that was seen before is none that goes on");
    }

    #[test]
    fn a_copy_is_entered_alike_and_has_no_past() {
        let bound = Some(Bound { number: 3, boot: "b".into() });
        let place = Some(("10.0.0.7".to_owned(), 22));
        let mut record = Record { user: Some("ada".into()), own_key: true, run: Some(7), life: 100, bound, place, ..Record::default() };
        let mut copy = record.of_copy();
        assert_eq!((copy.who(), copy.life, copy.run, &copy.bound, &copy.place), (record.who(), 0, None, &None, &None));
        assert!(!record.seen(7, 150) && record.place.is_some());
        assert!(record.seen(8, 150) && record.place.is_none(), "in another run it may be anywhere");
        assert!(copy.seen(7, 200) && copy.life == 200, "its first run is another life");
    }

    #[test]
    fn unknown_and_missing_fields_of_a_record_are_no_error() {
        let record: Record = serde_json::from_str(r#"{"user":"ada","later":1}"#).unwrap();
        assert_eq!((record.user.as_deref(), record.life, record.is_empty()), (Some("ada"), 0, false));
        assert!(Record { life: 5, ..Record::default() }.is_empty());
    }
}
