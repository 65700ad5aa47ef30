//! Releases of XAPI in their order: names of cities at first, numbers since 1.250.

use std::cmp::Ordering;

/// The names, in order (`release_order` of `ocaml/idl/datamodel_types.ml`). XCP-ng 8.2 has `stockholm`, xapi 1.249.
const NAMES: &[&str] = &[
    "rio",
    "miami",
    "symc",
    "orlando",
    "orlando-update-1",
    "george",
    "midnight-ride",
    "cowley",
    "boston",
    "tampa",
    "clearwater",
    "vgpu-tech-preview",
    "vgpu-productisation",
    "clearwater-felton",
    "clearwater-whetstone",
    "creedence",
    "cream",
    "indigo",
    "dundee",
    "ely",
    "falcon",
    "inverness",
    "jura",
    "kolkata",
    "lima",
    "naples",
    "quebec",
    "stockholm",
    "stockholm_psr",
];

/// A release: by its place among the names, or its numbers. Later ones are greater; what is not known is the latest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Release([u32; 4]);

impl Release {
    /// The one of XCP-ng 8.2, the oldest that is meant to work.
    pub const OLDEST: Self = Self([0, 27, 0, 0]);

    /// Reads `stockholm`, `1.313.0` or `26.16.1-next`.
    pub fn parse(text: &str) -> Self {
        if let Some(at) = NAMES.iter().position(|name| *name == text) {
            return Self([0, u32::try_from(at).unwrap_or(u32::MAX), 0, 0]);
        }
        let mut all = [0; 4];
        let (numbers, rest) = text.split_once('-').map_or((text, false), |(numbers, _)| (numbers, true));
        for (at, part) in numbers.split('.').enumerate() {
            match (all.get_mut(at), part.parse::<u32>()) {
                (Some(place), Ok(number)) => *place = number,
                _ => return Self([u32::MAX; 4]),
            }
        }
        all[3] = u32::from(rest);
        Self(all)
    }

    /// Whether this one is not later than that.
    pub fn is_by(self, that: Self) -> bool {
        self.cmp(&that) != Ordering::Greater
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_before_numbers_and_both_are_in_order() {
        let order =
            ["rio", "stockholm", "stockholm_psr", "1.250.0", "1.329.0", "21.2.0", "22.5.0", "22.16.0", "26.16.1", "26.16.1-next", "later"];
        for pair in order.windows(2) {
            assert!(Release::parse(pair[0]) < Release::parse(pair[1]), "{pair:?}");
        }
        assert_eq!(Release::parse("stockholm"), Release::OLDEST);
        assert!(Release::parse("lima").is_by(Release::OLDEST) && !Release::parse("1.250.0").is_by(Release::OLDEST));
    }
}
