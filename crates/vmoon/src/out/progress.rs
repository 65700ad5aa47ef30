//! Progress of what takes longer than a second: a spinner on a terminal, a line every ten seconds elsewhere.

use super::Out;
use indicatif::{ProgressBar, ProgressStyle};
use std::{
    io::{self, IsTerminal as _},
    time::{Duration, Instant},
};
use vmoon_core::name::escape;

/// Nothing is shown before this.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often a line is printed where there is no terminal.
const EVERY: Duration = Duration::from_secs(10);

/// The progress of one thing that is waited for.
#[derive(Debug)]
pub(crate) struct Progress {
    out: Out,
    what: String,
    began: Instant,
    said: Instant,
    shown: bool,
    terminal: bool,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// Of `what`, which begins now. Shows nothing yet.
    pub(crate) fn new(out: &Out, what: impl Into<String>) -> Self {
        let now = vmoon_sys::clock::instant();
        let terminal = io::stderr().is_terminal();
        Self { out: out.clone(), what: what.into(), began: now, said: now, shown: out.shows_progress(), terminal, bar: None }
    }

    /// How long to wait before calling [`Self::tell`] again.
    pub(crate) fn interval(&self) -> Duration {
        match (self.shown, self.terminal) {
            (false, _) => Duration::from_secs(30),
            (true, true) => PATIENCE,
            (true, false) => EVERY,
        }
    }

    /// Says how far it is.
    pub(crate) fn tell(&mut self, phase: &str, percent: Option<u8>) {
        let now = vmoon_sys::clock::instant();
        if !self.shown || now.duration_since(self.began) < PATIENCE {
            return;
        }
        let phase = if phase.is_empty() { String::new() } else { format!(": {}", escape(phase)) };
        let percent = percent.map(|p| format!(" {p} %")).unwrap_or_default();
        let text = format!("{}{phase}{percent}", self.what);
        if self.terminal {
            let bar = self.bar.get_or_insert_with(|| {
                let bar = ProgressBar::new_spinner();
                if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} ({elapsed})") {
                    bar.set_style(style);
                }
                bar.enable_steady_tick(Duration::from_millis(120));
                bar
            });
            bar.set_message(text);
        } else if now.duration_since(self.said) >= EVERY {
            self.said = now;
            self.out.note(&format!("{text} ({})", super::time::took(now.duration_since(self.began))));
        }
    }

    /// Prints something else meanwhile, without tearing the display.
    pub(crate) fn suspend<T>(&self, print: impl FnOnce() -> T) -> T {
        match &self.bar {
            Some(bar) => bar.suspend(print),
            None => print(),
        }
    }

    /// Removes the spinner.
    pub(crate) fn finish(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.finish();
    }
}
