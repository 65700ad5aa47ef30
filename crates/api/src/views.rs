//! What the API answers. `-o json` prints exactly these. Times are milliseconds since the Unix epoch, durations microseconds.

use crate::Data;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use vmoon_core::{
    CommandId, ConnectionId, MachineId, OperationId, SessionId,
    ability::{Address, Change, Effect, UsedEnvironment},
    connection::{ConnectionState, SecretPlace},
    device::{Device, DeviceKind},
    driver::{Abilities, ChannelKind, Check, Exit},
    machine::{Answer, State, Verb},
    operation::{Outcome, Progress},
    package::Difference,
    session::SessionState,
    spec::MachineSpec,
};

/// Who answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Hello {
    /// The daemon's version.
    pub version: String,
    /// The newest API version it speaks.
    pub protocol: u32,
    /// The oldest API version it speaks.
    pub min_protocol: u32,
    /// Its process id.
    pub pid: u32,
    /// When it started.
    pub started_ms: u64,
    /// Its state directory.
    pub state_dir: String,
    /// The kinds of machine it can make.
    pub kinds: Vec<String>,
    /// How many machines it knows.
    pub machines: u64,
    /// How many of them run.
    pub running: u64,
    /// How much may be made, and how much was.
    #[serde(default)]
    pub quota: QuotaView,
}

/// One quota of the user.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// How much is used.
    pub used: u64,
    /// How much may be used; without limit if not said.
    pub limit: Option<u64>,
}

/// The quotas of the user, as `config.toml` sets them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuotaView {
    /// Machines that exist.
    pub machines: Share,
    /// Machines that run, or are about to.
    pub running: Share,
    /// The memory limits of the machines that run, bytes, in sum.
    pub memory: Share,
}

/// A machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MachineView {
    /// Its identifier.
    pub id: MachineId,
    /// Its name.
    pub name: String,
    /// The name of its connection.
    pub connection: String,
    /// Its kind.
    pub kind: String,
    /// Its state.
    pub state: State,
    /// The operation that holds it.
    pub operation: Option<OperationId>,
    /// The operation's verb.
    pub doing: Option<Verb>,
    /// Rises by one whenever anything of this view changes.
    #[serde(rename = "gen")]
    pub generation: u64,
    /// When it was created.
    pub created_ms: u64,
    /// When its state last changed.
    pub since_ms: u64,
    /// How its last run ended, while it is off.
    pub exit: Option<Exit>,
    /// What was asked for; `None` for machines that vmoon did not make.
    pub spec: Option<MachineSpec>,
    /// What it can do.
    pub abilities: Abilities,
    /// Why it was stopped by itself, in words, until it is started again: it was idle. Only when one machine is shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expired: Option<String>,
    /// The last failed operation's error, until another operation succeeds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<vmoon_core::error::ErrorRecord>,
    /// Facts for people; only when one machine is shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub facts: Option<serde_json::Map<String, serde_json::Value>>,
    /// Its sessions; only when one machine is shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sessions: Option<Vec<SessionView>>,
}

/// The answer to a request for a machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Answered {
    /// What was decided; a refusal arrives as an error instead.
    #[serde(flatten)]
    pub answer: Answer,
    /// The machine, as it is now.
    pub machine: MachineView,
    /// What may surprise about a machine that is made, a sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// What a request would do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlanView {
    /// The machine's name.
    pub name: String,
    /// What would be done, one sentence each; empty where nothing is to be done.
    pub steps: Vec<String>,
}

/// An operation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OperationView {
    /// Its identifier.
    pub id: OperationId,
    /// What it does.
    pub verb: Verb,
    /// To which machine, if to one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<MachineId>,
    /// To which environment of packages, if to one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<String>,
    /// The name of the machine or environment.
    pub name: String,
    /// What is done, for people, where the verb does not say it: `install lpeg`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub what: String,
    /// When it began.
    pub started_ms: u64,
    /// When it must be done.
    pub deadline_ms: u64,
    /// When it ended.
    pub ended_ms: Option<u64>,
    /// The driver's last report.
    pub progress: Progress,
    /// How it ended; `None` while it runs.
    pub outcome: Option<Outcome>,
    /// What came of it, where there is more to say; its form is told by what has begun it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<serde_json::Value>,
}

/// A session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SessionView {
    /// Its identifier.
    pub id: SessionId,
    /// Its name.
    pub name: String,
    /// Its machine.
    pub machine: MachineId,
    /// The machine's name.
    pub machine_name: String,
    /// What its channel carries.
    pub kind: ChannelKind,
    /// Its state.
    #[serde(flatten)]
    pub state: SessionState,
    /// When it was opened.
    pub opened_ms: u64,
    /// The oldest stream offset that can still be read.
    pub oldest: u64,
    /// The stream offset after the last byte written.
    pub written: u64,
    /// The command that runs.
    pub busy: Option<u64>,
    /// How many commands wait behind it.
    pub queued: u32,
    /// Whether the running command waits for input.
    pub waiting_input: bool,
    /// How many watch.
    pub viewers: u32,
    /// Whether somebody holds the pen.
    pub writer: bool,
    /// Whether its connection is closed because nobody uses it. It goes on where it is held, as far as is known, and the next who uses it is connected again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub resting: bool,
    /// Set while the transcript cannot be written: the machine waits, nothing is lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stalled: Option<vmoon_core::error::ErrorRecord>,
    /// Why its channel cannot be opened now, if that was tried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<vmoon_core::error::ErrorRecord>,
}

