//! The Lua driver passes the suite that every driver passes, with the embedded runtime.

use std::{ffi::OsString, path::Path, sync::Arc};
use vmoon_core::{driver::Driver, spec::MachineSpec};
use vmoon_driver_lua::{LuaConfig, LuaDriver};
use vmoon_driver_sim::contract::{Fixture, Snippet};
use vmoon_lua_wire::hello::Versions;

/// The holder program of this crate.
const HOST: &str = env!("CARGO_BIN_EXE_vmoon-lua-host");

pub(crate) struct Lua {
    dir: tempfile::TempDir,
    /// What the holder program is told before the directory of a life.
    host_args: Vec<OsString>,
    speaks: Versions,
}

impl Lua {
    fn new() -> Self {
        Self::with(&[], Versions::OURS)
    }

    /// Machines whose two sides are of these builds.
    pub(crate) fn with(host_args: &[&str], speaks: Versions) -> Self {
        Self { dir: tempfile::tempdir().unwrap(), host_args: host_args.iter().map(OsString::from).collect(), speaks }
    }
}

fn walk(dir: &Path, into: &mut Vec<String>) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        // The directory of this boot is named by a UUID, too; it is no machine's.
        let name = entry.file_name();
        if name != vmoon_sys::process::boot_id() && name.to_str().is_some_and(|name| name.parse::<vmoon_core::MachineId>().is_ok()) {
            into.push(entry.path().display().to_string());
        }
        walk(&entry.path(), into);
    }
}

impl Fixture for Lua {
    async fn driver(&self) -> Arc<dyn Driver> {
        let config =
            LuaConfig { state: self.dir.path().to_owned(), host_exe: HOST.into(), host_args: self.host_args.clone(), environments: None };
        Arc::new(LuaDriver::speaking(config, self.speaks))
    }

    fn spec(&self) -> MachineSpec {
        MachineSpec { kind: "lua".into(), ..MachineSpec::default() }
    }

    fn code(&self, what: Snippet<'_>) -> String {
        what.in_lua()
    }

    fn copies(&self) -> bool {
        // A holder that was told to be of another build was not forked by a zygote.
        self.host_args.is_empty()
    }

    fn snapshots(&self) -> bool {
        self.host_args.is_empty()
    }

    fn remains(&self) -> Vec<String> {
        let mut found = Vec::new();
        walk(self.dir.path(), &mut found);
        // Processes: every holder of this directory has it on its command line.
        let prefix = self.dir.path().display().to_string();
        for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
            let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            if String::from_utf8_lossy(&line).split('\0').any(|arg| arg.starts_with(&prefix)) {
                found.push(format!("process {}", entry.path().display()));
            }
        }
        found.sort();
        found
    }
}

impl Drop for Lua {
    /// A rule that fails must not leave holders behind.
    fn drop(&mut self) {
        crate::end_holders(self.dir.path());
    }
}

vmoon_driver_sim::contract_tests!(Lua::new());
