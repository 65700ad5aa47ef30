//! Versions of rocks, and which is newer.
//!
//! The rules are those of LuaRocks 3 (`luarocks/core/vers.lua`); a test compares with that program on thousands of pairs. A version is a list of
//! numbers and words, each of which counts as a number: `alpha` to `rc` below zero, `scm`, `dev` and `cvs` above most numbers, another word by its
//! first letter. A number after a word adds a little to it, and is no part of its own; of two words in a row the second counts. A last `-N` is the
//! revision of the rockspec.

use serde::{Deserialize, Serialize};
use std::{cmp::Ordering, fmt, hash, str::FromStr};
use vmoon_core::{Code, Error, Result, name::escape};

/// The longest version, in bytes.
pub const MAX_VERSION: usize = 100;

/// A version of a rock, such as `1.0-2`, `scm-1` or `2.0rc1-1`.
///
/// Ordered as LuaRocks orders; where LuaRocks finds neither of two greater (`1.0` and `1.0.0`, or one of two lacks a revision), the one with the
/// lower revision, fewer parts, lesser text is the lesser, so that the order is total.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Version {
    text: Box<str>,
    /// In units of [`ONE`].
    parts: Box<[i128]>,
    revision: Option<u64>,
}

/// What the number one counts. A word without a meaning counts a thousandth of its first byte, a number after a word a hundred-thousandth of itself.
const ONE: i128 = 100_000;

/// The words for the newest state of a repository, and what they count.
const UNRELEASED: [(&[u8], i128); 3] = [(b"dev", 120_000_000 * ONE), (b"scm", 110_000_000 * ONE), (b"cvs", 100_000_000 * ONE)];

/// What words count (`deltas` of LuaRocks).
fn word_value(word: &[u8]) -> i128 {
    if let Some((_, value)) = UNRELEASED.iter().find(|(known, _)| *known == word) {
        return *value;
    }
    match word {
        b"rc" => -1_000 * ONE,
        b"pre" => -10_000 * ONE,
        b"beta" => -100_000 * ONE,
        b"alpha" => -1_000_000 * ONE,
        _ => i128::from(word[0]) * (ONE / 1000),
    }
}

impl Version {
    /// The version as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The revision of the rockspec: the 2 of `1.0-2`.
    pub fn revision(&self) -> Option<u64> {
        self.revision
    }

    /// The version without its revision: the `1.0` of `1.0-2`.
    pub fn without_revision(&self) -> &str {
        match self.revision {
            Some(_) => self.text.rsplit_once('-').map_or(&self.text, |(main, _)| main),
            None => &self.text,
        }
    }

    /// Whether it names the newest state of a repository (`scm`, `dev`, `cvs`), which is installed only when asked for.
    pub fn is_unreleased(&self) -> bool {
        let words = self.text.as_bytes().split(|byte| !byte.is_ascii_alphabetic());
        words.into_iter().any(|word| UNRELEASED.iter().any(|(known, _)| *known == word))
    }

    /// Whether it precedes a release (`alpha`, `beta`, `pre`, `rc`).
    pub fn is_prerelease(&self) -> bool {
        self.parts.iter().any(|part| *part < 0)
    }

    /// Equal as LuaRocks says: the same parts, as many of them, and the same revision where both have one.
    pub fn same(&self, other: &Self) -> bool {
        self.parts == other.parts && self.revisions(other).is_none_or(|(a, b)| a == b)
    }

    /// Less as LuaRocks says: a part that is missing is zero; the revision counts where both have one.
    pub fn below(&self, other: &Self) -> bool {
        match self.compare_parts(other) {
            Ordering::Less => true,
            Ordering::Equal => self.revisions(other).is_some_and(|(a, b)| a < b),
            Ordering::Greater => false,
        }
    }

    /// Whether it begins with the parts of `wanted`; `1.2.3-1` does with `1.2`. A revision counts if `wanted` has one.
    pub fn starts_with(&self, wanted: &Self) -> bool {
        let parts = wanted.parts.iter().enumerate().all(|(i, part)| self.parts.get(i).copied().unwrap_or(0) == *part);
        parts && wanted.revision.is_none_or(|revision| self.revision == Some(revision))
    }

    fn revisions(&self, other: &Self) -> Option<(u64, u64)> {
        self.revision.zip(other.revision)
    }

    fn compare_parts(&self, other: &Self) -> Ordering {
        let n = self.parts.len().max(other.parts.len());
        let part = |parts: &[i128], i: usize| parts.get(i).copied().unwrap_or(0);
        (0..n).map(|i| part(&self.parts, i).cmp(&part(&other.parts, i))).find(|o| o.is_ne()).unwrap_or(Ordering::Equal)
    }
}

impl FromStr for Version {
    type Err = Error;

