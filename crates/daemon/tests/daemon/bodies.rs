//! The same test bodies, run against the service in process and against the client over a socket.

use crate::harness::{Outside, ask, create, did, finish, until};
use vmoon_api::{Api, Message, requests::*, views::CommandState};
use vmoon_core::{
    Code,
    event::EventKind,
    frame::{self, Frame, tag},
    machine::{Answer, Request, State},
    operation::Outcome,
};

macro_rules! bodies {
    ($($body:ident),* $(,)?) => {
        mod in_process {
            $(#[tokio::test]
            async fn $body() {
                let outside = super::Outside::new();
                let service = outside.daemon(vmoon_daemon::hooks::Hooks::default()).await;
                super::$body(&*service, &outside).await;
            })*
        }
        mod over_the_socket {
            $(#[tokio::test]
            async fn $body() {
                let outside = super::Outside::new();
                let (_service, client) = outside.client().await;
                super::$body(&client, &outside).await;
            })*
        }
    };
}

bodies!(
    a_life,
    bad_input,
    commands_and_their_results,
    operations_are_joined_refused_and_cancelled,
    events_tell_that_something_changed,
    attachments,
    questions,
    names_and_prefixes,
);

fn eval(session: &str, code: &str) -> Eval {
    Eval { session: session.into(), code: code.into(), args: None, data: false, token: None, deadline_ms: None, wait_ms: None }
}

async fn a_life(api: &dyn Api, outside: &Outside) {
    let hello = api.hello(Empty {}).await.unwrap();
    assert_eq!((hello.protocol, hello.kinds, hello.machines), (1, vec!["sim".to_owned()], 0));
    let made = create(api, "a", serde_json::json!({})).await;
    assert_eq!(until(api, "a", State::Stopped).await.id, made.id);
    assert_eq!(api.eval(eval("a", "value 1")).await.unwrap_err().code(), Code::MachineStopped);
    did(api, "a", Request::Start).await;
    assert_eq!(api.eval(eval("a", "echo hi\nvalue 42")).await.unwrap().values.unwrap().lossy(), "42");
    let shown = api.show_machine(MachineRef { machine: "a".into() }).await.unwrap();
    assert!(shown.abilities.eval && shown.sessions.unwrap().len() == 1 && shown.facts.is_some());
    assert_eq!(ask(api, "a", Request::Start).await.unwrap(), Answer::Already);
    assert_eq!(ask(api, "a", Request::Delete).await.unwrap_err().code(), Code::MachineRunning);
    did(api, "a", Request::Pause).await;
    assert_eq!(until(api, "a", State::Paused).await.state, State::Paused);
    did(api, "a", Request::Resume).await;
    did(api, "a", Request::Suspend).await;
    until(api, "a", State::Suspended).await;
    did(api, "a", Request::Resume).await;
    did(api, "a", Request::Restart).await;
    until(api, "a", State::Running).await;
    did(api, "a", Request::Stop).await;
    until(api, "a", State::Stopped).await;
    did(api, "a", Request::Delete).await;
    assert!(api.list_machines(Empty {}).await.unwrap().is_empty());
    assert!(outside.world.machines().is_empty() && outside.world.disks().is_empty());
    // The name is free again.
    create(api, "a", serde_json::json!({})).await;
}

