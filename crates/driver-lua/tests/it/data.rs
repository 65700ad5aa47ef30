//! Arguments and results as data through a holder's socket. What the codec does in every Lua version is tested beside it.

use crate::client::{Client, Holder, Options};
use serde_json::{Value, json};
use vmoon_core::frame::{Eval, tag};

/// The frames of a command that was wanted as data: the DATA, and the tags in order.
fn data(client: &mut Client, arguments: &str, code: &str) -> (Value, String) {
    let id = client.call(arguments, code);
    let frames = client.until_done(id);
    let tags = frames.iter().map(|frame| frame.tag as char).collect();
    let found = frames.iter().find(|frame| frame.tag == tag::DATA).unwrap_or_else(|| panic!("{code}: {frames:?}"));
    (serde_json::from_slice(&found.payload).unwrap(), tags)
}

#[test]
fn arguments_arrive_and_values_come_back() {
    let holder = Holder::new();
    let mut client = holder.client(0);
    let (got, tags) = data(&mut client, r#"[1,"two",{"three":[3.5,null,9223372036854775807]}]"#, "print('out') return ...");
    // Without integers a number is the nearest that there is.
    let last = if crate::OLD { json!(9_223_372_036_854_775_807_f64) } else { json!(i64::MAX) };
    assert_eq!(got, json!({"values": [1, "two", {"three": [3.5, null, last]}], "unfit": []}));
    // The output before the values, the data before what is printed of them.
    assert_eq!(tags, "EOTVD");
    let (got, tags) = data(&mut client, "", "x = 1");
    assert_eq!((got, tags.as_str()), (json!({"values": [], "unfit": []}), "ETD"));
    let (got, _) = data(&mut client, "", "return { f = print }");
    assert_eq!(got, json!({"values": [{"f": null}], "unfit": [{"path": "[1].f", "why": "function"}]}));
    // What is kept of the command is what is kept of any other: code and token, and not the arguments.
    let id = client.call("[1]", "return ...");
    let accepted = client.next();
    assert_eq!(accepted.tag, tag::ACCEPTED);
    assert_eq!(Eval::decode(&accepted.payload).unwrap().code, b"return ...");
    client.until_done(id);
    // A command that fails gives no data; a plain one neither.
    let id = client.call("[]", "error('no')");
    assert!(client.until_done(id).iter().all(|frame| frame.tag != tag::DATA));
    assert!(client.run("return 1").iter().all(|frame| frame.tag != tag::DATA));
}

#[test]
fn values_that_take_too_much_memory_are_told_of() {
    let holder = Holder::with(&Options { memory: Some(20 << 20), ..Options::default() });
    let mut client = holder.client(0);
    let (got, _) = data(&mut client, "", "kept = ('x'):rep(9 * 2^19) return kept");
    assert!(got["values"].is_null() && got["unfit"][0]["why"].as_str().unwrap().contains("memory"), "{got}");
    assert_eq!(client.value("#kept"), (9 << 19).to_string());
}

#[test]
fn a_call_that_is_cut_short_is_refused() {
    let holder = Holder::new();
    let mut client = holder.client(0);
    for payload in [&b""[..], b"\x01", b"\x01\xff\xff\xff\xff[1]", b"\x01\x03\x00\x00\x00[1]\x00"] {
        let id = client.next_id;
        client.send(tag::CALL, id, payload);
        let refused = client.next();
        assert_eq!((refused.tag, refused.id), (tag::REFUSED, id), "{payload:?}");
        assert!(refused.text().starts_with("wire.malformed\n"), "{}", refused.text());
    }
    assert_eq!(client.value("6 * 7"), "42");
}

#[test]
fn a_confined_program_has_its_arguments_and_the_module() {
    let lua = json!({ "grants": { "profile": "sealed" } });
    let holder = Holder::with(&Options { lua, ..Options::default() });
    let mut client = holder.client(0);
    let (got, _) = data(&mut client, "[[null]]", "local t = ... return t[1] == require('vmoon').null, pcall(io.popen, 'true')");
    assert_eq!(got["values"][0], json!(true));
    assert!(got["values"][2].as_str().unwrap().contains("io.popen is not granted to this VM (profile sealed)"), "{got}");
}
