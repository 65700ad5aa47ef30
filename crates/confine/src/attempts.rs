//! The table of what a process can try and what stops it, for tests and for the reference page. Pure: it tries nothing itself.
//!
//! The attempts are C functions, because C modules make such calls: [`SOURCES`]. Compiled to one shared library they have one entry,
//! `int vmoon_attempt(const char *name, const char *stage)`, described in the first of them.

use crate::rules::{Layer, Profile};
use std::fmt::Write as _;

/// The table.
const TABLE: &str = include_str!("../attempts/isolation.txt");

/// The attempts: name and text of each C source and of the header they share.
pub const SOURCES: [(&str, &str); 6] = [
    ("attempts.c", include_str!("../attempts/attempts.c")),
    ("attempts.h", include_str!("../attempts/attempts.h")),
    ("files.c", include_str!("../attempts/files.c")),
    ("processes.c", include_str!("../attempts/processes.c")),
    ("sockets.c", include_str!("../attempts/sockets.c")),
    ("system.c", include_str!("../attempts/system.c")),
];

/// What happens to an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It succeeds.
    Allowed,
    /// Each of these layers alone stops it. Never empty.
    Stopped(Vec<Layer>),
}

impl Outcome {
    /// Whether the attempt must succeed when these layers are switched off, and no others.
    pub fn succeeds_without(&self, off: &[Layer]) -> bool {
        match self {
            Outcome::Allowed => true,
            Outcome::Stopped(layers) => layers.iter().all(|layer| off.contains(layer)),
        }
    }
}

/// What an attempt needs besides, in order to succeed when nothing stops it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Only root can do it.
    pub root: bool,
    /// It depends on how the kernel is built and the computer set up.
    pub kernel: bool,
    /// The outcome holds only where nothing is granted for execution.
    pub code: bool,
    /// It takes seconds.
    pub slow: bool,
}

/// One attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// The heading it stands under.
    pub group: &'static str,
    /// Its name, for `vmoon_attempt`.
    pub name: &'static str,
    /// What it tries, in Markdown.
    pub text: &'static str,
    /// What it needs.
    pub needs: Needs,
    outcomes: [Outcome; 3],
}

impl Attempt {
    /// What happens to it in this profile.
    pub fn outcome(&self, profile: Profile) -> &Outcome {
        match profile {
            Profile::Sealed => &self.outcomes[0],
            Profile::Files => &self.outcomes[1],
            Profile::Net => &self.outcomes[2],
            Profile::Trusted => &Outcome::Allowed,
        }
    }
}

/// All attempts, in the order of the page.
///
/// # Errors
/// The line of the table that cannot be read, and why.
pub fn all() -> Result<Vec<Attempt>, String> {
    let (mut found, mut group) = (Vec::new(), "");
    for (at, line) in TABLE.lines().enumerate() {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(heading) = line.strip_prefix("== ") {
            group = heading;
            continue;
        }
        found.push(attempt(group, line).map_err(|why| format!("isolation.txt:{}: {why}", at + 1))?);
    }
    Ok(found)
}

fn attempt(group: &'static str, line: &'static str) -> Result<Attempt, String> {
    let fields: Vec<&'static str> = line.split('|').map(str::trim).collect();
    let [name, wants, text, sealed, files, net] = fields[..] else { return Err(format!("{} fields instead of 6", fields.len())) };
    let mut needs = Needs::default();
    for want in wants.split(',').filter(|want| !want.is_empty()) {
        match want {
            "root" => needs.root = true,
            "kernel" => needs.kernel = true,
            "code" => needs.code = true,
            "slow" => needs.slow = true,
            other => return Err(format!("no such need: {other}")),
        }
    }
    let outcome = |cell: &str| match cell {
        "allowed" => Ok(Outcome::Allowed),
        layers => layers.split('+').map(str::parse).collect::<Result<_, _>>().map(Outcome::Stopped),
    };
    Ok(Attempt { group, name, text, needs, outcomes: [outcome(sealed)?, outcome(files)?, outcome(net)?] })
}

