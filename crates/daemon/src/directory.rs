//! Finding one machine among thousands by its id or by its name, without looking at the others.

use std::collections::HashMap;
use vmoon_core::MachineId;

/// Machines by id and by name. Names need not be unique: each connection has its own.
#[derive(Debug)]
pub(crate) struct Directory<M> {
    entries: HashMap<MachineId, (String, M)>,
    names: HashMap<String, Vec<MachineId>>,
}

impl<M> Default for Directory<M> {
    fn default() -> Self {
        Self { entries: HashMap::new(), names: HashMap::new() }
    }
}

impl<M> Directory<M> {
    /// All of them, in no order.
    pub(crate) fn all(&self) -> impl Iterator<Item = &M> {
        self.entries.values().map(|(_, machine)| machine)
    }

    /// The one with this id.
    pub(crate) fn get(&self, id: MachineId) -> Option<&M> {
        self.entries.get(&id).map(|(_, machine)| machine)
    }

    /// Those with this name.
    pub(crate) fn named(&self, name: &str) -> impl Iterator<Item = &M> {
        self.names.get(name).into_iter().flatten().filter_map(|id| self.get(*id))
    }

    /// Adds one, or puts it in the place of the one with that id. Whether it is new.
    pub(crate) fn add(&mut self, id: MachineId, name: &str, machine: M) -> bool {
        let before = self.remove(id);
        self.entries.insert(id, (name.to_owned(), machine));
        self.names.entry(name.to_owned()).or_default().push(id);
        before.is_none()
    }

    /// Finds it by another name from now on.
    pub(crate) fn rename(&mut self, id: MachineId, name: &str) {
        let Some((known, _)) = self.entries.get_mut(&id) else { return };
        let before = std::mem::replace(known, name.to_owned());
        self.unlist(&before, id);
        self.names.entry(name.to_owned()).or_default().push(id);
    }

    /// Removes one.
    pub(crate) fn remove(&mut self, id: MachineId) -> Option<M> {
        let (name, machine) = self.entries.remove(&id)?;
        self.unlist(&name, id);
        Some(machine)
    }

    fn unlist(&mut self, name: &str, id: MachineId) {
        if let Some(ids) = self.names.get_mut(name) {
            ids.retain(|other| *other != id);
            if ids.is_empty() {
                self.names.remove(name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[test]
    fn names_follow_what_is_added_renamed_and_removed() {
        let id = |n: u128| MachineId::from_uuid(Uuid::from_u128(n));
        let named = |directory: &Directory<char>, name: &str| {
            let mut found: Vec<char> = directory.named(name).copied().collect();
            found.sort_unstable();
            found.into_iter().collect::<String>()
        };
        let mut directory = Directory::default();
        assert!(directory.add(id(1), "lab", 'a') && directory.add(id(2), "lab", 'b') && directory.add(id(3), "web", 'c'));
        assert_eq!((named(&directory, "lab"), named(&directory, "web"), named(&directory, "la")), ("ab".into(), "c".into(), String::new()));
        directory.rename(id(1), "web");
        directory.rename(id(9), "web");
        assert_eq!((named(&directory, "lab"), named(&directory, "web")), ("b".into(), "ac".into()));
        assert!(!directory.add(id(3), "db", 'd'), "it was there");
        assert_eq!((named(&directory, "web"), directory.get(id(3))), ("a".into(), Some(&'d')));
        assert_eq!((directory.remove(id(2)), directory.remove(id(2)), named(&directory, "lab")), (Some('b'), None, String::new()));
        assert_eq!((directory.all().count(), directory.names.len()), (2, 2), "no empty names are kept");
    }
}
