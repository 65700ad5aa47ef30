//! The biology rocks as they are shipped: unpacked from what the built-in server gives out, run by every interpreter with the tests that stand beside their
//! sources. The tests name the source of every value they expect.

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};
use vmoon_packages::{
    archive::{self, Limits},
    builtin::{self, BuiltinRock},
    digest,
};
use vmoon_sys::{
    run::{End, Run},
    stop::Stop,
};

const INTERPRETERS: [&str; 5] = ["lua5.1", "lua5.2", "lua5.3", "lua5.4", "luajit"];

fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("rocks")
}

/// Runs a Lua program and gives back what it wrote; panics with all of it unless it ended with 0.
fn lua(interpreter: &str, program: &Path, modules: &[PathBuf]) -> String {
    let exe = Path::new("/usr/bin").join(interpreter);
    assert!(exe.exists(), "{interpreter} is not here: install the Debian package {interpreter} (cargo xtask install)");
    let path: Vec<String> = modules.iter().map(|dir| format!("{0}/?.lua", dir.display())).collect();
    let path = path.join(";");
    let run = Run {
        exe: &exe,
        args: vec![program.as_os_str()],
        env: vec![(OsStr::new("LUA_PATH"), OsStr::new(&path))],
        dir: program.parent().unwrap(),
        input: b"",
        extra: Vec::new(),
        merged: true,
        keep: 1 << 20,
        limit: Duration::from_secs(120),
        largest_file: None,
    };
    let ran = run.run(&Stop::default()).unwrap();
    assert_eq!(ran.end, End::Code(0), "{interpreter} {}:\n{}", program.display(), ran.out.text());
    ran.out.text()
}

/// Unpacks a file of the built-in server into a new directory.
fn unpack(name: &str, into: &Path) -> Vec<PathBuf> {
    let file = into.with_extension("rock");
    fs::write(&file, builtin::file(name).unwrap()).unwrap();
    archive::unpack(&file, name, into, Limits::default(), &Stop::default()).unwrap()
}

/// The directories of Lua modules of all rocks, unpacked from their `.all.rock`.
fn trees(dir: &Path) -> Vec<PathBuf> {
    let of = |rock: &BuiltinRock| {
        let into = dir.join(rock.name);
        unpack(&format!("{}.all.rock", rock.stem()), &into);
        into.join("lua")
    };
    builtin::rocks().iter().map(of).collect()
}

fn tests_of(rock: &BuiltinRock, interpreter: &str) {
    let dir = tempfile::tempdir().unwrap();
    let mut modules = trees(dir.path());
    modules.push(sources().join("tests"));
    let mut programs: Vec<PathBuf> =
        fs::read_dir(sources().join(rock.name).join("tests")).unwrap().map(|entry| entry.unwrap().path()).collect();
    programs.sort();
    assert!(!programs.is_empty(), "{} has no tests", rock.name);
    for program in programs {
        let said = lua(interpreter, &program, &modules);
        assert!(said.contains(" passed, 0 failed"), "{interpreter} {}: {said}", program.display());
    }
}

#[test]
fn the_rocks_hold_what_they_promise_in_every_interpreter() {
    std::thread::scope(|scope| {
        for interpreter in INTERPRETERS {
            scope.spawn(move || builtin::rocks().iter().for_each(|rock| tests_of(rock, interpreter)));
        }
    });
}

#[test]
fn every_source_file_is_shipped_and_every_module_is_loaded() {
    for rock in builtin::rocks() {
        let root = sources().join(rock.name).join("src");
        let mut files = BTreeSet::new();
        let mut folders = vec![root.clone()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    files.insert(path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned());
                }
            }
        }
        let shipped: BTreeSet<String> = rock.modules.iter().map(|(module, _)| BuiltinRock::module_file(module)).collect();
        assert_eq!(shipped, files, "{}", rock.name);
        // What the rockspec lists is what is shipped.
        for (module, _) in rock.modules {
            let listed = format!("\"src/{}\"", BuiltinRock::module_file(module));
            assert!(rock.rockspec.contains(&listed), "{}: the rockspec does not list {module}", rock.name);
        }
        assert_eq!(rock.rockspec.matches("\"src/").count(), rock.modules.len(), "{}", rock.name);
    }
}

#[test]
fn sources_and_rocks_have_the_places_that_installers_look_at() {
    let dir = tempfile::tempdir().unwrap();
    for rock in builtin::rocks() {
        let all = dir.path().join(format!("{}-all", rock.name));
        unpack(&format!("{}.all.rock", rock.stem()), &all);
        assert!(all.join(format!("{}.rockspec", rock.stem())).is_file() && all.join("doc/README.md").is_file());
        let src = dir.path().join(format!("{}-src", rock.name));
        unpack(&format!("{}.src.rock", rock.stem()), &src);
        let zip = format!("{}-{}.zip", rock.name, rock.version);
        assert_eq!(fs::read(src.join(&zip)).unwrap(), *builtin::file(&zip).unwrap());
        let inner = dir.path().join(format!("{}-inner", rock.name));
        archive::unpack(&src.join(&zip), &zip, &inner, Limits::default(), &Stop::default()).unwrap();
        for (module, text) in rock.modules {
            let file = inner.join(format!("{}-{}/src", rock.name, rock.version)).join(BuiltinRock::module_file(module));
            assert_eq!(fs::read_to_string(file).unwrap(), *text);
        }
        for said in [
            format!("url = \"builtin:{zip}\""),
            format!("dir = \"{}-{}\"", rock.name, rock.version),
            format!("version = \"{}-{}\"", rock.version, rock.revision),
        ] {
            assert!(rock.rockspec.contains(&said), "{}: {said}", rock.name);
        }
    }
}

/// Locks promise these sums. What was released never changes; a change of a rock is a new revision, or, before its first release, a new line in the
/// file, which `VMOON_WRITE_SUMS=1 cargo test -p vmoon-packages --test it biology` writes.
#[test]
fn what_is_packed_has_the_sums_that_are_written_down() {
    let file = sources().join("SHA256SUMS");
    if std::env::var_os("VMOON_WRITE_SUMS").is_some() {
        fs::write(&file, builtin::sums()).unwrap();
    }
    assert_eq!(fs::read_to_string(&file).unwrap(), builtin::sums(), "{} is not what is packed now", file.display());
    let mut hasher = digest::Hasher::new();
    hasher.update(&builtin::file("bio-utils-1.0.0-1.all.rock").unwrap());
    assert!(builtin::sums().starts_with(&hasher.finish()));
}
