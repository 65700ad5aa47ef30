//! Whose certificate is taken for whom. Hosts come with certificates of their own making, each member of a pool with another.

use crate::error::Error;
use sha2::{Digest as _, Sha256};
use std::{
    collections::BTreeMap,
    fmt,
    str::FromStr,
    sync::{Arc, Mutex, PoisonError},
};
use tokio_rustls::rustls::{
    CertificateError, DigitallySignedStruct, Error as TlsError, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor,
    },
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::ParsedCertificate,
};

/// The SHA-256 of a certificate in DER, shown as XAPI shows it (`Certificate.fingerprint_sha256`): `AA:BB:…`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// Of a certificate.
    pub fn of(der: &[u8]) -> Self {
        Self(Sha256::digest(der).into())
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, byte) in self.0.iter().enumerate() {
            write!(f, "{}{byte:02X}", if at > 0 { ":" } else { "" })?;
        }
        Ok(())
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl FromStr for Fingerprint {
    type Err = Error;

    /// Reads 32 bytes in hex, with or without colons, in either case, with or without `SHA256:` before them.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || Error::protocol(format!("\"{text}\" is no SHA-256 of a certificate: 32 bytes in hex are wanted"));
        let bare = text.trim();
        let bare = bare.get(..7).filter(|start| start.eq_ignore_ascii_case("sha256:")).map_or(bare, |_| &bare[7..]);
        let digits: Vec<u8> = bare.bytes().filter(|byte| *byte != b':').collect();
        if digits.len() != 64 || !digits.iter().all(u8::is_ascii_hexdigit) {
            return Err(bad());
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks(2)) {
            *byte = std::str::from_utf8(pair).ok().and_then(|pair| u8::from_str_radix(pair, 16).ok()).ok_or_else(bad)?;
        }
        Ok(Self(bytes))
    }
}

/// Whose certificates are taken.
#[derive(Clone, Debug, Default)]
pub struct Trust {
    /// For these hosts this certificate and no other, whoever has signed it. By name without port.
    pub pins: BTreeMap<String, Fingerprint>,
    /// Takes any certificate. It is said in a warning with every connection and every call.
    pub blindly: bool,
}

/// What a handshake found, for who has to explain why it failed.
#[derive(Debug, Default)]
pub(crate) struct Finding {
    refused: Mutex<Option<(Fingerprint, String)>>,
    concern: Mutex<Option<String>>,
}

impl Finding {
    fn keep(&self, fingerprint: Fingerprint, why: String) {
        *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = Some((fingerprint, why));
    }

