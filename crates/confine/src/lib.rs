//! What a process may do: capability profiles, and the layers of the kernel that hold it to them.
//!
//! [`rules`] and [`grant`] are policy: plain data, decided by the driver, pure. The rest applies it to the calling process.

mod ahead;
mod apply;
pub mod attempts;
pub mod cgroup;
pub mod grant;
mod landlock;
pub mod launch;
pub mod narrow;
pub mod net;
pub mod paths;
mod privileges;
pub mod report;
mod rlimits;
pub mod rules;
mod seccomp;

pub use ahead::{Ruleset, apply_ahead};
pub use apply::{Prepared, apply, apply_forkable, probe};
pub use report::{Error, LayerStatus, Report, Status};
pub use rules::{Layer, Limits, Profile, Rules};
