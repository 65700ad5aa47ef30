//! Output that nobody reads: the ring, the spill file, waiting, dropping, and a full disk.

use crate::client::{Client, Holder, Options};
use vmoon_core::frame::tag;

/// Prints lines of 100 bytes that tell their number.
fn flood(lines: usize) -> String {
    format!("for i = 1, {lines} do io.write(('%099d\\n'):format(i)) end")
}

fn check_lines(out: &[u8], lines: usize) {
    assert_eq!(out.len(), lines * 100);
    for (index, line) in out.chunks(100).enumerate() {
        let number: usize = std::str::from_utf8(&line[..99]).unwrap().parse().unwrap();
        assert!(number == index + 1 && line[99] == b'\n', "line {index}");
    }
}

/// Starts a flood and leaves before it is read; gives back its number and the offset behind its ACCEPTED frame.
fn start_and_leave(holder: &Holder, code: &str) -> (u64, u64) {
    let mut client = holder.client(0);
    let id = client.eval(code);
    assert_eq!(client.next().tag, tag::ACCEPTED);
    (id, client.at)
}

/// Waits until the holder runs nothing, without reading its stream.
fn settled(holder: &Holder) -> Client {
    loop {
        let client = holder.client(0);
        if client.hello.running.is_none() {
            return client;
        }
        std::thread::yield_now();
    }
}

/// Waits until the ring and spill files do not change any more while the command runs: the VM waits.
fn stuck(pid: i32) {
    let written = || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let fields: Vec<String> = stat.rsplit(')').next().unwrap().split_whitespace().map(str::to_owned).collect();
        (fields[0].clone(), fields[11].clone(), fields[12].clone())
    };
    // The main thread sleeps, and its processor time stands still for a hundred observations over real work of ours.
    let (mut before, mut same) = (written(), 0);
    while same < 200 {
        for _ in 0..200 {
            std::thread::yield_now();
        }
        let now = written();
        same = if now == before && now.0 == "S" { same + 1 } else { 0 };
        before = now;
    }
}

#[test]
fn a_hundred_megabytes_wait_for_their_reader() {
    let holder = Holder::new();
    let lines = 1_000_000;
    let (id, at) = start_and_leave(&holder, &flood(lines));
    let mut client = holder.client(at);
    // Half is read by one client, which dies; the rest by the next one.
    let (mut out, mut acked) = (Vec::new(), at);
    while out.len() < 40_000_000 {
        let heard = client.next();
        assert_eq!(heard.tag, tag::STDOUT);
        out.extend_from_slice(&heard.payload);
        // Well before the ring is full, or both would wait for each other.
        if client.at - acked > 200_000 {
            acked = client.at;
            client.ack();
        }
    }
    let at = client.at;
    drop(client);
    let mut client = holder.client(at);
    let (rest, lost, _) = client.drain_output(id);
    out.extend_from_slice(&rest);
    assert_eq!(lost, 0);
    check_lines(&out, lines);
    assert_eq!(client.value("1"), "1");
    assert_eq!(std::fs::metadata(holder.life().join("spill")).map_or(0, |file| file.len()), 0, "the spill file was not given back");
}

#[test]
fn nothing_is_lost_while_nobody_reads_at_all() {
    let holder = Holder::new();
    let lines = 1_000_000;
    let mut client = holder.client(0);
    let id = client.eval(flood(lines));
    let heard = client.next();
    assert_eq!(heard.tag, tag::ACCEPTED);
    drop(client);
    holder_idle_without_client(&holder);
    let mut client = holder.client(0);
    assert_eq!((client.hello.running, client.hello.lost), (None, 0));
    let (out, lost, _) = client.drain_output(id);
    assert_eq!(lost, 0);
    check_lines(&out, lines);
}

/// Waits until the main thread is idle: it then sleeps in poll and its time stands still.
fn holder_idle_without_client(holder: &Holder) {
    stuck(holder.process.pid);
}

