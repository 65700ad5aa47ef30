//! Streams, against a peer of the test: data both ways, ends, errors, and flow control.

use crate::peer::{Peer, body, ends};
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    task::JoinHandle,
};
use uuid::Uuid;
use vmoon_libvirt_wire::{
    Client, Domain, Error, ErrorCode, Options, Procedure as P, Stream,
    flags::{Console, Domains},
    frame::{Header, Kind, Status},
};

const LONG: Duration = Duration::from_secs(20);

async fn opened() -> (Client, Peer, Stream, Peer, Header) {
    let (ends, mut peers) = ends(2);
    let (mut second, mut first) = (peers.remove(1), peers.remove(0));
    let (client, ()) = tokio::join!(Client::connect(ends, "qemu:///system", Options::default()), first.welcome(false));
    let client = client.expect("the peer is kind");
    let domain = Domain { name: "a".to_owned(), uuid: Uuid::from_u128(7), id: 1 };
    let serve = async {
        second.welcome(false).await;
        let (asked, _) = second.expect(P::DomainOpenConsole).await;
        second.reply(&asked, &[]).await;
        asked
    };
    let (stream, asked) = tokio::join!(client.console(&domain, None, Console::FORCE), serve);
    (client, first, stream.expect("opened"), second, Header { kind: Kind::Stream, status: Status::Continue, ..asked })
}

async fn result<T>(task: JoinHandle<T>) -> T {
    tokio::time::timeout(LONG, task).await.expect("it ends").expect("it does not panic")
}

#[tokio::test]
async fn data_goes_both_ways_and_the_end_is_confirmed() {
    let (_client, _first, mut stream, mut peer, header) = opened().await;
    peer.write(header, b"login: ").await;
    let mut said = [0; 7];
    stream.read_exact(&mut said).await.expect("data");
    assert_eq!(&said, b"login: ");
    stream.write_all(b"me\n").await.expect("taken");
    let (piece, data) = peer.read().await.expect("data");
    assert_eq!((piece, data.as_slice()), (header, &b"me\n"[..]));
    // Nothing more to read, from the other side; then we are done too.
    peer.write(header, &[]).await;
    assert_eq!(stream.read(&mut said).await.expect("an end"), 0);
    let end = tokio::spawn(async move {
        stream.shutdown().await.expect("confirmed");
        stream.write_all(b"more").await.expect_err("after the end");
    });
    let (done, _) = peer.read().await.expect("the end");
    assert_eq!(done, Header { status: Status::Ok, ..header });
    peer.write(Header { status: Status::Ok, ..header }, &[]).await;
    result(end).await;
    assert!(peer.read().await.is_none(), "with the stream its connection goes");
}

#[tokio::test]
async fn halves_in_two_tasks_wake_each_other() {
    let (_client, _first, stream, mut peer, header) = opened().await;
    let (mut reader, mut writer) = tokio::io::split(stream);
    let reading = tokio::spawn(async move {
        let mut all = Vec::new();
        reader.read_to_end(&mut all).await.map(|_| all)
    });
    for _ in 0..3 {
        writer.write_all(b"x").await.expect("taken");
        peer.read().await.expect("data");
        peer.write(header, b"y").await;
    }
    let ending = tokio::spawn(async move { writer.shutdown().await });
    peer.read().await.expect("the end");
    peer.write(Header { status: Status::Ok, ..header }, &[]).await;
    result(ending).await.expect("confirmed");
    assert!(b"yyy".starts_with(&result(reading).await.expect("an end")[..]));
}

