//! The evaluator of the tests: the program that the crate ships, run by an installed `lua5.4` in a process of its own, with bounds.

use std::{ffi::OsStr, path::Path, time::Duration};
use vmoon_core::{Code, Error, Result};
use vmoon_packages::evaluate::{Evaluator, Kind, MAX_ANSWER, MAX_MANIFEST, PROGRAM, read_answer};
use vmoon_sys::{
    run::{End, Run},
    stop::Stop,
};

/// An [`Evaluator`] by `lua5.4`.
#[derive(Debug, Default)]
pub(crate) struct Installed {
    /// How many texts were evaluated.
    pub(crate) calls: std::sync::atomic::AtomicUsize,
}

impl Installed {
    fn run(&self, kind: Kind, text: &[u8], keep: usize) -> Result<Vec<u8>> {
        kind.check(text)?;
        self.calls.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let exe = Path::new("/usr/bin/lua5.4");
        assert!(exe.exists(), "lua5.4 is missing: cargo xtask install (Debian package lua5.4)");
        let program = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(program.path(), PROGRAM).unwrap();
        let run = Run {
            exe,
            args: vec![program.path().as_os_str(), OsStr::new(kind.as_str())],
            env: Vec::new(),
            dir: Path::new("/"),
            input: text,
            extra: Vec::new(),
            merged: false,
            keep: keep + (1 << 20),
            largest_file: None,
            limit: Duration::from_secs(20),
        };
        let ran = run.run(&Stop::new()).map_err(|error| Error::io("run lua5.4", error))?;
        match ran.end {
            End::Code(0) if ran.out.dropped == 0 => Ok(ran.out.bytes()),
            End::Code(0) => Err(kind.ended("it says too much")),
            End::Code(1) => Err(kind.refused(&ran.err.bytes())),
            _ => Err(kind.ended("it was ended")),
        }
    }
}

impl Evaluator for Installed {
    fn rockspec(&self, text: &[u8]) -> Result<serde_json::Value> {
        read_answer(&self.run(Kind::Rockspec, text, MAX_ANSWER)?)
    }

    fn manifest(&self, text: &[u8]) -> Result<Vec<u8>> {
        self.run(Kind::Manifest, text, MAX_MANIFEST)
    }
}

/// An evaluator for tests that must not need one.
#[derive(Debug)]
pub(crate) struct Never;

impl Evaluator for Never {
    fn rockspec(&self, _: &[u8]) -> Result<serde_json::Value> {
        Err(Error::new(Code::Internal, "a rockspec was evaluated that should not have been"))
    }

    fn manifest(&self, _: &[u8]) -> Result<Vec<u8>> {
        Err(Error::new(Code::Internal, "a manifest was evaluated that should not have been"))
    }
}
