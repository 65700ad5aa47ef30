//! Environments of packages on a host: carried whole, kept apart, found by `require`, cleaned away.

use crate::{
    lab::{Lab, Reach as _, Tools, walk},
    talk::Talk,
};
use async_trait::async_trait;
use sha2::{Digest as _, Sha256};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};
use vmoon_core::{
    Code, Error, Result,
    ability::{Effect, Nobody, UsedEnvironment},
};
use vmoon_remote::{
    environment::{Carrier, Environment, Environments, Recipe, RecipeModule, TreeFile},
    guest::Guest,
};

/// The C source of a module `answer`; the two functions are those of every Lua version.
const ANSWER: &str =
    "void lua_pushstring(void *, const char *);\nint luaopen_answer(void *L) { lua_pushstring(L, \"forty-two\"); return 1; }\n";

/// Environments made by hand: a directory for each, whose tree is in `tree`.
#[derive(Debug)]
pub(crate) struct Made {
    dir: tempfile::TempDir,
    generation: std::sync::atomic::AtomicU64,
}

impl Made {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { dir: tempfile::tempdir().expect("a directory"), generation: 1.into() })
    }

    /// A path in the directory of all.
    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    pub(crate) fn file(&self, name: &str, path: &str, bytes: &[u8]) -> PathBuf {
        let file = self.dir.path().join(name).join(path);
        fs::create_dir_all(file.parent().expect("a parent")).expect("a directory");
        fs::write(&file, bytes).expect("a file");
        self.generation.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        file
    }

    /// A module `greet` that says these words, and a module in C.
    pub(crate) fn with(&self, name: &str, lua: &str, words: &str) {
        self.file(
            name,
            &format!("share/lua/{lua}/greet.lua"),
            format!("return {{ say = function() return [[{words}]] end }}\n").as_bytes(),
        );
        let source = self.file(name, "answer.c", ANSWER.as_bytes());
        let module = self.file(name, &format!("lib/lua/{lua}/answer.so"), b"");
        let status = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&module).arg(&source).status();
        assert!(status.expect("cc is needed: cargo xtask install").success());
    }
}

#[async_trait]
impl Environments for Made {
    async fn find(&self, name: &str) -> Result<Environment> {
        let tree = self.dir.path().join(name);
        let lua = ["5.1", "5.4"].into_iter().find(|lua| tree.join("share/lua").join(lua).is_dir());
        let lua = lua.ok_or_else(|| Error::new(Code::EnvironmentNotFound, format!("no environment is named {name}")))?.to_owned();
        let files = walk(&tree)
            .into_iter()
            .filter(|path| !path.ends_with("answer.c"))
            .map(|path| {
                let bytes = fs::read(&path).expect("a file");
                let sum: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
                let inside = path.strip_prefix(&tree).expect("inside").to_str().expect("text").to_owned();
                let rock = inside.starts_with("lib/").then(|| "answer".to_owned());
                TreeFile { path: inside, sha256: sum, size: bytes.len() as u64, rock }
            })
            .collect();
        let generation = self.generation.load(std::sync::atomic::Ordering::Relaxed);
        Ok(Environment { used: UsedEnvironment { name: name.to_owned(), generation, lua }, tree, files })
    }

    async fn recipe(&self, environment: &Environment, rock: &str) -> Result<Recipe> {
        let source = fs::read(environment.tree.join("answer.c"));
        let source = source.map_err(|_| Error::new(Code::PackageBuild, format!("the source of {rock} is not kept")))?;
        let path = format!("lib/lua/{}/answer.so", environment.used.lua);
        let arguments = ["-shared", "-fPIC", "-I", "inc", "src/answer.c"].map(str::to_owned).to_vec();
        let files = vec![("src/answer.c".into(), source), ("inc/x.h".into(), Vec::new())];
        Ok(Recipe { files, modules: vec![RecipeModule { path, arguments }] })
    }
}

pub(crate) fn guest(lab: &Lab) -> Guest {
    Guest::new(lab.host(), "owner", "main", None).expect("a name")
}

pub(crate) fn packages(lab: &Lab) -> PathBuf {
    lab.path().join("state/vmoon/packages")
}

pub(crate) fn names(dir: &Path) -> Vec<String> {
    let mut all: Vec<String> =
        fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    all.sort();
    all
}

const BOTH: &str = "return require('greet').say() .. ' ' .. require('answer')";

/// Makes the running session look in the new tree, as the daemon does.
async fn switched(talk: &mut Talk, carrier: &Carrier, name: &str) -> Vec<String> {
    let switched = carrier.switch(name, false, &Nobody).await.expect("a switch");
    assert_eq!(switched.effect, Effect::Now);
    let (code, arguments) = switched.evaluate.expect("something to evaluate");
    let literals: Vec<String> = arguments.iter().map(|argument| format!("{:?}", argument.as_str().expect("text"))).collect();
    talk.value(&format!("local f = (loadstring or load)([==[{code}]==]) return table.concat(f({}), ',')", literals.join(","))).await;
    switched.steps
}

