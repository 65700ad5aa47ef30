//! Finding what a request names: names, `CONNECTION:NAME`, ids and unambiguous prefixes of ids.

use super::Service;
use crate::{machine::Machine, session::Shared};
use std::sync::Arc;
use vmoon_core::{Code, Error, MachineId, Result, machine::State, name::escape, target::Target};

/// The shortest prefix of an id that is looked up, characters.
const SHORTEST_PREFIX: usize = 4;

fn could_be_id(text: &str) -> bool {
    text.len() >= SHORTEST_PREFIX && text.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-')
}

impl Service {
    /// Finds a machine. A name wins over an id prefix.
    pub(super) fn machine(&self, text: &str) -> Result<Arc<Machine>> {
        let target = Target::parse(text)?;
        if target.session.is_some() {
            return Err(Error::new(Code::Usage, format!("\"{}\" names a session; a machine is meant here", escape(text))));
        }
        self.machine_of(&target)
    }

    pub(super) fn machine_of(&self, target: &Target) -> Result<Arc<Machine>> {
        if let Some(connection) = &target.connection
            && !self.context.connections.all().iter().any(|c| c.name == *connection)
        {
            return Err(Error::new(Code::ConnectionNotFound, format!("no connection is named \"{}\"", escape(connection)))
                .hint("see `vmoon connection list`"));
        }
        // A whole id needs no search: verbs about many machines name them so.
        if let Ok(id) = target.machine.parse()
            && let Some(machine) = self.context.machine(id)
            && target.connection.as_ref().is_none_or(|c| *c == machine.view().connection)
        {
            return Ok(machine);
        }
        let there = |machine: &Arc<Machine>| target.connection.as_ref().is_none_or(|c| *c == machine.view().connection);
        let mut found = self.context.machines_named(&target.machine);
        found.retain(there);
        if found.is_empty() {
            found = self.machines_like(&target.machine);
            found.retain(there);
        }
        match found.as_slice() {
            [one] => Ok(one.clone()),
            [] => Err(self.unknown_machine(&target.machine)),
            many => {
                let list: Vec<String> =
                    many.iter().map(|m| format!("{}:{} ({})", m.view().connection, escape(&m.view().name), m.id)).collect();
                Err(Error::new(
                    Code::NameAmbiguous,
                    format!("\"{}\" fits {} machines: {}", escape(&target.machine), many.len(), list.join(", ")),
                )
                .hint("say CONNECTION:NAME or the id"))
            }
        }
    }

    /// The machines whose name, or else whose id, is or begins with this text: for what is in no list, such as a name that changes just now.
    fn machines_like(&self, text: &str) -> Vec<Arc<Machine>> {
        let (named, mut others): (Vec<_>, Vec<_>) = self.context.machines().into_iter().partition(|machine| machine.view().name == text);
        if !named.is_empty() {
            return named;
        }
        let prefix = could_be_id(text).then(|| text.to_ascii_lowercase());
        others.retain(|machine| prefix.as_ref().is_some_and(|prefix| machine.id.to_string().starts_with(prefix)));
        others
    }

    fn unknown_machine(&self, text: &str) -> Error {
        if text.contains(['*', '?', '[', '{']) {
            return Error::new(Code::Usage, format!("\"{}\" may stand for several machines, and one is meant here", escape(text)))
                .hint(format!("name one of them: vmoon list '{}'", escape(text)));
        }
        let near = self.context.machines().iter().map(|m| m.view().name.clone()).filter(|name| near(name, text)).min();
        let error = Error::new(Code::MachineNotFound, format!("no machine is named \"{}\"", escape(text)));
        match near {
            Some(name) => error.hint(format!("did you mean {}?", escape(&name))),
            None => error.hint("see `vmoon list`; make one with `vmoon create NAME --start`"),
        }
    }

    /// The session that a plain name means, where nothing has to be decided or waited for: one machine has that name, it runs and its session lives.
    pub(super) fn plain_session(&self, text: &str) -> Option<Arc<Shared>> {
        if text.contains([':', '/']) || text.parse::<MachineId>().is_ok() {
            return None;
        }
        let machine = self.context.only_machine_named(text)?;
        let view = machine.view();
        if view.state == State::Running && view.name == text { machine.main_session() } else { None }
    }

    /// Finds a session by its id, `MACHINE[/SESSION]`, or a prefix of its id: the live one, else the newest that ended.
    pub(super) fn session(&self, text: &str) -> Result<Arc<Shared>> {
        // Whole ids and names need no search.
        let machine = text.parse().is_ok_and(|id| self.context.machine(id).is_some()) || !self.context.machines_named(text).is_empty();
        if !machine
            && let Ok(id) = text.parse()
            && let Some(found) = self.context.session(id)
        {
            return Ok(found);
        }
        if !machine && could_be_id(text) {
            let fits: Vec<_> = self
                .context
                .machines()
                .iter()
                .flat_map(|m| m.sessions())
                .filter(|s| s.row.id.to_string().starts_with(&text.to_ascii_lowercase()))
                .collect();
            match fits.as_slice() {
                [one] => return Ok(one.clone()),
                [] => {}
                many => {
                    return Err(Error::new(Code::NameAmbiguous, format!("{} sessions begin with {text}", many.len())));
                }
            }
        }
        let target = Target::parse(text)?;
        let machine = self.machine_of(&target)?;
        let sessions = machine.sessions();
        // Where there is no main and only one other, that one is meant.
        let channels = machine.channels();
        let name = match channels.as_slice() {
            [only] if target.session.is_none() => only.name.as_str(),
            _ => target.session(),
        };
        let named = || sessions.iter().rev().filter(|s| s.row.name == name);
        let live = named().find(|s| !s.ended() && !machine.outlives(s)).or_else(|| named().find(|s| !s.ended()));
        live.or_else(|| named().next()).cloned().ok_or_else(|| {
            let name = escape(&machine.view().name);
            Error::new(Code::SessionNotFound, format!("{name} has no session named \"{}\"", escape(target.session())))
                .hint(format!("see `vmoon session list {name}`"))
        })
    }
}

/// Whether two names differ by one edit, or one begins with the other.
fn near(a: &str, b: &str) -> bool {
    if b.len() >= 3 && (a.starts_with(b) || b.starts_with(a)) {
        return true;
    }
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let front = a.iter().zip(&b).take_while(|(x, y)| x == y).count();
    let back = a[front..].iter().rev().zip(b[front..].iter().rev()).take_while(|(x, y)| x == y).count();
    a.len().max(b.len()) - front - back <= 1
}

#[cfg(test)]
mod tests {
    use super::near;

    #[test]
    fn near_names() {
        for (a, b, expect) in
            [("web01", "web02", true), ("web01", "web1", true), ("web01", "web", true), ("db", "web", false), ("ab", "ba", false)]
        {
            assert_eq!(near(a, b), expect, "{a} {b}");
        }
    }
}
