//! How builders are started: confined, without a network, writing nowhere but in their own directory.

use crate::cache::Work;
use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io::{Read as _, Write as _},
    os::fd::AsFd as _,
    path::{Path, PathBuf},
    time::Duration,
};
use vmoon_confine::{Layer, Limits, Profile, Rules, Status, launch};
use vmoon_core::{Code, Error, Result};
use vmoon_sys::{
    run::{Ran, Run},
    stop::Stop,
};

/// A program that builds something.
#[derive(Debug)]
pub struct Job<'a> {
    /// The program, an absolute path.
    pub exe: &'a Path,
    /// Its arguments, without its own name.
    pub args: Vec<OsString>,
    /// Its whole environment.
    pub env: Vec<(OsString, OsString)>,
    /// The directory it starts in.
    pub dir: &'a Path,
    /// Where it may write, and execute what it has written.
    pub write: &'a Path,
    /// What it may read besides the programs and libraries of this computer.
    pub read: Vec<PathBuf>,
    /// How long it may take.
    pub limit: Duration,
}

/// Starts builders confined.
pub trait Confine: Send + Sync {
    /// Runs a builder to its end.
    ///
    /// # Errors
    /// [`Code::PackageBuild`] if it cannot be started or cannot be confined.
    fn run(&self, job: &Job<'_>, stop: &Stop) -> Result<Ran>;
}

/// Confines by the launcher of [`vmoon_confine::launch`], which is a hidden verb of the one binary.
#[derive(Clone, Debug)]
pub struct Launcher {
    /// The binary.
    pub exe: PathBuf,
    /// The verb that makes it the launcher.
    pub verb: OsString,
}

/// The most output that is kept of one builder, bytes.
const KEEP: usize = 1 << 20;
/// Address space of one process, processor seconds of one process, the largest file, and descriptors.
const LIMITS: Limits = Limits { memory: Some(4 << 30), cpu: Some(900), file_size: Some(1 << 30), open_files: Some(1024) };
/// Programs, their libraries, headers and data.
const SYSTEM: [&str; 8] = ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc/ld.so.cache", "/etc/alternatives"];
/// Devices that give and take bytes and remember nothing.
const DEVICES: [&str; 4] = ["/dev/null", "/dev/zero", "/dev/random", "/dev/urandom"];

fn failed(what: impl Into<String>) -> Error {
    Error::new(Code::PackageBuild, what.into())
}

impl Launcher {
    fn rules(job: &Job<'_>) -> Result<Rules> {
        let real = |path: &Path| path.canonicalize().map_err(|error| Error::io(format_args!("look at {}", path.display()), error));
        let there = |paths: &[&str]| -> Vec<PathBuf> { paths.iter().filter_map(|path| Path::new(path).canonicalize().ok()).collect() };
        let work = real(job.write)?;
        let mut execute = there(&SYSTEM);
        execute.push(work.clone());
        execute.sort();
        execute.dedup();
        let read = job.read.iter().map(|path| real(path)).collect::<Result<_>>()?;
        let mut write = there(&DEVICES);
        write.push(work);
        Ok(Rules { profile: Profile::Sealed, read, write, execute, programs: true, limits: LIMITS, ..Rules::default() })
    }
}

impl Confine for Launcher {
    fn run(&self, job: &Job<'_>, stop: &Stop) -> Result<Ran> {
        let rules = serde_json::to_vec(&Self::rules(job)?).map_err(|error| Error::internal("rules have no JSON form").source(error))?;
        let io = |error: std::io::Error| failed("a builder could not be started").source(error);
        let memory = rustix::fs::memfd_create("rules", rustix::fs::MemfdFlags::CLOEXEC).map_err(|error| io(error.into()))?;
        let mut memory = File::from(memory);
        memory.write_all(&rules).and_then(|()| std::io::Seek::rewind(&mut memory)).map_err(io)?;
        let (mut report, tell) = std::io::pipe().map_err(io)?;
        let mut args: Vec<&OsStr> = vec![&self.verb, OsStr::new("3"), OsStr::new("4"), job.exe.as_os_str()];
        args.extend(job.args.iter().map(OsString::as_os_str));
        let run = Run {
            exe: &self.exe,
            args,
            env: job.env.iter().map(|(name, value)| (name.as_os_str(), value.as_os_str())).collect(),
            dir: job.dir,
            input: b"",
            extra: vec![(memory.as_fd(), 3), (tell.as_fd(), 4)],
            merged: true,
            keep: KEEP,
            limit: job.limit,
            largest_file: None,
        };
        let ran = run.run_and_sweep(stop).map_err(io)?;
        drop(run);
        drop(tell);
        let mut said = Vec::new();
        report.read_to_end(&mut said).map_err(io)?;
        if stop.is_stopped() {
            return Err(Stop::error());
        }
        let report = launch::outcome(&said).map_err(|why| failed(format!("a builder could not be started: {why}")))?;
        for layer in [Layer::Landlock, Layer::Seccomp] {
            if let None | Some(Status::Off { .. }) = report.get(layer) {
                return Err(failed(format!("builders cannot be confined on this computer: {layer} is off"))
                    .hint("install rocks that are ready (binary or pure Lua), or use a newer kernel"));
            }
        }
        Ok(ran)
    }
}

/// The environment of a builder: nothing of the user's, and temporary files in its own directory.
pub(super) fn environment(work: &Work) -> Vec<(OsString, OsString)> {
    let tmp = work.path().join("tmp");
    vec![
        ("PATH".into(), "/usr/local/bin:/usr/bin:/bin".into()),
        ("HOME".into(), work.path().into()),
        ("TMPDIR".into(), tmp.into()),
        ("LC_ALL".into(), "C".into()),
        // Time stamps in what is built would make two builds differ.
        ("SOURCE_DATE_EPOCH".into(), "0".into()),
    ]
}
