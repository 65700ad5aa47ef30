//! Where the files of a machine and of its lives are, and what is in them.
//!
//! `<state>/lua/<machine>/machine.json` and `work/` belong to the machine (`homes` says where the work directory of a copy is); `<state>/run/<boot>/<machine>/<life>/` belongs to one
//! life of it: `start.json` (for a holder that is started as a program), `meta.json` (from the holder), `ring`, `spill`, `exit.json`,
//! `status.json` (from its zygote), `layers.json` (what holds an installed interpreter), `sock`, `stderr`. The sockets of zygotes are beside the machines.

use crate::{
    forking::forget,
    host::store::Overflow,
    settings::{BUILTIN, Settings},
    zygote::Parent,
};
use serde::{Deserialize, Serialize};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::OnceLock,
};
use vmoon_confine::{Layer, Profile, Report, Rules, Status};
use vmoon_core::{Error, MachineId, Result, driver::Exit};
use vmoon_lua_wire::program::Options;
use vmoon_sys::{
    atomic,
    process::{Identity, boot_id},
};

/// The machine's record; `complete` is written last by `create`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) id: MachineId,
    pub(crate) name: String,
    pub(crate) settings: Settings,
    #[serde(default)]
    pub(crate) complete: bool,
    /// Of a copy of a machine: the directory that has its work directory, below the state directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) home: Option<PathBuf>,
}

/// What the holder is told at its start. `S` is what is taken of the shape: whoever knows that already does not read it again.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Start<S = Shape> {
    pub(crate) own: Own,
    pub(crate) shape: S,
}

/// What is a machine's own.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Own {
    pub(crate) machine: MachineId,
    pub(crate) life: u64,
    /// Its current directory.
    pub(crate) work: PathBuf,
    /// Directories that it may read, write and load code from, besides what the rules grant.
    #[serde(default)]
    pub(crate) places: Vec<PathBuf>,
    pub(crate) overflow: Overflow,
    /// Bytes.
    pub(crate) ring: u64,
    /// Bytes.
    pub(crate) spill: u64,
    /// Bytes; only for `builtin`.
    #[serde(default)]
    pub(crate) memory: Option<u64>,
    /// How long an interrupted command may go on before its process is ended, milliseconds.
    pub(crate) grace_ms: u64,
    /// How long a command may run that brings no deadline of its own, seconds.
    #[serde(default)]
    pub(crate) command_time: Option<u64>,
    /// The most a command may print, bytes.
    #[serde(default)]
    pub(crate) output: Option<u64>,
    /// The most its work directory may hold, bytes.
    #[serde(default)]
    pub(crate) work_size: Option<u64>,
}

/// What many machines have alike: a process can be made that way before it is known which of them it will be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Shape {
    /// `builtin`, or the absolute path of an interpreter.
    pub(crate) runtime: String,
    /// What the process may do besides what is its own; everything if that is not said.
    #[serde(default = "trusted")]
    pub(crate) rules: Rules,
    /// What the Lua side is told: the profile, and how it is interrupted. Where a work directory is granted it is the machine's own, and only said to be
    /// granted.
    #[serde(default)]
    pub(crate) lua: Options,
}

impl Shape {
    /// Whether a process can be made this way before it is whose: what is looked at only then has no part in it.
    pub(crate) fn can_be_made_ahead(&self) -> bool {
        let rules = &self.rules;
        let profile = match rules.profile {
            Profile::Sealed | Profile::Trusted => true,
            // Whether code may be mapped is decided by what is granted alike.
            Profile::Files => !rules.execute.is_empty(),
            // Its broker writes to a file of the life.
            Profile::Net => false,
        };
        profile && self.runtime == BUILTIN && self.lua.protocol.is_none()
    }
}

impl Start {
    /// All that the process may do.
    pub(crate) fn rules(&self) -> Rules {
        let mut rules = self.shape.rules.clone();
        rules.write.extend(self.own.places.iter().cloned());
        rules.execute.extend(self.own.places.iter().cloned());
        rules
    }

    /// All that the Lua side is told.
    pub(crate) fn options(&self) -> Options {
        let mut options = self.shape.lua.clone();
        if let Some(work) = &mut options.grants.work {
            *work = self.own.work.to_string_lossy().into_owned();
        }
        options
    }
}

/// The rules of a process that may do everything.
pub(crate) fn trusted() -> Rules {
    Rules { profile: Profile::Trusted, ..Rules::default() }
}

