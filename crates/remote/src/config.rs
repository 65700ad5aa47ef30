//! What `~/.ssh/config` says of a host: HostName, User, Port, IdentityFile, IdentitiesOnly, ProxyJump and UserKnownHostsFile in
//! `Host` blocks. As in OpenSSH the first value found counts, and identity files add up. `Match` blocks and `Include` are
//! passed over; other keywords do not concern us. No I/O.

use crate::Target;
use std::path::{Path, PathBuf};

/// What was found for one host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// The real name or address.
    pub host_name: Option<String>,
    /// The login name.
    pub user: Option<String>,
    /// The port.
    pub port: Option<u16>,
    /// Private keys, with `~` and the usual `%` tokens replaced.
    pub identities: Vec<PathBuf>,
    /// Only those keys, though the agent may have more.
    pub identities_only: bool,
    /// Hosts to go through, the first one nearest to us. `Some(empty)` is `ProxyJump none`.
    pub jumps: Option<Vec<Target>>,
    /// Files of known hosts.
    pub known_hosts: Vec<PathBuf>,
}

/// Reads the text of a configuration for the host as the user has written it.
pub fn find(text: &str, host: &str, user: Option<&str>, home: Option<&Path>) -> Found {
    let mut found = Found::default();
    let mut files = (Vec::new(), Vec::new());
    let mut applies = true;
    for line in text.lines() {
        let Some((keyword, rest)) = split(line) else { continue };
        match keyword.to_ascii_lowercase().as_str() {
            "host" => applies = matches(&words(rest), host),
            "match" => applies = false,
            _ if !applies => {}
            "hostname" => set(&mut found.host_name, words(rest).into_iter().next().map(|name| name.replace("%h", host))),
            "user" => set(&mut found.user, words(rest).into_iter().next()),
            "port" => set(&mut found.port, rest.trim().parse().ok()),
            "identityfile" => files.0.extend(words(rest).into_iter().next()),
            "identitiesonly" => found.identities_only |= rest.trim().eq_ignore_ascii_case("yes"),
            "userknownhostsfile" if files.1.is_empty() => files.1 = words(rest),
            "proxyjump" => {
                let hops = rest.trim();
                let list = if hops.eq_ignore_ascii_case("none") {
                    Some(Vec::new())
                } else {
                    hops.split(',').map(|hop| hop.trim().parse().ok()).collect()
                };
                set(&mut found.jumps, list);
            }
            _ => {}
        }
    }
    let real = found.host_name.clone().unwrap_or_else(|| host.to_owned());
    let login = user.map(str::to_owned).or_else(|| found.user.clone()).unwrap_or_default();
    let port = found.port.unwrap_or(22).to_string();
    let expand = |file: &String| path(file, &real, host, &login, &port, home);
    found.identities = files.0.iter().filter_map(expand).collect();
    found.known_hosts = files.1.iter().filter_map(expand).collect();
    found
}

fn set<T>(place: &mut Option<T>, value: Option<T>) {
    if place.is_none() {
        *place = value;
    }
}

/// Keyword and the rest of a line: `Key value`, `Key=value`, `Key = "value"`.
fn split(line: &str) -> Option<(&str, &str)> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return None;
    }
    let end = line.find(|c: char| c.is_whitespace() || c == '=')?;
    let rest = line[end..].trim_start();
    Some((&line[..end], rest.strip_prefix('=').unwrap_or(rest).trim_start()))
}

/// Words at white space, with double quotes around what holds some.
fn words(text: &str) -> Vec<String> {
    let (mut all, mut word, mut quoted, mut any) = (Vec::new(), String::new(), false, false);
    for c in text.chars() {
        match c {
            '"' => (quoted, any) = (!quoted, true),
            c if c.is_whitespace() && !quoted => {
                if any {
                    all.push(std::mem::take(&mut word));
                }
                any = false;
            }
            c => {
                word.push(c);
                any = true;
            }
        }
    }
    if any {
        all.push(word);
    }
    all
}

