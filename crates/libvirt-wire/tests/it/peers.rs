//! Against a peer that is slow, silent, gone, or lies.

use crate::peer::{Peer, body, ends};
use std::{io::ErrorKind, os::fd::AsFd as _, time::Duration};
use tokio::{io::AsyncWriteExt as _, task::JoinHandle};
use uuid::Uuid;
use vmoon_libvirt_wire::{
    Client, Domain, DomainEvent, Error, ErrorCode, Event, IN_FLIGHT, Keepalive, Life, Options, Procedure as P, Topic, UnixSocket,
    flags::{Define, Domains, Graphics, Start},
    frame::{self, HEAD, Header, Kind, PING, PONG, PROGRAM_KEEPALIVE, Status},
};

const SHORT: Duration = Duration::from_millis(50);
const LONG: Duration = Duration::from_secs(20);

fn somebody() -> Domain {
    Domain { name: "a".to_owned(), uuid: Uuid::from_u128(7), id: -1 }
}

/// A client and the peer it is connected to.
async fn connected(options: Options, keepalive: bool) -> (Client, Peer) {
    let (ends, mut peers) = ends(1);
    let mut peer = peers.remove(0);
    let (client, ()) = tokio::join!(Client::connect(ends, "qemu:///system", options), peer.welcome(keepalive));
    (client.expect("the peer is kind"), peer)
}

fn listing(client: &Client) -> JoinHandle<Result<Vec<Domain>, Error>> {
    let client = client.clone();
    tokio::spawn(async move { client.domains(Domains::NONE).await })
}

async fn result<T>(task: JoinHandle<T>) -> T {
    tokio::time::timeout(LONG, task).await.expect("the call ends").expect("it does not panic")
}

#[tokio::test]
async fn a_place_where_nobody_listens_is_named() {
    let folder = tempfile::tempdir().expect("a directory");
    let path = folder.path().join("none");
    let error = Client::connect(UnixSocket(path.clone()), "qemu:///system", Options::default()).await.expect_err("nobody is there");
    let Error::Unreachable { to, kind, .. } = &error else { panic!("{error:?}") };
    assert_eq!((to.as_str(), *kind), (path.to_str().expect("a plain path"), ErrorKind::NotFound));
    assert!(error.is_connection());
}

#[tokio::test]
async fn who_asks_for_a_password_is_told_apart() {
    for (way, refuse, says) in
        [(1_u32, false, "SASL"), (9, false, "not known here (9)"), (2, true, "polkit did not let us in: access denied")]
    {
        let (ends, mut peers) = ends(1);
        let mut peer = peers.remove(0);
        let serve = async {
            let (call, _) = peer.expect(P::AuthList).await;
            peer.reply(&call, &body(vec![way, 0])).await;
            if refuse {
                let (call, _) = peer.expect(P::AuthPolkit).await;
                peer.refuse(&call, ErrorCode::AUTH_UNAVAILABLE.0, "access denied").await;
            }
        };
        let (client, ()) = tokio::join!(Client::connect(ends, "qemu:///system", Options::default()), serve);
        let Err(Error::Authentication(why)) = client else { panic!("{client:?}") };
        assert!(why.contains(says), "{why}");
    }
}

#[tokio::test]
async fn replies_find_their_calls_in_any_order() {
    let (client, mut peer) = connected(Options::default(), false).await;
    let calls: Vec<_> = (0..IN_FLIGHT as u128)
        .map(|number| {
            let client = client.clone();
            tokio::spawn(async move { client.domain(Uuid::from_u128(number)).await })
        })
        .collect();
    let mut asked = Vec::new();
    for _ in 0..IN_FLIGHT {
        asked.push(peer.expect(P::DomainLookupByUuid).await);
    }
    for (call, uuid) in asked.iter().rev() {
        let uuid = Uuid::from_slice(uuid).expect("16 bytes");
        peer.reply(call, &body(&Domain { name: uuid.to_string(), uuid, id: -1 })).await;
    }
    for (number, call) in calls.into_iter().enumerate() {
        assert_eq!(result(call).await.expect("answered").uuid, Uuid::from_u128(number as u128));
    }
}

