//! Key pairs of our own making: ed25519, from the kernel's random bytes, in the form of OpenSSH.

use crate::{Secret, trust::fingerprint};
use russh::keys::{
    PrivateKey,
    ssh_key::{LineEnding, private::Ed25519Keypair},
};
use vmoon_core::{Code, Error, Result};
use vmoon_sys::random;
use zeroize::Zeroizing;

/// A private key with its public half. The private one is zeroed when dropped and never printed.
#[derive(Clone)]
pub struct KeyPair {
    private: Zeroizing<String>,
    public: String,
    fingerprint: String,
}

impl KeyPair {
    /// A new one, without a passphrase.
    ///
    /// # Errors
    /// [`Code::Internal`] if it cannot be written down.
    pub fn new(comment: &str) -> Result<Self> {
        let mut seed = Zeroizing::new([0; 32]);
        random::fill(seed.as_mut_slice());
        let mut key = PrivateKey::from(Ed25519Keypair::from_seed(&seed));
        key.set_comment(comment);
        let failed = |error| Error::internal("a key has no text").source(error);
        let private = key.to_openssh(LineEnding::LF).map_err(failed)?;
        Self::of(&key, private)
    }

    /// That of a private key as text.
    ///
    /// # Errors
    /// [`Code::ConnectionAuth`] if it is none, or needs a passphrase.
    pub fn read(private: &str) -> Result<Self> {
        let bad = |error| Error::new(Code::ConnectionAuth, "this is no private key of OpenSSH").source(error);
        let key = PrivateKey::from_openssh(private).map_err(bad)?;
        if key.is_encrypted() {
            return Err(Error::new(Code::ConnectionAuth, "the key needs a passphrase"));
        }
        Self::of(&key, Zeroizing::new(private.to_owned()))
    }

    fn of(key: &PrivateKey, private: Zeroizing<String>) -> Result<Self> {
        let public = key.public_key().to_openssh().map_err(|error| Error::internal("a key has no text").source(error))?;
        Ok(Self { private, public, fingerprint: fingerprint(key.public_key()) })
    }

    /// The private half, as a file of OpenSSH holds it.
    pub fn private(&self) -> &str {
        &self.private
    }

    /// The private half, to log in with.
    pub fn secret(&self) -> Secret {
        Secret::new(self.private.as_str())
    }

    /// The public half: one line of `authorized_keys`.
    pub fn public(&self) -> &str {
        &self.public
    }

    /// The public half's fingerprint, `SHA256:…`.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }
}

impl std::fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "KeyPair({})", self.fingerprint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_is_made_read_again_and_never_shown() {
        let pair = KeyPair::new("vmoon").unwrap();
        let again = KeyPair::read(pair.private()).unwrap();
        assert_eq!((again.public(), again.fingerprint()), (pair.public(), pair.fingerprint()));
        assert!(pair.public().starts_with("ssh-ed25519 ") && pair.public().ends_with(" vmoon") && !pair.public().contains('\n'));
        assert!(pair.private().starts_with("-----BEGIN OPENSSH PRIVATE KEY-----\n"));
        assert_eq!(format!("{pair:?}"), format!("KeyPair({})", pair.fingerprint()));
        assert_ne!(KeyPair::new("vmoon").unwrap().fingerprint(), pair.fingerprint());
        assert!(KeyPair::read("x").is_err());
    }
}
