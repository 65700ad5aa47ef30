//! Whether answers are right: every command's own, whole and in order, also when some are slow or print a lot.

use super::{
    Bench, Section,
    child::{Child, LOOP},
    report::{section, targets, us},
};
use futures_util::future::try_join_all;
use serde_json::{Value, json};
use std::{
    collections::HashMap,
    time::{Duration, Instant},
};
use vmoon_api::{
    Api as _, Message,
    requests::{Attach, Mode, Read, SessionRef},
    views::PieceKind,
};
use vmoon_core::{
    Code, Error, Result,
    frame::{Eval, Frame, tag},
};

/// How many commands are under way in one session.
const WINDOW: usize = 32;
/// How long all of them may take.
const LIMIT: Duration = Duration::from_secs(900);
/// What takes 300 ms.
const SLOW: &str = "local t = os.clock() while os.clock() - t < 0.3 do end ";
/// How much is printed, bytes: lines of 1 024.
const PRINTED: u64 = 100_000 * 1024;

/// What was wrong with the answers.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    answered: usize,
    wrong: usize,
    reordered: usize,
    slow: usize,
}

/// One command under way: its place among the commands sent, and what it has said.
struct Command {
    place: usize,
    printed: Vec<u8>,
    values: Vec<u8>,
}

/// Whether command `i` is a slow one.
fn is_slow(i: usize, every: usize) -> bool {
    i.is_multiple_of(every)
}

/// The k-th command of a session prints and returns k, from a counter that lives in the VM: an answer that is lost, doubled or
/// another command's cannot be right.
fn code(slow: bool) -> String {
    format!("{}n = (n or 0) + 1 print(n) return n", if slow { SLOW } else { "" })
}

/// Reads the answers of one session as they come.
#[derive(Default)]
struct Answers {
    tally: Tally,
    accepted: usize,
    finished: usize,
    running: HashMap<u64, Command>,
}

impl Answers {
    fn take(&mut self, frame: Frame<'_>) {
        match frame.tag {
            tag::ACCEPTED => {
                let token = Eval::decode(frame.payload).and_then(|eval| std::str::from_utf8(eval.token).ok()?.parse().ok());
                self.accepted += 1;
                let place = token.unwrap_or(0);
                self.tally.reordered += usize::from(place != self.accepted);
                self.running.insert(frame.id, Command { place, printed: Vec::new(), values: Vec::new() });
            }
            tag::STDOUT | tag::STDERR => match self.running.get_mut(&frame.id) {
                Some(command) => command.printed.extend_from_slice(frame.payload),
                None => self.tally.wrong += 1,
            },
            tag::VALUES | tag::ERROR | tag::INCOMPLETE => match self.running.get_mut(&frame.id) {
                Some(command) => command.values.extend_from_slice(frame.payload),
                None => self.tally.wrong += 1,
            },
            tag::DONE => {
                self.finished += 1;
                let Some(command) = self.running.remove(&frame.id) else {
                    self.tally.wrong += 1;
                    return;
                };
                self.tally.answered += 1;
                self.tally.reordered += usize::from(command.place != self.finished);
                let number = command.place.to_string();
                let right = command.values == number.as_bytes() && command.printed == format!("{number}\n").as_bytes();
                self.tally.wrong += usize::from(!right);
            }
            tag::GAP | tag::REFUSED => self.tally.wrong += 1,
            _ => {}
        }
    }
}

/// Sends `n` commands to one session without waiting for each, and checks every answer.
async fn pipeline(bench: &Bench, name: &str, n: usize, every: usize) -> Result<Tally> {
    let client = bench.place.client();
    let session = client.open_session(SessionRef { session: name.into() }).await?;
    let mut stream = client.attach(Attach { session: session.id.to_string(), from: None, mode: Mode::Writer }).await?;
    let mut answers = Answers::default();
    let mut sent = 0;
    let work = async {
        while answers.finished < n {
            while sent < n && sent - answers.finished < WINDOW {
                sent += 1;
                let slow = is_slow(sent, every);
                answers.tally.slow += usize::from(slow);
                let payload = Eval { deadline_ms: 0, token: sent.to_string().as_bytes(), code: code(slow).as_bytes() }.to_vec();
                stream.send(Frame { tag: tag::EVAL, id: 0, payload: &payload }).await?;
            }
            let frames = match stream.next().await? {
                Message::Stream { frames, .. } | Message::Direct(frames) => frames,
                Message::Ended => return Err(Error::new(Code::SessionEnded, "a session ended while it was asked")),
            };
            let mut rest = frames.as_slice();
            while let Ok(Some((frame, len))) = Frame::decode(rest) {
                answers.take(frame);
                rest = &rest[len..];
            }
        }
        Ok(())
    };
    // What has not come by then is missing.
    if let Ok(ended) = tokio::time::timeout(LIMIT, work).await {
        ended?;
    }
    Ok(answers.tally)
}

