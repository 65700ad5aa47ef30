//! Programs that want more memory than they may have: an error of that command, and the machine goes on.

use crate::client::{Holder, Options};
use vmoon_core::frame::{Failure, FailureKind, tag};

const BOMBS: [(&str, &str); 9] = [
    ("one huge string", "return #string.rep('x', 1e15)"),
    ("a string beyond any number", "return #string.rep('x', math.maxinteger, 'yy')"),
    ("a string just over the limit", "return #string.rep('x', 70 * 2^20)"),
    ("a table that grows", "local t = {} for i = 1, math.huge do t[i] = i end"),
    ("tables in tables", "local t = {} while true do t = { t, {}, {} } end"),
    ("a string that doubles", "local s = 'x' while true do s = s .. s end"),
    ("a huge concatenation", "local t = {} for i = 1, 1e6 do t[i] = ('x'):rep(100) end return #table.concat(t)"),
    ("deep recursion", "local function f(n) return 1 + f(n + 1) end return f(1)"),
    ("coroutines without end", "local t = {} for i = 1, math.huge do t[i] = coroutine.create(function() end) end"),
];

#[test]
fn a_bomb_is_an_error_of_its_command() {
    let holder = Holder::with(&Options { memory: Some(64 << 20), ..Options::default() });
    let mut client = holder.client(0);
    client.run("kept = 42");
    // The old ones cut a number of repetitions to 32 bits.
    for (name, code) in BOMBS.into_iter().skip(if crate::OLD { 2 } else { 0 }) {
        let frames = client.run(code);
        let error = frames.iter().find(|frame| frame.tag == tag::ERROR).unwrap_or_else(|| panic!("{name}: {frames:?}"));
        let failure = Failure::decode(&error.payload).unwrap();
        let message = String::from_utf8_lossy(failure.message).into_owned();
        let known = ["not enough memory", "stack overflow", "resulting string too large"].iter().any(|part| message.contains(part));
        assert!(failure.kind == FailureKind::Runtime && known, "{name}: {message}");
        // The program itself can catch it, too, and go on.
        let caught = client.value(format!("local ok = pcall(function() {code} end) collectgarbage() return ok, kept"));
        assert_eq!(caught, "false\t42", "{name}");
    }
    assert_eq!(client.value("#string.rep('x', 2^20)"), "1048576");
}
