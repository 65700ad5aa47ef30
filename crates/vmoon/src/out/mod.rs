//! The only place that prints. Data goes to standard output, everything else to standard error; knows nothing of verbs.

pub(crate) mod color;
pub(crate) mod json;
pub(crate) mod log;
pub(crate) mod progress;
pub(crate) mod table;
pub(crate) mod time;

use crate::cli::Globals;
use clap::builder::StyledStr;
use color::{Paint, Style};
use serde::Serialize;
use std::{
    env,
    ffi::OsString,
    io::{self, IsTerminal as _, Write as _},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};
use table::{Column, View};
use vmoon_core::{Code, Error, Result, name::escape};

/// How results are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// Columns for people.
    Table,
    /// More columns for people.
    Wide,
    /// JSON, one value; for streams one value a line.
    Json,
    /// YAML.
    Yaml,
    /// Comma-separated values with a header.
    Csv,
    /// Names only, one a line.
    Name,
}

impl Format {
    /// The format that `VMOON_OUTPUT` names, else a table.
    pub(crate) fn from_env() -> Result<Self> {
        let Some(text) = env::var("VMOON_OUTPUT").ok().filter(|text| !text.is_empty()) else { return Ok(Format::Table) };
        <Format as clap::ValueEnum>::from_str(&text, true).map_err(|_| {
            Error::new(Code::Usage, format!("VMOON_OUTPUT is \"{}\", which is no format", escape(&text)))
                .hint("use table, wide, json, yaml, csv or name")
        })
    }

    /// Whether programs read this.
    pub(crate) fn is_machine(self) -> bool {
        !matches!(self, Format::Table | Format::Wide)
    }
}

/// Standard output and standard error, and how to write to them.
#[derive(Clone, Debug)]
pub(crate) struct Out {
    format: Format,
    quiet: bool,
    verbose: u8,
    no_progress: bool,
    /// Set while one display speaks for many things that are waited for.
    together: Arc<AtomicBool>,
    data: Paint,
    notes: Paint,
}

impl Out {
    /// As the options and the environment say.
    pub(crate) fn new(format: Format, globals: &Globals) -> Self {
        let no_progress =
            globals.no_progress || globals.quiet || env::var_os("VMOON_NO_PROGRESS").is_some_and(|v| !v.is_empty() && v != "0");
        Self {
            format,
            quiet: globals.quiet,
            verbose: globals.verbose,
            no_progress,
            together: Arc::default(),
            data: Paint::of(globals.color, io::stdout().is_terminal()),
            notes: Paint::of(globals.color, io::stderr().is_terminal()),
        }
    }

    /// Before the options are known.
    pub(crate) fn plain() -> Self {
        Self::new(Format::Table, &Globals::default())
    }

    /// For a command line that could not be parsed: errors are JSON if that was asked for anywhere in it.
    pub(crate) fn guess(args: &[OsString]) -> Self {
        let mut format = Format::from_env().unwrap_or(Format::Table);
        for (at, arg) in args.iter().enumerate() {
            let next = args.get(at + 1).and_then(|next| next.to_str());
            let value = match arg.to_str() {
                Some("-o" | "--output") => next,
                Some(text) => text.strip_prefix("--output=").or_else(|| text.strip_prefix("-o=")).or_else(|| text.strip_prefix("-o")),
                None => None,
            };
            if let Some(found) = value.and_then(|value| <Format as clap::ValueEnum>::from_str(value, true).ok()) {
                format = found;
            }
        }
        Self::new(format, &Globals::default())
    }

    /// How results are printed.
    pub(crate) fn format(&self) -> Format {
        self.format
    }

    /// Whether only data is wanted.
    pub(crate) fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// Whether progress may be shown.
    pub(crate) fn shows_progress(&self) -> bool {
        !self.no_progress && !self.together.load(Ordering::Relaxed)
    }

    /// From now on one display speaks for everything that is waited for, or no longer.
    pub(crate) fn show_together(&self, together: bool) {
        self.together.store(together, Ordering::Relaxed);
    }

