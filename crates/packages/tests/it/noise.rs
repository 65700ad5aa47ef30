//! Everything that reads what strangers wrote, fed with good text that was spoilt: an error or an answer, never a panic and never an endless wait.

use crate::sandbox::Never;
use serde_json::{Value, json};
use vmoon_packages::{Constraints, Dependency, Lock, Manifest, RockName, Rockspec, Version, lock, rockspec::PLATFORMS};

/// Numbers that look random and are the same each time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % sides
    }

    /// The text with some bytes changed, doubled, or left out.
    fn spoil(&mut self, good: &[u8]) -> Vec<u8> {
        let mut bytes = good.to_vec();
        for _ in 0..=self.roll(6) {
            if bytes.is_empty() {
                break;
            }
            let at = self.roll(bytes.len());
            match self.roll(5) {
                0 => bytes.truncate(at),
                1 => drop(bytes.remove(at)),
                2 => bytes[at] = self.roll(256) as u8,
                3 => bytes.insert(at, b"\0\n\"'{}[]<>=/.-\xff"[self.roll(15)]),
                _ => {
                    let end = (at + self.roll(40)).min(bytes.len());
                    let piece = bytes[at..end].to_vec();
                    bytes.splice(at..at, piece);
                }
            }
        }
        bytes
    }

    /// The value with some of it replaced by something else.
    fn spoil_value(&mut self, value: &mut Value) {
        let others =
            [json!(null), json!(true), json!(-1e300), json!("../x"), json!([]), json!({"1": 1, "x": []}), json!([[["deep"]]]), json!("")];
        match value {
            Value::Object(object) if self.roll(4) > 0 && !object.is_empty() => {
                let at = self.roll(object.len());
                if let Some(value) = object.values_mut().nth(at) {
                    self.spoil_value(value);
                }
            }
            Value::Array(list) if self.roll(4) > 0 && !list.is_empty() => {
                let at = self.roll(list.len());
                self.spoil_value(&mut list[at]);
            }
            other => *other = others[self.roll(others.len())].clone(),
        }
    }
}

const ROUNDS: usize = 3_000;

#[test]
fn spoilt_manifests_and_locks_are_answered() {
    let mut dice = Dice(7);
    let plain =
        b"modules = { re = { \"lpeg/1-1\" } }\nrepository = { lpeg = { [\"1.0-1\"] = { { arch = \"src\" }, { arch = \"all\" } } } }\n";
    let compact = b"vmoon manifest 1\n=lpeg\n1.0.2-1 rockspec src\n0.9-1 all linux-x86_64\n=x\nscm-1 src\n@lpeg lpeg/1.0.2-1\n!0\n";
    let json =
        br#"{"repository":{"lpeg":{"1.0.2-1":[{"arch":"rockspec"},{"arch":"src"}]}},"modules":{"re":["lpeg/1.0.2-1"]},"commands":[]}"#;
    let lux =
        br#"{"version":"2.0.0","dependencies":{"rocks":{"a":{"name":"x","version":"1-1","constraint":">=1"}},"entrypoints":{"x":"a"}}}"#;
    let mut lock = Lock::empty(vmoon_packages::LuaVersion::V54);
    lock.wanted.push("lpeg >= 1".parse().unwrap());
    let toml = format!(
        "{}[[rock]]\nname = \"lpeg\"\nversion = \"1.0-1\"\narch = \"rockspec\"\nurl = \"https://a.example/l\"\nwhy = \"asked\"\n\
         [rock.source]\nurl = \"git+https://a.example/l.git\"\ntag = \"v1\"\n",
        lock.to_toml().unwrap()
    );
    Lock::from_toml(&toml).unwrap();
    for _ in 0..ROUNDS {
        if let Ok(manifest) = Manifest::from_compact(&dice.spoil(compact)) {
            assert_eq!(Manifest::from_compact(&manifest.to_compact()).unwrap(), manifest);
        }
        let _ = Manifest::from_json(&dice.spoil(json));
        let _ = Manifest::read(&dice.spoil(plain), &Never);
        let _ = lock::import_lux(&dice.spoil(lux));
        let spoilt = String::from_utf8_lossy(&dice.spoil(toml.as_bytes())).into_owned();
        if let Ok(lock) = Lock::from_toml(&spoilt) {
            assert_eq!(Lock::from_toml(&lock.to_toml().unwrap()).unwrap(), lock);
        }
    }
}

#[test]
fn spoilt_rockspecs_are_answered_and_what_is_read_stays_inside() {
    let mut dice = Dice(11);
    let good = json!({
        "rockspec_format": "3.0", "package": "x", "version": "1.0-1", "source": {"url": "https://a.example/x.tar.gz", "dir": "x-1.0"},
        "description": {"summary": "s", "labels": ["a"]}, "dependencies": ["lua >= 5.1", "lpeg ~> 1.0"], "supported_platforms": ["!windows"],
        "build": {
            "type": "builtin", "copy_directories": ["doc"], "patches": {"p": "text"},
            "modules": {"a": "a.lua", "b": ["b.c"], "c": {"sources": ["c.c"], "libraries": ["z"]}},
            "install": {"lua": {"d": "d.lua"}, "bin": ["e"]}, "platforms": {"linux": {"modules": {"f": "f.lua"}}},
        },
    });
    Rockspec::from_value(&good, PLATFORMS).unwrap();
    let mut read = 0;
    for _ in 0..ROUNDS {
        let mut spoilt = good.clone();
        dice.spoil_value(&mut spoilt);
        match Rockspec::from_value(&spoilt, PLATFORMS) {
            Ok(spec) => {
                read += 1;
                let install = &spec.build.install;
                let files = [&install.lua, &install.lib, &install.bin, &install.conf].into_iter().flatten().map(|entry| &entry.file);
                let all = files.chain(&spec.build.copy_directories).chain(&spec.source.dir);
                all.for_each(|path| assert!(!path.starts_with('/') && !path.split('/').any(|part| part == ".."), "{path}"));
                spec.build.modules.keys().for_each(|name| assert!(!name.contains('/') && !name.contains(".."), "{name}"));
            }
            Err(error) => assert!(error.message().len() < 5_000, "{}", error.message().len()),
        }
    }
    assert!(read > ROUNDS / 20, "{read}");
}

#[test]
fn noise_is_no_name_version_or_constraint_of_harm() {
    let mut dice = Dice(13);
    for good in ["lua-cjson >= 2.1, < 3.0rc1", "lpeg ~> 1.0-2", "x@scm-1"] {
        for _ in 0..ROUNDS {
            let text = String::from_utf8_lossy(&dice.spoil(good.as_bytes())).into_owned();
            if let Ok(dependency) = text.parse::<Dependency>() {
                assert_eq!(dependency.to_string().parse::<Dependency>().unwrap(), dependency, "{text:?}");
            }
            if let Ok(name) = text.parse::<RockName>() {
                assert!(!name.as_str().contains('/') && !name.as_str().starts_with('.'));
            }
            if let Ok(version) = text.parse::<Version>() {
                assert!(version.same(&version) && !version.below(&version) && version.starts_with(&version));
            }
            let _ = text.parse::<Constraints>();
        }
    }
}
