//! Measures a host: connecting to the first answer, evaluations, programs. Prints medians.
//!
//! `cargo run -p vmoon-remote --example speed -- USER@HOST:PORT KEYFILE SHA256:FINGERPRINT`
#![expect(clippy::print_stdout, reason = "a program that prints figures")]

use std::time::{Duration, Instant};
use vmoon_core::{
    Error, Result,
    ability::Program,
    driver::{LinkItem, SessionLink},
    frame::{Eval, Frame, tag},
};
use vmoon_remote::{Auth, Host, guest::Guest, route};
use vmoon_sys::login::Login;

/// How often a session is begun.
const TURNS: usize = 11;

async fn eval(link: &mut SessionLink, id: u64, code: &str) -> Result<Duration> {
    let payload = Eval { deadline_ms: 0, token: b"", code: code.as_bytes() }.to_vec();
    let begin = Instant::now();
    link.writer.send(Frame { tag: tag::EVAL, id, payload: &payload }).await?;
    let mut buf = Vec::new();
    loop {
        if let LinkItem::Stream { .. } = link.reader.next(&mut buf).await? {
            let mut at = 0;
            while let Ok(Some((frame, n))) = Frame::decode(&buf[at..]) {
                if frame.tag == tag::DONE && frame.id == id {
                    return Ok(begin.elapsed());
                }
                at += n;
            }
        }
    }
}

fn median(mut all: Vec<Duration>) -> f64 {
    all.sort();
    all[all.len() / 2].as_secs_f64() * 1e3
}

async fn measure(words: &[String]) -> Result<()> {
    let [target, key, pin] = words else { return Err(Error::new(vmoon_core::Code::Usage, "USER@HOST:PORT KEYFILE SHA256:FINGERPRINT")) };
    let wish = route::Wish {
        target: target.parse()?,
        user: None,
        auth: Auth { identities: vec![key.into()], ..Auth::default() },
        pins: vec![pin.clone()],
        user_files: false,
    };
    let way = route::resolve(&wish, &Login::default())?;
    let (mut connects, mut looks, mut answers, mut again) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for turn in 0..TURNS {
        let begin = Instant::now();
        let host = Host::new(way.clone());
        let connection = host.connection().await?;
        connects.push(begin.elapsed());
        let guest = Guest::new(host.clone(), "speed", &format!("turn{turn}"), None)?;
        let life = guest.prepare().await?.next_life();
        looks.push(begin.elapsed());
        let mut link = guest.open(life, 0).await?;
        eval(&mut link, 1, "x = 1").await?;
        answers.push(begin.elapsed());
        drop(link);
        host.close().await;
        drop(connection);
        let begin = Instant::now();
        let mut link = guest.open(life, 0).await?;
        eval(&mut link, 2, "x = 2").await?;
        again.push(begin.elapsed());
        guest.kill(life).await?;
    }
    println!(
        "connected {:.1} ms, looked {:.1} ms, first answer of a new session {:.1} ms, of one that is there {:.1} ms",
        median(connects),
        median(looks),
        median(answers),
        median(again)
    );
    let host = Host::new(way.clone());
    let connection = host.connection().await?;
    // The floor: a byte there and back through `cat`, on the same connection.
    let mut echo = connection.echo().await?;
    let mut trips = Vec::new();
    for _ in 0..500 {
        let begin = Instant::now();
        echo.ping().await?;
        trips.push(begin.elapsed());
    }
    let guest = Guest::new(host.clone(), "speed", "main", None)?;
    let seen = guest.look().await?;
    guest.kill(seen.life).await?;
    let life = guest.look().await?.next_life();
    let mut link = guest.open(life, 0).await?;
    let mut evals = Vec::new();
    for id in 1..=500 {
        evals.push(eval(&mut link, id, "return 1 + 1").await?);
    }
    let mut programs = Vec::new();
    for _ in 0..50 {
        let begin = Instant::now();
        connection.exec(&Program { argv: vec!["true".into()], stdin: Vec::new(), deadline_ms: 10_000 }).await?;
        programs.push(begin.elapsed());
    }
    let flood = eval(&mut link, 501, "for i = 1, 400000 do io.write(i, ' ', ('x'):rep(43), '\\n') end").await?;
    println!(
        "round trip {:.3} ms, evaluation {:.3} ms, program {:.1} ms, 20 MB in {:.0} ms",
        median(trips),
        median(evals),
        median(programs),
        flood.as_secs_f64() * 1e3
    );
    guest.kill(life).await
}

fn main() -> std::process::ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime.map_err(|error| Error::io("make a runtime", error)).and_then(|runtime| runtime.block_on(measure(&words))) {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            println!("{}: {}", error.code(), error.chain());
            std::process::ExitCode::FAILURE
        }
    }
}
