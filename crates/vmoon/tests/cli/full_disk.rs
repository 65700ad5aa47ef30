//! A disk that fills under everything vmoon has, and has room again later.

use std::process::Command;

/// On a file system of 32 MiB in a mount namespace of its own, all processes of which end with it.
const SCRIPT: &str = r#"
set -e
mount -t tmpfs -o size=32m tmpfs "$1"
mkdir -p "$1/home"
mkdir -m 700 "$1/run"
export HOME="$1/home" XDG_RUNTIME_DIR="$1/run" XDG_STATE_HOME="$1/state"
fill() { dd if=/dev/zero of="$1/fill" bs=4k 2>/dev/null || true; }
say() { echo "== $1"; }
flood='for i = 1, 3000 do print(("x"):rep(70), i) end return "over"'
"$2" create grown small idle useless --start
"$2" eval grown "$flood" | tail -1
fill "$1"
say full
# The transcript of one cannot be written, the ring of the other cannot grow.
"$2" eval grown "$flood" --timeout 300ms || true
"$2" eval small "$flood" --timeout 300ms || true
"$2" show grown
"$2" doctor || true
"$2" create more --start || true
# What ends machines and takes them away can be done.
"$2" stop idle
"$2" kill useless
"$2" delete useless --yes
# A daemon that was killed comes back.
kill -9 "$(cat "$1/state/vmoon/daemon.lock")"
"$2" list
rm "$1/fill"
say room
"$2" eval grown 'return "grown lives"'
"$2" eval small 'return "small lives"'
"$2" read small | tail -3
"$2" read grown | grep -c '^x'
"$2" create more --start
"$2" delete grown small idle more --force --yes
"$2" list
"#;

#[test]
fn everything_goes_on_when_a_full_disk_has_room_again() {
    let dir = tempfile::tempdir().unwrap();
    let namespaces = ["-Urmpf", "--mount-proc", "--kill-child"];
    let ran = Command::new("unshare")
        .args(namespaces)
        .args(["sh", "-c", SCRIPT, "sh"])
        .arg(dir.path())
        .arg(env!("CARGO_BIN_EXE_vmoon"))
        .output()
        .expect("this test needs unshare(1): apt install util-linux");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&ran.stdout), text(&ran.stderr));
    assert!(ran.status.success(), "{out}\n{err}");
    let (full, room) = out.split_once("== full").unwrap().1.split_once("== room").unwrap();
    assert!(full.contains("its transcript cannot be written"), "{full}");
    assert!(full.contains("KiB free"), "doctor says nothing: {full}");
    let of = |name: &str| full.lines().find(|line| line.starts_with(&format!("{name} "))).map(str::to_owned);
    assert!(of("idle").is_some_and(|line| line.contains("stopped")) && of("useless").is_none(), "{full}\n{err}");
    assert!(err.contains("the store could not be written"), "{err}");
    for word in ["grown lives", "small lives", "x\t3000", "over", "6000"] {
        assert!(room.contains(word), "{word}: {out}\n{err}");
    }
    assert!(!room.contains("gone"), "{room}");
}
