//! A holder started directly, and a blocking client of its socket.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io::{Read as _, Write as _},
    os::{
        fd::{AsFd as _, AsRawFd as _},
        unix::net::UnixStream,
    },
    path::PathBuf,
    time::Duration,
};
use vmoon_core::{
    driver::Exit,
    frame::{Call, Eval, Frame, in_stream, tag},
};
use vmoon_lua_wire::hello::{ClientHello, HolderHello, Versions};
use vmoon_sys::process::{Detached, Identity, Pidfd, Reaped};

pub(crate) const HOST: &str = env!("CARGO_BIN_EXE_vmoon-lua-host");
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A holder in a directory of its own; it is ended when the value is dropped.
pub(crate) struct Holder {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) process: Identity,
}

#[derive(Clone)]
pub(crate) struct Options {
    pub(crate) overflow: &'static str,
    pub(crate) ring: u64,
    pub(crate) spill: u64,
    pub(crate) memory: Option<u64>,
    /// Put before the holder's program, as `sh -c`.
    pub(crate) shell: Option<String>,
    pub(crate) grace_ms: u64,
    /// What the Lua side is told.
    pub(crate) lua: serde_json::Value,
    /// Speak no newer protocol than this one.
    pub(crate) protocol: Option<u32>,
    /// What the process may do; everything if that is not said.
    pub(crate) rules: Option<vmoon_confine::Rules>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            overflow: "spill",
            ring: 1 << 20,
            spill: 256 << 20,
            memory: None,
            shell: None,
            grace_ms: 1000,
            lua: serde_json::json!({}),
            protocol: None,
            rules: None,
        }
    }
}

impl Holder {
    pub(crate) fn new() -> Self {
        Self::with(&Options::default())
    }

    pub(crate) fn with(options: &Options) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("work")).unwrap();
        fs::create_dir(dir.path().join("life")).unwrap();
        let mut this = Self { process: Identity { pid: 0, start: 0, boot: String::new() }, dir };
        let own = serde_json::json!({
            "machine": "01890000-0000-7000-8000-000000000001", "life": 1, "work": this.dir.path().join("work"),
            "overflow": options.overflow, "ring": options.ring, "spill": options.spill, "memory": options.memory,
            "grace_ms": options.grace_ms,
        });
        let mut shape = serde_json::json!({ "runtime": "builtin", "lua": options.lua });
        if let Some(rules) = &options.rules {
            shape["rules"] = serde_json::to_value(rules).unwrap();
        }
        let start = serde_json::json!({ "own": own, "shape": shape });
        fs::write(this.life().join("start.json"), start.to_string()).unwrap();
        let (mut ready, writer) = std::io::pipe().unwrap();
        let stderr = File::create(this.dir.path().join("stderr")).unwrap();
        let life = this.life();
        let protocol = options.protocol.map(|protocol| protocol.to_string());
        let script = options.shell.as_ref().map(|shell| format!("{shell}; exec {HOST} {}", life.display()));
        let (exe, args): (&str, Vec<&OsStr>) = match &script {
            Some(script) => ("/bin/sh", vec!["-c".as_ref(), script.as_ref()]),
            None => match &protocol {
                Some(protocol) => (HOST, vec!["--protocol".as_ref(), protocol.as_ref(), life.as_os_str()]),
                None => (HOST, vec![life.as_os_str()]),
            },
        };
        let stdio = [None, Some(writer.as_fd()), Some(stderr.as_fd())];
        let pid = Detached { exe: exe.as_ref(), args, env: vec![], stdio }.spawn().unwrap();
        drop(writer);
        let mut line = [0; 6];
        if ready.read_exact(&mut line).is_err() {
            panic!("the holder did not start: {}", fs::read_to_string(this.dir.path().join("stderr")).unwrap_or_default());
        }
        this.process = Identity::of(pid).unwrap();
        this
    }

    pub(crate) fn life(&self) -> PathBuf {
        self.dir.path().join("life")
    }

    pub(crate) fn key(&self) -> String {
        let meta: serde_json::Value = serde_json::from_slice(&fs::read(self.life().join("meta.json")).unwrap()).unwrap();
        meta["key"].as_str().unwrap().to_owned()
    }

    /// A connection that has said nothing.
    pub(crate) fn raw(&self) -> UnixStream {
        let stream = UnixStream::connect(self.life().join("sock")).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    pub(crate) fn client(&self, from: u64) -> Client {
        Client::new(self.raw(), &self.key(), from)
    }

    /// Waits until the process has ended; how it did, by its own record.
    pub(crate) fn wait(&self) -> Option<Exit> {
        if let Ok(Some(fd)) = Pidfd::open(&self.process) {
            assert!(fd.wait(PATIENCE).unwrap(), "the holder does not end");
        }
        vmoon_sys::atomic::read_json(&self.life().join("exit.json")).unwrap()
    }
}

impl Holder {
    /// How the process has ended, by its parent, which is this one.
    pub(crate) fn status(&self) -> Exit {
        match self.process.reap() {
            Reaped::Code(code) => Exit::Code { code },
            Reaped::Signal(signal) => Exit::Signal { signal },
            Reaped::Running | Reaped::Stranger => Exit::Lost,
        }
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = vmoon_sys::tree::kill(&self.process, None, Duration::from_secs(10));
        self.process.reap();
    }
}

/// A frame that owns its payload, and where it stood in the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Heard {
    pub(crate) tag: u8,
    pub(crate) id: u64,
    pub(crate) payload: Vec<u8>,
}

impl Heard {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.payload).into_owned()
    }
}

