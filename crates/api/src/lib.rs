//! The one API of the daemon: wire types, the endpoint table, `trait Api`, and the client over the socket.
//!
//! The table in [`endpoint`] is the only declaration of what can be asked. The trait, the client, the daemon's router and
//! `docs/reference/api.md` all come from it. This crate knows nothing of drivers or of how the daemon does its work.

pub mod api;
pub mod attachment;
pub mod client;
pub mod data;
pub mod endpoint;
pub mod files;
pub mod reference;
pub mod requests;
mod route;
pub mod views;

pub use api::Api;
pub use attachment::{Attachment, EventStream, Message};
pub use client::Client;
pub use data::Data;
pub use endpoint::{Endpoint, Method};
pub use route::Routed;

/// The version of the API this build speaks. It rises only when an existing shape changes meaning; additions do not.
pub const PROTOCOL: u32 = 1;
/// The oldest version this build still understands.
pub const MIN_PROTOCOL: u32 = 1;
/// The header both sides send: `MIN-MAX` of the versions they speak.
pub const PROTOCOL_HEADER: &str = "vmoon-protocol";
/// The header by which a client says which state directory it means, as the bytes of its path. A daemon of another one refuses with `daemon.other`.
pub const STATE_HEADER: &str = "vmoon-state";
/// The WebSocket subprotocol of session streams.
pub const SESSION_PROTOCOL: &str = "vmoon.session.1";
/// The WebSocket subprotocol of files.
pub const FILES_PROTOCOL: &str = "vmoon.files.1";
/// The WebSocket subprotocol of events.
pub const EVENTS_PROTOCOL: &str = "vmoon.events.1";

/// The value of [`PROTOCOL_HEADER`] that this build sends.
pub fn protocol_header() -> String {
    format!("{MIN_PROTOCOL}-{PROTOCOL}")
}

/// Checks what the other side says it speaks.
///
/// # Errors
/// [`Code::WireVersion`](vmoon_core::Code::WireVersion) when there is no common version, saying which side is too old.
pub fn check_protocol(theirs: &str, who: &str) -> vmoon_core::Result<()> {
    let range = theirs.trim().split_once('-').and_then(|(min, max)| Some((min.parse::<u32>().ok()?, max.parse::<u32>().ok()?)));
    let error = |why: String, hint: &'static str| Err(vmoon_core::Error::new(vmoon_core::Code::WireVersion, why).hint(hint));
    match range {
        None => error(
            format!("the {who} says it speaks API version \"{}\"", vmoon_core::name::escape(theirs)),
            "install the same vmoon on both sides",
        ),
        Some((min, _)) if min > PROTOCOL => error(
            format!("the {who} is newer: it speaks API versions from {min}, this vmoon up to {PROTOCOL}"),
            "use the newer vmoon; sessions live on while the daemon is replaced: vmoon daemon stop, then any command",
        ),
        Some((_, max)) if max < MIN_PROTOCOL => error(
            format!("the {who} is older: it speaks API versions up to {max}, this vmoon from {MIN_PROTOCOL}"),
            "restart the daemon with this vmoon; sessions live on: vmoon daemon stop, then any command",
        ),
        Some(_) => Ok(()),
    }
}
