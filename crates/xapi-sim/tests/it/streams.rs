//! What is no call, by our client: consoles, import and export, statistics; at the coordinator and at other hosts of the pool.

use crate::{client, pool};
use serde_json::{Value, json};
use std::{
    future::{pending, ready},
    io,
    pin::Pin,
    task::{Context, Poll},
};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, ReadBuf};
use vmoon_xapi::{
    Client, Error, Transfer,
    records::{Console, Vdi, Vm},
    rrd::Of,
    task::End,
    transfer::Format,
};

const MIB: usize = 1 << 20;

async fn text(client: &Client, method: &str, params: Vec<Value>) -> String {
    client.call(method, params).await.unwrap().as_str().unwrap().to_owned()
}

/// A VM that runs, from the template with a disk; its reference.
async fn running(client: &Client) -> String {
    let template = client.get::<Vec<String>>("VM.get_by_name_label", vec!["linux-lua".into()]).await.unwrap().remove(0);
    let vm = text(client, "VM.clone", vec![template.into(), "web".into()]).await;
    client.call("VM.provision", vec![vm.clone().into()]).await.unwrap();
    client.call("VM.start", vec![vm.clone().into(), false.into(), false.into()]).await.unwrap();
    vm
}

async fn console(client: &Client, vm: &str, protocol: &str) -> String {
    let consoles: Vec<String> = client.get("VM.get_consoles", vec![vm.into()]).await.unwrap();
    for one in consoles {
        let console: Console = client.get("console.get_record", vec![one.into()]).await.unwrap();
        if console.protocol == protocol {
            return console.location;
        }
    }
    panic!("no {protocol}")
}

/// A disk of so many MiB in the local repository.
async fn disk(client: &Client, mib: usize) -> String {
    let sr = client.get::<Vec<String>>("SR.get_by_name_label", vec!["Local storage".into()]).await.unwrap().remove(0);
    let record = json!({"name_label": "d", "SR": sr, "virtual_size": mib * MIB, "type": "user", "sharable": false, "read_only": false, "other_config": {}});
    text(client, "VDI.create", vec![record]).await
}

fn bytes(count: usize) -> Vec<u8> {
    (0..count).map(|n| (n * 31 % 251) as u8).collect()
}

#[tokio::test]
async fn a_console_is_a_pipe_for_bytes() {
    let (server, client) = pool().await;
    let vm = running(&client).await;
    let mut screen = client.console(&console(&client, &vm, "rfb").await).await.unwrap();
    let mut greeting = [0; 12];
    screen.read_exact(&mut greeting).await.unwrap();
    assert_eq!(&greeting, b"RFB 003.008\n");
    // Nothing is behind it that could show anything: nobody is let in, and it is said why.
    screen.write_all(&greeting).await.unwrap();
    let mut refusal = Vec::new();
    screen.read_to_end(&mut refusal).await.unwrap();
    assert!(refusal[0] == 0 && String::from_utf8_lossy(&refusal).contains("no machine is behind it"), "{refusal:?}");
    let location = console(&client, &vm, "vt100").await;
    // The session has ended meanwhile: it is renewed once.
    server.sim.restart();
    let mut terminal = client.console(&location).await.unwrap();
    let mut prompt = vec![0; "\r\nweb login: ".len()];
    terminal.read_exact(&mut prompt).await.unwrap();
    assert_eq!(prompt, b"\r\nweb login: ");
    let sent = bytes(200_000);
    let (mut reading, mut writing) = tokio::io::split(terminal);
    let copy = sent.clone();
    let writer = tokio::spawn(async move {
        writing.write_all(&copy).await.unwrap();
        writing.flush().await.unwrap();
    });
    let mut got = vec![0; sent.len()];
    reading.read_exact(&mut got).await.unwrap();
    assert_eq!(got, sent);
    writer.await.unwrap();
    // With the VM the console goes.
    client.call("VM.hard_shutdown", vec![vm.into()]).await.unwrap();
    let gone = client.console(&location).await.unwrap_err();
    assert!(matches!(&gone, Error::Http { status: 500, text } if text.contains("Read_missing_uuid")), "{gone}");
}

