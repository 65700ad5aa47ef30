//! Devices of machines that exist: plugged into a guest that runs and out again, kept for later where that cannot be, and without residue.

use super::{
    life::{guest, program},
    place::{Place, Unread, created},
    terminal::{PATIENCE, Terminal, channel},
};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use vmoon_core::{
    Code, Result,
    ability::{Change, Effect, NewSnapshot},
    device::{DeviceChange, NewDevice, Presence},
    driver::{Driver, Handle, StopMode},
};
use vmoon_libvirt_wire::flags::Define;

fn add(kind: &str, settings: Value) -> DeviceChange {
    DeviceChange::Add(NewDevice { kind: kind.into(), settings: settings.as_object().cloned().unwrap() })
}

fn remove(name: &str) -> DeviceChange {
    DeviceChange::Remove { name: name.into(), keep: false }
}

async fn change(driver: &dyn Driver, handle: &Handle, change: &DeviceChange) -> Result<Vec<Change>> {
    let devices = driver.devices().unwrap();
    let planned = devices.plan(handle, change).await?;
    devices.change(handle, change, &Unread).await?;
    Ok(planned)
}

async fn names(driver: &dyn Driver, handle: &Handle) -> BTreeSet<(String, Presence)> {
    let all = driver.devices().unwrap().list(handle).await.unwrap();
    all.into_iter().map(|device| (device.name, device.presence)).collect()
}

/// What the guest has of a kind.
async fn seen(driver: &dyn Driver, handle: &Handle, folder: &str) -> String {
    let exec = driver.exec().unwrap();
    let ended = exec.exec(handle, &program(&["/bin/busybox", "ls", folder], 20_000)).await.unwrap();
    String::from_utf8_lossy(&ended.stdout).split_whitespace().collect::<Vec<_>>().join(" ")
}

async fn until_seen(driver: &dyn Driver, handle: &Handle, folder: &str, wanted: impl Fn(&str) -> bool) {
    let looking = async {
        while !wanted(&seen(driver, handle, folder).await) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, looking).await.unwrap_or_else(|_| panic!("the guest does not see it in {folder}"));
}

#[tokio::test]
async fn disks_and_cards_are_plugged_into_a_running_guest_and_out_again() {
    let place = Place::new().await;
    let driver = place.driver();
    let handle = created(&*driver, "box", guest("name=box")).await;
    let before = names(&*driver, &handle).await;
    let remains = place.remains();
    driver.start(&handle).await.unwrap();
    let serial = channel(&*driver, &handle).await;
    let mut terminal = Terminal::open(&*driver, &handle, &serial, 0).await;
    terminal.wait_for("GUEST READY box").await;
    let exec = driver.exec().unwrap();
    let ready = async { while exec.exec(&handle, &program(&["/bin/true"], 20_000)).await.is_err() {} };
    tokio::time::timeout(PATIENCE, ready).await.expect("the agent answers");

    let done = change(&*driver, &handle, &add("disk", json!({"size": "8MiB"}))).await.unwrap();
    assert!(done[0].effect == Effect::Now && done[0].what.starts_with("vdb virtio 8 MiB qcow2, new"), "{done:?}");
    until_seen(&*driver, &handle, "/sys/block", |disks| disks.contains("vdb")).await;
    let done = change(&*driver, &handle, &add("nic", json!({"network": "user"}))).await.unwrap();
    assert_eq!(done[0].effect, Effect::Now, "{done:?}");
    until_seen(&*driver, &handle, "/sys/bus/virtio/drivers/virtio_net", |cards| cards.matches("virtio").count() == 2).await;
    let all = driver.devices().unwrap().list(&handle).await.unwrap();
    let disk = all.iter().find(|device| device.name == "vdb").unwrap();
    assert_eq!((disk.made, disk.presence, disk.facts["size_bytes"].as_u64()), (true, Presence::Kept, Some(8 << 20)), "{disk:?}");
    let card = all.iter().find(|device| device.kind == "nic" && before.iter().all(|(name, _)| *name != device.name)).unwrap();

    // What cannot be taken while it runs waits, and is said to.
    let done = change(&*driver, &handle, &add("cdrom", json!({}))).await.unwrap();
    assert!(done[0].effect == Effect::NextStart && done[0].what.contains("sata"), "{done:?}");
    assert!(names(&*driver, &handle).await.contains(&("sda".into(), Presence::NextStart)));

    // The reset button: the guest boots again in the same life.
    driver.reset().unwrap().reset(&handle).await.unwrap();
    terminal.wait_for("GUEST READY box").await;
    assert_eq!(channel(&*driver, &handle).await, serial);
    let ready = async { while exec.exec(&handle, &program(&["/bin/true"], 20_000)).await.is_err() {} };
    tokio::time::timeout(PATIENCE, ready).await.expect("the agent answers again");

    change(&*driver, &handle, &remove("vdb")).await.unwrap();
    change(&*driver, &handle, &remove(&card.name)).await.unwrap();
    until_seen(&*driver, &handle, "/sys/block", |disks| !disks.contains("vdb")).await;
    change(&*driver, &handle, &remove("sda")).await.unwrap();
    assert_eq!(names(&*driver, &handle).await, before);
    driver.stop(&handle, StopMode::Force).await.unwrap();
    assert_eq!((names(&*driver, &handle).await, place.remains()), (before, remains), "nothing is left behind");
    driver.delete(&handle).await.unwrap();
    assert_eq!(place.remains(), Vec::<String>::new());
}

