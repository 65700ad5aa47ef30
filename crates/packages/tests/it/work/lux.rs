//! The same by `lx` (Lux), from the same server: a comparison, not a test. Debian does not have it and it takes long to build, so who wants this asks for it:
//!
//! ```text
//! cargo install lux-cli --no-default-features
//! VMOON_LX=lx cargo test --release -p vmoon-packages --test it lux -- --nocapture
//! ```

use super::{
    shop::{Shop, say},
    speed,
};
use crate::{
    mirror::{Mirror, serve::Server as Web},
    servers::served,
};
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};
use vmoon_packages::{LuaVersion, lock::import_lux};

/// Which program is `lx`.
const PROGRAM: &str = "VMOON_LX";

/// Runs `lx` with a tree and a cache in these directories.
fn lx(dir: &Path, tree: &str, server: &str, args: &[&str]) -> (Output, Duration) {
    let below = |name: &str| dir.join(name).to_string_lossy().into_owned();
    let begun = Instant::now();
    let out = Command::new(std::env::var_os(PROGRAM).unwrap_or_default())
        .args([
            "--allow-root",
            "--lua-version",
            "5.1",
            "--server",
            server,
            "--tree",
            &below(tree),
            "--cache-dir",
            &below("cache"),
            "--data-dir",
            &below("data"),
        ])
        .args(args)
        .env("HOME", dir)
        .env("SSL_CERT_FILE", dir.join("certificate.pem"))
        .current_dir(dir)
        .stdin(Stdio::null())
        .output()
        .expect("lx is there: cargo install lux-cli --no-default-features");
    (out, begun.elapsed())
}

fn said(out: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr))
}

/// All files of this name below a directory.
fn found(dir: &Path, name: &str) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => all.extend(found(&path, name)),
            _ if entry.file_name() == name => all.push(path),
            _ => {}
        }
    }
    all
}

fn zipped(mirror: &Mirror) {
    // It takes nothing else.
    mirror.publish_zip("5.1");
    mirror.publish();
}

#[test]
fn lx_beside_us() {
    if std::env::var_os(PROGRAM).is_none() {
        return;
    }
    let (dir, mirror, web) = served(false);
    zipped(&mirror);
    // It asks nobody without TLS.
    let secure = Web::start(dir.path(), true);
    let home = tempfile::tempdir().unwrap();
    fs::write(home.path().join("certificate.pem"), &secure.certificate).unwrap();
    let (version, _) = lx(home.path(), "none", secure.url(), &["--version"]);
    say(said(&version).trim().to_owned());
    let install = |tree: &str, names: &[&str]| {
        let (out, took) = lx(home.path(), tree, secure.url(), &[&["install"], names].concat());
        assert!(out.status.success(), "{names:?}: {}", said(&out));
        took
    };
    let cold = install("t0", &["bxgamma"]);
    let mut warm: Vec<Duration> = (1..6).map(|number| install(&format!("t{number}"), &["bxgamma"])).collect();
    warm.sort();
    let shop = Shop::new();
    let mut ours: Vec<Duration> = (0..6)
        .map(|number| speed::install(&shop, &shop.environment(&format!("e{number}"), LuaVersion::V54), web.url(), &["bxgamma"]).1)
        .collect();
    let first = ours.remove(0);
    ours.sort();
    say(format!(
        "3 Lua rocks: lx {cold:?}, with a warm cache {:?}; vmoon (without the way to its daemon) {first:?}, {:?}",
        warm[2], ours[2]
    ));
    let mut listed: Vec<Duration> = (0..5).map(|_| lx(home.path(), "t0", secure.url(), &["list"]).1).collect();
    listed.sort();
    say(format!("list: lx {:?}", listed[2]));
    // What its lock says can be had from us.
    let lock = found(&home.path().join("t0"), "lux.lock").pop().expect("lx writes a lock");
    let import = import_lux(&fs::read(lock).unwrap()).unwrap();
    let pins: Vec<String> = import.pins.iter().map(ToString::to_string).collect();
    say(format!("its lock: {}; {}", pins.join(", "), import.notes.join("; ")));
    assert_eq!(pins, ["bxbeta == 1.0-1", "bxgamma == 0.3-1"]);
    // Already of three rocks that fit together it takes one in two versions.
    assert!(import.notes.iter().any(|note| note.contains("bxalpha in versions 1.0-1, 1.1-1")), "{:?}", import.notes);
    // Two rocks that cannot be together: one version of each is what `require` can find. It keeps both.
    let (out, _) = lx(home.path(), "both", secure.url(), &["install", "bxdelta"]);
    let versions = found(&home.path().join("both"), "bxalpha.lua").len();
    say(format!(
        "a rock that needs bxalpha >= 2.0 and another that needs < 2.0: lx ends with {:?} and {versions} versions",
        out.status.code()
    ));
}
