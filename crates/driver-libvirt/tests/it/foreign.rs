//! Machines that others made: listed, run and never changed; notices of them.

use super::{
    place::Place,
    terminal::{PATIENCE, Terminal, channel},
};
use std::time::{Duration, Instant};
use vmoon_core::{
    ability::Changed,
    driver::{Driver, Handle, Observed, StopMode},
};
use vmoon_libvirt_lab::{Lab, Machine};
use vmoon_libvirt_wire::flags::{Define, Start, Xml};

async fn heard(notices: &mut dyn vmoon_core::ability::Notices) -> Changed {
    tokio::time::timeout(PATIENCE, notices.next()).await.expect("a notice").expect("the driver is not done")
}

#[tokio::test]
async fn foreign_machines_are_managed_and_not_changed() {
    let place = Place::new().await;
    let driver = place.driver();
    let client = place.client().await;
    let mut notices = driver.watch().unwrap();
    assert_eq!(heard(&mut *notices).await, Changed::All, "what was before is looked at once");
    let domain = client.define(&Machine::named("theirs").xml(&Lab::guest()), Define::VALIDATE).await.unwrap();
    let handle = Handle(domain.uuid.to_string());
    let begin = Instant::now();
    assert_eq!(heard(&mut *notices).await, Changed::Machine(handle.clone()));
    assert!(begin.elapsed() < Duration::from_millis(500), "{:?}", begin.elapsed());
    let before = client.domain_xml(&domain, Xml::INACTIVE).await.unwrap();

    let found = driver.list().await.unwrap();
    assert_eq!((found.len(), found[0].id, found[0].name.as_str()), (1, None, "theirs"));
    assert!(found[0].sighting.complete && found[0].handle == handle);
    driver.start(&handle).await.unwrap();
    let serial = channel(&*driver, &handle).await;
    // A session looks at the console and takes it from nobody: one who uses virsh can still open it.
    let mut terminal = Terminal::open(&*driver, &handle, &serial, 0).await;
    let virsh = client.console(&domain, None, vmoon_libvirt_wire::flags::Console::NONE).await.unwrap();
    drop(virsh);
    terminal.keys("\r").await;
    terminal.wait_for("#").await;
    driver.stop(&handle, StopMode::Force).await.unwrap();
    terminal.end().await;
    assert!(matches!(driver.observe(&handle).await.observed, Observed::Off(_)));
    assert_eq!(client.domain_xml(&domain, Xml::INACTIVE).await.unwrap(), before, "nothing was written into it");
    driver.delete(&handle).await.unwrap();
    assert_eq!(driver.observe(&handle).await.observed, Observed::Missing);
}

