//! Which machines a verb is about: names, globs, brace sets, all of them. Asks the daemon only where a pattern needs it.

use crate::connect::Daemon;
use std::collections::HashSet;
use vmoon_api::{Api as _, requests::Empty, views::MachineView};
use vmoon_core::{Code, Error, Result, name::escape, target::Target, target::glob, target::is_broken};

/// One machine to do something with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Picked {
    /// What the daemon is asked for.
    pub(crate) machine: String,
    /// What people are told.
    pub(crate) name: String,
}

/// The machines of a verb, and whether they were named one by one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Selection {
    /// Each once, in the order named.
    pub(crate) machines: Vec<Picked>,
    /// Whether exactly one was asked for by name: its result is printed as itself and not as a list.
    pub(crate) single: bool,
}

/// Machines, as a verb takes them.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct Targets {
    /// Machines by name, id, prefix of an id, or glob: [CONNECTION:]NAME
    #[arg(value_name = "MACHINE", required_unless_present = "all", add = crate::cmd::completions::machines())]
    pub(crate) machines: Vec<String>,
    /// All machines
    #[arg(long, conflicts_with = "machines")]
    pub(crate) all: bool,
}

impl Targets {
    /// Finds them.
    ///
    /// # Errors
    /// `usage` for what names no machine, `machine.not_found` for a pattern that fits none.
    pub(crate) async fn find(&self, daemon: &Daemon) -> Result<Selection> {
        let targets = self.parse()?;
        let known = if self.all || targets.iter().any(Target::is_glob) {
            daemon.ask(async |client| client.list_machines(Empty {}).await).await?
        } else {
            Vec::new()
        };
        if self.all {
            return Ok(Selection { machines: known.iter().map(picked).collect(), single: false });
        }
        choose(&targets, &known)
    }

    fn parse(&self) -> Result<Vec<Target>> {
        let mut targets = Vec::new();
        for text in all_braces(&self.machines)? {
            let target = Target::parse(&text)?;
            if target.session.is_some() {
                return Err(Error::new(Code::Usage, format!("\"{}\" names a session, and this verb is about machines", escape(&text)))
                    .hint(format!("write {}", escape(&target.machine))));
            }
            targets.push(target);
        }
        Ok(targets)
    }
}

/// The sessions that a verb about sessions is about: targets with globs and braces in their machine part, or session ids.
///
/// # Errors
/// As [`Targets::find`].
pub(crate) async fn sessions(daemon: &Daemon, texts: &[String]) -> Result<Selection> {
    let mut all = Selection { machines: Vec::new(), single: texts.len() == 1 };
    let mut known: Option<Vec<MachineView>> = None;
    for text in texts {
        let several = braces(text)?;
        all.single &= several.len() == 1;
        for text in several {
            let target = Target::parse(&text)?;
            if !target.is_glob() {
                all.machines.push(Picked { machine: text.clone(), name: text });
                continue;
            }
            all.single = false;
            if known.is_none() {
                known = Some(daemon.ask(async |client| client.list_machines(Empty {}).await).await?);
            }
            let found = choose(std::slice::from_ref(&target), known.as_deref().unwrap_or_default())?;
            all.machines.extend(found.machines.into_iter().map(|picked| match &target.session {
                Some(session) => Picked { machine: format!("{}/{session}", picked.machine), name: format!("{}/{session}", picked.name) },
                None => picked,
            }));
        }
    }
    let mut chosen = HashSet::new();
    all.machines.retain(|picked| chosen.insert(picked.machine.clone()));
    Ok(all)
}

/// Whether a text stands for several machines, or may.
pub(crate) fn is_pattern(text: &str) -> bool {
    text.contains(['*', '?', '[', '{'])
}

fn picked(view: &MachineView) -> Picked {
    Picked { machine: view.id.to_string(), name: view.name.clone() }
}

/// The machine part of a target, as the daemon takes it.
pub(crate) fn machine_of(target: &Target) -> String {
    match &target.connection {
        Some(connection) => format!("{connection}:{}", target.machine),
        None => target.machine.clone(),
    }
}

fn choose(targets: &[Target], known: &[MachineView]) -> Result<Selection> {
    let mut machines: Vec<Picked> = Vec::new();
    let mut chosen: HashSet<String> = HashSet::new();
    for target in targets {
        let mut add = |found: Picked| {
            if chosen.insert(found.machine.clone()) {
                machines.push(found);
            }
        };
        if !target.is_glob() {
            add(Picked { machine: machine_of(target), name: machine_of(target) });
            continue;
        }
        let fits = |view: &&MachineView| {
            glob(&target.machine, &view.name) && target.connection.as_deref().is_none_or(|connection| glob(connection, &view.connection))
        };
        let found: Vec<&MachineView> = known.iter().filter(fits).collect();
        if found.is_empty() && is_broken(&target.machine) {
            return Err(unclosed(&target.machine));
        }
        if found.is_empty() {
            return Err(
                Error::new(Code::MachineNotFound, format!("no machine matches \"{}\"", escape(&machine_of(target)))).hint("vmoon list")
            );
        }
        found.into_iter().for_each(|view| add(picked(view)));
    }
    let single = targets.len() == 1 && !targets[0].is_glob();
    Ok(Selection { machines, single })
}

