//! From a template to a VM that runs, with everything that is done to it, by our client.

use crate::pool;
use serde_json::{Value, json};
use std::time::Duration;
use vmoon_xapi::{
    Client, Ref,
    cache::Record,
    records::{PowerState, Sr, Vdi, Vm},
    task::{End, run},
    watch::Watch,
};

async fn one(client: &Client, method: &str, name: &str) -> String {
    let found: Vec<String> = client.get(method, vec![name.into()]).await.unwrap();
    assert_eq!(found.len(), 1, "{name}");
    found[0].clone()
}

async fn text(client: &Client, method: &str, params: Vec<Value>) -> String {
    client.call(method, params).await.unwrap().as_str().unwrap().to_owned()
}

async fn vm(client: &Client, reference: &str) -> Vm {
    client.get("VM.get_record", vec![reference.into()]).await.unwrap()
}

async fn failure(client: &Client, method: &str, params: Vec<Value>) -> Vec<String> {
    let error = client.call(method, params).await.unwrap_err();
    let failure = error.failure().unwrap_or_else(|| panic!("{method}: {error}"));
    std::iter::once(failure.code.clone()).chain(failure.params.clone()).collect()
}

/// A VM from the template that has a disk.
async fn made(client: &Client, name: &str) -> String {
    let template = one(client, "VM.get_by_name_label", "linux-lua").await;
    let vm = text(client, "VM.clone", vec![template.into(), name.into()]).await;
    client.call("VM.provision", vec![vm.clone().into()]).await.unwrap();
    let network = client.get::<Vec<String>>("network.get_all", vec![]).await.unwrap().remove(0);
    let vif = json!({"device": "0", "network": network, "VM": vm, "MAC": "", "MTU": 1500, "other_config": {}, "qos_algorithm_type": "", "qos_algorithm_params": {}});
    client.call("VIF.create", vec![vif]).await.unwrap();
    vm
}

#[tokio::test]
async fn a_template_becomes_a_vm_with_an_address() {
    let (_server, client) = pool().await;
    let reference = made(&client, "web").await;
    let mut watch = Watch::begin(client.clone(), &["VM", "VM_guest_metrics"]).await.unwrap();
    let mut parts = Vec::new();
    let end = run(
        &client,
        "VM.start",
        vec![reference.clone().into(), false.into(), false.into()],
        Duration::from_secs(10),
        |part| parts.push(part),
        std::future::pending(),
    );
    assert_eq!(end.await.unwrap(), End::Done("".into()));
    assert_eq!(parts.last(), Some(&1.0));
    // Its address comes by an event, a while after it runs.
    let address = tokio::time::timeout(Duration::from_secs(10), async {
        loop {
            watch.next().await.unwrap();
            let running: Vm = watch.cache().get("VM", &reference).unwrap().read().unwrap();
            let metrics = watch.cache().get("VM_guest_metrics", running.guest_metrics.as_str()).map(Record::value).unwrap_or_default();
            if let Some(address) = metrics["networks"]["0/ip"].as_str() {
                assert_eq!(running.power_state, PowerState::Running);
                return address.to_owned();
            }
        }
    });
    assert!(address.await.unwrap().starts_with("10.64."));
    let running = vm(&client, &reference).await;
    assert!(running.allowed_operations.contains(&"clean_shutdown".to_owned()) && running.consoles.len() == 2);
    client.call("VM.clean_shutdown", vec![reference.clone().into()]).await.unwrap();
    assert_eq!(vm(&client, &reference).await.power_state, PowerState::Halted);
}

#[tokio::test]
async fn the_recipe_of_default_templates_has_its_trap() {
    let (_server, client) = pool().await;
    let template = one(&client, "VM.get_by_name_label", "Debian Bookworm 12").await;
    assert_eq!(failure(&client, "VM.start", vec![template.clone().into(), false.into(), false.into()]).await[..1], ["VM_IS_TEMPLATE"]);
    assert_eq!(failure(&client, "VM.destroy", vec![template.clone().into()]).await[..1], ["VM_IS_TEMPLATE"]);
    let vm_ref = text(&client, "VM.clone", vec![template.clone().into(), "a".into()]).await;
    // An empty repository fails, and it is no template any more by then.
    assert_eq!(failure(&client, "VM.provision", vec![vm_ref.clone().into()]).await, ["UUID_INVALID", "sr", ""]);
    assert_eq!(failure(&client, "VM.provision", vec![vm_ref.clone().into()]).await, ["PROVISION_ONLY_ALLOWED_ON_TEMPLATE"]);
    // Told where, it makes the disk.
    let vm_ref = text(&client, "VM.clone", vec![template.into(), "b".into()]).await;
    let sr = one(&client, "SR.get_by_name_label", "Local storage").await;
    let uuid = text(&client, "SR.get_uuid", vec![sr.clone().into()]).await;
    client.call("VM.remove_from_other_config", vec![vm_ref.clone().into(), "disks".into()]).await.unwrap();
    let disks = format!("<provision><disk device=\"0\" size=\"1073741824\" sr=\"{uuid}\" bootable=\"true\"/></provision>");
    client.call("VM.add_to_other_config", vec![vm_ref.clone().into(), "disks".into(), disks.into()]).await.unwrap();
    client.call("VM.provision", vec![vm_ref.clone().into()]).await.unwrap();
    let record = vm(&client, &vm_ref).await;
    let vbd = &record.vbds[0];
    let vdi: Ref<Vdi> = client.get("VBD.get_VDI", vec![vbd.into()]).await.unwrap();
    let disk: Vdi = client.get("VDI.get_record", vec![(&vdi).into()]).await.unwrap();
    assert_eq!((disk.virtual_size, disk.sr.as_str()), (1 << 30, sr.as_str()));
}

