//! Evaluates the Lua text of strangers: a sealed one-shot program of ours, one process for each text. It may compute for a bounded time, in bounded
//! memory, and say a bounded amount; nothing else.

use std::{
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
    time::Duration,
};
use vmoon_core::{Code, Error, Result};
use vmoon_packages::{
    Evaluator,
    evaluate::{self, Kind, PROGRAM},
};
use vmoon_sys::{
    run::{End, Run},
    stop::Stop,
};

/// How long a text may take where others keep the processors busy.
const LIMIT: Duration = Duration::from_secs(30);
/// The most that is said of a manifest, bytes.
const MANIFEST: usize = 64 << 20;

/// Runs `vmoon run` for each text.
#[derive(Debug)]
pub(crate) struct OneShot {
    exe: PathBuf,
}

impl OneShot {
    /// By this program, which is vmoon.
    pub(crate) fn new(exe: PathBuf) -> Self {
        Self { exe }
    }

    fn run(&self, kind: Kind, text: &[u8]) -> Result<Vec<u8>> {
        kind.check(text)?;
        // A rockspec takes a millisecond, the public manifest some hundred.
        let (keep, memory, cpu) = match kind {
            Kind::Manifest => (MANIFEST, "1G", "15s"),
            Kind::Rockspec => (evaluate::MAX_ANSWER, "64M", "2s"),
        };
        let words = ["run", "--profile", "sealed", "--memory", memory, "--cpu", cpu, "-e", PROGRAM, kind.as_str()];
        let args: Vec<&OsStr> = words.iter().map(OsStr::new).collect();
        // Nothing of ours but where a home would be: it has none, and looks for no configuration.
        let home = OsString::from("/");
        let run = Run {
            exe: &self.exe,
            args,
            env: vec![(OsStr::new("HOME"), &home)],
            dir: Path::new("/"),
            input: text,
            extra: Vec::new(),
            merged: false,
            // When there is more the middle is left out; so the bound is what is kept.
            keep: keep + keep / 3 + 8,
            limit: LIMIT,
            largest_file: Some(0),
        };
        let ran = run.run(&Stop::new()).map_err(|error| Error::io("start a process that evaluates a file of a rocks server", error))?;
        match ran.end {
            End::Code(0) if ran.out.dropped > 0 => Err(kind.ended("it says more than is read")),
            End::Code(0) => Ok(ran.out.bytes()),
            End::Code(125..=127) => {
                Err(Error::new(Code::Internal, format!("a sealed process could not be made: {}", ran.err.text().trim()))
                    .hint("vmoon doctor"))
            }
            End::Code(_) => Err(kind.refused(&ran.err.bytes())),
            End::TooLong => Err(kind.ended("it takes too long")),
            End::Signal(libc) => Err(kind.ended(&format!("it takes too much time or memory (signal {libc})"))),
            End::Stopped => Err(Stop::error()),
        }
    }
}

impl Evaluator for OneShot {
    fn rockspec(&self, text: &[u8]) -> Result<serde_json::Value> {
        evaluate::read_answer(&self.run(Kind::Rockspec, text)?)
    }

    fn manifest(&self, text: &[u8]) -> Result<Vec<u8>> {
        self.run(Kind::Manifest, text)
    }
}
