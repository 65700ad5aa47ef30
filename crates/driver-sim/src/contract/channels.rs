//! The rules about channels: streams by offset, and what a repl says. Machines without a repl skip them by design.

use super::{
    Fixture, Snippet, Subject, fine,
    talk::{Heard, Talk, only, stdout},
    within,
};
use vmoon_core::{
    Code,
    driver::{Exit, LinkItem, Observed, Offset},
    frame::{Eval, Failure, FailureKind, tag},
};

/// A running machine and its open repl; ends the rule where the machine has none.
macro_rules! talk {
    ($fixture:expr) => {{
        if !$fixture.has_repl() {
            return;
        }
        let subject = Subject::running($fixture).await;
        match Talk::open(&subject, 0).await {
            Some(talk) => (subject, talk),
            None => return subject.delete().await,
        }
    }};
}

/// The machine still runs in the same life, and answers.
async fn still_works(fixture: &impl Fixture, subject: &Subject, talk: &mut Talk) {
    let frames = talk.run(&fixture.code(Snippet::Value("alive"))).await;
    assert!(only(&frames, tag::VALUES).text().contains("alive"), "{frames:?}");
    assert_eq!(subject.repl().await.as_ref(), Some(&talk.channel), "the same life");
}

fn failure(frames: &[Heard]) -> (FailureKind, String) {
    let heard = only(frames, tag::ERROR);
    let Some(failure) = Failure::decode(&heard.payload) else { panic!("an ERROR that is none: {heard:?}") };
    (failure.kind, String::from_utf8_lossy(failure.message).into_owned())
}

/// Each command's frames begin with ACCEPTED, which repeats the request, and end with DONE.
pub async fn evaluation_is_accepted_first_and_done_last(fixture: &impl Fixture) {
    let (subject, mut talk) = talk!(fixture);
    let code = fixture.code(Snippet::Print("hello"));
    let frames = talk.run(&code).await;
    let first = &frames[0];
    assert_eq!(first.tag, tag::ACCEPTED, "{frames:?}");
    assert_eq!(Eval::decode(&first.payload).map(|eval| eval.code), Some(code.as_bytes()));
    assert_eq!(stdout(&frames).trim_end(), "hello");
    only(&frames, tag::ACCEPTED);
    assert_eq!(only(&frames, tag::DONE).payload.len(), 8);
    assert_eq!(frames.last().map(|heard| heard.tag), Some(tag::DONE), "{frames:?}");
    // Nothing comes after the end of a command: the next one's frames are the next.
    still_works(fixture, &subject, &mut talk).await;
    assert_eq!(talk.of(first.id), frames);
    subject.delete().await;
}

/// A chunk ends with its values, its error or its being unfinished, never with two of them.
pub async fn values_errors_and_unfinished_chunks_are_told_apart(fixture: &impl Fixture) {
    let (subject, mut talk) = talk!(fixture);
    for (what, wanted) in [
        (Snippet::Value("seven"), tag::VALUES),
        (Snippet::Fail("seven"), tag::ERROR),
        (Snippet::Unfinished, tag::INCOMPLETE),
        (Snippet::Print("seven"), tag::STDOUT),
    ] {
        let frames = talk.run(&fixture.code(what)).await;
        let verdicts: Vec<u8> = frames.iter().map(|heard| heard.tag).filter(|tag| [b'V', b'X', b'N'].contains(tag)).collect();
        assert!(verdicts.len() <= 1, "{frames:?}");
        match wanted {
            tag::VALUES => assert!(only(&frames, wanted).text().contains("seven"), "{frames:?}"),
            tag::ERROR => {
                let (kind, message) = failure(&frames);
                assert!(kind == FailureKind::Runtime && message.contains("seven"), "{frames:?}");
            }
            tag::INCOMPLETE => assert_eq!(verdicts, [tag::INCOMPLETE]),
            _ => assert!(stdout(&frames).contains("seven") && !verdicts.contains(&tag::ERROR), "{frames:?}"),
        }
    }
    still_works(fixture, &subject, &mut talk).await;
    subject.delete().await;
}

