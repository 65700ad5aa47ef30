//! When colour is used, and which.

use std::env;

/// When to use colour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum When {
    /// On a terminal that can.
    #[default]
    Auto,
    /// In any case.
    Always,
    /// Not at all.
    Never,
}

/// What is painted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    /// As it should be.
    Good,
    /// Something happens.
    Busy,
    /// Look here.
    Warn,
    /// Wrong.
    Error,
    /// Of less importance.
    Dim,
    /// A heading.
    Bold,
    /// What to do next.
    Hint,
}

/// Paints, or leaves the text alone.
#[derive(Clone, Debug)]
pub(crate) struct Paint {
    on: bool,
}

impl Paint {
    /// As the option, the environment and the stream say.
    pub(crate) fn of(when: Option<When>, terminal: bool) -> Self {
        Self { on: decide(when, terminal, |name| env::var(name).ok()) }
    }

    /// Leaves every text alone.
    #[cfg(test)]
    pub(crate) fn off() -> Self {
        Self { on: false }
    }

    /// Whether it paints.
    pub(crate) fn is_on(&self) -> bool {
        self.on
    }

    /// The text, painted.
    pub(crate) fn paint(&self, style: Style, text: &str) -> String {
        if !self.on {
            return text.to_owned();
        }
        let code = match style {
            Style::Good => "32",
            Style::Busy => "36",
            Style::Warn => "33",
            Style::Error => "31",
            Style::Dim => "2",
            Style::Bold => "1",
            Style::Hint => "35",
        };
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    }
}

fn decide(when: Option<When>, terminal: bool, get: impl Fn(&str) -> Option<String>) -> bool {
    let set = |name: &str| get(name).is_some_and(|value| !value.is_empty());
    match when.unwrap_or_default() {
        When::Always => true,
        When::Never => false,
        When::Auto if set("NO_COLOR") => false,
        When::Auto if get("CLICOLOR_FORCE").is_some_and(|value| !value.is_empty() && value != "0") => true,
        When::Auto => terminal && get("TERM").is_none_or(|term| term != "dumb"),
    }
}

/// How the word for a state is painted.
pub(crate) fn of_state(state: &str) -> Style {
    match state {
        "running" | "live" | "up" | "done" => Style::Good,
        "creating" | "starting" | "stopping" | "resuming" | "suspending" | "opening" | "reconnecting" => Style::Busy,
        "broken" | "lost" | "failed" | "down" => Style::Error,
        "killing" | "deleting" | "held" | "locked" | "cancelled" | "paused" | "suspended" => Style::Warn,
        _ => Style::Dim,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_option_wins_then_the_environment_then_the_terminal() {
        let env = |vars: &'static [(&str, &str)]| move |name: &str| vars.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned());
        assert!(decide(Some(When::Always), false, env(&[("NO_COLOR", "1")])));
        assert!(!decide(Some(When::Never), true, env(&[("CLICOLOR_FORCE", "1")])));
        assert!(!decide(None, true, env(&[("NO_COLOR", "1"), ("CLICOLOR_FORCE", "1")])));
        assert!(decide(None, false, env(&[("CLICOLOR_FORCE", "1")])));
        assert!(!decide(None, false, env(&[("CLICOLOR_FORCE", "0")])));
        assert!(!decide(None, true, env(&[("TERM", "dumb")])));
        assert!(decide(None, true, env(&[("TERM", "xterm"), ("NO_COLOR", "")])));
        assert!(!decide(None, false, env(&[])));
    }
}
