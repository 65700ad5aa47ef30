//! Devices of machines and the reset button, through the API.

use crate::{
    abilities::{done, machine, running},
    harness::{Hosts, Outside, did},
};
use vmoon_api::{
    Api,
    requests::{AddDevice, RemoveDevice, ResetMachine},
};
use vmoon_core::{Code, ability::Effect, device::Presence, machine::Request};
use vmoon_driver_sim::Fault;

fn add(kind: &str, settings: serde_json::Value) -> AddDevice {
    AddDevice {
        machine: "vm".into(),
        kind: kind.into(),
        settings: settings.as_object().unwrap().clone(),
        dry_run: false,
        deadline_ms: None,
    }
}

fn remove(device: &str, keep: bool) -> RemoveDevice {
    RemoveDevice { machine: "vm".into(), device: device.into(), keep, dry_run: false, deadline_ms: None }
}

#[tokio::test]
async fn devices_are_added_listed_and_removed() {
    let (outside, hosts) = (Outside::new(), Hosts::default());
    let (api, world) = running(&outside, &hosts).await;
    let view = api.list_devices(machine()).await.unwrap();
    assert_eq!(view.kinds.iter().map(|kind| kind.name.as_str()).collect::<Vec<_>>(), ["disk", "nic"]);
    assert!(view.devices.is_empty());
    let plan = api.add_device(AddDevice { dry_run: true, ..add("disk", serde_json::json!({"size": 7})) }).await.unwrap();
    assert!(plan.answer.is_none() && plan.steps[0].contains("disk1"), "{plan:?}");
    let disks = world.disks();
    done(&*api, api.add_device(add("disk", serde_json::json!({"size": 7}))).await).await.unwrap();
    let nic = api.add_device(add("nic", serde_json::json!({}))).await.unwrap();
    assert_eq!(nic.changes[0].effect, Effect::NextStart, "{nic:?}");
    done(&*api, Ok(nic)).await.unwrap();
    let devices = api.list_devices(machine()).await.unwrap().devices;
    assert_eq!(devices.iter().map(|device| device.presence).collect::<Vec<_>>(), [Presence::Kept, Presence::NextStart]);
    let error = api.add_device(add("gpu", serde_json::json!({}))).await.unwrap_err();
    assert!(error.code() == Code::SpecInvalid && error.message().contains("disk, nic"), "{error}");
    assert_eq!(api.remove_device(remove("gone", false)).await.unwrap_err().code(), Code::DeviceNotFound);
    // A failure in the middle leaves neither the device nor its disk.
    world.fault("device.attach", Fault::Fail(Code::DriverFailed));
    let failed = done(&*api, api.add_device(add("disk", serde_json::json!({"size": 9}))).await).await;
    assert_eq!(failed.unwrap_err().code(), Code::DriverFailed);
    assert_eq!(api.list_devices(machine()).await.unwrap().devices, devices);
    done(&*api, api.remove_device(remove("disk1", true)).await).await.unwrap();
    assert_eq!(world.disks().len(), disks.len() + 1, "it was to be kept");
}

#[tokio::test]
async fn a_machine_is_reset_while_it_runs_and_no_other() {
    let (outside, hosts) = (Outside::new(), Hosts::default());
    let (api, world) = running(&outside, &hosts).await;
    let reset = |dry_run| ResetMachine { machine: "vm".into(), dry_run, deadline_ms: None };
    assert!(api.reset_machine(reset(true)).await.unwrap().answer.is_none());
    assert_eq!(world.calls("reset"), 0);
    done(&*api, api.reset_machine(reset(false)).await).await.unwrap();
    assert_eq!(world.calls("reset"), 1);
    did(&*api, "vm", Request::Stop).await;
    assert_eq!(api.reset_machine(reset(false)).await.unwrap_err().code(), Code::MachineStopped);
}
