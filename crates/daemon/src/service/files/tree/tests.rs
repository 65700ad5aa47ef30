//! Hostile directories: links, ways out, things that are no files, and somebody who swaps them while we look.

use super::*;
use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    sync::atomic::{AtomicBool, Ordering},
};

struct Box_ {
    _dir: tempfile::TempDir,
    work: std::path::PathBuf,
    root: OwnedFd,
}

/// A work directory beside a secret that must never be seen.
fn work() -> Box_ {
    let dir = tempfile::tempdir().unwrap();
    let work = dir.path().join("work");
    fs::create_dir(&work).unwrap();
    fs::write(dir.path().join("secret"), "secret").unwrap();
    fs::create_dir(dir.path().join("out")).unwrap();
    fs::write(dir.path().join("out/x"), "secret").unwrap();
    let root = rustix::fs::open(&work, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
    Box_ { _dir: dir, work, root }
}

fn content(fd: OwnedFd) -> String {
    std::io::read_to_string(fs::File::from(fd)).unwrap()
}

fn code<T>(result: Result<T>) -> Code {
    result.err().expect("must be refused").code()
}

#[test]
fn paths_become_plain_or_are_refused() {
    assert_eq!(plain(b"./a//b/./c/").unwrap(), b"a/b/c");
    assert_eq!(plain(b"").unwrap(), b"");
    assert_eq!(plain(b"...").unwrap(), b"...");
    for bad in [&b"/etc/passwd"[..], b"../secret", b"a/../../secret", b"a/..", b"a\0b", &[b'x'; 5_000]] {
        assert_eq!(code(plain(bad)), Code::FileRefused, "{}", String::from_utf8_lossy(bad));
    }
}

#[test]
fn links_and_special_files_are_refused_whatever_they_point_to() {
    let b = work();
    fs::write(b.work.join("file"), "inside").unwrap();
    symlink("../secret", b.work.join("up")).unwrap();
    symlink("/etc/passwd", b.work.join("absolute")).unwrap();
    symlink("file", b.work.join("harmless")).unwrap();
    symlink("../out", b.work.join("dir")).unwrap();
    symlink("/proc/self/root", b.work.join("magic")).unwrap();
    rustix::fs::mknodat(CWD, b.work.join("fifo"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    let _listener = std::os::unix::net::UnixListener::bind(b.work.join("socket")).unwrap();
    for name in ["up", "absolute", "harmless", "dir/x", "magic/etc/passwd", "fifo", "socket", "."] {
        let path = plain(name.as_bytes()).unwrap();
        assert_eq!(code(read(b.root.as_fd(), &path)), Code::FileRefused, "{name}");
    }
    // Even a path that was never made plain does not leave.
    for name in ["../secret", "/etc/passwd", "dir/../../secret"] {
        assert!(read(b.root.as_fd(), name.as_bytes()).is_err(), "{name}");
    }
    assert_eq!(code(read(b.root.as_fd(), b"nothing")), Code::FileNotFound);
    assert_eq!(code(read(b.root.as_fd(), b"file/x")), Code::FileNotFound);
    let listed: Vec<(String, FileKind)> = list(b.root.as_fd(), b"").unwrap().into_iter().map(|e| (e.name, e.kind)).collect();
    assert!(listed.contains(&("up".into(), FileKind::Link)) && listed.contains(&("fifo".into(), FileKind::Other)), "{listed:?}");
    assert_eq!(code(list(b.root.as_fd(), b"dir")), Code::FileRefused, "a link to a directory is not listed");
    assert_eq!(content(read(b.root.as_fd(), b"file").unwrap().0), "inside");
}

#[test]
fn writing_follows_no_link_and_keeps_no_setuid() {
    let b = work();
    symlink("../out", b.work.join("dir")).unwrap();
    symlink("../secret", b.work.join("victim")).unwrap();
    fs::create_dir(b.work.join("taken")).unwrap();
    let put = |path: &[u8], mode: u32| -> Result<FileEntry> {
        let mut part = Part::begin(b.root.as_fd(), path)?;
        part.write(b"new")?;
        part.finish(mode)
    };
    assert_eq!(code(put(b"dir/x", 0o644)), Code::FileRefused);
    assert_eq!(code(make(b.root.as_fd(), b"dir/y", 0o755)), Code::FileRefused);
    assert_eq!(code(make(b.root.as_fd(), b"victim", 0o755)), Code::FileExists);
    assert_eq!(code(put(b"taken", 0o644)), Code::FileExists);
    assert_eq!(code(put(b"", 0o644)), Code::FileRefused);
    // The link itself is replaced; what it pointed to is untouched.
    let stored = put(b"victim", 0o7755).unwrap();
    assert_eq!((stored.kind, stored.size, stored.mode), (FileKind::File, 3, 0o755));
    assert_eq!(fs::metadata(b.work.join("victim")).unwrap().permissions().mode() & 0o7777, 0o755);
    assert_eq!(fs::read_to_string(b.work.parent().unwrap().join("secret")).unwrap(), "secret");
    assert_eq!(fs::read_to_string(b.work.parent().unwrap().join("out/x")).unwrap(), "secret");
    assert_eq!(make(b.root.as_fd(), b"taken", 0o755).unwrap().kind, FileKind::Directory, "finding one is as good as making it");
}

#[test]
fn a_file_that_is_given_up_leaves_nothing() {
    let b = work();
    let mut part = Part::begin(b.root.as_fd(), b"x").unwrap();
    part.write(b"half").unwrap();
    assert!(!b.work.join("x").exists() && fs::read_dir(&b.work).unwrap().count() == 1);
    drop(part);
    assert_eq!(fs::read_dir(&b.work).unwrap().count(), 0);
}

/// The machine swaps a directory for a link that leads out, as fast as it can, while its files are asked for.
#[test]
fn swapping_while_we_look_never_shows_what_is_outside() {
    let b = work();
    fs::create_dir(b.work.join("real")).unwrap();
    fs::write(b.work.join("real/x"), "inside").unwrap();
    symlink("../out", b.work.join("link")).unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                // real <-> link, atomically.
                let _ = rustix::fs::renameat_with(CWD, b.work.join("real"), CWD, b.work.join("link"), rustix::fs::RenameFlags::EXCHANGE);
            }
        });
        let (mut inside, mut refused) = (0, 0);
        for _ in 0..20_000 {
            match read(b.root.as_fd(), b"real/x") {
                Ok((fd, _)) => {
                    assert_eq!(content(fd), "inside");
                    inside += 1;
                }
                Err(error) => {
                    assert!(matches!(error.code(), Code::FileRefused | Code::FileNotFound | Code::FileChanged), "{error}");
                    refused += 1;
                }
            }
            if inside > 100 && refused > 100 {
                break;
            }
        }
        stop.store(true, Ordering::Relaxed);
        assert!(inside > 0 && refused > 0, "the race was not run: {inside} {refused}");
    });
}