    /// # Errors
    /// [`Code::Usage`] for text that is empty, too long, does not begin with a letter or digit, or has other characters than letters, digits,
    /// `.`, `_` and `-`. (LuaRocks warns and goes on; what it makes of such text cannot be relied upon.)
    fn from_str(text: &str) -> Result<Self> {
        let text = text.trim();
        let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        if text.is_empty() || text.len() > MAX_VERSION || !text.bytes().all(fits) || !text.as_bytes()[0].is_ascii_alphanumeric() {
            let shown: String = escape(text).chars().take(80).collect();
            return Err(Error::new(Code::Usage, format!("\"{shown}\" is not a version of a rock"))
                .hint("a version is written like 1.0.2-1, 2.0rc1 or scm-1"));
        }
        let (main, revision) = match text.rsplit_once('-') {
            Some((main, digits)) if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) => {
                (main, Some(digits.parse().unwrap_or(u64::MAX)))
            }
            _ => (text, None),
        };
        let mut parts = Vec::new();
        // A word that waits for the number that may follow.
        let mut word: Option<i128> = None;
        let mut rest = main.as_bytes();
        while let Some(first) = rest.first() {
            let numeric = first.is_ascii_digit();
            let end = rest.iter().position(|b| b.is_ascii_digit() != numeric || !b.is_ascii_alphanumeric()).unwrap_or(rest.len());
            let (token, more) = rest.split_at(end);
            match (numeric, word.take()) {
                (true, None) => parts.push(number(token).saturating_mul(ONE)),
                (true, Some(word)) => parts.push(number(token).saturating_add(word)),
                (false, _) => word = Some(word_value(token)),
            }
            let separators = more.iter().position(|b| !matches!(b, b'.' | b'_' | b'-')).unwrap_or(more.len());
            rest = &more[separators..];
        }
        parts.extend(word);
        Ok(Self { text: text.into(), parts: parts.into(), revision })
    }
}

/// The value of digits; past 38 of them all are equally great.
fn number(digits: &[u8]) -> i128 {
    digits.iter().fold(0i128, |n, digit| n.saturating_mul(10).saturating_add(i128::from(digit - b'0')))
}

impl Ord for Version {
    fn cmp(&self, other: &Self) -> Ordering {
        self.compare_parts(other)
            .then(self.revision.cmp(&other.revision))
            .then(self.parts.len().cmp(&other.parts.len()))
            .then_with(|| self.text.cmp(&other.text))
    }
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Version {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Version {}

impl hash::Hash for Version {
    fn hash<H: hash::Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

impl TryFrom<String> for Version {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Version> for String {
    fn from(version: Version) -> Self {
        version.text.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v(text: &str) -> Version {
        text.parse().unwrap()
    }

    #[test]
    fn newer_versions_are_greater() {
        let ascending = [
            "1.0alpha1-1",
            "1.0beta2-1",
            "1.0pre1-1",
            "1.0rc1-1",
            "1.0rc2-1",
            "1.0-1",
            "1.0-2",
            "1.0-10",
            "1.0.1-1",
            "1.0a-1",
            "1.1-1",
            "1.10-1",
            "2-1",
            "20230101123456-1",
            "cvs-1",
            "scm-1",
            "dev-1",
        ];
        // 1.0a is [1, 0, 0.097]: above 1.0, below 1.0.1; 1.0rc2 is [1, 0, -999.99998].
        let mut sorted: Vec<Version> = ascending.iter().rev().map(|t| v(t)).collect();
        sorted.sort();
        let texts: Vec<&str> = sorted.iter().map(Version::as_str).collect();
        let mut expected = ascending.to_vec();
        expected.swap(8, 9);
        // A date of fourteen digits is greater than the words: so it is with LuaRocks.
        expected.retain(|t| *t != "20230101123456-1");
        expected.push("20230101123456-1");
        assert_eq!(texts, expected);
    }

    #[test]
    fn a_revision_counts_where_both_have_one() {
        assert!(v("1.0").same(&v("1.0-5")) && !v("1.0-1").same(&v("1.0-2")));
        assert!(v("1.0-1").below(&v("1.0-2")) && !v("1.0").below(&v("1.0-2")));
        assert!(!v("1.0").same(&v("1.0.0")) && !v("1.0").below(&v("1.0.0")) && !v("1.0.0").below(&v("1.0")));
        assert_eq!((v("1.0-2").revision(), v("1.0-2").without_revision()), (Some(2), "1.0"));
        assert_eq!((v("1.0-b2").revision(), v("1.0-b2").without_revision()), (None, "1.0-b2"));
    }

    #[test]
    fn what_is_not_released_is_known() {
        assert!(v("scm-1").is_unreleased() && v("dev-1").is_unreleased() && v("1.0.dev-1").is_unreleased());
        assert!(!v("110000000-1").is_unreleased() && !v("1.0-1").is_unreleased() && !v("1.0rc1-1").is_unreleased());
        assert!(v("1.0rc1-1").is_prerelease() && !v("1.0-1").is_prerelease());
    }

    #[test]
    fn hostile_versions_are_refused_and_huge_numbers_bounded() {
        let long = "1".repeat(101);
        for bad in ["", " ", "-1", "../1", "1/2", "1 2", "1\n2", "1\0", ".1", "1+2", "é", &long] {
            assert_eq!(bad.parse::<Version>().unwrap_err().code(), Code::Usage, "{bad:?}");
        }
        assert!(v(&"9".repeat(100)) > v("dev-1"));
        assert_eq!(v(&format!("1-{}", "9".repeat(90))).revision(), Some(u64::MAX));
        assert_eq!(serde_json::to_string(&v("1.0-1")).unwrap(), "\"1.0-1\"");
    }
}
