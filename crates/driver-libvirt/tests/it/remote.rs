//! A libvirt on another computer: everything through the pipes of `ssh HOST virt-ssh-helper`, nothing through files. The computer is this one; a program in
//! ssh's place runs the command that ssh was given.

use super::{
    life::guest,
    place::{Place, created},
    terminal::{Terminal, channel},
};
use serde_json::json;
use std::{env, fs, os::unix::fs::PermissionsExt as _};
use vmoon_core::{
    Code,
    driver::{Driver, Observed},
};
use vmoon_driver_libvirt::{LibvirtConfig, LibvirtDriver};

/// The test that runs inside of the lab does so only if this is set.
const INSIDE: &str = "VMOON_TEST_INSIDE";

/// Does nothing unless it was started by the test below, inside of a lab.
#[tokio::test]
async fn inside() {
    if env::var_os(INSIDE).is_none() {
        return;
    }
    let config = LibvirtConfig { uri: "qemu+ssh://ada@far.example:2222/system".into(), ..LibvirtConfig::default() };
    let driver = LibvirtDriver::connect(&config).unwrap();
    let mut settings = guest("name=far");
    settings["user"] = "ada".into();
    let handle = created(&driver, "far", settings).await;
    driver.start(&handle).await.unwrap();
    let serial = channel(&driver, &handle).await;
    let mut terminal = Terminal::open(&driver, &handle, &serial, 0).await;
    terminal.wait_for("GUEST READY far").await;
    terminal.keys("echo $((6 * 7))-far\r").await;
    terminal.wait_for("42-far").await;
    assert!(driver.display().unwrap().offers(&handle).await.unwrap().is_empty(), "a socket over there is no offer here");
    driver.delete(&handle).await.unwrap();
    assert_eq!(driver.observe(&handle).await.observed, Observed::Missing);
    // What is missing in a pool over there is seen from here.
    let facts = driver.facts().await.unwrap();
    let plan =
        driver.plan("x", &super::place::spec(json!({"iso": "no-such.iso", "network": "none", "accelerator": "tcg"})), &facts).unwrap();
    let error = driver.create(super::place::new_id(), &plan, &super::place::Unread).await.unwrap_err();
    assert!(error.code() == Code::SpecInvalid && error.message().contains("no-such.iso"), "{}", error.chain());
}

#[tokio::test]
async fn machines_of_another_computer_are_reached_through_ssh() {
    let place = Place::new().await;
    let bin = place.lab.path().join("bin");
    fs::create_dir(&bin).unwrap();
    let ssh = bin.join("ssh");
    fs::write(&ssh, "#!/bin/sh\nwhile [ \"$1\" != -- ]; do shift; done\nshift 2\nexec \"$@\"\n").unwrap();
    fs::set_permissions(&ssh, fs::Permissions::from_mode(0o755)).unwrap();
    let exe = env::current_exe().unwrap();
    let mut command = place.lab.command(exe.to_str().unwrap());
    command.args(["--exact", "remote::inside", "--nocapture"]).env(INSIDE, "1");
    command.env("PATH", format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", bin.display()));
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(place.remains(), Vec::<String>::new());
}
