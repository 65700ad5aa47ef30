//! One method by its name: what it wants, what it answers, since when there is one; and what is said when there is none.

use super::{Accessor, Model, Param, Release, Type};
use std::fmt;

/// How many names are proposed for one that is not known.
const PROPOSED: usize = 5;

/// A method of the data model.
#[derive(Clone, Debug)]
pub struct Method {
    /// `VM.start`, without `Async.`.
    pub name: String,
    /// Whether it is asked for as a task.
    pub asynchronous: bool,
    /// Whether it wants a session before its parameters.
    pub session: bool,
    /// The release that had it first; empty where the data model does not say.
    pub since: String,
    /// What it wants after the session.
    pub params: Vec<Param>,
    /// What it answers; of a task, what the task results in.
    pub result: Type,
}

impl Method {
    /// The fewest and the most parameters it takes after the session.
    pub fn arity(&self) -> (usize, usize) {
        (self.params.iter().filter(|param| !param.optional).count(), self.params.len())
    }

    /// Whether a host of that release has it.
    pub fn is_in(&self, release: Release) -> bool {
        Release::parse(&self.since).is_by(release)
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |param: &Param| format!("{}{}: {}", param.name, if param.optional { "?" } else { "" }, param.ty);
        let params: Vec<String> = self.params.iter().map(shown).collect();
        write!(f, "{}({}) → {}", self.name, params.join(", "), self.result)
    }
}

/// What is wrong with a call, found before it is sent.
#[derive(Clone, Debug)]
pub enum Wrong {
    /// There is no such method.
    Unknown {
        /// What was asked for.
        name: String,
        /// What may have been meant, the nearest first.
        nearest: Vec<String>,
    },
    /// It takes another number of parameters.
    Count {
        /// The method.
        method: Box<Method>,
        /// How many were given, without the session.
        given: usize,
    },
    /// A parameter is not of its type.
    Argument {
        /// Which.
        param: Box<Param>,
        /// Why not.
        why: String,
    },
    /// It cannot be a task.
    NoTask {
        /// The method.
        name: String,
    },
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown { name, .. } => write!(f, "XAPI has no method \"{}\"", name.escape_debug()),
            Self::Count { method, given } => {
                let wanted = match method.arity() {
                    (least, most) if least == most => least.to_string(),
                    (least, most) => format!("{least} to {most}"),
                };
                write!(f, "{method} takes {wanted} arguments beside the session, {given} are given")
            }
            Self::Argument { param, why } => write!(f, "\"{}\" takes {}: {why}", param.name, param.ty),
            Self::NoTask { name } => write!(f, "{name} is answered at once, it cannot be a task"),
        }
    }
}

impl std::error::Error for Wrong {}

impl Model {
    /// A method by its name, `Async.` before it if it is wanted as a task.
    ///
    /// # Errors
    /// [`Wrong::Unknown`], [`Wrong::NoTask`].
    pub fn method(&self, name: &str) -> Result<Method, Wrong> {
        let (plain, asynchronous) = name.strip_prefix("Async.").map_or((name, false), |plain| (plain, true));
        let method = self.plain(plain).ok_or_else(|| Wrong::Unknown { name: name.to_owned(), nearest: self.nearest(plain) })?;
        let verb = plain.split_once('.').map_or("", |(_, verb)| verb);
        // Accessors are no tasks, but those that make and destroy.
        let can = matches!(verb, "create" | "destroy") || self.is_call(plain);
        if asynchronous && !(can && method.session) {
            return Err(Wrong::NoTask { name: plain.to_owned() });
        }
        Ok(Method { asynchronous, ..method })
    }

    /// Checks name and number of parameters of a call.
    ///
    /// # Errors
    /// [`Wrong`].
    pub fn check(&self, name: &str, given: usize) -> Result<Method, Wrong> {
        let method = self.method(name)?;
        let (least, most) = method.arity();
        if (least..=most).contains(&given) { Ok(method) } else { Err(Wrong::Count { method: Box::new(method), given }) }
    }

    fn is_call(&self, name: &str) -> bool {
        name.split_once('.').and_then(|(class, verb)| self.classes.get(class)?.calls.get(verb)).is_some()
    }

    fn plain(&self, name: &str) -> Option<Method> {
        if name == "system.listMethods" {
            let result = Type::Set(Box::new(Type::Text));
            return Some(Method {
                name: name.into(),
                asynchronous: false,
                session: false,
                since: "rio".into(),
                params: Vec::new(),
                result,
            });
        }
        let (of, verb) = name.split_once('.')?;
        let class = self.classes.get(of)?;
        let method = |session, since: &str, params, result| Method {
            name: name.to_owned(),
            asynchronous: false,
            session,
            since: since.to_owned(),
            params,
            result,
        };
        if let Some(call) = class.calls.get(verb) {
            return Some(method(call.session, &call.since, call.params.clone(), call.result.clone()));
        }
        let accessor = Accessor::find(class, verb)?;
        let (params, result) = accessor.shape(of);
        Some(method(true, accessor.since(class), params, result))
    }

