//! A machine attacks the vmoon that runs it: with a C module loaded, through the real daemon, it tries for the daemon's store and socket, for the
//! directories, sockets and processes of others, and for all memory and all processes there are. `crates/confine` has the table of what the kernel
//! stops; here the targets are the real ones.

use super::home::Home;
use std::{
    os::unix::fs::FileTypeExt as _,
    path::{Path, PathBuf},
    process::Command,
};

/// What the attacker can do that Lua cannot.
const MODULE: &str = r#"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
typedef struct lua_State lua_State;
typedef long long lua_Integer;
extern const char *luaL_checklstring(lua_State *, int, size_t *);
extern lua_Integer luaL_checkinteger(lua_State *, int);
extern void lua_pushinteger(lua_State *, lua_Integer);
extern void lua_pushcclosure(lua_State *, int (*)(lua_State *), int);
extern void lua_createtable(lua_State *, int, int);
extern void lua_setfield(lua_State *, int, const char *);

/* Each gives 0 if it succeeded, else the error. */
static int result(lua_State *L, long failed) { lua_pushinteger(L, failed ? errno : 0); return 1; }
static int open_read(lua_State *L) { int fd = open(luaL_checklstring(L, 1, NULL), O_RDONLY); long bad = fd < 0; if (!bad) close(fd); return result(L, bad); }
static int open_write(lua_State *L) { int fd = open(luaL_checklstring(L, 1, NULL), O_WRONLY); long bad = fd < 0; if (!bad) close(fd); return result(L, bad); }
static int make(lua_State *L) { int fd = open(luaL_checklstring(L, 1, NULL), O_CREAT | O_EXCL | O_WRONLY, 0600); long bad = fd < 0; if (!bad) close(fd); return result(L, bad); }
static int drop(lua_State *L) { return result(L, unlink(luaL_checklstring(L, 1, NULL)) < 0); }
static int meet(lua_State *L) {
  struct sockaddr_un to = { .sun_family = AF_UNIX };
  int kinds[] = { SOCK_STREAM, SOCK_SEQPACKET, SOCK_DGRAM };
  strncpy(to.sun_path, luaL_checklstring(L, 1, NULL), sizeof to.sun_path - 1);
  for (int i = 0; i < 3; i++) {
    int fd = socket(AF_UNIX, kinds[i], 0);
    if (fd >= 0 && connect(fd, (void *)&to, sizeof to) == 0) { errno = 0; return result(L, 0); }
    if (fd >= 0) { int why = errno; close(fd); errno = why; }
  }
  return result(L, 1);
}
static int hit(lua_State *L) { return result(L, kill((pid_t)luaL_checkinteger(L, 1), (int)luaL_checkinteger(L, 2)) < 0); }
static int forks(lua_State *L) {
  lua_Integer made = 0;
  for (int i = 0; i < 1000; i++) { pid_t pid = fork(); if (pid == 0) { pause(); _exit(0); } if (pid < 0) break; made++; }
  lua_pushinteger(L, made);
  return 1;
}
/* MiB that could be had and written to. */
static int hoard(lua_State *L) {
  lua_Integer got = 0;
  while (got < 4096) { void *p = malloc(1 << 20); if (!p) break; memset(p, 1, 1 << 20); got++; }
  lua_pushinteger(L, got);
  return 1;
}
int luaopen_attack(lua_State *L) {
  lua_createtable(L, 0, 8);
#define SET(name) lua_pushcclosure(L, name, 0); lua_setfield(L, -2, #name)
  SET(open_read); SET(open_write); SET(make); SET(drop); SET(meet); SET(hit); SET(forks); SET(hoard);
  return 1;
}
"#;

/// A home with the module, a victim with a state, and an attacker that has loaded the module.
struct Stage {
    home: Home,
    modules: PathBuf,
}

impl Stage {
    fn new(profile: &[&str]) -> Self {
        let home = Home::new();
        let modules = home.path("modules");
        std::fs::create_dir(&modules).unwrap();
        std::fs::write(modules.join("attack.c"), MODULE).unwrap();
        let done = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-o"])
            .args([modules.join("attack.so"), modules.join("attack.c")])
            .output()
            .expect("cc is needed: apt install gcc libc6-dev");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        let this = Self { home, modules };
        this.home.run(&["create", "victim", "--start", "-q"]).ok();
        this.home.run(&["eval", "victim", "secret = 42; io.open('note', 'w'):write('of the victim'):close()"]).ok();
        this.attacker("attacker", profile);
        this
    }

    fn attacker(&self, name: &str, more: &[&str]) {
        let read = self.modules.to_str().unwrap();
        let grant: &[&str] = if more.contains(&"trusted") { &[] } else { &["--read", read] };
        self.home.run(&[&["create", name, "--start", "-q"], grant, more].concat()).ok();
        let load = format!("package.cpath = '{read}/?.so' attack = require 'attack'");
        self.home.run(&["eval", name, &load]).ok();
    }

