//! A guest under plain emulation, through its whole life.

use crate::daemon::{connect, life};
use std::{io::Read as _, time::Duration};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use vmoon_libvirt_lab::{Lab, Machine};
use vmoon_libvirt_wire::{
    Addresses, Client, Domain, DomainEvent, DomainState, ErrorCode, Event, Events, Life, Topic,
    flags::{
        Affect, BlockAbort, BlockCommit, Console, Define, Destroy, Graphics, GuestInfo, PoolStart, Revert, Save, Shutdown, SnapshotCreate,
        SnapshotDelete, Snapshots, Start, Stats, StatsHow, Undefine, VolumeCreate, Xml,
    },
};

const BOOT: Duration = Duration::from_secs(120);

/// Waits for an event of a domain.
async fn event(events: &mut Events, wanted: impl Fn(&DomainEvent) -> bool) -> DomainEvent {
    let found = async {
        loop {
            match events.next().await {
                Event::Domain { what, .. } if wanted(&what) => return what,
                Event::Closed(why) => panic!("the connection ended: {why}"),
                _ => {}
            }
        }
    };
    tokio::time::timeout(BOOT, found).await.expect("the event comes")
}

/// Reads until these words have come, and returns all of it.
async fn until(from: &mut (impl AsyncRead + Unpin), words: &str) -> String {
    let mut all = Vec::new();
    let read = async {
        while !String::from_utf8_lossy(&all).contains(words) {
            let count = from.read_buf(&mut all).await.expect("the console goes on");
            assert_ne!(count, 0, "the console ended");
        }
    };
    let in_time = tokio::time::timeout(BOOT, read).await;
    let all = String::from_utf8_lossy(&all).into_owned();
    assert!(in_time.is_ok(), "no «{words}» in: {all}");
    all
}

async fn agent(client: &Client, domain: &Domain, command: &str) -> String {
    client.agent_command(domain, command, Duration::from_secs(10)).await.expect("the agent answers")
}

