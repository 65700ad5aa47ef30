//! What the tools that vmoon replaces were seen to do wrong, one test each. Every one of these happened to somebody.

use crate::{create, home::Home, transcript};
use std::collections::HashSet;
use vmoon_api::{Api, requests::*, views::CommandView};
use vmoon_core::Code;

async fn one() -> Home {
    let home = Home::new();
    home.vmoon(&["list"]);
    create(&home, "a").await;
    home
}

async fn run(home: &Home, code: &str) -> CommandView {
    home.client()
        .eval(Eval { session: "a".into(), code: code.into(), token: None, deadline_ms: None, wait_ms: None, args: None, data: false })
        .await
        .unwrap()
}

fn text(view: &CommandView) -> String {
    view.stdout.lossy().into_owned()
}

/// Their output was whatever had arrived after a quarter of a second: a slow command answered nothing, and its output came
/// under the next command's name, 12 times of 12.
#[tokio::test]
async fn output_never_crosses_commands() {
    let home = one().await;
    run(&home, "function slow(s) local t = os.clock() + s while os.clock() < t do end end").await;
    for i in 0..300 {
        let pause = if i % 60 == 0 { 0.3 } else { 0.0 };
        let view = run(&home, &format!("print('before', {i}) slow({pause}) print('after', {i}) return {i}")).await;
        assert_eq!(text(&view), format!("before\t{i}\nafter\t{i}\n"));
        assert_eq!(view.values.unwrap().lossy(), i.to_string());
    }
    home.end();
}

/// 20 000 lines came corrupted or reordered in 3 runs of 17.
#[tokio::test]
async fn much_output_is_whole_and_in_order() {
    let home = one().await;
    for _ in 0..3 {
        let view = run(&home, "for i = 1, 20000 do print('line ' .. i) if i % 100 == 0 then io.stderr:write('.') end end").await;
        let want: String = (1..=20_000).map(|i| format!("line {i}\n")).collect();
        assert!(text(&view) == want && !view.truncated);
        assert_eq!(view.stderr.0.len(), 200);
    }
    home.end();
}

/// UTF-8 was decoded chunk by chunk and broke at the edges; what was not UTF-8 was lost.
#[tokio::test]
async fn bytes_are_bytes() {
    let home = one().await;
    let view = run(&home, "io.write('a', ('ü€😀'):rep(50000))").await;
    assert!(text(&view) == format!("a{}", "ü€😀".repeat(50_000)));
    let view = run(&home, "for i = 0, 255 do io.write(string.char(i)) end").await;
    assert_eq!(view.stdout.0, (0..=255).collect::<Vec<u8>>());
    let view = run(&home, "return 'a\\0b', #'a\\0b'").await;
    assert_eq!(view.values.unwrap().0, b"a\0b\t3");
    // A NUL inside the code itself.
    let view = run(&home, "return #'x\0y'").await;
    assert_eq!(view.values.unwrap().lossy(), "3");
    home.end();
}

/// A line of more than 4 095 bytes was cut by the terminal's line discipline, and code over 128 KB could not be sent.
#[tokio::test]
async fn long_lines_and_large_chunks_arrive_whole() {
    let home = one().await;
    let long = "x".repeat(10_000);
    assert_eq!(run(&home, &format!("return #'{long}'")).await.values.unwrap().lossy(), "10000");
    let large = format!("local t = {{{}}} return #t", "'abcdefgh',".repeat(60_000));
    assert!(large.len() > 600_000);
    assert_eq!(run(&home, &large).await.values.unwrap().lossy(), "60000");
    home.end();
}

/// White space at both ends of the output was stripped.
#[tokio::test]
async fn white_space_is_kept() {
    let home = one().await;
    assert_eq!(text(&run(&home, "print('  x  ') io.write('\\n\\t \\n')").await), "  x  \n\n\t \n");
    // print separates with TABs, as Lua's own does.
    assert_eq!(text(&run(&home, "print('Value:', 42)").await), "Value:\t42\n");
    home.end();
}