#[tokio::test]
async fn no_more_calls_are_under_way_than_a_daemon_takes() {
    let (client, mut peer) = connected(Options::default(), false).await;
    let calls: Vec<_> = (0..IN_FLIGHT * 3).map(|_| listing(&client)).collect();
    let mut waiting = Vec::new();
    for _ in 0..calls.len() {
        while waiting.len() < IN_FLIGHT
            && let Ok(Some((call, _))) = tokio::time::timeout(SHORT, peer.read()).await
        {
            waiting.push(call);
        }
        let more = tokio::time::timeout(SHORT, peer.read()).await;
        assert!(more.is_err(), "no call is sent before there is a place for it");
        let call = waiting.remove(0);
        peer.reply(&call, &body((Vec::<Domain>::new(), 0_u32))).await;
    }
    for call in calls {
        assert_eq!(result(call).await.expect("answered"), []);
    }
}

#[tokio::test]
async fn a_call_that_is_given_up_keeps_its_place_and_its_reply_is_not_anothers() {
    let (client, mut peer) = connected(Options::default(), false).await;
    let late = client.within(SHORT).domain_named("late").await.expect_err("nobody answers");
    assert_eq!(late.to_string(), "libvirt did not answer DOMAIN_LOOKUP_BY_NAME within 50 ms");
    let (first, _) = peer.expect(P::DomainLookupByName).await;
    let dropped = tokio::time::timeout(SHORT, client.domain_named("dropped")).await;
    assert!(dropped.is_err());
    let (second, _) = peer.expect(P::DomainLookupByName).await;
    let next = listing(&client);
    let (third, _) = peer.expect(P::ConnectListAllDomains).await;
    peer.reply(&first, &body(somebody())).await;
    peer.reply(&second, &body(somebody())).await;
    peer.reply(&third, &body((vec![somebody()], 1_u32))).await;
    assert_eq!(result(next).await.expect("answered"), [somebody()]);
}

#[tokio::test]
async fn libvirts_own_words_come_with_the_error() {
    let (client, mut peer) = connected(Options::default(), false).await;
    let call = {
        let client = client.clone();
        tokio::spawn(async move { client.define("<domain/>", Define::VALIDATE).await })
    };
    let (asked, _) = peer.expect(P::DomainDefineXmlFlags).await;
    peer.refuse(&asked, ErrorCode::XML_INVALID_SCHEMA.0, "XML document failed to validate").await;
    let error = result(call).await.expect_err("refused");
    assert_eq!(error.code(), Some(ErrorCode::XML_INVALID_SCHEMA));
    assert_eq!(error.to_string(), "XML document failed to validate (VIR_ERR_XML_INVALID_SCHEMA, VIR_FROM_QEMU)");
    // An older daemon that does not know a procedure says so in this way.
    let call = listing(&client);
    let (asked, _) = peer.expect(P::ConnectListAllDomains).await;
    peer.refuse(&asked, ErrorCode::RPC.0, "unknown procedure: 273").await;
    assert!(result(call).await.expect_err("refused").is_unsupported());
}

#[tokio::test]
async fn what_cannot_be_said_is_not_sent() {
    let (client, _peer) = connected(Options::default(), false).await;
    let error = client.domain_named("a\0b").await.expect_err("a NUL byte");
    assert_eq!(error.to_string(), "DOMAIN_LOOKUP_BY_NAME cannot be asked: a text contains a NUL byte");
}

