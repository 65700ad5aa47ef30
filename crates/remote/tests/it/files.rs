//! Files of a host, both ways: sizes, names, links, what is refused, and cuts.

use crate::lab::{Lab, Reach as _, Tools};
use std::os::unix::{
    ffi::OsStrExt as _,
    fs::{PermissionsExt as _, symlink},
};
use vmoon_core::{
    Code,
    ability::{FileFacts, FileKind},
};
use vmoon_remote::HostFiles;

async fn put(files: &HostFiles, path: &[u8], bytes: &[u8], mode: u32) -> vmoon_core::Result<FileFacts> {
    let mut sink = files.put(path, mode).await?;
    for piece in bytes.chunks(300_000) {
        sink.write(piece).await?;
    }
    sink.finish().await
}

async fn get(files: &HostFiles, path: &[u8]) -> vmoon_core::Result<Vec<u8>> {
    let (facts, mut source) = files.get(path).await?;
    let mut all = Vec::new();
    while let Some(piece) = source.next().await? {
        all.extend_from_slice(&piece);
    }
    assert_eq!(facts.size, all.len() as u64);
    Ok(all)
}

fn noise(length: usize) -> Vec<u8> {
    let mut state = 1_u32;
    (0..length)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        })
        .collect()
}

#[tokio::test]
async fn files_of_every_size_and_name_go_there_and_back() {
    let lab = Lab::new(Tools::BusyBox, "lua5.4").await;
    let files = HostFiles::new(lab.host());
    let dir = lab.path().join("data");
    // A relative path begins in the login's home.
    assert_eq!(files.make_directory(b"data", 0o750).await.expect("a directory").mode, 0o750);
    assert_eq!(files.make_directory(b"data", 0o700).await.expect("the same").kind, FileKind::Directory);
    for size in [0, 1, 32 << 10, (32 << 10) + 1, 3_000_001] {
        let bytes = noise(size);
        let facts = put(&files, b"data/f", &bytes, 0o640).await.expect("a copy");
        assert_eq!((facts.size, facts.mode, facts.name.as_slice()), (size as u64, 0o640, &b"f"[..]));
        assert!(std::fs::read(dir.join("f")).expect("the file") == bytes, "{size}");
        assert!(get(&files, dir.join("f").as_os_str().as_bytes()).await.expect("it back") == bytes, "{size}");
    }
    for name in ["a b", "näme\n", "-rf", "$(x)`y`", "*?[", "'\"\\", "x".repeat(255).as_str()] {
        let path = [b"data/", name.as_bytes()].concat();
        put(&files, &path, name.as_bytes(), 0o600).await.expect(name);
        assert_eq!(get(&files, &path).await.expect(name), name.as_bytes());
    }
    let listed = files.list(b"data").await.expect("a list");
    assert_eq!(listed.len(), 8, "nothing is left of what was under way: {listed:?}");
    assert!(listed.is_sorted_by(|a, b| a.name < b.name));
    assert_eq!(files.look(b"").await.expect("home").kind, FileKind::Directory);
}