/// What the holder tells of itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Meta {
    /// The 256-bit key that a client must show.
    pub(crate) key: String,
    pub(crate) process: Identity,
    pub(crate) life: u64,
    pub(crate) runtime: String,
    /// The zygote it was forked by; nothing if it was started as a program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) zygote: Option<Parent>,
    /// What lets it fork copies of itself; the holder has forgotten it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) fork_token: Option<u64>,
    /// Which layers hold it, if it confined itself before it wrote this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) layers: Option<Report>,
}

impl Meta {
    /// Writes it to a new file, with one write(2): whoever reads it finds nothing, or all of it. No trace of the token is left in the memory
    /// of the allocator.
    ///
    /// # Errors
    /// Those of the file system; nothing is in the file then.
    pub(crate) fn write(&self, file: &File) -> io::Result<()> {
        // Enough for all of it, or growing would leave pieces behind.
        let mut text = Vec::with_capacity(4096);
        serde_json::to_writer(&mut text, self)?;
        let written = (&*file).write_all(&text).inspect_err(|_| {
            let _ = file.set_len(0);
        });
        forget(&mut text);
        written
    }

    /// The same at that path, where nothing is yet.
    ///
    /// # Errors
    /// Those of the file system.
    pub(crate) fn record(&self, path: &Path) -> Result<()> {
        let new = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
        new.and_then(|file| self.write(&file)).map_err(|error| Error::io(format_args!("write {}", path.display()), error))
    }
}

/// Which layers hold the process: of an installed interpreter, which confines itself after its holder is known, and of holders of older builds.
pub(crate) const LAYERS: &str = "layers.json";
/// The directory of files by which an installed interpreter is told something.
pub(crate) const FLAGS: &str = "flags";

/// How a process ended, by its zygote, which knows nothing else of it. What the holder or the driver has recorded says more.
pub(crate) const STATUS: &str = "status.json";

/// Where it is said that the driver is about to kill a process.
pub(crate) const CONDEMNED: &str = "condemned";

/// The variable in the environment of a holder and of all it starts, by which left-overs are found.
pub(crate) const MARK: &str = "VMOON_LIFE";

/// The value of [`MARK`].
pub(crate) fn mark(machine: MachineId, life: u64) -> String {
    format!("{machine}/{life}")
}

/// One life of a machine, in this boot.
#[derive(Clone, Debug)]
pub(crate) struct Life {
    pub(crate) number: u64,
    pub(crate) dir: PathBuf,
}

impl Life {
    pub(crate) fn meta(&self) -> Result<Option<Meta>> {
        let path = self.dir.join("meta.json");
        // One that is being written at this moment is empty.
        atomic::read_json(&path).or_else(|error| if path.metadata().is_ok_and(|file| file.len() == 0) { Ok(None) } else { Err(error) })
    }

    /// How it ended, if somebody wrote that down.
    pub(crate) fn exit(&self) -> Option<Exit> {
        atomic::read_json(&self.dir.join("exit.json")).ok().flatten()
    }

    /// How its process ended, if a zygote was its parent and has seen it.
    pub(crate) fn status(&self) -> Option<Exit> {
        atomic::read_json(&self.dir.join(STATUS)).ok().flatten()
    }

    /// The directory of all lives of this boot.
    pub(crate) fn boot(&self) -> &Path {
        self.dir.parent().and_then(Path::parent).unwrap_or(&self.dir)
    }

    pub(crate) fn write_exit(&self, exit: &Exit) -> Result<()> {
        // Whoever deletes the machine at this moment takes the directory away, and with it all who could want the record.
        atomic::write_json(&self.dir.join("exit.json"), exit).or_else(|error| if self.dir.exists() { Err(error) } else { Ok(()) })
    }

    /// Which layers hold it; nothing if it has not come so far.
    pub(crate) fn layers(&self) -> Option<Report> {
        let told = self.meta().ok().flatten().and_then(|meta| meta.layers);
        told.or_else(|| atomic::read_json(&self.dir.join(LAYERS)).ok().flatten())
    }

    /// Whether the process of an embedded runtime could start no other: the kernel has refused it since before it ran any code. With
    /// the broker of connections it had one from the beginning.
    pub(crate) fn is_alone(&self) -> bool {
        self.layers()
            .is_some_and(|report| report.get(Layer::Seccomp) == Some(&Status::On) && report.get(Layer::Broker) != Some(&Status::On))
    }

    /// Says that it is about to be killed by us.
    pub(crate) fn condemn(&self) -> Result<()> {
        atomic::write(&self.dir.join(CONDEMNED), b"")
    }

    /// Whether that was said.
    pub(crate) fn is_condemned(&self) -> bool {
        self.dir.join(CONDEMNED).exists()
    }
}

/// The directories of one driver.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    state: PathBuf,
    /// The same without symbolic links, once that was asked for.
    real: OnceLock<PathBuf>,
    /// The directories of earlier boots, once they were asked for: there will be no more of them.
    earlier: OnceLock<Vec<PathBuf>>,
}

