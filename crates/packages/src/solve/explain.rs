//! Why there is no choice of versions, in plain sentences: pubgrub's proof, told in the words of the rockspecs.

use super::{
    known::{Choice, Known, Rocks},
    provider::Package,
};
use crate::{constraint::Dependency, name::RockName, search, version::Version};
use pubgrub::{DefaultStringReporter, DerivationTree, Derived, External, Map, Ranges, ReportFormatter, Reporter as _, Term};
use std::{collections::HashMap, sync::Arc};
use vmoon_core::{Code, Error};

type Tree = DerivationTree<Package, Ranges<u32>, String>;
type Fact = External<Package, Ranges<u32>, String>;
type Terms = Map<Package, Term<Ranges<u32>>>;

/// Explanations of more sentences than this are cut: nobody reads them.
const MAX_SENTENCES: usize = 40;

/// The error for a search without a solution.
pub(super) fn error(rocks: &Rocks<'_>, tree: Tree) -> Error {
    let met = met(rocks, &tree);
    let tree = simplified(rocks, &Arc::new(tree), &mut HashMap::new());
    let told = DefaultStringReporter::report_with_formatter(&tree, &Words(rocks));
    let mut sentences: Vec<String> = told.lines().map(str::trim).filter(|line| !line.is_empty()).map(sentence).collect();
    if sentences.len() > MAX_SENTENCES {
        let more = sentences.len() - MAX_SENTENCES;
        sentences.truncate(MAX_SENTENCES);
        sentences.push(format!("There are {more} more steps."));
    }
    sentences.extend(rocks.index().unasked().iter().map(|line| sentence(line)));
    let detail = serde_json::json!({ "explanation": sentences });
    // With what a server has that could not be asked there may be a choice.
    let unheard = met.iter().find_map(|name| rocks.index().unheard(name));
    if let Some(failure) = unheard {
        return failure.error(format!("no choice of what is known meets every constraint. {}", sentences.join(" "))).detail(detail);
    }
    let message = format!("no choice of versions meets every constraint. {}", sentences.join(" "));
    Error::new(Code::PackageConflict, message)
        .hint("ask for other versions, leave a rock out, or use another environment for it")
        .detail(detail)
}

/// The rocks that a proof speaks of and that servers decide about.
fn met(rocks: &Rocks<'_>, tree: &Tree) -> Vec<RockName> {
    let rock = |package: &Package| match package {
        Package::Rock(name) => Some(name.clone()),
        Package::Wanted => None,
    };
    let provided = |name: &RockName| matches!(rocks.known(name).choices.as_slice(), [Choice::Provided(_)]);
    tree.packages().into_iter().filter_map(rock).filter(|name| !provided(name)).collect()
}

/// One step of the explanation, with a capital letter and a full stop.
fn sentence(line: &str) -> String {
    let mut letters = line.chars();
    let first: String = letters.next().map(|c| c.to_uppercase().collect()).unwrap_or_default();
    let stop = if line.ends_with(['.', ')']) { "" } else { "." };
    format!("{first}{}{stop}", letters.as_str())
}

/// That no server has a rock, as a clause.
pub(super) fn nowhere(rocks: &Rocks<'_>, name: &RockName) -> String {
    let index = rocks.index();
    let mut text = match (index.lists(name), index.servers.as_slice()) {
        (true, _) => format!("{name} is there, but only ready for other kinds of machines"),
        (false, []) => format!("there is no server that could have {name}"),
        (false, [_]) => format!("the server does not have {name}"),
        (false, _) if !index.failures.is_empty() => format!("no server that answered has {name}"),
        (false, _) => format!("no server has {name}"),
    };
    for failure in &index.failures {
        text.push_str(&format!(", and {} could not be asked ({})", failure.server, failure.error.message));
    }
    text
}

