//! Every template defines and starts here, with firmware, TPM and seeds, and leaves nothing when it is deleted.

use super::place::{Place, created};
use serde_json::json;
use std::fs;
use vmoon_core::driver::{Driver, Observed};
use vmoon_libvirt_wire::{Domain, flags::Xml};

#[tokio::test]
async fn every_template_starts() {
    let place = Place::new().await;
    let driver = place.driver();
    let iso = place.images().join("setup & drivers.iso");
    fs::write(&iso, vec![0; 1 << 20]).unwrap();
    let before = place.remains();
    let iso = iso.to_str().unwrap();
    let client = place.client().await;
    for (template, more, wanted) in [
        ("linux-cloud", json!({"user": "ada", "network": "none"}), &["pflash"][..]),
        ("linux-desktop", json!({"iso": iso, "network": "user"}), &["spice", "virtio"][..]),
        ("windows10", json!({"iso": iso, "virtio-win": iso, "network": "user"}), &["localtime", "bus='virtio'"][..]),
        ("windows11", json!({"iso": iso, "network": "user"}), &["tpm-crb", "secure='yes'", "<smm state='on'/>", "e1000e"][..]),
    ] {
        let mut settings = json!({"template": template, "accelerator": "tcg", "memory": "256MiB", "cpus": 1, "disk": "64MiB"});
        settings.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap());
        let handle = created(&*driver, template, settings).await;
        driver.start(&handle).await.unwrap_or_else(|error| panic!("{template}: {}", error.chain()));
        assert!(matches!(driver.observe(&handle).await.observed, Observed::On(_)), "{template}");
        let xml = client.domain_xml(&Domain::of(handle.0.parse().unwrap()), Xml::NONE).await.unwrap();
        for wanted in wanted {
            assert!(xml.contains(wanted), "{template}: {wanted} is not in {xml}");
        }
        driver.delete(&handle).await.unwrap();
        assert_eq!(place.remains(), before, "{template}");
    }
}
