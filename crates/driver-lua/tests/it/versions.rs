//! Two builds of different ages: the previous protocol's holder with this driver, this holder with the previous driver, and
//! the bytes of protocol 1, which must stay what they are.
//!
//! Protocol 2 brought CALL and DATA. Evaluations, output and adoption are the contract suite's, run both ways.

use crate::{
    client::{Client, Holder, Options},
    contract::Lua,
};
use std::sync::Arc;
use vmoon_core::{
    Code,
    driver::{Driver, Handle, LinkItem, Observed},
    frame::{Eval, Failure, FailureKind, Frame, tag},
    spec::MachineSpec,
};
use vmoon_driver_sim::contract::Fixture as _;
use vmoon_lua_wire::hello::{ClientHello, HolderHello, Versions};

const FIRST: Versions = Versions { min: 1, max: 1 };
const AS_FIRST: &[&str] = &["--protocol", "1"];

/// The previous protocol's holder under this driver.
mod old_holder {
    use super::{AS_FIRST, Lua, Versions};
    vmoon_driver_sim::contract_tests!(Lua::with(AS_FIRST, Versions::OURS));
}

/// This holder under the previous protocol's driver.
mod old_driver {
    use super::{FIRST, Lua};
    vmoon_driver_sim::contract_tests!(Lua::with(&[], FIRST));
}

/// Starts one machine; its handle.
async fn running(driver: &dyn Driver) -> Handle {
    struct Quiet;
    #[async_trait::async_trait]
    impl vmoon_core::driver::Journal for Quiet {
        fn progress(&self, _: vmoon_core::operation::Progress) {}
        async fn undo(&self, _: vmoon_core::operation::Undo) -> vmoon_core::Result<()> {
            Ok(())
        }
    }
    let host = driver.facts().await.unwrap();
    let plan = driver.plan("m", &MachineSpec { kind: "lua".into(), ..MachineSpec::default() }, &host).unwrap();
    let id = vmoon_core::MachineId::from_uuid(vmoon_sys::random::uuid());
    let handle = driver.create(id, &plan, &Quiet).await.unwrap();
    driver.start(&handle).await.unwrap();
    handle
}

/// Whether a machine of these two builds takes arguments; what a plain command prints, before and after the link is lost.
async fn takes_arguments(lua: &Lua) -> bool {
    let driver: Arc<dyn Driver> = lua.driver().await;
    let handle = running(&*driver).await;
    let channel = match driver.observe(&handle).await.observed {
        Observed::On(channels) => channels[0].clone(),
        other => panic!("{other:?}"),
    };
    let (mut from, mut takes) = (0, None);
    for id in 1..=2 {
        // The second time as another daemon: it goes on where the first one has stopped.
        let mut link = driver.open(&handle, &channel, from).await.unwrap();
        takes = Some(link.writer.takes(tag::CALL));
        let code = format!("n = (n or 0) + 1 print('n', n, {id})");
        let payload = Eval { deadline_ms: 0, token: b"", code: code.as_bytes() }.to_vec();
        link.writer.send(Frame { tag: tag::EVAL, id, payload: &payload }).await.unwrap();
        let (mut buf, mut said, mut done) = (Vec::new(), Vec::new(), false);
        while !done {
            let LinkItem::Stream { at } = link.reader.next(&mut buf).await.unwrap() else { continue };
            assert_eq!(at, from);
            let mut rest = &buf[..];
            while let Some((frame, n)) = Frame::decode(rest).unwrap() {
                from += frame.stream_len();
                done |= frame.tag == tag::DONE;
                if frame.tag == tag::STDOUT {
                    said.extend_from_slice(frame.payload);
                }
                rest = &rest[n..];
            }
        }
        assert_eq!(String::from_utf8(said).unwrap(), format!("n\t{id}\t{id}\n"));
    }
    driver.delete(&handle).await.unwrap();
    takes.unwrap()
}

#[tokio::test]
async fn arguments_need_both_sides_to_be_new() {
    assert!(takes_arguments(&Lua::with(&[], Versions::OURS)).await);
    assert!(!takes_arguments(&Lua::with(AS_FIRST, Versions::OURS)).await);
    assert!(!takes_arguments(&Lua::with(&[], FIRST)).await);
    assert!(!takes_arguments(&Lua::with(AS_FIRST, FIRST)).await);
}

