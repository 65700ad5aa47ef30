//! A holder started as the driver starts it, and a client on its socket.

use std::{
    fs,
    io::{BufRead, BufReader, ErrorKind, Read, Write},
    os::{fd::AsRawFd, unix::net::UnixStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};
use vmoon_core::frame::{Eval, Failure, FailureKind, Frame, tag};
use vmoon_lua_wire::hello::{ClientHello, HolderHello};

/// The interpreters, named as their packages are.
pub(crate) const INTERPRETERS: [&str; 5] = ["lua5.1", "lua5.2", "lua5.3", "lua5.4", "luajit"];

/// How long anything may take before a test fails.
const LONG: Duration = Duration::from_secs(20);

/// What a command gave.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) out: String,
    pub(crate) err: String,
    pub(crate) values: Option<String>,
    pub(crate) error: Option<(FailureKind, String, String)>,
    pub(crate) incomplete: bool,
    pub(crate) exit: Option<i32>,
}

impl Outcome {
    pub(crate) fn value(&self) -> &str {
        self.values.as_deref().unwrap_or_else(|| panic!("no values: {self:?}"))
    }
}

pub(crate) struct Vm {
    pub(crate) runtime: &'static str,
    pub(crate) hello: HolderHello,
    dir: PathBuf,
    child: Child,
    stream: UnixStream,
    bytes: Vec<u8>,
    next: u64,
    offset: u64,
    acknowledged: u64,
    mark: String,
}

/// What the Lua side is told, from the path of the work directory.
type Lua<'a> = &'a dyn Fn(&str) -> serde_json::Value;

fn launch(runtime: &str, path: &str, grace_ms: u64, lua: Lua<'_>) -> (PathBuf, String, Child) {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let mark = format!("external-test-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(&mark);
    let work = dir.join("work");
    fs::create_dir_all(&work).unwrap();
    let own = serde_json::json!({
        "machine": "0198c0de-0000-7000-8000-000000000001", "life": 1, "work": work, "overflow": "spill",
        "ring": 1 << 20, "spill": 64 << 20, "grace_ms": grace_ms,
    });
    let shape = serde_json::json!({ "runtime": path, "lua": lua(work.to_str().unwrap()) });
    let start = serde_json::json!({ "own": own, "shape": shape });
    fs::write(dir.join("start.json"), start.to_string()).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_vmoon-lua-host"));
    command.arg(&dir).env("VMOON_LIFE", &mark).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().unwrap_or_else(|e| panic!("{runtime}: {e}"));
    (dir, mark, child)
}

impl Vm {
    pub(crate) fn start(runtime: &'static str, grace_ms: u64) -> Self {
        Self::with(runtime, grace_ms, &|_| serde_json::json!({}))
    }

    /// A machine that holds to grants, which are made from the path of its work directory. LuaJIT does not compile there: the
    /// recorder of 2.1.0-beta3 crashes now and then on the odd things that escapes do, trusted or not.
    pub(crate) fn confined(runtime: &'static str, grants: impl Fn(&str) -> serde_json::Value) -> Self {
        let interrupt = if runtime == "luajit" { "hook" } else { "signal" };
        Self::with(runtime, 1_000, &|work| serde_json::json!({ "grants": grants(work), "interrupt": interrupt }))
    }