    /// Writes bytes to standard output as they are.
    ///
    /// # Errors
    /// Those of write(2); a reader that has gone is [`crate::exit::is_broken_pipe`].
    pub(crate) fn bytes(&self, bytes: &[u8]) -> Result<()> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(bytes).and_then(|()| stdout.flush()).map_err(|error| Error::io("write the standard output", error))
    }

    /// Writes bytes to standard error as they are.
    pub(crate) fn err_bytes(&self, bytes: &[u8]) {
        let mut stderr = io::stderr().lock();
        // Where standard error is closed there is nobody left to tell.
        let _ = stderr.write_all(bytes).and_then(|()| stderr.flush());
    }

    /// A line of data.
    pub(crate) fn line(&self, text: &str) -> Result<()> {
        self.bytes(format!("{text}\n").as_bytes())
    }

    /// One line that says what was changed; nothing if quiet or if programs read the output.
    pub(crate) fn changed(&self, text: &str) -> Result<()> {
        if self.quiet || self.format.is_machine() { Ok(()) } else { self.line(text) }
    }

    /// A remark on standard error; nothing if quiet.
    pub(crate) fn note(&self, text: &str) {
        if !self.quiet {
            self.err_bytes(format!("{text}\n").as_bytes());
        }
    }

    /// What to do next, on standard error; nothing if quiet.
    pub(crate) fn hint(&self, text: &str) {
        self.note(&format!("{} {text}", self.notes.paint(Style::Hint, "hint:")));
    }

    /// Something that may surprise, on standard error; also if quiet.
    pub(crate) fn warn(&self, text: &str) {
        self.err_bytes(format!("{} {text}\n", self.notes.paint(Style::Warn, "warning:")).as_bytes());
    }

    /// Whether more is to be said.
    pub(crate) fn is_verbose(&self) -> bool {
        self.verbose > 0
    }

    /// A step, with -v.
    pub(crate) fn step(&self, text: &str) {
        if self.verbose > 0 {
            self.err_bytes(format!("{text}\n").as_bytes());
        }
    }

    /// An error with its causes and its hint.
    pub(crate) fn error(&self, error: &Error) {
        self.error_of(None, error);
    }

    /// An error of one of several machines.
    pub(crate) fn error_of(&self, who: Option<&str>, error: &Error) {
        self.err_bytes(self.error_text(who, error).as_bytes());
    }

    fn error_text(&self, who: Option<&str>, error: &Error) -> String {
        if self.format == Format::Json {
            return json::error(who, error);
        }
        let who = who.map(|who| format!("{}: ", escape(who))).unwrap_or_default();
        let mut text = format!("{} {who}{}\n", self.notes.paint(Style::Error, "error:"), lines(&error.chain()));
        if let Some(hint) = error.hint_text() {
            text.push_str(&format!("{} {}\n", self.notes.paint(Style::Hint, "hint:"), lines(hint)));
        }
        if self.verbose > 0 {
            text.push_str(&format!("code: {}\n", error.code()));
        }
        text
    }

    /// What clap says about a wrong command line.
    pub(crate) fn usage(&self, text: &StyledStr) {
        let text = if self.notes.is_on() { text.ansi().to_string() } else { text.to_string() };
        self.err_bytes(text.as_bytes());
    }

    /// A help page.
    pub(crate) fn help(&self, text: &StyledStr) -> Result<()> {
        let text = if self.data.is_on() { text.ansi().to_string() } else { text.to_string() };
        self.bytes(text.as_bytes())
    }

    /// A list.
    pub(crate) fn list<T: Serialize>(&self, items: Vec<T>, columns: &[Column<T>], view: &View) -> Result<()> {
        let items = view.select(items, columns)?;
        // A column that does not exist is a mistake in every format.
        let chosen = view.columns(columns, self.format != Format::Table)?;
        match self.format {
            Format::Json => self.bytes(&json::pretty(&items)?),
            Format::Yaml => self.bytes(&json::yaml(&items)?),
            Format::Csv => self.bytes(&table::csv(&items, &chosen, view.header())?),
            Format::Name => self.bytes(table::names(&items, columns).as_bytes()),
            Format::Table | Format::Wide => self.bytes(table::render(&items, &chosen, view.header(), &self.data).as_bytes()),
        }
    }

    /// One thing: for people the rows, for programs the whole value.
    pub(crate) fn one<T: Serialize>(&self, item: &T, name: &str, rows: &[(String, String)]) -> Result<()> {
        match self.format {
            Format::Json => self.bytes(&json::pretty(item)?),
            Format::Yaml => self.bytes(&json::yaml(item)?),
            Format::Name => self.line(&escape(name)),
            Format::Csv => self.bytes(&table::csv_rows(rows)?),
            Format::Table | Format::Wide => self.bytes(table::pairs(rows, &self.data).as_bytes()),
        }
    }

    /// Several values that have no columns.
    pub(crate) fn values(&self, items: &[serde_json::Value]) -> Result<()> {
        match self.format {
            Format::Json => self.bytes(&json::pretty(&items)?),
            Format::Yaml => self.bytes(&json::yaml(&items)?),
            _ => self.bytes(&table::csv_values(items)?),
        }
    }

    /// One value of a stream: JSON on one line where JSON is asked for.
    pub(crate) fn event<T: Serialize>(&self, item: &T, text: impl FnOnce() -> String) -> Result<()> {
        match self.format {
            Format::Json => self.bytes(&json::line(item)?),
            Format::Yaml => self.bytes(&[b"---\n", &json::yaml(item)?[..]].concat()),
            _ => self.line(&text()),
        }
    }

    /// The colour of standard output.
    pub(crate) fn paint(&self) -> &Paint {
        &self.data
    }
}