    pub(crate) fn take(&self) -> Option<(Fingerprint, String)> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// What is wrong with a certificate that is taken all the same.
    pub(crate) fn concern(&self) -> Option<String> {
        self.concern.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Why a certificate is not in its time, if it is not.
fn out_of_time(certificate: &CertificateDer<'_>, now: UnixTime, provider: &CryptoProvider) -> Option<String> {
    let parsed = ParsedCertificate::try_from(certificate).ok()?;
    let all = provider.signature_verification_algorithms.all;
    // Its time is looked at before who has signed it, which nobody can have here.
    let error = verify_server_cert_signed_by_trust_anchor(&parsed, &RootCertStore::empty(), &[], now, all).err()?;
    use CertificateError::{Expired, ExpiredContext, NotValidYet, NotValidYetContext};
    match &error {
        TlsError::InvalidCertificate(Expired | ExpiredContext { .. } | NotValidYet | NotValidYetContext { .. }) => Some(reason(&error)),
        _ => None,
    }
}

/// Checks one host's certificate: by its pin if it has one, else by the roots of the system.
#[derive(Debug)]
pub(crate) struct Verifier {
    pub(crate) pin: Option<Fingerprint>,
    pub(crate) blindly: bool,
    pub(crate) roots: Arc<Roots>,
    pub(crate) finding: Arc<Finding>,
}

/// The roots of the system, read once.
#[derive(Debug)]
pub(crate) struct Roots {
    verifier: Option<Arc<WebPkiServerVerifier>>,
    pub(crate) provider: Arc<CryptoProvider>,
}

impl Roots {
    /// Reads them; where there are none, only pins help.
    pub(crate) fn of_the_system() -> Self {
        let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
        let mut store = RootCertStore::empty();
        let found = rustls_native_certs::load_native_certs();
        for error in found.errors {
            tracing::debug!(%error, "a root certificate of the system cannot be read");
        }
        store.add_parsable_certificates(found.certs);
        Self::of(store, provider)
    }

    fn of(store: RootCertStore, provider: Arc<CryptoProvider>) -> Self {
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(store), provider.clone()).build().ok();
        Self { verifier, provider }
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        let found = Fingerprint::of(end_entity);
        if let Some(pin) = self.pin {
            if pin == found {
                let concern = out_of_time(end_entity, now, &self.roots.provider);
                *self.finding.concern.lock().unwrap_or_else(PoisonError::into_inner) = concern;
                return Ok(ServerCertVerified::assertion());
            }
            self.finding.keep(found, "it is not the pinned one".into());
            return Err(CertificateError::ApplicationVerificationFailure.into());
        }
        if self.blindly {
            return Ok(ServerCertVerified::assertion());
        }
        let Some(roots) = &self.roots.verifier else {
            self.finding.keep(found, "this computer has no root certificates".into());
            return Err(CertificateError::UnknownIssuer.into());
        };
        roots.verify_server_cert(end_entity, intermediates, server_name, ocsp, now).inspect_err(|error| {
            self.finding.keep(found, reason(error));
        })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        // Also for a pinned certificate: whoever shows it must have its key.
        verify_tls12_signature(message, cert, dss, &self.roots.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        verify_tls13_signature(message, cert, dss, &self.roots.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.roots.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Why a certificate was not taken, for people.
fn reason(error: &TlsError) -> String {
    match error {
        TlsError::InvalidCertificate(CertificateError::UnknownIssuer) => "signed by nobody this computer knows".into(),
        TlsError::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => "it has expired".into(),
        TlsError::InvalidCertificate(CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. }) => {
            "it is not valid yet".into()
        }
        TlsError::InvalidCertificate(CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. }) => {
            "it is that of another name".into()
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Why a certificate for `xcp1.lab` of an authority that this computer knows is not taken, asked for by that name; nothing if it is. Or what is wrong with it all
    /// the same.
    fn refusal(name: &str, from: (i32, u8), to: (i32, u8), pin: impl FnOnce(&[u8]) -> Option<Fingerprint>) -> Option<String> {
        let (authority, own) = (rcgen::KeyPair::generate().unwrap(), rcgen::KeyPair::generate().unwrap());
        let mut root = rcgen::CertificateParams::new(Vec::new()).unwrap();
        root.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let mut store = RootCertStore::empty();
        store.add(root.self_signed(&authority).unwrap().der().clone()).unwrap();
        let mut params = rcgen::CertificateParams::new(vec!["xcp1.lab".to_owned()]).unwrap();
        (params.not_before, params.not_after) = (rcgen::date_time_ymd(from.0, from.1, 1), rcgen::date_time_ymd(to.0, to.1, 1));
        let certificate = params.signed_by(&own, &rcgen::Issuer::new(root, authority)).unwrap();
        let roots = Arc::new(Roots::of(store, Arc::new(tokio_rustls::rustls::crypto::ring::default_provider())));
        let finding = Arc::new(Finding::default());
        let verifier = Verifier { pin: pin(certificate.der()), blindly: false, roots, finding: finding.clone() };
        // The middle of 2026.
        let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(1_782_000_000));
        let name = ServerName::try_from(name.to_owned()).unwrap();
        match verifier.verify_server_cert(certificate.der(), &[], &name, &[], now) {
            Ok(_) => finding.concern().map(|concern| format!("taken, but {concern}")),
            Err(_) => {
                let (found, why) = finding.take().unwrap();
                assert_eq!(found, Fingerprint::of(certificate.der()), "it is shown, so that it can be compared");
                Some(why)
            }
        }
    }

    #[test]
    fn a_certificate_of_a_known_authority_is_taken_in_its_time_and_for_its_name() {
        let none = |_: &[u8]| None;
        assert_eq!(refusal("xcp1.lab", (2026, 1), (2027, 1), none), None);
        assert_eq!(refusal("xcp1.lab", (2024, 1), (2026, 1), none).as_deref(), Some("it has expired"));
        assert_eq!(refusal("xcp1.lab", (2027, 1), (2028, 1), none).as_deref(), Some("it is not valid yet"));
        assert_eq!(refusal("xcp2.lab", (2026, 1), (2027, 1), none).as_deref(), Some("it is that of another name"));
        // Whom somebody has confirmed by its fingerprint is believed whatever it says of itself, and what is odd about it is said; another one is not.
        let own = |der: &[u8]| Some(Fingerprint::of(der));
        assert_eq!(refusal("xcp2.lab", (2026, 1), (2027, 1), own), None);
        assert_eq!(refusal("xcp2.lab", (2024, 1), (2026, 1), own).as_deref(), Some("taken, but it has expired"));
        assert_eq!(refusal("xcp2.lab", (2027, 1), (2028, 1), own).as_deref(), Some("taken, but it is not valid yet"));
        assert!(refusal("xcp1.lab", (2026, 1), (2027, 1), |_| Some(Fingerprint::of(b"x"))).unwrap().contains("pinned"));
    }

    #[test]
    fn fingerprints_are_read_in_the_forms_people_have_them() {
        let shown = Fingerprint::of(b"x").to_string();
        assert_eq!((shown.len(), &shown[..8]), (95, "2D:71:16"));
        for form in [shown.clone(), shown.to_lowercase(), shown.replace(':', ""), format!("SHA256:{shown}"), format!(" {shown}\n")] {
            assert_eq!(form.parse::<Fingerprint>().unwrap().to_string(), shown, "{form}");
        }
        for bad in ["", "SHA256:", &shown[..92], "zz", &shown.replace('2', "g"), "é".repeat(32).as_str()] {
            assert!(bad.parse::<Fingerprint>().is_err(), "{bad}");
        }
    }
}