    /// The names of every method, without `Async.`.
    pub fn methods(&self) -> Vec<String> {
        let mut all = Vec::new();
        for (name, class) in &self.classes {
            let mut verbs: Vec<String> = [
                "get_record",
                "get_by_uuid",
                "get_all",
                "get_all_records",
                "get_all_records_where",
                "get_by_name_label",
                "create",
                "destroy",
            ]
            .into_iter()
            .map(String::from)
            .collect();
            for field in &class.fields {
                verbs.extend(["get_", "set_", "add_to_", "remove_from_", "add_", "remove_"].map(|start| format!("{start}{}", field.name)));
            }
            verbs.retain(|verb| !class.calls.contains_key(verb) && Accessor::find(class, verb).is_some());
            verbs.extend(class.calls.keys().cloned());
            all.extend(verbs.into_iter().map(|verb| format!("{name}.{verb}")));
        }
        all.push("system.listMethods".into());
        all
    }

    /// Names that are like this one: of the same class and another verb, of the same verb and another class, or mistyped.
    fn nearest(&self, name: &str) -> Vec<String> {
        let lower: String = name.chars().take(80).collect::<String>().to_lowercase();
        let (class, verb) = lower.split_once('.').unwrap_or(("", lower.as_str()));
        let mut scored: Vec<(usize, String)> = Vec::new();
        for candidate in self.methods() {
            let known = candidate.to_lowercase();
            let (of, does) = known.split_once('.').unwrap_or(("", &known));
            // A class is mistaken less often than a verb; words that are the same count for much.
            let mut score = 3 * distance(class, of) + distance(verb, does);
            if !verb.is_empty() && (does.contains(verb) || (verb.contains(does) && does.len() > 3)) {
                score = score.min(3 * distance(class, of) + 1);
            }
            scored.push((score, candidate));
        }
        scored.sort();
        let best = scored.first().map_or(0, |(score, _)| *score);
        let near = lower.len() / 2 + 2;
        scored.into_iter().take_while(|(score, _)| *score <= near && *score <= best + 4).take(PROPOSED).map(|(_, name)| name).collect()
    }
}

/// How many letters must be changed, added or left out to make one word of the other (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut before = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let changed = before + usize::from(x != *y);
            before = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(before + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_are_found_with_what_they_take() {
        let model = Model::get();
        let start = model.method("Async.VM.start").unwrap();
        assert!(start.asynchronous && start.session);
        assert_eq!(start.to_string(), "VM.start(vm: VM ref, start_paused: bool, force: bool) → void");
        assert_eq!(model.method("session.login_with_password").unwrap().arity(), (2, 4));
        assert_eq!(
            model.method("VM.add_to_other_config").unwrap().to_string(),
            "VM.add_to_other_config(self: VM ref, key: string, value: string) → void"
        );
        assert_eq!(model.method("system.listMethods").unwrap().arity(), (0, 0));
        assert!(matches!(model.method("Async.VM.get_record"), Err(Wrong::NoTask { .. })));
        assert!(matches!(model.method("Async.session.login_with_password"), Err(Wrong::NoTask { .. })));
        assert!(model.check("VM.snapshot", 2).is_ok() && model.check("VM.snapshot", 3).is_ok());
        let wrong = model.check("VM.start", 1).unwrap_err().to_string();
        assert!(wrong.contains("takes 3 arguments") && wrong.contains("1 are given"), "{wrong}");
    }

    #[test]
    fn since_when_is_told() {
        let model = Model::get();
        assert!(model.method("VM.start").unwrap().is_in(Release::OLDEST));
        assert!(!model.method("PCI.disable_dom0_access").unwrap().is_in(Release::OLDEST));
    }

    #[test]
    fn who_mistypes_is_told_what_is_near() {
        let nearest = |name: &str| match Model::get().method(name) {
            Err(Wrong::Unknown { nearest, .. }) => nearest,
            other => panic!("{other:?}"),
        };
        assert_eq!(nearest("VM.strat")[0], "VM.start");
        assert_eq!(nearest("vm.start")[0], "VM.start");
        assert!(nearest("VM.migrate").iter().any(|name| name == "VM.pool_migrate"), "{:?}", nearest("VM.migrate"));
        assert!(nearest("VN.get_record").contains(&"VM.get_record".to_owned()));
        assert!(nearest(&"x".repeat(100_000)).is_empty());
        assert!(nearest("").len() <= PROPOSED);
    }

    #[test]
    fn every_name_in_the_list_is_a_method() {
        let model = Model::get();
        let names = model.methods();
        assert!(names.len() > 1900, "{}", names.len());
        for name in names {
            assert!(model.method(&name).is_ok(), "{name}");
        }
    }
}
