//! Hosts of a pool: moving VMs, why not, what there is; refusals with reasons; what becomes of disks; many VMs at once.

use crate::{
    driver,
    machines::{client, foreign, make},
    pool, ring, settings,
};
use async_trait::async_trait;
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    future::pending,
    sync::{Mutex, PoisonError},
};
use vmoon_core::{
    Code, MachineId, Result,
    driver::{Driver, Handle, Journal, Observed, StopMode},
    hosts::{DeviceClass, DiskFate},
    operation::{Progress, Undo},
    spec::MachineSpec,
};
use vmoon_xapi::transfer::{Format, Transfer};
use vmoon_xapi_sim::Server;

async fn reference(server: &Server, class: &str, name: &str) -> String {
    let found: Vec<String> = client(server).get(&format!("{class}.get_by_name_label"), vec![name.into()]).await.unwrap();
    found.into_iter().next().unwrap()
}

#[tokio::test]
async fn a_running_vm_moves_to_another_host_and_is_told_why_it_cannot() {
    let server = pool().await;
    let driver = driver(&server, ring(&server));
    server.sim.add_host("other", "127.0.0.9", "");
    // Both hosts reach the storage that the pool has.
    let (_, on_nfs) = make(&driver, "on-nfs", json!({"template": "linux-lua"})).await.unwrap();
    let migrate = driver.migrate().unwrap();
    assert_eq!(migrate.migrate(&on_nfs, "other").await.unwrap_err().code(), Code::MachineStopped);
    driver.start(&on_nfs).await.unwrap();
    let here = driver.describe(&on_nfs).await["host"].as_str().unwrap().to_owned();
    let there = if here == "other" { "sim-host-1" } else { "other" };
    let places = migrate.places(&on_nfs).await.unwrap();
    assert!(places.iter().all(|place| place.refusal.is_none() && place.here == (place.name == here)), "{places:?}");
    migrate.migrate(&on_nfs, there).await.unwrap();
    migrate.migrate(&on_nfs, there).await.unwrap();
    assert_eq!(driver.describe(&on_nfs).await["host"], there);
    assert!(matches!(driver.observe(&on_nfs).await.observed, Observed::On(_)), "it runs all the time");
    // One whose disks are where one host is.
    let local = server.sim.insert("SR", json!({"name_label": "one", "type": "ext", "content_type": "user", "physical_size": 1i64 << 40}));
    server.sim.insert("PBD", json!({"host": reference(&server, "host", &here).await, "SR": local, "currently_attached": true}));
    let (_, on_local) = make(&driver, "on-local", json!({"template": "linux-lua", "copy": "full", "sr": "one"})).await.unwrap();
    driver.start(&on_local).await.unwrap();
    let places = migrate.places(&on_local).await.unwrap();
    let other = places.iter().find(|place| place.name == there).unwrap();
    assert!(other.refusal.as_deref().unwrap().contains("does not reach the storage"), "{places:?}");
    let error = migrate.migrate(&on_local, there).await.unwrap_err();
    assert!(error.to_string().contains("does not reach the storage"), "{error}");
    assert_eq!(migrate.migrate(&on_nfs, "none\n").await.unwrap_err().code(), Code::HostNotFound);
    server.sim.add_host("other", "127.0.0.8", "");
    assert_eq!(migrate.migrate(&on_nfs, "other").await.unwrap_err().code(), Code::NameAmbiguous);
}

#[tokio::test]
async fn what_is_blocked_held_or_impossible_is_refused_with_its_reason() {
    let server = pool().await;
    let (driver, client) = (driver(&server, ring(&server)), client(&server));
    let (_, handle) = make(&driver, "a", json!({"template": "linux-lua"})).await.unwrap();
    let vm = reference(&server, "VM", "a").await;
    let block = |word: &'static str| vec![Value::from(vm.clone()), word.into(), "ask <ada>".into()];
    for word in ["start", "clone", "destroy"] {
        client.call("VM.add_to_blocked_operations", block(word)).await.unwrap();
    }
    for error in [
        driver.start(&handle).await.unwrap_err(),
        driver.clones().unwrap().plan("b", &handle).await.unwrap_err(),
        driver.delete(&handle).await.unwrap_err(),
    ] {
        assert!(error.to_string().contains("ask <ada>"), "{error}");
    }
    for word in ["start", "clone", "destroy"] {
        client.call("VM.remove_from_blocked_operations", vec![vm.clone().into(), word.into()]).await.unwrap();
    }
    // No host takes it: each says why.
    for host in client.get::<Vec<String>>("host.get_all", vec![]).await.unwrap() {
        client.call("host.disable", vec![host.into()]).await.unwrap();
    }
    let error = driver.start(&handle).await.unwrap_err();
    assert!(error.to_string().contains("sim-host-1: the host is disabled"), "{error}");
    for (code, words, part) in [
        (Code::DriverFailed, vec!["HA_OPERATION_WOULD_BREAK_FAILOVER_PLAN"], "restart every protected VM"),
        (Code::DriverFailed, vec!["HOST_NOT_ENOUGH_FREE_MEMORY", "1", "2"], "too little free memory"),
        (Code::MachineBusy, vec!["OTHER_OPERATION_IN_PROGRESS", "VM", "r"], "another operation"),
        (Code::MachineBroken, vec!["HANDLE_INVALID", "VM", "r"], "no such VM"),
    ] {
        let words: Vec<String> = words.into_iter().map(str::to_owned).collect();
        server.sim.faults(|faults| drop(faults.fail.insert("Async.VM.start".into(), vec![words])));
        let error = driver.start(&handle).await.unwrap_err();
        assert!(error.code() == code && error.to_string().contains(part), "{error}");
    }
}

