//! Decoders of what a machine sends, fed with streams that were spoilt: an answer or an error, and never more than there is.

use vmoon_core::frame::{Call, Eval, Failure, Frame, HEADER, MAX_PAYLOAD};
use vmoon_driver_sim::Hostile;
use vmoon_lua_wire::{
    hello::{ClientHello, HolderHello, negotiate},
    text::{self, Decoder},
};

#[test]
fn frames_that_were_spoilt() {
    let mut hostile = Hostile::new(1);
    let eval = Eval { deadline_ms: 5, token: b"token", code: b"return 1" };
    let call = Call { data: true, arguments: b"[1]", eval };
    let mut stream = Frame { tag: b'E', id: 1, payload: &eval.to_vec() }.to_vec();
    Frame { tag: b'J', id: 2, payload: &call.to_vec() }.encode(&mut stream);
    Frame { tag: b'G', id: 0, payload: &7u64.to_le_bytes() }.encode(&mut stream);
    for _ in 0..50_000 {
        let mut bytes = stream.clone();
        hostile.spoil(&mut bytes);
        let mut rest = &bytes[..];
        while let Ok(Some((frame, n))) = Frame::decode(rest) {
            assert!(n == HEADER + frame.payload.len() && frame.payload.len() <= MAX_PAYLOAD);
            // What it says is what it was made from.
            assert_eq!(frame.to_vec(), rest[..n]);
            let _ = (frame.stream_len(), Eval::decode(frame.payload), Call::decode(frame.payload), Failure::decode(frame.payload));
            rest = &rest[n..];
        }
        let _ = (Eval::decode(&bytes), Call::decode(&bytes), Failure::decode(&bytes));
    }
}

#[test]
fn a_frame_arrives_whole_however_its_bytes_do() {
    let mut hostile = Hostile::new(2);
    for _ in 0..2_000 {
        let payload = hostile.bytes(200);
        let bytes = Frame { tag: hostile.number() as u8, id: hostile.edge(), payload: &payload }.to_vec();
        for cut in 0..bytes.len() {
            assert_eq!(Frame::decode(&bytes[..cut]), Ok(None));
        }
        assert_eq!(Frame::decode(&bytes).unwrap().unwrap().0.payload, payload);
    }
}

#[test]
fn hellos_that_were_spoilt() {
    let mut hostile = Hostile::new(3);
    let (client, holder) = (ClientHello::new("key", 17).to_vec(), HolderHello { at: 5, end: 9, ..HolderHello::default() }.to_vec());
    for _ in 0..50_000 {
        let mut bytes = if hostile.below(2) == 0 { client.clone() } else { holder.clone() };
        hostile.spoil(&mut bytes);
        if let Ok(hello) = ClientHello::decode(&bytes) {
            let _ = negotiate(hello.versions(), HolderHello::default().versions());
        }
        if let Ok(hello) = HolderHello::decode(&bytes) {
            let _ = negotiate(ClientHello::new("", 0).versions(), hello.versions());
            let _ = hello.error.map(|error| error.to_error());
        }
    }
    // Deeper than any stack.
    assert!(HolderHello::decode("[".repeat(1 << 20).as_bytes()).is_err());
}

#[test]
fn text_frames_that_were_spoilt() {
    let mut hostile = Hostile::new(4);
    // As an interpreter numbers them.
    let stream = "O 1 5 1\nhelloV 1 2 2\n42D 1 0 3\nX 2 9 4\nr3\nabctr\nK 0 6 5\n3 name\n".to_owned().into_bytes();
    let (mut frames, mut refused) = (0, 0);
    for _ in 0..50_000 {
        let mut bytes = stream.clone();
        hostile.spoil(&mut bytes);
        let mut decoder = Decoder::default();
        let mut given = 0;
        for part in bytes.chunks(1 + hostile.below(40)) {
            decoder.push(part);
            loop {
                match decoder.next_frame() {
                    Ok(Some(frame)) => {
                        given += frame.payload.len();
                        frames += 1;
                        let _ = (text::failure(&frame.payload), text::names(&frame.payload), text::setting(&frame.payload, "x"));
                    }
                    Ok(None) => break,
                    Err(_) => {
                        refused += 1;
                        assert!(decoder.next_frame().is_err(), "a stream that is lost stays lost");
                        break;
                    }
                }
            }
        }
        assert!(given <= bytes.len());
    }
    assert!(frames > 50_000 && refused > 10_000, "{frames} {refused}");
}