#[tokio::test]
async fn a_guest_that_does_not_let_go_keeps_its_device() {
    let place = Place::new().await;
    let driver = place.driver();
    // Firmware without a system lets nothing go.
    let settings = json!({"memory": "64MiB", "cpus": 1, "disk": "8MiB", "firmware": "bios", "network": "none", "accelerator": "tcg"});
    let handle = created(&*driver, "bare", settings).await;
    driver.start(&handle).await.unwrap();
    change(&*driver, &handle, &add("disk", json!({"size": "4MiB"}))).await.unwrap();
    let remains = place.remains();
    let error = change(&*driver, &handle, &remove("vdb")).await.unwrap_err();
    assert_eq!(error.code(), Code::DeviceInUse, "{}", error.chain());
    assert!(names(&*driver, &handle).await.contains(&("vdb".into(), Presence::Kept)));
    assert_eq!(place.remains(), remains, "its image is still there");
    driver.stop(&handle, StopMode::Force).await.unwrap();
    change(&*driver, &handle, &remove("vdb")).await.unwrap();
    assert_eq!(place.remains().len() + 1, remains.len());
    driver.delete(&handle).await.unwrap();
}

#[tokio::test]
async fn what_does_not_fit_is_refused_and_images_of_others_are_never_deleted() {
    let place = Place::new().await;
    let driver = place.driver();
    let plain = json!({"memory": "64MiB", "cpus": 1, "disk": "8MiB", "firmware": "bios", "network": "none", "accelerator": "tcg"});
    let (one, two) = (created(&*driver, "one", plain.clone()).await, created(&*driver, "two", plain).await);
    let devices = driver.devices().unwrap();
    let refused = async |handle: &Handle, change: DeviceChange| {
        let planned = devices.plan(handle, &change).await.map(drop).unwrap_err();
        let done = devices.change(handle, &change, &Unread).await.unwrap_err();
        assert_eq!((planned.code(), planned.message()), (done.code(), done.message()));
        (planned.code(), planned.message().to_owned())
    };
    let image = place.images().join("data & more.img");
    std::fs::write(&image, vec![0; 1 << 20]).unwrap();
    let path = image.display().to_string();
    for (change, words) in [
        (add("disk", json!({"size": "60TiB"})), "do not fit"),
        (add("disk", json!({"size": "1GiB", "pool": "nowhere"})), "no storage pool nowhere"),
        (add("disk", json!({"path": format!("{path}.gone")})), "there is no"),
        (add("nic", json!({"network": "nowhere"})), "no libvirt network nowhere"),
        (add("pci", json!({})), "disk, cdrom, nic"),
    ] {
        let (code, message) = refused(&one, change).await;
        assert!(code == Code::SpecInvalid && message.contains(words), "{message}");
    }
    let done = change(&*driver, &one, &add("disk", json!({"path": path}))).await.unwrap();
    assert!(done[0].what.contains("data & more.img"), "{done:?}");
    let (_, message) = refused(&one, add("disk", json!({"path": path}))).await;
    assert!(message.contains("has"), "{message}");
    let (_, message) = refused(&two, add("disk", json!({"path": path}))).await;
    assert!(message.contains("in use by one"), "{message}");
    change(&*driver, &two, &add("disk", json!({"path": path, "readonly": true}))).await.unwrap();
    for handle in [&one, &two] {
        change(&*driver, handle, &remove("vdb")).await.unwrap();
    }
    assert!(image.exists(), "it was not ours");
    driver.snapshots().unwrap().create(&two, &NewSnapshot { name: "s".into(), memory: None }).await.unwrap();
    assert_eq!(refused(&two, remove("vda")).await.0, Code::DeviceInUse, "a snapshot holds it");
    for handle in [one, two] {
        driver.delete(&handle).await.unwrap();
    }
    assert!(image.exists());
}

