//! `vmoon run --map`: one script over many items. Results are JSON, one a line, on standard output; everything else is told on
//! standard error.

use crate::{
    ctx::Ctx,
    exit::Exit,
    out::{Out, time},
};
use std::{
    io::{self, IsTerminal as _, Write as _},
    path::PathBuf,
    time::{Duration, Instant},
};
use vmoon_core::{Code, Error, Result, name::escape};
use vmoon_driver_lua::oneshot::{
    Program, Source,
    map::{self, Failure, Item, Map, Sink, Summary},
};

/// How often progress is told where there is no terminal.
const EVERY: Duration = Duration::from_secs(10);
/// How many errors are told one by one where results are not seen.
const TOLD: u64 = 10;

/// Which items, and how they are gone through.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Many items")]
pub(crate) struct Mapping {
    /// Run the script on each line of this file, - for standard input: a JSON value, which it gets as its argument. What it
    /// returns is the result, printed as a line of JSON
    #[arg(long, value_name = "ITEMS")]
    map: Option<PathBuf>,
    /// How many items run at once [default: as many as there are processors]
    #[arg(long, value_name = "COUNT", requires = "map", value_parser = clap::value_parser!(u16).range(1..=512))]
    jobs: Option<u16>,
    /// How often an item that failed is tried again
    #[arg(long, value_name = "COUNT", requires = "map", default_value_t = 0)]
    retries: u32,
    /// Print results as they come, not in the order of the items
    #[arg(long, requires = "map")]
    unordered: bool,
    /// Print the items with their results
    #[arg(long, requires = "map")]
    with_input: bool,
}

impl Mapping {
    /// Whether there are items.
    pub(crate) fn is_wanted(&self) -> bool {
        self.map.is_some()
    }
}

/// Runs the script on all items. The exit code is 1 if any of them failed.
pub(crate) fn run(ctx: &Ctx, mapping: Mapping, program: Program) -> Result<Exit> {
    let input = mapping.map.filter(|path| path.as_os_str() != "-");
    if program.source == Source::Stdin && input.is_none() {
        return Err(Error::new(Code::Usage, "the script and its items cannot both be standard input").hint("name a file for one of them"));
    }
    let jobs = mapping.jobs.map_or_else(|| std::thread::available_parallelism().map_or(1, usize::from), usize::from);
    let began = vmoon_sys::clock::instant();
    let map = Map {
        source: program.source,
        args: program.args,
        runtime: program.runtime,
        input,
        jobs,
        retries: mapping.retries,
        deadline: program.deadline,
        unordered: mapping.unordered,
        access: program.access,
        environment: program.environment,
    };
    let mut lines = Lines {
        out: &ctx.out,
        stdout: io::BufWriter::with_capacity(64 << 10, io::stdout()),
        // A person, or a program that answers what it reads, wants each result at once.
        eager: io::stdout().is_terminal(),
        with_input: mapping.with_input,
        bar: Bar { terminal: io::stderr().is_terminal() && ctx.out.shows_progress(), shown: false, began, said: began },
        failed: 0,
    };
    let ended = map::run(&map, &mut lines);
    lines.bar.clear(&ctx.out);
    let failed = |what: &str, error: io::Error| Error::io(what.to_owned(), error);
    lines.stdout.flush().map_err(|error| failed("write the standard output", error))?;
    let untold = lines.failed.saturating_sub(TOLD);
    let summary = match ended {
        Ok(summary) => summary,
        Err(Failure::Told(code)) => return Ok(Exit(code)),
        Err(Failure::Io(what, error)) => return Err(failed(what, error)),
    };
    if untold > 0 && !lines.eager {
        ctx.out.note(&format!("{untold} more errors are in the results"));
    }
    let took = time::took(vmoon_sys::clock::instant().duration_since(began));
    if let Some(signal) = summary.signal {
        ctx.out.warn(&format!("interrupted: {}, {} unfinished ({took})", counts(&summary), summary.running));
        return Ok(Exit(128 + signal as u8));
    }
    ctx.out.note(&format!("{} ({took})", counts(&summary)));
    Ok(if summary.failed > 0 { Exit(1) } else { Exit::OK })
}

/// `12 done, 2 failed, 3 tried again`.
fn counts(summary: &Summary) -> String {
    let mut text = format!("{} done, {} failed", summary.succeeded, summary.failed);
    if summary.retried > 0 {
        text += &format!(", {} tried again", summary.retried);
    }
    text
}

/// Prints results.
struct Lines<'a> {
    out: &'a Out,
    stdout: io::BufWriter<io::Stdout>,
    eager: bool,
    with_input: bool,
    bar: Bar,
    failed: u64,
}