#[test]
fn what_came_later_is_skipped_where_the_first_protocol_is_spoken() {
    let old = Holder::with(&Options { protocol: Some(1), ..Options::default() });
    let new = Holder::new();
    let clients = [(Client::of(Versions::OURS, old.raw(), &old.key(), 0), 1), (Client::of(FIRST, new.raw(), &new.key(), 0), 2)];
    for (mut client, newest) in clients {
        assert_eq!((client.hello.protocol, client.hello.min_protocol), (newest, 1));
        client.call("[1]", "ran = true");
        // The command was never accepted, so the next one may bear its number or a larger one.
        assert_eq!(client.value("ran == nil"), "true");
    }
}

#[test]
fn a_side_that_has_forgotten_the_first_protocol_is_refused_with_a_reason() {
    let old = Holder::with(&Options { protocol: Some(1), ..Options::default() });
    let mut stream = old.raw();
    let hello = ClientHello::of(Versions { min: 2, max: 3 }, old.key(), 0).to_vec();
    std::io::Write::write_all(&mut stream, &Frame { tag: tag::HELLO, id: 0, payload: &hello }.to_vec()).unwrap();
    let mut answer = Vec::new();
    std::io::Read::read_to_end(&mut stream, &mut answer).unwrap();
    let (frame, _) = Frame::decode(&answer).unwrap().unwrap();
    let error = HolderHello::decode(frame.payload).unwrap().error.unwrap().to_error();
    assert_eq!(error.code(), Code::WireVersion);
    assert!(error.to_string().contains("this side speaks 1, the other 2 to 3"), "{error}");
}

/// Frames as protocol 1 has them, recorded from the build that spoke nothing else: tag, id, payload, bytes.
#[test]
fn the_frames_of_protocol_1_are_as_they_were_recorded() {
    let eval = Eval { deadline_ms: 258, token: b"tok", code: b"return 1" }.to_vec();
    let failure = |kind| Failure { kind, message: b"m", traceback: b"tb" }.to_vec();
    let recorded: [(u8, u64, &[u8], &[u8]); 23] = [
        (tag::EVAL, 1, &eval, b"\x19\0\0\0E\x01\0\0\0\0\0\0\0\x02\x01\0\0\x03tokreturn 1"),
        (tag::IS_COMPLETE, 2, b"x", b"\x0a\0\0\0C\x02\0\0\0\0\0\0\0x"),
        (tag::COMPLETE, 2, b"x", b"\x0a\0\0\0K\x02\0\0\0\0\0\0\0x"),
        (tag::INPUT, 0, b"\xff", b"\x0a\0\0\0S\0\0\0\0\0\0\0\0\xff"),
        (tag::INPUT_END, 0, b"", b"\x09\0\0\0F\0\0\0\0\0\0\0\0"),
        (tag::INTERRUPT, 258, b"", b"\x09\0\0\0I\x02\x01\0\0\0\0\0\0"),
        (tag::ACK, 0, &7u64.to_le_bytes(), b"\x11\0\0\0A\0\0\0\0\0\0\0\0\x07\0\0\0\0\0\0\0"),
        (tag::QUIT, 0, b"", b"\x09\0\0\0Q\0\0\0\0\0\0\0\0"),
        (tag::ACCEPTED, 1, &eval, b"\x19\0\0\0E\x01\0\0\0\0\0\0\0\x02\x01\0\0\x03tokreturn 1"),
        (tag::STDOUT, 1, b"a\n", b"\x0b\0\0\0O\x01\0\0\0\0\0\0\0a\n"),
        (tag::STDERR, 1, b"a\n", b"\x0b\0\0\0R\x01\0\0\0\0\0\0\0a\n"),
        (tag::VALUES, 1, b"1", b"\x0a\0\0\0V\x01\0\0\0\0\0\0\x001"),
        (tag::ERROR, 1, &failure(FailureKind::Syntax), b"\x11\0\0\0X\x01\0\0\0\0\0\0\0s\x01\0\0\0mtb"),
        (tag::ERROR, 1, &failure(FailureKind::Runtime), b"\x11\0\0\0X\x01\0\0\0\0\0\0\0r\x01\0\0\0mtb"),
        (tag::ERROR, 1, &failure(FailureKind::Interrupted), b"\x11\0\0\0X\x01\0\0\0\0\0\0\0i\x01\0\0\0mtb"),
        (tag::ERROR, 1, &failure(FailureKind::Deadline), b"\x11\0\0\0X\x01\0\0\0\0\0\0\0d\x01\0\0\0mtb"),
        (tag::INCOMPLETE, 1, b"m", b"\x0a\0\0\0N\x01\0\0\0\0\0\0\0m"),
        (tag::WANTS_INPUT, 1, b"", b"\x09\0\0\0W\x01\0\0\0\0\0\0\0"),
        (tag::DONE, 1, &7u64.to_le_bytes(), b"\x11\0\0\0D\x01\0\0\0\0\0\0\0\x07\0\0\0\0\0\0\0"),
        (tag::EXIT, 1, &(-1i32).to_le_bytes(), b"\x0d\0\0\0Z\x01\0\0\0\0\0\0\0\xff\xff\xff\xff"),
        (tag::GAP, 0, &7u64.to_le_bytes(), b"\x11\0\0\0G\0\0\0\0\0\0\0\0\x07\0\0\0\0\0\0\0"),
        (tag::NAMES, 2, b"{}", b"\x0b\0\0\0k\x02\0\0\0\0\0\0\0{}"),
        (tag::REFUSED, 3, b"code\nm", b"\x0f\0\0\0r\x03\0\0\0\0\0\0\0code\nm"),
    ];
    for (tag, id, payload, bytes) in recorded {
        let frame = Frame { tag, id, payload };
        assert_eq!(frame.to_vec(), bytes, "{frame:?}");
        assert_eq!(Frame::decode(bytes), Ok(Some((frame, bytes.len()))));
    }
    assert_eq!(Eval::decode(&eval).unwrap().code, b"return 1");
}

