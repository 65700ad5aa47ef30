//! The certificate that a server shows: of its own making as hosts have it, or signed by an authority; in its time, or after its end.

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};
use sha2::{Digest as _, Sha256};
use std::{fmt::Write as _, io, sync::Arc};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{ServerConfig, crypto::ring::default_provider, pki_types::PrivateKeyDer, version::TLS12},
};

/// What kind of certificate.
#[derive(Clone, Debug, Default)]
pub struct Certificate {
    /// Whether its time is over.
    pub expired: bool,
    /// Who has signed it; nobody if nothing else is said.
    pub authority: Option<Authority>,
}

/// Somebody who signs certificates, for tests: whoever has its root believes them.
#[derive(Clone, Debug)]
pub struct Authority {
    key: Arc<KeyPair>,
    root: rcgen::Certificate,
}

fn root() -> io::Result<CertificateParams> {
    let mut params = CertificateParams::new(Vec::new()).map_err(io::Error::other)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    Ok(params)
}

impl Authority {
    /// A new one.
    ///
    /// # Errors
    /// If no key can be made.
    pub fn new() -> io::Result<Self> {
        let key = KeyPair::generate().map_err(io::Error::other)?;
        let root = root()?.self_signed(&key).map_err(io::Error::other)?;
        Ok(Self { key: Arc::new(key), root })
    }

    /// Its root certificate, as files of them are written.
    pub fn pem(&self) -> String {
        self.root.pem()
    }
}

impl Certificate {
    /// Makes one for this name or address: what shows it, and its SHA-256.
    pub(crate) fn make(&self, name: &str) -> io::Result<(TlsAcceptor, String)> {
        let own = KeyPair::generate().map_err(io::Error::other)?;
        let mut params = CertificateParams::new(vec!["sim-host-1".to_owned(), name.to_owned()]).map_err(io::Error::other)?;
        if self.expired {
            (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2021, 1, 1));
        }
        let made = match &self.authority {
            None => params.self_signed(&own),
            Some(authority) => params.signed_by(&own, &Issuer::new(root()?, authority.key.as_ref())),
        };
        let made = made.map_err(io::Error::other)?;
        let key = PrivateKeyDer::try_from(own.serialize_der()).map_err(io::Error::other)?;
        let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(&[&TLS12])
            .map_err(io::Error::other)?
            .with_no_client_auth()
            .with_single_cert(vec![made.der().clone()], key)
            .map_err(io::Error::other)?;
        let mut shown = String::new();
        for byte in Sha256::digest(made.der()) {
            let _ = write!(shown, "{}{byte:02X}", if shown.is_empty() { "" } else { ":" });
        }
        Ok((TlsAcceptor::from(Arc::new(config)), shown))
    }
}