async fn bad_input(api: &dyn Api, _: &Outside) {
    let request = |name: &str, kind: &str, settings: serde_json::Value| {
        let mut spec = crate::harness::spec(settings);
        spec.kind = kind.into();
        CreateMachine { name: name.into(), connection: None, spec, start: false, deadline_ms: None }
    };
    let long = "x".repeat(300);
    for name in ["../x", "a & b <c>", "--help", "x\n", "", long.as_str()] {
        let error = api.create_machine(request(name, "sim", serde_json::json!({}))).await.unwrap_err();
        assert_eq!(error.code(), Code::NameInvalid, "{name:?}");
        assert!(error.hint_text().is_some());
    }
    let error = api.create_machine(request("a", "vax", serde_json::json!({}))).await.unwrap_err();
    assert_eq!((error.code(), error.hint_text()), (Code::SpecInvalid, Some("kinds that can be made here: sim")));
    let error = api.create_machine(request("a", "sim", serde_json::json!({ "memory": -1, "colour": "red" }))).await.unwrap_err();
    assert_eq!(error.code(), Code::SpecInvalid);
    assert_eq!(error.detail_value().unwrap().as_array().unwrap().len(), 2, "both problems at once: {error}");
    create(api, "a", serde_json::json!({})).await;
    let again = api.create_machine(request("a", "sim", serde_json::json!({}))).await.unwrap_err();
    assert_eq!(again.code(), Code::MachineExists);
    let plan = api.plan_machine(request("b", "sim", serde_json::json!({}))).await.unwrap();
    assert!(!plan.steps.is_empty() && api.list_machines(Empty {}).await.unwrap().len() == 1, "a plan touches nothing");
    for (text, code) in [("nobody", Code::MachineNotFound), ("nowhere:a", Code::ConnectionNotFound), ("a/main", Code::Usage)] {
        assert_eq!(api.show_machine(MachineRef { machine: text.into() }).await.unwrap_err().code(), code, "{text}");
    }
    did(api, "a", Request::Start).await;
    let huge = Eval { code: vec![b'x'; 17 << 20].into(), ..eval("a", "") };
    assert_eq!(api.eval(huge).await.unwrap_err().code(), Code::CommandTooLarge);
    let token = Eval { token: Some("t".repeat(256)), ..eval("a", "value 1") };
    assert_eq!(api.eval(token).await.unwrap_err().code(), Code::WireMalformed);
    assert_eq!(api.eval(eval("a/other", "value 1")).await.unwrap_err().code(), Code::SessionChannel);
    let input = Input { session: "a".into(), data: "x".into(), end: false };
    assert_eq!(api.input(input).await.unwrap_err().code(), Code::SessionNotWaiting);
    let none = CommandRef { command: "x.1".into(), wait_ms: None };
    assert_eq!(api.show_command(none).await.unwrap_err().code(), Code::CommandNotFound);
    assert_eq!(api.show_operation(OperationRef { operation: "zzzz".into() }).await.unwrap_err().code(), Code::OperationNotFound);
    // After all that it still answers.
    assert_eq!(api.eval(eval("a", "value ok")).await.unwrap().values.unwrap().lossy(), "ok");
}

async fn commands_and_their_results(api: &dyn Api, _: &Outside) {
    create(api, "a", serde_json::json!({})).await;
    did(api, "a", Request::Start).await;
    let view = api.eval(eval("a", "echo one\nvalue 1\nvalue 2")).await.unwrap();
    assert_eq!((view.state, view.stdout.lossy().trim_end()), (CommandState::Done, "one"));
    let error = api.eval(eval("a", "error oh no")).await.unwrap().error.unwrap();
    assert_eq!((error.code, error.message.lossy().contains("oh no")), (Code::CommandFailed, true));
    let error = api.eval(eval("a", "value (")).await.unwrap().error.unwrap();
    assert_eq!(error.code, Code::CommandIncomplete);

    // A command that runs is seen running, is joined by its token, and is interrupted; the next one is its own.
    let hang = Eval { token: Some("t1".into()), wait_ms: Some(0), ..eval("a", "echo before\nhang") };
    let running = api.eval(hang.clone()).await.unwrap();
    assert_eq!(running.state, CommandState::Running);
    let joined = api.eval(hang).await.unwrap();
    assert_eq!(joined.id, running.id, "the token joins");
    let queued = api.eval(Eval { wait_ms: Some(0), ..eval("a", "value after") }).await.unwrap();
    let session = api.show_session(SessionRef { session: "a".into() }).await.unwrap();
    assert_eq!((session.busy, session.queued), (Some(running.id.number), 1));
    api.interrupt_command(CommandRef { command: running.id.to_string(), wait_ms: None }).await.unwrap();
    let ended = api.show_command(CommandRef { command: running.id.to_string(), wait_ms: Some(10_000) }).await.unwrap();
    assert_eq!(ended.error.unwrap().code, Code::CommandInterrupted);
    assert_eq!(ended.stdout.lossy().trim_end(), "before");
    let after = api.show_command(CommandRef { command: queued.id.to_string(), wait_ms: Some(10_000) }).await.unwrap();
    assert_eq!(after.values.unwrap().lossy(), "after");
    let again = api.interrupt_command(CommandRef { command: running.id.to_string(), wait_ms: None }).await.unwrap_err();
    assert_eq!(again.code(), Code::OperationEnded);

    // Input.
    let asking = api.eval(Eval { wait_ms: Some(0), ..eval("a", "ask") }).await.unwrap();
    api.input(Input { session: "a".into(), data: "forty-two\n".into(), end: false }).await.unwrap();
    let answered = api.show_command(CommandRef { command: asking.id.to_string(), wait_ms: Some(10_000) }).await.unwrap();
    assert!(answered.stdout.lossy().contains("forty-two"), "{answered:?}");

    // More output than an answer repeats: the rest is in the transcript.
    let flood = api.eval(eval("a", "flood 3000000")).await.unwrap();
    assert!(flood.truncated && flood.stdout.0.len() == 1 << 20);
    let (mut from, mut bytes) = (flood.from, 0);
    while from < flood.to.unwrap() {
        let request = Read { session: "a".into(), from: Some(from), max: None, command: Some(flood.id.number), wait_ms: None };
        let read = api.read(request).await.unwrap();
        bytes += read.pieces.iter().filter(|p| p.kind == vmoon_api::views::PieceKind::Stdout).map(|p| p.data.0.len()).sum::<usize>();
        from = read.next;
    }
    assert_eq!(bytes, 3_000_000);
}