#[tokio::test]
async fn what_is_behind_a_console_is_reached() {
    let (server, client) = pool().await;
    let vm = running(&client).await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("serial");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    let wanted = vm.clone();
    server.sim.set_consoles(std::sync::Arc::new(move |of, protocol| (of == wanted && protocol == "vt100").then(|| path.clone())));
    let mut terminal = client.console(&console(&client, &vm, "vt100").await).await.unwrap();
    let (mut machine, _) = listener.accept().await.unwrap();
    machine.write_all(b"hello").await.unwrap();
    let mut got = [0; 5];
    terminal.read_exact(&mut got).await.unwrap();
    terminal.write_all(b"there").await.unwrap();
    terminal.flush().await.unwrap();
    machine.read_exact(&mut got).await.unwrap();
    assert_eq!(&got, b"there");
}

#[tokio::test]
async fn disks_come_and_go_byte_for_byte_with_their_length_and_a_task() {
    let (_server, client) = pool().await;
    let vdi = disk(&client, 8).await;
    let sent = bytes(3 * MIB + 17);
    let mut seen = Vec::new();
    let what = Transfer::import_disk(&vdi, Format::Raw);
    let end = client.send(&what, io::Cursor::new(sent.clone()), sent.len() as u64, |count| seen.push(count), pending()).await.unwrap();
    assert_eq!(end, End::Done("".into()));
    assert_eq!(seen.last(), Some(&(sent.len() as u64)));
    assert!(seen.is_sorted());
    let mut got = Vec::new();
    let count = client.fetch(&Transfer::export_disk(&vdi, Format::Raw), &mut got, |_| {}, pending()).await.unwrap();
    assert_eq!(count, 8 * MIB as u64);
    assert!(got[..sent.len()] == sent && got[sent.len()..].iter().all(|byte| *byte == 0));
    // What must be small is not read beyond that.
    let what = Transfer::export_disk(&vdi, Format::Raw);
    assert_eq!(client.fetch_small(&what, 8 * MIB).await.unwrap(), got);
    let error = client.fetch_small(&what, 8 * MIB - 1).await.unwrap_err();
    assert!(matches!(&error, Error::Protocol(why) if why.contains("more than 8388607 bytes")), "{error}");
    // Nothing is left of the tasks.
    assert!(client.get::<Vec<String>>("task.get_all", vec![]).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_vm_goes_through_a_file_with_its_disk() {
    let (_server, client) = pool().await;
    let vm = running(&client).await;
    client.call("VM.hard_shutdown", vec![vm.clone().into()]).await.unwrap();
    let vbd = client.get::<Vec<String>>("VM.get_VBDs", vec![vm.clone().into()]).await.unwrap().remove(0);
    let vdi = text(&client, "VBD.get_VDI", vec![vbd.into()]).await;
    let content = bytes(2 * MIB + 5);
    let length = content.len() as u64;
    client.send(&Transfer::import_disk(&vdi, Format::Raw), io::Cursor::new(content.clone()), length, |_| {}, pending()).await.unwrap();
    client.call("VM.set_name_label", vec![vm.clone().into(), "a <b> & \"ü\"".into()]).await.unwrap();
    let uuid = text(&client, "VM.get_uuid", vec![vm.into()]).await;
    let mut file = Vec::new();
    client.fetch(&Transfer::export(&uuid, None), &mut file, |_| {}, pending()).await.unwrap();
    let length = file.len() as u64;
    let End::Done(made) =
        client.send(&Transfer::import(None, false), io::Cursor::new(file.clone()), length, |_| {}, pending()).await.unwrap()
    else {
        panic!()
    };
    let again: Vm = client.get("VM.get_record", vec![made[0].clone()]).await.unwrap();
    assert_eq!(again.name_label, "a <b> & \"ü\"");
    assert_ne!(again.uuid, uuid);
    let vdi = text(&client, "VBD.get_VDI", vec![(&again.vbds[0]).into()]).await;
    let record: Vdi = client.get("VDI.get_record", vec![vdi.into()]).await.unwrap();
    assert_eq!(record.virtual_size, 2 << 30);
    // Its disk has what the other had.
    let mut second = Vec::new();
    client.fetch(&Transfer::export(&again.uuid, None), &mut second, |_| {}, pending()).await.unwrap();
    let has = |file: &[u8]| file.windows(64).any(|window| window == &content[MIB..MIB + 64]);
    assert!(has(&file) && has(&second));
    // One that is cut off is refused, and the task says why.
    let cut = file[..file.len() / 2].to_vec();
    let length = cut.len() as u64;
    let error = client.send(&Transfer::import(None, false), io::Cursor::new(cut), length, |_| {}, pending()).await.unwrap_err();
    assert!(error.is("IMPORT_ERROR_PREMATURE_EOF"), "{error}");
}

/// A source that ends early, or fails.
struct Bad(Option<io::ErrorKind>);

impl AsyncRead for Bad {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.0.map_or(Ok(()), |kind| Err(kind.into())))
    }
}

