//! A hypervisor's own language, for what has no verb here: calls by name, answered as they are.
//!
//! The driver holds the session, so that no secret leaves it, and checks a call as far as it knows the language before it is sent.

use crate::Result;
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawCall {
    /// Its name, as the hypervisor has it.
    pub method: String,
    /// Its arguments as people write them: text, numbers and truths plainly, the rest in JSON.
    pub arguments: Vec<String>,
    /// Whether to answer with a task at once, where the hypervisor has that.
    pub background: bool,
    /// How long it may take, milliseconds.
    pub deadline_ms: u64,
}

/// What a call was answered with.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RawAnswer {
    /// The task that does it now, to be asked for with [`Raw::follow`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task: Option<String>,
    /// What it answered; null while a task does it, and where there is nothing to answer.
    pub result: Value,
    /// What people should know about the call, for example that it could not be checked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// How far a task is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RawTask {
    /// How much is done, from 0 to 1.
    pub progress: f64,
    /// Whether it has ended well.
    pub ended: bool,
    /// What it ended with.
    #[serde(default)]
    pub result: Value,
}

/// Makes calls.
#[async_trait]
pub trait Raw: Send + Sync {
    /// Makes one. MUST NOT send what it knows to be wrong.
    ///
    /// # Errors
    /// [`Code::Usage`](crate::Code::Usage) for a call that cannot be, with all that is wrong with it; else what the hypervisor answers.
    async fn call(&self, call: &RawCall) -> Result<RawAnswer>;

    /// Waits until a task is further than `known`, or has ended, or for so many milliseconds; how far it is then. One that has ended is cleared away.
    ///
    /// # Errors
    /// What the task has failed with.
    async fn follow(&self, task: &str, known: Option<f64>, patience_ms: u64) -> Result<RawTask>;

    /// Asks a task to stop, which it need not.
    async fn cancel(&self, task: &str) -> Result<()>;
}