#[tokio::test]
async fn power_and_limits_have_the_errors_of_the_real_one() {
    let (_server, client) = pool().await;
    let reference = made(&client, "a").await;
    let with = |more: Vec<Value>| [vec![Value::from(reference.clone())], more].concat();
    assert_eq!(
        failure(&client, "VM.hard_shutdown", with(vec![])).await,
        ["VM_BAD_POWER_STATE", &reference, "paused, suspended, running", "halted"]
    );
    assert_eq!(
        failure(&client, "VM.set_memory_limits", with(vec![4.into(), 3.into(), 2.into(), 1.into()])).await,
        ["MEMORY_CONSTRAINT_VIOLATION_ORDER"]
    );
    assert_eq!(failure(&client, "VM.set_VCPUs_at_startup", with(vec![4.into()])).await[..1], ["INVALID_VALUE"]);
    client.call("VM.set_VCPUs_max", with(vec!["4".into()])).await.unwrap();
    client.call("VM.set_VCPUs_at_startup", with(vec![4.into()])).await.unwrap();
    client.call("VM.add_to_blocked_operations", with(vec!["start".into(), "not today".into()])).await.unwrap();
    assert_eq!(failure(&client, "VM.start", with(vec![false.into(), false.into()])).await, ["OPERATION_BLOCKED", &reference, "not today"]);
    client.call("VM.remove_from_blocked_operations", with(vec!["start".into()])).await.unwrap();
    client.call("VM.start", with(vec![true.into(), false.into()])).await.err();
    assert_eq!(vm(&client, &reference).await.power_state, PowerState::Paused);
    client.call("VM.unpause", with(vec![])).await.unwrap();
    // The tools take a moment after each boot.
    assert_eq!(failure(&client, "VM.clean_shutdown", with(vec![])).await[..1], ["VM_LACKS_FEATURE"]);
    assert_eq!(failure(&client, "VM.destroy", with(vec![])).await[..1], ["VM_BAD_POWER_STATE"]);
    assert_eq!(failure(&client, "VM.clone", with(vec!["copy".into()])).await[..1], ["VM_BAD_POWER_STATE"]);
    client.call("VM.shutdown", with(vec![])).await.unwrap();
    assert_eq!(vm(&client, &reference).await.power_state, PowerState::Halted);
}

#[tokio::test]
async fn snapshots_keep_and_give_back_and_references_of_disks_change() {
    let (_server, client) = pool().await;
    let reference = made(&client, "a").await;
    let before = vm(&client, &reference).await;
    let snapshot = text(&client, "VM.snapshot", vec![reference.clone().into(), "before".into()]).await;
    let kept = vm(&client, &snapshot).await;
    assert!(kept.is_a_snapshot && kept.is_a_template && kept.snapshot_of.as_str() == reference);
    client.call("VM.set_VCPUs_max", vec![reference.clone().into(), 8.into()]).await.unwrap();
    client.call("VM.revert", vec![snapshot.clone().into()]).await.unwrap();
    let after = vm(&client, &reference).await;
    assert_eq!(after.vcpus_max, before.vcpus_max);
    assert_ne!(after.vbds, before.vbds);
    assert_eq!(failure(&client, "VBD.get_record", vec![(&before.vbds[0]).into()]).await[..2], ["HANDLE_INVALID", "VBD"]);
    assert_eq!(after.snapshots, [Ref::new(snapshot.clone())]);
    // Destroying leaves disks and snapshots.
    let disks = client.get::<Vec<String>>("VDI.get_all", vec![]).await.unwrap().len();
    client.call("VM.destroy", vec![reference.into()]).await.unwrap();
    assert_eq!(client.get::<Vec<String>>("VDI.get_all", vec![]).await.unwrap().len(), disks);
    assert!(vm(&client, &snapshot).await.is_a_snapshot);
}

#[tokio::test]
async fn storage_that_is_full_says_so_and_nothing_is_made() {
    let (_server, client) = pool().await;
    let sr = one(&client, "SR.get_by_name_label", "Local storage").await;
    let large = json!({"name_label": "x", "SR": sr, "virtual_size": "999999999999999", "type": "user", "sharable": false, "read_only": false, "other_config": {}});
    assert_eq!(failure(&client, "VDI.create", vec![large]).await[..1], ["SR_FULL"]);
    let record: Sr = client.get("SR.get_record", vec![sr.into()]).await.unwrap();
    assert_eq!(record.virtual_allocation, 0);
}
