//! The list of escapes through the libraries, tried in every runtime and profile with the kernel's layers off.

use crate::vm::{INTERPRETERS, Vm};
use serde_json::json;

const PROFILES: [&str; 4] = ["sealed", "files", "net", "trusted"];

struct Attempt {
    name: String,
    expected: Vec<String>,
    only: Vec<String>,
    chunk: String,
}

fn attempts() -> Vec<Attempt> {
    let mut all: Vec<Attempt> = Vec::new();
    for line in include_str!("escapes.txt").lines() {
        if let Some(head) = line.strip_prefix("== ") {
            let words = |text: Option<&str>| text.unwrap_or_default().split_whitespace().map(str::to_owned).collect::<Vec<_>>();
            let mut parts = head.split('|');
            let name = parts.next().unwrap().trim().to_owned();
            let (expected, only) = (words(parts.next()), words(parts.next()));
            assert_eq!(expected.len(), PROFILES.len(), "{name}");
            all.push(Attempt { name, expected, only, chunk: String::new() });
        } else if let Some(attempt) = all.last_mut() {
            attempt.chunk.push_str(line);
            attempt.chunk.push('\n');
        }
    }
    all
}

/// What became of an attempt, in the words of the list.
fn outcome(vm: &mut Vm, chunk: &str) -> (&'static str, String) {
    let outcome = vm.eval(chunk);
    let said = format!("{:?} {:?}", outcome.values, outcome.error);
    let word = if outcome.values.as_deref().is_some_and(|values| values.starts_with("true")) {
        "pass"
    } else if said.contains("not granted to this VM (profile ") {
        "refused"
    } else {
        "absent"
    };
    (word, said)
}

#[test]
fn every_escape_ends_as_the_list_says() {
    let attempts = attempts();
    assert!(attempts.len() >= 40, "{}", attempts.len());
    let mut wrong = Vec::new();
    for (column, profile) in PROFILES.into_iter().enumerate() {
        for runtime in INTERPRETERS.into_iter().chain(["builtin"]) {
            let mut vm = Vm::confined(runtime, |work| json!({ "profile": profile, "work": (profile != "sealed").then_some(work) }));
            for attempt in &attempts {
                let expected = &attempt.expected[column];
                if expected == "any" || !(attempt.only.is_empty() || attempt.only.iter().any(|only| only == runtime)) {
                    continue;
                }
                // Coroutines and other attempts leave nothing behind that the next one could trip over.
                let (word, said) = outcome(&mut vm, &attempt.chunk);
                if word != expected {
                    wrong.push(format!("{runtime} {profile}: {}: {word} instead of {expected}: {said}", attempt.name));
                }
            }
            assert_eq!(vm.eval("return 6 * 7").value(), "42", "{runtime} {profile}: the session is broken");
        }
    }
    assert!(wrong.is_empty(), "{}\n{} of them", wrong.join("\n"), wrong.len());
}

#[test]
fn a_grant_opens_what_it_says_and_the_message_names_it() {
    for runtime in INTERPRETERS.into_iter().chain(["builtin"]) {
        let mut vm = Vm::confined(runtime, |_| json!({ "profile": "sealed", "read": ["/etc"] }));
        assert_eq!(vm.eval("local f = assert(io.open('/etc/passwd')) f:close() return 1").value(), "1", "{runtime}");
        let refused = vm.eval("return io.open('new', 'w')");
        assert_eq!(
            refused.value(),
            "nil\tnew: writing files is not granted to this VM (profile sealed); create it with --write PATH or --profile files\t13",
            "{runtime}"
        );
        let mut vm = Vm::confined(runtime, |work| json!({ "profile": "sealed", "write": [work] }));
        assert_eq!(vm.eval("local f = assert(io.open('new', 'w')) f:close() return os.remove('new')").value(), "true", "{runtime}");
        let mut vm = Vm::confined(runtime, |_| json!({ "profile": "sealed", "execute": ["/bin"] }));
        assert_eq!(vm.eval("os.execute('true') return 1").value(), "1", "{runtime}");
        let refused = vm.eval("return os.getenv('HOME'), pcall(io.popen, 'true') and 2, io.open('/etc/passwd')");
        assert!(refused.value().starts_with("nil\t2\tnil\t/etc/passwd: io.open is not granted"), "{runtime}: {refused:?}");
    }
}
