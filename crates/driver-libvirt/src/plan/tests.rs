//! Plans of every template on hosts with and without KVM, and what is refused.

use super::*;
use crate::{
    caps::tests::{host, host_with_kvm},
    model::NewVolume,
};
use serde_json::{Value, json};
use vmoon_core::spec::MachineSpec;

fn planned(settings: Value, host: &Host) -> Result<(Blueprint, Vec<String>), Problems> {
    let Value::Object(settings) = settings else { panic!("settings are an object") };
    let settings = Settings::read(&MachineSpec { kind: "libvirt".into(), settings, ..MachineSpec::default() })?;
    plan("web01", &settings, host)
}

fn xml(settings: Value, host: &Host) -> String {
    planned(settings, host).unwrap().0.xml(None, true).unwrap().to_text()
}

#[test]
fn windows_gets_what_the_host_offers_and_no_more() {
    let with = xml(json!({"template": "windows11", "iso": "win.iso", "virtio-win": "/isos/virtio.iso"}), &host_with_kvm());
    for wanted in [
        "<stimer state=\"on\">",
        "tpm-crb",
        "secure-boot",
        "<smm state=\"on\"/>",
        "hypervclock",
        "localtime",
        "bus=\"virtio\"",
        "host-passthrough",
    ] {
        assert!(with.contains(wanted), "{wanted}: {with}");
    }
    assert!(!with.contains("evmcs") && !with.contains("avic"), "these depend on the maker of the processor");
    let without = xml(json!({"template": "windows11", "iso": "win.iso"}), &host());
    assert!(
        !without.contains("hyperv") && without.contains("bus=\"sata\"") && without.contains("e1000e") && without.contains("type=\"qemu\"")
    );
}

#[test]
fn what_a_template_wishes_is_replaced_and_what_a_user_asks_is_refused() {
    let mut poor = host();
    poor.tcg = Some(DomainCaps {
        cpu_modes: vec!["custom".into()],
        vcpus: 4,
        devices: vec![("graphics".into(), Vec::new()), ("graphics.type".into(), vec!["vnc".into()])],
        ..DomainCaps::default()
    });
    let (_, steps) = planned(json!({"template": "linux-desktop"}), &poor).unwrap();
    let beware = steps.iter().filter(|step| step.starts_with("beware")).count();
    assert_eq!(beware, 4, "no KVM, no UEFI, no SPICE, nothing to boot: {steps:?}");
    let problems = planned(json!({"template": "windows11", "graphics": "spice", "cpus": 8, "accelerator": "kvm", "cpu": "maximum"}), &poor)
        .unwrap_err();
    for path in ["settings.graphics", "settings.cpus", "settings.accelerator", "settings.tpm", "settings.firmware", "settings.cpu"] {
        assert!(problems.0.iter().any(|problem| problem.path == path), "{path}: {problems:?}");
    }
}

#[test]
fn disks_must_fit_and_pools_must_be_there() {
    for (bad, path) in [
        (json!({"disk": "300GiB"}), "settings.disk"),
        (json!({"disk": "150GiB", "disk-format": "raw"}), "settings.disk"),
        (json!({"extra-disks": ["1GiB", "201GiB"]}), "settings.extra-disks"),
        (json!({"pool": "fast"}), "settings.pool"),
        (json!({"network": "lan"}), "settings.network"),
        (json!({"network": "user", "forward": "tcp:2222:22"}), "settings.forward"),
        (json!({"patch": [{"path": "devices/tpm", "remove": true}]}), "settings"),
        (json!({"template": "windows10", "user": "u", "disk-bus": "virtio"}), "settings.disk-bus"),
    ] {
        let problems = planned(bad.clone(), &host()).unwrap_err();
        assert!(problems.0.iter().any(|problem| problem.path == path), "{bad}: {problems:?}");
    }
    assert!(planned(json!({"disk": "150GiB"}), &host()).unwrap().1.iter().any(|step| step.contains("may grow")));
}

