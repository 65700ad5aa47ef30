//! What we write, judged by the tools it is for: libvirt's schema, QEMU's image tool, programs that read ISO images.

use crate::{
    caps::{
        Host,
        tests::{host, host_with_kvm},
    },
    plan::plan,
    qcow2,
    settings::Settings,
};
use serde_json::{Value, json};
use std::{
    fs,
    io::Write as _,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};
use uuid::Uuid;
use vmoon_core::{MachineId, spec::MachineSpec};
use vmoon_seed::{Seed, cloud::Cloud, iso};

const SCHEMA: &str = "/usr/share/libvirt/schemas/domain.rng";

/// Runs a tool that the tests need; what it printed.
fn tool(program: &str, package: &str, arguments: &[&str]) -> String {
    let output = match Command::new(program).args(arguments).output() {
        Ok(output) => output,
        Err(error) => panic!("{program} cannot be run ({error}): install {package}, or run cargo xtask install"),
    };
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{program} {arguments:?}: {text}");
    text
}

fn id() -> MachineId {
    MachineId::from_uuid(Uuid::from_u128(0x0198_9bc2_7cc0_7000_8000_0123_4567_89ab))
}

fn document(settings: Value, host: &Host) -> String {
    let Value::Object(settings) = settings else { panic!("settings are an object") };
    let settings = Settings::read(&MachineSpec { kind: "libvirt".into(), settings, ..MachineSpec::default() }).unwrap();
    let (blueprint, _) = plan("a-machine", &settings, host).unwrap();
    blueprint.xml(Some(id()), true).unwrap().to_text()
}

/// The same text as the file beside the tests; `VMOON_BLESS=1` writes it anew, to be read before it is kept.
fn golden(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("VMOON_BLESS").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
    }
    let known = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        known == text,
        "{name} has changed; if that is meant, run the test with VMOON_BLESS=1 and read the difference. It is now:\n{text}"
    );
}

fn valid(path: &Path) {
    assert!(Path::new(SCHEMA).exists(), "{SCHEMA} is missing: install libvirt-daemon, or run cargo xtask install");
    tool("xmllint", "libxml2-utils", &["--noout", "--relaxng", SCHEMA, path.to_str().unwrap()]);
}

#[test]
fn templates_are_valid_by_libvirts_schema() {
    let dir = tempfile::tempdir().unwrap();
    let everything = json!({
        "template": "linux-desktop", "base": "debian 13 & <co>.qcow2", "user": "ada", "extra-disks": ["1GiB"], "disk-bus": "scsi",
        "iso": ["a.iso", "/isos/b.iso"], "network": ["default", "bridge:br0", "user"], "mac": "52:54:00:aa:bb:cc", "tpm": true,
        "secure-boot": true, "cpus": 8, "sockets": 2, "cores": 2, "threads": 2, "cpu": "qemu64", "hugepages": true, "disk-cache": "none",
        "patch": [{"path": "title", "set": "a & b <c>"}, {"path": "devices/memballoon", "attribute": "model", "set": "none"},
                  {"path": "devices/memballoon", "attribute": "freePageReporting", "remove": true}],
    });
    let cases = [
        ("linux-cloud", json!({"base": "debian.qcow2", "user": "ada", "ssh-key": KEY})),
        ("linux-desktop", json!({"template": "linux-desktop", "iso": "debian.iso"})),
        ("windows10", json!({"template": "windows10", "iso": "win10.iso", "virtio-win": "virtio-win.iso"})),
        ("windows11", json!({"template": "windows11", "iso": "win11.iso", "virtio-win": "virtio-win.iso"})),
        ("everything", everything),
        (
            "kernel",
            json!({"disk": 0, "network": "none", "firmware": "bios", "kernel": "/k", "initrd": "/i", "cmdline": "console=ttyS0 x=\"<&>\""}),
        ),
    ];
    for (name, settings) in cases {
        for (host, kind) in [(host(), "tcg"), (host_with_kvm(), "kvm")] {
            let text = document(settings.clone(), &host);
            let path = dir.path().join(format!("{name}-{kind}.xml"));
            fs::write(&path, &text).unwrap();
            valid(&path);
            golden(&format!("{name}-{kind}.xml"), &text);
        }
    }
}

const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl ada@example";