#[test]
fn beyond_the_cap_one_exact_gap_is_told() {
    let holder = Holder::with(&Options { spill: 5 << 20, ..Options::default() });
    let lines = 200_000;
    let (id, at) = start_and_leave(&holder, &flood(lines));
    holder_idle_without_client(&holder);
    let mut client = holder.client(at);
    assert_eq!(client.hello.running, None);
    let end = client.hello.end;
    let (out, lost, gaps) = client.drain_output(id);
    assert_eq!(gaps, 1);
    assert!(lost > 10_000_000 && lost == client.hello.lost, "{lost}");
    let whole = out.len() / 100;
    check_lines(&out[..whole * 100], whole);
    assert_eq!(client.at, end, "the gap's length does not fit");
    // Whoever reads is not dropped from.
    let id = client.eval(flood(lines));
    let (out, lost, _) = client.drain_output(id);
    assert_eq!(lost, 0);
    check_lines(&out, lines);
}

#[test]
fn drop_loses_output_but_no_answer() {
    let holder = Holder::with(&Options { overflow: "drop", ring: 256 << 10, ..Options::default() });
    let mut client = holder.client(0);
    let ids: Vec<u64> = (0..20).map(|_| client.eval(flood(10_000) + " return 'kept'")).collect();
    let mut accepted = 0;
    while accepted < ids.len() {
        accepted += usize::from(client.next().tag == tag::ACCEPTED);
    }
    let at = client.at;
    drop(client);
    holder_idle_without_client(&holder);
    let mut client = holder.client(at);
    let mut values = 0;
    loop {
        let heard = client.next();
        values += usize::from(heard.tag == tag::VALUES && heard.text() == "kept");
        if heard.tag == tag::DONE && Some(&heard.id) == ids.last() {
            break;
        }
    }
    assert!(values >= 19, "{values} of 20 answers");
    assert!(client.hello.lost > 1_000_000);
    assert_eq!(client.at, client.hello.end);
}

#[test]
fn wait_waits_and_loses_nothing() {
    let holder = Holder::with(&Options { overflow: "wait", ..Options::default() });
    let lines = 100_000;
    let (id, at) = start_and_leave(&holder, &flood(lines));
    stuck(holder.process.pid);
    let mut client = holder.client(at);
    assert_eq!(client.hello.running, Some(id));
    let (out, lost, _) = client.drain_output(id);
    assert_eq!(lost, 0);
    check_lines(&out, lines);
}

#[test]
fn a_full_disk_makes_the_program_wait() {
    // The file size limit stands for the disk: write fails in the same way, with EFBIG instead of ENOSPC.
    let holder = Holder::with(&Options { shell: Some("ulimit -f 8192".into()), ..Options::default() });
    let lines = 100_000;
    let (id, at) = start_and_leave(&holder, &flood(lines));
    stuck(holder.process.pid);
    let mut client = holder.client(at);
    assert_eq!(client.hello.running, Some(id), "it should wait");
    let (out, lost, _) = client.drain_output(id);
    assert_eq!(lost, 0);
    check_lines(&out, lines);
}

/// A holder whose directory is a file system of its own, which can be filled.
struct SmallDisk {
    child: std::process::Child,
    /// Its directory, as it is seen through the holder's own view of the file system.
    life: std::path::PathBuf,
    pid: i32,
    _dir: tempfile::TempDir,
}

impl SmallDisk {
    /// A tmpfs of so many MiB in a mount namespace of its own.
    fn new(size: u32) -> Self {
        let available = std::process::Command::new("unshare").args(["-Urm", "true"]).status().is_ok_and(|status| status.success());
        assert!(available, "this test needs unshare(1) with user namespaces: apt install util-linux");
        let dir = tempfile::tempdir().unwrap();
        let life = dir.path().join("life");
        std::fs::create_dir(&life).unwrap();
        let script = format!(
            "mount -t tmpfs -o size={size}m tmpfs {life} && echo '{start}' > {life}/start.json && {host} {life} > {dir}/out 2>&1",
            life = life.display(),
            dir = dir.path().display(),
            host = crate::client::HOST,
            start = serde_json::json!({
                "own": {
                    "machine": "01890000-0000-7000-8000-000000000001", "life": 1, "work": dir.path(), "overflow": "spill",
                    "ring": 1 << 20, "spill": 256 << 20, "grace_ms": 1000,
                },
                "shape": { "runtime": "builtin" },
            })
        );
        let mut child = std::process::Command::new("unshare").args(["-Urm", "--kill-child", "sh", "-c", &script]).spawn().unwrap();
        let (pid, seen) = loop {
            let children =
                std::fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
            let wanted = life.as_os_str().as_encoded_bytes();
            let found = children.into_iter().find(|pid| {
                let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                line.starts_with(crate::client::HOST.as_bytes()) && line.windows(wanted.len()).any(|part| part == wanted)
            });
            if let Some(pid) = found {
                let seen = std::path::PathBuf::from(format!("/proc/{pid}/root{}", life.display()));
                if seen.join("meta.json").exists() {
                    break (pid, seen);
                }
            }
            assert!(child.try_wait().unwrap().is_none(), "{}", std::fs::read_to_string(dir.path().join("out")).unwrap_or_default());
            std::thread::yield_now();
        };
        Self { child, life: seen, pid, _dir: dir }
    }

