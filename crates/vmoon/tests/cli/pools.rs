//! A pool of XCP-ng, as its administrator meets it: what is there, moving, deleting with and without disks, calls by their own names, files of the former tool, and
//! what is said when something is missing. Its VMs are records, or a private SSH server that is there at once.

use super::home::Home;
use serde_json::{Value, json};
use std::{
    path::{Path, PathBuf},
    time::Duration,
};
use vmoon_xapi_sim::{Apart, Authority, Certificate, Settings, machines::Sshd};

/// The pool. What is missing for its VMs is named.
fn pool() -> Apart {
    pool_that_shows(Certificate::default())
}

fn pool_that_shows(certificate: Certificate) -> Apart {
    pool_of(Settings { certificate, ..Settings::default() })
}

fn pool_of(settings: Settings) -> Apart {
    let settings = Settings { tools: Duration::ZERO, ..settings };
    Apart::start(settings, Duration::from_secs(30), || Sshd::new("a test wants it"))
        .unwrap_or_else(|why| panic!("{why}; run cargo xtask install"))
}

fn add(pool: &Apart, home: &Home, name: &str, password: &[u8], fingerprint: &str) -> super::home::Ran {
    let words = ["-o", "json", "connection", "add", "xcpng", &pool.uri, "--name", name, "--user", "root", "--password-stdin"];
    home.feed(&[&words[..], &["--accept-fingerprint", fingerprint]].concat(), password)
}

/// A home with a connection `lab` to it.
fn home(pool: &Apart) -> Home {
    let home = Home::new();
    add(pool, &home, "lab", b"secret\n", &pool.fingerprint).ok();
    home
}

fn json(home: &Home, args: &[&str]) -> Value {
    let said = home.json(args).ok();
    serde_json::from_str(&said).unwrap_or_else(|_| panic!("no JSON: {said}"))
}

#[test]
fn a_machine_moves_between_hosts_and_its_disks_go_or_stay() {
    let pool = pool();
    let home = home(&pool);
    pool.sim.add_host("sim-host-2", "127.0.0.9", "");
    let shown = home.run(&["connection", "show", "lab"]).ok();
    for wanted in ["sim-host-1", "coordinates the pool", "Local storage", "default", "linux-lua", "debian-12-netinst.iso"] {
        assert!(shown.contains(wanted), "{wanted}: {shown}");
    }
    let shown = json(&home, &["connection", "show", "lab"]);
    assert_eq!(shown["inventory"]["hosts"].as_array().map(Vec::len), Some(2), "{shown}");

    home.run(&["create", "lab:web", "--set", "template=linux-lua", "--set", "disk=1GiB", "--start"]).ok();
    let places = json(&home, &["migrate", "lab:web"]);
    let here = |places: &Value| -> Option<String> {
        let all = places.as_array()?.iter().find(|place| place["here"] == true)?;
        Some(all["name"].as_str()?.to_owned())
    };
    let there = if here(&places).as_deref() == Some("sim-host-1") { "sim-host-2" } else { "sim-host-1" };
    assert!(home.run(&["migrate", "lab:web", there, "--dry-run"]).ok().contains(there));
    assert_ne!(here(&json(&home, &["migrate", "lab:web"])).as_deref(), Some(there), "it was only planned");
    home.run(&["migrate", "lab:web", there]).ok();
    assert_eq!(here(&json(&home, &["migrate", "lab:web"])).as_deref(), Some(there));
    assert_eq!(json(&home, &["show", "lab:web"])["state"], "running");
    // A copy is on the connection of its original, whichever of the two is written with it.
    home.run(&["create", "lab:base", "--set", "template=linux-lua"]).ok();
    home.json(&["clone", "lab:base", "local:twin"]).fails_with_hint("usage", 2);
    home.run(&["clone", "lab:base", "lab:twin"]).ok();
    home.run(&["rm", "lab:base", "lab:twin", "--yes"]).ok();
    home.json(&["migrate", "lab:web", "nowhere"]).fails("host.not_found", 3);
    home.run(&["stop", "lab:web", "--force"]).ok();
    home.json(&["migrate", "lab:web", there]).fails("machine.stopped", 4);

    let disks = |name: &str| pool.sim.names("VDI").into_iter().filter(|disk| disk.starts_with(name)).count();
    assert_eq!(disks("web"), 1);
    let plan = home.run(&["rm", "lab:web", "--keep-disks", "--dry-run"]).ok();
    assert!(plan.contains("stays") && disks("web") == 1, "{plan}");
    home.run(&["rm", "lab:web", "--keep-disks", "--yes"]).ok();
    assert_eq!(disks("web"), 1, "it was to stay");
    home.run(&["create", "lab:db", "--set", "template=linux-lua", "--set", "disk=1GiB"]).ok();
    assert_eq!(disks("db"), 1);
    home.run(&["rm", "lab:db", "--yes"]).ok();
    assert_eq!(disks("db"), 0);
    // Whoever goes says goodbye: hosts keep but some hundred sessions.
    home.run(&["daemon", "stop"]).ok();
    assert_eq!(pool.sim.sessions(), 0, "a daemon that ends has not said goodbye");
    home.run(&["list"]).ok();
    home.run(&["connection", "test", "lab"]).ok();
    assert!(pool.sim.sessions() > 0);
    home.run(&["connection", "rm", "lab", "--yes"]).ok();
    assert_eq!(pool.sim.sessions(), 0, "a connection that was removed has not said goodbye");
    home.end();
}

