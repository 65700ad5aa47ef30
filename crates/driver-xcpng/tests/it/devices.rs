//! Devices and drives of VMs that exist.

use crate::{
    driver,
    machines::{Quiet, client, foreign, make},
    pool, ring, settings,
};
use serde_json::{Value, json};
use vmoon_core::{
    Code, Result,
    device::{Device, DeviceChange, NewDevice},
    driver::{Driver, Handle},
};
use vmoon_driver_xcpng::XcpngDriver;

async fn list(driver: &XcpngDriver, handle: &Handle, kind: &str) -> Vec<Device> {
    driver.devices().unwrap().list(handle).await.unwrap().into_iter().filter(|device| device.kind == kind).collect()
}

async fn add(driver: &XcpngDriver, handle: &Handle, kind: &str, given: Value) -> Result<()> {
    let change = DeviceChange::Add(NewDevice { kind: kind.into(), settings: settings(given) });
    driver.devices().unwrap().plan(handle, &change).await?;
    driver.devices().unwrap().change(handle, &change, &Quiet).await
}

async fn remove(driver: &XcpngDriver, handle: &Handle, name: &str, keep: bool) -> Result<()> {
    let change = DeviceChange::Remove { name: name.into(), keep };
    driver.devices().unwrap().change(handle, &change, &Quiet).await
}

#[tokio::test]
async fn disks_and_interfaces_come_and_go_while_the_vm_runs() {
    let server = pool().await;
    let driver = driver(&server, ring(&server));
    let (_, handle) = make(&driver, "a", json!({"template": "linux-lua"})).await.unwrap();
    driver.start(&handle).await.unwrap();
    let before = server.sim.names("VDI").len();
    add(&driver, &handle, "disk", json!({"size": "2GiB"})).await.unwrap();
    let disks = list(&driver, &handle, "disk").await;
    assert_eq!((disks.len(), disks[1].name.as_str(), disks[1].facts["size_bytes"].as_u64()), (2, "xvdb", Some(2 << 30)));
    assert!(disks[1].made);
    add(&driver, &handle, "nic", json!({"network": "Pool-wide network associated with eth0", "mac": "02:00:00:00:00:0A"})).await.unwrap();
    assert!(list(&driver, &handle, "nic").await.iter().any(|nic| nic.name == "02:00:00:00:00:0a"));
    remove(&driver, &handle, "02:00:00:00:00:0a", false).await.unwrap();
    // One that the guest does not let go of stays as it is.
    let words = vec!["DEVICE_DETACH_REJECTED".into(), "VBD".into(), "r".into(), "busy".into()];
    server.sim.faults(|faults| drop(faults.fail.insert("Async.VBD.unplug".into(), vec![words])));
    assert_eq!(remove(&driver, &handle, "xvdb", false).await.unwrap_err().code(), Code::DeviceInUse);
    assert_eq!(list(&driver, &handle, "disk").await, disks);
    remove(&driver, &handle, "xvdb", false).await.unwrap();
    assert_eq!(server.sim.names("VDI").len(), before, "what was made for it goes with it");
    assert_eq!(remove(&driver, &handle, "xvdb", false).await.unwrap_err().code(), Code::DeviceNotFound);
    // One that cannot be plugged in leaves nothing.
    server.sim.faults(|faults| {
        drop(faults.fail.insert("Async.VBD.plug".into(), vec![vec!["DEVICE_ATTACH_TIMEOUT".into(), "VBD".into(), "r".into()]]))
    });
    add(&driver, &handle, "disk", json!({"size": "1GiB"})).await.unwrap_err();
    assert_eq!((server.sim.names("VDI").len(), list(&driver, &handle, "disk").await.len()), (before, 1));
}

#[tokio::test]
async fn a_disk_of_somebody_elses_vm_goes_only_if_we_made_it() {
    let server = pool().await;
    let driver = driver(&server, ring(&server));
    foreign(&client(&server), "theirs").await;
    let handle = driver.list().await.unwrap()[0].handle.clone();
    let before = server.sim.names("VDI").len();
    add(&driver, &handle, "disk", json!({"size": "1GiB"})).await.unwrap();
    remove(&driver, &handle, "xvda", false).await.unwrap();
    assert_eq!(server.sim.names("VDI").len(), before + 1, "theirs stays");
    remove(&driver, &handle, "xvdb", true).await.unwrap();
    assert_eq!(server.sim.names("VDI").len(), before + 1, "it was to be kept");
}

#[tokio::test]
async fn the_first_disk_grows_and_images_go_in_and_out() {
    let server = pool().await;
    let driver = driver(&server, ring(&server));
    let (_, handle) = make(&driver, "a", json!({"template": "linux-lua", "user": "ada"})).await.unwrap();
    let error = driver.tune().unwrap().tune(&handle, &settings(json!({"disk": "1GiB"})), true).await.unwrap_err();
    assert!(error.to_string().contains("can only become larger"), "{error}");
    let planned =
        driver.tune().unwrap().tune(&handle, &settings(json!({"disk": "3GiB", "iso": "debian-12-netinst.iso"})), true).await.unwrap();
    assert_eq!(planned.len(), 2);
    let done =
        driver.tune().unwrap().tune(&handle, &settings(json!({"disk": "3GiB", "iso": "debian-12-netinst.iso"})), false).await.unwrap();
    assert_eq!(done, planned);
    let drives = list(&driver, &handle, "cdrom").await;
    assert_eq!((drives.len(), drives[0].facts["name"].as_str()), (1, Some("debian-12-netinst.iso")));
    assert_eq!(list(&driver, &handle, "disk").await[0].facts["size_bytes"].as_u64(), Some(3 << 30));
    assert!(driver.tune().unwrap().tune(&handle, &settings(json!({"iso": "debian-12-netinst.iso"})), false).await.unwrap().is_empty());
    driver.start(&handle).await.unwrap();
    assert_eq!(
        driver.tune().unwrap().tune(&handle, &settings(json!({"disk": "4GiB"})), false).await.unwrap_err().code(),
        Code::MachineRunning
    );
    driver.tune().unwrap().tune(&handle, &settings(json!({"iso": "none"})), false).await.unwrap();
    assert_eq!(list(&driver, &handle, "cdrom").await[0].what, "an empty drive");
    let error = driver.tune().unwrap().tune(&handle, &settings(json!({"iso": "none such"})), false).await.unwrap_err();
    assert!(error.code() == Code::SpecInvalid && error.to_string().contains("debian-12-netinst.iso"), "{error}");
}
