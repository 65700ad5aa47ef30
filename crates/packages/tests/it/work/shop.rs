//! What tests of fetching, building and installing need: rocks made on the spot, an evaluator, a cache and a state directory of their own.

use std::{
    collections::BTreeMap,
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};
use vmoon_core::{Code, Error, Result};
use vmoon_packages::{
    Arch, Dependency, Evaluator, Lock, LockedRock, LockedSource, LuaVersion, Why,
    build::{Builder, Launcher},
    cache::Cache,
    digest,
    environment::{Description, Environment, Environments, Guard},
    evaluate,
    fetch::{Fetcher, Options, Progress},
    install::{Installed, Installer},
    plan,
};
use vmoon_sys::{
    run::{End, Run},
    stop::Stop,
};

/// Evaluates with the installed `lua5.4`.
pub(crate) struct Lua(PathBuf);

impl Lua {
    pub(crate) fn new(dir: &Path) -> Self {
        let program = dir.join("evaluate.lua");
        if !program.is_file() {
            fs::write(&program, evaluate::PROGRAM).unwrap();
        }
        Self(program)
    }

    fn run(&self, kind: &str, text: &[u8]) -> Result<Vec<u8>> {
        let run = Run {
            exe: Path::new("/usr/bin/lua5.4"),
            args: vec![self.0.as_os_str(), kind.as_ref()],
            env: vec![],
            dir: Path::new("/"),
            input: text,
            extra: vec![],
            merged: false,
            keep: 64 << 20,
            limit: Duration::from_secs(30),
            largest_file: None,
        };
        let ran = run.run(&Stop::new()).map_err(|error| Error::io("run lua5.4 (Debian: apt-get install lua5.4)", error))?;
        match ran.end {
            End::Code(0) => Ok(ran.out.bytes()),
            _ => Err(Error::new(Code::PackageInvalid, ran.err.text())),
        }
    }
}

impl Evaluator for Lua {
    fn rockspec(&self, text: &[u8]) -> Result<serde_json::Value> {
        evaluate::read_answer(&self.run("rockspec", text)?)
    }

    fn manifest(&self, text: &[u8]) -> Result<Vec<u8>> {
        self.run("manifest", text)
    }
}

type OnStep = Box<dyn Fn(usize, &str) + Send + Sync>;

/// Counts steps, and does something at one of them.
#[derive(Default)]
pub(crate) struct Steps {
    pub(crate) names: Mutex<Vec<String>>,
    pub(crate) notes: Mutex<Vec<String>>,
    pub(crate) bytes: Mutex<BTreeMap<String, (u64, Option<u64>)>>,
    pub(crate) at: Option<OnStep>,
}

impl Progress for Steps {
    fn step(&self, name: &str) {
        let count = {
            let mut names = self.names.lock().unwrap();
            names.push(name.to_owned());
            names.len()
        };
        if let Some(at) = &self.at {
            at(count, name);
        }
    }

    fn note(&self, text: &str) {
        self.notes.lock().unwrap().push(text.to_owned());
    }

    fn bytes(&self, url: &str, done: u64, total: Option<u64>) {
        self.bytes.lock().unwrap().insert(url.to_owned(), (done, total));
    }
}

/// A directory with everything in it.
pub(crate) struct Shop {
    pub(crate) dir: Arc<tempfile::TempDir>,
    pub(crate) lua: Arc<Lua>,
    pub(crate) cache: Cache,
    pub(crate) environments: Environments,
    pub(crate) options: Options,
    pub(crate) programs: Option<Vec<PathBuf>>,
}

pub(crate) fn launcher() -> Launcher {
    Launcher { exe: env!("CARGO_BIN_EXE_vmoon-packages-launcher").into(), verb: "lua-confine".into() }
}

impl Shop {
    pub(crate) fn new() -> Self {
        Self::within(Arc::new(tempfile::tempdir().unwrap()))
    }

    pub(crate) fn within(dir: Arc<tempfile::TempDir>) -> Self {
        Self::at(dir.path(), Arc::clone(&dir))
    }

    pub(crate) fn at(root: &Path, dir: Arc<tempfile::TempDir>) -> Self {
        for name in ["mirror", "state"] {
            fs::create_dir_all(root.join(name)).unwrap();
        }
        let options = Options { idle: Duration::from_secs(5), ..Options::default() };
        let cache = Cache::open(&root.join("cache")).unwrap();
        let environments = Environments::open(&root.join("state")).unwrap();
        Self { lua: Arc::new(Lua::new(root)), cache, environments, options, programs: None, dir }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.cache.root().parent().unwrap().join(name)
    }

    pub(crate) fn fetcher(&self) -> Fetcher {
        self.fetcher_with(Arc::new(Steps::default()), Stop::new())
    }

    pub(crate) fn fetcher_with(&self, steps: Arc<Steps>, stop: Stop) -> Fetcher {
        Fetcher::new(self.cache.clone(), self.options.clone(), steps, stop)
    }

    pub(crate) fn builder(&self) -> Builder {
        let builder = Builder::new(self.cache.clone(), Arc::new(launcher()), self.lua.clone(), 2);
        match &self.programs {
            None => builder,
            Some(programs) => builder.with_programs(programs.clone()),
        }
    }

    pub(crate) fn environment(&self, name: &str, lua: LuaVersion) -> Environment {
        let description = Description { lua, profile: None, created_ms: 1, servers: vec![] };
        self.environments.create(name, &description).unwrap()
    }

    /// Puts a file on the mirror; gives back its URL.
    pub(crate) fn publish(&self, name: &str, bytes: &[u8]) -> String {
        let path = self.path("mirror").join(name);
        if !fs::read(&path).is_ok_and(|there| there == bytes) {
            fs::write(&path, bytes).unwrap();
        }
        format!("file://{}", path.display())
    }