/// Commands in several sessions at once, some of them slow.
pub(super) async fn correct(bench: &Bench) -> Result<Value> {
    let (sessions, each, every) = if bench.quick { (4, 500, 100) } else { (20, 5_000, 500) };
    let names = bench.place.create_many("correct", sessions).await?;
    let begun = Instant::now();
    let tallies = try_join_all(names.iter().map(|name| pipeline(bench, name, each, every))).await?;
    let took = begun.elapsed();
    bench.place.clear().await?;
    let count = |of: fn(&Tally) -> usize| tallies.iter().map(of).sum::<usize>();
    let commands = sessions * each;
    let missing = commands - count(|tally| tally.answered).min(commands);
    let bad = count(|tally| tally.wrong) + count(|tally| tally.reordered) + missing;
    let vmoon = json!({
        "commands": commands,
        "sessions": sessions,
        "slow": count(|tally| tally.slow),
        "wrong": count(|tally| tally.wrong),
        "reordered": count(|tally| tally.reordered),
        "missing": missing,
        "wrong_missing_or_reordered": bad,
        "us": us(took),
    });
    let lua = bench.lua(|exe| pipeline_child(exe, if bench.quick { 500 } else { 10_000 }, every));
    let python = bench.python(Section::Correct, json!({ "n": 12 }));
    let figures = section("wrong, missing or reordered results, some commands taking 300 ms", vmoon, lua, python);
    Ok(targets(figures, &[("wrong_missing_or_reordered", 0.0, false)]))
}

fn pipeline_child(exe: &std::path::Path, n: usize, every: usize) -> Result<Value> {
    let mut child = Child::spawn(exe, &["-e", LOOP], &[])?;
    let (mut sent, mut wrong, mut slow) = (0, 0, 0);
    for done in 1..=n {
        while sent < n && sent < done + WINDOW {
            sent += 1;
            slow += usize::from(is_slow(sent, every));
            child.write(&code(is_slow(sent, every)))?;
        }
        // Once printed, once returned.
        for _ in 0..2 {
            wrong += usize::from(child.read()? != done.to_string());
        }
    }
    Ok(json!({ "commands": n, "slow": slow, "wrong": wrong }))
}

/// 100 MB printed: until the command is answered, when all of it is in the transcript.
pub(super) async fn output(bench: &Bench) -> Result<Value> {
    let bytes = if bench.quick { PRINTED / 10 } else { PRINTED };
    let lines = bytes / 1024;
    let code = format!("local s = ('x'):rep(1023) .. '\\n' for i = 1, {lines} do io.write(s) end");
    bench.place.create("output").await?;
    let begun = Instant::now();
    let view = bench.place.eval("output", &code).await?;
    let took = begun.elapsed();
    let (printed, whole) = read_back(bench, &view.id.session.to_string(), view.from).await?;
    bench.place.clear().await?;
    let rate = |took: Duration| (bytes as f64 / took.as_secs_f64()).round();
    let vmoon = json!({
        "bytes": bytes,
        "in_transcript_bytes": printed,
        "whole": whole && printed == bytes,
        "us": us(took),
        "bytes_per_s": rate(took),
    });
    let lua = bench.lua(|exe| {
        let mut child = Child::spawn(exe, &["-e", LOOP], &[])?;
        let begun = Instant::now();
        child.write(&code)?;
        child.skip(bytes)?;
        let took = begun.elapsed();
        Ok(json!({ "bytes": bytes, "us": us(took), "bytes_per_s": rate(took) }))
    });
    let python = bench.python(Section::Output, json!({ "bytes": bench.rounds(1 << 20, 100 << 10) }));
    Ok(section("output printed at once, until all of it is kept and the command is answered", vmoon, lua, python))
}

/// Reads the transcript again; how many bytes were printed, and whether each is the right one.
async fn read_back(bench: &Bench, session: &str, from: u64) -> Result<(u64, bool)> {
    let (mut at, mut total, mut right) = (from, 0_u64, true);
    loop {
        let request = Read { session: session.into(), from: Some(at), max: Some(8 << 20), command: None, wait_ms: None };
        let read = bench.place.client().read(request).await?;
        if read.pieces.is_empty() {
            return Ok((total, right));
        }
        for piece in &read.pieces {
            right &= piece.kind != PieceKind::Gap;
            if piece.kind == PieceKind::Stdout {
                for byte in &piece.data.0 {
                    total += 1;
                    right &= *byte == if total.is_multiple_of(1024) { b'\n' } else { b'x' };
                }
            }
        }
        at = read.next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepted(answers: &mut Answers, id: u64, token: &str) {
        let payload = Eval { deadline_ms: 0, token: token.as_bytes(), code: b"x" }.to_vec();
        answers.take(Frame { tag: tag::ACCEPTED, id, payload: &payload });
    }

    fn said(answers: &mut Answers, id: u64, printed: &[u8], values: &[u8]) {
        answers.take(Frame { tag: tag::STDOUT, id, payload: printed });
        answers.take(Frame { tag: tag::VALUES, id, payload: values });
        answers.take(Frame { tag: tag::DONE, id, payload: &[0; 8] });
    }

    #[test]
    fn right_answers_are_right_and_each_kind_of_wrong_one_is_counted() {
        let mut answers = Answers::default();
        accepted(&mut answers, 7, "1");
        accepted(&mut answers, 8, "2");
        said(&mut answers, 7, b"1\n", b"1");
        said(&mut answers, 8, b"2\n", b"2");
        let Tally { answered, wrong, reordered, .. } = answers.tally;
        assert_eq!((answered, wrong, reordered), (2, 0, 0));
        // Another command's output, a command nobody sent, and two that changed places.
        accepted(&mut answers, 9, "3");
        said(&mut answers, 9, b"2\n", b"3");
        said(&mut answers, 99, b"", b"");
        assert_eq!(answers.tally.wrong, 1 + 3);
        accepted(&mut answers, 10, "5");
        accepted(&mut answers, 11, "4");
        assert_eq!(answers.tally.reordered, 2);
    }
}