#[tokio::test]
async fn a_machine_of_somebody_else_keeps_its_disks_but_not_those_made_for_it() {
    let place = Place::new().await;
    let driver = place.driver();
    let theirs = place.images().join("theirs.img");
    std::fs::write(&theirs, vec![0; 1 << 20]).unwrap();
    let xml = format!(
        "<domain type='qemu'><name>theirs</name><memory unit='MiB'>64</memory><os><type arch='x86_64' machine='q35'>hvm</type></os><devices>
        <disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='{}'/><target dev='vda' bus='virtio'/></disk></devices></domain>",
        theirs.display()
    );
    let domain = place.client().await.define(&xml, Define::VALIDATE).await.unwrap();
    let handle = Handle(domain.uuid.to_string());
    let before = place.remains();
    let done = change(&*driver, &handle, &add("disk", json!({"size": "8MiB", "format": "raw"}))).await.unwrap();
    assert!(done[0].what.contains("/vmoon-"), "{done:?}");
    let error = driver.reset().unwrap().reset(&handle).await.unwrap_err();
    assert_eq!(error.code(), Code::MachineStopped);
    driver.delete(&handle).await.unwrap();
    assert_eq!(place.remains(), before.into_iter().filter(|path| path.ends_with("theirs.img")).collect::<Vec<_>>());
}

/// A file of this computer that the lab's libvirtd does not see: its /run is its own.
struct Unseen(std::path::PathBuf);

impl Unseen {
    fn new(name: &str) -> Self {
        let path = std::path::PathBuf::from(format!("/run/vmoon-{}-{name}", std::process::id()));
        std::fs::write(&path, vec![0; 1 << 20]).expect("tests run as root");
        Self(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for Unseen {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A libvirtd in a container finds other files at a path than we do.
#[tokio::test]
async fn a_file_that_libvirt_does_not_find_is_refused_and_nothing_is_changed() {
    let place = Place::new().await;
    let driver = place.driver();
    let (unseen, iso) = (Unseen::new("unseen.img"), place.images().join("seen.iso"));
    std::fs::write(&iso, vec![0; 1 << 20]).unwrap();
    let plain = json!({"disk": "1MiB", "firmware": "bios", "network": "none", "accelerator": "tcg", "memory": "64MiB", "iso": iso});
    let handle = created(&*driver, "box", plain.clone()).await;
    let (before, remains) = (names(&*driver, &handle).await, place.remains());
    let drive = async || driver.describe(&handle).await["disks"].to_string();
    let inside = drive().await;
    for running in [false, true] {
        if running {
            driver.start(&handle).await.unwrap();
        }
        // What waits for the next start is looked at by libvirt then: of a machine that runs it tells what runs.
        let kinds = if running { 1 } else { 3 };
        for (kind, settings) in [
            ("disk", json!({"path": unseen.path(), "format": "raw"})),
            ("disk", json!({"path": unseen.path(), "format": "raw", "bus": "sata"})),
            ("cdrom", json!({"path": unseen.path()})),
        ]
        .into_iter()
        .take(kinds)
        {
            let error = driver.devices().unwrap().change(&handle, &add(kind, settings.clone()), &Unread).await.unwrap_err();
            let told = error.code() == Code::DriverFailed && error.message().contains("does not find") && error.hint_text().is_some();
            assert!(told, "{settings}, running {running}: {}", error.chain());
            assert_eq!(
                (names(&*driver, &handle).await, place.remains()),
                (before.clone(), remains.clone()),
                "{settings}, running {running}"
            );
        }
        let tune = driver.tune().unwrap();
        let error = tune.tune(&handle, json!({"iso": unseen.path()}).as_object().unwrap(), false).await.unwrap_err();
        assert!(error.message().contains("does not find"), "running {running}: {}", error.chain());
        assert_eq!(drive().await, inside, "the drive holds what it held, running {running}");
    }
    assert!(unseen.0.exists(), "what is the user's is not deleted");
    let mut with = plain;
    with["iso"] = unseen.path().into();
    let planned = driver.plan("other", &super::place::spec(with), &driver.facts().await.unwrap()).unwrap();
    let error = driver.create(super::place::new_id(), &planned, &Unread).await.unwrap_err();
    assert!(error.message().contains("does not find"), "{}", error.chain());
    assert_eq!((driver.list().await.unwrap().len(), place.remains()), (1, remains));
    driver.delete(&handle).await.unwrap();
}
