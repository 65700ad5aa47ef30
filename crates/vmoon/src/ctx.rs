//! What every verb is given: where to print, and the daemon to ask.

use crate::{connect::Daemon, out::Out};

/// The surroundings of one run of the command line.
pub(crate) struct Ctx {
    /// Where to print.
    pub(crate) out: Out,
    /// The daemon, which is started when it is first needed.
    pub(crate) daemon: Daemon,
}
