//! What some machines can do beyond living: each ability is a trait of its own, reached through an accessor of
//! [`Driver`](crate::driver::Driver) that answers `None` where there is no such ability. Plain data, as everywhere at this boundary.

use crate::{Result, driver::Handle, operation::Progress};
use async_trait::async_trait;
use serde::{Deserialize, Serialize};

/// A snapshot of a machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Its name, unique among those of its machine.
    pub name: String,
    /// The snapshot it was made from, if any is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// When it was made, milliseconds since the Unix epoch.
    pub created_ms: u64,
    /// Whether it holds the running state (memory), or disks only.
    pub memory: bool,
    /// Whether the machine goes on from it.
    pub current: bool,
    /// What people should know about it, for example that it dies with the computer; empty if nothing.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
}

/// A snapshot that is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewSnapshot {
    /// Its name.
    pub name: String,
    /// Whether to keep the running state: `None` leaves it to the driver (yes if the machine runs and it can be done).
    #[serde(default)]
    pub memory: Option<bool>,
}

/// States of a machine to return to.
#[async_trait]
pub trait Snapshots: Send + Sync {
    /// Every snapshot of the machine, parents before their children.
    async fn list(&self, handle: &Handle) -> Result<Vec<Snapshot>>;
    /// Makes one. A failure MUST leave none of that name.
    ///
    /// # Errors
    /// [`Code::SnapshotExists`](crate::Code::SnapshotExists) if the name is taken.
    async fn create(&self, handle: &Handle, new: &NewSnapshot) -> Result<Snapshot>;
    /// Returns to it; what the machine was since is lost. The daemon observes the machine afterwards.
    ///
    /// # Errors
    /// [`Code::SnapshotNotFound`](crate::Code::SnapshotNotFound).
    async fn revert(&self, handle: &Handle, name: &str) -> Result<()>;
    /// Deletes it; its children stay. Deleting what is missing is `Ok`.
    async fn delete(&self, handle: &Handle, name: &str) -> Result<()>;
}

/// A program to run in a machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// The program and its arguments; no shell is between.
    pub argv: Vec<String>,
    /// What it reads from its standard input.
    #[serde(default)]
    pub stdin: Vec<u8>,
    /// How long it may take, milliseconds.
    pub deadline_ms: u64,
}

/// How a program in a machine ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// Its status, if it ended by itself.
    #[serde(default)]
    pub code: Option<i32>,
    /// The signal that ended it.
    #[serde(default)]
    pub signal: Option<i32>,
    /// Its standard output.
    pub stdout: Vec<u8>,
    /// Its standard error.
    pub stderr: Vec<u8>,
    /// Whether output beyond the driver's limit was dropped.
    pub truncated: bool,
}

/// Runs programs in machines.
#[async_trait]
pub trait Exec: Send + Sync {
    /// Runs one and waits for its end.
    ///
    /// # Errors
    /// [`Code::FileNotFound`](crate::Code::FileNotFound) when there is no such program, [`Code::Permission`](crate::Code::Permission) when it
    /// may not be run (a shell's 127 and 126 say the same);
    /// [`Code::OperationDeadline`](crate::Code::OperationDeadline) when it took too long; it may still run.
    async fn exec(&self, handle: &Handle, program: &Program) -> Result<Ended>;

    /// The same as a user who has logged in there, where that is another way than [`Exec::exec`].
    ///
    /// # Errors
    /// As [`Exec::exec`], and those of logging in.
    async fn enter(&self, handle: &Handle, program: &Program) -> Result<Ended> {
        self.exec(handle, program).await
    }
}

/// An address of a machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    /// The address, as text.
    pub ip: String,
    /// The interface's name in the machine, if known.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub interface: String,
    /// Its hardware address, `aa:bb:cc:dd:ee:ff`, if known.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub mac: String,
    /// Who says so: `agent`, `lease`, `metrics`, `configured`.
    pub source: String,
}

/// Tells machines' addresses.
#[async_trait]
pub trait Addresses: Send + Sync {
    /// Every address known now, the most trustworthy first; none is not an error.
    async fn addresses(&self, handle: &Handle) -> Result<Vec<Address>>;

    /// Where its SSH server may be reached, the best first, where that is not port 22 of its addresses.
    async fn ssh(&self, handle: &Handle) -> Result<Option<Vec<(String, u16)>>> {
        let _ = handle;
        Ok(None)
    }