#[tokio::test]
async fn a_peer_that_goes_away_fails_everybody_who_waits() {
    let (client, peer) = connected(Options::default(), false).await;
    let mut events = client.watch(&[]).await.expect("a listener");
    let calls: Vec<_> = (0..7).map(|_| listing(&client)).collect();
    tokio::task::yield_now().await;
    drop(peer);
    for call in calls {
        let error = result(call).await.expect_err("gone");
        assert_eq!(error.to_string(), "the connection to libvirt ended: the other end closed it");
    }
    assert_eq!(events.next().await, Event::Closed("the other end closed it".into()));
    assert_eq!(events.next().await, Event::Closed("the other end closed it".into()), "again and again");
    assert!(client.domains(Domains::NONE).await.expect_err("for ever").is_connection());
    let after = client.watch(&[Topic::LIFE]).await.expect("a listener").next().await;
    assert_eq!(after, Event::Closed("the other end closed it".into()));
}

#[tokio::test]
async fn lies_end_the_connection_with_the_reason() {
    let header = |kind, serial, status| Header { program: 0x2000_8086, version: 1, procedure: 273, kind, serial, status };
    let message = |header: Header, body: &[u8]| header.message(body).expect("small");
    let lies: Vec<(Vec<u8>, &str)> = vec![
        (vec![0, 0, 0, 0], "shorter than its header"),
        (vec![0, 0, 0, 3], "shorter than its header"),
        (vec![0, 0, 0, 27], "shorter than its header"),
        (vec![0xff; 4], "claims more than 32 MiB"),
        // One byte more than a message may have, then as many bytes as were claimed: they are not waited for.
        ([&33_554_437_u32.to_be_bytes()[..], &[0; 64]].concat(), "claims more than 32 MiB"),
        ([&[0, 0, 0, 28][..], &[9; 24]].concat(), "an unknown kind of message"),
        (message(header(Kind::Reply, 4_000_000, Status::Ok), &[]), "a reply to no call"),
        (message(header(Kind::Call, 1, Status::Ok), &[]), "a call, from a daemon"),
        (message(header(Kind::ReplyWithDescriptors, 3, Status::Ok), &[0, 0, 0, 99]), "more file descriptors than there may be"),
        (
            [message(header(Kind::ReplyWithDescriptors, 3, Status::Ok), &[0, 0, 0, 1]), vec![0]].concat(),
            "a file descriptor that did not come",
        ),
        (message(header(Kind::Reply, 4, Status::Continue), &[]), "half a reply"),
        (message(Header { procedure: 1, ..header(Kind::Reply, 4, Status::Ok) }, &[]), "another procedure"),
    ];
    for (bytes, says) in lies {
        let (client, mut peer) = connected(Options::default(), false).await;
        let call = listing(&client);
        peer.expect(P::ConnectListAllDomains).await;
        peer.0.write_all(&bytes).await.expect("the client reads");
        let error = result(call).await.expect_err("a lie");
        assert!(matches!(error, Error::Closed(_)) && error.to_string().contains(says), "{error} is not about: {says}");
    }
}

#[tokio::test]
async fn a_message_that_is_cut_by_the_end_is_no_message() {
    for cut in 0.. {
        let (client, mut peer) = connected(Options::default(), false).await;
        let call = listing(&client);
        let (asked, _) = peer.expect(P::ConnectListAllDomains).await;
        let reply = Header { kind: Kind::Reply, ..asked }.message(&body((vec![somebody()], 1_u32))).expect("small");
        peer.0.write_all(&reply[..cut]).await.expect("the client reads");
        drop(peer);
        let answered = result(call).await;
        if cut == reply.len() {
            assert_eq!(answered.expect("whole"), [somebody()]);
            return;
        }
        let error = answered.expect_err("cut").to_string();
        let says = if cut == 0 { "the other end closed it" } else { "in the middle of a message" };
        assert!(error.ends_with(says), "cut at {cut}: {error}");
    }
}

