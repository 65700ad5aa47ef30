//! Arguments and results as data, in every Lua version.

use crate::session::{Session, each};
use serde_json::{Value, json};

/// The values and what did not fit.
fn data(session: &mut Session, arguments: &str, code: &str) -> (Value, Vec<(String, String)>) {
    let outcome = session.call(arguments, code);
    let text = outcome.data.as_deref().unwrap_or_else(|| panic!("{}: {code}: {outcome:?}", session.name));
    let mut all: Value = serde_json::from_str(text).unwrap_or_else(|e| panic!("{}: {code}: {e}: {text}", session.name));
    let unfit = all["unfit"].as_array().unwrap().iter();
    let unfit = unfit.map(|one| (one["path"].as_str().unwrap().to_owned(), one["why"].as_str().unwrap().to_owned())).collect();
    (all["values"].take(), unfit)
}

fn has_integers(session: &Session) -> bool {
    matches!(session.name, "lua5.3" | "lua5.4")
}

#[test]
fn what_goes_in_comes_out() {
    each(|s| {
        let mut all = vec![
            json!([]),
            json!([1, -1, 0, 1.5, -0.25, 1e300, 5e-324, 9_007_199_254_740_991_i64]),
            json!(["", "a\"b\\c\n\t\u{1}\u{7f}/é€😀\u{0}", true, false]),
            json!([[], {}, [[]], {"a": {}}, [{}, []], {"": 1, "b c": [1, 2, {"d": "e"}], "1": 2}]),
            json!([[null, 1, null], {"a": null}]),
            json!([null, 1, null]),
            json!([0.1, 123_456.789_012_345_67, 1e-7, 100.0]),
        ];
        if has_integers(s) {
            all.push(json!([i64::MAX, i64::MIN, 9_007_199_254_740_993_i64, 1.0, -0.0, 2e15]));
        }
        for value in all {
            let (values, unfit) = data(s, &value.to_string(), "return ...");
            // Whole numbers are written without a fraction where Lua has only one kind of number.
            let same = values == value || (!has_integers(s) && numbers(&values) == numbers(&value));
            assert!(same && unfit.is_empty(), "{}: {value} came back as {values}, {unfit:?}", s.name);
        }
    });
}

/// The value with every number as a float.
fn numbers(value: &Value) -> Value {
    match value {
        Value::Number(n) => json!(n.as_f64()),
        Value::Array(all) => all.iter().map(numbers).collect(),
        Value::Object(all) => all.iter().map(|(key, value)| (key.clone(), numbers(value))).collect(),
        other => other.clone(),
    }
}