/// That a rock is there, but in no version that is wanted.
pub(super) fn no_such_version(rocks: &Rocks<'_>, wanted: &Dependency, known: &Known) -> String {
    let mut text = format!("no server has {wanted} (there is {})", list(&known.versions()));
    let elsewhere: Vec<_> = rocks.index().passed_over(&wanted.name).into_iter().filter(|c| wanted.constraints.allow(&c.version)).collect();
    if let Some(server) = elsewhere.first().and_then(|candidate| rocks.index().server(candidate.server)) {
        text.push_str(&format!(", but {} has it: a server that is asked before that has {} too, and decides", server.name, wanted.name));
    }
    text
}

/// Some versions, newest last; long lists by their ends.
fn list(versions: &[&Version]) -> String {
    list_with(versions, "and")
}

fn list_with(versions: &[&Version], word: &str) -> String {
    match versions {
        [] => "none".to_owned(),
        [one] => one.to_string(),
        [first, .., last] if versions.len() > 5 => format!("{first} to {last} ({} versions)", versions.len()),
        [some @ .., last] => {
            let some: Vec<String> = some.iter().map(ToString::to_string).collect();
            format!("{} {word} {last}", some.join(", "))
        }
    }
}

/// Leaves out what is true of numbers and not of versions: that a set has no version, where it has no number of one. Steps that are used more than once
/// are done once.
fn simplified(rocks: &Rocks<'_>, tree: &Arc<Tree>, done: &mut HashMap<*const Tree, Arc<Tree>>) -> Arc<Tree> {
    let DerivationTree::Derived(derived) = &**tree else { return Arc::clone(tree) };
    if let Some(simple) = done.get(&Arc::as_ptr(tree)) {
        return Arc::clone(simple);
    }
    let cause1 = simplified(rocks, &derived.cause1, done);
    let cause2 = simplified(rocks, &derived.cause2, done);
    let says_nothing = |tree: &Tree| match tree {
        DerivationTree::External(External::NoVersions(Package::Rock(name), set)) => {
            let known = rocks.known(name);
            // Of a rock that is nowhere, whoever needs it says so.
            known.choices.is_empty() || (known.members(set).is_empty() && *set != Ranges::empty())
        }
        DerivationTree::External(External::NotRoot(..)) => true,
        _ => false,
    };
    let simple = match (says_nothing(&cause1), says_nothing(&cause2)) {
        (true, _) => with_terms(&cause2, &derived.terms),
        (_, true) => with_terms(&cause1, &derived.terms),
        _ => Arc::new(DerivationTree::Derived(Derived { terms: derived.terms.clone(), shared_id: derived.shared_id, cause1, cause2 })),
    };
    done.insert(Arc::as_ptr(tree), Arc::clone(&simple));
    simple
}

/// The same step with the conclusion of the step that said no more.
fn with_terms(tree: &Arc<Tree>, terms: &Terms) -> Arc<Tree> {
    match &**tree {
        DerivationTree::Derived(derived) => Arc::new(DerivationTree::Derived(Derived { terms: terms.clone(), ..derived.clone() })),
        DerivationTree::External(_) => Arc::clone(tree),
    }
}

/// Tells steps in words.
struct Words<'a, 'r>(&'a Rocks<'r>);

impl Words<'_, '_> {
    /// Versions of a package, as the subject of a clause: all of them do or need something.
    fn subject(&self, package: &Package, set: &Ranges<u32>) -> String {
        self.versions(package, set, "and")
    }

    /// Versions of a package, as the object of a clause: one of them is needed.
    fn object(&self, package: &Package, set: &Ranges<u32>) -> String {
        self.versions(package, set, "or")
    }

    fn versions(&self, package: &Package, set: &Ranges<u32>, word: &str) -> String {
        let Package::Rock(name) = package else { return "you".to_owned() };
        let known = self.0.known(name);
        let members = known.members(set);
        if let [Choice::Provided(_)] = known.choices.as_slice() {
            return format!("Lua {}", self.0.index().lua());
        }
        if members.len() == known.choices.len() && members.len() > 1 {
            return format!("{} version of {name}", if word == "or" { "any" } else { "every" });
        }
        let versions: Vec<&Version> = members.iter().map(|at| known.choices[*at as usize].version()).collect();
        if versions.is_empty() { name.to_string() } else { format!("{name} {}", list_with(&versions, word)) }
    }

