//! Any host that is reached over SSH, as a machine with sessions.