/// Devices that we never make: passed through, shared folders, a TPM, many cards, elements of other programs.
#[tokio::test]
async fn what_we_do_not_know_is_listed_and_kept_as_it_is() {
    let place = Place::new().await;
    let driver = place.driver();
    let client = place.client().await;
    let cards: String = (0..12)
        .map(|n| format!("<interface type='user'><mac address='52:54:00:00:01:{n:02x}'/><model type='virtio'/></interface>"))
        .collect();
    let xml = format!(
        "<domain type='qemu'><name>odd 'one' &quot;&#10;../x</name><title>t &amp; t</title><metadata><o:os xmlns:o='urn:others:1'><o:a b='c'>d</o:a></o:os></metadata>
         <memory unit='MiB'>64</memory><memoryBacking><source type='memfd'/><access mode='shared'/></memoryBacking><vcpu>2</vcpu>
         <os><type arch='x86_64' machine='q35'>hvm</type></os><features><acpi/></features><devices>
         <hostdev mode='subsystem' type='pci' managed='yes'><source><address domain='0' bus='0x7e' slot='0x1e' function='0x7'/></source></hostdev>
         <hostdev mode='subsystem' type='usb'><source><vendor id='0x1234'/><product id='0xbeef'/></source></hostdev>
         <filesystem type='mount' accessmode='passthrough'><driver type='virtiofs'/><source dir='/srv'/><target dir='share'/></filesystem>
         <tpm model='tpm-crb'><backend type='emulator' version='2.0'/></tpm><rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>
         <watchdog model='i6300esb' action='reset'/><shmem name='looking-glass'><model type='ivshmem-plain'/><size unit='M'>32</size></shmem>
         <serial type='pty'/>{cards}</devices></domain>"
    );
    // libvirt takes no name with a slash or a line feed in it: nobody can have made one.
    assert!(client.define(&xml, Define::VALIDATE).await.is_err());
    let xml = xml.replace("&#10;../x", "..x");
    let domain = client.define(&xml, Define::VALIDATE).await.unwrap_or_else(|error| panic!("{error}"));
    let before = client.domain_xml(&domain, Xml::INACTIVE).await.unwrap();
    let found = driver.list().await.unwrap();
    assert_eq!((found.len(), found[0].id, found[0].name.as_str()), (1, None, "odd 'one' \"..x"));
    let handle = found[0].handle.clone();
    assert!(!driver.describe(&handle).await.is_empty());
    let cards = driver.devices().unwrap().list(&handle).await.unwrap();
    assert_eq!(cards.iter().filter(|device| device.kind == "nic").count(), 12);
    assert!(driver.snapshots().unwrap().list(&handle).await.unwrap().is_empty());
    assert!(driver.addresses().unwrap().addresses(&handle).await.is_ok_and(|all| all.is_empty()));
    // What it asks for is not there: libvirt says so, and nothing is changed by trying.
    let error = driver.start(&handle).await.unwrap_err();
    assert!(error.chain().contains("evice"), "{}", error.chain());
    assert!(matches!(driver.observe(&handle).await.observed, Observed::Off(_)));
    assert_eq!(client.domain_xml(&domain, Xml::INACTIVE).await.unwrap(), before, "nothing was written into it");
    // What is asked for is changed, and nothing else.
    let settings = serde_json::json!({"memory": "96MiB"});
    driver.tune().unwrap().tune(&handle, settings.as_object().unwrap(), false).await.unwrap();
    let after = client.domain_xml(&domain, Xml::INACTIVE).await.unwrap();
    let others = |xml: &str| xml.lines().filter(|line| !line.to_lowercase().contains("memory unit")).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(others(&after), others(&before));
    assert!(after.contains("98304"), "{after}");
    driver.delete(&handle).await.unwrap();
    assert_eq!(driver.observe(&handle).await.observed, Observed::Missing);
}

#[tokio::test]
async fn what_others_do_is_seen_at_once_and_hostile_names_are_only_names() {
    let place = Place::new().await;
    let driver = place.driver();
    let client = place.client().await;
    let mut notices = driver.watch().unwrap();
    assert_eq!(heard(&mut *notices).await, Changed::All);
    let xml = "<domain type='qemu'><name>a &amp; b &lt;c&gt; --help</name><memory unit='MiB'>64</memory><os><type arch='x86_64' machine='q35'>hvm</type></os></domain>";
    let domain = client.define(xml, Define::VALIDATE).await.unwrap();
    let handle = Handle(domain.uuid.to_string());
    assert_eq!(driver.list().await.unwrap()[0].name, "a & b <c> --help");
    client.start(&domain, Start::NONE).await.unwrap();
    while !matches!(driver.observe(&handle).await.observed, Observed::On(_)) {
        heard(&mut *notices).await;
    }
    client.pause(&domain).await.unwrap();
    while driver.observe(&handle).await.observed != Observed::Paused {
        heard(&mut *notices).await;
    }
    driver.pause().unwrap().resume(&handle).await.unwrap();
    assert!(matches!(driver.observe(&handle).await.observed, Observed::On(_)));
    driver.delete(&handle).await.unwrap();
    loop {
        if heard(&mut *notices).await == Changed::Machine(handle.clone()) && driver.observe(&handle).await.observed == Observed::Missing {
            break;
        }
    }
}