#[tokio::test]
async fn hosts_devices_and_storage_are_shown() {
    let server = pool().await;
    let driver = driver(&server, ring(&server));
    foreign(&client(&server), "player <1>").await;
    let (host, vm) = (reference(&server, "host", "sim-host-1").await, reference(&server, "VM", "player <1>").await);
    let sim = &server.sim;
    let metrics = sim.insert("host_metrics", json!({"memory_total": 8i64 << 30, "memory_free": 3i64 << 30, "live": true}));
    client(&server).call("host.add_to_other_config", vec![host.clone().into(), "x".into(), "y".into()]).await.unwrap();
    sim.insert(
        "host",
        json!({"name_label": "second", "metrics": metrics, "cpu_info": {"cpu_count": "16"}, "address": "10.0.0.2", "enabled": false}),
    );
    let gpu = sim.insert("PCI", json!({"class_name": "VGA compatible controller", "vendor_name": "NVIDIA Corporation", "device_name": "GA102", "host": host, "pci_id": "0000:01:00.0"}));
    sim.insert("PCI", json!({"class_name": "Network controller", "vendor_name": "Intel", "device_name": "X710\nnasty", "host": host, "pci_id": "0000:04:01.0"}));
    let group = sim.insert("GPU_group", json!({"name_label": "Group of GA102"}));
    let vgpu = sim.insert("VGPU", json!({"VM": vm, "GPU_group": group}));
    sim.insert("PGPU", json!({"PCI": gpu, "GPU_group": group, "host": host, "resident_VGPUs": [vgpu]}));
    let usb = sim.insert("USB_group", json!({"name_label": "Group of a stick"}));
    sim.insert("PUSB", json!({"host": host, "path": "1-2", "vendor_id": "0781", "product_id": "5591", "vendor_desc": "SanDisk", "product_desc": "Ultra", "passthrough_enabled": true, "USB_group": usb}));
    sim.insert("VUSB", json!({"VM": vm, "USB_group": usb}));
    let config = vec![vm.clone().into(), "pci".into(), "0/0000:04:01.0".into()];
    client(&server).call("VM.add_to_other_config", config).await.unwrap();
    let inventory = driver.inventories().unwrap().inventory().await.unwrap();
    let second = inventory.hosts.iter().find(|host| host.name == "second").unwrap();
    assert_eq!((second.cpus, second.memory_free_bytes, second.enabled), (Some(16), Some(3 << 30), false));
    assert!(inventory.hosts.iter().any(|host| host.note.contains("coordinates")));
    let of = |class: DeviceClass| inventory.devices.iter().find(|device| device.class == class).unwrap();
    assert_eq!(
        (of(DeviceClass::Gpu).address.as_str(), of(DeviceClass::Gpu).used_by.as_slice()),
        ("0000:01:00.0", &["player <1>".to_owned()][..])
    );
    assert!(of(DeviceClass::Gpu).note.contains("Group of GA102"));
    assert_eq!((of(DeviceClass::Pci).name.as_str(), of(DeviceClass::Pci).used_by.len()), ("Intel X710", 1));
    assert_eq!((of(DeviceClass::Usb).name.as_str(), of(DeviceClass::Usb).used_by.len()), ("SanDisk Ultra (0781:5591)", 1));
    assert!(inventory.storage.iter().any(|sr| sr.default && sr.name == "Local storage" && sr.free_bytes.is_some()));
    assert!(inventory.images.iter().any(|image| image.name == "debian-12-netinst.iso" && image.note == "ISO images"));
    assert!(inventory.templates.iter().any(|template| template.name == "linux-lua"));
}