#[test]
fn calls_by_their_own_names_are_checked_made_and_followed() {
    let pool = pool();
    let home = home(&pool);
    let found = home.run(&["xapi", "call", "lab", "VM.get_by_name_label", "linux-lua"]).ok();
    let found: Value = serde_json::from_str(&found).unwrap();
    let template = found[0].as_str().unwrap().to_owned();
    let copied = home.run(&["xapi", "call", "lab", "VM.clone", &template, "a & b <c>", "--async"]).ok();
    assert!(copied.contains("OpaqueRef:") && pool.sim.names("VM").contains(&"a & b <c>".to_owned()), "{copied}");
    let task = home.run(&["xapi", "call", "lab", "VM.clone", &template, "later", "--async", "--no-wait"]).ok();
    assert!(task.starts_with("OpaqueRef:"), "{task}");
    home.json(&["xapi", "call", "lab", "VM.strat", &template]).fails_with_hint("usage", 2);
    home.json(&["xapi", "call", "lab", "VM.start", &template]).fails("usage", 2);
    home.json(&["xapi", "call", "lab", "session.logout"]).fails("usage", 2);
    home.json(&["xapi", "call", "lab", "VM.start", &template, "false", "false"]).fails("driver.failed", 1);
    home.json(&["xapi", "call", "local", "VM.get_all"]).fails("driver.unsupported", 9);
    // A method of a later release is sent, and it is said that nobody has checked it.
    pool.sim.faults(|faults| drop(faults.newer.insert("VM.teleport".into(), json!("there"))));
    let ran = home.run(&["xapi", "call", "lab", "VM.teleport", &template, "[1, \"x\"]"]);
    assert!(ran.err.contains("unchecked"), "{ran:?}");
    let answer: Value = serde_json::from_str(&ran.ok()).unwrap();
    assert_eq!(answer, json!({"answer": "there", "given": [template, [1, "x"]]}));
    home.run(&["connection", "rm", "lab", "--yes"]).ok();
    home.end();
}