pub(crate) struct Client {
    pub(crate) stream: UnixStream,
    inbox: Vec<u8>,
    start: usize,
    /// Stream offset of the next frame.
    pub(crate) at: u64,
    pub(crate) hello: HolderHello,
    pub(crate) next_id: u64,
}

impl Client {
    fn new(stream: UnixStream, key: &str, from: u64) -> Self {
        Self::of(Versions::OURS, stream, key, from)
    }

    /// A client that speaks these protocols.
    pub(crate) fn of(speaks: Versions, stream: UnixStream, key: &str, from: u64) -> Self {
        let mut this = Self { stream, inbox: Vec::new(), start: 0, at: from, hello: HolderHello::default(), next_id: 1 };
        this.send(tag::HELLO, 0, &ClientHello::of(speaks, key, from).to_vec());
        let hello = this.next();
        assert_eq!(hello.tag, tag::HELLO, "{hello:?}");
        this.hello = HolderHello::decode(&hello.payload).unwrap();
        this.next_id = this.hello.last_command + 1;
        this
    }

    /// A client of the holder whose life directory is seen at `life`.
    pub(crate) fn at_path(life: &std::path::Path, from: u64) -> Self {
        let meta: serde_json::Value = serde_json::from_slice(&fs::read(life.join("meta.json")).unwrap()).unwrap();
        // Through a descriptor of the directory, so that its path may be of any length.
        let dir = File::open(life).unwrap();
        let stream = UnixStream::connect(format!("/proc/self/fd/{}/sock", dir.as_raw_fd())).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self::new(stream, meta["key"].as_str().unwrap(), from)
    }

    pub(crate) fn send(&mut self, tag: u8, id: u64, payload: &[u8]) {
        self.stream.write_all(&Frame { tag, id, payload }.to_vec()).unwrap();
    }

    /// Sends a command and gives back its number.
    pub(crate) fn eval_within(&mut self, code: impl AsRef<[u8]>, deadline_ms: u32) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        self.send(tag::EVAL, id, &Eval { deadline_ms, token: b"", code: code.as_ref() }.to_vec());
        id
    }

    pub(crate) fn eval(&mut self, code: impl AsRef<[u8]>) -> u64 {
        self.eval_within(code, 0)
    }

    /// Sends a command with arguments (empty for none) that is wanted as data, and gives back its number.
    pub(crate) fn call(&mut self, arguments: &str, code: &str) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        let eval = Eval { deadline_ms: 0, token: b"", code: code.as_bytes() };
        self.send(tag::CALL, id, &Call { data: true, arguments: arguments.as_bytes(), eval }.to_vec());
        id
    }

    /// The next frame; `None` when the holder has closed the connection.
    pub(crate) fn try_next(&mut self) -> Option<Heard> {
        let mut buffer = vec![0; 256 << 10];
        loop {
            if let Some((frame, n)) = Frame::decode(&self.inbox[self.start..]).unwrap() {
                let heard = Heard { tag: frame.tag, id: frame.id, payload: frame.payload.to_vec() };
                if in_stream(frame.tag) {
                    self.at += frame.stream_len();
                }
                self.start += n;
                if self.start == self.inbox.len() {
                    self.inbox.clear();
                    self.start = 0;
                }
                return Some(heard);
            }
            self.inbox.drain(..std::mem::take(&mut self.start));
            match self.stream.read(&mut buffer) {
                Ok(0) => return None,
                Ok(n) => self.inbox.extend_from_slice(&buffer[..n]),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("the holder does not answer: {error}"),
            }
        }
    }

    pub(crate) fn next(&mut self) -> Heard {
        self.try_next().expect("the holder closed the connection")
    }

    /// Everything up to the DONE of that command, which is the last.
    pub(crate) fn until_done(&mut self, id: u64) -> Vec<Heard> {
        let mut all = Vec::new();
        loop {
            let heard = self.next();
            let done = heard.tag == tag::DONE && heard.id == id;
            all.push(heard);
            if done {
                return all;
            }
        }
    }

    /// Runs a chunk; the frames between ACCEPTED and DONE.
    pub(crate) fn run(&mut self, code: impl AsRef<[u8]>) -> Vec<Heard> {
        let id = self.eval(code);
        let mut frames = self.until_done(id);
        assert_eq!(frames.remove(0).tag, tag::ACCEPTED);
        frames.pop();
        frames
    }

    /// Runs a chunk that gives one value and prints nothing.
    pub(crate) fn value(&mut self, code: impl AsRef<[u8]>) -> String {
        let frames = self.run(code);
        assert!(frames.len() == 1 && frames[0].tag == tag::VALUES, "{frames:?}");
        frames[0].text()
    }

    pub(crate) fn ack(&mut self) {
        let at = self.at;
        self.send(tag::ACK, 0, &at.to_le_bytes());
    }

    /// Reads the output of a command to its end and acknowledges as it goes; the output, and how much was lost.
    pub(crate) fn drain_output(&mut self, id: u64) -> (Vec<u8>, u64, usize) {
        let (mut out, mut lost, mut gaps, mut acked) = (Vec::new(), 0, 0, self.at);
        loop {
            let heard = self.next();
            match heard.tag {
                tag::STDOUT => out.extend_from_slice(&heard.payload),
                tag::GAP => {
                    lost += u64::from_le_bytes(*heard.payload.first_chunk().unwrap());
                    gaps += 1;
                }
                tag::DONE if heard.id == id => break,
                _ => {}
            }
            if self.at - acked > 200_000 {
                acked = self.at;
                self.ack();
            }
        }
        self.ack();
        (out, lost, gaps)
    }
}