    fn many(&self, package: &Package, set: &Ranges<u32>) -> bool {
        match package {
            Package::Wanted => true,
            // "every version of x needs", "x 1 and 2 need"
            Package::Rock(name) => {
                let known = self.0.known(name);
                let members = known.members(set).len();
                members > 1 && members < known.choices.len()
            }
        }
    }

    /// "a 1.0-1 needs b < 2", in the words of the rockspec.
    fn needs(&self, package: &Package, set: &Ranges<u32>, other: &Package, other_set: &Ranges<u32>) -> String {
        let Package::Rock(needed) = other else { return self.subject(package, set) };
        let written = self.written(package, set, needed);
        let verb = match package {
            Package::Wanted => "want",
            Package::Rock(_) if self.many(package, set) => "need",
            Package::Rock(_) => "needs",
        };
        let what = written.unwrap_or_else(|| self.object(other, other_set));
        let mut text = format!("{} {verb} {what}", self.subject(package, set));
        let known = self.0.known(needed);
        if known.members(other_set).is_empty() {
            text.push_str(&match known.choices.as_slice() {
                [] => format!(" ({}{})", nowhere(self.0, needed), near(self.0, needed)),
                [Choice::Provided(version)] if needed.is_lua() => {
                    format!(" (this environment is for Lua {})", version.without_revision())
                }
                [Choice::Provided(version)] => format!(" (the interpreter brings {version})"),
                _ => format!(" (there is {})", list(&known.versions())),
            });
        }
        text
    }

    /// The constraint as it was written, by the newest of these versions or by the user.
    fn written(&self, package: &Package, set: &Ranges<u32>, needed: &RockName) -> Option<String> {
        let dependencies = match package {
            Package::Wanted => self.0.wanted().to_vec(),
            Package::Rock(name) => {
                let newest = self.0.known(name).members(set).into_iter().rev();
                newest.map(|at| self.0.dependencies_of(name, at)).find(|all| all.iter().any(|d| d.name == *needed))?
            }
        };
        let all: Vec<String> = dependencies.iter().filter(|d| d.name == *needed).map(|d| d.constraints.to_string()).collect();
        let all: Vec<String> = all.into_iter().filter(|text| !text.is_empty()).collect();
        Some(if all.is_empty() { needed.to_string() } else { format!("{needed} {}", all.join(", ")) })
    }

    fn fact(&self, fact: &Fact) -> String {
        match fact {
            External::NotRoot(..) => "you want it".to_owned(),
            External::NoVersions(package, set) => {
                let Package::Rock(name) = package else { return "nothing is wanted".to_owned() };
                let known = self.0.known(name);
                let members = known.members(set);
                if known.choices.is_empty() {
                    nowhere(self.0, name)
                } else if members.is_empty() {
                    format!("there is no other version of {name} than {}", list(&known.versions()))
                } else {
                    let subject = self.subject(package, set);
                    let is = if self.many(package, set) { "are" } else { "is" };
                    format!(
                        "{subject} {is} not released, and taken only when asked for ({name}@{})",
                        known.choices[members[0] as usize].version()
                    )
                }
            }
            External::Custom(package, set, why) => format!("{} cannot be used ({why})", self.subject(package, set)),
            External::FromDependencyOf(package, set, other, other_set) => self.needs(package, set, other, other_set),
        }
    }