/// Commands sent without waiting are accepted and done in their order.
pub async fn commands_are_numbered_in_the_order_they_are_accepted(fixture: &impl Fixture) {
    let (subject, mut talk) = talk!(fixture);
    assert_eq!(talk.last, 0, "nothing was accepted in this life");
    let mut ids = Vec::new();
    for text in ["one", "two", "three"] {
        ids.push(talk.eval(&fixture.code(Snippet::Print(text))).await);
    }
    talk.done(3).await;
    for tag in [tag::ACCEPTED, tag::DONE] {
        let order: Vec<u64> = talk.frames.iter().filter(|heard| heard.tag == tag).map(|heard| heard.id).collect();
        assert_eq!(order, ids, "{:?}", talk.frames);
    }
    for (id, text) in [(1, "one"), (2, "two"), (3, "three")] {
        assert_eq!(stdout(&talk.of(id)).trim_end(), text, "output belongs to the command that made it");
    }
    subject.delete().await;
}

/// From each frame boundary on, a fresh driver gets what the first one got.
pub async fn open_delivers_from_any_offset(fixture: &impl Fixture) {
    let (subject, mut talk) = talk!(fixture);
    for what in [Snippet::Print("one"), Snippet::Value("two"), Snippet::Fail("three")] {
        talk.run(&fixture.code(what)).await;
    }
    let driver = fixture.driver().await;
    for (n, first) in talk.frames.iter().enumerate() {
        let mut again = fine("open", Talk::open_channel(&*driver, &subject.handle, &talk.channel, first.at)).await;
        while again.at < talk.at {
            again.read().await;
        }
        assert_eq!(again.frames, talk.frames[n..], "from {}", first.at);
    }
    let mut again = fine("open", Talk::open_channel(&*driver, &subject.handle, &talk.channel, talk.at)).await;
    still_works(fixture, &subject, &mut again).await;
    subject.delete().await;
}

/// Whoever reconnects learns which commands have arrived.
pub async fn open_tells_the_last_command(fixture: &impl Fixture) {
    let (subject, mut talk) = talk!(fixture);
    for n in 1..=3 {
        talk.run(&fixture.code(Snippet::Print("x"))).await;
        let again = fine("open", Talk::open_channel(&*subject.driver, &subject.handle, &talk.channel, talk.at)).await;
        assert_eq!(again.last, n);
        talk = again;
    }
    subject.delete().await;
}

/// An offset within a frame or past the end is refused, not guessed at.
pub async fn an_offset_inside_a_frame_is_refused(fixture: &impl Fixture) {
    let (subject, mut talk) = talk!(fixture);
    talk.run(&fixture.code(Snippet::Print("x"))).await;
    for from in [1, talk.frames[1].at + 5, talk.at + 1, Offset::MAX] {
        if let Ok(mut link) = within("open", subject.driver.open(&subject.handle, &talk.channel, from)).await {
            let item = within("reading", link.reader.next(&mut Vec::new())).await;
            assert!(item.is_err(), "from {from}: {item:?}");
        }
    }
    let mut again = fine("open", Talk::open_channel(&*subject.driver, &subject.handle, &talk.channel, talk.at)).await;
    still_works(fixture, &subject, &mut again).await;
    subject.delete().await;
}

/// Links are dropped in the middle of much output; nothing of it is lost or doubled.
pub async fn a_dropped_link_loses_nothing(fixture: &impl Fixture) {
    const BYTES: usize = 3_000_000;
    let (subject, mut talk) = talk!(fixture);
    let id = talk.eval(&fixture.code(Snippet::Flood(BYTES))).await;
    let (mut bytes, mut links, mut done) = (0, 1, false);
    while !done {
        talk.read().await;
        for heard in talk.frames.drain(..).filter(|heard| heard.id == id) {
            bytes += if heard.tag == tag::STDOUT { heard.payload.len() } else { 0 };
            done |= heard.tag == tag::DONE;
        }
        let at = talk.at;
        talk.ack(at).await;
        if bytes > links * 500_000 {
            links += 1;
            let channel = talk.channel.clone();
            drop(talk);
            talk = fine("open", Talk::open_channel(&*subject.driver, &subject.handle, &channel, at)).await;
        }
    }
    assert!(bytes.abs_diff(BYTES) <= 1, "{bytes} bytes of {BYTES}, a line end aside");
    assert!(links > 3, "{links} links");
    subject.delete().await;
}

/// A read that is given up takes nothing with it.
pub async fn dropping_a_read_loses_nothing(fixture: &impl Fixture) {
    const BYTES: usize = 200_000;
    let (subject, mut talk) = talk!(fixture);
    let id = talk.eval(&fixture.code(Snippet::Flood(BYTES))).await;
    while !talk.frames.iter().any(|heard| heard.tag == tag::DONE && heard.id == id) {
        talk.read_with_a_false_start().await;
    }
    assert!(stdout(&talk.of(id)).len().abs_diff(BYTES) <= 1);
    subject.delete().await;
}