async fn operations_are_joined_refused_and_cancelled(api: &dyn Api, outside: &Outside) {
    create(api, "a", serde_json::json!({ "ignores_stop": true })).await;
    did(api, "a", Request::Start).await;
    let Answer::Started { operation } = ask(api, "a", Request::Stop).await.unwrap() else { panic!("not started") };
    assert_eq!(ask(api, "a", Request::Stop).await.unwrap(), Answer::Joined { operation });
    assert_eq!(ask(api, "a", Request::Start).await.unwrap_err().code(), Code::MachineBusy);
    let running = api.list_operations(ListOperations { running: Some(true) }).await.unwrap();
    assert_eq!(running.iter().map(|op| op.id).collect::<Vec<_>>(), [operation]);
    api.cancel_operation(OperationRef { operation: operation.to_string() }).await.unwrap();
    let ended = finish(api, &Answer::Started { operation }).await.unwrap();
    assert!(matches!(ended.outcome, Some(Outcome::Cancelled { .. })), "{ended:?}");
    // Cancelling a stop kills nothing.
    until(api, "a", State::Running).await;
    assert_eq!(outside.world.calls("kill"), 0);
    let over = api.cancel_operation(OperationRef { operation: operation.to_string() }).await.unwrap_err();
    assert_eq!(over.code(), Code::OperationEnded);

    // A polite stop whose deadline passes fails; the machine runs on, and nothing was killed.
    let request = MachineRequest { machine: "a".into(), request: Request::Stop, confirm: None, disks: None, deadline_ms: Some(50) };
    let answer = api.request_machine(request).await.unwrap().answer;
    let Some(Outcome::Failed { error }) = finish(api, &answer).await.unwrap().outcome else { panic!("it did not fail") };
    assert_eq!(error.code, Code::OperationDeadline);
    assert!(error.hint.unwrap().contains("vmoon kill"));
    assert_eq!((until(api, "a", State::Running).await.last_error.unwrap().code, outside.world.calls("kill")), (Code::OperationDeadline, 0));

    // A kill overtakes a stop.
    let stop = ask(api, "a", Request::Stop).await.unwrap();
    did(api, "a", Request::Kill).await;
    let overtaken = finish(api, &stop).await.unwrap();
    assert!(matches!(overtaken.outcome, Some(Outcome::Cancelled { .. })));
    assert!(until(api, "a", State::Stopped).await.last_error.is_none());
}

async fn events_tell_that_something_changed(api: &dyn Api, _: &Outside) {
    let mut events = api.follow_events(Events::default()).await.unwrap();
    create(api, "a", serde_json::json!({})).await;
    let mut seen = Vec::new();
    while !seen.contains(&EventKind::OperationEnded) {
        seen.push(events.next().await.unwrap().kind);
    }
    assert!(seen.contains(&EventKind::MachineAdded) && seen.contains(&EventKind::OperationStarted), "{seen:?}");
    let all = api.list_events(Events::default()).await.unwrap();
    assert!(all.windows(2).all(|pair| pair[0].seq < pair[1].seq));
    let since = all[1].seq;
    let mut replayed = api.follow_events(Events { since: Some(since), machine: None }).await.unwrap();
    assert_eq!(replayed.next().await.unwrap(), all[2]);
    create(api, "b", serde_json::json!({})).await;
    let only = api.list_events(Events { since: None, machine: Some("b".into()) }).await.unwrap();
    assert!(!only.is_empty() && only.iter().all(|e| e.machine == only[0].machine));
}