/// The reference page.
///
/// # Errors
/// As [`all`].
pub fn page() -> Result<String, String> {
    let mut page = String::from(
        "# Isolation: what is tried and what stops it\n\n\
         Each line is an attempt that a test makes in every profile, by C code in a confined process. *Stopped by* names all layers that stop it, \
         each of them alone: the test switches them off one by one and sees that the others hold, then all of them and sees it succeed. \
         In profile `trusted` nothing is stopped but by the limits that were asked for.\n\n\
         Layers: `privileges` is no_new_privs and no capabilities, `rlimits` resource limits, `landlock` and `seccomp` the kernel's facilities of these names (all that is said here of signals and \
         abstract sockets needs Landlock of Linux 6.12, of TCP 6.7), `broker` the process that makes the connections of profile `net`.\n\n\
         Marks: ¹ only root can do it anyway. ² depends on how the kernel is built and the computer set up. ³ in `sealed` nothing is granted for execution here; with such a grant, which C modules need, seccomp does not stop it. Nor does it in a machine with `builtin-luajit`, which makes machine code of its program.\n",
    );
    let mut group = "";
    for attempt in all()? {
        if attempt.group != group {
            group = attempt.group;
            let _ = write!(page, "\n## {group}\n\n| attempt | `sealed` | `files` | `net` |\n|---|---|---|---|\n");
        }
        let Needs { root, kernel, code, .. } = attempt.needs;
        let marks: Vec<&str> =
            [(root, "¹"), (kernel, "²"), (code, "³")].into_iter().filter(|(set, _)| *set).map(|(_, mark)| mark).collect();
        let _ = write!(page, "| {}{} |", attempt.text, marks.join(" "));
        for profile in [Profile::Sealed, Profile::Files, Profile::Net] {
            let cell = match attempt.outcome(profile) {
                Outcome::Allowed => "allowed".to_owned(),
                Outcome::Stopped(layers) => layers.iter().map(|layer| layer.as_str()).collect::<Vec<_>>().join(", "),
            };
            let _ = write!(page, " {cell} |");
        }
        page.push('\n');
    }
    Ok(page)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_read_and_no_name_stands_twice() {
        let all = all().expect("the table");
        assert!(all.len() > 45);
        for (at, attempt) in all.iter().enumerate() {
            assert!(!attempt.group.is_empty() && !attempt.text.is_empty());
            assert!(all[..at].iter().all(|other| other.name != attempt.name), "{} stands twice", attempt.name);
            let inside = SOURCES.iter().any(|(_, text)| text.contains(&format!("{{\"{}\", ", attempt.name)));
            assert!(inside, "there is no attempt {}", attempt.name);
        }
        assert!(page().expect("the table").contains("| open `/etc/passwd` | landlock | landlock | landlock |"));
    }

    #[test]
    fn every_attempt_of_the_sources_is_in_the_table() {
        let all = all().expect("the table");
        for (file, text) in SOURCES.iter().filter(|(name, _)| name.ends_with(".c")) {
            for entry in text.split("    {\"").skip(1).flat_map(|line| line.lines().next()).flat_map(|line| line.split("}, {\"")) {
                let name = entry.split('"').next().unwrap_or_default();
                assert!(all.iter().any(|attempt| attempt.name == name), "{file}: {name} is in no line of the table");
            }
        }
    }

    #[test]
    fn a_layer_more_never_lets_through() {
        let outcome = Outcome::Stopped(vec![Layer::Landlock, Layer::Seccomp]);
        assert!(!outcome.succeeds_without(&[]) && !outcome.succeeds_without(&[Layer::Landlock]));
        assert!(outcome.succeeds_without(&[Layer::Seccomp, Layer::Landlock, Layer::Rlimits]));
        assert!(Outcome::Allowed.succeeds_without(&[]));
    }
}
