//! Clones and pools: linked and full copies, bases in use, a pool that is not ours to write.

use super::place::{Place, created};
use serde_json::{Value, json};
use std::{fs, process::Command};
use vmoon_core::{
    Code,
    driver::{Driver, StopMode},
};
use vmoon_libvirt_wire::flags::PoolStart;

fn qemu_img(arguments: &[&str]) -> String {
    let output = Command::new("qemu-img").args(arguments).output().expect("qemu-img is there: cargo xtask install");
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn small(more: Value) -> Value {
    let mut all = json!({"disk": "16MiB", "firmware": "bios", "network": "none", "accelerator": "tcg", "memory": "64MiB"});
    all.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap());
    all
}

#[tokio::test]
async fn clones_are_made_and_a_base_in_use_is_kept() {
    let place = Place::new().await;
    let driver = place.driver();
    let original = created(&*driver, "original", small(json!({}))).await;
    let base = place.remains().into_iter().find(|path| path.ends_with("-vda.qcow2")).unwrap();
    let name = base.rsplit('/').next().unwrap();
    let linked = created(&*driver, "linked", small(json!({"base": name, "disk": "32MiB"}))).await;
    let full = created(&*driver, "full", small(json!({"base": base, "clone": "full", "disk": "24MiB", "disk-format": "raw"}))).await;
    let file = |of: &str| place.remains().into_iter().find(|path| path.contains(&format!("/{of}-")) && path.contains("-vda.")).unwrap();
    let info: Value = serde_json::from_str(&qemu_img(&["info", "--output=json", &file("linked")])).unwrap();
    assert_eq!((info["backing-filename"].as_str(), info["virtual-size"].as_u64()), (Some(base.as_str()), Some(32 << 20)));
    let info: Value = serde_json::from_str(&qemu_img(&["info", "--output=json", &file("full")])).unwrap();
    assert_eq!((info["format"].as_str(), info["virtual-size"].as_u64(), info.get("backing-filename")), (Some("raw"), Some(24 << 20), None));
    let error = driver.start(&original).await.unwrap_err();
    assert!(error.code() == Code::MachineBusy && error.message().contains("spoilt"), "a base is not written to: {}", error.chain());
    for handle in [&linked, &full] {
        driver.start(handle).await.unwrap();
        driver.stop(handle, StopMode::Force).await.unwrap();
    }
    let error = driver.delete(&original).await.unwrap_err();
    assert_eq!(error.code(), Code::MachineBusy, "{}", error.chain());
    assert!(fs::exists(&base).unwrap() && error.message().contains("linked"), "{}", error.message());
    assert_eq!(driver.list().await.unwrap().len(), 3, "nothing was touched");
    for handle in [linked, original, full] {
        driver.delete(&handle).await.unwrap();
    }
    assert_eq!(place.remains(), Vec::<String>::new());
}

#[tokio::test]
async fn a_pool_that_is_not_ours_to_write_is_used_through_libvirt() {
    let place = Place::new().await;
    // The lab's /run is its own: this directory is nowhere on the computer outside.
    let xml = "<pool type='dir'><name>far</name><target><path>/run/far-pool</path></target></pool>";
    let client = place.client().await;
    let pool = client.pool_define(xml).await.unwrap();
    client.pool_start(&pool, PoolStart::BUILD).await.unwrap();
    let driver = place.driver();
    let inside = || -> Vec<String> {
        let entries = fs::read_dir(place.lab.path().join("run/far-pool")).unwrap();
        entries.flatten().map(|entry| entry.path().display().to_string()).collect()
    };
    let first = created(&*driver, "first", small(json!({"pool": "far", "user": "ada", "extra-disks": "1MiB"}))).await;
    assert_eq!(inside().len(), 3);
    let disk = inside().into_iter().find(|path| path.ends_with("-vda.qcow2")).unwrap();
    qemu_img(&["check", "-q", &disk]);
    let name = disk.rsplit('/').next().unwrap().to_owned();
    let second = created(&*driver, "second", small(json!({"pool": "far", "base": name, "disk": "32MiB"}))).await;
    let overlay = inside().into_iter().find(|path| path.contains("/second-") && path.ends_with(".qcow2")).unwrap();
    let info: Value = serde_json::from_str(&qemu_img(&["info", "-U", "--output=json", &overlay])).unwrap();
    assert_eq!(info["backing-filename"].as_str(), Some(format!("/run/far-pool/{name}").as_str()));
    driver.start(&second).await.unwrap();
    assert_eq!(driver.delete(&first).await.unwrap_err().code(), Code::MachineBusy);
    driver.delete(&second).await.unwrap();
    driver.delete(&first).await.unwrap();
    assert_eq!(inside(), Vec::<String>::new());
}