#[tokio::test]
async fn disks_go_or_stay_as_it_was_said() {
    let server = pool().await;
    let driver = driver(&server, ring(&server));
    let disks = driver.disks().unwrap();
    let before = server.sim.names("VDI");
    let (_, handle) = make(&driver, "a", json!({"template": "linux-lua", "disk": "1GiB", "user": "ada"})).await.unwrap();
    let said = disks.decide(&handle, DiskFate::Keep, true).await.unwrap();
    assert_eq!(said.iter().filter(|text| text.ends_with("stays")).count(), 2, "{said:?}");
    assert!(said.iter().any(|text| text.contains("seed") && text.ends_with("is deleted")), "{said:?}");
    disks.decide(&handle, DiskFate::Keep, false).await.unwrap();
    driver.delete(&handle).await.unwrap();
    assert_eq!(server.sim.names("VDI").len(), before.len() + 2, "{:?}", server.sim.names("VDI"));
    // Of somebody else's all stay, unless that was said.
    foreign(&client(&server), "theirs").await;
    let theirs = driver.list().await.unwrap()[0].handle.clone();
    let kept = server.sim.names("VDI").len();
    disks.decide(&theirs, DiskFate::All, false).await.unwrap();
    // What was said later counts.
    disks.decide(&theirs, DiskFate::Own, false).await.unwrap();
    disks.decide(&theirs, DiskFate::All, false).await.unwrap();
    driver.delete(&theirs).await.unwrap();
    assert_eq!(server.sim.names("VDI").len(), kept - 1);
    assert!(disks.decide(&theirs, DiskFate::All, false).await.unwrap().is_empty(), "of what is gone there is nothing to say");
}

/// The disk of a VM that is attached in that mode.
async fn disk_of(server: &Server, name: &str, mode: &str) -> String {
    let client = client(server);
    let vbds: Vec<String> = client.get("VM.get_VBDs", vec![reference(server, "VM", name).await.into()]).await.unwrap();
    for vbd in vbds {
        let record: Value = client.get("VBD.get_record", vec![vbd.into()]).await.unwrap();
        if record["mode"] == mode && record["type"] == "Disk" {
            return record["VDI"].as_str().unwrap().to_owned();
        }
    }
    panic!("{name} has no such disk")
}

async fn seed_of(server: &Server, name: &str) -> Vec<u8> {
    let seed = disk_of(server, name, "RO").await;
    client(server).fetch_small(&Transfer::export_disk(&seed, Format::Raw), 16 << 20).await.unwrap()
}

#[tokio::test]
async fn what_is_made_of_a_template_that_was_seeded_has_one_seed_of_its_own() {
    let server = pool().await;
    let (driver, client) = (driver(&server, ring(&server)), client(&server));
    make(&driver, "golden", json!({"template": "linux-lua", "user": "ada"})).await.unwrap();
    let vm = reference(&server, "VM", "golden").await;
    client.call("VM.set_is_a_template", vec![vm.into(), true.into()]).await.unwrap();
    let (golden, all) = (seed_of(&server, "golden").await, server.sim.names("VDI").len());
    let (id, asked) = make(&driver, "asked", json!({"template": "golden", "user": "bob"})).await.unwrap();
    let text = String::from_utf8_lossy(&seed_of(&server, "asked").await).into_owned();
    assert!(text.contains("bob") && !text.contains("ada") && text.contains(&id.to_string()));
    assert_eq!(server.sim.names("VDI").len(), all + 2, "the template's is gone from it");
    let (id, not) = make(&driver, "not", json!({"template": "golden"})).await.unwrap();
    let mut again = golden.clone();
    assert!(vmoon_seed::cloud::renew(&mut again, id) && again == seed_of(&server, "not").await);
    for handle in [asked, not] {
        driver.delete(&handle).await.unwrap();
    }
    assert!(server.sim.names("VDI").len() == all && seed_of(&server, "golden").await == golden);
}