#[test]
fn qemu_reads_our_images() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let put = |name: &str, image: &qcow2::Image| {
        let mut file = fs::File::create(path(name)).unwrap();
        file.write_all(&image.to_vec()).unwrap();
    };
    put("base.qcow2", &qcow2::image(3 << 30, None).unwrap());
    let base = path("base.qcow2");
    put("over.qcow2", &qcow2::image(5 << 30, Some(&qcow2::Base { path: &base, format: "qcow2" })).unwrap());
    put("huge.qcow2", &qcow2::image(qcow2::MAX_SIZE, None).unwrap());
    for (name, size) in [("base.qcow2", 3 << 30), ("over.qcow2", 5 << 30), ("huge.qcow2", qcow2::MAX_SIZE)] {
        tool("qemu-img", "qemu-utils", &["check", "-q", &path(name)]);
        let info: Value = serde_json::from_str(&tool("qemu-img", "qemu-utils", &["info", "--output=json", &path(name)])).unwrap();
        assert_eq!((info["virtual-size"].as_u64(), info["format"].as_str()), (Some(size), Some("qcow2")), "{info}");
    }
    let info: Value = serde_json::from_str(&tool("qemu-img", "qemu-utils", &["info", "--output=json", &path("over.qcow2")])).unwrap();
    assert_eq!((info["backing-filename"].as_str(), info["backing-filename-format"].as_str()), (Some(base.as_str()), Some("qcow2")));
    // One that QEMU wrote is read by us.
    let theirs = path("theirs.qcow2");
    tool("qemu-img", "qemu-utils", &["create", "-q", "-f", "qcow2", "-b", &base, "-F", "qcow2", &theirs, "7G"]);
    let header = qcow2::Header::read(&fs::read(&theirs).unwrap()).unwrap().unwrap();
    assert_eq!((header.size, header.base.as_deref(), header.base_format.as_deref()), (7 << 30, Some(base.as_str()), Some("qcow2")));
}

#[test]
fn tools_read_our_seeds() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("seed.iso").to_str().unwrap().to_owned();
    let cloud = Cloud { hostname: "box".into(), user: Some("ada".into()), ssh_keys: vec![KEY.into()], ..Cloud::default() };
    let image = Seed::Cloud(cloud).image(id(), Some(b"#cloud-config\nruncmd: []\n".to_vec())).unwrap();
    fs::write(&path, &image).unwrap();
    let label = tool("blkid", "util-linux", &["-p", "-o", "export", &path]);
    assert!(label.contains("LABEL=cidata") && label.contains("TYPE=iso9660"), "{label}");
    let names = tool("isoinfo", "genisoimage", &["-J", "-f", "-i", &path]);
    let mut names: Vec<&str> = names.lines().collect();
    names.sort();
    assert_eq!(names, ["/meta-data", "/user-data", "/vendor-data"]);
    assert_eq!(tool("isoinfo", "genisoimage", &["-J", "-x", "/user-data", "-i", &path]), "#cloud-config\nruncmd: []\n");
    assert!(tool("isoinfo", "genisoimage", &["-l", "-i", &path]).contains("USER_DATA.;1"), "the plain names are there, too");
    let vendor = tool("isoinfo", "genisoimage", &["-J", "-x", "/vendor-data", "-i", &path]);
    assert!(vendor.starts_with("#cloud-config\n") && vendor.contains(KEY), "{vendor}");
    let checked = tool("xorriso", "xorriso", &["-indev", &path, "-find", "/", "-type", "f"]);
    assert!(checked.contains("meta-data"), "{checked}");
}

/// The shortest of many tries: what a busy computer adds is not what is measured.
fn shortest(mut work: impl FnMut()) -> Duration {
    let tries = (0..50).map(|_| {
        let begin = Instant::now();
        work();
        begin.elapsed()
    });
    tries.min().unwrap_or_default()
}

#[test]
fn an_overlay_and_a_seed_take_less_than_a_millisecond() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x");
    let overlay = shortest(|| {
        let image = qcow2::image(100 << 30, Some(&qcow2::Base { path: "/images/base.qcow2", format: "qcow2" })).unwrap();
        let file = fs::File::create(&path).unwrap();
        file.set_len(image.length).unwrap();
        for (at, piece) in &image.pieces {
            std::os::unix::fs::FileExt::write_all_at(&file, piece, *at).unwrap();
        }
    });
    let seed = shortest(|| {
        let files = [iso::File { name: "user-data", content: vec![b'x'; 2000] }, iso::File { name: "meta-data", content: vec![b'y'; 100] }];
        fs::write(&path, iso::image("cidata", &files).unwrap()).unwrap();
    });
    assert!(overlay < Duration::from_millis(1) && seed < Duration::from_millis(1), "overlay {overlay:?}, seed {seed:?}");
}