    fn client(&self, from: u64) -> Client {
        Client::at_path(&self.life, from)
    }

    /// Takes all the space that is left.
    fn fill(&self) {
        use std::io::Write as _;
        let mut file = std::fs::File::create(self.life.join("filler")).unwrap();
        for size in [4096, 1] {
            while file.write_all(&vec![0; size]).is_ok() {}
        }
    }

    fn make_room(&self) {
        std::fs::remove_file(self.life.join("filler")).unwrap();
    }

    fn end(&mut self, mut client: Client) {
        client.send(tag::QUIT, 0, b"");
        while client.try_next().is_some() {}
        self.child.wait().unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // It takes the holder along.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_really_full_disk_makes_the_program_wait() {
    let mut disk = SmallDisk::new(3);
    let lines = 100_000;
    let mut client = disk.client(0);
    let id = client.eval(flood(lines));
    assert_eq!(client.next().tag, tag::ACCEPTED);
    let at = client.at;
    drop(client);
    // The disk is full when the spill file has stopped growing.
    let spilled = || std::fs::metadata(disk.life.join("spill")).map_or(0, |file| file.len());
    let (mut before, mut same) = (0, 0);
    while before == 0 || same < 20_000 {
        std::thread::yield_now();
        let now = spilled();
        same = if now == before { same + 1 } else { 0 };
        before = now;
    }
    assert!(before < 3 << 20, "{before}");
    let mut client = disk.client(at);
    assert_eq!(client.hello.running, Some(id), "it should wait");
    let (out, lost, _) = client.drain_output(id);
    assert_eq!(lost, 0);
    check_lines(&out, lines);
    disk.end(client);
}

/// The ring has only its beginning when the disk fills, and takes the rest when there is room again: nothing is lost, and no frame is there in part.
#[test]
fn a_ring_that_cannot_grow_makes_the_program_wait_until_it_can() {
    // Where the ring ends falls into another part of a frame each time.
    for before in [0, 1, 90, 97, 102, 107] {
        let mut disk = SmallDisk::new(3);
        let mut client = disk.client(0);
        client.run(format!("io.write(('x'):rep({before}))"));
        disk.fill();
        let lines = 3_000;
        let id = client.eval(format!("{} return 'over'", flood(lines)));
        stuck(disk.pid);
        disk.make_room();
        let (out, lost, _) = client.drain_output(id);
        assert_eq!(lost, 0);
        check_lines(&out, lines);
        assert_eq!(client.value("6 * 7"), "42");
        disk.end(client);
    }
}

/// The same where the program has said all it had to say, and what goes with the room is only its answer.
#[test]
fn a_command_that_ends_on_a_full_disk_is_answered_when_there_is_room() {
    let mut disk = SmallDisk::new(3);
    let mut client = disk.client(0);
    disk.fill();
    let id = client.eval("return ('x'):rep(300 * 1024)");
    stuck(disk.pid);
    disk.make_room();
    client.drain_output(id);
    assert_eq!(client.value("6 * 7"), "42");
    disk.end(client);
}

#[test]
fn a_client_that_does_not_read_slows_the_program_and_loses_nothing() {
    let holder = Holder::new();
    let lines = 200_000;
    let mut client = holder.client(0);
    let id = client.eval(flood(lines));
    stuck(holder.process.pid);
    // Interrupting what waits for its reader does not kill it.
    let (out, lost, _) = client.drain_output(id);
    assert_eq!(lost, 0);
    check_lines(&out, lines);
    drop(client);
    assert!(settled(&holder).hello.lost == 0);
}
