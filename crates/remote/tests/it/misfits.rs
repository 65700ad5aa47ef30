//! Hosts that an environment does not fit: another processor, another C library, no room.

use crate::{
    environments::{Made, guest, names, packages},
    lab::{Lab, Tools},
    talk::Talk,
};
use std::{
    ffi::OsStr,
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};
use vmoon_core::{Code, ability::Nobody};
use vmoon_remote::environment::Carrier;

fn run<S: AsRef<OsStr>>(program: &str, args: impl IntoIterator<Item = S>) {
    let out = Command::new(program).args(args).output();
    let out = out.unwrap_or_else(|error| panic!("{program}: {error}; install the components: cargo xtask install"));
    assert!(out.status.success(), "{program}: {}", String::from_utf8_lossy(&out.stderr));
}

/// Lets the host have the compiler of this computer.
fn compiler(lab: &Lab) {
    for tool in ["cc", "as", "ld"] {
        symlink(Path::new("/usr/bin").join(tool), lab.path().join("bin").join(tool)).expect("a link");
    }
}

#[tokio::test]
async fn a_module_for_another_processor_is_refused_or_compiled_there() {
    let (lab, made) = (Lab::new(Tools::System, "lua5.4").await, Made::new());
    made.with("bio", "5.4", "hello");
    let module = made.path("bio/lib/lua/5.4/answer.so");
    let mut bytes = fs::read(&module).expect("a module");
    // EM_AARCH64.
    bytes[18..20].copy_from_slice(&183_u16.to_le_bytes());
    fs::write(&module, &bytes).expect("a module");
    let guest = guest(&lab);
    let carrier = Carrier::new(guest.clone(), made.clone());
    let error = carrier.switch("bio", false, &Nobody).await.expect_err("another processor");
    assert_eq!(error.code(), Code::SpecInvalid);
    let said = error.message();
    assert!(said.contains("answer.so was compiled for aarch64, and there is no C compiler on lab"), "{error}");
    assert!(error.hint_text().is_some_and(|hint| hint.contains("gcc")) && !packages(&lab).join("trees").exists(), "{error:?}");
    compiler(&lab);
    let steps = carrier.switch("bio", false, &Nobody).await.expect("a switch").steps;
    assert!(steps[1].contains("compiles answer on lab") && steps[1].ends_with("answer.so was compiled for aarch64"), "{steps:?}");
    assert_eq!(Talk::open(&guest).await.value("return (require('answer'))").await, "forty-two");
}

/// Makes the host's Lua one that was linked with musl, as far as its file tells: its loader is called so, and it needs musl's library besides.
fn musl(lab: &Lab) {
    let place = |name: &str| lab.path().join(name);
    let loader = |name: &Path| format!("-Wl,--dynamic-linker={}", name.display());
    symlink("/lib64/ld-linux-x86-64.so.2", place("ld-musl-x86_64.so.1")).expect("a link");
    fs::write(place("stub.c"), "int vmoon_stub;\n").expect("a source");
    fs::write(place("lua.c"), "#include <unistd.h>\nint main(int n, char **v) { (void)n; execv(\"/usr/bin/lua5.4\", v); return 127; }\n")
        .expect("a source");
    let library = place("libc.musl-x86_64.so.1");
    let words = |all: &[&str]| all.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let text = |path: PathBuf| path.display().to_string();
    let mut stub = words(&["-shared", "-fPIC", "-nostdlib", "-Wl,-soname,libc.musl-x86_64.so.1", "-o"]);
    stub.extend([text(library.clone()), text(place("stub.c"))]);
    run("cc", stub);
    fs::remove_file(place("bin/lua")).expect("the other Lua");
    let mut lua = vec!["-o".to_owned(), text(place("bin/lua")), text(place("lua.c"))];
    // What is named last is what the file says.
    lua.extend(words(&["-nodefaultlibs", "-Wl,--no-as-needed", "-lc"]));
    lua.extend([text(library), format!("-Wl,-rpath,{}", lab.path().display()), loader(&place("ld-musl-x86_64.so.1"))]);
    run("cc", lua);
}