#[test]
fn every_setting_is_seen_in_the_xml() {
    for (settings, wanted) in [
        (json!({"memory": "3GiB"}), "<memory unit=\"KiB\">3145728</memory>"),
        (json!({"cpus": 6, "cores": 3, "threads": 2}), "sockets=\"1\" dies=\"1\" cores=\"3\" threads=\"2\""),
        (json!({"cpu": "qemu64"}), "<model fallback=\"forbid\">qemu64</model>"),
        (json!({"machine": "pc"}), "machine=\"pc\""),
        (json!({"firmware": "bios"}), "<os>"),
        (json!({"tpm": true}), "<tpm model=\"tpm-crb\">"),
        (json!({"hugepages": true}), "<hugepages/>"),
        (json!({"disk-bus": "scsi"}), "model=\"virtio-scsi\""),
        (json!({"disk-format": "raw"}), "type=\"raw\""),
        (json!({"disk-cache": "none"}), "cache=\"none\""),
        (json!({"extra-disks": ["1GiB", "2GiB"]}), "dev=\"vdc\""),
        (json!({"base": "debian.qcow2"}), "dev=\"vdb\""),
        (json!({"iso": "a & b <c>.iso"}), "images/a &amp; b &lt;c&gt;.iso\""),
        (json!({"network": ["bridge:br0", "user"]}), "<source bridge=\"br0\"/>"),
        (json!({"network": "none"}), "<devices>"),
        (json!({"nic": "e1000e"}), "<model type=\"e1000e\"/>"),
        (json!({"mac": "52:54:00:aa:bb:cc"}), "address=\"52:54:00:aa:bb:cc\""),
        (json!({"graphics": "vnc"}), "<listen type=\"socket\"/>"),
        (json!({"graphics": "spice", "video": "qxl"}), "<model type=\"qxl\"/>"),
        (json!({"sound": true}), "ich9"),
        (json!({"kernel": "/k", "initrd": "/i", "cmdline": "a=\"<b>\""}), "<cmdline>a=&quot;&lt;b&gt;&quot;</cmdline>"),
        (json!({"patch": [{"path": "title", "set": "x"}]}), "<title>x</title>"),
        (json!({"xml": "<domain type='qemu'><memory>1</memory><name>other</name></domain>"}), "<name>web01</name>"),
    ] {
        let found = xml(settings.clone(), &host());
        assert!(found.contains(wanted), "{settings}: {wanted} is not in {found}");
    }
    assert!(!xml(json!({"network": "none"}), &host()).contains("<interface"));
    assert!(!xml(json!({"disk": 0}), &host()).contains("<disk"));
}

#[test]
fn a_blueprint_survives_storage() {
    let (blueprint, steps) = planned(json!({"base": "d.qcow2", "user": "ada", "template": "linux-cloud"}), &host()).unwrap();
    let stored = serde_json::to_value(&blueprint).unwrap();
    assert_eq!(serde_json::from_value::<Blueprint>(stored).unwrap(), blueprint);
    assert!(steps.iter().any(|step| step.contains("overlay of /var/lib/libvirt/images/d.qcow2")), "{steps:?}");
    assert_eq!(blueprint.needs.len(), 1);
}

#[test]
fn names_of_volumes_are_nobody_elses() {
    use crate::model::{is_made_for, mac, volume_name};
    let id = vmoon_core::MachineId::from_uuid(uuid::Uuid::from_u128(0x0198_0000_0000_7000_8000_0000_0000_00ff));
    let volume = NewVolume { target: "vda".into(), format: "qcow2".into(), size: 1, content: Content::Empty };
    let name = volume_name("web01", Some(id), &volume);
    assert!(is_made_for(&name, id) && name.starts_with("web01-0198") && name.ends_with("-vda.qcow2"), "{name}");
    assert_eq!((mac(id, 0), mac(id, 1)), ("52:54:00:00:00:ff".into(), "52:54:00:00:00:00".into()));
}
