//! What the API is asked. Every request is one flat struct: the fields that the path names travel in the path, the rest in
//! the query (GET) or in a JSON body (POST).
//!
//! A `machine` is a name, `CONNECTION:NAME`, an id or an unambiguous prefix of one. A `session` is a session's id or prefix,
//! or a target `MACHINE[/SESSION]`, whose session is opened by first use.

mod abilities;
mod connections;

pub use abilities::*;
pub use connections::*;

use crate::Data;
use serde::{Deserialize, Serialize};
use vmoon_core::{
    machine::{Request, State},
    package::{Change, ServerChange},
    spec::MachineSpec,
};

/// Asks nothing in particular.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Empty {}

/// Names a machine.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MachineRef {
    /// Which.
    pub machine: String,
}

/// Creates a machine.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CreateMachine {
    /// Its name.
    pub name: String,
    /// On which connection; the default one of its kind if not said.
    #[serde(default)]
    pub connection: Option<String>,
    /// What it shall be. Without a kind it is of its connection's.
    pub spec: MachineSpec,
    /// Start it when it is created.
    #[serde(default)]
    pub start: bool,
    /// How long the operation may take, milliseconds; 30 minutes if not said.
    #[serde(default)]
    pub deadline_ms: Option<u64>,
}

/// Copies a running machine with its state.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CloneMachine {
    /// Which.
    pub machine: String,
    /// The name of the copy, which is made on the same connection; it runs at once if the original does.
    pub name: String,
    /// What the copy is to have otherwise, by the names and in the form of a specification; and how it is copied, where there are ways.
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    pub settings: serde_json::Map<String, serde_json::Value>,
    /// How long the operation may take, milliseconds; 30 minutes if not said.
    #[serde(default)]
    pub deadline_ms: Option<u64>,
}

/// Asks something of a machine.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MachineRequest {
    /// Which.
    pub machine: String,
    /// What.
    pub request: Request,
    /// The name of a machine that vmoon has not made and that is to be deleted all the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirm: Option<String>,
    /// What becomes of its disks if it is deleted; those that vmoon made go if not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disks: Option<vmoon_core::hosts::DiskFate>,
    /// How long the operation may take, milliseconds; 5 minutes if not said.
    #[serde(default)]
    pub deadline_ms: Option<u64>,
}

/// Waits for a machine.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WaitMachine {
    /// Which.
    pub machine: String,
    /// For this state; if not said, for any change after `gen`.
    #[serde(default)]
    pub until: Option<State>,
    /// The generation already known.
    #[serde(default, rename = "gen")]
    pub generation: Option<u64>,
    /// Answer with what is known after so many milliseconds (at most 60 000, 30 000 if not said).
    #[serde(default)]
    pub timeout_ms: Option<u64>,
}

/// Names an operation.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct OperationRef {
    /// Which, by id or unambiguous prefix.
    pub operation: String,
}

/// Waits for the end of an operation.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WaitOperation {
    /// Which.
    pub operation: String,
    /// Answer with what is known after so many milliseconds (at most 60 000, 30 000 if not said).
    #[serde(default)]
    pub timeout_ms: Option<u64>,
}

/// Lists operations.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ListOperations {
    /// Only those that run.
    #[serde(default)]
    pub running: Option<bool>,
}

/// Lists sessions.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ListSessions {
    /// Only those of this machine.
    #[serde(default)]
    pub machine: Option<String>,
    /// Also those that ended.
    #[serde(default)]
    pub ended: Option<bool>,
}

/// Names a session.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SessionRef {
    /// Which.
    pub session: String,
}

/// Evaluates code in a session.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Eval {
    /// Which.
    pub session: String,
    /// The chunk.
    pub code: Data,
    /// The chunk's arguments, `...`: at most 250 values. Null is nil among them, and `require "vmoon".null` inside of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub args: Option<Vec<serde_json::Value>>,
    /// Whether the values are wanted as data, too.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub data: bool,
    /// The client's own name for this request: asking again with the same token joins the command instead of running it
    /// twice. At most 255 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// Interrupt the command after so many milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<u32>,
    /// Answer with what is known after so many milliseconds; 0 answers when the command is accepted; for ever if not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait_ms: Option<u64>,
}

/// Names a command.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CommandRef {
    /// `SESSION.NUMBER`.
    pub command: String,
    /// Wait so many milliseconds for its end (at most 60 000); 0 if not said.
    #[serde(default)]
    pub wait_ms: Option<u64>,
}

/// Answers a command that waits for input.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Input {
    /// Which session.
    pub session: String,
    /// The bytes.
    #[serde(default)]
    pub data: Data,
    /// Whether the input ends here.
    #[serde(default)]
    pub end: bool,
}

/// Interrupts.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Interrupt {
    /// Which session.
    pub session: String,
    /// Which command; whatever runs if not said.
    #[serde(default)]
    pub command: Option<u64>,
}

/// Asks the machine about a piece of code without running it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AskCode {
    /// Which session.
    pub session: String,
    /// The chunk, or the text before the cursor.
    pub code: Data,
}

/// Reads a session's transcript.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Read {
    /// Which session.
    pub session: String,
    /// From this stream offset; from the oldest if not said.
    #[serde(default)]
    pub from: Option<u64>,
    /// At most about so many bytes (at most 8 MiB, 1 MiB if not said); at least one piece.
    #[serde(default)]
    pub max: Option<u64>,
    /// Only the pieces of this command.
    #[serde(default)]
    pub command: Option<u64>,
    /// Wait so many milliseconds for something to read (at most 60 000); 0 if not said.
    #[serde(default)]
    pub wait_ms: Option<u64>,
}