#[tokio::test]
async fn an_error_of_the_daemons_reaches_reader_and_writer() {
    for writes in [false, true] {
        let (_client, _first, mut stream, mut peer, header) = opened().await;
        peer.write(Header { status: Status::Error, ..header }, &crate::peer::refusal(ErrorCode::RPC.0, "stream had I/O failure")).await;
        let failed = if writes {
            // The error comes while data is on its way: at the latest the end hears of it.
            let mut all = Ok(());
            while all.is_ok() {
                all = tokio::time::timeout(LONG, stream.write_all(&[0; 1000])).await.expect("no write hangs");
                tokio::task::yield_now().await;
            }
            all
        } else {
            stream.read(&mut [0; 9]).await.map(drop)
        };
        assert!(failed.expect_err("the daemon failed").to_string().starts_with("stream had I/O failure"));
        assert_eq!(stream.failure().and_then(Error::code), Some(ErrorCode::RPC));
    }
}

#[tokio::test]
async fn a_stream_that_its_call_refused_is_none() {
    let (ends, mut peers) = ends(2);
    let (mut second, mut first) = (peers.remove(1), peers.remove(0));
    let (client, ()) = tokio::join!(Client::connect(ends, "qemu:///system", Options::default()), first.welcome(false));
    let client = client.expect("the peer is kind");
    let domain = Domain::of(Uuid::from_u128(7));
    let serve = async {
        second.welcome(false).await;
        let (asked, _) = second.expect(P::DomainOpenConsole).await;
        second.refuse(&asked, ErrorCode::OPERATION_FAILED.0, "Active console session exists for this domain").await;
    };
    let (stream, ()) = tokio::join!(client.console(&domain, None, Console::NONE), serve);
    assert_eq!(stream.expect_err("refused").code(), Some(ErrorCode::OPERATION_FAILED));
    assert!(second.read().await.is_none(), "its connection goes");
}

#[tokio::test]
async fn a_slow_reader_stops_the_daemon_and_nobody_else() {
    let (client, mut first, mut stream, mut peer, header) = opened().await;
    const PIECE: usize = 256 * 1000;
    const PIECES: usize = 64;
    let sending = tokio::spawn(async move {
        for number in 0..PIECES {
            peer.write(header, &vec![number as u8; PIECE]).await;
        }
        peer.write(header, &[]).await;
        peer
    });
    // Somebody else's call goes on meanwhile.
    let call = {
        let client = client.clone();
        tokio::spawn(async move { client.domains(Domains::NONE).await })
    };
    let (asked, _) = first.expect(P::ConnectListAllDomains).await;
    first.reply(&asked, &body((Vec::<Domain>::new(), 0_u32))).await;
    result(call).await.expect("answered");
    assert!(!sending.is_finished(), "16 MB do not fit into the buffers");
    let mut all = Vec::new();
    stream.read_to_end(&mut all).await.expect("all of it");
    assert_eq!(all.len(), PIECE * PIECES);
    assert!(all.chunks(PIECE).enumerate().all(|(number, piece)| piece.iter().all(|byte| *byte == number as u8)), "in order");
    result(sending).await;
}

#[tokio::test]
async fn a_slow_daemon_stops_the_writer() {
    let (_client, _first, mut stream, mut peer, header) = opened().await;
    const SIZE: usize = 16_000_000;
    let writing = tokio::spawn(async move {
        let data: Vec<u8> = (0..SIZE).map(|at| at as u8).collect();
        stream.write_all(&data).await?;
        stream.shutdown().await
    });
    let mut got = 0;
    while got < SIZE {
        assert!(!writing.is_finished(), "nothing is written ahead of the daemon but what fits into buffers");
        let (piece, data) = peer.read().await.expect("data");
        assert_eq!(piece, header);
        assert!(data.iter().enumerate().all(|(at, byte)| *byte == (got + at) as u8), "in order");
        got += data.len();
    }
    peer.read().await.expect("the end");
    peer.write(Header { status: Status::Ok, ..header }, &[]).await;
    result(writing).await.expect("confirmed");
}

#[tokio::test]
async fn a_daemon_that_dies_ends_its_streams() {
    let (_client, _first, mut stream, peer, _) = opened().await;
    drop(peer);
    let error = stream.read(&mut [0; 9]).await.expect_err("gone");
    assert_eq!(error.to_string(), "the connection to libvirt ended: the other end closed it");
}
