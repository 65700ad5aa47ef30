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
