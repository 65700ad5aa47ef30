//! The targets: each feeds one decoder, or a few that read the same thing, and says what must hold.

pub(crate) mod seeds;
pub(crate) mod session;

use vmoon_core::{
    frame::{Call, Eval, Failure, Frame, HEADER, MAX_PAYLOAD, tag},
    scrollback::Scrollback,
};
use vmoon_libvirt_wire::{self as libvirt, Procedure, event, xdr};
use vmoon_lua_wire::{
    hello::{ClientHello, HolderHello, negotiate},
    text,
};

/// Splits a number off the front.
fn number(bytes: &[u8]) -> (u64, &[u8]) {
    bytes.split_first_chunk().map_or((0, bytes), |(number, rest)| (u64::from_le_bytes(*number), rest))
}

/// Splits a byte off the front.
fn byte(bytes: &[u8]) -> (usize, &[u8]) {
    bytes.split_first().map_or((0, bytes), |(byte, rest)| (usize::from(*byte), rest))
}

/// Frames of a session and their payloads: what is read is what it was made from.
pub(crate) fn frames(bytes: &[u8]) {
    let mut rest = bytes;
    while let Ok(Some((frame, n))) = Frame::decode(rest) {
        assert!(n == HEADER + frame.payload.len() && frame.payload.len() <= MAX_PAYLOAD);
        assert_eq!(frame.to_vec(), rest[..n]);
        let _ = frame.stream_len();
        payloads(frame.payload);
        rest = &rest[n..];
    }
    payloads(bytes);
}

fn payloads(payload: &[u8]) {
    if let Some(eval) = Eval::decode(payload) {
        assert_eq!(eval.to_vec(), payload);
    }
    if let Some(call) = Call::decode(payload) {
        assert_eq!(Call::decode(&call.to_vec()), Some(call));
    }
    if let Some(failure) = Failure::decode(payload) {
        assert_eq!(Failure::decode(&failure.to_vec()), Some(failure));
    }
}

/// What a console says and its readers ask: offsets and frames agree, and no more is kept than may be.
pub(crate) fn scrollback(bytes: &[u8]) {
    const KEEP: usize = 300;
    let (from, mut rest) = number(bytes);
    let mut said = Scrollback::new(from % (1 << 40), KEEP);
    let mut buf = Vec::new();
    while let Some((verb, more)) = rest.split_first() {
        let (size, more) = byte(more);
        rest = more;
        match verb % 4 {
            0 => {
                let (output, more) = rest.split_at(size.min(rest.len()));
                said.say(output);
                rest = more;
            }
            1 => said.gap(),
            2 => said.acknowledge(said.end().saturating_sub(size as u64)),
            _ => {
                let at = said.end().saturating_sub(size as u64);
                // Readers that stand where no frame begins are turned away before.
                if !said.is_boundary(at) {
                    continue;
                }
                let Some(end) = said.read(at, 100, &mut buf) else {
                    assert_eq!(at, said.end());
                    continue;
                };
                assert!(at < end && end <= said.end() && said.is_boundary(end));
                let (mut left, mut length) = (&buf[..], 0);
                while let Ok(Some((frame, n))) = Frame::decode(left) {
                    assert!(matches!(frame.tag, tag::STDOUT | tag::GAP));
                    length += frame.stream_len();
                    left = &left[n..];
                }
                assert!(left.is_empty() && at + length == end);
            }
        }
    }
}

/// The first frame in each direction.
pub(crate) fn hello(bytes: &[u8]) {
    if let Ok(hello) = ClientHello::decode(bytes) {
        let _ = negotiate(hello.versions(), HolderHello::default().versions());
        assert_eq!(ClientHello::decode(&hello.to_vec()).ok(), Some(hello));
    }
    if let Ok(hello) = HolderHello::decode(bytes) {
        let _ = negotiate(ClientHello::new("", 0).versions(), hello.versions());
        let _ = hello.error.as_ref().map(|error| error.to_error());
        assert_eq!(HolderHello::decode(&hello.to_vec()).ok(), Some(hello));
    }
}