/// Whether a list of patterns fits: one must, and none with `!` in front may.
fn matches(patterns: &[String], host: &str) -> bool {
    let mut fits = false;
    for pattern in patterns {
        match pattern.strip_prefix('!') {
            Some(not) if wild(not.as_bytes(), host.as_bytes()) => return false,
            Some(_) => {}
            None => fits |= wild(pattern.as_bytes(), host.as_bytes()),
        }
    }
    fits
}

/// `*` and `?`, without regard to case; in time bounded by the product of the lengths.
fn wild(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(c) if *c == b'?' || c.eq_ignore_ascii_case(&text[t]) => (p, t) = (p + 1, t + 1),
            _ => {
                let Some((at, from)) = star else { return false };
                star = Some((at, from + 1));
                (p, t) = (at + 1, from + 1);
            }
        }
    }
    pattern[p..].iter().all(|c| *c == b'*')
}

fn path(file: &str, host: &str, alias: &str, user: &str, port: &str, home: Option<&Path>) -> Option<PathBuf> {
    if file.eq_ignore_ascii_case("none") {
        return None;
    }
    let home = home.and_then(Path::to_str);
    let mut out = String::new();
    let mut rest = file;
    if let Some(below) = file.strip_prefix("~/") {
        out = format!("{}/", home?);
        rest = below;
    }
    let mut chars = rest.chars();
    while let Some(c) = chars.next() {
        match (c, c == '%') {
            (_, true) => match chars.next()? {
                '%' => out.push('%'),
                'd' => out.push_str(home?),
                'h' => out.push_str(host),
                'n' => out.push_str(alias),
                'p' => out.push_str(port),
                'r' => out.push_str(user),
                _ => return None,
            },
            (c, false) => out.push(c),
        }
    }
    let path = PathBuf::from(out);
    Some(if path.is_absolute() { path } else { Path::new(home?).join(path) })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "
# mine
Host lab !lab.evil
    HostName = 192.0.2.7
    User \"ada l\"
    Port 2222
    IdentityFile ~/.ssh/lab_%r
    ProxyJump gate,bob@deep:2200
Host *.example lab
    User second
    IdentityFile /keys/%h.%p
    IdentitiesOnly yes
Match host lab
    Port 1
Host *
    ProxyJump none
    UserKnownHostsFile ~/.ssh/known %d/more
";

    #[test]
    fn the_first_value_counts_and_identities_add_up() {
        let found = find(TEXT, "lab", None, Some(Path::new("/people/x")));
        assert_eq!((found.host_name.as_deref(), found.user.as_deref(), found.port), (Some("192.0.2.7"), Some("ada l"), Some(2222)));
        assert_eq!(found.identities, [PathBuf::from("/people/x/.ssh/lab_ada l"), "/keys/192.0.2.7.2222".into()]);
        assert_eq!(found.jumps.unwrap().iter().map(Target::to_string).collect::<Vec<_>>(), ["gate", "bob@deep:2200"]);
        assert!(found.identities_only);
        assert_eq!(found.known_hosts, [PathBuf::from("/people/x/.ssh/known"), "/people/x/more".into()]);
        let other = find(TEXT, "a.EXAMPLE", Some("root"), None);
        assert_eq!((other.user.as_deref(), other.jumps, other.port), (Some("second"), Some(vec![]), None));
    }

    #[test]
    fn patterns_fit_as_in_ssh() {
        for (pattern, host, fits) in
            [("*", "h", true), ("h?st*", "HOST.x", true), ("h?st", "hst", false), ("a*b*c", "aXbXbc", true), ("", "h", false)]
        {
            assert_eq!(wild(pattern.as_bytes(), host.as_bytes()), fits, "{pattern} {host}");
        }
        assert!(!wild("*a".repeat(400).as_bytes(), "a".repeat(399).as_bytes()));
        assert!(!matches(&["!h".into(), "*".into()], "h"));
    }
}
