//! The reference page of the command line, and the tests that hold every help page to its rules.

use clap::Command;
use std::fmt::Write as _;

/// `docs/reference/cli.md`.
pub(crate) fn markdown() -> String {
    let mut root = crate::cli::command();
    root.build();
    let mut out = String::from(
        "# The command line\n\n<!-- Generated from crates/vmoon/src/cli.rs by `cargo xtask docs`. Do not edit. -->\n\n\
         Data goes to standard output, everything else to standard error. A machine is `[CONNECTION:]NAME`, an id or an unambiguous\n\
         prefix of one; a session is `[CONNECTION:]NAME[/SESSION]`. The error codes are those of `errors.md`.\n",
    );
    page(&root, "vmoon", &mut out);
    out
}

fn page(command: &Command, path: &str, out: &mut String) {
    // What every verb understands stands once, on the first page.
    let everywhere = |arg: &clap::Arg| arg.is_global_set() || arg.get_id() == "help";
    let first = path == "vmoon";
    let hidden = command.clone().mut_args(|arg| if !first && everywhere(&arg) { arg.hide(true) } else { arg });
    let text = hidden.term_width(110).color(clap::ColorChoice::Never).render_help().to_string();
    let _ = write!(out, "\n## `{path}`\n\n```text\n");
    for line in text.trim_end().lines() {
        let _ = writeln!(out, "{}", line.trim_end());
    }
    out.push_str("```\n");
    for verb in command.get_subcommands().filter(|verb| verb.get_name() != "help" && !verb.is_hide_set()) {
        page(verb, &format!("{path} {}", verb.get_name()), out);
    }
}

#[cfg(test)]
mod tests {
    use clap::{Command, error::ErrorKind};

    fn walk(command: &Command, path: &str, visit: &mut impl FnMut(&str, &Command)) {
        visit(path, command);
        for verb in command.get_subcommands().filter(|verb| verb.get_name() != "help" && !verb.is_hide_set()) {
            walk(verb, &format!("{path} {}", verb.get_name()), visit);
        }
    }

    fn examples(command: &Command) -> Vec<String> {
        let text = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        text.lines().map(str::trim).filter(|line| line.starts_with("vmoon") || line.contains("| vmoon")).map(str::to_owned).collect()
    }

    #[test]
    fn the_tree_is_sound() {
        crate::cli::command().debug_assert();
    }

    #[test]
    fn every_help_page_ends_with_two_examples() {
        walk(&crate::cli::command(), "vmoon", &mut |path, command| {
            assert!(examples(command).len() >= 2, "`{path} --help` has fewer than two examples");
            assert!(command.get_about().is_some(), "`{path}` says nothing about itself");
        });
    }

    #[test]
    fn paragraphs_are_one_line_that_every_width_can_break() {
        walk(&crate::cli::command(), "vmoon", &mut |path, command| {
            let text = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let prose = |line: &str| !line.is_empty() && !line.starts_with(' ');
            let lines: Vec<&str> = text.lines().collect();
            for pair in lines.windows(2).filter(|pair| !pair[0].ends_with(':')) {
                assert!(!(prose(pair[0]) && prose(pair[1])), "`{path} --help` breaks a paragraph itself: {}", pair[0]);
            }
        });
    }

    #[test]
    fn every_example_is_a_command_line_that_is_understood() {
        walk(&crate::cli::command(), "vmoon", &mut |path, command| {
            for example in examples(command) {
                let words: Vec<std::ffi::OsString> = words(&example).into_iter().map(Into::into).collect();
                if let Err(error) = crate::cli::parse(&words) {
                    let shown = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
                    assert!(shown, "`{path} --help` shows `{example}`, which is refused: {error}");
                }
            }
        });
    }

    /// The words of the vmoon command in a line of shell: without comments, pipes and redirections.
    fn words(line: &str) -> Vec<String> {
        let line = &line[line.find("vmoon").unwrap_or(0)..];
        let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
        for c in line.chars() {
            match (quote, c) {
                (Some(q), c) if c == q => quote = None,
                (None, '\'' | '"') => {
                    quote = Some(c);
                    word.get_or_insert_default();
                }
                (None, ' ') => words.extend(word.take()),
                (None, '#' | '|' | '<' | '>' | ';') if word.is_none() => break,
                (None, ';') => break,
                (_, c) => word.get_or_insert_default().push(c),
            }
        }
        words.extend(word);
        let end = words.iter().position(|word| word == "&&" || word == "&").unwrap_or(words.len());
        let mut words = words[..end].to_vec();
        // Descriptions of examples stand two blanks after them.
        if let Some((command, _)) = line.split_once("  ") {
            let count = self::words_of(command);
            words.truncate(count);
        }
        words
    }

    fn words_of(command: &str) -> usize {
        if command.contains("  ") { usize::MAX } else { words(command).len() }
    }

    #[test]
    fn the_reference_page_names_every_verb() {
        let page = super::markdown();
        for verb in ["create", "attach", "session list", "operation cancel", "daemon stop"] {
            assert!(page.contains(&format!("## `vmoon {verb}`")), "{verb}");
        }
    }
}
