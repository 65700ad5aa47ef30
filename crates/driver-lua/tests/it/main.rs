//! The Lua driver and its holder, as real processes.

mod bombs;
mod client;
mod contract;
mod data;
mod death;
mod holder;
mod hosts;
mod interrupts;
mod isolation;
mod overflow;
mod snapshot;
mod versions;
mod zygote;

use std::path::Path;
use vmoon_sys::process::Identity;

/// Whether the builtin Lua knows no integers: 5.1 and LuaJIT.
pub(crate) const OLD: bool = cfg!(any(feature = "lua51", feature = "luajit"));

/// Ends every holder whose files are under `dir`.
pub(crate) fn end_holders(dir: &Path) {
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() {
            end_holders(&path);
        } else if path.file_name().is_some_and(|name| name == "meta.json") {
            let meta: Option<serde_json::Value> = vmoon_sys::atomic::read_json(&path).unwrap_or_default();
            if let Some(process) = meta.and_then(|meta| serde_json::from_value::<Identity>(meta["process"].clone()).ok()) {
                let _ = vmoon_sys::tree::kill(&process, None, std::time::Duration::from_secs(10));
                process.reap();
            }
        }
    }
}
