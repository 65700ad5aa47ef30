//! A fresh libvirt: what doctor says of it, and what it makes when asked to.

use super::place::{Place, created, spec};
use serde_json::json;
use vmoon_core::driver::{Check, Driver, Verdict};
use vmoon_libvirt_lab::Lab;

fn of<'a>(checks: &'a [Check], requirement: &str) -> &'a Check {
    checks.iter().find(|check| check.requirement == requirement).unwrap_or_else(|| panic!("{checks:?}"))
}

#[tokio::test]
async fn what_a_fresh_libvirt_lacks_is_made_when_asked_for() {
    let place = Place { lab: Lab::start() };
    let driver = place.driver();
    let settings = json!({"memory": "64MiB", "cpus": 1, "disk": "8MiB", "firmware": "bios", "accelerator": "tcg", "seed": false});
    let facts = driver.facts().await.unwrap();
    let problems = driver.plan("first", &spec(settings.clone()), &facts).unwrap_err();
    let told = format!("{problems:?}");
    assert!(told.contains("no storage pool default") && told.contains("doctor --fix") && told.contains("no libvirt network"), "{told}");
    let before = driver.probe().await;
    assert_eq!(of(&before, "storage pool default").verdict, Verdict::Fail);
    assert_eq!(of(&before, "network default").verdict, Verdict::Warn);

    let planned = driver.repair(true).await.unwrap();
    assert_eq!(planned.len(), 2, "{planned:?}");
    assert_eq!(of(&driver.probe().await, "storage pool default").verdict, Verdict::Fail, "a dry run makes nothing");
    assert_eq!(driver.repair(false).await.unwrap(), planned);
    assert_eq!(driver.repair(false).await.unwrap(), Vec::<String>::new(), "it is safe to repeat");
    let after = driver.probe().await;
    for requirement in ["storage pool default", "network default"] {
        assert_ne!(of(&after, requirement).verdict, Verdict::Fail, "{after:?}");
    }
    let client = place.client().await;
    assert!(client.pool_autostart(&client.pool_named("default").await.unwrap()).await.unwrap());
    assert!(client.network_is_active(&client.network_named("default").await.unwrap()).await.unwrap());

    // A pool that was stopped is started.
    client.pool_stop(&client.pool_named("default").await.unwrap()).await.unwrap();
    let again = driver.repair(false).await.unwrap();
    assert!(again.len() == 1 && again[0].contains("start"), "{again:?}");

    // And the first machine can be made in them. It is not: the pool's directory is the lab's own, and we would write into that of this computer.
    let facts = driver.facts().await.unwrap();
    driver.plan("first", &spec(settings), &facts).unwrap_or_else(|problems| panic!("{problems:?}"));
}

#[tokio::test]
async fn kvm_is_believed_only_where_the_processor_has_it() {
    let place = Place::new().await;
    let driver = place.driver();
    let hardware = std::fs::read_to_string("/proc/cpuinfo").unwrap().split_whitespace().any(|word| matches!(word, "vmx" | "svm"));
    let checks = driver.probe().await;
    let kvm = of(&checks, "KVM");
    if hardware {
        // Whether it may be opened is for libvirt to say.
        assert!(!kvm.finding.contains("neither"), "{kvm:?}");
    } else {
        assert!(kvm.verdict == Verdict::Warn && !kvm.fix.is_empty(), "{kvm:?}");
        // So what is left to the driver runs where it is made, and what is asked for is refused with the reason.
        let plain = json!({"memory": "64MiB", "cpus": 1, "disk": 0, "firmware": "bios", "network": "none"});
        let handle = created(&*driver, "auto", plain.clone()).await;
        assert_eq!(driver.describe(&handle).await["accelerator"], "qemu");
        driver.delete(&handle).await.unwrap();
        let mut asked = spec(plain);
        asked.settings.insert("accelerator".into(), "kvm".into());
        let problems = driver.plan("kvm", &asked, &driver.facts().await.unwrap()).unwrap_err();
        assert!(problems.0.len() == 1 && problems.0[0].path == "settings.accelerator", "{problems:?}");
    }
}
