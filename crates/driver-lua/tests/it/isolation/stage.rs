//! What the attempts attack, and the machines that attack.

use crate::{
    client::{Client, Holder, Options},
    death::World,
};
use serde_json::{Value, json};
use std::{
    fs, net,
    os::{
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr, UnixDatagram, UnixListener},
    },
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};
use vmoon_confine::{
    Layer, Limits, Profile, Rules,
    attempts::{Attempt, SOURCES},
};
use vmoon_core::{
    driver::{Driver as _, Exit, Handle, Observed, StopMode},
    frame::tag,
};

/// What a machine that attacks may use, in settings and as rules.
const MEMORY: u64 = 256 << 20;
const FILE_SIZE: u64 = 64 << 20;
const OPEN_FILES: u64 = 64;
const CPU: u64 = 1;

/// What became of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Tried {
    /// It reached what it wanted.
    Reached,
    /// This error stopped it.
    Stopped(i32),
    /// There is nothing here to try it on.
    NoStage,
    /// The machine was ended.
    Ended(Exit),
}

/// Files, sockets and a machine to attack.
pub(super) struct Stage {
    pub(super) world: World,
    root: PathBuf,
    _temp: tempfile::TempDir,
    abstract_name: String,
    port: u16,
    sibling: i32,
    _listeners: (UnixListener, UnixDatagram, UnixListener, net::TcpListener),
}

impl Stage {
    pub(super) async fn set() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path().canonicalize().unwrap();
        for name in ["granted", "modules", "outside"] {
            fs::create_dir(root.join(name)).unwrap();
        }
        compile(&root.join("modules"));
        let outside = root.join("outside");
        fs::copy(root.join("modules/attempt.so"), outside.join("module.so")).unwrap();
        let stream = UnixListener::bind(outside.join("stream")).unwrap();
        let datagram = UnixDatagram::bind(outside.join("datagram")).unwrap();
        let abstract_name = format!("vmoon-vm-isolation-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let hidden = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&abstract_name).unwrap()).unwrap();
        let tcp = net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = tcp.local_addr().unwrap().port();
        let world = World::new();
        // Without capabilities, or only root could look into it, and with no other protection.
        let (id, handle) = world.machine(json!({ "profile": "sealed", "without": ["lua", "rlimits", "landlock", "seccomp"] })).await;
        world.driver.start(&handle).await.unwrap();
        let sibling = world.process(id, 1).pid;
        Self { world, root, _temp: temp, abstract_name, port, sibling, _listeners: (stream, datagram, hidden, tcp) }
    }

    /// The lines that tell an attempt what there is.
    fn text(&self, work: &Path) -> String {
        let root = self.root.display();
        format!(
            "work={}\ngranted={root}/granted\noutside={root}/outside\nprogram=/bin/true\nsibling={}\nabstract={}\ntcp={}\n",
            work.display(),
            self.sibling,
            self.abstract_name,
            self.port
        )
    }

    /// Puts the files back as they were before an attempt.
    fn reset(&self, work: &Path) {
        for folder in [work, &self.root.join("granted"), &self.root.join("outside")] {
            for entry in fs::read_dir(folder).unwrap().flatten() {
                if entry.file_type().unwrap().is_dir() {
                    fs::remove_dir(entry.path()).unwrap();
                } else if !["stream", "datagram", "module.so"].iter().any(|kept| entry.file_name() == *kept) {
                    fs::remove_file(entry.path()).unwrap();
                }
            }
        }
        for file in ["granted/data", "outside/secret", "outside/victim"] {
            fs::write(self.root.join(file), "content").unwrap();
        }
        fs::write(work.join("seed"), "content").unwrap();
        if !self.root.join("outside/module.so").exists() {
            fs::copy(self.root.join("modules/attempt.so"), self.root.join("outside/module.so")).unwrap();
        }
    }

    /// A machine made by the driver, as every machine is; `without` may leave out the Lua layer or not.
    pub(super) async fn machine(&self, runtime: &str, profile: Profile, without: &[Layer]) -> Vm {
        let mut settings = json!({ "runtime": runtime, "profile": profile, "without": without });
        if profile != Profile::Trusted {
            settings["read"] = json!([self.root.join("modules"), self.root.join("granted")]);
            settings["cpu"] = json!(CPU);
            settings["memory"] = json!(MEMORY);
            settings["file-size"] = json!(FILE_SIZE);
            settings["open-files"] = json!(OPEN_FILES);
        }
        if profile == Profile::Net {
            settings["net"] = json!(["127.0.0.1:1"]);
        }
        if runtime == "luajit" {
            settings["interrupt"] = json!("hook");
        }
        let (id, handle) = self.world.machine(settings).await;
        self.world.driver.start(&handle).await.unwrap();
        let client = Client::at_path(&self.world.life(id, 1), 0);
        let work = self.world.dir.path().join("lua").join(id.to_string()).join("work");
        self.ready(client, work, Kept::Driver(handle))
    }