    /// What an expression of the attacker gives.
    #[track_caller]
    fn attack(&self, code: &str) -> String {
        self.home.run(&["eval", "attacker", &format!("return {code}")]).ok().trim().to_owned()
    }

    /// The attack is stopped: it gives an error that is none of a target that is not there.
    #[track_caller]
    fn stopped(&self, what: &str, target: &Path) {
        let errno = self.attack(&format!("attack.{what}([[{}]])", target.display()));
        assert!(!["0", "2", "20", "111"].contains(&errno.as_str()), "{what} {}: {errno}", target.display());
    }

    /// Whatever was tried, everybody else goes on.
    #[track_caller]
    fn unharmed(self) {
        assert_eq!(self.home.run(&["eval", "victim", "return secret, io.open('note'):read('a')"]).ok().trim(), "42\tof the victim");
        self.home.end();
    }
}

/// Files and sockets below a directory.
fn walk(dir: &Path, files: &mut Vec<PathBuf>, sockets: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap().flatten() {
        let kind = entry.file_type().unwrap();
        match (kind.is_dir(), kind.is_socket()) {
            (true, _) => walk(&entry.path(), files, sockets),
            (_, true) => sockets.push(entry.path()),
            _ if kind.is_file() => files.push(entry.path()),
            _ => {}
        }
    }
}

#[test]
fn nothing_of_the_daemon_or_of_another_machine_can_be_opened() {
    let stage = Stage::new(&[]);
    let (mut files, mut sockets) = (Vec::new(), Vec::new());
    walk(&stage.home.path("state"), &mut files, &mut sockets);
    walk(&stage.home.path("run"), &mut files, &mut sockets);
    let named = |name: &str| files.iter().chain(&sockets).any(|path| path.ends_with(name));
    for name in ["vmoon.db", "daemon.lock", "machine.json", "meta.json", "ring", "note", "sock", "api.sock"] {
        assert!(named(name), "{name} is not where it is looked for: {files:?} {sockets:?}");
    }
    for file in &files {
        stage.stopped("open_read", file);
        stage.stopped("open_write", file);
    }
    for file in [stage.home.path("state/vmoon/vmoon.db"), stage.home.path("state/vmoon/daemon.lock")] {
        stage.stopped("drop", &file);
    }
    for dir in ["state/vmoon", "state/vmoon/lua", "state/vmoon/clones", "run", "run/vmoon"] {
        stage.stopped("make", &stage.home.path(dir).join("planted"));
    }
    for socket in &sockets {
        stage.stopped("meet", socket);
        stage.stopped("drop", socket);
    }
    stage.unharmed();
}

#[test]
fn no_process_of_vmoon_can_be_hit() {
    let stage = Stage::new(&[]);
    let others: Vec<_> = stage.home.processes();
    // The daemon, the zygote, the victim, and the attacker itself.
    assert!(others.len() >= 4, "{others:?}");
    let me = stage.home.json(&["show", "attacker"]).ok();
    let me: serde_json::Value = serde_json::from_str(&me).unwrap();
    let me = me["facts"]["pid"].as_i64().unwrap();
    for (pid, line) in others.iter().filter(|(pid, _)| i64::from(*pid) != me) {
        for signal in [libc::SIGKILL, libc::SIGSTOP, libc::SIGTERM, 0] {
            let errno = stage.attack(&format!("attack.hit({pid}, {signal})"));
            assert_ne!(errno, "0", "signal {signal} reached {line}");
        }
    }
    // All at once, and its own group.
    for pid in [-1, 0] {
        let errno = stage.attack(&format!("attack.hit({pid}, 0)"));
        assert_ne!(errno, "0", "kill({pid})");
    }
    stage.unharmed();
}

#[test]
fn the_attacks_are_real_where_nothing_stops_them() {
    let stage = Stage::new(&["--profile", "trusted"]);
    let show: serde_json::Value = serde_json::from_str(&stage.home.json(&["show", "victim"]).ok()).unwrap();
    let store = stage.home.path("state/vmoon/vmoon.db");
    assert_eq!(stage.attack(&format!("attack.open_read([[{}]])", store.display())), "0");
    assert_eq!(stage.attack(&format!("attack.meet([[{}]])", stage.home.path("run/vmoon/api.sock").display())), "0");
    assert_eq!(stage.attack(&format!("attack.hit({}, 0)", show["facts"]["pid"])), "0");
    assert_eq!(stage.attack("attack.forks()"), "1000");
    stage.unharmed();
}

#[test]
fn bombs_end_with_the_machine_that_throws_them() {
    let stage = Stage::new(&["--memory", "64MiB"]);
    assert_eq!(stage.attack("attack.forks()"), "0");
    // Beyond what Lua's own limit counts: the kernel's is behind it.
    let ran = stage.home.run(&["eval", "attacker", "return attack.hoard()"]);
    if ran.code == 0 {
        let got: u64 = ran.out.trim().parse().unwrap();
        assert!(got < 1024, "{got} MiB were had by a machine that may use 64");
    }
    stage.unharmed();
}
