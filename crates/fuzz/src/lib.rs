//! For tests: whatever a machine, its host or its hypervisor can send, made up and fed to vmoon's decoders.
//!
//! A target takes any bytes and panics if what must hold does not. `cargo xtask fuzz TARGET` makes bytes up, led by what code they reach; what it has
//! found worth keeping is in the folder `corpus`, which an ordinary test feeds to the targets again. This file must not know who makes the bytes up.

pub mod corpus;
mod targets;

/// Something that reads bytes of others.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name on the command line, and that of its file of samples.
    pub name: &'static str,
    /// Feeds it these bytes.
    pub run: fn(&[u8]),
    /// What is well formed, to begin with.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// All of them.
pub const TARGETS: &[Target] = &[
    Target { name: "frames", run: targets::frames, seeds: targets::seeds::frames },
    Target { name: "scrollback", run: targets::scrollback, seeds: targets::seeds::scrollback },
    Target { name: "hello", run: targets::hello, seeds: targets::seeds::hello },
    Target { name: "text", run: targets::text, seeds: targets::seeds::text },
    Target { name: "link", run: targets::link, seeds: targets::seeds::frames },
    Target { name: "records", run: targets::records, seeds: targets::seeds::records },
    Target { name: "item", run: targets::item, seeds: targets::seeds::item },
    Target { name: "ring", run: targets::ring, seeds: targets::seeds::ring },
    Target { name: "session", run: targets::session::run, seeds: targets::seeds::frames },
    Target { name: "host", run: targets::host, seeds: targets::seeds::host },
    Target { name: "libvirt", run: targets::libvirt, seeds: targets::seeds::libvirt },
    Target { name: "xapi", run: targets::xapi, seeds: targets::seeds::xapi },
    Target { name: "xml", run: targets::xml, seeds: targets::seeds::xml },
];

/// The one of this name.
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}