    fn conclusion(&self, terms: &Terms) -> String {
        let mut terms: Vec<(&Package, &Term<Ranges<u32>>)> = terms.iter().filter(|(package, _)| **package != Package::Wanted).collect();
        terms.sort_by_key(|(package, _)| *package);
        match terms.as_slice() {
            [] => "there is no choice that fits".to_owned(),
            [(package, Term::Positive(set))] => format!("{} cannot be used", self.subject(package, set)),
            [(package, Term::Negative(set))] => format!("{} must be used", self.object(package, set)),
            [(one, Term::Positive(set)), (other, Term::Negative(other_set))]
            | [(other, Term::Negative(other_set)), (one, Term::Positive(set))] => {
                let verb = if self.many(one, set) { "need" } else { "needs" };
                format!("{} {verb} {}", self.subject(one, set), self.object(other, other_set))
            }
            many => {
                let (together, instead): (Vec<_>, Vec<_>) = many.iter().partition(|(_, term)| matches!(term, Term::Positive(_)));
                let set = |term: &Term<Ranges<u32>>| match term {
                    Term::Positive(set) | Term::Negative(set) => set.clone(),
                };
                let subjects: Vec<String> = together.iter().map(|(package, term)| self.subject(package, &set(term))).collect();
                let objects: Vec<String> = instead.iter().map(|(package, term)| self.object(package, &set(term))).collect();
                match (together.as_slice(), objects.as_slice()) {
                    (_, []) => format!("{} cannot be used together", subjects.join(" and ")),
                    ([], _) => format!("{} must be used", objects.join(" or ")),
                    ([(package, term)], _) => {
                        let verb = if self.many(package, &set(term)) { "need" } else { "needs" };
                        format!("{} {verb} {}", subjects.join(""), objects.join(" or "))
                    }
                    _ => format!("{} together need {}", subjects.join(" and "), objects.join(" or ")),
                }
            }
        }
    }
}

/// Names near to one that does not exist, as a remark.
fn near(rocks: &Rocks<'_>, name: &RockName) -> String {
    let near = search::nearest(rocks.index(), name.as_str(), 3);
    if near.is_empty() {
        return String::new();
    }
    let near: Vec<&str> = near.iter().map(RockName::as_str).collect();
    format!("; near to it: {}", near.join(", "))
}

impl ReportFormatter<Package, Ranges<u32>, String> for Words<'_, '_> {
    type Output = String;

    fn format_external(&self, fact: &Fact) -> String {
        self.fact(fact)
    }

    fn format_terms(&self, terms: &Terms) -> String {
        self.conclusion(terms)
    }

    fn explain_both_external(&self, one: &Fact, other: &Fact, terms: &Terms) -> String {
        format!("Because {} and {}, {}.", self.fact(one), self.fact(other), self.conclusion(terms))
    }

    fn explain_both_ref(
        &self,
        ref1: usize,
        one: &Derived<Package, Ranges<u32>, String>,
        ref2: usize,
        other: &Derived<Package, Ranges<u32>, String>,
        terms: &Terms,
    ) -> String {
        let (one, other) = (self.conclusion(&one.terms), self.conclusion(&other.terms));
        format!("Because {one} ({ref1}) and {other} ({ref2}), {}.", self.conclusion(terms))
    }

    fn explain_ref_and_external(
        &self,
        ref_id: usize,
        derived: &Derived<Package, Ranges<u32>, String>,
        fact: &Fact,
        terms: &Terms,
    ) -> String {
        format!("Because {} ({ref_id}) and {}, {}.", self.conclusion(&derived.terms), self.fact(fact), self.conclusion(terms))
    }

    fn and_explain_external(&self, fact: &Fact, terms: &Terms) -> String {
        format!("And because {}, {}.", self.fact(fact), self.conclusion(terms))
    }

    fn and_explain_ref(&self, ref_id: usize, derived: &Derived<Package, Ranges<u32>, String>, terms: &Terms) -> String {
        format!("And because {} ({ref_id}), {}.", self.conclusion(&derived.terms), self.conclusion(terms))
    }

    fn and_explain_prior_and_external(&self, prior: &Fact, fact: &Fact, terms: &Terms) -> String {
        format!("And because {} and {}, {}.", self.fact(prior), self.fact(fact), self.conclusion(terms))
    }
}