/// Whether a command is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CommandState {
    /// It waits or runs.
    Running,
    /// It is answered.
    Done,
    /// The machine ended before it was answered.
    Lost,
}

/// How a command failed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CommandError {
    /// `command.failed`, `command.incomplete`, `command.interrupted` or `command.deadline`; of a lost command `machine.did_not_yield`.
    pub code: vmoon_core::Code,
    /// Whether the chunk did not even compile.
    pub syntax: bool,
    /// The error value as text.
    pub message: Data,
    /// The traceback; may be empty.
    pub traceback: Data,
}

/// A part of a command's values that has no form in JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unfit {
    /// Where it is, as Lua would write it: `[1].key[2]` is in the first value.
    pub path: String,
    /// What is there, or why it does not fit.
    pub why: String,
}

/// A command and what it has answered so far.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CommandView {
    /// Its identifier.
    pub id: CommandId,
    /// The machine's name.
    pub machine: String,
    /// Whether it is done.
    pub state: CommandState,
    /// What it wrote to standard output.
    pub stdout: Data,
    /// What it wrote to standard error.
    pub stderr: Data,
    /// Its values, as a REPL prints them.
    pub values: Option<Data>,
    /// Its values as data, where they were wanted so and fit in 8 MiB; what has no form in JSON is null and told of in `unfit`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Vec<serde_json::Value>>,
    /// What of the values has no form in JSON, at most 100 places.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unfit: Vec<Unfit>,
    /// Its error.
    pub error: Option<CommandError>,
    /// Whether it waits for input.
    pub waiting_input: bool,
    /// How long it ran, once it is done.
    pub duration_us: Option<u64>,
    /// Set when more was written than is repeated here (1 MiB): read the rest from `from`.
    pub truncated: bool,
    /// The stream offset where it was accepted.
    pub from: u64,
    /// The stream offset after its last frame, once it is done.
    pub to: Option<u64>,
}

/// What came of a chunk in one of many sessions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ManyView {
    /// The session, as it was asked for.
    pub session: String,
    /// The command and what it answered; nothing if it was not accepted.
    pub command: Option<CommandView>,
    /// Why it was not accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<vmoon_core::error::ErrorRecord>,
}

/// What a machine uses and has done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MachineUsage {
    /// Which.
    pub id: MachineId,
    /// Its name.
    pub name: String,
    /// The name of its connection.
    pub connection: String,
    /// Its state.
    pub state: State,
    /// Its process on this computer.
    pub pid: Option<i32>,
    /// Processor time since it was started, microseconds.
    pub cpu_us: Option<u64>,
    /// Memory it occupies, bytes: for a Lua machine the resident set of its processes, in which shared pages count whole.
    pub memory_bytes: Option<u64>,
    /// Commands that were accepted in its live sessions.
    pub commands: u64,
    /// Commands that run now.
    pub busy: u32,
    /// Commands that wait behind them.
    pub queued: u32,
    /// The message of the last command that failed in its live sessions, at most 200 characters.
    pub last_error: Option<String>,
}

/// What all machines use.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UsageView {
    /// When this was measured, microseconds of the daemon's monotonic clock: two answers tell the share of a processor.
    pub at_us: u64,
    /// The machines, by connection and name.
    pub machines: Vec<MachineUsage>,
}

/// A directory of a machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FilesView {
    /// What is in it, by name.
    pub entries: Vec<crate::files::FileEntry>,
}

/// One piece of a session's stream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Piece {
    /// The stream offset of its frame.
    pub at: u64,
    /// The command it belongs to, or 0.
    pub command: u64,
    /// What it is.
    pub kind: PieceKind,
    /// Its content.
    pub data: Data,
}

/// What a [`Piece`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PieceKind {
    /// The code of a command.
    Code,
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// Values.
    Values,
    /// An error, with its traceback.
    Error,
    /// An unfinished chunk.
    Incomplete,
    /// The command waits for input.
    WantsInput,
    /// The command is done; the data is its duration in microseconds.
    Done,
    /// The program asked to end; the data is its exit code.
    Exit,
    /// Bytes were lost here; the data is how many, or `unknown` where nobody could listen, so that perhaps none are.
    Gap,
    /// Something this version does not know.
    Other,
}

/// A part of a session's transcript.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReadView {
    /// The pieces, oldest first.
    pub pieces: Vec<Piece>,
    /// Where to go on reading.
    pub next: u64,
    /// Whether the session is over and everything was read.
    pub ended: bool,
}