#[tokio::test]
async fn what_cannot_be_copied_is_refused_as_everywhere() {
    let lab = Lab::new(Tools::BusyBox, "lua5.4").await;
    let files = HostFiles::new(lab.host());
    let dir = lab.path();
    std::fs::write(dir.join("real"), "text").expect("a file");
    symlink("real", dir.join("link")).expect("a link");
    symlink("nowhere", dir.join("broken")).expect("a link");
    let fifo = dir.join("fifo");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0).expect("a fifo");
    // A link that is named is followed; in a list it is a link.
    assert_eq!(get(&files, b"link").await.expect("what it leads to"), b"text");
    let listed = files.list(b".").await.expect("a list");
    assert_eq!(listed.iter().find(|entry| entry.name == b"link").map(|entry| entry.kind), Some(FileKind::Link));
    // It is replaced, not written through.
    put(&files, b"link", b"new", 0o600).await.expect("a copy");
    assert!(std::fs::read(dir.join("real")).expect("the file") == b"text" && !dir.join("link").is_symlink());
    for (path, code) in [
        (&b"none"[..], Code::FileNotFound),
        (b"broken", Code::FileNotFound),
        (b"real/x", Code::FileNotFound),
        (b"fifo", Code::FileRefused),
        (b"bin", Code::FileRefused),
        (b"a\0b", Code::FileRefused),
        (b"\xff", Code::FileRefused),
        (&[b'x'; 5_000], Code::FileRefused),
    ] {
        assert_eq!(get(&files, path).await.expect_err("refused").code(), code, "{}", path.escape_ascii());
    }
    for (path, code) in [
        (&b"none/x"[..], Code::FileNotFound),
        (b"bin", Code::FileExists),
        (b"..", Code::FileRefused),
        (b"bin/", Code::FileRefused),
        (&[b'x'; 300], Code::FileRefused),
    ] {
        assert_eq!(put(&files, path, b"x", 0o600).await.expect_err("refused").code(), code, "{}", path.escape_ascii());
    }
    assert_eq!(files.make_directory(b"real", 0o700).await.expect_err("taken").code(), Code::FileExists);
    assert_eq!(files.make_directory(b"none/x", 0o700).await.expect_err("no parent").code(), Code::FileNotFound);
    assert_eq!(files.list(b"real").await.expect_err("no directory").code(), Code::FileRefused);
    let left: Vec<_> = crate::lab::walk(dir).into_iter().filter(|path| path.to_string_lossy().contains("vmoon-part")).collect();
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(std::fs::metadata(dir.join("link")).expect("the file").permissions().mode() & 0o777, 0o600);
}

#[tokio::test]
async fn a_cut_leaves_nothing_under_the_name_and_the_next_copy_works() {
    let lab = Lab::new(Tools::BusyBox, "lua5.4").await;
    let files = HostFiles::new(lab.host());
    put(&files, b"f", b"old", 0o600).await.expect("a copy");
    for after in [100_000, 700_000] {
        lab.cut_after(after);
        let error = put(&files, b"f", &noise(2_000_000), 0o600).await.expect_err("cut");
        assert_eq!(error.code(), Code::DriverUnreachable, "{error}");
        assert_eq!(std::fs::read(lab.path().join("f")).expect("the old one"), b"old");
        assert_eq!(get(&files, b"f").await.expect("connected again"), b"old");
    }
    // A file that shrinks while it comes says so.
    std::fs::write(lab.path().join("big"), noise(4_000_000)).expect("a file");
    let (_, mut source) = files.get(b"big").await.expect("a file");
    source.next().await.expect("a piece");
    std::fs::write(lab.path().join("big"), b"").expect("a file");
    let error = loop {
        match source.next().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("not all of it came"),
            Err(error) => break error,
        }
    };
    assert_eq!(error.code(), Code::FileChanged);
    // One that is given up has gone from the host, too.
    let mut sink = files.put(b"g", 0o600).await.expect("a file");
    sink.write(b"x").await.expect("a byte");
    drop(sink);
    for _ in 0..200 {
        let listed = files.list(b".").await.expect("a list");
        if !listed.iter().any(|entry| entry.name.starts_with(b".vmoon-part") || entry.name == b"g") {
            return;
        }
    }
    // What the cuts have left is removed by nobody but its owner.
    let left = files.list(b".").await.expect("a list");
    assert!(left.iter().filter(|entry| entry.name.starts_with(b".vmoon-part")).count() <= 2, "{left:?}");
}

#[tokio::test]
async fn a_host_without_sftp_says_what_its_sshd_needs() {
    let lab = Lab::with(Tools::BusyBox, "lua5.4", "Match all\nForceCommand false").await;
    let files = HostFiles::new(lab.host());
    let error = files.look(b"x").await.expect_err("no SFTP");
    assert_eq!(error.code(), Code::DriverUnsupported);
    assert!(error.hint_text().is_some_and(|hint| hint.contains("Subsystem sftp")));
}