#[tokio::test]
async fn a_host_with_musl_gets_no_modules_for_glibc() {
    let (lab, made) = (Lab::new(Tools::System, "lua5.4").await, Made::new());
    musl(&lab);
    made.with("bio", "5.4", "hello");
    // A module that needs this computer's C library, which one without any would not.
    let (source, module) = (made.path("bio/answer.c"), made.path("bio/lib/lua/5.4/answer.so"));
    run(
        "cc",
        [OsStr::new("-shared"), "-fPIC".as_ref(), "-Wl,--no-as-needed".as_ref(), "-o".as_ref(), module.as_os_str(), source.as_os_str()],
    );
    let guest = guest(&lab);
    let carrier = Carrier::new(guest.clone(), made.clone());
    for dry_run in [true, false] {
        let error = carrier.switch("bio", dry_run, &Nobody).await.expect_err("another C library");
        assert_eq!(error.code(), Code::SpecInvalid);
        let said = error.message();
        assert!(
            said.contains("answer.so was compiled for glibc, and there is no C compiler") && said.contains("x86_64 with musl"),
            "{error}"
        );
    }
    compiler(&lab);
    let steps = carrier.switch("bio", false, &Nobody).await.expect("a switch").steps;
    assert!(steps[1].contains("with musl: answer.so was compiled for glibc"), "{steps:?}");
    assert_eq!(Talk::open(&guest).await.value("return (require('answer'))").await, "forty-two");
}

/// A file system of its own for what the host keeps; gone when this is dropped.
struct Small(PathBuf);

impl Small {
    fn mount(at: PathBuf, options: &str) -> Self {
        run("mount", ["-t".as_ref(), "tmpfs".as_ref(), "-o".as_ref(), OsStr::new(options), "tmpfs".as_ref(), at.as_os_str()]);
        Self(at)
    }

    fn becomes(&self, options: &str) {
        let options = format!("remount,{options}");
        run("mount", ["-o".as_ref(), OsStr::new(&options), self.0.as_os_str()]);
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        // Sessions of the host still have it open.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[tokio::test]
async fn a_full_disk_there_changes_nothing_and_the_next_attempt_goes_on() {
    let (lab, made) = (Lab::new(Tools::BusyBox, "lua5.4").await, Made::new());
    let disk = Small::mount(lab.path().join("state"), "size=3m,mode=700");
    made.with("small", "5.4", "hello");
    made.with("bio", "5.4", "hello of bio");
    for n in 0..60 {
        made.file("bio", &format!("share/lua/5.4/many/m{n}.lua"), format!("return #'{}{n}'", "x".repeat(90_000)).as_bytes());
    }
    let guest = guest(&lab);
    let carrier = Carrier::new(guest.clone(), made.clone());
    carrier.switch("small", false, &Nobody).await.expect("a switch");
    let mut talk = Talk::open(&guest).await;
    assert_eq!(talk.value("x = 42 return require('greet').say()").await, "hello");
    // It is seen beforehand that five megabytes do not fit into three.
    let error = carrier.switch("bio", false, &Nobody).await.expect_err("no room");
    assert_eq!(error.code(), Code::DiskFull, "{error}");
    assert!(
        error.message().contains("bytes left") && error.hint_text().is_some_and(|hint| hint.contains("nothing was changed")),
        "{error:?}"
    );
    // Room for the bytes, but not for so many files: that is found in the middle.
    disk.becomes("size=30m,nr_inodes=60");
    let error = carrier.switch("bio", false, &Nobody).await.expect_err("no room");
    assert_eq!(error.code(), Code::DiskFull, "{error}");
    let trees = |dir: &str| names(&packages(&lab).join(dir)).into_iter().filter(|name| !name.starts_with('.')).count();
    assert_eq!(trees("trees"), 1, "nothing half is visible");
    assert_eq!(carrier.used().iter().map(|used| used.environment.name.as_str()).collect::<Vec<_>>(), ["small"]);
    assert_eq!(talk.value("return require('greet').say() .. x").await, "hello42");
    // Somebody has made room.
    let had = trees("files");
    assert!(had > 3, "what was sent is there: {had}");
    disk.becomes("size=30m,nr_inodes=2000");
    let steps = carrier.switch("bio", false, &Nobody).await.expect("a switch").steps;
    assert!(steps[0].contains("are there already"), "{steps:?}");
    drop(talk);
    assert_eq!(carrier.used().last().map(|used| used.environment.name.clone()).as_deref(), Some("bio"));
    assert_eq!(names(&packages(&lab).join("trees")).len(), 2);
    lab.cut();
}