#[tokio::test]
async fn copies_are_of_what_is_off_and_have_disks_addresses_and_tags_of_their_own() {
    let server = pool().await;
    let driver = driver(&server, ring(&server));
    let given = json!({"template": "linux-lua", "user": "ada", "network": "Pool-wide network associated with eth0,mac=02:00:00:00:00:07"});
    let (_, handle) = make(&driver, "a", given).await.unwrap();
    let clones = driver.clones().unwrap();
    let error = clones.plan_with("b", &handle, &settings(json!({"memory": "1GiB", "sr": "none"}))).await.unwrap_err();
    assert!(
        error.code() == Code::SpecInvalid && error.to_string().contains("settings.memory") && error.to_string().contains("settings.sr"),
        "{error}"
    );
    let quiet = crate::machines::Quiet;
    let before = server.sim.names("VDI");
    let seed = seed_of(&server, "a").await;
    for (n, how) in ["clone", "full"].into_iter().enumerate() {
        let id: MachineId = format!("01890000-0000-7000-8000-00000000010{n}").parse().unwrap();
        let plan = clones.plan_with(&format!("b{n}"), &handle, &settings(json!({"copy": how, "description": "a copy"}))).await.unwrap();
        for part in ["beware", "make of the seed that of another instance"] {
            assert!(plan.steps.iter().any(|step| step.contains(part)), "{:?}", plan.steps);
        }
        let copy = driver.create(id, &plan, &quiet).await.unwrap();
        let devices = driver.devices().unwrap().list(&copy).await.unwrap();
        let disks: Vec<_> = devices.iter().filter(|device| device.kind == "disk").collect();
        assert!(disks.len() == 2 && disks.iter().all(|disk| disk.made), "{devices:?}");
        // The seed says the same, of another instance: that of the original is as it was.
        let (mut of_original, of_copy) = (seed.clone(), seed_of(&server, &format!("b{n}")).await);
        assert!(of_copy != seed && seed_of(&server, "a").await == seed);
        assert!(vmoon_seed::cloud::renew(&mut of_original, id) && of_original == of_copy);
        assert!(driver.list().await.unwrap().iter().any(|found| found.id == Some(id) && found.sighting.complete));
        driver.delete(&copy).await.unwrap();
        assert_eq!(server.sim.names("VDI"), before, "its seed goes with it");
    }
    // One that somebody has written over is nobody's seed, and stays as it is.
    let (client, seed) = (client(&server), disk_of(&server, "a", "RO").await);
    client
        .send(&Transfer::import_disk(&seed, Format::Raw), std::io::Cursor::new(b"x".repeat(2048)), 2048, |_| {}, pending())
        .await
        .unwrap();
    let plan = clones.plan("d", &handle).await.unwrap();
    driver.create("01890000-0000-7000-8000-000000000109".parse().unwrap(), &plan, &quiet).await.unwrap();
    assert_eq!(seed_of(&server, "d").await[..2048], b"x".repeat(2048));
    driver.start(&handle).await.unwrap();
    let error = clones.plan("c", &handle).await.unwrap_err();
    assert!(error.code() == Code::MachineNotCopyable && error.to_string().contains("it runs"), "{error}");
    driver.reset().unwrap().reset(&handle).await.unwrap();
    driver.stop(&handle, StopMode::Force).await.unwrap();
    assert_eq!(driver.reset().unwrap().reset(&handle).await.unwrap_err().code(), Code::MachineStopped);
}

/// Remembers what each creation said.
#[derive(Default)]
struct Told(Mutex<BTreeMap<String, Vec<String>>>);

struct One<'a>(&'a Told, String);

#[async_trait]
impl Journal for One<'_> {
    fn progress(&self, progress: Progress) {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner).entry(self.1.clone()).or_default().push(progress.phase);
    }
    async fn undo(&self, _: Undo) -> Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn fifty_at_once_are_made_a_few_at_a_time_and_each_tells_how_far_it_is() {
    let server = pool().await;
    let driver = driver(&server, ring(&server));
    let spec = MachineSpec { kind: "xcpng".into(), settings: settings(json!({"template": "linux-lua"})), ..MachineSpec::default() };
    let facts = driver.facts().await.unwrap();
    let told = Told::default();
    let work = (0..50).map(|n| {
        let (driver, spec, facts, told) = (&driver, &spec, &facts, &told);
        async move {
            let id: MachineId = format!("01890000-0000-7000-8000-0000000002{n:02}").parse().unwrap();
            let name = format!("web{n}");
            let plan = driver.plan(&name, spec, facts).unwrap();
            driver.create(id, &plan, &One(told, name)).await
        }
    });
    let made: Vec<Handle> = futures_util::future::join_all(work).await.into_iter().map(|made| made.unwrap()).collect();
    assert_eq!(made.len(), 50);
    assert_eq!(driver.list().await.unwrap().iter().filter(|found| found.sighting.complete).count(), 50);
    let told = told.0.into_inner().unwrap();
    assert!(told.len() == 50 && told.values().all(|phases| phases.len() >= 4 && phases[0] == "waiting for its turn"));
}

#[tokio::test]
async fn what_vms_use_is_told_of_those_that_run() {
    let server = pool().await;
    let driver = driver(&server, ring(&server));
    let (_, runs) = make(&driver, "a", json!({"template": "linux-lua"})).await.unwrap();
    let (_, off) = make(&driver, "b", json!({"template": "linux-lua"})).await.unwrap();
    driver.start(&runs).await.unwrap();
    let first = driver.usage(&[runs.clone(), off.clone()]).await;
    assert_eq!(first.iter().map(|usage| &usage.handle).collect::<Vec<_>>(), [&runs]);
    assert!(first[0].memory_bytes > 0);
    let second = driver.usage(&[runs, off]).await;
    assert!(second[0].cpu_us >= first[0].cpu_us);
}
