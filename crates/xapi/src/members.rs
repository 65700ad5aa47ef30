//! Other hosts of the pool than the one that is spoken to: consoles, disks and statistics are with the host that has them. Each has a certificate of its own; the
//! coordinator, which is trusted, tells which.

use crate::{
    client::Client,
    error::{Error, Result},
    http::{Stream, beside, split},
    trust::Fingerprint,
};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde_json::Value;

/// What is written otherwise in a query.
const ODD: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'&')
    .add(b'+')
    .add(b'=')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'`')
    .add(b'{')
    .add(b'}')
    .add(b'|')
    .add(b'\\')
    .add(b'^');

/// A place at a host: `/console`, and what is asked of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// `name`, `name:port`.
    pub(crate) host: String,
    pub(crate) path: String,
    query: Vec<(String, String)>,
}

impl Place {
    pub(crate) fn new(host: impl Into<String>, path: impl Into<String>) -> Self {
        Self { host: host.into(), path: path.into(), query: Vec::new() }
    }

    pub(crate) fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.query.push((name.to_owned(), value.into()));
        self
    }

    /// What is asked for under that name.
    pub(crate) fn value(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Reads `https://HOST/PATH?QUERY`, as XAPI writes it. A host without a port is reached at the port of `beside`.
    ///
    /// # Errors
    /// [`Error::Protocol`].
    pub(crate) fn parse(url: &str, near: &str) -> Result<Self> {
        let bad = || {
            Error::protocol(format!("\"{}\" is no place at a host of the pool", url.chars().take(200).collect::<String>().escape_debug()))
        };
        let rest = url.strip_prefix("https://").ok_or_else(bad)?;
        let (host, rest) = rest.split_once('/').ok_or_else(bad)?;
        if rest.bytes().any(|byte| byte.is_ascii_control() || byte == b' ' || byte == b'#' || !byte.is_ascii()) {
            return Err(bad());
        }
        let (name, _) = split(host).map_err(|_| bad())?;
        let has_port = host.strip_prefix('[').map_or_else(|| host.matches(':').count() == 1, |rest| rest.contains("]:"));
        let host = if has_port { host.to_owned() } else { beside(near, name)? };
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let decode = |text: &str| percent_encoding::percent_decode_str(text).decode_utf8().map(|text| text.into_owned()).map_err(|_| bad());
        let mut place = Self::new(host, format!("/{path}"));
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            place.query.push((decode(name)?, decode(value)?));
        }
        Ok(place)
    }

    /// Path and query, with the session; `task_id` is left out of a request that is not meant to do anything.
    pub(crate) fn target(&self, session: &str, with_task: bool) -> String {
        let session = ("session_id".to_owned(), session.to_owned());
        let given = self.query.iter().filter(|(name, _)| name != "session_id" && (with_task || name != "task_id"));
        let all: Vec<String> = given
            .chain([&session])
            .map(|(name, value)| format!("{}={}", utf8_percent_encode(name, ODD), utf8_percent_encode(value, ODD)))
            .collect();
        format!("{}?{}", self.path, all.join("&"))
    }
}

impl Client {
    /// A TLS connection to any host of the pool. Whose certificate is not known yet is asked of the coordinator.
    pub(crate) async fn reach(&self, host: &str) -> Result<Stream> {
        let error = match self.http().dial(host).await {
            Err(error @ Error::Untrusted { .. }) => error,
            other => return other,
        };
        let Ok(Some(fingerprint)) = self.vouch_for(host).await else { return Err(error) };
        self.http().vouched(host, fingerprint);
        self.http().dial(host).await
    }

    /// The fingerprint of a member's certificate as the pool knows it.
    async fn vouch_for(&self, host: &str) -> Result<Option<Fingerprint>> {
        let (name, _) = split(host)?;
        let hosts = self.read("host.get_all_records", vec![]).await?;
        let is_it = |(_, record): &(&String, &Value)| ["address", "hostname"].iter().any(|field| record[*field] == name);
        let Some((reference, _)) = hosts.as_object().into_iter().flatten().find(is_it) else { return Ok(None) };
        // Since 1.290; `fingerprint` held the same before `fingerprint_sha256` was there.
        let certificates = self.read("Certificate.get_all_records", vec![]).await?;
        let of_it = |record: &&Value| record["host"] == *reference && record["type"] == "host";
        let certificate = certificates.as_object().into_iter().flat_map(|all| all.values()).find(of_it);
        let text = certificate.and_then(|record| {
            ["fingerprint_sha256", "fingerprint"].iter().find_map(|field| record[*field].as_str().filter(|text| !text.is_empty()))
        });
        Ok(text.and_then(|text| text.parse().ok()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read_as_xapi_writes_them() {
        let place = Place::parse("https://10.9.0.1/console?uuid=a-b&session_id=OpaqueRef:old", "xcp1:8443").unwrap();
        assert_eq!((place.host.as_str(), place.path.as_str()), ("10.9.0.1:8443", "/console"));
        assert_eq!(place.target("OpaqueRef:x y", true), "/console?uuid=a-b&session_id=OpaqueRef:x%20y");
        assert_eq!(Place::parse("https://[fd00::1]/x", "xcp1").unwrap().host, "[fd00::1]");
        assert_eq!(Place::parse("https://[fd00::1]:9/x", "xcp1:8").unwrap().host, "[fd00::1]:9");
        assert_eq!(Place::parse("https://h:9/x", "xcp1:8").unwrap().host, "h:9");
        for bad in [
            "",
            "http://h/x",
            "https://h",
            "https:///x",
            "https://a b/x",
            "https://h/x y",
            "https://h/x\r\nHost: e",
            "https://u@h/x",
            "https://h/x?a=%ff",
        ] {
            assert!(Place::parse(bad, "h").is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_query_is_not_made_by_pasting() {
        let place = Place::new("h", "/import").with("sr_id", "a&force=true").with("task_id", "OpaqueRef:t");
        assert_eq!(place.target("s", true), "/import?sr_id=a%26force%3Dtrue&task_id=OpaqueRef:t&session_id=s");
        assert_eq!(place.target("s", false), "/import?sr_id=a%26force%3Dtrue&session_id=s");
    }
}
