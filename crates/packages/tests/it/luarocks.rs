//! The real `luarocks` (Debian's) beside us: versions and constraints as its own modules understand them, and our mirror as its server.

use crate::{mirror::Mirror, servers::served};
use std::{
    io::Write as _,
    process::{Command, Output, Stdio},
};
use vmoon_packages::{Constraints, Version};

/// Runs `lua5.4` with a program and text on standard input.
fn lua(program: &str, input: &str) -> String {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), program).unwrap();
    let child = Command::new("lua5.4").arg(file.path()).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = child.expect("lua5.4 is missing: cargo xtask install");
    let mut stdin = child.stdin.take().unwrap();
    let out = std::thread::scope(|scope| {
        scope.spawn(move || stdin.write_all(input.as_bytes()).unwrap());
        child.wait_with_output().unwrap()
    });
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(out.status.success(), "{said} (Debian package luarocks; cargo xtask install)");
    String::from_utf8(out.stdout).unwrap()
}

/// Numbers that look random and are the same each time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % sides
    }

    fn version(&mut self) -> String {
        const PARTS: &[&str] = &[
            "0",
            "1",
            "2",
            "10",
            "00",
            "007",
            "1.0",
            "1.1",
            "1.2.3",
            "2.0.0",
            "alpha",
            "beta2",
            "rc1",
            "rc",
            "pre",
            "a",
            "b",
            "Z",
            "dev",
            "scm",
            "cvs",
            "20230101",
            "123456789",
            "1_0",
            "1-2",
            "v2",
            "git",
        ];
        const BETWEEN: &[&str] = &[".", ".", "-", "_", "", "..", "-."];
        let mut text = PARTS[self.roll(PARTS.len())].to_owned();
        for _ in 0..self.roll(3) {
            text.push_str(BETWEEN[self.roll(BETWEEN.len())]);
            text.push_str(PARTS[self.roll(PARTS.len())]);
        }
        if self.roll(2) == 0 {
            text.push_str(["-1", "-2", "-10", "-0"][self.roll(4)]);
        }
        text
    }
}

#[test]
fn versions_and_constraints_mean_what_they_mean_to_luarocks() {
    const PROGRAM: &str = r#"
        package.loaded["luarocks.core.util"] = { warning = function(text) io.stderr:write(text, "\n") end }
        local vers = require("luarocks.core.vers")
        local queries
        for line in io.lines() do
            local a, op, b = line:match("^(%S+) (%S+) (%S+)$")
            local va, vb = vers.parse_version(a), vers.parse_version(b)
            local ok = vers.match_constraints(va, { { op = op, version = vb } })
            io.write(tostring(va < vb), " ", tostring(va == vb), " ", tostring(ok), "\n")
        end
    "#;
    let mut dice = Dice(20_261_121);
    let mut input = String::new();
    let mut asked = Vec::new();
    for _ in 0..12_000 {
        let a = dice.version();
        // Mostly versions that are near to each other.
        let b = match dice.roll(4) {
            0 => format!("{}.0", a.rsplit_once('-').map_or(a.as_str(), |(release, _)| release)),
            1 => a.rsplit_once('-').map_or_else(|| format!("{a}-1"), |(release, _)| release.to_owned()),
            _ => dice.version(),
        };
        let operator = ["==", "~=", "<", "<=", ">", ">=", "~>"][dice.roll(7)];
        if a.parse::<Version>().is_err() || b.parse::<Version>().is_err() {
            continue;
        }
        input.push_str(&format!("{a} {operator} {b}\n"));
        asked.push((a, operator, b));
    }
    assert!(asked.len() > 10_000, "{}", asked.len());
    let answers = lua(PROGRAM, &input);
    let mut differing = Vec::new();
    for ((a, operator, b), answer) in asked.iter().zip(answers.lines()) {
        let (va, vb): (Version, Version) = (a.parse().unwrap(), b.parse().unwrap());
        let constraints: Constraints = format!("{operator} {b}").parse().unwrap();
        let ours = format!("{} {} {}", va.below(&vb), va.same(&vb), constraints.allow(&va));
        if ours != answer {
            differing.push(format!("{a} {operator} {b}: luarocks {answer}, we {ours}"));
        }
        // Our order is total and never against that of luarocks.
        if va.below(&vb) {
            assert!(va < vb, "{a} {b}");
        }
    }
    assert_eq!(answers.lines().count(), asked.len());
    assert!(differing.is_empty(), "{} differ:\n{}", differing.len(), differing[..differing.len().min(20)].join("\n"));
}

fn luarocks(tree: &std::path::Path, server: &str, args: &[&str]) -> Output {
    let mut command = Command::new("luarocks");
    command.args(["--lua-version", "5.1", "--only-server", server, "--tree"]).arg(tree).args(args);
    command
        .env("HOME", tree)
        .env("XDG_CACHE_HOME", tree)
        .output()
        .expect("luarocks is missing: cargo xtask install (Debian package luarocks)")
}

fn said(out: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr))
}

#[test]
fn luarocks_accepts_the_mirror_that_the_tests_use() {
    let tree = tempfile::tempdir().unwrap();
    // It wants its headers even for rocks without C.
    let (_dir, _mirror, web) = served(false);
    let found = luarocks(tree.path(), web.url(), &["search", "--porcelain", "bxalpha"]);
    let listed = String::from_utf8_lossy(&found.stdout).into_owned();
    assert!(listed.contains("bxalpha\t2.0-1\tsrc") && listed.contains("bxalpha\t1.0-1\trockspec"), "{}", said(&found));
    let out = luarocks(tree.path(), web.url(), &["install", "bxgamma"]);
    assert!(out.status.success(), "{}", said(&out));
    assert!(tree.path().join("share/lua/5.1/bxgamma.lua").exists(), "{}", said(&out));
    // This is what it does not solve: it says that all is well, and bxbeta, which needs less than 2.0, finds 2.0.
    let out = luarocks(tree.path(), web.url(), &["install", "bxalpha", "2.0"]);
    assert!(out.status.success(), "{}", said(&out));
}

#[test]
fn luarocks_installs_a_rock_that_is_ready() {
    let mirror = Mirror::local().with_standard().with_debian("5.1");
    mirror.publish();
    let tree = tempfile::tempdir().unwrap();
    let directory = mirror.dir().to_str().unwrap();
    for (rock, file) in [("bxready", "share/lua/5.1/bxready.lua"), ("luafilesystem", "lib/lua/5.1/lfs.so")] {
        let out = luarocks(tree.path(), directory, &["install", rock]);
        assert!(out.status.success() && tree.path().join(file).exists(), "{rock}: {}", said(&out));
    }
}
