//! The short form of `vmoon soak`: the long one is for whoever changes what machines or the daemon do.

use crate::of_vmoon;
use serde_json::{Value, json};

#[test]
fn a_short_soak_finds_nothing_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let output = of_vmoon("soak", dir.path(), &["--time", "10s", "--machines", "4", "--seed", "1"]);
    let told: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
    assert_eq!((&told["wrong"], output.status.code()), (&json!([]), Some(0)), "{told:#}");
    let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.is_empty(), "{left:?}");
}
