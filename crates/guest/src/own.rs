//! What a machine of our own making gets through its seed: our public key, and a host key made in advance.
//!
//! Our private key is one for all guests of this user, made when it is first needed. The private half of a host key is in the seed and nowhere else; we keep its
//! fingerprint, and so nobody can pose as the guest, not even when it is entered for the first time.

use crate::{Guests, MAIN, Slot, one::One, record::Record};
use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};
use vmoon_core::{Error, Result};
use vmoon_remote::KeyPair;
use vmoon_sys::{atomic, clock::now_ms, paths::private_dir};

/// What a seed must say so that the guest can be entered.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Who will log in.
    pub user: String,
    /// A line for his `authorized_keys`.
    pub key: String,
    /// The host key of the guest's SSH server: only its seed may hold the private half.
    pub host: KeyPair,
}

/// Held while the key is made: several connections may need it at once.
static MAKING: Mutex<()> = Mutex::new(());

impl Guests {
    /// Where our private key is, once it was needed.
    pub(crate) fn own_key(&self) -> PathBuf {
        self.0.config.dir.join("key")
    }

    /// Our key, made if there is none.
    fn key(&self) -> Result<KeyPair> {
        let _making = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
        let path = self.own_key();
        match std::fs::read_to_string(&path) {
            Ok(text) => KeyPair::read(&text).map_err(|error| {
                Error::new(error.code(), format!("{} is no key: {}", path.display(), error.chain()))
                    .hint("move it away; a new one is then made for new machines, and those made before are not entered with it")
            }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let pair = KeyPair::new("vmoon")?;
                private_dir(&self.0.config.dir)?;
                atomic::write(&path, pair.private().as_bytes())?;
                atomic::write(&path.with_extension("pub"), format!("{}\n", pair.public()).as_bytes())?;
                Ok(pair)
            }
            Err(error) => Err(Error::io(format_args!("read {}", path.display()), error)),
        }
    }

    /// Prepares to enter a machine that is being made as a full copy of another: it has the same users, and shows the same host key. Whether the other is entered,
    /// which is whether anything was kept.
    ///
    /// # Errors
    /// Those of keeping the record.
    pub fn inherit(&self, from: &str, to: &str) -> Result<bool> {
        let Some(record) = self.find(from).map(|one| one.record().of_copy()).filter(|record| record.user.is_some()) else {
            return Ok(false);
        };
        self.0.records.put(to, &record)?;
        let one = Arc::new(One::new(to, record, now_ms()));
        self.lock().get_or_insert_default().insert(to.to_owned(), Slot::Read(one));
        Ok(true)
    }

    /// Prepares to enter a machine that is being made: keeps who logs in and which key its server will show. Called again for the same machine, it makes
    /// another host key, and the older seed is void.
    ///
    /// # Errors
    /// [`vmoon_core::Code::ConnectionAuth`] if our key is damaged; those of keeping the record.
    pub fn prepare(&self, key: &str, user: &str) -> Result<Entry> {
        let own = self.key()?;
        let host = KeyPair::new(MAIN)?;
        let record = Record { user: Some(user.into()), own_key: true, fingerprints: vec![host.fingerprint().into()], ..Record::default() };
        self.0.records.put(key, &record)?;
        let one = Arc::new(One::new(key, record, now_ms()));
        self.lock().get_or_insert_default().insert(key.to_owned(), Slot::Read(one));
        Ok(Entry { user: user.into(), key: own.public().into(), host })
    }
}