#[test]
fn the_hellos_of_protocol_1_are_as_they_were_recorded() {
    let client = br#"{"protocol":1,"min_protocol":1,"key":"00ff","from":77}"#;
    assert_eq!(ClientHello::of(FIRST, "00ff", 77).to_vec(), client);
    assert_eq!(ClientHello::decode(client).unwrap(), ClientHello::of(FIRST, "00ff", 77));
    let holder = br#"{"protocol":1,"min_protocol":1,"version":"0.1.0","runtime":"Lua 5.4","pid":42,"at":77,"oldest":13,"end":1000,"last_command":3,"running":3,"queued":1,"waiting_input":true,"overflow":"spill","lost":5}"#;
    let hello = HolderHello {
        protocol: 1,
        min_protocol: 1,
        version: "0.1.0".into(),
        runtime: "Lua 5.4".into(),
        pid: 42,
        at: 77,
        oldest: 13,
        end: 1000,
        last_command: 3,
        running: Some(3),
        queued: 1,
        waiting_input: true,
        overflow: "spill".into(),
        lost: 5,
        error: None,
    };
    assert_eq!(hello.to_vec(), holder);
    assert_eq!(HolderHello::decode(holder).unwrap(), hello);
}

#[test]
fn a_holder_of_protocol_1_says_what_it_always_said() {
    let holder = Holder::with(&Options { protocol: Some(1), ..Options::default() });
    let mut client = holder.client(0);
    let all: Vec<(char, u64, String)> = ["print('a', 1) return 1, nil, 'x'", "error('no')", "for", "x ="]
        .into_iter()
        .flat_map(|code| {
            let id = client.eval(code);
            client.until_done(id)
        })
        .filter(|frame| frame.tag != tag::DONE)
        .map(|frame| (frame.tag as char, frame.id, frame.payload.escape_ascii().to_string()))
        .collect();
    let recorded = [
        ('E', 1, r"\x00\x00\x00\x00\x00print(\'a\', 1) return 1, nil, \'x\'"),
        ('O', 1, r"a\t1\n"),
        ('V', 1, r"1\tnil\tx"),
        ('E', 2, r"\x00\x00\x00\x00\x00error(\'no\')"),
        ('X', 2, r"r\x0b\x00\x00\x00stdin:1: nostack traceback:\n\t[C]: in function \'error\'\n\tstdin:1: in main chunk"),
        ('E', 3, r"\x00\x00\x00\x00\x00for"),
        ('N', 3, r"stdin:1: <name> expected near <eof>"),
        ('E', 4, r"\x00\x00\x00\x00\x00x ="),
        ('N', 4, r"stdin:1: unexpected symbol near <eof>"),
    ];
    // Messages and tracebacks are those of Lua 5.4.
    if cfg!(feature = "lua54") {
        assert_eq!(all, recorded.map(|(tag, id, text)| (tag, id, text.to_owned())));
    } else {
        assert!(all.iter().map(|(tag, id, _)| (tag, id)).eq(recorded.iter().map(|(tag, id, _)| (tag, id))), "{all:?}");
    }
}
