//! Archives as they are, and as somebody who means harm makes them.

use super::*;
use ::zip::{ZipWriter, write::SimpleFileOptions};
use std::io::Cursor;

struct Case {
    dir: tempfile::TempDir,
}

impl Case {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn unpack(&self, name: &str, bytes: &[u8]) -> Result<Vec<PathBuf>> {
        self.unpack_within(name, bytes, Limits::default())
    }

    fn unpack_within(&self, name: &str, bytes: &[u8], limits: Limits) -> Result<Vec<PathBuf>> {
        let file = self.dir.path().join("archive");
        fs::write(&file, bytes).unwrap();
        let into = self.dir.path().join("into");
        let _ = fs::remove_dir_all(&into);
        let result = unpack(&file, name, &into, limits, &Stop::new());
        assert_eq!(into.exists(), result.is_ok(), "{name}: what was refused left something");
        assert_eq!(fs::read_dir(self.dir.path()).unwrap().count(), 1 + usize::from(result.is_ok()), "{name}: something is beside it");
        result
    }

    fn refused(&self, name: &str, bytes: &[u8], why: &str) {
        let error = self.unpack(name, bytes).unwrap_err();
        assert_eq!(error.code(), Code::PackageArchive, "{}", error.chain());
        assert!(error.chain().contains(why), "wanted {why:?}: {}", error.chain());
    }

    fn text(&self, path: &str) -> String {
        fs::read_to_string(self.dir.path().join("into").join(path)).unwrap()
    }
}