    pub(crate) fn with(runtime: &'static str, grace_ms: u64, lua: Lua<'_>) -> Self {
        let mut dirs = ["/usr/bin", "/usr/local/bin", "/bin"].iter().map(|dir| format!("{dir}/{runtime}"));
        let path = if runtime == "builtin" { Some(runtime.to_owned()) } else { dirs.find(|path| fs::metadata(path).is_ok()) };
        let path = path.unwrap_or_else(|| panic!("{runtime} is missing: install it with `apt-get install {runtime}`"));
        let (dir, mark, mut child) = launch(runtime, &path, grace_ms, lua);
        let mut ready = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut ready).unwrap();
        if ready != "ready\n" {
            let mut error = String::new();
            child.stderr.take().unwrap().read_to_string(&mut error).unwrap();
            panic!("{runtime}: the holder did not start: {error}");
        }
        let meta: serde_json::Value = serde_json::from_slice(&fs::read(dir.join("meta.json")).unwrap()).unwrap();
        // Through a descriptor: the path may be longer than a socket address.
        let folder = fs::File::open(&dir).unwrap();
        let mut stream = UnixStream::connect(format!("/proc/self/fd/{}/sock", folder.as_raw_fd())).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        let hello = ClientHello::new(meta["key"].as_str().unwrap(), 0).to_vec();
        stream.write_all(&Frame { tag: tag::HELLO, id: 0, payload: &hello }.to_vec()).unwrap();
        let mut vm = Self {
            runtime,
            hello: HolderHello::default(),
            dir,
            child,
            stream,
            bytes: Vec::new(),
            next: 0,
            offset: 0,
            acknowledged: 0,
            mark,
        };
        let (_, hello) = vm.wait_for(tag::HELLO);
        vm.hello = HolderHello::decode(&hello).unwrap();
        vm
    }

    /// Starts a holder that must refuse; returns what it says.
    pub(crate) fn refused(path: &str) -> String {
        let (dir, _, mut child) = launch(path, path, 1_000, &|_| serde_json::json!({}));
        let mut error = String::new();
        child.stderr.take().unwrap().read_to_string(&mut error).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(1), "{path}: {error}");
        fs::remove_dir_all(dir).unwrap();
        error
    }

    pub(crate) fn send(&mut self, tag: u8, id: u64, payload: &[u8]) {
        self.stream.write_all(&Frame { tag, id, payload }.to_vec()).unwrap();
    }

    /// Queues a command with a deadline in milliseconds, 0 for none.
    pub(crate) fn begin(&mut self, code: &str, deadline_ms: u32) -> u64 {
        self.next += 1;
        let payload = Eval { deadline_ms, token: b"", code: code.as_bytes() }.to_vec();
        self.send(tag::EVAL, self.next, &payload);
        self.next
    }

    /// The next frame; `None` at the end of the stream.
    fn frame(&mut self) -> Option<(u8, u64, Vec<u8>)> {
        loop {
            if let Some((parsed, n)) = Frame::decode(&self.bytes).unwrap() {
                let frame = (parsed.tag, parsed.id, parsed.payload.to_vec());
                self.offset += parsed.stream_len();
                let acknowledge = self.offset >= self.acknowledged + (256 << 10);
                self.bytes.drain(..n);
                if acknowledge {
                    // As the daemon does when its transcript has it; a holder that is gone does not mind.
                    self.acknowledged = self.offset;
                    let offset = self.offset.to_le_bytes();
                    drop(self.stream.write_all(&Frame { tag: tag::ACK, id: 0, payload: &offset }.to_vec()));
                }
                return Some(frame);
            }
            let mut buffer = [0; 64 << 10];
            match self.stream.read(&mut buffer) {
                Ok(0) => return None,
                Ok(n) => self.bytes.extend_from_slice(&buffer[..n]),
                Err(e) if e.kind() == ErrorKind::ConnectionReset => return None,
                Err(e) => panic!("{}: {e}", self.runtime),
            }
        }
    }

    /// Skips to the next frame of a tag.
    pub(crate) fn wait_for(&mut self, tag: u8) -> (u64, Vec<u8>) {
        loop {
            match self.frame() {
                Some((found, id, payload)) if found == tag => return (id, payload),
                Some((tag::DONE | tag::REFUSED, id, payload)) => panic!("{}: no {}, but {id}: {payload:?}", self.runtime, tag as char),
                Some(_) => {}
                None => panic!("{}: the stream ended before {}", self.runtime, tag as char),
            }
        }
    }

    /// Collects the answer of a command.
    pub(crate) fn finish(&mut self, id: u64) -> Outcome {
        let mut got = Outcome::default();
        loop {
            let Some((found, of, payload)) = self.frame() else { panic!("{}: the stream ended: {got:?}", self.runtime) };
            let text = || String::from_utf8_lossy(&payload).into_owned();
            match found {
                tag::ACCEPTED => continue,
                tag::REFUSED => panic!("{}: refused: {}", self.runtime, text()),
                _ => assert_eq!(of, id, "{}: {} {:?}", self.runtime, found as char, text()),
            }
            match found {
                tag::STDOUT => got.out.push_str(&text()),
                tag::STDERR => got.err.push_str(&text()),
                tag::VALUES => got.values = Some(text()),
                tag::INCOMPLETE => got.incomplete = true,
                tag::ERROR => {
                    let Failure { kind, message, traceback } = Failure::decode(&payload).unwrap();
                    let (message, traceback) = (String::from_utf8_lossy(message), String::from_utf8_lossy(traceback));
                    got.error = Some((kind, message.into_owned(), traceback.into_owned()));
                }
                tag::EXIT => got.exit = payload.first_chunk::<4>().map(|b| i32::from_le_bytes(*b)),
                tag::DONE => return got,
                _ => {}
            }
        }
    }

    pub(crate) fn eval(&mut self, code: &str) -> Outcome {
        let id = self.begin(code, 0);
        self.finish(id)
    }

    /// Reads until the command is done (false) or the holder is gone (true).
    pub(crate) fn done_or_gone(&mut self) -> bool {
        while let Some((found, ..)) = self.frame() {
            if found == tag::DONE {
                return false;
            }
        }
        self.child.wait().unwrap();
        true
    }

    /// What is said on standard error until the holder is gone; `None` if the command is done before.
    pub(crate) fn last_words(&mut self) -> Option<String> {
        let mut said = String::new();
        while let Some((found, _, payload)) = self.frame() {
            match found {
                tag::STDERR => said.push_str(&String::from_utf8_lossy(&payload)),
                tag::DONE => return None,
                _ => {}
            }
        }
        self.child.wait().unwrap();
        Some(said)
    }

    /// Reads until the holder has closed the connection, then waits for its end.
    pub(crate) fn until_gone(&mut self) {
        while self.frame().is_some() {}
        self.child.wait().unwrap();
    }

    /// The exit record.
    pub(crate) fn exit(&self) -> serde_json::Value {
        serde_json::from_slice(&fs::read(self.dir.join("exit.json")).unwrap()).unwrap()
    }

    pub(crate) fn holder(&self) -> u32 {
        self.child.id()
    }

    /// The process id of the interpreter: the only child of the holder.
    pub(crate) fn interpreter(&self) -> u32 {
        let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", self.child.id())).unwrap();
        children.split_whitespace().next().unwrap().parse().unwrap()
    }

    pub(crate) fn signal(&self, pid: u32, signal: i32) {
        // SAFETY: a signal to a process that this test has started.
        assert_eq!(unsafe { libc::kill(pid as i32, signal) }, 0);
    }

    /// Waits until a process is dead; it may not be our child, so the kernel is asked until it says so.
    pub(crate) fn until_dead(&self, pid: u32) {
        let until = Instant::now() + LONG;
        let alive = || fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "));
        while alive() {
            assert!(Instant::now() < until, "{}: process {pid} lives on", self.runtime);
            std::thread::yield_now();
        }
    }

    /// Nothing that this machine has started is left.
    pub(crate) fn no_process_left(&self) {
        let wanted = format!("VMOON_LIFE={}\0", self.mark);
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
            let found = environment.windows(wanted.len()).any(|window| window == wanted.as_bytes());
            assert!(!found, "{}: {:?} is left", self.runtime, fs::read_to_string(entry.path().join("cmdline")));
        }
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        drop(fs::remove_dir_all(&self.dir));
    }
}
