//! Changes of a document that a user lists: find an element by a simple path, then set, remove, append or replace. Pure.
//!
//! A path is names joined by `/`, from below the root: `devices/disk[target/@dev=vda]/driver`. A predicate compares an
//! attribute (`@name`, also of a child: `target/@dev`) or takes the n-th of that name (`[2]`). That is all of it.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use vmoon_core::spec::Problems;
use vmoon_xml::{Element, Node};

/// One change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Patch {
    /// Where.
    pub(crate) path: String,
    /// Sets this attribute, or the text if none is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) attribute: Option<String>,
    /// To this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) set: Option<String>,
    /// Removes it: the attribute if one is named, else every element found.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) remove: bool,
    /// Appends this element inside of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) append: Option<String>,
    /// Puts this element in its place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) replace: Option<String>,
}

/// Reads the list of a specification; each problem is named with its place.
pub(crate) fn read(value: &Value, path: &str, problems: &mut Problems) -> Vec<Patch> {
    let parsed;
    let items = match value {
        Value::Array(items) => items,
        Value::String(text) => match serde_json::from_str::<Value>(text) {
            Ok(Value::Array(items)) => {
                parsed = items;
                &parsed
            }
            _ => {
                problems.add(
                    path,
                    "must be a list of changes, as JSON: [{\"path\":\"devices/video/model\",\"attribute\":\"type\",\"set\":\"vga\"}]",
                );
                return Vec::new();
            }
        },
        _ => {
            problems.add(path, "must be a list of changes: objects with path and one of set, remove, append, replace");
            return Vec::new();
        }
    };
    let mut patches = Vec::new();
    for (n, item) in items.iter().enumerate() {
        let at = format!("{path}[{n}]");
        match serde_json::from_value::<Patch>(item.clone()) {
            Ok(patch) => match patch.check() {
                Ok(()) => patches.push(patch),
                Err(why) => problems.add(at, why),
            },
            Err(error) => problems.add(at, format!("is not a change: {error}")),
        }
    }
    patches
}

impl Patch {
    fn check(&self) -> Result<(), String> {
        let actions = usize::from(self.set.is_some())
            + usize::from(self.remove)
            + usize::from(self.append.is_some())
            + usize::from(self.replace.is_some());
        if actions != 1 {
            return Err("must have exactly one of set, remove, append and replace".into());
        }
        if self.attribute.is_some() && (self.append.is_some() || self.replace.is_some()) {
            return Err("an attribute can be set or removed, nothing else".into());
        }
        steps(&self.path)?;
        for xml in [&self.append, &self.replace].into_iter().flatten() {
            Element::parse(xml).map_err(|error| error.message().to_owned())?;
        }
        if self.set.as_deref().is_some_and(|text| !vmoon_xml::can_hold(text)) {
            return Err("the text has control characters, which XML cannot hold".into());
        }
        Ok(())
    }

    /// Makes the change.
    ///
    /// # Errors
    /// Why it could not: what the path leads to is not there.
    pub(crate) fn apply(&self, root: &mut Element) -> Result<(), String> {
        let steps = steps(&self.path)?;
        let (last, parents) = steps.split_last().ok_or("the path is empty")?;
        // What is set is made where the path is plain; everything else must be there.
        let make = self.set.is_some() || self.append.is_some();
        let mut here = root;
        for step in parents {
            here = descend(here, step, make).ok_or_else(|| self.missing())?;
        }
        if self.remove && self.attribute.is_none() {
            let wanted: Vec<usize> = positions(here, last);
            if wanted.is_empty() {
                return Err(self.missing());
            }
            for at in wanted.into_iter().rev() {
                here.children.remove(at);
            }
            return Ok(());
        }
        let target = descend(here, last, make).ok_or_else(|| self.missing())?;
        if let Some(xml) = &self.replace {
            *target = Element::parse(xml).map_err(|error| error.message().to_owned())?;
        } else if let Some(xml) = &self.append {
            target.children.push(Node::Element(Element::parse(xml).map_err(|error| error.message().to_owned())?));
        } else {
            match (&self.attribute, &self.set) {
                (Some(name), Some(value)) => target.set(name, value),
                (Some(name), None) => {
                    let before = target.attributes.len();
                    target.attributes.retain(|(known, _)| known != name);
                    if target.attributes.len() == before {
                        return Err(self.missing());
                    }
                }
                (None, Some(value)) => {
                    target.children.retain(|node| matches!(node, Node::Element(_)));
                    target.children.insert(0, Node::Text(value.clone()));
                }
                (None, None) => {}
            }
        }
        Ok(())
    }

    fn missing(&self) -> String {
        match (&self.attribute, self.remove) {
            (Some(name), true) => format!("there is no {}/@{name} in the XML", self.path),
            _ => format!("there is no {} in the XML", self.path),
        }
    }
}

/// One step of a path.
#[derive(Debug, PartialEq, Eq)]
struct Step {
    name: String,
    test: Test,
}

#[derive(Debug, PartialEq, Eq)]
enum Test {
    None,
    Nth(usize),
    Attribute { path: Vec<String>, name: String, value: String },
}

fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 128
        && !text.starts_with(|char: char| char.is_ascii_digit() || char == '-')
        && text.chars().all(|char| char.is_ascii_alphanumeric() || matches!(char, '_' | '-' | ':' | '.'))
}