#[test]
fn files_of_the_former_tool_are_taken_over_in_every_spelling() {
    let pool = pool();
    let home = Home::new();
    let host = pool.uri.trim_start_matches("https://");
    let all = json!({
        "one": {"xcp_host": host, "xcp_username": "root", "xcp_password": "secret", "verify_ssl": false},
        "two": {"xcpng_host": pool.uri, "xcpng_username": "root", "xcpng_password": "secret"},
        "three": {"xapi_url": pool.uri, "username": "root", "password": "secret", "template_name": "linux-lua", "memory": "1GiB", "vcpus": 2},
        "four": {"host": host, "username": "root", "password": "secret", "vm_username": "ada", "vm_password": "hidden-word"},
        "five": {"url": pool.uri, "username": "root", "password": "secret"},
    });
    std::fs::write(home.path("old.json"), all.to_string()).unwrap();
    let planned = home.run(&["connection", "import", "old.json", "--dry-run"]);
    assert!(!planned.out.contains("secret\"") && !format!("{planned:?}").contains("hidden-word"), "{planned:?}");
    assert_eq!(planned.ok().matches("would add").count(), 5);
    assert!(!home.run(&["connection", "list"]).ok().contains("xcpng"));
    let taken = home.run(&["connection", "import", "old.json", "--accept-fingerprint", &pool.fingerprint]);
    assert!(!format!("{taken:?}").contains("hidden-word"), "{taken:?}");
    assert!(taken.err.contains("linux-lua"), "how machines are made there is said: {taken:?}");
    taken.ok();
    let listed = json(&home, &["connection", "list"]);
    let up = listed.as_array().unwrap().iter().filter(|one| one["kind"] == "xcpng" && one["state"] == "up").count();
    assert_eq!(up, 5, "{listed}");
    // What is wrong with a file is said all at once, and nothing is added.
    std::fs::write(home.path("bad.json"), r#"[{"xcp_host": "a b", "xcp_password": "x"}, {"xapi_url": "https://h/path", "password": 1}]"#)
        .unwrap();
    let refused = home.json(&["connection", "import", "bad.json"]);
    assert!(refused.code != 0 && !refused.err.is_empty(), "{refused:?}");
    for name in listed.as_array().unwrap().iter().filter(|one| one["kind"] == "xcpng").filter_map(|one| one["name"].as_str()) {
        home.run(&["connection", "rm", name, "--yes"]).ok();
    }
    home.end();
}

#[test]
fn waiting_says_what_is_missing() {
    let pool = pool();
    let home = home(&pool);
    for (template, goal, missing) in [
        ("guest-notools", "ip", "no guest tools"),
        ("guest-notools", "session", "no guest tools"),
        ("guest-mute", "ip", "no address is known"),
        ("guest-mute", "session", "gives it no lease"),
        ("guest-nossh", "ssh", "port"),
    ] {
        home.run(&["create", "lab:web", "--set", &format!("template={template}"), "--set", "seed=yes", "--start"]).ok();
        let ran = home.json(&["wait", "lab:web", "--until", goal, "--timeout", "3s"]);
        ran.fails_with_hint("timeout", 8);
        assert!(ran.err.contains(missing), "{template}: {ran:?}");
        home.run(&["rm", "lab:web", "--force", "--yes"]).ok();
    }
    // Where it is all there: at the port that is the guest's own, which is not 22.
    home.run(&["create", "lab:web", "--set", "template=guest", "--set", "seed=yes", "--until", "ssh", "--timeout", "60s"]).ok();
    home.run(&["rm", "lab:web", "--force", "--yes"]).ok();
    home.run(&["connection", "rm", "lab", "--yes"]).ok();
    home.end();
}

#[test]
fn who_is_not_let_in_or_not_believed_is_told_why() {
    let pool = pool();
    let home = Home::new();
    add(&pool, &home, "lab", b"wrong\n", &pool.fingerprint).fails_with_hint("connection.auth", 6);
    let other = format!("SHA256:{}", ["AB"; 32].join(":"));
    let ran = add(&pool, &home, "lab", b"secret\n", &other);
    ran.fails("connection.untrusted", 6);
    assert!(ran.err.contains(&other) && ran.err.contains(&pool.fingerprint), "both are shown: {ran:?}");
    let ran = home
        .feed(&["-o", "json", "connection", "add", "xcpng", &pool.uri, "--name", "lab", "--user", "root", "--password-stdin"], b"secret\n");
    ran.fails_with_hint("connection.untrusted", 6);
    assert!(!home.run(&["connection", "list"]).ok().contains("xcpng"), "nothing is kept of it");
    // Names of others are text, wherever they are shown.
    let names = ["../x", "a & b <c>", "--help", "x\n\u{1b}[2J"];
    for name in names {
        pool.sim.insert("VM", json!({"name_label": name, "name_description": name}));
    }
    add(&pool, &home, "lab", b"secret\n", &pool.fingerprint).ok();
    let listed = home.run(&["list"]).ok();
    assert!(!listed.contains('\u{1b}') && listed.contains("a & b <c>"), "{listed}");
    let listed = json(&home, &["list"]);
    assert_eq!(listed.as_array().unwrap().len(), names.len(), "{listed}");
    home.run(&["connection", "rm", "lab", "--yes"]).ok();
    home.end();
}

/// Every file below a folder that holds this text.
fn holding(folder: &Path, text: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if entry.file_type().unwrap().is_dir() {
            found.extend(holding(&path, text));
        } else if std::fs::read(&path).unwrap_or_default().windows(text.len()).any(|window| window == text.as_bytes()) {
            found.push(path);
        }
    }
    found
}