/// The largest message there may be, of noise: an error of that call, and the connection is as good as before.
#[tokio::test]
async fn the_largest_message_is_read_and_what_is_in_it_is_not_believed() {
    let (client, mut peer) = connected(Options::default(), false).await;
    let call = listing(&client);
    let (asked, _) = peer.expect(P::ConnectListAllDomains).await;
    let mut noise = Header { kind: Kind::Reply, ..asked }.message(&vec![0x7f; frame::MESSAGE_MAX - HEAD]).expect("as large as may be");
    noise[28..32].copy_from_slice(&u32::MAX.to_be_bytes());
    peer.0.write_all(&noise).await.expect("the client reads");
    let error = result(call).await.expect_err("noise");
    assert!(matches!(error, Error::Malformed { .. }), "{error}");
    let call = listing(&client);
    let (asked, _) = peer.expect(P::ConnectListAllDomains).await;
    peer.reply(&asked, &body((vec![somebody()], 1_u32))).await;
    assert_eq!(result(call).await.expect("answered"), [somebody()]);
}

/// An agent's answer is a text in a reply like any other: one that is longer than its message says is refused, one that lies about its length too.
#[tokio::test]
async fn the_answer_of_an_agent_has_the_length_it_says() {
    let (ends, mut peers) = ends(2);
    let (mut second, mut first) = (peers.remove(1), peers.remove(0));
    let (client, ()) = tokio::join!(Client::connect(ends, "qemu:///system", Options::default()), first.welcome(false));
    let client = client.expect("the peer is kind");
    let mut greeted = false;
    for (answer, good) in [
        (body(Some("{\"return\":{}}")), true),
        (vec![0, 0, 0, 1, 0x7f, 0xff, 0xff, 0xff, b'{', b'}', 0, 0], false),
        (vec![0, 0, 0, 9], false),
        (body(None::<String>), false),
        // What is no UTF-8 is a text all the same, with marks in it.
        (vec![0, 0, 0, 1, 0, 0, 0, 2, 0xff, 0xfe, 0, 0], true),
    ] {
        let ask = {
            let client = client.clone();
            tokio::spawn(async move { client.agent_command(&somebody(), "{}", LONG).await })
        };
        if !std::mem::replace(&mut greeted, true) {
            second.welcome(false).await;
        }
        let (asked, _) = second.expect(P::QemuDomainAgentCommand).await;
        second.reply(&asked, &answer).await;
        let said = result(ask).await;
        assert_eq!(said.is_ok(), good, "{answer:?}: {said:?}");
    }
}

#[tokio::test]
async fn a_result_of_another_shape_is_an_error_of_that_call_only() {
    let (client, mut peer) = connected(Options::default(), false).await;
    for bytes in [vec![], vec![0, 0, 0, 1], body((vec![somebody()], 1_u32, 1_u32)), vec![0xff; 64]] {
        let call = listing(&client);
        let (asked, _) = peer.expect(P::ConnectListAllDomains).await;
        peer.reply(&asked, &bytes).await;
        let error = result(call).await.expect_err("another shape");
        assert!(matches!(error, Error::Malformed { procedure: "CONNECT_LIST_ALL_DOMAINS", .. }), "{error}");
    }
    let call = listing(&client);
    let (asked, _) = peer.expect(P::ConnectListAllDomains).await;
    peer.reply(&asked, &body((vec![somebody()], 1_u32))).await;
    assert_eq!(result(call).await.expect("the connection is as good as before"), [somebody()]);
}

#[tokio::test]
async fn a_peer_that_dribbles_is_waited_for() {
    let (client, mut peer) = connected(Options::default(), false).await;
    let call = listing(&client);
    let (asked, _) = peer.expect(P::ConnectListAllDomains).await;
    let reply = Header { kind: Kind::Reply, ..asked }.message(&body((vec![somebody(); 3], 3_u32))).expect("small");
    for byte in reply {
        peer.0.write_all(&[byte]).await.expect("the client reads");
        tokio::task::yield_now().await;
    }
    assert_eq!(result(call).await.expect("answered").len(), 3);
}