    /// A rock that is there as a rockspec and an archive; `{url}` and `{md5}` in the text are filled in.
    pub(crate) fn rock(&self, name: &str, version: &str, files: &[(&str, &str)], build: &str) -> LockedRock {
        self.rock_needing(name, version, files, build, &[])
    }

    pub(crate) fn rock_needing(&self, name: &str, version: &str, files: &[(&str, &str)], build: &str, needs: &[&str]) -> LockedRock {
        let folder = format!("{name}-{}", version.rsplit_once('-').map_or(version, |(version, _)| version));
        let archive = tar_gz(&folder, files);
        let url = self.publish(&format!("{folder}.tar.gz"), &archive);
        let text = rockspec(name, version, &url, build);
        let rockspec = self.publish(&format!("{name}-{version}.rockspec"), text.as_bytes());
        LockedRock {
            name: name.parse().unwrap(),
            version: version.parse().unwrap(),
            arch: Arch::Rockspec,
            url: rockspec,
            sha256: digest::sha256(text.as_bytes()),
            source: Some(LockedSource { url, tag: None, sha256: String::new() }),
            dependencies: needs.iter().map(|need| need.parse().unwrap()).collect(),
            why: Why::Asked,
            modules: vec![],
        }
    }

    /// A rock in one file.
    pub(crate) fn packed(&self, name: &str, version: &str, arch: Arch, files: &[(&str, &[u8])]) -> LockedRock {
        let (name, version) = (name.parse().unwrap(), version.parse().unwrap());
        let mut writer = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
        for (path, content) in files {
            writer.start_file(*path, zip::write::SimpleFileOptions::default()).unwrap();
            writer.write_all(content).unwrap();
        }
        let bytes = writer.finish().unwrap().into_inner();
        let url = self.publish(&arch.file_name(&name, &version), &bytes);
        let sha256 = digest::sha256(&bytes);
        LockedRock { name, version, arch, url, sha256, source: None, dependencies: vec![], why: Why::Asked, modules: vec![] }
    }

    /// Makes an environment hold exactly these rocks.
    pub(crate) fn sync(&self, environment: &Environment, rocks: &[LockedRock]) -> Result<Installed> {
        self.sync_with(environment, rocks, Arc::new(Steps::default()), Stop::new())
    }

    pub(crate) fn sync_with(&self, environment: &Environment, rocks: &[LockedRock], steps: Arc<Steps>, stop: Stop) -> Result<Installed> {
        self.sync_held(environment, &environment.guard()?, rocks, steps, stop)
    }

    pub(crate) fn sync_held(
        &self,
        environment: &Environment,
        guard: &Guard,
        rocks: &[LockedRock],
        steps: Arc<Steps>,
        stop: Stop,
    ) -> Result<Installed> {
        let current = environment.lock()?;
        let target = lock_of(current.lua, rocks);
        let plan = plan::sync(&current, &target, &|_| None);
        let (fetcher, builder) = (self.fetcher_with(steps, stop), self.builder());
        Installer { fetcher: &fetcher, builder: &builder }.install(environment, guard, &plan, "sync", &[])
    }
}

/// A lock of these rocks, all asked for.
pub(crate) fn lock_of(lua: LuaVersion, rocks: &[LockedRock]) -> Lock {
    Lock {
        wanted: rocks.iter().map(|rock| Dependency::any(rock.name.clone())).collect(),
        rocks: rocks.iter().map(|rock| (rock.name.clone(), rock.clone())).collect(),
        ..Lock::empty(lua)
    }
}

pub(crate) fn rockspec(name: &str, version: &str, url: &str, build: &str) -> String {
    format!(
        "rockspec_format = \"3.0\"\npackage = \"{name}\"\nversion = \"{version}\"\nsource = {{ url = \"{url}\" }}\n\
         description = {{ summary = \"made by a test\" }}\nbuild = {build}\n"
    )
}

/// An archive with one folder.
pub(crate) fn tar_gz(folder: &str, files: &[(&str, &str)]) -> Vec<u8> {
    let mut archive = tar::Builder::new(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast()));
    for (path, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, format!("{folder}/{path}"), content.as_bytes()).unwrap();
    }
    archive.into_inner().unwrap().finish().unwrap()
}

/// Runs a Lua program in an environment; gives back what it prints.
pub(crate) fn run_lua(interpreter: &str, environment: &Environment, code: &str) -> String {
    let lua = environment.lock().unwrap().lua;
    let tree = environment.tree(environment.current().unwrap());
    let path = format!("{0}/share/lua/{lua}/?.lua;{0}/share/lua/{lua}/?/init.lua", tree.display());
    let cpath = format!("{}/lib/lua/{lua}/?.so", tree.display());
    let exe = Path::new("/usr/bin").join(interpreter);
    let run = Run {
        exe: &exe,
        args: vec!["-e".as_ref(), code.as_ref()],
        env: vec![("LUA_PATH".as_ref(), path.as_ref()), ("LUA_CPATH".as_ref(), cpath.as_ref())],
        dir: Path::new("/"),
        input: b"",
        extra: vec![],
        merged: true,
        keep: 1 << 20,
        limit: Duration::from_secs(30),
        largest_file: None,
    };
    run.run(&Stop::new()).unwrap_or_else(|error| panic!("{interpreter}: {error} (Debian: apt-get install {interpreter})")).out.text()
}

/// Says something to the process that started this one.
pub(crate) fn say(line: String) {
    let mut out = std::io::stdout();
    out.write_all((line + "\n").as_bytes()).and_then(|()| out.flush()).unwrap();
}