async fn carried(tools: Tools, lua: &str, version: &str) {
    let lab = Lab::new(tools, lua).await;
    let made = Made::new();
    made.with("bio", version, "hello");
    let guest = guest(&lab);
    let carrier = Carrier::new(guest.clone(), made.clone());
    // Nothing is there before; a dry run leaves it so.
    let dry = carrier.switch("bio", true, &Nobody).await.expect("a plan");
    assert!(dry.steps[0].starts_with("sends 2 files, "), "{:?}", dry.steps);
    assert!(!packages(&lab).exists() && carrier.used().is_empty());
    // Before the session begins: it begins with them.
    let first = carrier.switch("bio", false, &Nobody).await.expect("a switch");
    assert_eq!((first.effect, first.evaluate.is_none(), first.steps.clone()), (Effect::NextStart, true, dry.steps));
    let mut talk = Talk::open(&guest).await;
    assert_eq!(talk.value(BOTH).await, "hello forty-two");
    assert_eq!(carrier.lua().await.expect("a version").as_deref(), Some(version));
    // While it runs: another generation, of which only one file is new.
    let before = names(&packages(&lab).join("trees"));
    made.file("bio", &format!("share/lua/{version}/more/init.lua"), b"return 'more'");
    let steps = switched(&mut talk, &carrier, "bio").await;
    assert_eq!(steps, ["sends 1 files, 13 bytes, to lab; 2 are there already"]);
    assert_eq!(talk.value("return (require('more'))").await, "more");
    assert_eq!(talk.value(BOTH).await, "hello forty-two");
    // What the running life has used stays until it is over.
    assert_eq!(names(&packages(&lab).join("trees")).len(), 2);
    // A second session of another owner sends nothing.
    let other = Guest::new(lab.host(), "other", "main", None).expect("a name");
    let second = Carrier::new(other.clone(), made.clone()).switch("bio", false, &Nobody).await.expect("a switch");
    assert_eq!(second.steps, ["everything is on lab already"]);
    assert_eq!(Talk::open(&other).await.value(BOTH).await, "hello forty-two");
    // What is missing is named.
    let error = talk.value("return select(2, pcall(require, 'nope'))").await;
    assert!(error.contains("module 'nope' not found") && error.contains("packages/trees/"), "{error}");
    // A new life forgets what the old one has used, and the tree is cleaned away.
    guest.kill(talk.life).await.expect("a kill");
    let mut talk = Talk::open(&guest).await;
    assert_eq!(talk.value("return (require('more'))").await, "more");
    made.with("next", version, "bye");
    switched(&mut talk, &carrier, "next").await;
    assert_eq!(talk.value("package.loaded.greet = nil return require('greet').say()").await, "bye");
    let after = names(&packages(&lab).join("trees"));
    assert!(after.len() == 2 && !after.contains(&before[0]), "{before:?} {after:?}");
    let used = carrier.used();
    assert_eq!(used.iter().map(|one| one.environment.name.as_str()).collect::<Vec<_>>(), ["bio", "next"]);
}

#[tokio::test]
async fn packages_are_carried_to_busybox_and_lua_5_1() {
    carried(Tools::BusyBox, "lua5.1", "5.1").await;
}

#[tokio::test]
async fn packages_are_carried_to_coreutils_and_lua_5_4() {
    carried(Tools::System, "lua5.4", "5.4").await;
}

#[tokio::test]
async fn packages_are_carried_to_luajit() {
    carried(Tools::BusyBox, "luajit", "5.1").await;
}

#[tokio::test]
async fn what_does_not_fit_is_refused_before_anything_is_sent() {
    let lab = Lab::new(Tools::BusyBox, "lua5.1").await;
    let made = Made::new();
    made.with("new", "5.4", "hello");
    made.with("old", "5.1", "hello");
    let carrier = Carrier::new(guest(&lab), made.clone());
    assert_eq!(carrier.switch("none", false, &Nobody).await.expect_err("none").code(), Code::EnvironmentNotFound);
    let error = carrier.switch("new", false, &Nobody).await.expect_err("another Lua");
    assert_eq!(error.code(), Code::SpecInvalid);
    assert!(error.message().contains("Lua 5.4") && error.message().contains("is Lua 5.1"), "{error}");
    // A module for another kind of computer, and no compiler there.
    let module = made.dir.path().join("old/lib/lua/5.1/answer.so");
    let mut bytes = fs::read(&module).expect("a module");
    bytes[18] = 8;
    fs::write(&module, &bytes).expect("a module");
    for dry_run in [true, false] {
        let error = carrier.switch("old", dry_run, &Nobody).await.expect_err("another computer");
        assert_eq!(error.code(), Code::SpecInvalid);
        assert!(error.message().contains("answer.so was compiled for machine 8") && error.message().contains("no C compiler"), "{error}");
    }
    // One that only the loader there finds wrong: it needs a function that no Lua has.
    let source = made.file("old", "answer.c", ANSWER.replace("lua_pushstring", "lua_pushnonsense").as_bytes());
    let status = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&module).arg(source).status();
    assert!(status.expect("cc").success());
    let error = carrier.switch("old", false, &Nobody).await.expect_err("an unknown function");
    assert!(error.code() == Code::SpecInvalid && error.message().contains("lua_pushnonsense"), "{error}");
    assert!(names(&packages(&lab).join("trees")).iter().all(|name| name.starts_with(".new-")) && carrier.used().is_empty());
    let lab = Lab::new(Tools::NoLua, "lua5.4").await;
    assert_eq!(Carrier::new(guest(&lab), made).switch("new", false, &Nobody).await.expect_err("no Lua").code(), Code::GuestNoLua);
}

