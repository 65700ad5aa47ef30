//! Connections that are cut anywhere: every command runs exactly once, and no byte differs.
//!
//! A cut at every single byte takes hours; `VMOON_CUT_STEP=1` asks for it, from the byte `VMOON_CUT_FROM` on. Without them every 997th byte of a long command is tried,
//! and every byte of a short one.

use crate::{
    lab::{Lab, Tools},
    sessions::guest,
    talk::{Talk, output},
};
use std::io::Write as _;
use vmoon_core::frame::tag;

pub(crate) fn asked(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

fn step() -> u64 {
    asked("VMOON_CUT_STEP", 997)
}

/// Sends a command of that size again and again, cutting the connection after ever more bytes of it.
async fn every(lab: &Lab, talk: &mut Talk, size: usize, from: u64, step: u64) -> u64 {
    talk.eval("n = 0").await;
    let code = |turn: u64| format!("n = n + 1 print(n) return #[[{}]]", (turn % 10).to_string().repeat(size));
    // How many bytes such a command takes on the wire.
    let before = lab.sent();
    talk.eval(&code(0)).await;
    let length = lab.sent() - before;
    let (mut turn, mut at) = (1, from);
    while at <= length + 40 {
        lab.cut_after(at);
        let id = talk.start(&code(turn)).await;
        turn += 1;
        let frames = talk.done(id).await;
        lab.cut_after(u64::MAX);
        assert_eq!(output(&frames, tag::STDOUT), format!("{turn}\n").as_bytes(), "cut after {at} of {length} bytes");
        assert_eq!(output(&frames, tag::VALUES), size.to_string().as_bytes());
        assert_eq!(frames.iter().filter(|f| f.tag == tag::ACCEPTED).count(), 1);
        talk.frames.clear();
        if turn % 1_000 == 0 {
            let _ = writeln!(std::io::stderr(), "{turn} cuts, the last after {at} of {length} bytes");
        }
        at += step;
    }
    assert_eq!(talk.value("return n").await, turn.to_string());
    turn
}

#[tokio::test]
async fn a_long_command_cut_anywhere_runs_once() {
    let lab = Lab::new(Tools::BusyBox, "lua5.4").await;
    let mut talk = Talk::open(&guest(&lab)).await;
    let turns = every(&lab, &mut talk, 100_000, asked("VMOON_CUT_FROM", 1), step()).await;
    assert!(u64::from(talk.reopened) >= turns * 9 / 10, "{turns} turns, {} cuts", talk.reopened);
}

#[tokio::test]
async fn a_short_command_cut_at_every_byte_runs_once() {
    let lab = Lab::new(Tools::System, "lua5.1").await;
    let mut talk = Talk::open(&guest(&lab)).await;
    every(&lab, &mut talk, 10, 1, step().min(3)).await;
}

#[tokio::test]
async fn a_cut_between_sending_and_the_result_loses_nothing() {
    let lab = Lab::new(Tools::BusyBox, "lua5.4").await;
    let mut talk = Talk::open(&guest(&lab)).await;
    talk.eval("n = 0").await;
    for turn in 1..=10 {
        let id = talk.start("n = n + 1 io.write('a') io.read() io.write('b') for i = 1, 100000 do end print(n)").await;
        if turn % 2 == 0 {
            talk.until(|f| f.id == id && f.tag == tag::ACCEPTED).await;
            lab.cut();
        }
        talk.until(|f| f.id == id && f.tag == tag::WANTS_INPUT).await;
        lab.cut();
        talk.again().await;
        talk.send(tag::INPUT, 1, b"x\n").await;
        if turn % 3 == 0 {
            lab.cut();
        }
        let frames = talk.done(id).await;
        assert_eq!(output(&frames, tag::STDOUT), format!("ab{turn}\n").as_bytes());
    }
}

#[tokio::test]
async fn a_stream_of_20_mb_survives_50_cuts() {
    const LINES: usize = 400_000;
    let lab = Lab::new(Tools::BusyBox, "lua5.4").await;
    let mut talk = Talk::open(&guest(&lab)).await;
    talk.eval("state = 'kept'").await;
    let id = talk.start(&format!("for i = 1, {LINES} do io.write(i, ' ', ('x'):rep(43), '\\n') end return 'end'")).await;
    let mut next = 300_000;
    let mut cuts = 0;
    while !talk.frames.iter().any(|f| f.tag == tag::DONE && f.id == id) {
        if talk.at >= next && cuts < 50 && talk.reopened == cuts {
            (next, cuts) = (talk.at + 300_000, cuts + 1);
            lab.cut();
        }
        talk.read().await;
        let at = talk.at;
        talk.send(tag::ACK, 0, &at.to_le_bytes()).await;
    }
    let got = output(&talk.frames, tag::STDOUT);
    let mut wanted = Vec::with_capacity(got.len());
    for i in 1..=LINES {
        wanted.extend_from_slice(format!("{i} {}\n", "x".repeat(43)).as_bytes());
    }
    assert!(got == wanted, "{} bytes instead of {}", got.len(), wanted.len());
    assert_eq!((cuts, talk.reopened), (50, 50), "cuts, and how many of them were noticed");
    assert_eq!(talk.value("return state").await, "kept");
    // What was acknowledged is not kept on the host.
    talk.value("for i = 1, 40000 do io.write(i, ' ', ('x'):rep(43), '\\n') end return 1").await;
    let kept: u64 = crate::lab::walk(&lab.path().join("state"))
        .iter()
        .filter(|file| file.file_name().is_some_and(|name| name.to_string_lossy().starts_with("o.")))
        .filter_map(|file| std::fs::metadata(file).ok())
        .map(|meta| meta.len())
        .sum();
    assert!(kept < 8 << 20, "{kept} bytes are kept");
    assert!(lab.connections() > 40);
}