/// After an acknowledgement the rest is there, from exactly that offset.
pub async fn acknowledged_output_need_not_be_kept(fixture: &impl Fixture) {
    let (subject, mut talk) = talk!(fixture);
    let first = talk.run(&fixture.code(Snippet::Print("one"))).await;
    let middle = talk.at;
    talk.ack(middle).await;
    talk.run(&fixture.code(Snippet::Print("two"))).await;
    let mut again = fine("open", Talk::open_channel(&*subject.driver, &subject.handle, &talk.channel, middle)).await;
    while again.at < talk.at {
        again.read().await;
    }
    assert_eq!(again.frames, talk.frames[first.len()..]);
    // What is asked for and gone is a gap that says so, or is still there.
    let mut old = fine("open", Talk::open_channel(&*subject.driver, &subject.handle, &talk.channel, 0)).await;
    while old.at < talk.at {
        old.read().await;
    }
    assert!(old.frames[0].tag == tag::GAP || old.frames == talk.frames, "{:?}", old.frames);
    subject.delete().await;
}

/// When the machine has ended, what nobody has read yet is still delivered, then the end.
pub async fn open_after_end_delivers_the_rest_then_ended(fixture: &impl Fixture) {
    let (subject, mut talk) = talk!(fixture);
    talk.run(&fixture.code(Snippet::Print("one"))).await;
    let read = talk.at;
    talk.run(&fixture.code(Snippet::Print("two"))).await;
    subject.kill().await;
    let driver = fixture.driver().await;
    let mut rest = fine("open", Talk::open_channel(&*driver, &subject.handle, &talk.channel, read)).await;
    rest.read_out().await;
    let wanted: Vec<Heard> = talk.frames.iter().filter(|heard| heard.at >= read).cloned().collect();
    assert_eq!(rest.frames, wanted);
    match within("open", Talk::open_channel(&*driver, &subject.handle, &talk.channel, rest.at)).await {
        Err(error) => assert_eq!(error.code(), Code::SessionEnded, "{error}"),
        Ok(mut nothing) => {
            nothing.read_out().await;
            assert!(nothing.frames.is_empty(), "{:?}", nothing.frames);
        }
    }
    subject.delete().await;
}

/// Who has a link open is told of the end; the machine is off by then.
pub async fn a_link_tells_the_end(fixture: &impl Fixture) {
    let (subject, mut talk) = talk!(fixture);
    talk.eval(&fixture.code(Snippet::Forever)).await;
    talk.wait_for("the command to begin", |heard| heard.tag == tag::ACCEPTED).await;
    subject.kill().await;
    let exit = talk.read_out().await;
    assert!(!matches!(exit, Exit::Code { .. }), "it was ended by force: {exit:?}");
    assert!(matches!(subject.observe().await, Observed::Off(_)));
    subject.delete().await;
}

/// Offsets and numbers begin anew with each life, and no stream runs into the next.
pub async fn a_new_life_has_a_new_stream(fixture: &impl Fixture) {
    let (subject, mut talk) = talk!(fixture);
    talk.run(&fixture.code(Snippet::Print("first"))).await;
    let old = talk.channel.clone();
    subject.kill().await;
    subject.start(fixture).await;
    let Some(mut talk) = Talk::open(&subject, 0).await else { panic!("the second life has no repl") };
    assert_ne!(talk.channel, old);
    assert_eq!(talk.last, 0);
    let frames = talk.run(&fixture.code(Snippet::Print("second"))).await;
    assert_eq!((talk.frames[0].at, stdout(&frames).trim_end()), (0, "second"));
    assert!(!talk.frames.iter().any(|heard| heard.text().contains("first")));
    // The old life may still tell its own end, and nothing of the new one.
    if let Ok(mut ghost) = within("open", Talk::open_channel(&*subject.driver, &subject.handle, &old, 0)).await {
        ghost.read_out().await;
        assert!(!ghost.frames.iter().any(|heard| heard.text().contains("second")));
    }
    subject.delete().await;
}

