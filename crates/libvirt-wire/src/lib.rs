//! An asynchronous client of libvirt's remote procedure calls, in Rust alone.
//!
//! libvirt's support statement (docs/support.rst, "RPC protocol") calls the protocol between its library and its daemon a long-term stable interface that
//! others may implement. This crate does so for what a manager of machines needs: typed calls ([`Client`]), events ([`Events`]), streams ([`Stream`]), over
//! a Unix socket or over the pipes of a program that leads to a daemon elsewhere ([`Connect`], [`Transport`]). It starts no program and reads neither
//! environment nor clock of day.
//!
//! ```no_run
//! # async fn example() -> vmoon_libvirt_wire::Result<()> {
//! use vmoon_libvirt_wire::{Client, Options, Topic, UnixSocket, flags::{Domains, Xml}};
//!
//! let client = Client::connect(UnixSocket("/run/libvirt/libvirt-sock".into()), "qemu:///system", Options::default()).await?;
//! let mut events = client.watch(&[Topic::LIFE, Topic::AGENT]).await?;
//! for domain in client.domains(Domains::NONE).await? {
//!     println!("{}: {}", domain.name, client.domain_xml(&domain, Xml::INACTIVE).await?);
//! }
//! println!("{:?}", events.next().await);
//! # Ok(())
//! # }
//! ```
//!
//! What comes from the daemon is checked, and nothing in it is believed: lengths have bounds, lists cannot claim more than came, a message that is
//! nobody's ends the connection. What ends a connection is told to every caller who waits, in the same words.

mod client;
mod connection;
mod error;
pub mod event;
pub mod flags;
pub mod frame;
mod procedure;
mod stream;
mod transport;
mod types;
pub mod xdr;

pub use client::{Addresses, Client, Options};
pub use connection::{IN_FLIGHT, Keepalive};
pub use error::{Error, ErrorCode, ErrorDomain, Refusal, Result};
pub use event::{DomainEvent, Event, Events, Life, Topic};
pub use procedure::Procedure;
pub use stream::Stream;
pub use transport::{Connect, Connecting, Transport, UnixSocket};
pub use types::{
    BlockInfo, BlockJob, Domain, DomainInfo, DomainState, DomainStats, GuestAddress, GuestInterface, JobStats, Lease, Network, NodeDevice,
    NodeInfo, Param, Params, Pool, PoolInfo, Snapshot, Value, Volume, VolumeInfo, shutoff,
};