    /// A sealed machine with the builtin runtime that may nevertheless load the module: no setting grants that, so its holder is
    /// started with rules that do.
    pub(super) fn sealed(&self, without: &[Layer]) -> Vm {
        let libraries = ["/lib", "/lib64", "/usr/lib", "/etc/ld.so.cache"].iter().filter_map(|path| fs::canonicalize(path).ok());
        let modules = self.root.join("modules");
        let rules = Rules {
            compiles: cfg!(feature = "luajit"),
            profile: Profile::Sealed,
            read: vec![self.root.join("granted"), modules.clone()],
            execute: libraries.chain([modules]).collect(),
            limits: Limits { memory: Some(MEMORY), cpu: Some(CPU), file_size: Some(FILE_SIZE), open_files: Some(OPEN_FILES) },
            without: without.to_vec(),
            ..Rules::default()
        };
        let holder = Holder::with(&Options { rules: Some(rules), ..Options::default() });
        let (client, work) = (holder.client(0), holder.dir.path().join("work"));
        self.ready(client, work, Kept::Holder(holder))
    }

    fn ready(&self, mut client: Client, work: PathBuf, kept: Kept) -> Vm {
        let modules = self.root.join("modules");
        let code = format!("package.cpath = [[{}/?.so]] attempt = require 'attempt' return type(attempt)", modules.display());
        assert_eq!(client.value(code), "function");
        Vm { client, work, kept }
    }

    /// Makes one attempt in that machine.
    pub(super) async fn make(&self, vm: &mut Vm, attempt: &Attempt) -> Tried {
        self.reset(&vm.work);
        vm.client.eval(format!("return attempt([[{}]], [[{}]])", attempt.name, self.text(&vm.work)));
        let mut number = None;
        while let Some(heard) = vm.client.try_next() {
            match heard.tag {
                tag::VALUES => number = heard.text().parse::<i32>().ok(),
                tag::DONE if number.is_some() => break,
                tag::ERROR => panic!("{}: {}", attempt.name, heard.text()),
                _ => {}
            }
        }
        match number {
            Some(0) => Tried::Reached,
            Some(-1) => panic!("there is no attempt {}", attempt.name),
            Some(-2) => Tried::NoStage,
            Some(number) => Tried::Stopped(number),
            None => match self.end_of(vm).await {
                // It has become another program, which has ended as it should.
                Exit::Code { code: 0 } => Tried::Reached,
                exit => Tried::Ended(exit),
            },
        }
    }

    async fn end_of(&self, vm: &Vm) -> Exit {
        match &vm.kept {
            Kept::Holder(holder) => match holder.wait() {
                Some(exit) => exit,
                None => holder.status(),
            },
            Kept::Driver(handle) => loop {
                match self.world.driver.observe(handle).await.observed {
                    Observed::Off(exit) => return exit.unwrap_or(Exit::Lost),
                    _ => tokio::task::yield_now().await,
                }
            },
        }
    }

    /// Ends a machine and removes it.
    pub(super) async fn end(&self, vm: Vm) {
        if let Kept::Driver(handle) = &vm.kept {
            self.world.driver.stop(handle, StopMode::Force).await.unwrap();
            self.world.driver.delete(handle).await.unwrap();
        }
    }
}

/// A machine that attacks.
pub(super) struct Vm {
    client: Client,
    work: PathBuf,
    kept: Kept,
}

impl Vm {
    /// Whether it still answers, as it did before.
    pub(super) fn answers(&mut self) -> bool {
        self.client.value("6 * 7") == "42"
    }
}

enum Kept {
    Holder(Holder),
    Driver(Handle),
}

fn compile(modules: &Path) {
    let temp = tempfile::tempdir().unwrap();
    for (name, text) in SOURCES.into_iter().chain([("attempt.c", include_str!("attempt.c"))]) {
        fs::write(temp.path().join(name), text).unwrap();
    }
    let sources =
        fs::read_dir(temp.path()).unwrap().flatten().map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|e| e == "c"));
    let mut gcc = Command::new("gcc");
    gcc.args(["-Wall", "-Wextra", "-Werror", "-O1", "-shared", "-fPIC", "-pthread", "-o"]).arg(modules.join("attempt.so")).args(sources);
    let out = gcc.output().expect("gcc is there (Debian: apt-get install gcc)");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
}

/// Reads a profile's settings as JSON, to be shown in messages.
pub(super) fn shown(layers: &[Layer]) -> Value {
    json!(layers)
}