#[tokio::test]
async fn keepalive_answers_and_asks_and_ends_what_is_silent() {
    let keepalive = Keepalive { interval: SHORT, count: 2 };
    let (client, mut peer) = connected(Options { keepalive: Some(keepalive), ..Options::default() }, true).await;
    let ping = Header { program: PROGRAM_KEEPALIVE, version: 1, procedure: PING, kind: Kind::Message, serial: 0, status: Status::Ok };
    let pong = Header { procedure: PONG, ..ping };
    peer.write(ping, &[]).await;
    let (answer, _) = peer.read().await.expect("an answer");
    assert_eq!(answer, pong);
    for _ in 0..5 {
        let (question, _) = peer.read().await.expect("a question");
        assert_eq!(question, ping);
        peer.write(pong, &[]).await;
    }
    assert_eq!(client.ended(), None, "who answers is kept");
    let call = listing(&client);
    let error = result(call).await.expect_err("silence");
    assert_eq!(error.to_string(), "the connection to libvirt ended: the other end was silent for 150 ms");
}

#[tokio::test]
async fn events_come_and_too_many_become_everything() {
    let (client, mut peer) = connected(Options { events: 4, ..Options::default() }, false).await;
    let watch = {
        let client = client.clone();
        tokio::spawn(async move { client.watch(&[Topic::LIFE, Topic::AGENT]).await })
    };
    let (asked, arguments) = peer.expect(P::ConnectDomainEventCallbackRegisterAny).await;
    assert_eq!(arguments, body((0, 0_u32)));
    peer.reply(&asked, &body(1)).await;
    let (asked, arguments) = peer.expect(P::ConnectDomainEventCallbackRegisterAny).await;
    assert_eq!(arguments, body((18, 0_u32)));
    peer.refuse(&asked, ErrorCode::NO_SUPPORT.0, "this function is not supported").await;
    let mut events = result(watch).await.expect("a listener");
    assert_eq!(events.unsupported(), [Topic::AGENT]);
    let again = client.watch(&[Topic::LIFE]).await.expect("nothing is asked twice");
    assert_eq!(again.unsupported(), []);

    let started = Event::Domain { domain: somebody(), what: DomainEvent::Life(Life::Started, 0) };
    let said = body((1, somebody(), 2, 0));
    peer.event(P::DomainEventCallbackLifecycle, &said).await;
    assert_eq!(events.next().await, started);
    // What cannot be read may have been anything.
    peer.event(P::DomainEventCallbackLifecycle, &said[..20]).await;
    assert_eq!(events.next().await, Event::Everything);
    // What is not known is nothing.
    peer.event(P::AuthList, &[1, 2, 3]).await;
    for _ in 0..50 {
        peer.event(P::DomainEventCallbackLifecycle, &said).await;
    }
    // A call's answer comes after them, so they are all there.
    let call = listing(&client);
    let (asked, _) = peer.expect(P::ConnectListAllDomains).await;
    peer.reply(&asked, &body((Vec::<Domain>::new(), 0_u32))).await;
    result(call).await.expect("answered");
    assert_eq!(events.next().await, Event::Everything);
    for _ in 0..4 {
        assert_eq!(events.next().await, started);
    }
}

#[tokio::test]
async fn long_calls_have_connections_of_their_own_and_hung_ones_keep_nobody_back() {
    let (ends, mut peers) = ends(3);
    let (mut third, mut second, mut first) = (peers.remove(2), peers.remove(1), peers.remove(0));
    let (client, ()) = tokio::join!(Client::connect(ends, "qemu:///system", Options::default()), first.welcome(false));
    let client = client.expect("the peer is kind");
    let start = || {
        let client = client.clone();
        tokio::spawn(async move { client.start(&somebody(), Start::NONE).await })
    };
    let hung: Vec<_> = (0..IN_FLIGHT).map(|_| start()).collect();
    second.welcome(false).await;
    for _ in 0..IN_FLIGHT {
        second.expect(P::DomainCreateWithFlags).await;
    }
    // All places of the second are taken: who looks does not notice, and who starts gets a third.
    let call = listing(&client);
    let (asked, _) = first.expect(P::ConnectListAllDomains).await;
    first.reply(&asked, &body((Vec::<Domain>::new(), 0_u32))).await;
    result(call).await.expect("while four start");
    let another = start();
    third.welcome(false).await;
    let (asked, _) = third.expect(P::DomainCreateWithFlags).await;
    third.reply(&asked, &body(somebody())).await;
    result(another).await.expect("while four hang");
    drop(second);
    for call in hung {
        assert!(matches!(result(call).await, Err(Error::Closed(_))));
    }
    assert_eq!(client.ended(), None, "the first is still good");
    let again = start();
    let (asked, _) = third.expect(P::DomainCreateWithFlags).await;
    third.reply(&asked, &body(somebody())).await;
    result(again).await.expect("the third is used again");
    drop(third);
    let none_left = tokio::time::timeout(LONG, async {
        loop {
            match result(start()).await {
                Err(error @ Error::Unreachable { .. }) => return error,
                Err(Error::Closed(_)) => {}
                other => panic!("{other:?}"),
            }
        }
    });
    none_left.await.expect("the test has no fourth end");
}