#[tokio::test]
async fn a_machine_is_copied_grown_and_given_an_image() {
    let place = Place::new().await;
    let driver = place.driver();
    let iso = place.images().join("a & b.iso");
    fs::write(&iso, vec![0; 1 << 20]).unwrap();
    let iso = iso.to_str().unwrap();
    let first = created(&*driver, "first", small(json!({"extra-disks": "1MiB", "user": "ada", "iso": iso}))).await;
    let clones = driver.clones().unwrap();
    driver.start(&first).await.unwrap();
    assert_eq!(clones.plan("copy", &first).await.unwrap_err().code(), Code::MachineNotCopyable, "it runs");
    driver.stop(&first, StopMode::Force).await.unwrap();
    let plan = clones.plan("copy", &first).await.unwrap();
    let copy = driver.create(super::place::new_id(), &plan, &super::place::Unread).await.unwrap();
    assert_eq!(place.remains().iter().filter(|path| path.contains("/copy-")).count(), 3, "{:?}", place.remains());
    // Its seed is that of the first, for another instance.
    let of = |path: &String, name: &str| path.contains(&format!("/{name}-")) && !path.contains("-vda.") && !path.ends_with(".qcow2");
    let seed = |name: &str| place.remains().into_iter().find(|path| of(path, name)).map(|path| fs::read(path).unwrap());
    let (mut old, mut new) = (seed("first").unwrap(), seed("copy").unwrap());
    assert!(old.len() > 2048 && old != new);
    let same = super::place::new_id();
    assert!(vmoon_seed::cloud::renew(&mut old, same) && vmoon_seed::cloud::renew(&mut new, same) && old == new);
    let file = place.remains().into_iter().find(|path| path.contains("/copy-") && path.contains("-vda.")).unwrap();
    let info: Value = serde_json::from_str(&qemu_img(&["info", "--output=json", &file])).unwrap();
    assert_eq!((info["virtual-size"].as_u64(), info.get("backing-filename")), (Some(16 << 20), None));

    let tune = driver.tune().unwrap();
    let settings = |value: Value| value.as_object().cloned().unwrap();
    assert!(tune.tune(&copy, &settings(json!({"disk": "1MiB"})), false).await.is_err(), "it cannot shrink");
    tune.tune(&copy, &settings(json!({"disk": "20MiB", "iso": "none"})), false).await.unwrap();
    let info: Value = serde_json::from_str(&qemu_img(&["info", "--output=json", &file])).unwrap();
    assert_eq!(info["virtual-size"].as_u64(), Some(20 << 20));
    driver.start(&copy).await.unwrap();
    tune.tune(&copy, &settings(json!({"disk": "24MiB", "iso": iso})), false).await.unwrap();
    assert!(tune.tune(&copy, &settings(json!({"disk": "24MiB", "iso": iso})), false).await.unwrap().is_empty());
    assert!(tune.tune(&copy, &settings(json!({"iso": "/no/such.iso"})), false).await.is_err());
    let facts = driver.describe(&copy).await;
    assert!(facts["disks"].to_string().contains("a & b.iso"), "{facts:?}");
    driver.delete(&first).await.unwrap();
    driver.delete(&copy).await.unwrap();
    assert_eq!(place.remains(), [iso.to_owned()]);
}

/// Somebody deletes what a disk is based on behind our back.
#[tokio::test]
async fn a_disk_whose_base_is_gone_is_told_and_deleted() {
    let place = Place::new().await;
    let driver = place.driver();
    let base = place.images().join("base.qcow2");
    qemu_img(&["create", "-q", "-f", "qcow2", base.to_str().unwrap(), "16M"]);
    let linked = created(&*driver, "linked", small(json!({"base": "base.qcow2"}))).await;
    fs::remove_file(&base).unwrap();
    assert_eq!(driver.list().await.unwrap().len(), 1);
    assert!(!driver.describe(&linked).await.is_empty());
    assert!(!driver.devices().unwrap().list(&linked).await.unwrap().is_empty());
    let error = driver.start(&linked).await.unwrap_err();
    assert!(error.chain().contains("base.qcow2"), "{}", error.chain());
    let error = driver.clones().unwrap().plan("copy", &linked).await.err().map(|error| error.chain()).unwrap_or_default();
    assert!(error.is_empty() || error.contains("base.qcow2"), "{error}");
    driver.delete(&linked).await.unwrap();
    assert_eq!(place.remains(), Vec::<String>::new());
}

/// The pool is filled by somebody else after the plan was made. libvirt 9.0 says of a volume that it could not write that, or that it has written it.
#[tokio::test]
async fn a_pool_that_becomes_full_leaves_nothing_behind() {
    let place = Place::new().await;
    let client = place.client().await;
    let inside = place.lab.path().join("run/full");
    fs::create_dir(&inside).unwrap();
    let run = |program: &str, arguments: &[&str]| place.lab.command(program).args(arguments).status().unwrap().success();
    assert!(run("mount", &["-t", "tmpfs", "-o", "size=64M", "tmpfs", "/run/full"]));
    let pool = client.pool_define("<pool type='dir'><name>full</name><target><path>/run/full</path></target></pool>").await.unwrap();
    client.pool_start(&pool, PoolStart::NONE).await.unwrap();
    let driver = place.driver();
    let spec = super::place::spec(small(json!({"pool": "full", "user": "ada"})));
    let plan = driver.plan("late", &spec, &driver.facts().await.unwrap()).unwrap();
    let _ = run("dd", &["if=/dev/zero", "of=/run/full/others", "bs=1M", "status=none"]);
    let error = driver.create(super::place::new_id(), &plan, &super::place::Unread).await.unwrap_err();
    assert!(error.code() == Code::DiskFull || error.message().contains("may be full"), "{}", error.chain());
    assert!(error.hint_text().is_some_and(|hint| hint.contains("pool-info full")), "{}", error.chain());
    assert!(driver.list().await.unwrap().is_empty());
    let volumes = client.volumes(&pool).await.unwrap();
    client.pool_refresh(&pool).await.unwrap();
    assert!(volumes.iter().all(|volume| volume.name == "others"), "{volumes:?}");
    // With room again the same plan is carried out.
    assert!(run("rm", &["/run/full/others"]));
    let handle = driver.create(super::place::new_id(), &plan, &super::place::Unread).await.unwrap();
    driver.delete(&handle).await.unwrap();
}