/// How to attach.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// See everything, write nothing.
    #[default]
    Viewer,
    /// Hold the pen: one at a time.
    Writer,
    /// Hold the pen, and take it from whoever has it: they are told to go.
    Takeover,
}

/// Attaches to a session's stream.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Attach {
    /// Which session.
    pub session: String,
    /// From this stream offset; only what comes from now on if not said.
    #[serde(default)]
    pub from: Option<u64>,
    /// How.
    #[serde(default)]
    pub mode: Mode,
}

/// Reads or follows events.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Events {
    /// Those after this number; all that are kept if not said.
    #[serde(default)]
    pub since: Option<u64>,
    /// Only those of this machine.
    #[serde(default)]
    pub machine: Option<String>,
}

/// Evaluates one chunk in many sessions at once.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EvalMany {
    /// Which, each as in [`Eval`]; at most 10 000.
    pub sessions: Vec<String>,
    /// The chunk.
    pub code: Data,
    /// As in [`Eval`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub args: Option<Vec<serde_json::Value>>,
    /// As in [`Eval`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub data: bool,
    /// As in [`Eval`]; it names a command in each session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// Interrupt each command after so many milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<u32>,
    /// Answer with what is known after so many milliseconds; 0 answers when the commands are accepted; for ever if not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait_ms: Option<u64>,
    /// Repeat so many bytes of each output and of the values (at most 1 MiB, 64 KiB if not said).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<u64>,
}

/// Names a file of a machine.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FileRef {
    /// The machine.
    pub machine: String,
    /// The path below its work directory, as [`crate::files::path_to_text`] writes it; the directory itself if empty.
    #[serde(default)]
    pub path: String,
}

/// Makes a directory in a machine's work directory.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MakeDirectory {
    /// The machine.
    pub machine: String,
    /// Its path; the directory it is in must exist.
    pub path: String,
    /// Its permission bits; the machine's own user can always use it.
    pub mode: u32,
}

/// Which way a file goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// Out of the machine.
    Get,
    /// Into the machine.
    Put,
}

/// Carries one file out of a machine or into it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TransferFile {
    /// The machine.
    pub machine: String,
    /// The file's path below its work directory; a file of that name is replaced.
    pub path: String,
    /// Which way.
    pub direction: Direction,
    /// The permission bits of a file that is put; 0644 if not said.
    #[serde(default)]
    pub mode: Option<u32>,
}

/// Names an environment of packages; `@` is the one that was chosen with `use`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EnvironmentRef {
    /// Which.
    pub environment: String,
}

/// Makes an environment.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CreateEnvironment {
    /// Its name.
    pub name: String,
    /// The Lua version of its packages, `5.1` to `5.5`; that of the machine, or 5.4, if not said.
    #[serde(default)]
    pub lua: Option<String>,
    /// A machine whose interpreter it is to suit.
    #[serde(default)]
    pub machine: Option<String>,
    /// Only say whether it could be made.
    #[serde(default)]
    pub dry_run: bool,
}

/// Changes the packages of an environment.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ChangePackages {
    /// Which; `@` is the one that was chosen.
    pub environment: String,
    /// What.
    pub change: Change,
    /// Fetch nothing: what is not in the cache is an error.
    #[serde(default)]
    pub offline: bool,
    /// How long the operation may take, milliseconds; 30 minutes if not said.
    #[serde(default)]
    pub deadline_ms: Option<u64>,
    /// Make the environment if it is not there; it is there then when the change is done, and not before. Else it is an error.
    #[serde(default)]
    pub make: Option<MakeEnvironment>,
    /// Names of rocks servers that are not asked this time, though one that is asked later may have the same rocks.
    #[serde(default)]
    pub without: Vec<String>,
}

/// What an environment is made for. 5.4 if nothing is said.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MakeEnvironment {
    /// For this version of Lua.
    #[serde(default)]
    pub lua: Option<String>,
    /// For the version that this machine runs.
    #[serde(default)]
    pub machine: Option<String>,
}

/// Makes a machine use an environment.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ApplyEnvironment {
    /// Which; `@` is the one that was chosen.
    pub environment: String,
    /// The machine.
    pub machine: String,
    /// How long it may take, milliseconds; half an hour if not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<u64>,
}

/// Looks for packages.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SearchPackages {
    /// Words, all of which the name, the summary or a label must have; every package if empty.
    pub query: String,
    /// For this environment: its servers and its Lua; `@` is the one that was chosen.
    pub environment: String,
    /// Look only at what is here.
    #[serde(default)]
    pub offline: Option<bool>,
}

/// Names a package.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PackageRef {
    /// Which.
    pub package: String,
    /// For this environment: its servers and its Lua; `@` is the one that was chosen.
    pub environment: String,
    /// Look only at what is here.
    #[serde(default)]
    pub offline: Option<bool>,
}

/// Asks for the packages of an environment.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ListPackages {
    /// Which; `@` is the one that was chosen.
    pub environment: String,
    /// Also ask the servers for newer versions.
    #[serde(default)]
    pub newer: Option<bool>,
    /// Look only at what is here.
    #[serde(default)]
    pub offline: Option<bool>,
}

/// Asks for a list of rocks servers.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ListServers {
    /// Of this environment; that of new environments if not said.
    #[serde(default)]
    pub environment: Option<String>,
}

/// Changes a list of rocks servers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ChangeServers {
    /// Of this environment, which then has a list of its own; that of new environments, and of all without one, if not said.
    #[serde(default)]
    pub environment: Option<String>,
    /// What.
    pub change: ServerChange,
}
