//! A manifest as large as the public one, in each form.

use crate::sandbox::{Installed, Never};
use std::{
    fmt::Write as _,
    time::{Duration, Instant},
};
use vmoon_packages::{evaluate::Evaluator as _, manifest::Manifest};

/// A manifest of as many lines as the public one has, in its form.
pub(crate) fn public_sized() -> String {
    let mut text = String::from("commands = {}\nmodules = {}\nrepository = {\n");
    let (mut lines, mut rock) = (3, 0);
    while lines < 285_000 {
        writeln!(text, "   [\"rock-{rock}\"] = {{").unwrap();
        for version in 0..(rock * 7 % 14 + 1) {
            write!(
                text,
                "      [\"{}.{}.{version}-1\"] = {{\n         {{\n            arch = \"rockspec\"\n         }}, {{\n            arch = \"src\"\n         }}\n      }},\n",
                version / 4,
                version % 4
            )
            .unwrap();
            lines += 7;
        }
        text.push_str("   },\n");
        lines += 2;
        rock += 1;
    }
    text.push_str("}\n");
    text
}

fn best_of(times: usize, mut work: impl FnMut()) -> Duration {
    let timed = (0..times).map(|_| {
        let start = Instant::now();
        work();
        start.elapsed()
    });
    timed.min().unwrap()
}

/// The bar is 100 ms on a quiet machine with an optimised build; the bounds here leave room for neither.
#[test]
#[expect(clippy::print_stderr, reason = "the figures are for who measures")]
fn a_manifest_as_large_as_the_public_one_is_read_quickly() {
    let text = public_sized();
    assert!(text.lines().count() >= 285_000);
    let evaluator = Installed::default();
    let mut manifest = Manifest::default();
    let evaluated = best_of(3, || manifest = Manifest::from_compact(&evaluator.manifest(text.as_bytes()).unwrap()).unwrap());
    let plain = best_of(3, || assert_eq!(Manifest::read(text.as_bytes(), &Never).unwrap(), manifest));
    assert_eq!(manifest.passed_over, 0);
    let versions: usize = manifest.rocks.values().map(Vec::len).sum();
    assert!(versions > 38_000, "{versions}");
    let compact = manifest.to_compact();
    let again = best_of(3, || assert_eq!(Manifest::read(&compact, &Never).unwrap().rocks.len(), manifest.rocks.len()));
    let repository: serde_json::Map<String, serde_json::Value> = manifest
        .rocks
        .iter()
        .map(|(name, versions)| {
            let forms = |listed: &vmoon_packages::manifest::Listed| -> Vec<_> {
                listed.archs.iter().map(|arch| serde_json::json!({"arch": arch.as_str()})).collect()
            };
            let versions = versions.iter().map(|listed| (listed.version.to_string(), forms(listed).into()));
            (name.to_string(), serde_json::Value::Object(versions.collect()))
        })
        .collect();
    let json = serde_json::json!({"repository": repository, "modules": {}, "commands": {}}).to_string();
    let from_json = best_of(3, || assert_eq!(Manifest::read(json.as_bytes(), &Never).unwrap(), manifest));
    eprintln!("285 000 lines: plain {plain:?}, evaluated {evaluated:?}, compact {again:?}, JSON {from_json:?}");
    assert!(
        plain < Duration::from_secs(2)
            && evaluated < Duration::from_secs(6)
            && again < Duration::from_secs(2)
            && from_json < Duration::from_secs(2)
    );
}