/// Whoever looks: in the store, in the log of a daemon that says all it can, in what is printed, in arguments and environments.
#[test]
fn a_password_is_in_its_file_and_nowhere_else() {
    const PASSWORD: &str = "Tr0ub4dor+and=3";
    let pool = pool_of(Settings { password: PASSWORD.into(), ..Settings::default() });
    let home = Home::new();
    let log = std::fs::File::create(home.path("log")).unwrap();
    let mut daemon =
        home.command(&["daemon", "run"]).env("VMOON_LOG", "trace").stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
    let mut said = Vec::new();
    let mut run = |home: &Home, args: &[&str]| {
        let ran = home.run(args);
        said.push(format!("{args:?}: {ran:?}"));
        ran
    };
    while run(&home, &["daemon", "status"]).code != 0 {
        assert!(daemon.try_wait().unwrap().is_none(), "{}", std::fs::read_to_string(home.path("log")).unwrap());
    }
    for words in [&["--no-store"][..], &[]] {
        let add = ["-vv", "-o", "json", "connection", "add", "xcpng", &pool.uri, "--name", "lab", "--user", "root", "--password-stdin"];
        let given = ["--accept-fingerprint", &pool.fingerprint];
        let mut half = PASSWORD.as_bytes()[..7].to_vec();
        half.push(b'\n');
        home.feed(&[&add[..], words, &given].concat(), &half).fails("connection.auth", 6);
        let ran = home.feed(&[&add[..], words, &given].concat(), format!("{PASSWORD}\n").as_bytes());
        assert!(!format!("{ran:?}").contains(PASSWORD), "{ran:?}");
        ran.ok();
        run(&home, &["create", "lab:web", "--set", "template=guest", "--set", "seed=yes", "--start"]).ok();
        for words in [
            &["-vv", "connection", "show", "lab", "-o", "json"][..],
            &["connection", "test", "lab"],
            &["xapi", "call", "lab", "session.get_all_records"],
            &["xapi", "call", "lab", "VM.get_by_name_label", PASSWORD.get(..3).unwrap()],
            &["events", "-o", "json"],
            &["doctor"],
            &["rm", "lab:web", "--force", "--yes"],
        ] {
            run(&home, words);
        }
        let found = holding(home.0.path(), PASSWORD);
        if words.is_empty() {
            assert!(found.len() == 1 && found[0].starts_with(home.path("state/vmoon/secrets")), "{found:?}");
        } else {
            assert!(found.is_empty(), "{found:?}");
        }
        for (pid, line) in home.processes() {
            let environ = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            assert!(!line.contains(PASSWORD) && !String::from_utf8_lossy(&environ).contains(PASSWORD), "{line}");
        }
        run(&home, &["connection", "rm", "lab", "--yes"]).ok();
    }
    assert!(!said.iter().any(|text| text.contains(PASSWORD)), "{said:?}");
    assert!(std::fs::metadata(home.path("log")).unwrap().len() > 10_000, "the log says something");
    assert!(holding(home.0.path(), PASSWORD).is_empty(), "it goes with its connection");
    home.end();
    daemon.wait().unwrap();
}

/// The certificate of an authority that this computer knows needs no fingerprint, as long as its time lasts.
#[test]
fn certificates_of_an_authority_are_believed_until_they_end() {
    let authority = Authority::new().unwrap();
    let home = Home::new();
    std::fs::write(home.path("root.pem"), authority.pem()).unwrap();
    // The daemon has it from who starts it.
    let started = home.command(&["daemon", "start"]).env("SSL_CERT_FILE", home.path("root.pem")).output().unwrap();
    assert!(started.status.success(), "{started:?}");
    let signed = |expired| Certificate { expired, authority: Some(authority.clone()) };
    let (now, before) = (pool_that_shows(signed(false)), pool_that_shows(signed(true)));
    let add = |pool: &Apart, name: &str, more: &[&str]| {
        let words = ["-o", "json", "connection", "add", "xcpng", &pool.uri, "--name", name, "--user", "root", "--password-stdin"];
        home.feed(&[&words[..], more].concat(), b"secret\n")
    };
    add(&now, "now", &[]).ok();
    let ran = add(&before, "before", &[]);
    ran.fails_with_hint("connection.untrusted", 6);
    assert!(ran.err.contains("it has expired") && ran.err.contains(&before.fingerprint), "{ran:?}");
    assert_eq!(before.sim.sessions(), 0, "no password was sent to it");
    // Who accepts it by its fingerprint says whose it is.
    let words = ["connection", "add", "xcpng", &before.uri, "--name", "before", "--user", "root", "--password-stdin"];
    let ran = home.feed(&[&words[..], &["--accept-fingerprint", &before.fingerprint]].concat(), b"secret\n");
    assert!(ran.err.contains("warning: the certificate of") && ran.err.contains("but it has expired"), "{ran:?}");
    ran.ok();
    for verb in ["test", "show"] {
        assert!(home.run(&["connection", verb, "before"]).ok().contains("but it has expired"));
        assert!(!home.run(&["connection", verb, "now"]).ok().contains("warning"));
    }
    for name in ["now", "before"] {
        home.run(&["connection", "rm", name, "--yes"]).ok();
    }
    home.end();
}