/// An interrupt ends the command, by number or whatever runs, and nothing else.
pub async fn interrupt_ends_the_command_and_keeps_the_machine(fixture: &impl Fixture) {
    let (subject, mut talk) = talk!(fixture);
    for whatever in [false, true] {
        let id = talk.eval(&fixture.code(Snippet::Forever)).await;
        talk.wait_for("the command to begin", |heard| heard.tag == tag::ACCEPTED && heard.id == id).await;
        talk.send(tag::INTERRUPT, if whatever { 0 } else { id }, b"").await;
        let frames = talk.done(id).await;
        assert_eq!(failure(&frames).0, FailureKind::Interrupted, "{frames:?}");
        still_works(fixture, &subject, &mut talk).await;
    }
    // An interrupt of what is over hits nobody.
    talk.send(tag::INTERRUPT, 1, b"").await;
    still_works(fixture, &subject, &mut talk).await;
    subject.delete().await;
}

/// A command that runs past its deadline is interrupted; the machine lives.
pub async fn a_deadline_ends_the_command_and_keeps_the_machine(fixture: &impl Fixture) {
    let (subject, mut talk) = talk!(fixture);
    let id = talk.eval_within(&fixture.code(Snippet::Forever), 50).await;
    talk.wait_for("the command to begin", |heard| heard.tag == tag::ACCEPTED && heard.id == id).await;
    fixture.pass(50);
    let frames = talk.done(id).await;
    assert_eq!(failure(&frames).0, FailureKind::Deadline, "{frames:?}");
    still_works(fixture, &subject, &mut talk).await;
    subject.delete().await;
}

/// A program that reads says so, and gets what is sent.
pub async fn input_reaches_the_program(fixture: &impl Fixture) {
    let (subject, mut talk) = talk!(fixture);
    let id = talk.eval(&fixture.code(Snippet::Ask)).await;
    talk.wait_for("the program to read", |heard| heard.tag == tag::WANTS_INPUT && heard.id == id).await;
    talk.send(tag::INPUT, id, b"hello\n").await;
    let frames = talk.done(id).await;
    assert_eq!(stdout(&frames).trim_end(), "hello", "{frames:?}");
    still_works(fixture, &subject, &mut talk).await;
    subject.delete().await;
}

/// Asked whether a chunk is complete, the machine says so, outside of the stream.
pub async fn completeness_is_answered(fixture: &impl Fixture) {
    let (subject, mut talk) = talk!(fixture);
    let (at, frames) = (talk.at, talk.frames.len());
    for (what, wanted) in [(Snippet::Print("x"), b'c'), (Snippet::Unfinished, b'i')] {
        talk.send(tag::IS_COMPLETE, 0, fixture.code(what).as_bytes()).await;
        let answer = talk.wait_for_direct().await;
        assert_eq!((answer.tag, answer.payload.first()), (tag::COMPLETENESS, Some(&wanted)), "{what:?}: {answer:?}");
    }
    assert_eq!((talk.at, talk.frames.len()), (at, frames), "it left nothing in the stream");
    subject.delete().await;
}

/// A program that exits ends its machine, with its status.
pub async fn an_exit_of_the_program_is_the_exit_of_the_machine(fixture: &impl Fixture) {
    let (subject, mut talk) = talk!(fixture);
    let id = talk.eval(&fixture.code(Snippet::Exit(3))).await;
    let exit = talk.read_out().await;
    assert_eq!(exit, Exit::Code { code: 3 });
    assert_eq!(only(&talk.of(id), tag::EXIT).payload, 3i32.to_le_bytes());
    assert_eq!(subject.observe().await, Observed::Off(Some(exit)));
    subject.delete().await;
}

/// Asked to quit, the machine ends with status 0.
pub async fn quit_ends_politely(fixture: &impl Fixture) {
    let (subject, talk) = talk!(fixture);
    drop(talk);
    let Some(channel) = subject.repl().await else { panic!("dropping a link ended the machine") };
    let mut link = fine("open", subject.driver.open(&subject.handle, &channel, 0)).await;
    fine("send", link.writer.send(vmoon_core::frame::Frame { tag: tag::QUIT, id: 0, payload: b"" })).await;
    loop {
        match fine("waiting for the end", link.reader.next(&mut Vec::new())).await {
            LinkItem::Ended(exit) => break assert_eq!(exit, Exit::Code { code: 0 }),
            LinkItem::Broken => panic!("the link broke instead of telling the end"),
            LinkItem::Stream { .. } | LinkItem::Direct => {}
        }
    }
    assert!(matches!(subject.observe().await, Observed::Off(_)));
    subject.delete().await;
}