/// So many of something: `1 file`, `2 files`.
pub(crate) fn count(n: u64, one: &str, many: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { many })
}

/// Text that may hold several lines: each is made safe to show.
pub(crate) fn lines(text: &str) -> String {
    text.lines().map(escape).collect::<Vec<_>>().join("\n")
}

/// Asks a question on the terminal; no is the default. `None` where there is no terminal to ask.
pub(crate) fn confirm(question: &str) -> Option<bool> {
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return None;
    }
    let mut stderr = io::stderr().lock();
    let _ = write!(stderr, "{question} [y/N] ").and_then(|()| stderr.flush());
    let mut answer = String::new();
    let read = io::stdin().read_line(&mut answer).unwrap_or(0);
    if read == 0 {
        let _ = writeln!(stderr);
    }
    Some(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}

/// Asks for a line on the terminal. `None` where there is no terminal to ask.
pub(crate) fn ask(question: &str) -> Option<String> {
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return None;
    }
    let mut stderr = io::stderr().lock();
    let _ = write!(stderr, "{question} ").and_then(|()| stderr.flush());
    let mut answer = String::new();
    let _ = io::stdin().read_line(&mut answer);
    Some(answer.trim_end_matches(['\r', '\n']).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_shown_once_with_their_hint_and_cannot_forge_lines() {
        let out = Out { notes: Paint::off(), ..Out::plain() };
        let error = Error::new(Code::MachineNotFound, "no machine \u{1b}[2J").hint("vmoon list");
        assert_eq!(out.error_text(Some("a\nb"), &error), "error: a\\nb: no machine \\u{1b}[2J\nhint: vmoon list\n");
    }

    #[test]
    fn json_errors_are_asked_for_anywhere_on_the_line() {
        for line in [&["vmoon", "-o", "json", "x"][..], &["vmoon", "x", "--output=json"], &["vmoon", "-ojson"]] {
            let args: Vec<OsString> = line.iter().map(Into::into).collect();
            assert_eq!(Out::guess(&args).format(), Format::Json, "{line:?}");
        }
        assert_eq!(Out::guess(&["vmoon".into(), "-o".into(), "jsn".into()]).format(), Format::Table);
    }
}