/// After a timeout the child went on, and burned a core for ever.
#[tokio::test]
async fn a_deadline_ends_the_command_and_keeps_the_machine() {
    let home = one().await;
    run(&home, "x = 42").await;
    let request = Eval {
        session: "a".into(),
        code: "while true do end".into(),
        token: None,
        deadline_ms: Some(200),
        wait_ms: None,
        args: None,
        data: false,
    };
    let view = home.client().eval(request).await.unwrap();
    assert_eq!(view.error.unwrap().code, Code::CommandDeadline);
    assert_eq!(run(&home, "return x").await.values.unwrap().lossy(), "42");
    home.end();
}

/// A second detach crashed; a write to a dead session "succeeded"; an id could not be used again.
#[tokio::test]
async fn detaching_twice_writing_to_the_dead_and_using_a_name_again() {
    let home = one().await;
    run(&home, "x = 1").await;
    for _ in 0..2 {
        home.vmoon(&["session", "detach", "a"]);
    }
    let first = home.client().show_machine(MachineRef { machine: "a".into() }).await.unwrap().id;
    home.vmoon(&["kill", "a"]);
    let eval =
        Eval { session: "a".into(), code: "return 1".into(), token: None, deadline_ms: None, wait_ms: None, args: None, data: false };
    assert_eq!(home.client().eval(eval.clone()).await.unwrap_err().code(), Code::MachineStopped);
    let input = Input { session: "a".into(), data: "x".into(), end: false };
    assert_eq!(home.client().input(input).await.unwrap_err().code(), Code::MachineStopped);
    home.vmoon(&["rm", "-y", "a"]);
    assert_eq!(home.client().eval(eval).await.unwrap_err().code(), Code::MachineNotFound);
    create(&home, "a").await;
    assert_eq!(run(&home, "return 1").await.values.unwrap().lossy(), "1");
    assert_ne!(home.client().show_machine(MachineRef { machine: "a".into() }).await.unwrap().id, first);
    home.end();
}

/// Their logs went into the directory one happened to be in.
#[tokio::test]
async fn nothing_is_written_into_the_current_directory() {
    let home = one().await;
    let here = home.empty_dir();
    let output = home.command(&["eval", "a", "print('x')"]).current_dir(&here).output().unwrap();
    assert!(output.status.success());
    let output = home.command(&["run", "-e", "print('x')"]).current_dir(&here).output().unwrap();
    assert_eq!(output.stdout, b"x\n");
    assert_eq!(std::fs::read_dir(&here).unwrap().count(), 0);
    home.end();
}

/// Beyond descriptor 1024 their sessions fell silent.
#[tokio::test]
async fn eleven_hundred_sessions_all_answer() {
    const SESSIONS: usize = 1_100;
    let home = Home::new();
    home.vmoon(&["list"]);
    for i in 0..SESSIONS {
        create(&home, &format!("s{i}")).await;
    }
    let pid = home.daemon_pid().unwrap();
    let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    assert!(descriptors > 1_024, "{descriptors}: the test has to pass 1024 to mean anything");
    let client = home.client();
    let mut answers = HashSet::new();
    for i in 0..SESSIONS {
        let code = format!("return {i}");
        let request = Eval {
            session: format!("s{i}"),
            code: code.as_str().into(),
            token: None,
            deadline_ms: None,
            wait_ms: None,
            args: None,
            data: false,
        };
        answers.insert(client.eval(request).await.unwrap().values.unwrap().lossy().into_owned());
    }
    assert_eq!(answers.len(), SESSIONS);
    home.end();
}

/// State persists, a second client sees the same session, and what was said is still there.
#[tokio::test]
async fn the_embedders_workflow() {
    let home = one().await;
    run(&home, "x = 42").await;
    run(&home, "function twice(n) return n * 2 end").await;
    let other = home.client();
    let eval = Eval {
        session: "a".into(),
        code: "print(twice(x))".into(),
        token: None,
        deadline_ms: None,
        wait_ms: None,
        args: None,
        data: false,
    };
    let view = other.eval(eval).await.unwrap();
    assert_eq!(text(&view), "84\n");
    home.kill_daemon();
    assert_eq!(home.vmoon(&["eval", "a", "return twice(x)"]), "84\n");
    assert_eq!(transcript(&home.client(), "a", view.id.number).await, b"84\n");
    home.end();
}
