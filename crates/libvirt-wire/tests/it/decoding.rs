//! What is written is read back; what is cut, changed or random is refused and never read beyond its end.

use std::fmt::Debug;
use uuid::Uuid;
use vmoon_libvirt_wire::{
    BlockInfo, BlockJob, Domain, DomainInfo, DomainStats, GuestInterface, JobStats, Lease, Network, NodeDevice, NodeInfo, Param, Params,
    Pool, PoolInfo, Procedure, Refusal, Snapshot, Value, Volume, VolumeInfo, event,
    frame::{self, Header, Kind, Status},
    xdr::{Decode, Decoder, Encode, Encoder, decode_all},
};

/// Numbers that look random and are the same each time (Knuth's MMIX generator, upper bits).
struct Dice(u64);

impl Dice {
    fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    fn below(&mut self, end: u64) -> usize {
        (self.number() % end) as usize
    }

    fn bytes(&mut self, most: u64) -> Vec<u8> {
        // Small numbers are likelier: they are lengths, counts and flags, which lead further into a decoder.
        (0..self.below(most))
            .map(|_| if self.number().is_multiple_of(3) { self.number() as u8 } else { (self.number() % 4) as u8 })
            .collect()
    }

    fn text(&mut self) -> String {
        const LETTERS: [char; 8] = ['a', '<', '&', ' ', 'ü', '/', '\n', '🌙'];
        (0..self.below(9)).map(|_| LETTERS[self.below(8)]).collect()
    }

    fn maybe(&mut self) -> Option<String> {
        self.number().is_multiple_of(2).then(|| self.text())
    }

    fn domain(&mut self) -> Domain {
        Domain { name: self.text(), uuid: Uuid::from_u64_pair(self.number(), self.number()), id: self.below(9) as i32 - 1 }
    }

    fn params(&mut self) -> Params {
        let value = |dice: &mut Self| match dice.below(7) {
            0 => Value::Int(-(dice.number() as i32)),
            1 => Value::UInt(dice.number() as u32),
            2 => Value::Long(-(dice.number() as i64)),
            3 => Value::ULong(dice.number() << 31),
            4 => Value::Double(dice.number() as f64 / 7.0),
            5 => Value::Bool(dice.number().is_multiple_of(2)),
            _ => Value::Text(dice.text()),
        };
        Params((0..self.below(6)).map(|_| Param { name: self.text(), value: value(self) }).collect())
    }
}

fn written(value: &impl Encode) -> Vec<u8> {
    let mut to = Encoder::default();
    value.encode(&mut to);
    to.finish().expect("it can be written")
}

/// Comes back whole; cut anywhere it is refused; with more behind it too.
fn there_and_back<T: Encode + Decode + PartialEq + Debug>(value: &T) {
    let bytes = written(value);
    assert_eq!(bytes.len() % 4, 0, "everything is in units of four bytes");
    assert_eq!(&decode_all::<T>(&bytes).expect("what was written is read"), value);
    assert!(bytes.len() >= T::LEAST, "{value:?} is at least {} bytes", T::LEAST);
    for cut in 0..bytes.len() {
        decode_all::<T>(&bytes[..cut]).expect_err("what is cut is refused");
    }
    let more = [bytes.as_slice(), &[0; 4]].concat();
    decode_all::<T>(&more).expect_err("what is more is refused");
}

#[test]
fn what_is_written_is_read_back_and_what_is_cut_is_refused() {
    let mut dice = Dice(1);
    for _ in 0..200 {
        let domain = dice.domain();
        there_and_back(&domain);
        there_and_back(&vec![domain.clone(), dice.domain()]);
        there_and_back(&Snapshot { name: dice.text(), domain: domain.clone() });
        there_and_back(&Volume { pool: dice.text(), name: dice.text(), key: dice.text() });
        there_and_back(&DomainStats { domain, params: dice.params() });
        there_and_back(&Lease {
            interface: dice.text(),
            expires: dice.number() as i64,
            family: 1,
            mac: dice.maybe(),
            iaid: dice.maybe(),
            address: dice.text(),
            prefix: 24,
            hostname: dice.maybe(),
            client: dice.maybe(),
        });
        there_and_back(&(dice.maybe(), dice.number(), -(dice.number() as i32), dice.number().is_multiple_of(2)));
    }
}

