//! The one error type: a stable code for programs, a sentence for people, a hint for the next step.

use crate::Code;
use serde::{Deserialize, Serialize};
use std::{borrow::Cow, error::Error as StdError, fmt};

/// The result of everything that can fail with an [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, for programs and for people.
///
/// `Display` prints the sentence only; the hint and the chain of sources are printed once, by whoever shows the error.
#[derive(Debug)]
pub struct Error(Box<Inner>);

#[derive(Debug)]
struct Inner {
    code: Code,
    message: Cow<'static, str>,
    hint: Option<Cow<'static, str>>,
    detail: Option<serde_json::Value>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// An error of that code; the message says what happened and why, without a full stop.
    pub fn new(code: Code, message: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Inner { code, message: message.into(), hint: None, detail: None, source: None }))
    }

    /// A defect of ours.
    pub fn internal(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Code::Internal, message)
    }

    /// Adds what to do next.
    pub fn hint(mut self, hint: impl Into<Cow<'static, str>>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// Adds structured detail for programs.
    pub fn detail(mut self, detail: serde_json::Value) -> Self {
        self.0.detail = Some(detail);
        self
    }

    /// Keeps the error that caused this one.
    pub fn source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// An I/O error while doing `what` ("read /path"); a full disk and a refusal get their own codes.
    pub fn io(what: impl fmt::Display, error: std::io::Error) -> Self {
        use std::io::ErrorKind as K;
        let code = match error.kind() {
            K::StorageFull | K::QuotaExceeded | K::FileTooLarge => Code::DiskFull,
            K::PermissionDenied => Code::Permission,
            _ => Code::FileFailed,
        };
        Self::new(code, format!("could not {what}")).source(error)
    }

    /// The stable code.
    pub fn code(&self) -> Code {
        self.0.code
    }

    /// The sentence.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// What to do next, where we know.
    pub fn hint_text(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    /// Structured detail, where there is some.
    pub fn detail_value(&self) -> Option<&serde_json::Value> {
        self.0.detail.as_ref()
    }

    /// The sentence followed by every source, joined by ": ".
    pub fn chain(&self) -> String {
        let mut text = self.0.message.to_string();
        let mut next = StdError::source(self);
        while let Some(error) = next {
            text.push_str(": ");
            text.push_str(&error.to_string());
            next = error.source();
        }
        text
    }

    /// The form that crosses the wire and is stored; the sources become part of the message.
    pub fn to_record(&self) -> ErrorRecord {
        ErrorRecord {
            code: self.0.code,
            message: self.chain(),
            hint: self.0.hint.as_deref().map(str::to_owned),
            detail: self.0.detail.clone(),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}

/// An [`Error`] as it is stored and sent: `{"code","message","hint","detail"}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ErrorRecord {
    /// The stable code.
    pub code: Code,
    /// The sentence, with its causes.
    pub message: String,
    /// What to do next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Structured detail.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<serde_json::Value>,
}

impl From<ErrorRecord> for Error {
    fn from(record: ErrorRecord) -> Self {
        let mut error = Error::new(record.code, record.message);
        error.0.hint = record.hint.map(Cow::Owned);
        error.0.detail = record.detail;
        error
    }
}