impl Layout {
    pub(crate) fn new(state: PathBuf) -> Self {
        Self { state, real: OnceLock::new(), earlier: OnceLock::new() }
    }

    /// The state directory without symbolic links, as the kernel's rules want paths. It must exist.
    pub(crate) fn real_state(&self) -> &Path {
        self.real.get_or_init(|| self.state.canonicalize().unwrap_or_else(|_| self.state.clone()))
    }

    pub(crate) fn state(&self) -> &Path {
        &self.state
    }

    pub(crate) fn machines(&self) -> PathBuf {
        self.state.join("lua")
    }

    pub(crate) fn machine(&self, id: MachineId) -> PathBuf {
        self.machines().join(id.to_string())
    }

    pub(crate) fn record_path(&self, id: MachineId) -> PathBuf {
        self.machine(id).join("machine.json")
    }

    pub(crate) fn record(&self, id: MachineId) -> Result<Option<Record>> {
        atomic::read_json(&self.record_path(id))
    }

    pub(crate) fn write(&self, record: &Record) -> Result<()> {
        atomic::write_json(&self.record_path(record.id), record)
    }

    /// The work directory of a machine.
    pub(crate) fn work(&self, record: &Record) -> PathBuf {
        self.state.join(work(record))
    }

    /// The same without symbolic links above it.
    pub(crate) fn real_work(&self, record: &Record) -> PathBuf {
        self.real_state().join(work(record))
    }

    pub(crate) fn runs(&self) -> PathBuf {
        self.state.join("run")
    }

    /// The directory of this machine's lives in this boot.
    pub(crate) fn lives_dir(&self, id: MachineId) -> PathBuf {
        self.runs().join(boot_id()).join(id.to_string())
    }

    /// The life of this machine in this boot with that number.
    pub(crate) fn life(&self, id: MachineId, number: u64) -> Life {
        Life { number, dir: self.lives_dir(id).join(number.to_string()) }
    }

    /// The lives of this machine in this boot that left files, oldest first.
    ///
    /// # Errors
    /// When the directory cannot be read, for want of a descriptor say: that is not the same as that there is none.
    pub(crate) fn lives(&self, id: MachineId) -> Result<Vec<Life>> {
        let dir = self.lives_dir(id);
        let mut lives: Vec<Life> = numbers(&dir)?.into_iter().map(|number| Life { number, dir: dir.join(number.to_string()) }).collect();
        lives.sort_by_key(|life| life.number);
        Ok(lives)
    }

    /// The directories of this machine's lives in earlier boots.
    pub(crate) fn earlier_boots(&self, id: MachineId) -> Vec<PathBuf> {
        let boots = self.earlier.get_or_init(|| {
            let boots = fs::read_dir(self.runs()).into_iter().flatten().filter_map(|boot| Some(boot.ok()?.path()));
            boots.filter(|boot| boot.file_name().is_some_and(|name| name != boot_id())).collect()
        });
        boots.iter().map(|boot| boot.join(id.to_string())).filter(|dir| dir.is_dir()).collect()
    }

    /// The largest number of any life of this machine, in whatever boot; those of this one are told.
    ///
    /// # Errors
    /// As [`Self::lives`].
    pub(crate) fn last_number(&self, id: MachineId, lives: &[Life]) -> Result<u64> {
        let mut last = lives.last().map_or(0, |life| life.number);
        for dir in self.earlier_boots(id) {
            last = numbers(&dir)?.into_iter().fold(last, u64::max);
        }
        Ok(last)
    }
}

fn numbers(dir: &Path) -> Result<Vec<u64>> {
    let failed = |error| Error::io(format_args!("read {}", dir.display()), error);
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut found = Vec::new();
    for entry in entries {
        found.extend(entry.map_err(failed)?.file_name().to_str().and_then(|name| name.parse::<u64>().ok()));
    }
    Ok(found)
}

/// The work directory of a machine, below the state directory.
fn work(record: &Record) -> PathBuf {
    match &record.home {
        Some(home) => home.join("work"),
        None => Path::new("lua").join(record.id.to_string()).join("work"),
    }
}

/// Removes a directory with all that is in it; a missing one is fine. Somebody who looks at the machine at the same moment may
/// write the record of its end into a directory that is being emptied: then it is emptied again.
pub(crate) fn remove_dir(dir: &Path) -> io::Result<()> {
    const TRIES: u32 = 20;
    for _ in 1..TRIES {
        match fs::remove_dir_all(dir) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {}
            Err(error) => return Err(error),
        }
    }
    fs::remove_dir_all(dir)
}