async fn attachments(api: &dyn Api, _: &Outside) {
    create(api, "a", serde_json::json!({})).await;
    did(api, "a", Request::Start).await;
    let attach = |mode, from| Attach { session: "a".into(), from, mode };
    let mut writer = api.attach(attach(Mode::Writer, Some(0))).await.unwrap();
    let mut viewer = api.attach(attach(Mode::Viewer, Some(0))).await.unwrap();
    assert_eq!(api.attach(attach(Mode::Writer, None)).await.err().unwrap().code(), Code::SessionBusy);
    let session = api.show_session(SessionRef { session: "a".into() }).await.unwrap();
    assert_eq!((session.writer, session.viewers), (true, 1));

    let chunk = frame::Eval { deadline_ms: 0, token: b"mine", code: b"echo seen by all" }.to_vec();
    writer.send(Frame { tag: tag::EVAL, id: 1, payload: &chunk }).await.unwrap();
    let mut tags = Vec::new();
    for attachment in [&mut writer, &mut viewer] {
        let (mut bytes, mut at) = (Vec::new(), 0);
        while !bytes.windows(4).any(|w| w == b"all\n") {
            let Message::Stream { at: from, frames } = attachment.next().await.unwrap() else { panic!("not a stream") };
            assert_eq!(from, at);
            at += frames.len() as u64;
            bytes.extend(frames);
        }
        tags.push(bytes[4]);
    }
    assert_eq!(tags, [tag::ACCEPTED; 2]);

    // A viewer writes nothing.
    let refused = viewer.send(Frame { tag: tag::EVAL, id: 1, payload: &chunk }).await;
    let refused = match refused {
        Err(error) => error,
        Ok(()) => loop {
            if let Err(error) = viewer.next().await {
                break error;
            }
        },
    };
    assert_eq!(refused.code(), Code::SessionBusy);

    // The pen is free as soon as its holder has gone, which a socket tells a moment later.
    drop(writer);
    let mut writer = loop {
        match api.attach(attach(Mode::Writer, None)).await {
            Ok(writer) => break writer,
            Err(error) => assert_eq!(error.code(), Code::SessionBusy),
        }
        tokio::task::yield_now().await;
    };
    // A direct question is answered directly.
    writer.send(Frame { tag: tag::IS_COMPLETE, id: 77, payload: b"value (" }).await.unwrap();
    let Message::Direct(answer) = writer.next().await.unwrap() else { panic!("not direct") };
    let (answer, _) = Frame::decode(&answer).unwrap().unwrap();
    assert_eq!((answer.tag, answer.id, answer.payload[0]), (tag::COMPLETENESS, 77, b'i'));

    // When the machine ends, so does the attachment, after everything was delivered.
    did(api, "a", Request::Kill).await;
    loop {
        match writer.next().await.unwrap() {
            Message::Ended => break,
            Message::Stream { .. } | Message::Direct(_) => {}
        }
    }
    assert_eq!(api.eval(eval("a", "value 1")).await.unwrap_err().code(), Code::MachineStopped);
    // What it said can still be read, and watched from an offset.
    let read = api.read(Read { session: "a".into(), from: None, max: None, command: None, wait_ms: None }).await.unwrap();
    assert!(read.ended && !read.pieces.is_empty());
    let mut late = api.attach(attach(Mode::Viewer, Some(0))).await.unwrap();
    assert!(matches!(late.next().await.unwrap(), Message::Stream { at: 0, .. }));
    assert_eq!(late.next().await.unwrap(), Message::Ended);
}

async fn questions(api: &dyn Api, _: &Outside) {
    create(api, "a", serde_json::json!({})).await;
    did(api, "a", Request::Start).await;
    let ask = |code: &str| AskCode { session: "a".into(), code: code.into() };
    assert_eq!(api.is_complete(ask("value 1")).await.unwrap().verdict, "complete");
    assert_eq!(api.is_complete(ask("value (")).await.unwrap().verdict, "incomplete");
    let names = api.complete(ask("e")).await.unwrap();
    assert_eq!(names.names, ["echo", "error", "exit"]);
}

async fn names_and_prefixes(api: &dyn Api, _: &Outside) {
    let a = create(api, "web01", serde_json::json!({})).await;
    create(api, "web02", serde_json::json!({})).await;
    let show = |text: String| MachineRef { machine: text };
    assert_eq!(api.show_machine(show(a.id.to_string())).await.unwrap().name, "web01");
    assert_eq!(api.show_machine(show("local:web01".into())).await.unwrap().id, a.id);
    let error = api.show_machine(show(a.id.to_string()[..6].to_owned())).await.unwrap_err();
    assert_eq!(error.code(), Code::NameAmbiguous, "both were made within the same few seconds: {error}");
    let error = api.show_machine(show("web1".into())).await.unwrap_err();
    assert_eq!((error.code(), error.hint_text()), (Code::MachineNotFound, Some("did you mean web01?")));
}