#[tokio::test]
async fn from_definition_to_nothing() {
    let lab = Lab::start();
    let client = connect(&lab, "qemu:///system").await;
    let topics =
        [Topic::LIFE, Topic::AGENT, Topic::DEVICE_ADDED, Topic::DEVICE_REMOVED, Topic::REBOOT, Topic::CONTROL_ERROR, Topic::Networks];
    let mut events = client.watch(&topics).await.expect("a listener");
    assert_eq!(events.unsupported(), []);

    let network = "<network><name>inside</name><forward mode='nat'/><bridge name='vlab0'/>\
                   <ip address='192.0.2.1' netmask='255.255.255.0'><dhcp><range start='192.0.2.10' end='192.0.2.20'/></dhcp></ip></network>";
    let network = client.network_define(network).await.expect("defined");
    assert_eq!(events.next().await, Event::Network { network: network.clone(), event: 0 });
    client.network_start(&network).await.expect("a bridge in the lab");
    assert_eq!(events.next().await, Event::Network { network: network.clone(), event: 2 });
    assert!(client.network_is_active(&network).await.expect("yes or no"));
    assert_eq!(client.network_bridge(&network).await.expect("a bridge"), "vlab0");

    let machine = Machine {
        devices: "<interface type='network'><mac address='52:54:00:00:00:07'/><source network='inside'/><model type='virtio'/></interface>"
            .to_owned(),
        ..Machine::named("whole-life")
    };
    let xml = machine.xml(&Lab::guest());
    let wrong = client.define(&xml.replace("<vcpu>", "<wrong/><vcpu>"), Define::VALIDATE).await.expect_err("not in the schema");
    assert_eq!(wrong.code(), Some(ErrorCode::XML_INVALID_SCHEMA), "{wrong}");
    let domain = client.define(&xml, Define::VALIDATE).await.expect("defined");
    life(&mut events, Life::Defined).await;
    let not_running = client.console(&domain, None, Console::NONE).await.expect_err("it is off");
    assert_eq!(not_running.code(), Some(ErrorCode::OPERATION_INVALID));

    let running = client.start(&domain, Start::NONE).await.expect("started");
    assert!(running.id > 0);
    life(&mut events, Life::Started).await;

    // Its console, both ways; a second one only by force.
    let mut console = client.console(&domain, None, Console::NONE).await.expect("a console");
    until(&mut console, "GUEST READY whole-life").await;
    console.write_all(b"echo console-$((40 + 2))\n").await.expect("taken");
    until(&mut console, "console-42").await;
    let taken = client.console(&domain, None, Console::NONE).await.expect_err("somebody has it");
    assert_eq!(taken.code(), Some(ErrorCode::OPERATION_FAILED), "{taken}");
    let mut other = client.console(&domain, None, Console::FORCE).await.expect("by force");
    let mut rest = Vec::new();
    let _ended_or_failed = tokio::time::timeout(BOOT, console.read_to_end(&mut rest)).await.expect("the first one ends");
    other.write_all(b"\necho other-$((50 + 3))\n").await.expect("taken");
    until(&mut other, "other-53").await;
    drop(other);
    drop(console);

    // Its agent.
    event(&mut events, |what| matches!(what, DomainEvent::Agent { state: 1, .. })).await;
    assert_eq!(agent(&client, &domain, r#"{"execute":"guest-ping"}"#).await, r#"{"return":{}}"#);
    let unknown = client.agent_command(&domain, r#"{"execute":"no-such-command"}"#, Duration::from_secs(10)).await.expect_err("unknown");
    assert!(unknown.to_string().contains("no-such-command"), "{unknown}");
    let host = client.guest_info(&domain, GuestInfo::HOSTNAME).await.expect("told");
    assert_eq!(host.text("hostname"), Some("whole-life"));
    let mut address = None;
    // The guest asks for its lease while we ask for it: each answer is a round trip, not a pause.
    for _ in 0..2_000 {
        let interfaces = client.addresses(&domain, Addresses::Agent).await.expect("told");
        let all = interfaces.iter().flat_map(|interface| &interface.addresses);
        address = all.map(|address| address.address.clone()).find(|address| address.starts_with("192.0.2."));
        if address.is_some() {
            break;
        }
    }
    let address = address.expect("the guest has an address");
    let leases = client.leases(&network, Some("52:54:00:00:00:07")).await.expect("told");
    assert_eq!(leases.iter().map(|lease| lease.address.as_str()).collect::<Vec<_>>(), [address.as_str()]);
    let leased = client.addresses(&domain, Addresses::Lease).await.expect("told");
    assert_eq!(leased[0].addresses[0].address, address);

    // Its screen: a picture, and a connection of our own through the daemon.
    let (mime, mut picture) = client.screenshot(&domain, 0).await.expect("a picture");
    let mut bytes = Vec::new();
    picture.read_to_end(&mut bytes).await.expect("all of it");
    match mime.as_str() {
        "image/png" => assert!(bytes.starts_with(b"\x89PNG") && bytes.ends_with(b"IEND\xae\x42\x60\x82")),
        "image/x-portable-pixmap" => assert!(bytes.starts_with(b"P6")),
        other => panic!("an unknown kind of picture: {other}"),
    }
    let screen = client.open_graphics(&domain, 0, Graphics::SKIP_AUTH).await.expect("a connection");
    let mut screen = std::os::unix::net::UnixStream::from(screen);
    screen.set_nonblocking(false).expect("a socket");
    screen.set_read_timeout(Some(BOOT)).expect("a socket");
    let mut hello = [0; 12];
    screen.read_exact(&mut hello).expect("VNC says hello");
    assert_eq!(&hello, b"RFB 003.008\n");

    // Paused and on; numbers of it.
    client.pause(&domain).await.expect("paused");
    life(&mut events, Life::Suspended).await;
    assert_eq!(client.state(&domain).await.expect("a state").0, DomainState::Paused);
    client.resume(&domain).await.expect("on");
    life(&mut events, Life::Resumed).await;
    let stats = client
        .stats(std::slice::from_ref(&domain), Stats::STATE | Stats::CPU_TOTAL | Stats::BALLOON, StatsHow::NOWAIT)
        .await
        .expect("numbers");
    assert_eq!(stats[0].params.number("balloon.maximum"), Some(192 * 1024));
    assert!(stats[0].params.number("cpu.time").is_some_and(|ns| ns > 0));
    client.set_memory(&domain, 160 * 1024, Affect::LIVE).await.expect("less");
    client.abort_job(&domain).await.expect_err("there is no job");

    // A disk comes and goes.
    let disk = lab.path().join("disk.img");
    std::fs::File::create(&disk).and_then(|file| file.set_len(1_048_576)).expect("a file");
    let disk = format!(
        "<disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='{}'/><target dev='vdb' bus='virtio'/></disk>",
        disk.display()
    );
    client.attach(&domain, &disk, Affect::LIVE).await.expect("attached");
    event(&mut events, |what| matches!(what, DomainEvent::DeviceAdded { device } if device == "virtio-disk1")).await;
    assert_eq!(client.block_info(&domain, "vdb").await.expect("sizes").capacity, 1_048_576);
    client.block_resize(&domain, "vdb", 2_097_152).await.expect("larger");
    assert_eq!(client.block_info(&domain, "vdb").await.expect("sizes").capacity, 2_097_152);
    assert_eq!(client.block_job(&domain, "vdb").await.expect("asked"), None);
    client.detach_alias(&domain, "virtio-disk1", Affect::LIVE).await.expect("asked");
    event(&mut events, |what| matches!(what, DomainEvent::DeviceRemoved { device } if device == "virtio-disk1")).await;

    // Saved and back.
    client.managed_save(&domain, Save::NONE).await.expect("saved");
    life(&mut events, Life::Stopped).await;
    assert!(client.has_managed_save(&domain).await.expect("yes or no"));
    client.start(&domain, Start::NONE).await.expect("back");
    life(&mut events, Life::Resumed).await;
    assert!(!client.has_managed_save(&domain).await.expect("yes or no"));
    event(&mut events, |what| matches!(what, DomainEvent::Agent { state: 1, .. })).await;
    agent(&client, &domain, r#"{"execute":"guest-ping"}"#).await;

    // Down, as its agent is asked; then nothing is left.
    match client.shutdown(&domain, Shutdown::AGENT).await {
        Ok(()) => {}
        // It may be gone before it has answered.
        Err(error) => assert_eq!(error.code(), Some(ErrorCode::AGENT_UNRESPONSIVE), "{error}"),
    }
    life(&mut events, Life::Stopped).await;
    assert!(!client.is_active(&domain).await.expect("yes or no"));
    client.undefine(&domain, Undefine::MANAGED_SAVE | Undefine::NVRAM).await.expect("forgotten");
    life(&mut events, Life::Undefined).await;
    assert!(client.domain(domain.uuid).await.expect_err("gone").is_not_found());
    client.network_stop(&network).await.expect("stopped");
    client.network_undefine(&network).await.expect("forgotten");
    assert!(client.network_named("inside").await.expect_err("gone").is_not_found());
}

#[tokio::test]
async fn snapshots_and_block_jobs() {
    let lab = Lab::start();
    let client = connect(&lab, "qemu:///system").await;
    let mut events = client.watch(&[Topic::LIFE, Topic::BLOCK_JOB]).await.expect("a listener");
    let folder = lab.path().join("disks");
    let pool = format!("<pool type='dir'><name>disks</name><target><path>{}</path></target></pool>", folder.display());
    let pool = client.pool_create(&pool, PoolStart::BUILD).await.expect("a pool");
    let volume = "<volume><name>vda</name><capacity>8388608</capacity><target><format type='qcow2'/></target></volume>";
    let volume = client.volume_create(&pool, volume, VolumeCreate::NONE).await.expect("a disk");
    let disk =
        "<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='PATH'/><target dev='vda' bus='virtio'/></disk>";
    let devices = disk.replace("PATH", &volume.key);
    let machine = Machine { devices, words: "mute".to_owned(), ..Machine::named("snaps") };
    let domain = client.define(&machine.xml(&Lab::guest()), Define::VALIDATE).await.expect("defined");
    client.start(&domain, Start::PAUSED).await.expect("started");
    life(&mut events, Life::Started).await;

    // Inside the disk, with memory.
    assert_eq!(client.snapshot_current(&domain).await.expect("asked"), None);
    let named = |name: &str| format!("<domainsnapshot><name>{name}</name></domainsnapshot>");
    let one = client.snapshot_create(&domain, &named("one"), SnapshotCreate::NONE).await.expect("made");
    let two = client.snapshot_create(&domain, &named("two"), SnapshotCreate::VALIDATE).await.expect("made");
    assert_eq!(client.snapshots(&domain, Snapshots::TOPOLOGICAL).await.expect("a list"), [one.clone(), two.clone()]);
    assert_eq!(client.snapshot_named(&domain, "one").await.expect("found"), one);
    assert!(client.snapshot_named(&domain, "none").await.expect_err("none").is_not_found());
    assert_eq!(client.snapshot_parent(&two).await.expect("asked"), Some(one.clone()));
    assert_eq!(client.snapshot_parent(&one).await.expect("asked"), None);
    assert_eq!(client.snapshot_children(&one).await.expect("a number"), 1);
    assert_eq!(client.snapshot_current(&domain).await.expect("asked"), Some(two.clone()));
    assert!(client.snapshot_xml(&one, Xml::NONE).await.expect("XML").contains("<memory snapshot='internal'/>"));
    client.revert(&one, Revert::PAUSED).await.expect("back");
    assert_eq!(client.snapshot_current(&domain).await.expect("asked"), Some(one.clone()));
    client.snapshot_delete(&one, SnapshotDelete::CHILDREN).await.expect("both gone");
    assert_eq!(client.snapshots(&domain, Snapshots::NONE).await.expect("a list"), []);

    // In a file of its own, and committed again.
    client.resume(&domain).await.expect("on");
    let outside =
        "<domainsnapshot><name>out</name><disks><disk name='vda' snapshot='external'><source file='FILE'/></disk></disks></domainsnapshot>";
    let outside = outside.replace("FILE", &folder.join("vda.out").display().to_string());
    let how = SnapshotCreate::DISK_ONLY | SnapshotCreate::ATOMIC | SnapshotCreate::NO_METADATA;
    client.snapshot_create(&domain, &outside, how).await.expect("made");
    client.block_commit(&domain, "vda", None, None, BlockCommit::ACTIVE).await.expect("begun");
    let wanted = async {
        loop {
            if let Event::Domain { what: DomainEvent::BlockJob { disk, kind: 4, status: 3 }, .. } = events.next().await {
                break disk;
            }
        }
    };
    assert_eq!(tokio::time::timeout(BOOT, wanted).await.expect("it gets ready"), "vda");
    let job = client.block_job(&domain, "vda").await.expect("asked").expect("it waits for the pivot");
    assert_eq!((job.kind, job.done), (4, job.total));
    client.block_job_abort(&domain, "vda", BlockAbort::PIVOT).await.expect("over to the disk");
    assert_eq!(client.block_job(&domain, "vda").await.expect("asked"), None);
    let xml = client.domain_xml(&domain, Xml::NONE).await.expect("XML");
    assert!(xml.contains(&volume.key) && !xml.contains("vda.out"), "it is on the disk again: {xml}");
    client.destroy(&domain, Destroy::NONE).await.expect("off");
    life(&mut events, Life::Stopped).await;
}