fn steps(path: &str) -> Result<Vec<Step>, String> {
    let mut steps = Vec::new();
    let mut rest = path.trim_start_matches('/');
    while !rest.is_empty() {
        let end = rest.find(['/', '[']).unwrap_or(rest.len());
        let name = &rest[..end];
        if !is_name(name) {
            return Err(format!("the path {path} has a step that is no name"));
        }
        rest = &rest[end..];
        let test = match rest.strip_prefix('[') {
            None => Test::None,
            Some(inside) => {
                let close = inside.find(']').ok_or_else(|| format!("the path {path} has a [ without ]"))?;
                rest = &inside[close + 1..];
                test(&inside[..close]).ok_or_else(|| format!("the path {path} has a test that is neither [2] nor [@name=value]"))?
            }
        };
        steps.push(Step { name: name.to_owned(), test });
        rest = match rest.strip_prefix('/') {
            Some(more) if !more.is_empty() => more,
            None if rest.is_empty() => rest,
            _ => return Err(format!("the path {path} does not end with a name")),
        };
    }
    if steps.is_empty() { Err("the path is empty".into()) } else { Ok(steps) }
}

fn test(text: &str) -> Option<Test> {
    if let Ok(nth) = text.parse::<usize>() {
        return (nth > 0).then_some(Test::Nth(nth));
    }
    let (left, value) = text.split_once('=')?;
    let (path, name) = left.split_once('@')?;
    let path: Vec<String> = path.split('/').filter(|part| !part.is_empty()).map(str::to_owned).collect();
    let value = value.trim_matches(['\'', '"']).to_owned();
    (is_name(name) && path.iter().all(|part| is_name(part))).then(|| Test::Attribute { path, name: name.to_owned(), value })
}

/// Where in `parent` the elements are that the step means.
fn positions(parent: &Element, step: &Step) -> Vec<usize> {
    let named = parent.children.iter().enumerate().filter_map(|(at, node)| match node {
        Node::Element(element) if element.name == step.name => Some((at, element)),
        _ => None,
    });
    match &step.test {
        Test::None => named.map(|(at, _)| at).collect(),
        Test::Nth(nth) => named.map(|(at, _)| at).skip(nth - 1).take(1).collect(),
        Test::Attribute { path, name, value } => named
            .filter(|(_, element)| {
                let end = path.iter().try_fold(*element, |element, part| element.first(part));
                end.and_then(|element| element.attribute(name)) == Some(value.as_str())
            })
            .map(|(at, _)| at)
            .collect(),
    }
}

fn descend<'a>(parent: &'a mut Element, step: &Step, make: bool) -> Option<&'a mut Element> {
    let at = match positions(parent, step).first() {
        Some(at) => *at,
        None if make && step.test == Test::None => {
            parent.children.push(Node::Element(Element::new(step.name.as_str())));
            parent.children.len() - 1
        }
        None => return None,
    };
    match &mut parent.children[at] {
        Node::Element(element) => Some(element),
        Node::Text(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const XML: &str = "<domain><devices><disk><target dev='vda'/><driver cache='none'/></disk><disk><target dev='vdb'/></disk><video/></devices></domain>";

    fn patched(list: Value) -> Result<String, String> {
        let mut problems = Problems::default();
        let patches = read(&list, "settings.patch", &mut problems);
        if let Some(problem) = problems.0.first() {
            return Err(problem.message.clone());
        }
        let mut root = Element::parse(XML).unwrap();
        for patch in patches {
            patch.apply(&mut root)?;
        }
        Ok(root.to_text().replace(['\n', '"'], "").replace("  ", ""))
    }

    #[test]
    fn elements_are_found_and_changed() {
        let list = json!([
            {"path": "devices/disk[target/@dev=vda]/driver", "attribute": "cache", "set": "a & b"},
            {"path": "devices/disk[2]", "remove": true},
            {"path": "devices/video", "replace": "<sound model='ich9'/>"},
            {"path": "devices", "append": "<rng/>"},
            {"path": "iothreads", "set": "2"},
        ]);
        assert_eq!(
            patched(list).unwrap(),
            "<domain><devices><disk><target dev=vda/><driver cache=a &amp; b/></disk><sound model=ich9/><rng/></devices><iothreads>2</iothreads></domain>"
        );
        assert!(patched(json!("[{\"path\":\"devices/video\",\"remove\":true}]")).is_ok(), "a list as text, from a command line");
    }

    #[test]
    fn what_is_not_there_is_said() {
        assert_eq!(patched(json!([{"path": "devices/tpm", "remove": true}])).unwrap_err(), "there is no devices/tpm in the XML");
        assert!(patched(json!([{"path": "devices/disk[@x=y]", "attribute": "a", "set": "b"}])).is_err());
        assert!(patched(json!([{"path": "devices/video", "attribute": "a", "remove": true}])).unwrap_err().contains("video/@a"));
    }

    #[test]
    fn bad_lists_are_refused() {
        for bad in [
            json!(3),
            json!("x"),
            json!([3]),
            json!([{"path": "a"}]),
            json!([{"path": "a", "set": "b", "remove": true}]),
            json!([{"path": "", "set": "b"}]),
            json!([{"path": "a[", "set": "b"}]),
            json!([{"path": "a[x]", "set": "b"}]),
            json!([{"path": "a/", "set": "b"}]),
            json!([{"path": "<a>", "set": "b"}]),
            json!([{"path": "a", "append": "<b"}]),
            json!([{"path": "a", "set": "\u{1b}"}]),
            json!([{"path": "a", "sets": "b"}]),
        ] {
            assert!(patched(bad.clone()).is_err(), "{bad}");
        }
    }
}
