//! The guest boots, obeys its seed, and lets in who is named there, with the clients of OpenSSH.

mod machine;

use machine::{Machine, host_key, key};
use serde_json::json;
use std::{fs, process::Output};

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn a_seed_is_obeyed_as_cloud_init_would() {
    let folder = tempfile::tempdir().unwrap();
    let (mine, host) = (key(folder.path(), "mine"), key(folder.path(), "host"));
    let config = json!({
        "hostname": "moon",
        "users": [
            {"name": "lua", "shell": "/bin/bash", "lock_passwd": true, "sudo": "ALL=(ALL) NOPASSWD:ALL", "ssh_authorized_keys": [mine]},
            {"name": "../evil", "ssh_authorized_keys": [mine]},
        ],
        "ssh_keys": {"ed25519_private": fs::read_to_string(folder.path().join("host")).unwrap(), "ed25519_public": host},
        "write_files": [{"path": "/etc/deep/er/greeting", "content": "h\u{e9} \"quoted\" \\ $(x)\n", "permissions": "0600"}],
        "runcmd": [["echo", "it's a `word`; $HOME"], "echo of the shell: $((6 * 7))"],
        "colour": "red",
    });
    let mut machine = Machine::boot(folder.path(), "", Some(("#cloud-config\n", &config)));
    let said = machine.until("GUEST READY moon");
    for part in ["colour is left alone", "no name for a user: ../evil", "it's a `word`; $HOME", "of the shell: 42", "GUEST READY moon"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert_eq!(host_key(&machine), host.split(' ').nth(1).unwrap(), "its host key is the one of the seed");
    let out = machine.ssh("lua", &["id -un; hostname; ls -la /etc/deep/er; lua -e 'print(1 // 1, _VERSION)'"]);
    let told = text(&out);
    for part in ["lua\nmoon\n", "-rw-------", "1\tLua 5.4"] {
        assert!(told.contains(part), "{part}: {told}");
    }
    assert!(!machine.ssh("root", &["id"]).status.success(), "nobody gave root a key");

    fs::write(folder.path().join("up"), vec![7; 300_000]).unwrap();
    let out = machine.sftp("lua", &format!("put {0}/up there\nget there {0}/down\n", folder.path().display()));
    assert!(out.status.success(), "{}", text(&out));
    assert_eq!(fs::read(folder.path().join("down")).unwrap(), fs::read(folder.path().join("up")).unwrap());

    machine.power_button();
    machine.ended();
}

#[test]
fn words_make_variants_and_what_is_no_json_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let mine = key(folder.path(), "mine");
    let config = json!({"ssh_authorized_keys": [mine]});
    let mut machine = Machine::boot(folder.path(), "name=bare nolua deaf", Some(("#cloud-config\n", &config)));
    machine.until("GUEST READY bare");
    let out = machine.ssh("debian", &["command -v lua lua5.4 || echo none; id -un"]);
    assert_eq!(String::from_utf8_lossy(&out.stdout), "none\ndebian\n", "{}", text(&out));
    machine.power_button();
    assert!(machine.ssh("debian", &["true"]).status.success(), "one that is deaf goes on");
    drop(machine);

    let mut machine = Machine::boot(folder.path(), "nossh", Some(("#cloud-config\nusers:\n  - ", &json!("yaml"))));
    let said = machine.until("GUEST READY guest");
    assert!(said.contains("user-data is not JSON"), "{said}");
    assert!(!machine.ssh("debian", &["true"]).status.success());
}
