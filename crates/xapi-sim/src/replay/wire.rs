//! Requests as they were, and answers as they come, over plain HTTP.

use super::{shape::Names, xml_value};
use crate::Server;
use serde_json::Value;
use std::{io, time::Duration};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

/// How long an answer is read at most; consoles do not end.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long more of a console is waited for.
const QUIET: Duration = Duration::from_millis(300);

/// One request and what came back.
#[derive(Debug)]
pub(super) struct Exchange {
    head: String,
    body: String,
    /// Whether it is a stream that does not end.
    open: bool,
    pub(super) answer: Option<Answer>,
}

/// What came back.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    body: String,
    /// The length that the whole body had.
    bytes: usize,
}

/// What sort of text a body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Empty,
    Json,
    Page,
    Xml,
    Bytes,
}

impl Answer {
    pub(super) fn kind(&self) -> Kind {
        let text = self.body.trim_start();
        match text.get(..5.min(text.len())).unwrap_or_default().to_ascii_lowercase().as_str() {
            "" if self.bytes == 0 => Kind::Empty,
            start if start.starts_with('{') => Kind::Json,
            "<html" | "<!doc" => Kind::Page,
            start if start.starts_with('<') => Kind::Xml,
            // Of some bodies only the length was kept.
            _ => Kind::Bytes,
        }
    }

    pub(super) fn value(&self) -> Option<Value> {
        match self.kind() {
            Kind::Json => serde_json::from_str(&self.body).ok(),
            Kind::Xml => xml_value(&self.body),
            _ => None,
        }
    }

    pub(super) fn is_cut(&self) -> bool {
        self.body.len() < self.bytes
    }

    pub(super) fn text(&self) -> &str {
        &self.body
    }
}

impl Exchange {
    /// Reads a line of a recording: as fields, or as the text that was sent.
    pub(super) fn read(line: &Value) -> Option<Self> {
        let answer = &line["response"];
        if let Some(raw) = line["request"].as_str() {
            let (head, body) = raw.split_once("\r\n\r\n")?;
            return Some(Self { head: head.to_owned(), body: body.to_owned(), open: true, answer: answer.as_str().and_then(parse) });
        }
        let request = &line["request"];
        let (method, path) = (request["method"].as_str()?, request["path"].as_str()?);
        let body = request["body"].as_str();
        // Bodies of imports and of some calls were not kept.
        if body.is_none() && matches!(method, "PUT" | "POST") {
            return None;
        }
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close");
        for (name, value) in request["headers"].as_object().into_iter().flatten() {
            head.push_str(&format!("\r\n{name}: {}", value.as_str()?));
        }
        let text = answer["body"].as_str().unwrap_or_default();
        let bytes = answer["bytes"].as_u64().and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or(text.len());
        let status = answer["status"].as_u64().and_then(|status| u16::try_from(status).ok());
        let answer = status.map(|status| Answer { status, body: text.to_owned(), bytes });
        Some(Self { head, body: body.unwrap_or_default().to_owned(), open: false, answer })
    }

    /// The method that is called, or the request's first line.
    pub(super) fn method(&self) -> String {
        if let Ok(call) = serde_json::from_str::<Value>(&self.body)
            && let Some(method) = call["method"].as_str()
        {
            return method.to_owned();
        }
        let named = self.body.split_once("<methodName>").and_then(|(_, rest)| rest.split_once("</methodName>"));
        named.map_or_else(|| self.head.split(['?', '\r']).next().unwrap_or_default().to_owned(), |(name, _)| name.to_owned())
    }
}

/// Reads an answer as it came over the wire.
fn parse(text: &str) -> Option<Answer> {
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
    let body = if chunked { dechunk(body)? } else { body.to_owned() };
    Some(Answer { status, bytes: body.len(), body })
}

fn dechunk(mut rest: &str) -> Option<String> {
    let mut out = String::new();
    loop {
        let (length, after) = rest.split_once("\r\n")?;
        let length = usize::from_str_radix(length.trim(), 16).ok()?;
        if length == 0 {
            return Some(out);
        }
        out.push_str(after.get(..length)?);
        rest = after.get(length..)?.strip_prefix("\r\n")?;
    }
}

/// Asks it here; nothing if the connection is closed without an answer.
pub(super) async fn ask(server: &Server, exchange: &Exchange, names: &Names) -> io::Result<Option<Answer>> {
    let (mut head, body) = (names.here(&exchange.head), names.here(&exchange.body));
    if !body.is_empty() || head.starts_with("POST") {
        head.push_str(&format!("\r\nContent-Length: {}", body.len()));
    }
    let mut stream = TcpStream::connect(server.address()).await?;
    stream.write_all(format!("{head}\r\n\r\n").as_bytes()).await?;
    // A server that has enough closes the connection in the middle of what is sent.
    let _ = stream.write_all(body.as_bytes()).await;
    let mut got = Vec::new();
    let patience = if exchange.open { QUIET } else { PATIENCE };
    let mut buf = vec![0; 64 << 10];
    while let Ok(Ok(count)) = timeout(patience, stream.read(&mut buf)).await {
        if count == 0 {
            break;
        }
        got.extend_from_slice(&buf[..count]);
    }
    Ok(parse(&String::from_utf8_lossy(&got)))
}