#[tokio::test]
async fn what_goes_wrong_in_a_transfer_says_what_it_was() {
    let (_server, client) = pool().await;
    let vdi = disk(&client, 1).await;
    let what = Transfer::import_disk(&vdi, Format::Raw);
    for (kind, told) in [(None, io::ErrorKind::UnexpectedEof), (Some(io::ErrorKind::PermissionDenied), io::ErrorKind::PermissionDenied)] {
        let error = client.send(&what, Bad(kind), 100, |_| {}, pending()).await.unwrap_err();
        assert!(matches!(&error, Error::Local(source) if source.kind() == told), "{error:?}");
    }
    // More than it holds.
    let large = bytes(MIB + 1);
    let error = client.send(&what, io::Cursor::new(large), MIB as u64 + 1, |_| {}, pending()).await.unwrap_err();
    assert!(error.is("VDI_TOO_LARGE"), "{error}");
    let error = client.fetch(&Transfer::export_disk("OpaqueRef:none", Format::Raw), &mut Vec::new(), |_| {}, pending()).await.unwrap_err();
    assert!(error.is("HANDLE_INVALID"), "{error}");
    let error = client.fetch(&Transfer::export_disk(&vdi, Format::Vhd), &mut Vec::new(), |_| {}, pending()).await.unwrap_err();
    assert!(error.is("NOT_IMPLEMENTED"), "{error}");
    // Cancelled before it began.
    let error = client.send(&what, tokio::io::empty(), 100, |_| {}, ready(())).await.unwrap_err();
    assert!(matches!(error, Error::Cancelled | Error::Local(_)), "{error}");
    assert!(client.get::<Vec<String>>("task.get_all", vec![]).await.unwrap().is_empty());
}

#[tokio::test]
async fn another_host_is_reached_by_what_the_coordinator_tells_of_its_certificate() {
    let (server, client) = pool().await;
    let listen = format!("127.0.0.4:{}", server.address().port()).parse().unwrap();
    let member = server.member("sim-host-2", listen).await.unwrap();
    server.sim.faults(|faults| faults.moved = Some(member.address().to_string()));
    let vdi = disk(&client, 1).await;
    let sent = bytes(MIB);
    let what = Transfer::import_disk(&vdi, Format::Raw);
    client.send(&what, io::Cursor::new(sent.clone()), MIB as u64, |_| {}, pending()).await.unwrap();
    let mut got = Vec::new();
    client.fetch(&Transfer::export_disk(&vdi, Format::Raw), &mut got, |_| {}, pending()).await.unwrap();
    assert!(got == sent);
    let vm = running(&client).await;
    let mut screen = client.console(&console(&client, &vm, "rfb").await).await.unwrap();
    assert_eq!(screen.read_u8().await.unwrap(), b'R');
    assert_eq!(client.pins()["127.0.0.4"].to_string(), member.fingerprint().unwrap());
    // Whoever is not of the pool is not trusted.
    let stranger = pool().await.0;
    server.sim.faults(|faults| faults.moved = Some(format!("127.0.0.5:{}", stranger.address().port())));
    assert!(client.console(&console(&client, &vm, "rfb").await).await.is_err());
}

#[tokio::test]
async fn who_begins_at_a_member_is_sent_to_the_coordinator() {
    let (server, _) = pool().await;
    let listen = format!("127.0.0.6:{}", server.address().port()).parse().unwrap();
    let member = server.member("sim-host-2", listen).await.unwrap();
    let client = client(&member);
    assert_eq!(client.get::<Vec<String>>("host.get_all", vec![]).await.unwrap().len(), 2);
    assert_eq!(client.pins()["127.0.0.1"].to_string(), server.fingerprint().unwrap());
}

#[tokio::test]
async fn statistics_are_of_vms_and_hosts() {
    let (_server, client) = pool().await;
    let vm = running(&client).await;
    let uuid = text(&client, "VM.get_uuid", vec![vm.into()]).await;
    let updates = client.measured(None, 0).await.unwrap();
    assert_eq!(updates.step, 5);
    assert_eq!(updates.newest(&Of::Vm(uuid), "memory"), Some((2u64 << 30) as f64));
    let hosts: Vec<String> = client.get("host.get_all", vec![]).await.unwrap();
    let host = text(&client, "host.get_uuid", vec![hosts[0].clone().into()]).await;
    assert_eq!(updates.newest(&Of::Host(host), "cpu_avg"), Some(0.05));
}