/// What is said of a pattern that fits nothing and whose `[` is not closed.
pub(crate) fn unclosed(pattern: &str) -> Error {
    Error::new(Code::Usage, format!("\"{}\": a [ is not closed", escape(pattern))).hint("write for example web[0-9]")
}

/// How many names one set of braces may stand for.
const MOST: usize = 10_000;

/// Expands each of several texts; see [`braces`].
///
/// # Errors
/// As [`braces`], also for more than 10 000 names in all.
pub(crate) fn all_braces(texts: &[String]) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for text in texts {
        names.extend(braces(text)?);
        if names.len() > MOST {
            return Err(Error::new(Code::Usage, "that is more than 10 000 names").hint("do it in parts"));
        }
    }
    Ok(names)
}

/// Expands `web{01..03}` and `web{a,b}`; text without braces stands for itself.
///
/// # Errors
/// [`Code::Usage`] for braces that are not closed or ranges that are not numbers, and for more than 10 000 names.
pub(crate) fn braces(text: &str) -> Result<Vec<String>> {
    let bad = |why: &str| {
        Err(Error::new(Code::Usage, format!("\"{}\": {why}", escape(text))).hint("write for example web{01..20} or web{a,b,c}"))
    };
    let Some((before, rest)) = text.split_once('{') else { return Ok(vec![text.to_owned()]) };
    let Some((inside, after)) = rest.split_once('}') else { return bad("a brace is not closed") };
    let middle: Vec<String> = if let Some((from, to)) = inside.split_once("..") {
        let (Ok(first), Ok(last)) = (from.parse::<u64>(), to.parse::<u64>()) else { return bad("a range goes from number to number") };
        if first.abs_diff(last) >= MOST as u64 {
            return bad("that is more than 10 000 names");
        }
        let width = if from.starts_with('0') || to.starts_with('0') { from.len().max(to.len()) } else { 0 };
        let numbers: Vec<u64> = if first <= last { (first..=last).collect() } else { (last..=first).rev().collect() };
        numbers.into_iter().map(|n| format!("{n:0width$}")).collect()
    } else if inside.contains(',') {
        inside.split(',').map(str::to_owned).collect()
    } else {
        return bad("braces hold a range or a list");
    };
    let after = braces(after)?;
    if middle.len() * after.len() > MOST {
        return bad("that is more than 10 000 names");
    }
    Ok(middle.iter().flat_map(|m| after.iter().map(move |a| format!("{before}{m}{a}"))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn braces_stand_for_many_names() {
        assert_eq!(braces("x").unwrap(), ["x"]);
        assert_eq!(braces("w{08..11}").unwrap(), ["w08", "w09", "w10", "w11"]);
        assert_eq!(braces("w{3..1}-{a,b}").unwrap(), ["w3-a", "w3-b", "w2-a", "w2-b", "w1-a", "w1-b"]);
        assert_eq!(braces("name-{001..500}").unwrap().len(), 500);
        for bad in ["{", "a{1..}", "a{x..y}", "a{}", "a{b}", "a{1..99999999999}", "a{1..1000}{1..1000}", "a{-1..2}"] {
            assert_eq!(braces(bad).unwrap_err().code(), Code::Usage, "{bad}");
        }
    }

    fn view(name: &str, connection: &str) -> MachineView {
        serde_json::from_value(serde_json::json!({
            "id": vmoon_sys::random::uuid(), "name": name, "connection": connection, "kind": "lua", "state": "stopped", "operation": null,
            "doing": null, "gen": 1, "created_ms": 0, "since_ms": 0, "exit": null, "spec": null, "abilities": {}
        }))
        .unwrap()
    }

    #[test]
    fn patterns_choose_each_machine_once() {
        let known = [view("web1", "local"), view("web2", "lab"), view("db", "local")];
        let parse = |list: &[&str]| list.iter().map(|t| Target::parse(t).unwrap()).collect::<Vec<_>>();
        let names = |list: &[&str]| choose(&parse(list), &known).unwrap().machines.into_iter().map(|p| p.name).collect::<Vec<_>>();
        assert_eq!(names(&["web*", "w*"]), ["web1", "web2"]);
        assert_eq!(names(&["lab:*"]), ["web2"]);
        assert_eq!(names(&["db", "db", "lab:x"]), ["db", "lab:x"], "a plain name needs no list");
        assert_eq!(choose(&parse(&["x*"]), &known).unwrap_err().code(), Code::MachineNotFound);
        assert_eq!(choose(&parse(&["web[0"]), &known).unwrap_err().code(), Code::Usage);
        assert!(choose(&parse(&["db"]), &[]).unwrap().single && !choose(&parse(&["d*"]), &known).unwrap().single);
    }

    #[test]
    fn a_session_is_no_machine() {
        let targets = Targets { machines: vec!["a/b".into()], all: false };
        assert_eq!(targets.parse().unwrap_err().code(), Code::Usage);
    }
}
