//! Lua packages and environments: manifests, solving, locks, building, generations.
//!
//! Blocking; knows no async runtime, no machine and no Lua interpreter. Lua text of strangers is evaluated by an injected
//! [`evaluate::Evaluator`].

pub mod archive;
pub mod build;
pub mod builtin;
pub mod cache;
pub mod catalogue;
pub mod constraint;
pub mod current;
pub mod descriptions;
pub mod digest;
pub mod environment;
pub mod evaluate;
pub mod facade;
pub mod fetch;
pub mod files;
pub mod gather;
pub mod index;
pub mod install;
pub mod lock;
pub mod lua_version;
pub mod manifest;
pub mod name;
pub mod plan;
pub mod rockspec;
pub mod search;
pub mod servers;
pub mod solve;
pub mod version;

pub use constraint::{Constraint, Constraints, Dependency};
pub use evaluate::Evaluator;
pub use index::{Candidate, Entry, Index};
pub use lock::{Arch, Lock, LockedRock, LockedSource, Why};
pub use lua_version::LuaVersion;
pub use manifest::Manifest;
pub use name::RockName;
pub use plan::Plan;
pub use rockspec::Rockspec;
pub use servers::{Server, ServerId};
pub use version::Version;
