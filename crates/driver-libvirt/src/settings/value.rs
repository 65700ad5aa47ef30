//! How single values of settings are read: from JSON, or from the text of a command line. Pure.

use serde_json::{Map, Value};
use vmoon_core::{name::escape, size, spec::Problems};

/// The most items of a list.
const MAX_ITEMS: usize = 64;
/// The longest text of a setting, bytes.
const MAX_TEXT: usize = 4096;

/// Settings being read, and what is wrong with them.
pub(crate) struct Reader<'a> {
    pub(crate) values: &'a Map<String, Value>,
    pub(crate) problems: Problems,
}

impl Reader<'_> {
    fn take<T>(&mut self, name: &str, what: &str, read: impl FnOnce(&Value) -> Option<T>) -> Option<T> {
        let value = self.values.get(name)?;
        let found = read(value);
        if found.is_none() {
            self.add(name, format!("must be {what}"));
        }
        found
    }

    /// Adds a problem of a setting.
    pub(crate) fn add(&mut self, name: &str, message: impl Into<String>) {
        self.problems.add(format!("settings.{name}"), message);
    }

    /// Bytes between two limits.
    pub(crate) fn size(&mut self, name: &str, min: u64, max: u64) -> Option<u64> {
        let what = format!("a size between {} and {}, for example 2GiB or a number of bytes", size::show(min), size::show(max));
        self.take(name, &what, |value| size::of(value).filter(|bytes| (min..=max).contains(bytes)))
    }

    /// A list of sizes.
    pub(crate) fn sizes(&mut self, name: &str, min: u64, max: u64) -> Vec<u64> {
        let what = format!("a size between {} and {}, or a list of at most {MAX_ITEMS}", size::show(min), size::show(max));
        let read = |value: &Value| {
            let one = |value: &Value| size::of(value).filter(|bytes| (min..=max).contains(bytes));
            match value {
                Value::Array(items) if items.len() <= MAX_ITEMS => items.iter().map(one).collect(),
                Value::String(text) if text.contains(',') => text.split(',').map(|text| one(&text.into())).collect(),
                value => Some(vec![one(value)?]),
            }
        };
        self.take(name, &what, read).unwrap_or_default()
    }

    /// A whole number between two limits.
    pub(crate) fn count(&mut self, name: &str, min: u64, max: u64) -> Option<u32> {
        self.take(name, &format!("a whole number between {min} and {max}"), |value| {
            let number = match value {
                Value::Number(number) => number.as_u64(),
                Value::String(text) => text.trim().parse().ok(),
                _ => None,
            }?;
            (min..=max).contains(&number).then_some(number)?.try_into().ok()
        })
    }

    pub(crate) fn flag(&mut self, name: &str) -> Option<bool> {
        self.take(name, "yes or no", |value| match value {
            Value::Bool(flag) => Some(*flag),
            Value::String(text) => match text.trim() {
                "true" | "yes" | "on" => Some(true),
                "false" | "no" | "off" => Some(false),
                _ => None,
            },
            _ => None,
        })
    }

    /// One of a few words.
    pub(crate) fn choice(&mut self, name: &str, words: &[&'static str]) -> Option<&'static str> {
        self.take(name, &format!("one of {}", words.join(", ")), |value| {
            let text = value.as_str()?;
            words.iter().copied().find(|word| *word == text)
        })
    }

    /// A text of which `good` holds; `what` says what that is.
    pub(crate) fn text(&mut self, name: &str, what: &str, good: impl Fn(&str) -> bool) -> Option<String> {
        let value = self.values.get(name)?;
        match value.as_str() {
            Some(text) if fits(text) && good(text) => return Some(text.to_owned()),
            Some(text) => {
                let shown: String = escape(text).chars().take(60).collect();
                self.add(name, format!("must be {what}, not \"{shown}\""));
            }
            None => self.add(name, format!("must be {what}")),
        }
        None
    }

    /// One text or a list, each of which is `good`. Texts from a command line are not split: they may hold anything.
    pub(crate) fn texts(&mut self, name: &str, what: &str, good: impl Fn(&str) -> bool) -> Option<Vec<String>> {
        let value = self.values.get(name)?;
        let items: Option<Vec<&str>> = match value {
            Value::String(text) => Some(vec![text]),
            Value::Array(items) if items.len() <= MAX_ITEMS => items.iter().map(Value::as_str).collect(),
            _ => None,
        };
        let Some(items) = items else {
            self.add(name, format!("must be {what}, or a list of at most {MAX_ITEMS}"));
            return None;
        };
        let mut found = Vec::new();
        for text in items {
            if fits(text) && good(text) {
                found.push(text.to_owned());
            } else {
                let shown: String = escape(text).chars().take(60).collect();
                self.add(name, format!("\"{shown}\" is not {what}"));
            }
        }
        Some(found)
    }
}

fn fits(text: &str) -> bool {
    !text.is_empty() && text.len() <= MAX_TEXT && vmoon_xml::can_hold(text)
}

/// An absolute path without `..`.
pub(crate) fn is_path(text: &str) -> bool {
    text.starts_with('/') && !text.split('/').any(|part| part == "..") && text.len() > 1 && !text.ends_with('/')
}

/// A name as libvirt's pools, networks, volumes and bridges have: nothing that could be a path or an option.
pub(crate) fn is_name(text: &str) -> bool {
    text.len() <= 255 && !text.starts_with(['-', '.']) && !text.contains(['/', '\n', '\r', '\t', '\0'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_names() {
        assert!(is_path("/a b/c") && !is_path("a") && !is_path("/a/../b") && !is_path("/") && !is_path("/a/"));
        assert!(is_name("default") && is_name("a b") && !is_name("../x") && !is_name("-x") && !is_name("x\n"));
    }
}
