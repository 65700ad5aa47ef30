//! Turning Lua text of strangers (manifests, rockspecs, `luarocks.lock`) into data.
//!
//! This crate runs no Lua. Whoever uses it injects an [`Evaluator`]: a process of its own, sealed, ended after one text, with bounds on time,
//! memory and output.

use serde_json::Value;
use vmoon_core::Result;

/// The most bytes a manifest may have. The public one has about 9 MB.
pub const MAX_MANIFEST: usize = 64 << 20;

/// The most bytes a rockspec or a lock may have.
pub const MAX_ROCKSPEC: usize = 1 << 20;

/// Evaluates Lua text that assigns globals. Blocking; each call is bounded in time, memory and output.
pub trait Evaluator: Send + Sync {
    /// The globals that this text sets (rockspec), or the table that it returns (`luarocks.lock`), as JSON.
    ///
    /// # Errors
    /// `package.invalid` for text that is no Lua, fails, runs or grows past its bounds, or makes what JSON cannot say; others if no process can be
    /// started.
    fn rockspec(&self, text: &[u8]) -> Result<Value>;

    /// The entries of a manifest in the compact form that [`crate::manifest`] reads.
    ///
    /// # Errors
    /// As [`Evaluator::rockspec`].
    fn manifest(&self, text: &[u8]) -> Result<Vec<u8>>;
}