    /// Why no address of a machine that runs is known, where more can be said than that: in words, for people.
    async fn missing(&self, handle: &Handle) -> Result<Option<String>> {
        let _ = handle;
        Ok(None)
    }

    /// Whether its SSH server answers, where only the driver has a way there: why it does not. `None` where it is reached from here.
    async fn greets(&self, handle: &Handle) -> Option<Result<()>> {
        let _ = handle;
        None
    }
}

/// Where a machine's screen can be seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DisplayOffer {
    /// `vnc` or `spice`.
    pub protocol: String,
    /// A URI that viewers take, for example `vnc+unix:///path` or `spice://127.0.0.1:5900`.
    pub uri: String,
}

/// A picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    /// Its media type, `image/png`.
    pub media_type: String,
    /// The file's content.
    pub bytes: Vec<u8>,
}

/// Screens of machines.
#[async_trait]
pub trait Display: Send + Sync {
    /// Where its screen can be seen; empty if it has none.
    async fn offers(&self, handle: &Handle) -> Result<Vec<DisplayOffer>>;
    /// What it shows now.
    async fn screenshot(&self, handle: &Handle) -> Result<Picture>;
}

/// A change of a machine's settings, as it was or would be made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The setting.
    pub setting: String,
    /// What is done, for people: `memory 2 GiB → 4 GiB`.
    pub what: String,
    /// When it takes effect.
    pub effect: Effect,
}

/// When a change takes effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// At once.
    Now,
    /// With the machine's next start.
    NextStart,
}

/// Changes machines that exist.
#[async_trait]
pub trait Tune: Send + Sync {
    /// Makes these changes, by the names and in the form of the settings of a specification; all problems at once, before
    /// anything is touched. With `dry_run` it only says what it would do.
    async fn tune(&self, handle: &Handle, settings: &serde_json::Map<String, serde_json::Value>, dry_run: bool) -> Result<Vec<Change>>;
    /// Gives it another name there. The new name is free: the caller has looked.
    async fn rename(&self, handle: &Handle, name: &str) -> Result<Handle>;
}

/// Presses the reset button.
#[async_trait]
pub trait Reset: Send + Sync {
    /// Lets the machine that runs begin anew at once, without asking its guest: what was not written is lost. It is the same life: its channels go on.
    ///
    /// # Errors
    /// [`Code::MachineStopped`](crate::Code::MachineStopped) if it does not run.
    async fn reset(&self, handle: &Handle) -> Result<()>;
}

/// What a driver pushes when something happened to its machines. It says *that* something changed; the daemon then observes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Changed {
    /// This machine, which may be new or gone.
    Machine(Handle),
    /// Anything may have changed (the connection was lost or came back, a machine got another name, notices were dropped): everything is
    /// looked at again.
    All,
}

/// Notices of a driver, in order. Bounded: what does not fit becomes [`Changed::All`].
#[async_trait]
pub trait Notices: Send {
    /// The next one; `None` when the driver is done. Dropping the future loses nothing.
    async fn next(&mut self) -> Option<Changed>;
}

/// An environment of packages as a machine uses it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsedEnvironment {
    /// Its name.
    pub name: String,
    /// Which of its generations.
    pub generation: u64,
    /// The Lua version its packages are for.
    pub lua: String,
}

/// What a machine is to use, and could.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WantedEnvironment {
    /// The environment's name, if it has one.
    pub environment: Option<String>,
    /// The Lua version whose packages its interpreter loads, if that is known.
    pub lua: Option<String>,
}

/// What has become of a machine whose environment was switched.
#[derive(Clone, Debug, PartialEq)]
pub struct Switched {
    /// What it uses from now on, or from its next start on.
    pub environment: UsedEnvironment,
    /// When that takes effect.
    pub effect: Effect,
    /// What is to be evaluated in its session so that it takes effect now: code, and its arguments as JSON.
    pub evaluate: Option<(String, Vec<serde_json::Value>)>,
    /// What was done for that, or would be, one sentence each; empty where nothing is moved.
    pub steps: Vec<String>,
}

/// Who follows work that may take long: is told how far it is, and may give it up until it takes effect, by dropping its future.
pub trait Follow: Send + Sync {
    /// Says what is being done now. Called often: it must cost next to nothing.
    fn progress(&self, progress: Progress);
    /// Said once, before anything changes for the machine: from here on the work is not given up any more.
    ///
    /// # Errors
    /// [`Code::Cancelled`](crate::Code::Cancelled) if it was given up just before; then nothing may change.
    fn commit(&self) -> Result<()>;
}