enum Entry<'a> {
    File(&'a str, &'a [u8]),
    Directory(&'a str),
    Link(&'a str, &'a str),
    Hard(&'a str, &'a str),
    Kind(&'a str, ::tar::EntryType),
}

/// Headers are filled by hand: the library refuses to write what is tested here.
fn tar_of(entries: &[Entry<'_>]) -> Vec<u8> {
    let mut all = Vec::new();
    for entry in entries {
        let mut header = ::tar::Header::new_gnu();
        let (name, kind, content, link): (&str, _, &[u8], &str) = match entry {
            Entry::File(name, content) => (name, ::tar::EntryType::Regular, content, ""),
            Entry::Directory(name) => (name, ::tar::EntryType::Directory, b"", ""),
            Entry::Link(name, to) => (name, ::tar::EntryType::Symlink, b"", to),
            Entry::Hard(name, to) => (name, ::tar::EntryType::Link, b"", to),
            Entry::Kind(name, kind) => (name, *kind, b"", ""),
        };
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(if name.ends_with(".sh") { 0o4755 } else { 0o600 });
        header.set_size(content.len() as u64);
        header.set_cksum();
        all.extend_from_slice(header.as_bytes());
        all.extend_from_slice(content);
        all.resize(all.len().next_multiple_of(512), 0);
    }
    all.resize(all.len() + 1024, 0);
    all
}

fn gz(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn bz2(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zip_of(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, content) in files {
        writer.start_file(*name, SimpleFileOptions::default()).unwrap();
        writer.write_all(content).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

#[test]
fn every_kind_is_unpacked_with_modes_and_links_that_stay_inside() {
    let case = Case::new();
    let tar = tar_of(&[
        Entry::Directory("./a/"),
        Entry::File("./a/x.lua", b"return 1\n"),
        Entry::File("a/run.sh", b"#!/bin/sh\n"),
        Entry::File("A/x.lua", b"case matters\n"),
        Entry::Link("a/b/link", "../x.lua"),
        Entry::Hard("hard", "a/x.lua"),
    ]);
    for (name, bytes) in [("a.tar", tar.clone()), ("a.tar.gz", gz(&tar)), ("a.TGZ", gz(&tar)), ("a.tar.bz2", bz2(&tar))] {
        let files = case.unpack(name, &bytes).unwrap();
        assert_eq!(files, ["A/x.lua", "a/b/link", "a/run.sh", "a/x.lua", "hard"].map(PathBuf::from), "{name}");
        assert_eq!(
            (case.text("a/b/link"), case.text("hard"), case.text("A/x.lua")),
            ("return 1\n".into(), "return 1\n".into(), "case matters\n".into())
        );
        use std::os::unix::fs::PermissionsExt as _;
        let mode = |path: &str| fs::metadata(case.dir.path().join("into").join(path)).unwrap().permissions().mode() & 0o7777;
        assert_eq!((mode("a/run.sh"), mode("a/x.lua")), (0o755, 0o644), "neither set-user-id nor what was closed");
    }
    let files = case.unpack("x-1.0-1.src.rock", &zip_of(&[("x.rockspec", b"x"), ("d/y", b"y")])).unwrap();
    assert_eq!((files.len(), case.text("d/y")), (2, "y".into()));
    assert_eq!(case.unpack("one.lua", b"return 1").unwrap(), [PathBuf::from("one.lua")]);
    assert!(case.unpack("a.tar.xz", b"").unwrap_err().message().contains("not read here"));
}

#[test]
fn names_that_lead_out_are_refused() {
    let case = Case::new();
    for (name, why) in [
        ("../x", "leads upwards"),
        ("a/../../x", "leads upwards"),
        ("a/..", "leads upwards"),
        ("/etc/passwd", "is absolute"),
        ("a\nb", "control characters"),
        ("", "without a name"),
        (".", "without a name"),
    ] {
        case.refused("a.tar", &tar_of(&[Entry::File("ok", b"1"), Entry::File(name, b"x")]), why);
        case.refused("a.rock", &zip_of(&[("ok", b"1"), (name, b"x")]), if name.is_empty() { "" } else { why });
    }
    case.refused("a.rock", &zip_of(&[("a\0b", b"x")]), "NUL");
    let deep = "d/".repeat(90);
    case.refused("a.rock", &zip_of(&[(&format!("{deep}x"), b"x")]), "directories deep");
}

#[test]
fn names_in_extended_headers_are_looked_at_as_well() {
    let case = Case::new();
    let long = |kind: u8, content: &[u8]| {
        let mut header = ::tar::Header::new_gnu();
        header.as_old_mut().name[..1].copy_from_slice(b"h");
        header.set_entry_type(::tar::EntryType::new(kind));
        header.set_size(content.len() as u64);
        header.set_cksum();
        let mut all = header.as_bytes().to_vec();
        all.extend_from_slice(content);
        all.resize(all.len().next_multiple_of(512), 0);
        all
    };
    let entry = tar_of(&[Entry::File("x", b"1")]);
    case.refused("a.tar", &[long(b'L', b"../../x\0"), entry.clone()].concat(), "leads upwards");
    case.refused("a.tar", &[long(b'L', b"a\0b\0"), entry.clone()].concat(), "NUL");
    case.refused("a.tar", &[long(b'x', b"13 path=../x\n"), entry.clone()].concat(), "leads upwards");
    case.refused("a.tar", &[long(b'x', b"99 path=x\n"), entry.clone()].concat(), "damaged");
    case.refused("a.tar", &[long(b'x', b"25 GNU.sparse.major=1000\n"), entry.clone()].concat(), "sparse");
    case.refused("a.tar", &[long(b'L', &vec![b'a'; 70_000]), entry.clone()].concat(), "too long");
    let files = case.unpack("a.tar", &[long(b'g', b"17 comment=abcde\n"), long(b'x', b"14 path=d/ef\n\n"[..13].as_ref()), entry].concat());
    assert!(files.is_ok() || files.unwrap_err().chain().contains("damaged"));
}

#[test]
fn links_that_lead_out_are_refused() {
    let case = Case::new();
    let file = Entry::File("d/e/f", b"1");
    for (name, to, why) in [
        ("l", "/etc/passwd", "absolute"),
        ("l", "../x", "leads outside"),
        ("d/l", "../../x", "leads outside"),
        ("l", "d/../../x", "from the middle"),
        ("l", "", "no path"),
    ] {
        case.refused("a.tar", &tar_of(&[Entry::File("d/e/f", b"1"), Entry::Link(name, to)]), why);
    }
    // Each is harmless by itself.
    case.refused("a.tar", &tar_of(&[file, Entry::Link("d/e/up", "../.."), Entry::Link("out", "d/e/up/../x")]), "from the middle");
    case.refused("a.tar", &tar_of(&[Entry::Link("l", "d"), Entry::Link("m", "l/x"), Entry::File("d/x", b"1")]), "through another link");
    case.refused("a.tar", &tar_of(&[Entry::Link("l", "d"), Entry::File("l/x", b"1")]), "which is no directory");
    case.refused("a.tar", &tar_of(&[Entry::File("l/x", b"1"), Entry::Link("l", "d")]), "twice");
    case.refused("a.tar", &tar_of(&[Entry::Hard("l", "../../etc/passwd")]), "leads outside");
    case.refused("a.tar", &tar_of(&[Entry::Hard("l", "none")]), "no file of the archive");
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    writer.add_symlink("l", "/etc/passwd", SimpleFileOptions::default()).unwrap();
    case.refused("a.zip", &writer.finish().unwrap().into_inner(), "absolute");
}

#[test]
fn devices_and_what_stands_twice_are_refused() {
    let case = Case::new();
    for kind in [::tar::EntryType::Char, ::tar::EntryType::Block, ::tar::EntryType::Fifo] {
        case.refused("a.tar", &tar_of(&[Entry::Kind("x", kind)]), "device or a pipe");
    }
    case.refused("a.tar", &tar_of(&[Entry::Kind("x", ::tar::EntryType::new(b'Z'))]), "not known");
    case.refused("a.tar", &tar_of(&[Entry::File("x", b"1"), Entry::File("./x", b"2")]), "twice");
    case.refused("a.tar", &tar_of(&[Entry::File("x", b"1"), Entry::File("x/y", b"2")]), "no directory");
    // The names differ by one byte, in both places where they stand; then they are made the same.
    let mut twice = zip_of(&[("name-a", b"1"), ("name-b", b"2")]);
    while let Some(at) = twice.windows(6).position(|window| window == b"name-b") {
        twice[at + 5] = b'a';
    }
    case.refused("a.zip", &twice, "twice");
}

#[test]
fn what_is_cut_or_spoilt_is_refused() {
    let case = Case::new();
    let tar = tar_of(&[Entry::File("x", &[7; 3000]), Entry::File("y", b"1")]);
    for (name, whole) in [("a.tar", tar.clone()), ("a.tgz", gz(&tar)), ("a.tar.bz2", bz2(&tar)), ("a.zip", zip_of(&[("x", &[7; 3000])]))] {
        assert!(case.unpack(name, &whole).is_ok());
        for cut in (0..whole.len()).step_by((whole.len() / 40).max(1)).filter(|cut| name != "a.tar" || *cut < whole.len() - 512) {
            assert!(case.unpack(name, &whole[..cut]).is_err(), "{name} cut at {cut} of {}", whole.len());
        }
        if name != "a.tar" {
            let mut spoilt = whole.clone();
            // In a zip the middle may be a time, which nothing depends on.
            let at = if name == "a.zip" { 33 } else { whole.len() / 2 };
            spoilt[at] ^= 0x55;
            assert!(case.unpack(name, &spoilt).is_err(), "{name} spoilt");
        }
    }
    assert!(case.unpack("a.tar.gz", b"<html>not found</html>").is_err());
    assert!(case.unpack("a.rock", b"<html>not found</html>").is_err());
}

#[test]
fn bombs_do_not_go_off() {
    let case = Case::new();
    let limits = Limits { entries: 10, total: 1 << 20, ratio: 10, free: 64 << 10 };
    let zeros = vec![0; 300 << 10];
    for (name, bytes) in [
        ("a.tgz", gz(&tar_of(&[Entry::File("x", &zeros)]))),
        ("a.tar.bz2", bz2(&tar_of(&[Entry::File("x", &zeros)]))),
        ("a.zip", zip_of(&[("x", &zeros)])),
    ] {
        let error = case.unpack_within(name, &bytes, limits).unwrap_err();
        assert!(error.message().contains("bomb"), "{name}: {}", error.message());
    }
    let names: Vec<String> = (0..11).map(|number| number.to_string()).collect();
    let many: Vec<(&str, &[u8])> = names.iter().map(|name| (name.as_str(), &b""[..])).collect();
    assert!(case.unpack_within("a.zip", &zip_of(&many), limits).unwrap_err().message().contains("more than 10"));
    let many: Vec<Entry<'_>> = names.iter().map(|name| Entry::File(name, b"")).collect();
    assert!(case.unpack_within("a.tar", &tar_of(&many), limits).unwrap_err().message().contains("more than 10"));
    // What follows the end mark is decompressed for its check sum, but not without end.
    let padded = [tar_of(&[Entry::File("x", b"1")]), zeros].concat();
    assert!(case.unpack_within("a.tgz", &gz(&padded), limits).unwrap_err().message().contains("bomb"));
}