/// What completes an expression.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NamesView {
    /// Whether the machine was busy and could not be asked.
    #[serde(default)]
    pub busy: bool,
    /// Byte offset (from 0) in the text where the completed word begins.
    #[serde(default)]
    pub from: usize,
    /// The candidates, sorted.
    #[serde(default)]
    pub names: Vec<String>,
}

/// Whether a chunk is complete.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CompletenessView {
    /// `complete`, `incomplete`, `invalid` or `busy`.
    pub verdict: String,
    /// The compiler's message.
    pub message: Data,
}

/// A connection.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConnectionView {
    /// Its identifier.
    pub id: ConnectionId,
    /// Its name.
    pub name: String,
    /// The kind of its machines.
    pub kind: String,
    /// Where it leads.
    pub uri: String,
    /// What is known about the link.
    pub state: ConnectionState,
    /// The settings a machine's specification may hold there, with their help.
    pub settings: BTreeMap<String, String>,
    /// Whether it is meant where none is named.
    #[serde(default)]
    pub default: bool,
    /// How many machines it has.
    #[serde(default)]
    pub machines: u64,
    /// When its state last changed.
    #[serde(default)]
    pub since_ms: u64,
    /// Why it is not up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<vmoon_core::error::ErrorRecord>,
    /// As whom, where the URI does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The file with its private key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
    /// The fingerprint of the other side that was accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
    /// Where its secret is; the secret itself is never shown.
    #[serde(default)]
    pub secret: SecretPlace,
    /// What people should know of it although it works.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub concerns: Vec<String>,
    /// Whether its machines can tell their addresses.
    #[serde(default = "addresses")]
    pub addresses: bool,
}

/// What a daemon means that says nothing of it.
fn addresses() -> bool {
    true
}

/// How a connection has answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TestView {
    /// The connection.
    pub connection: ConnectionView,
    /// How many machines it has listed.
    pub machines: u64,
    /// How long it took to list them.
    pub took_us: u64,
    /// What its driver requires, and what it has found.
    pub checks: Vec<Check>,
}

/// A connection with what its hosts have to offer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConnectionDetails {
    /// The connection.
    #[serde(flatten)]
    pub connection: ConnectionView,
    /// What there is; nothing where its driver cannot tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inventory: Option<vmoon_core::hosts::Inventory>,
    /// Why that is not known now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inventory_error: Option<vmoon_core::error::ErrorRecord>,
}

/// The findings of `vmoon doctor`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DoctorView {
    /// All findings.
    pub checks: Vec<Check>,
}

/// Nothing to say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nothing {}

/// An operation that was begun.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BegunView {
    /// Its identifier: wait for it to learn how it ends.
    pub operation: OperationId,
}

/// What became of a machine whose environment was switched.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AppliedView {
    /// The machine's name.
    pub machine: String,
    /// The environment it uses.
    pub environment: UsedEnvironment,
    /// From when on: for `now`, modules that are loaded later are found in it.
    pub effect: Effect,
    /// Modules that were loaded from an environment before; they stay as they are.
    #[serde(default)]
    pub loaded: Vec<String>,
    /// Whether the machine was busy: it takes effect when the command that runs is done.
    #[serde(default)]
    pub pending: bool,
    /// What was done, or would be.
    pub steps: Vec<String>,
}

/// The lock of an environment, as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockView {
    /// The text, TOML.
    pub lock: String,
}

/// How an environment compares with its lock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyView {
    /// The environment's name.
    pub environment: String,
    /// The generation that was looked at.
    pub generation: u64,
    /// How many files were looked at.
    pub files: u64,
    /// What differs; nothing if all is well.
    pub differences: Vec<Difference>,
}

/// Work in place, as it was begun or would be done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkView {
    /// What is done, one sentence each.
    pub steps: Vec<String>,
    /// The changes of settings among it, and when each takes effect.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<Change>,
    /// What was decided; nothing if it was only asked what would be done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<Answer>,
    /// The machine, as it is now.
    pub machine: MachineView,
}

/// What was, or would be, made for one connection.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RepairView {
    /// The connection.
    pub connection: String,
    /// What was done, one sentence each.
    pub steps: Vec<String>,
    /// Why no more was done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<vmoon_core::error::ErrorRecord>,
}

/// The devices of a machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DevicesView {
    /// Those it has, now or from its next start on.
    pub devices: Vec<Device>,
    /// What can be added.
    pub kinds: Vec<DeviceKind>,
}

/// How a program in a machine ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExecView {
    /// Its status, if it ended by itself.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// Its standard output.
    pub stdout: Data,
    /// Its standard error.
    pub stderr: Data,
    /// Whether output beyond the driver's limit was dropped.
    pub truncated: bool,
}

/// Whether a machine has what was waited for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReadyView {
    /// Whether it has.
    pub ready: bool,
    /// Its address, once it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<Address>,
    /// What is missing, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub missing: String,
}

/// A picture of a machine's screen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PictureView {
    /// Its media type.
    pub media_type: String,
    /// The file's content.
    pub data: Data,
}