/// What an installed interpreter sends, in parts.
pub(crate) fn text(bytes: &[u8]) {
    let (part, bytes) = byte(bytes);
    let (mut decoder, mut given) = (text::Decoder::default(), 0);
    for part in bytes.chunks(part.max(1)) {
        decoder.push(part);
        loop {
            match decoder.next_frame() {
                Ok(Some(frame)) => {
                    given += frame.payload.len();
                    let _ = (text::failure(&frame.payload), text::names(&frame.payload), text::setting(&frame.payload, "x"));
                }
                Ok(None) => break,
                Err(_) => {
                    assert!(decoder.next_frame().is_err(), "a stream that is lost stays lost");
                    return;
                }
            }
        }
    }
    assert!(given <= bytes.len());
}

/// The stream of a living machine as the driver reads it.
pub(crate) fn link(bytes: &[u8]) {
    vmoon_driver_lua::fuzzing::link(0, bytes);
    let (from, bytes) = number(bytes);
    vmoon_driver_lua::fuzzing::link(from, bytes);
}

/// What zygotes and holders say and leave as JSON.
pub(crate) fn records(bytes: &[u8]) {
    vmoon_driver_lua::fuzzing::records(bytes);
}

/// What the process of an item of `vmoon run --map` sends.
pub(crate) fn item(bytes: &[u8]) {
    let (part, bytes) = byte(bytes);
    vmoon_driver_lua::fuzzing::item(part, bytes);
}

/// The ring of a dead machine.
pub(crate) fn ring(bytes: &[u8]) {
    let tried = vmoon_driver_lua::fuzzing::ring(bytes);
    assert!(tried.is_ok(), "{tried:?}");
}

/// What a host says of the sessions there.
pub(crate) fn host(bytes: &[u8]) {
    let (part, bytes) = byte(bytes);
    vmoon_remote::fuzzing::envelope(part, bytes);
    let _ = vmoon_remote::environment::elf::read(bytes);
}

/// Messages of libvirt: a header, replies of every shape, events of every kind.
pub(crate) fn libvirt(bytes: &[u8]) {
    use libvirt::{
        BlockInfo, BlockJob, Domain, DomainInfo, DomainStats, GuestInterface, JobStats, Lease, Network, NodeDevice, NodeInfo, Params, Pool,
        PoolInfo, Snapshot, Volume, VolumeInfo,
    };
    type Reply = (Vec<Domain>, u32);
    let mut from = xdr::Decoder::new(bytes);
    let Ok(header) = libvirt::frame::Header::decode(&mut from) else { return };
    let body = &bytes[bytes.len() - from.left()..];
    if let Some(procedure) = Procedure::find(header.program, header.procedure) {
        let _ = event::decode(procedure, body);
    }
    let _ = xdr::decode_all::<Reply>(body);
    let _ = xdr::decode_all::<(Vec<Network>, u32)>(body);
    let _ = xdr::decode_all::<(Vec<Pool>, u32)>(body);
    let _ = xdr::decode_all::<(Vec<Volume>, u32)>(body);
    let _ = xdr::decode_all::<(Vec<Snapshot>, i32)>(body);
    let _ = xdr::decode_all::<(Vec<NodeDevice>, u32)>(body);
    let _ = xdr::decode_all::<(Vec<Lease>, u32)>(body);
    let _ = xdr::decode_all::<Vec<GuestInterface>>(body);
    let _ = xdr::decode_all::<(Params, i32)>(body);
    let _ = xdr::decode_all::<JobStats>(body);
    let _ = xdr::decode_all::<Option<String>>(body);
    let _ = xdr::decode_all::<(DomainInfo, NodeInfo)>(body);
    let _ = xdr::decode_all::<(PoolInfo, VolumeInfo, BlockInfo, BlockJob)>(body);
    for stats in xdr::decode_all::<Vec<DomainStats>>(body).into_iter().flatten() {
        let _ = (stats.state(), stats.reason());
    }
    if let Some(word) = bytes.first_chunk() {
        let _ = libvirt::frame::length(*word);
    }
}

/// What a host of a pool answers.
pub(crate) fn xapi(bytes: &[u8]) {
    vmoon_xapi::fuzzing::answer(bytes);
    vmoon_xapi::fuzzing::others(bytes);
}

/// Documents of libvirt: what is read, written and read again is the same.
pub(crate) fn xml(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(tree) = vmoon_xml::Element::parse(text) else { return };
    let written = tree.to_document();
    let again = vmoon_xml::Element::parse(&written);
    assert!(again.is_ok(), "{written}");
}
