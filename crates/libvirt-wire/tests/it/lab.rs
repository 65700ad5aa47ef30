//! The lab itself: what runs on the computer does not notice it.

use crate::daemon::connect;
use std::{collections::BTreeMap, fs, path::Path};
use vmoon_libvirt_lab::{Lab, Machine};
use vmoon_libvirt_wire::flags::{Define, Domains, Networks, Xml};

/// Every file below and when it changed.
fn files(folder: &Path, into: &mut BTreeMap<String, std::time::SystemTime>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let Ok(meta) = entry.path().symlink_metadata() else { continue };
        if meta.is_dir() {
            files(&entry.path(), into);
        }
        into.insert(entry.path().display().to_string(), meta.modified().expect("Linux knows"));
    }
}

fn snapshot(lab: &Lab) -> BTreeMap<String, std::time::SystemTime> {
    let mut all = BTreeMap::new();
    for folder in ["run", "lib", "log", "cache", "etc"] {
        files(&lab.path().join(folder), &mut all);
    }
    all
}

#[tokio::test]
async fn a_libvirtd_that_runs_already_does_not_notice() {
    // One that plays the computer's own, and one that is started where the first is the computer's own.
    let outer = Lab::start();
    let client = connect(&outer, "qemu:///system").await;
    let domain = client.define(&Machine::named("mine").xml(&Lab::guest()), Define::NONE).await.expect("defined");
    let before = (outer.daemon_pid(), client.domain_xml(&domain, Xml::INACTIVE).await.expect("XML"), snapshot(&outer));
    {
        let mut inner = Lab::start_inside(&outer);
        assert_ne!(inner.daemon_pid(), outer.daemon_pid());
        let client = connect(&inner, "qemu:///system").await;
        assert_eq!(client.domains(Domains::NONE).await.expect("a list"), [], "it has none of the other's domains");
        assert_eq!(client.networks(Networks::NONE).await.expect("a list"), []);
        client.define(&Machine::named("theirs").xml(&Lab::guest()), Define::NONE).await.expect("defined");
        inner.kill_daemon();
        inner.start_daemon();
        let client = connect(&inner, "qemu:///system").await;
        assert_eq!(client.domains(Domains::NONE).await.expect("a list").len(), 1, "it finds its own again");
    }
    let after = (outer.daemon_pid(), client.domain_xml(&domain, Xml::INACTIVE).await.expect("XML"), snapshot(&outer));
    assert_eq!((before.0, &before.1), (after.0, &after.1), "the same process, the same connection");
    let changed: Vec<_> = after.2.iter().filter(|(file, at)| before.2.get(*file) != Some(at)).collect();
    assert_eq!((changed, before.2.len()), (vec![], after.2.len()), "the same files");
    assert_eq!(client.domains(Domains::NONE).await.expect("a list"), [domain]);
}

#[test]
fn with_the_lab_every_process_of_it_ends() {
    let lab = Lab::start();
    let pid = lab.daemon_pid().expect("it runs");
    assert!(Path::new(&format!("/proc/{pid}")).exists());
    let folder = lab.path().to_owned();
    drop(lab);
    assert!(!Path::new(&format!("/proc/{pid}")).exists());
    assert!(!folder.exists());
}
