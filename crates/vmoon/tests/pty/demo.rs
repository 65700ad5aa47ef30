//! `vmoon demo`, where it is built in.

use crate::home::Home;
use std::{
    io::{BufRead as _, BufReader},
    process::{Child, ChildStderr, Stdio},
};

/// A demonstration that has said what to try.
fn started(home: &Home) -> (Child, ChildStderr) {
    let mut child =
        home.command(["demo", "xcpng", "--rows"]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("vmoon demo stop") {
        line.clear();
        assert!(said.read_line(&mut line).unwrap() > 0, "it ended before it was ready: {:?}", child.wait());
    }
    // Whatever more it says is read by nobody, and is little.
    (child, said.into_inner())
}

#[test]
fn it_comes_with_its_connection_and_goes_with_it() {
    let home = Home::new();
    let (mut child, _said) = started(&home);
    home.ok(["create", "demo:moon", "--set", "template=linux-lua", "--start"]);
    assert!(home.ok(["list"]).contains("moon"));
    let second = home.vmoon(["demo", "xcpng", "--rows", "--name", "other"], b"");
    assert!(String::from_utf8_lossy(&second.stderr).contains("runs already"), "{second:?}");
    assert!(home.ok(["list"]).contains("moon"), "the first one goes on");
    home.ok(["demo", "stop"]);
    assert!(child.wait().unwrap().success());
    assert!(!home.ok(["connection", "list"]).contains("demo"));

    // One that was killed leaves a connection, which the next one replaces.
    let (mut child, _said) = started(&home);
    child.kill().unwrap();
    child.wait().unwrap();
    let (mut child, _said) = started(&home);
    home.ok(["demo", "stop"]);
    assert!(child.wait().unwrap().success());
    assert!(!home.ok(["connection", "list"]).contains("demo"));
    home.ok(["demo", "stop"]);
}