/// One line of the results. What is JSON already stays as it was written: numbers of any length survive.
fn row(item: &Item, with_input: bool) -> serde_json::Result<String> {
    let mut row = format!("{{\"index\":{}", item.index);
    if with_input {
        let text = String::from_utf8_lossy(&item.input);
        let is_json = serde_json::from_str::<serde::de::IgnoredAny>(&text).is_ok();
        row += &format!(",\"input\":{}", if is_json { text.trim().to_owned() } else { serde_json::to_string(&text)? });
    }
    match &item.outcome {
        Ok(result) => row += &format!(",\"result\":{result}"),
        Err(message) => row += &format!(",\"error\":{}", serde_json::to_string(message)?),
    }
    row += &format!(",\"duration_us\":{},\"attempts\":{}}}\n", item.took.as_micros(), item.attempts);
    Ok(row)
}

impl Sink for Lines<'_> {
    fn item(&mut self, item: &Item) -> io::Result<()> {
        if !item.printed.is_empty() || item.outcome.is_err() {
            self.bar.clear(self.out);
        }
        self.printed(item);
        if let Err(message) = &item.outcome {
            self.failed += 1;
            if self.failed <= TOLD && !self.eager {
                self.out.warn(&format!("item {}: {}", item.index, escape(message)));
            }
        }
        self.stdout.write_all(row(item, self.with_input)?.as_bytes())?;
        if self.eager { self.stdout.flush() } else { Ok(()) }
    }

    fn progress(&mut self, so_far: &Summary) {
        // Whoever follows the results sees those that are there.
        let _ = self.stdout.flush();
        self.bar.tell(self.out, so_far);
    }
}

impl Lines<'_> {
    /// What the item has printed, each line with its number.
    fn printed(&self, item: &Item) {
        if self.out.is_quiet() || item.printed.is_empty() {
            return;
        }
        let mut text = String::new();
        for line in item.printed.trim_ascii_end().split(|byte| *byte == b'\n') {
            // Tabs stand between what `print` was given.
            let line: Vec<String> = line.split(|byte| *byte == b'\t').map(|part| escape(&String::from_utf8_lossy(part))).collect();
            text += &format!("[{}] {}\n", item.index, line.join("\t"));
        }
        if item.left_out > 0 {
            text += &format!("[{}] ... and {} bytes more\n", item.index, item.left_out);
        }
        self.out.err_bytes(text.as_bytes());
    }
}

/// How far it is: a line that is rewritten on a terminal, a new one now and then elsewhere. Not the one of [`crate::out::progress`],
/// which has a thread of its own: processes are forked here.
struct Bar {
    terminal: bool,
    shown: bool,
    began: Instant,
    said: Instant,
}

impl Bar {
    fn tell(&mut self, out: &Out, so_far: &Summary) {
        let now = vmoon_sys::clock::instant();
        let since = now.duration_since(self.began);
        if !out.shows_progress() || since < Duration::from_secs(1) {
            return;
        }
        let done = so_far.succeeded + so_far.failed;
        let text =
            format!("{}, {} running, {:.0}/s ({})", counts(so_far), so_far.running, done as f64 / since.as_secs_f64(), time::took(since));
        if self.terminal {
            self.shown = true;
            out.err_bytes(format!("\r\x1b[K{text}").as_bytes());
        } else if now.duration_since(self.said) >= EVERY {
            self.said = now;
            out.note(&text);
        }
    }

    /// Takes the line away.
    fn clear(&mut self, out: &Out) {
        if std::mem::take(&mut self.shown) {
            out.err_bytes(b"\r\x1b[K");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_one_line_of_json_whatever_the_item_was() {
        let item = |outcome: Result<&str, &str>, input: &[u8]| Item {
            index: 7,
            input: input.to_vec(),
            outcome: outcome.map(str::to_owned).map_err(str::to_owned),
            attempts: 1,
            ..Item::default()
        };
        let good = row(&item(Ok("12345678901234567890123"), b" [1]\r"), true).unwrap();
        assert_eq!(good, "{\"index\":7,\"input\":[1],\"result\":12345678901234567890123,\"duration_us\":0,\"attempts\":1}\n");
        let bad = row(&item(Err("a \"b\"\nc"), b"\xff}"), true).unwrap();
        let value: serde_json::Value = serde_json::from_str(&bad).unwrap();
        assert_eq!((&value["error"], &value["input"]), (&"a \"b\"\nc".into(), &"\u{fffd}}".into()));
        assert_eq!(bad.matches('\n').count(), 1);
    }
}