#[tokio::test]
async fn modules_that_do_not_fit_are_compiled_there() {
    let lab = Lab::new(Tools::System, "lua5.4").await;
    for tool in ["cc", "as", "ld"] {
        std::os::unix::fs::symlink(Path::new("/usr/bin").join(tool), lab.path().join("bin").join(tool)).expect("a link");
    }
    let made = Made::new();
    made.with("bio", "5.4", "hello");
    let module = made.dir.path().join("bio/lib/lua/5.4/answer.so");
    let mut bytes = fs::read(&module).expect("a module");
    bytes[18] = 8;
    fs::write(&module, &bytes).expect("a module");
    let guest = guest(&lab);
    let carrier = Carrier::new(guest.clone(), made.clone());
    let steps = carrier.switch("bio", true, &Nobody).await.expect("a plan").steps;
    assert!(steps[0].starts_with("sends 1 files") && steps[1].starts_with("compiles answer on lab"), "{steps:?}");
    carrier.switch("bio", false, &Nobody).await.expect("a switch");
    assert_eq!(Talk::open(&guest).await.value(BOTH).await, "hello forty-two");
    let again = carrier.switch("bio", true, &Nobody).await.expect("a plan").steps;
    assert!(again[1].starts_with("has compiled answer"), "{again:?}");
    assert!(names(&packages(&lab)).iter().all(|name| !name.starts_with('.')));
    // A source that cannot be compiled changes nothing.
    made.file("bio", "answer.c", b"#error nonsense\n");
    let error = carrier.switch("bio", false, &Nobody).await.expect_err("no C");
    assert!(error.code() == Code::PackageBuild && error.message().contains("nonsense"), "{error}");
    assert_eq!(carrier.used().len(), 1);
}

#[tokio::test]
async fn a_cut_anywhere_leaves_the_old_generation_and_the_next_attempt_goes_on() {
    let lab = Lab::new(Tools::BusyBox, "lua5.4").await;
    let made = Made::new();
    made.with("bio", "5.4", "one");
    for n in 0..20 {
        made.file("bio", &format!("share/lua/5.4/many/m{n}.lua"), format!("return '{}'", "x".repeat(2_000 + n)).as_bytes());
    }
    let guest = guest(&lab);
    let carrier = Carrier::new(guest.clone(), made.clone());
    let before = lab.sent();
    carrier.switch("bio", true, &Nobody).await.expect("a plan");
    let looked = lab.sent() - before;
    let mut cuts = 0;
    let mut after = looked;
    loop {
        lab.cut_after(after);
        let outcome = carrier.switch("bio", false, &Nobody).await;
        lab.cut_after(u64::MAX);
        match outcome {
            Ok(_) => break,
            Err(error) => assert_eq!(error.code(), Code::DriverUnreachable, "{error}"),
        }
        (cuts, after) = (cuts + 1, after + 4_000);
        // Whatever has a name is whole: trees and files are renamed into place.
        for name in names(&packages(&lab).join("files")).iter().filter(|name| !name.starts_with('.')) {
            let bytes = fs::read(packages(&lab).join("files").join(name)).expect("a file");
            let sum: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(sum, *name);
        }
        guest.look().await.expect("a look");
        let trees = names(&packages(&lab).join("trees"));
        assert!(carrier.used().is_empty() || trees.iter().any(|name| *name == carrier.used()[0].key), "{trees:?}");
    }
    assert!(cuts >= 4, "{cuts} cuts");
    let mut talk = Talk::open(&guest).await;
    assert_eq!(talk.value("return #require('many.m19')").await, "2019");
    // Everything that the cuts have left is cleaned away with the next one.
    made.with("bio", "5.4", "two");
    carrier.switch("bio", false, &Nobody).await.expect("a switch");
    let left: Vec<PathBuf> = walk(&packages(&lab)).into_iter().filter(|path| path.to_string_lossy().contains("/.")).collect();
    let left: Vec<_> = left
        .iter()
        .map(|path| path.strip_prefix(lab.path()).unwrap_or(path))
        .filter(|path| path.to_string_lossy().contains("/."))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}
