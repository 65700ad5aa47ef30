//! Tracing, for those who look for a defect: off unless `VMOON_LOG` or -vv asks for it.

use std::io;
use tracing_subscriber::EnvFilter;
use vmoon_core::{Code, Error, Result};

/// Starts it for the command line; costs nothing where nobody asks.
pub(crate) fn init(verbose: u8) -> Result<()> {
    let filter = match std::env::var("VMOON_LOG") {
        Ok(text) if !text.is_empty() => text,
        _ if verbose > 1 => "vmoon=debug,vmoon_api=debug".to_owned(),
        _ => return Ok(()),
    };
    start(&filter)
}

/// Starts it for the daemon.
pub(crate) fn init_daemon() -> Result<()> {
    start(&std::env::var("VMOON_LOG").ok().filter(|text| !text.is_empty()).unwrap_or_else(|| "info".to_owned()))
}

fn start(filter: &str) -> Result<()> {
    let filter = EnvFilter::try_new(filter)
        .map_err(|error| Error::new(Code::Usage, "VMOON_LOG cannot be understood").source(error).hint("for example VMOON_LOG=debug"))?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(false)
        // A line that cannot be written, as on a full disk, is left out; to say so in the same place would be a panic.
        .log_internal_errors(false)
        .try_init()
        .map_err(|error| Error::internal("tracing was started twice").source(error))
}