#[test]
fn random_bytes_never_break_a_decoder() {
    let mut dice = Dice(2);
    for _ in 0..20_000 {
        let bytes = dice.bytes(300);
        // The results do not matter: that they come does.
        let _ = decode_all::<Vec<DomainStats>>(&bytes);
        let _ = decode_all::<Vec<Lease>>(&bytes);
        let _ = decode_all::<Refusal>(&bytes);
        let _ = decode_all::<Vec<Snapshot>>(&bytes);
        let _ = decode_all::<(Vec<Network>, Vec<Pool>, Vec<NodeDevice>, Vec<Volume>)>(&bytes);
        let _ = decode_all::<(Vec<GuestInterface>, DomainInfo, NodeInfo)>(&bytes);
        let _ = decode_all::<(PoolInfo, VolumeInfo, BlockInfo)>(&bytes);
        let _ = decode_all::<(BlockJob, JobStats, Option<String>, Uuid)>(&bytes);
        let _ = Header::decode(&mut Decoder::new(&bytes));
        for procedure in Procedure::ALL {
            let _ = event::decode(*procedure, &bytes);
        }
    }
}

#[test]
fn a_changed_byte_never_breaks_a_decoder() {
    let mut dice = Dice(3);
    for _ in 0..2_000 {
        let stats = DomainStats { domain: dice.domain(), params: dice.params() };
        let mut bytes = written(&vec![stats]);
        let at = dice.below(bytes.len() as u64);
        bytes[at] ^= 1 << dice.below(8);
        let _ = decode_all::<Vec<DomainStats>>(&bytes);
    }
}

#[test]
fn a_list_or_a_text_cannot_claim_more_than_is_there() {
    // Four thousand million domains, in four bytes: refused before any memory is reserved for them.
    for claim in [0xffff_ffff_u32, 0x7fff_ffff, 1] {
        decode_all::<Vec<Domain>>(&claim.to_be_bytes()).expect_err("a list");
        decode_all::<String>(&claim.to_be_bytes()).expect_err("a text");
    }
    let refused = decode_all::<Option<u32>>(&[0, 0, 0, 2, 0, 0, 0, 0]).expect_err("neither there nor absent");
    assert_eq!(refused.to_string(), "an optional value that is neither there nor absent at byte 4");
}

#[test]
fn a_name_that_is_not_utf8_is_read_all_the_same() {
    let bytes = [0, 0, 0, 2, 0xc3, 0x28, 0, 0];
    assert_eq!(decode_all::<String>(&bytes).expect("libvirt's names are bytes"), "\u{fffd}(");
}

#[test]
fn what_the_protocol_cannot_carry_is_not_sent() {
    for (text, why) in [("a\0b".to_owned(), "a text contains a NUL byte"), ("x".repeat(4_194_305), "a text is longer than 4 MiB")] {
        let mut to = Encoder::default();
        (1_u32, text.as_str(), 2_u32).encode(&mut to);
        assert_eq!(to.finish(), Err(why));
    }
}

#[test]
fn a_message_says_its_length_and_is_believed_within_bounds() {
    let header = Header { program: 1, version: 2, procedure: 3, kind: Kind::Stream, serial: 5, status: Status::Continue };
    let message = header.message(b"data").expect("a small message");
    assert_eq!(frame::length(message[..4].try_into().expect("four bytes")), Ok(32));
    assert_eq!(Header::decode(&mut Decoder::new(&message[4..])), Ok(header));
    for length in [0, 4, 27, 33_554_437, u32::MAX] {
        frame::length(length.to_be_bytes()).expect_err("too short or too long");
    }
    header.message(&vec![0; frame::MESSAGE_MAX]).expect_err("too large to send");
}
