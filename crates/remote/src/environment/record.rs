//! Which environments a host's sessions use: a small file beside the session's lives, there and nowhere else. Pure.
//!
//! Lines are `WORD KEY GENERATION LUA LIFE NAME`, the newest last. `use` names what a life uses; `want` keeps a tree that is just being sent from
//! being cleaned away, and means nothing else.

use vmoon_core::{ability::UsedEnvironment, name, package::LUA_VERSIONS};

/// The file's name.
pub(crate) const RECORD: &str = "environment";
/// The largest file that is read, bytes.
pub(crate) const MOST: u64 = 64 << 10;

/// An environment as a life of a session uses it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Used {
    /// The name of its tree on the host.
    pub key: String,
    /// What it is.
    pub environment: UsedEnvironment,
    /// The first life that uses it.
    pub life: u64,
}

/// A key is a SHA-256 in hexadecimal digits.
pub(crate) fn is_key(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// A line, if it is one: whether it is of use, and what it names.
pub(crate) fn line(text: &str) -> Option<(bool, Used)> {
    let words: Vec<&str> = text.split(' ').collect();
    let [word @ ("use" | "want"), key, generation, lua, life, called] = words.as_slice() else { return None };
    if !is_key(key) || !LUA_VERSIONS.contains(lua) || name::check(called).is_err() {
        return None;
    }
    let environment = UsedEnvironment { name: (*called).to_owned(), generation: generation.parse().ok()?, lua: (*lua).to_owned() };
    Some((*word == "use", Used { key: (*key).to_owned(), environment, life: life.parse().ok()? }))
}

/// The file, written: what is used, and what is to be kept besides.
pub(crate) fn text(used: &[Used], wanted: Option<&Used>) -> String {
    let mut out = String::new();
    for (word, one) in used.iter().map(|one| ("use", one)).chain(wanted.map(|one| ("want", one))) {
        let UsedEnvironment { name, generation, lua } = &one.environment;
        out.push_str(&format!("{word} {} {generation} {lua} {} {name}\n", one.key, one.life));
    }
    out
}

/// What is still of interest when `life` is the one that runs, or will: what it uses or has used, and what the next will use.
pub(crate) fn current(used: &[Used], life: u64) -> Vec<Used> {
    let last = used.len().saturating_sub(1);
    used.iter().enumerate().filter(|(at, one)| *at == last || one.life >= life).map(|(_, one)| one.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(key: char, life: u64) -> Used {
        let environment = UsedEnvironment { name: "bio".into(), generation: 7, lua: "5.4".into() };
        Used { key: key.to_string().repeat(64), environment, life }
    }

    #[test]
    fn lines_are_written_and_read() {
        let all = text(&[one('a', 1)], Some(&one('b', 2)));
        let read: Vec<_> = all.lines().map(|text| line(text).unwrap()).collect();
        assert_eq!(read, [(true, one('a', 1)), (false, one('b', 2))]);
        let good = all.lines().next().unwrap();
        for bad in
            ["", "use", &good.replace("5.4", "6.0"), &good.replace("bio", "../x"), &good.replace('a', "g"), &good.replace(" 7 ", " -7 ")]
        {
            assert_eq!(line(bad), None, "{bad}");
        }
    }

    #[test]
    fn lives_that_are_over_are_forgotten_but_for_the_newest_environment() {
        let all = [one('a', 1), one('b', 2), one('c', 2)];
        assert_eq!(current(&all, 2), all[1..]);
        assert_eq!(current(&all, 3), all[2..]);
        assert!(current(&[], 3).is_empty());
    }
}