/// Nobody follows: it is done to its end.
#[derive(Clone, Copy, Debug, Default)]
pub struct Nobody;

impl Follow for Nobody {
    fn progress(&self, _: Progress) {}

    fn commit(&self) -> Result<()> {
        Ok(())
    }
}

/// Machines that use environments of packages.
#[async_trait]
pub trait Environments: Send + Sync {
    /// What running machines use or have used since their start: these generations must stay where they are.
    async fn used(&self) -> Result<Vec<(Handle, UsedEnvironment)>>;
    /// What the machine is to use at its next start. Asked of many machines at once: none is entered for it, so that its Lua version may be unknown.
    async fn of(&self, handle: &Handle) -> Result<WantedEnvironment>;
    /// The Lua version whose packages the machine's interpreter loads, if it says one; the machine is entered where that must be.
    async fn lua(&self, handle: &Handle) -> Result<Option<String>> {
        Ok(self.of(handle).await?.lua)
    }
    /// Makes the machine use an environment as it is now. With `dry_run` it only says what it would do, and refuses what it would refuse. Dropped before
    /// [`Follow::commit`], it has changed nothing for the machine.
    ///
    /// # Errors
    /// [`Code::EnvironmentNotFound`](crate::Code::EnvironmentNotFound); [`Code::SpecInvalid`](crate::Code::SpecInvalid) where it does not suit
    /// the machine's interpreter; [`Code::MachineRunning`](crate::Code::MachineRunning) where the running machine could not read it.
    async fn switch(&self, handle: &Handle, name: &str, dry_run: bool, follow: &dyn Follow) -> Result<Switched>;
}

/// What a name in a directory stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// An ordinary file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Link,
    /// A socket, FIFO or device: never opened.
    Other,
}

/// What is known of one file or directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileFacts {
    /// Its name in its directory, bytes without `/`.
    pub name: Vec<u8>,
    /// What it is.
    pub kind: FileKind,
    /// Its length, bytes; 0 for what is no ordinary file.
    pub size: u64,
    /// Its permission bits, without those for setuid, setgid and sticky.
    pub mode: u32,
    /// When its content last changed, milliseconds since the Unix epoch.
    pub modified_ms: u64,
}

/// Reaches the files of a machine through its connection, where there is no directory on this computer that has them. Paths are
/// bytes; a relative one begins in the login's home.
///
/// # Errors
/// Of all: [`Code::FileNotFound`](crate::Code::FileNotFound), [`Code::FileRefused`](crate::Code::FileRefused) for paths and kinds of
/// files that cannot be copied, [`Code::Permission`](crate::Code::Permission), [`Code::DiskFull`](crate::Code::DiskFull) there,
/// [`Code::DriverUnreachable`](crate::Code::DriverUnreachable).
#[async_trait]
pub trait RemoteFiles: Send + Sync {
    /// What is at a path; a link at its end is followed.
    async fn look(&self, handle: &Handle, path: &[u8]) -> Result<FileFacts>;
    /// What is in a directory, by name; links are not followed.
    async fn list(&self, handle: &Handle, path: &[u8]) -> Result<Vec<FileFacts>>;
    /// Makes a directory, or finds that there is one.
    ///
    /// # Errors
    /// [`Code::FileExists`](crate::Code::FileExists) if something else has the name.
    async fn make_directory(&self, handle: &Handle, path: &[u8], mode: u32) -> Result<FileFacts>;
    /// Opens an ordinary file.
    async fn get(&self, handle: &Handle, path: &[u8]) -> Result<(FileFacts, Box<dyn FileSource>)>;
    /// Begins a file that gets its name only when it is whole, in the place of an older one.
    async fn put(&self, handle: &Handle, path: &[u8], mode: u32) -> Result<Box<dyn FileSink>>;
}

/// The content of a file that is fetched: as many bytes as it had when it was opened.
#[async_trait]
pub trait FileSource: Send {
    /// The next bytes; `None` at the end.
    ///
    /// # Errors
    /// [`Code::FileChanged`](crate::Code::FileChanged) when it became shorter meanwhile.
    async fn next(&mut self) -> Result<Option<Vec<u8>>>;
}

/// A file that is stored. Dropped before its end, it leaves nothing under its name.
#[async_trait]
pub trait FileSink: Send {
    /// Appends bytes.
    async fn write(&mut self, bytes: &[u8]) -> Result<()>;
    /// Gives it its mode and its name.
    async fn finish(self: Box<Self>) -> Result<FileFacts>;
}