#[tokio::test]
async fn a_descriptor_comes_with_its_reply() {
    let (ends, mut peers) = ends(2);
    let (mut second, mut first) = (peers.remove(1), peers.remove(0));
    let (client, ()) = tokio::join!(Client::connect(ends, "qemu:///system", Options::default()), first.welcome(false));
    let client = client.expect("the peer is kind");
    let call = tokio::spawn(async move { client.open_graphics(&somebody(), 0, Graphics::SKIP_AUTH).await });
    second.welcome(false).await;
    let (asked, _) = second.expect(P::DomainOpenGraphicsFd).await;
    let (mut ours, theirs) = std::os::unix::net::UnixStream::pair().expect("a pair of sockets");
    // With an event in front and pieces that end anywhere.
    second.event(P::AuthList, &[]).await;
    let reply = Header { kind: Kind::ReplyWithDescriptors, ..asked }.message(&body(1_u32)).expect("small");
    second.0.write_all(&reply[..HEAD + 2]).await.expect("the client reads");
    second.0.write_all(&reply[HEAD + 2..]).await.expect("the client reads");
    second.send_with(&[0], theirs.as_fd()).await;
    drop(theirs);
    let got = result(call).await.expect("a descriptor");
    let mut got = std::os::unix::net::UnixStream::from(got);
    std::io::Write::write_all(&mut ours, b"RFB").expect("it is connected");
    let mut said = [0; 3];
    std::io::Read::read_exact(&mut got, &mut said).expect("it is connected");
    assert_eq!(&said, b"RFB");
}

#[tokio::test]
async fn garbage_ends_every_call_and_hangs_nobody() {
    let mut number = 7_u64;
    for _ in 0..300 {
        let (client, mut peer) = connected(Options::default(), false).await;
        let mut events = client.watch(&[]).await.expect("a listener");
        let call = listing(&client);
        let (asked, _) = peer.expect(P::ConnectListAllDomains).await;
        // A good reply, an event and a piece of a stream, with a few bytes changed somewhere.
        let domain = body((1, somebody(), 2, 0));
        let event = Header { procedure: 318, kind: Kind::Message, serial: 0, ..asked }.message(&domain).expect("small");
        let stream = Header { kind: Kind::Stream, status: Status::Continue, ..asked }.message(b"data").expect("small");
        let reply = Header { kind: Kind::Reply, ..asked }.message(&body((vec![somebody()], 1_u32))).expect("small");
        let mut bytes = [event, stream, reply].concat();
        for _ in 0..3 {
            number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let at = (number >> 33) as usize % bytes.len();
            bytes[at] ^= 1 << (number >> 61);
        }
        peer.0.write_all(&bytes).await.expect("the client reads");
        drop(peer);
        // With a result or without: it ends, and so does the listener.
        let _either = result(call).await;
        let ends = async { while !matches!(events.next().await, Event::Closed(_)) {} };
        tokio::time::timeout(LONG, ends).await.expect("the listener hears of the end");
    }
}
