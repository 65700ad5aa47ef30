//! Snapshots with and without memory, inside the disks and in overlays.

use super::{
    life::guest,
    place::{Place, created},
    terminal::{Terminal, channel},
};
use serde_json::json;
use vmoon_core::{
    Code,
    ability::NewSnapshot,
    driver::{Driver, Observed, StopMode},
};

fn new(name: &str, memory: Option<bool>) -> NewSnapshot {
    NewSnapshot { name: name.into(), memory }
}

#[tokio::test]
async fn a_machine_returns_to_its_snapshots() {
    let place = Place::new().await;
    let driver = place.driver();
    let settings = json!({"disk": "16MiB", "firmware": "bios", "network": "none", "accelerator": "tcg", "memory": "64MiB", "user": "ada"});
    let handle = created(&*driver, "box", settings).await;
    let snapshots = driver.snapshots().unwrap();
    let off = snapshots.create(&handle, &new("off", None)).await.unwrap();
    assert!(!off.memory && off.current && off.parent.is_none(), "{off:?}");
    assert_eq!(snapshots.create(&handle, &new("off", None)).await.unwrap_err().code(), Code::SnapshotExists);
    assert_eq!(snapshots.create(&handle, &new("x", Some(true))).await.unwrap_err().code(), Code::MachineStopped);
    assert!(snapshots.create(&handle, &new("../x", None)).await.is_err());

    driver.start(&handle).await.unwrap();
    let on = snapshots.create(&handle, &new("on", None)).await.unwrap();
    assert!(on.memory && on.parent.as_deref() == Some("off"), "{on:?}");
    let list = snapshots.list(&handle).await.unwrap();
    assert_eq!(list.iter().map(|snapshot| snapshot.name.as_str()).collect::<Vec<_>>(), ["off", "on"]);

    let first = driver.observe(&handle).await.observed;
    driver.stop(&handle, StopMode::Force).await.unwrap();
    snapshots.revert(&handle, "on").await.unwrap();
    let second = driver.observe(&handle).await.observed;
    assert!(matches!(second, Observed::On(_)) && first != second, "it runs, and in another life: {second:?}");
    snapshots.revert(&handle, "off").await.unwrap();
    assert!(matches!(driver.observe(&handle).await.observed, Observed::Off(_)));
    assert_eq!(snapshots.revert(&handle, "none").await.unwrap_err().code(), Code::SnapshotNotFound);
    snapshots.delete(&handle, "off").await.unwrap();
    snapshots.delete(&handle, "off").await.unwrap();
    let list = snapshots.list(&handle).await.unwrap();
    assert!(list.len() == 1 && list[0].name == "on", "its child stays: {list:?}");
    driver.delete(&handle).await.unwrap();
    assert_eq!(place.remains(), Vec::<String>::new());
}

#[tokio::test]
async fn overlays_are_made_returned_to_and_merged() {
    let place = Place::new().await;
    let driver = place.driver();
    let settings =
        json!({"disk": "16MiB", "disk-format": "raw", "firmware": "bios", "network": "none", "accelerator": "tcg", "memory": "64MiB"});
    let handle = created(&*driver, "raw", settings).await;
    let snapshots = driver.snapshots().unwrap();
    driver.start(&handle).await.unwrap();
    let images = || place.remains().into_iter().filter(|path| path.contains("/images/")).collect::<Vec<_>>();
    let before = images();
    let made = snapshots.create(&handle, &new("one", Some(false))).await.unwrap();
    assert!(!made.memory && !made.note.is_empty(), "{made:?}");
    assert_eq!(images().len(), before.len() + 1, "an overlay beside the disk");
    // Merged while it runs: the overlay is gone, the machine has not noticed.
    let life = driver.observe(&handle).await.observed;
    snapshots.delete(&handle, "one").await.unwrap();
    assert_eq!((images(), driver.observe(&handle).await.observed), (before.clone(), life));
    assert!(snapshots.list(&handle).await.unwrap().is_empty());

    snapshots.create(&handle, &new("two", Some(false))).await.unwrap();
    let overlay: Vec<String> = images().into_iter().filter(|path| !before.contains(path)).collect();
    snapshots.revert(&handle, "two").await.unwrap();
    assert!(matches!(driver.observe(&handle).await.observed, Observed::Off(_)));
    let after = images();
    assert!(after.len() == before.len() + 1 && !after.contains(&overlay[0]), "a fresh overlay in place of the old one: {after:?}");
    driver.start(&handle).await.unwrap();
    assert!(matches!(driver.observe(&handle).await.observed, Observed::On(_)));
    driver.delete(&handle).await.unwrap();
    assert_eq!(place.remains(), Vec::<String>::new());
}

#[tokio::test]
async fn memory_is_kept_beside_disks_that_cannot_hold_it_and_comes_back() {
    memory_comes_back("raw", "disk-format", "raw").await;
}

/// With firmware variables in a file, which snapshots inside of disks do not hold.
#[tokio::test]
async fn the_memory_of_a_guest_with_uefi_comes_back() {
    memory_comes_back("uefi", "firmware", "efi").await;
}

async fn memory_comes_back(name: &str, setting: &str, value: &str) {
    let place = Place::new().await;
    let driver = place.driver();
    let mut settings = guest(&format!("name={name}"));
    settings[setting] = value.into();
    let handle = created(&*driver, name, settings).await;
    let snapshots = driver.snapshots().unwrap();
    let before = place.remains();
    driver.start(&handle).await.unwrap();
    let serial = channel(&*driver, &handle).await;
    let mut terminal = Terminal::open(&*driver, &handle, &serial, 0).await;
    terminal.wait_for(&format!("GUEST READY {name}")).await;
    terminal.keys("kept=in-memory; echo set-$((1 + 1))\r").await;
    terminal.wait_for("set-2").await;
    // One that is deleted is merged while the guest runs, and its memory goes.
    let running = place.remains();
    snapshots.create(&handle, &new("brief", Some(true))).await.unwrap();
    let images = |all: &[String]| all.iter().filter(|path| path.contains("/images/")).count();
    assert_eq!(images(&place.remains()), images(&running) + 2, "an overlay and a memory: {:?}", place.remains());
    snapshots.delete(&handle, "brief").await.unwrap();
    assert_eq!(images(&place.remains()), images(&running), "{:?}", place.remains());
    let made = snapshots.create(&handle, &new("here", None)).await.unwrap();
    assert!(made.memory && made.current && !made.note.is_empty(), "{made:?}");
    assert_eq!(channel(&*driver, &handle).await, serial, "it runs on as if nothing had been");
    terminal.keys("kept=later; echo now-$kept-$((2 + 2))\r").await;
    terminal.wait_for("now-later-4").await;

    for stopped in [false, true] {
        if stopped {
            driver.stop(&handle, StopMode::Force).await.unwrap();
        }
        snapshots.revert(&handle, "here").await.unwrap();
        let again = channel(&*driver, &handle).await;
        assert_ne!(again, serial, "it is another life");
        let mut terminal = Terminal::open(&*driver, &handle, &again, 0).await;
        terminal.keys("echo back-$kept-$((3 + 3))\r").await;
        terminal.wait_for("back-in-memory-6").await;
    }
    assert!(matches!(driver.observe(&handle).await.observed, Observed::On(_)));
    driver.stop(&handle, StopMode::Force).await.unwrap();
    assert!(place.remains().len() > before.len());
    driver.delete(&handle).await.unwrap();
    assert_eq!(place.remains(), Vec::<String>::new());
}