#[test]
fn arguments_are_values_and_never_source() {
    each(|s| {
        let hostile = json!(["]==] os.exit(7) --[==[", "\" .. os.exit(7) .. \"", "\\27Lua"]);
        let (values, _) = data(s, &hostile.to_string(), "local a, b, c = ... return c, b, a, select('#', ...)");
        assert_eq!(numbers(&values), numbers(&json!([hostile[2], hostile[1], hostile[0], 3])), "{}", s.name);
        let (values, _) = data(s, "[null, 2, null]", "local a, b, c = ... return select('#', ...), a == nil, b, c == nil");
        assert_eq!(numbers(&values), json!([3.0, true, 2.0, true]), "{}", s.name);
        let (values, _) = data(s, r#"[{"a":null}]"#, "local t, vmoon = ..., require 'vmoon' return t.a == vmoon.null, tostring(t.a)");
        assert_eq!(values, json!([true, "null"]), "{}", s.name);
        // The traceback tells of the chunk and not of how it was called.
        let failed = s.call("[1]", "local x = ...\nerror('at ' .. x)");
        let (kind, message, traceback) = failed.failure();
        assert_eq!((kind, message), ('r', "stdin:2: at 1"), "{}", s.name);
        assert!(!traceback.contains("vmoon") && !traceback.contains("tail call"), "{}: {traceback}", s.name);
        // Values are printed as well, and plain commands have none of this.
        assert_eq!(s.call("[1]", "return ...").value(), "1");
        assert_eq!(s.eval("return select('#', ...)").value(), "0");
        let printed = s.call("", "print('x') return 1");
        assert_eq!((printed.text().as_str(), printed.value(), printed.data.is_some()), ("x\n", "1", true));
    });
}

#[test]
fn what_does_not_fit_is_told_and_never_an_error() {
    each(|s| {
        let cases = [
            ("return { f = print, n = 1 }", json!([{"f": null, "n": 1}]), vec![("[1].f", "function")]),
            ("return 1, coroutine.create(print)", json!([1, null]), vec![("[2]", "thread")]),
            ("return io.stdout", json!([null]), vec![("[1]", "userdata")]),
            (
                "return 0/0, 1/0, -1/0",
                json!([null, null, null]),
                vec![("[1]", "not a number"), ("[2]", "an infinite number"), ("[3]", "an infinite number")],
            ),
            (
                "return { '\\255', '\\237\\160\\128', '\\192\\128' }",
                json!([[null, null, null]]),
                vec![
                    ("[1][1]", "a string that is not UTF-8"),
                    ("[1][2]", "a string that is not UTF-8"),
                    ("[1][3]", "a string that is not UTF-8"),
                ],
            ),
            ("return { 1, 2, x = 3 }", json!([null]), vec![("[1]", "keys of both an array and an object")]),
            ("return { [1] = 1, [3] = 3 }", json!([null]), vec![("[1]", "keys of both an array and an object")]),
            ("return { [true] = 1 }", json!([null]), vec![("[1]", "keys that are neither strings nor 1 to n")]),
            ("return { ['\\255'] = 1 }", json!([null]), vec![("[1]", "a key that is not UTF-8")]),
            (
                "local t = {} t.t = { t } return t, { t = 1 }",
                json!([{"t": [null]}, {"t": 1}]),
                vec![("[1].t[1]", "a table that contains itself")],
            ),
            ("return { ['a b'] = { print } }", json!([{"a b": [null]}]), vec![("[1][\"a b\"][1]", "function")]),
            (
                "return setmetatable({}, { __index = error, __pairs = error, __len = error, __tostring = function() return 'x' end })",
                json!([[]]),
                vec![],
            ),
            ("local t = {} return { t, t }", json!([[[], []]]), vec![]),
            ("return require('vmoon').object {}, require('vmoon').null", json!([{}, null]), vec![]),
            ("return", json!([]), vec![]),
        ];
        for (code, values, unfit) in cases {
            let got = data(s, "", code);
            let unfit: Vec<_> = unfit.into_iter().map(|(path, why): (&str, &str)| (path.to_owned(), why.to_owned())).collect();
            assert_eq!((numbers(&got.0), got.1), (numbers(&values), unfit), "{}: {code}", s.name);
        }
        let (values, unfit) = data(s, "", "local t = {} for i = 1, 300 do t[i] = print end return t");
        assert_eq!((values[0].as_array().unwrap().len(), unfit.len()), (300, 100), "{}", s.name);
        assert_eq!(unfit.last().unwrap().1, "more of them");
        let (_, unfit) = data(s, "", "local t = {} for i = 1, 300 do t = { t } end return t");
        assert_eq!(unfit[0].1, "nested too deeply", "{}", s.name);
        for huge in
            ["return ('x'):rep(9e6)", "local t = {} for i = 1, 2e6 do t[i] = 1 end return t", "return { ('x'):rep(5e6), ('x'):rep(5e6) }"]
        {
            let (_, unfit) = data(s, "", huge);
            assert_eq!(unfit[0].1, "too large", "{}: {huge}", s.name);
        }
        assert_eq!(s.eval("return 6 * 7").value(), "42");
    });
}

#[test]
fn what_is_not_json_is_refused_with_its_place() {
    each(|s| {
        s.eval("vmoon = require 'vmoon'");
        let cases = [
            ("", "there is no value at byte 1"),
            ("[1,", "there is no value at byte 4"),
            ("[1 2]", "an array without an end at byte 4"),
            ("{1:2}", "an object whose key is no string at byte 2"),
            (r#"{"a" 1}"#, "a key without a colon at byte 6"),
            (r#"{"a":1"#, "an object without an end at byte 7"),
            (r#""abc"#, "a string without an end at byte 5"),
            ("\"a\nb\"", "a control character in a string at byte 3"),
            (r#""\x""#, "an escape that JSON has not at byte 2"),
            (r#""\u12""#, "a \\u without four digits at byte 2"),
            (r#""\ud800x""#, "half of a surrogate pair at byte 8"),
            ("01", "there is no value at byte 1"),
            ("1.", "more behind the value at byte 2"),
            ("NaN", "there is no value at byte 1"),
            ("1 2", "more behind the value at byte 3"),
            ("1e400", "a number out of range at byte 1"),
            ("nul", "there is no value at byte 1"),
        ];
        for (text, problem) in cases {
            let chunk = format!("return vmoon.decode({})", serde_json::to_string(text).unwrap().replace("\\u", "\\\\u"));
            let got = s.call(&json!([text]).to_string(), "return vmoon.decode((...))");
            assert_eq!(got.value(), format!("nil\tnot JSON: {problem}"), "{}: {chunk}", s.name);
        }
        let deep = "[".repeat(5_000_000);
        let got = s.call(&json!([deep]).to_string(), "return vmoon.decode((...))");
        assert_eq!(got.value(), "nil\tnot JSON: values nested too deeply at byte 102", "{}", s.name);
        let refused = s.call("{}", "return 1");
        assert_eq!(refused.failure().1, "the arguments are no array", "{}", s.name);
        assert!(s.eval("vmoon.encode(print)").failure().1.contains("has no form in JSON"));
    });
}
