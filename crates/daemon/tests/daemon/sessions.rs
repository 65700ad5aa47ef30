//! Sessions across daemons: what was said while none lived is in the transcript of the next, once and whole.

use crate::harness::{LIMIT, Outside, create, did};
use tokio::runtime::Builder;
use vmoon_api::{Api, requests::*, views::CommandState};
use vmoon_core::{Code, machine::Request};
use vmoon_daemon::hooks::Hooks;

fn eval(code: &str) -> Eval {
    Eval { session: "a".into(), code: code.into(), args: None, data: false, token: None, deadline_ms: None, wait_ms: None }
}

#[test]
fn a_command_outlives_the_daemon_that_was_asked_for_it_and_its_token_still_joins_it() {
    let outside = Outside::new();
    let first = Builder::new_current_thread().enable_all().build().unwrap();
    let running = first.block_on(async {
        let api = outside.daemon(Hooks::default()).await;
        create(&*api, "a", serde_json::json!({})).await;
        did(&*api, "a", Request::Start).await;
        let done = api.eval(Eval { token: Some("done".into()), ..eval("value kept") }).await.unwrap();
        let running = api
            .eval(Eval { token: Some("t".into()), wait_ms: Some(0), ..eval("echo first\nsleep 1000\necho second\nvalue 7") })
            .await
            .unwrap();
        assert_eq!(running.state, CommandState::Running);
        (done, running)
    });
    drop(first);
    // No daemon lives while the machine goes on.
    outside.world.advance(2_000);
    let (done, running) = running;
    let second = Builder::new_current_thread().enable_all().build().unwrap();
    second.block_on(async {
        let api = outside.daemon(Hooks::default()).await;
        let again = Eval { token: Some("t".into()), ..eval("echo first\nsleep 1000\necho second\nvalue 7") };
        let view = tokio::time::timeout(LIMIT, api.eval(again)).await.unwrap().unwrap();
        assert_eq!((view.id, view.state), (running.id, CommandState::Done));
        assert_eq!((view.stdout.lossy().as_ref(), view.values.unwrap().lossy().as_ref()), ("first\nsecond\n", "7"));
        // One that ended under the first daemon is still found, by its id and by its token.
        let old = api.show_command(CommandRef { command: done.id.to_string(), wait_ms: None }).await.unwrap();
        assert_eq!(old, done);
        assert_eq!(api.eval(Eval { token: Some("done".into()), ..eval("value other") }).await.unwrap(), done);
        // A new one gets a number of its own.
        assert_eq!(api.eval(eval("value 8")).await.unwrap().id.number, running.id.number + 1);
    });
}

#[test]
fn a_transcript_has_every_byte_once_although_the_daemon_dies_again_and_again() {
    let outside = Outside::new();
    let mut made = false;
    for _ in 0..5 {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let api = outside.daemon(Hooks::default()).await;
            if !made {
                create(&*api, "a", serde_json::json!({})).await;
                did(&*api, "a", Request::Start).await;
                made = true;
            }
            // Accepted and flooding when the runtime, and the daemon in it, is dropped.
            api.eval(Eval { wait_ms: Some(0), ..eval("flood 1000000\nvalue x") }).await.unwrap();
        });
    }
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let api = outside.daemon(Hooks::default()).await;
        api.eval(eval("value end")).await.unwrap();
        let (mut from, mut total, mut expect) = (0, 0, None);
        loop {
            let read = api.read(Read { session: "a".into(), from: Some(from), max: None, command: None, wait_ms: None }).await.unwrap();
            if read.pieces.is_empty() {
                break;
            }
            for piece in &read.pieces {
                assert!(expect.is_none_or(|at| at <= piece.at), "pieces overlap");
                expect = Some(piece.at);
                assert_ne!(piece.kind, vmoon_api::views::PieceKind::Gap, "something was lost");
                if piece.kind == vmoon_api::views::PieceKind::Stdout {
                    total += piece.data.0.len();
                }
            }
            from = read.next;
        }
        assert_eq!(total, 5_000_000);
    });
}

#[test]
fn what_stands_in_an_old_part_of_the_transcript_is_found_after_a_restart() {
    let outside = Outside::new();
    let first = Builder::new_current_thread().enable_all().build().unwrap();
    let old = first.block_on(async {
        let api = outside.daemon(Hooks::default()).await;
        create(&*api, "a", serde_json::json!({})).await;
        did(&*api, "a", Request::Start).await;
        let old = api.eval(Eval { token: Some("old".into()), ..eval("value old") }).await.unwrap();
        // Several segments later.
        let base = api.eval(eval("flood 5000000")).await.unwrap().to.unwrap();
        // And one that runs across the restart, with its beginning in an older segment than its end.
        api.eval(Eval { token: Some("long".into()), wait_ms: Some(0), ..eval("flood 3000000\nsleep 1000\nvalue long") }).await.unwrap();
        let all = tokio::time::timeout(LIMIT, async {
            let mut from = base;
            while from < base + 2_900_000 {
                let read = Read { session: "a".into(), from: Some(from), max: None, command: None, wait_ms: Some(1_000) };
                from = api.read(read).await.unwrap().next;
            }
        });
        all.await.unwrap();
        old
    });
    drop(first);
    outside.world.advance(2_000);
    let second = Builder::new_current_thread().enable_all().build().unwrap();
    second.block_on(async {
        let api = outside.daemon(Hooks::default()).await;
        let joined = tokio::time::timeout(LIMIT, api.eval(Eval { token: Some("old".into()), ..eval("value new") })).await.unwrap().unwrap();
        assert_eq!((joined.id, joined.values), (old.id, old.values), "it did not run again");
        let long = Eval { token: Some("long".into()), ..eval("value never") };
        let long = tokio::time::timeout(LIMIT, api.eval(long)).await.unwrap().unwrap();
        assert_eq!(long.values.unwrap().lossy(), "long");
        assert!(long.truncated && long.stdout.0.len() == 1 << 20);
    });
}

#[test]
fn a_machine_that_takes_no_arguments_says_so_and_goes_on() {
    let outside = Outside::new();
    Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
        let api = outside.daemon(Hooks::default()).await;
        create(&*api, "a", serde_json::json!({})).await;
        did(&*api, "a", Request::Start).await;
        let wanted =
            [Eval { args: Some(vec![1.into()]), ..eval("value x") }, Eval { data: true, token: Some("data".into()), ..eval("value x") }];
        for wanted in wanted {
            let refused = api.eval(wanted).await.unwrap_err();
            assert_eq!(refused.code(), Code::DriverUnsupported);
            assert!(refused.hint_text().is_some(), "{refused:?}");
        }
        // The refused command has left nothing behind: neither its number nor its token.
        let view = api.eval(Eval { token: Some("data".into()), ..eval("value x") }).await.unwrap();
        assert_eq!((view.id.number, view.data, view.values.map(|values| values.lossy().into_owned())), (1, None, Some("x".into())));
        let many = Eval { args: Some(vec![1.into(); 251]), ..eval("value x") };
        assert_eq!(api.eval(many).await.unwrap_err().code(), Code::Usage);
    });
}
