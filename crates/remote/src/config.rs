//! What `~/.ssh/config` says of a host: HostName, User, Port, IdentityFile, IdentitiesOnly, ProxyJump and UserKnownHostsFile in
//! `Host` and `Match` blocks and in files that it includes. As in OpenSSH the first value found counts, and identity files add up. What would
//! change the way to the host and is not done here (ProxyCommand, `Match exec` and the like) is told, not passed over; other keywords do not
//! concern us. No I/O: included files come from whoever asks.

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
    /// What the configuration says of this host and we do not do, as sentences; one is enough not to connect.
    pub refused: Vec<String>,
}

/// How deep files may include one another, as in OpenSSH.
const DEPTH: usize = 16;

/// For whom a configuration is read.
#[derive(Clone, Copy, Debug, Default)]
pub struct Asked<'a> {
    /// The host as the user has written it.
    pub host: &'a str,
    /// The login name there, if the user has said one.
    pub user: Option<&'a str>,
    /// The user's own login name.
    pub local_user: Option<&'a str>,
    /// The user's home.
    pub home: Option<&'a Path>,
}

/// Gives the texts of the files that an `Include` names, in order.
pub type Includes<'a> = &'a dyn Fn(&str) -> Vec<String>;

/// Reading, and what was found so far.
struct Reading<'a> {
    asked: Asked<'a>,
    includes: Includes<'a>,
    found: Found,
    identities: Vec<String>,
    known_hosts: Vec<String>,
    /// ProxyJump or ProxyCommand was said: the first of the two counts.
    way: bool,
}

/// Whether the lines of a block count.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Block {
    Applies,
    Passes,
    /// That depends on something we do not look at.
    Unknown(String),
}

/// Reads the text of a configuration for a host.
pub fn find(text: &str, asked: Asked<'_>, includes: Includes<'_>) -> Found {
    let found = Found::default();
    let mut reading = Reading { asked, includes, found, identities: Vec::new(), known_hosts: Vec::new(), way: false };
    reading.text(text, &Block::Applies, 0);
    let Reading { mut found, identities, known_hosts, .. } = reading;
    let real = found.host_name.clone().unwrap_or_else(|| asked.host.to_owned());
    let login = asked.user.map(str::to_owned).or_else(|| found.user.clone()).unwrap_or_default();
    let port = found.port.unwrap_or(22).to_string();
    let expand = |file: &String| path(file, &real, asked.host, &login, &port, asked.home);
    found.identities = identities.iter().filter_map(expand).collect();
    found.known_hosts = known_hosts.iter().filter_map(expand).collect();
    found
}

impl Reading<'_> {
    /// Reads a file; `around` is the block that includes it.
    fn text(&mut self, text: &str, around: &Block, depth: usize) {
        let mut block = around.clone();
        for line in text.lines() {
            let Some((keyword, rest)) = split(line) else { continue };
            let keyword = keyword.to_ascii_lowercase();
            let inside = |inner: Block| {
                if *around == Block::Passes || inner == Block::Passes {
                    Block::Passes
                } else if inner == Block::Applies {
                    around.clone()
                } else {
                    inner
                }
            };
            match keyword.as_str() {
                "host" => block = inside(if matches(&words(rest), self.asked.host) { Block::Applies } else { Block::Passes }),
                "match" => block = inside(self.criteria(&words(rest))),
                "include" if block != Block::Passes => {
                    if depth >= DEPTH {
                        self.refuse(format!("its files include one another more than {DEPTH} deep"));
                        return;
                    }
                    for file in words(rest) {
                        for text in (self.includes)(&file) {
                            self.text(&text, &block, depth + 1);
                        }
                    }
                }
                _ => match &block {
                    Block::Applies => self.value(&keyword, rest),
                    Block::Passes => {}
                    Block::Unknown(what) => {
                        const OURS: [&str; 7] =
                            ["hostname", "user", "port", "identityfile", "proxyjump", "proxycommand", "userknownhostsfile"];
                        if OURS.contains(&keyword.as_str()) {
                            self.refuse(format!("{keyword} depends on \"Match {}\", which is not looked at here", what.escape_debug()));
                        }
                    }
                },
            }
        }
    }

    fn refuse(&mut self, why: String) {
        if !self.found.refused.contains(&why) {
            self.found.refused.push(why);
        }
    }

    fn value(&mut self, keyword: &str, rest: &str) {
        let first = || words(rest).into_iter().next();
        let found = &mut self.found;
        match keyword {
            "hostname" => set(&mut found.host_name, first().map(|name| name.replace("%h", self.asked.host))),
            "user" => set(&mut found.user, first()),
            "port" => set(&mut found.port, rest.trim().parse().ok()),
            "identityfile" => self.identities.extend(first()),
            "identitiesonly" => found.identities_only |= rest.trim().eq_ignore_ascii_case("yes"),
            "userknownhostsfile" if self.known_hosts.is_empty() => self.known_hosts = words(rest),
            "proxyjump" if !self.way => {
                self.way = true;
                let hops = rest.trim();
                found.jumps = if hops.eq_ignore_ascii_case("none") {
                    Some(Vec::new())
                } else {
                    hops.split(',').map(|hop| hop.trim().parse().ok()).collect()
                };
                if found.jumps.is_none() {
                    self.refuse(format!("ProxyJump {} names no hosts", hops.escape_debug()));
                }
            }
            "proxycommand" if !self.way => {
                self.way = true;
                if !rest.trim().eq_ignore_ascii_case("none") {
                    self.refuse("ProxyCommand starts a program that makes the connection; ProxyJump is understood".into());
                }
            }
            _ => {}
        }
    }

    /// The criteria of a `Match`: all must hold.
    fn criteria(&self, words: &[String]) -> Block {
        let mut words = words.iter();
        let mut unknown = None;
        while let Some(word) = words.next() {
            let (not, name) = word.strip_prefix('!').map_or((false, word.as_str()), |name| (true, name));
            let (name, glued) = name.split_once('=').map_or((name, None), |(name, value)| (name, Some(value.to_owned())));
            let name = name.to_ascii_lowercase();
            let holds = match name.as_str() {
                "all" => true,
                // Names are not made canonical here, and the last pass is the only one.
                "canonical" => false,
                "final" => true,
                other => {
                    let Some(value) = glued.or_else(|| words.next().cloned()) else { return Block::Passes };
                    let list: Vec<String> = value.split(',').map(str::to_owned).collect();
                    match other {
                        "host" => matches(&list, self.found.host_name.as_deref().unwrap_or(self.asked.host)),
                        "originalhost" => matches(&list, self.asked.host),
                        "user" => {
                            let user = self.asked.user.or(self.found.user.as_deref()).or(self.asked.local_user);
                            matches(&list, user.unwrap_or_default())
                        }
                        "localuser" => matches(&list, self.asked.local_user.unwrap_or_default()),
                        _ => {
                            unknown.get_or_insert(format!("{other} {value}"));
                            continue;
                        }
                    }
                }
            };
            if holds == not {
                return Block::Passes;
            }
        }
        unknown.map_or(Block::Applies, Block::Unknown)
    }
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
pub(crate) fn wild(pattern: &[u8], text: &[u8]) -> bool {
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
        let ask = |host, user, home| find(TEXT, Asked { host, user, home, local_user: None }, &|_| Vec::new());
        let found = ask("lab", None, Some(Path::new("/people/x")));
        assert_eq!((found.host_name.as_deref(), found.user.as_deref(), found.port), (Some("192.0.2.7"), Some("ada l"), Some(2222)));
        assert_eq!(found.identities, [PathBuf::from("/people/x/.ssh/lab_ada l"), "/keys/192.0.2.7.2222".into()]);
        assert_eq!(found.jumps.unwrap().iter().map(Target::to_string).collect::<Vec<_>>(), ["gate", "bob@deep:2200"]);
        assert!(found.identities_only);
        assert_eq!(found.known_hosts, [PathBuf::from("/people/x/.ssh/known"), "/people/x/more".into()]);
        let other = ask("a.EXAMPLE", Some("root"), None);
        assert_eq!((other.user.as_deref(), other.jumps, other.port), (Some("second"), Some(vec![]), None));
    }

    #[test]
    fn included_files_and_matches_count_where_they_stand() {
        let ask = |text: &str, host: &str| {
            let includes = |file: &str| match file {
                "one" => vec!["Port 1\nHost b\nPort 2\n".to_owned()],
                "round" => vec!["Include round\n".to_owned()],
                _ => Vec::new(),
            };
            find(text, Asked { host, local_user: Some("me"), ..Asked::default() }, &includes)
        };
        // A block of the included file ends with it; one that is passed over includes nothing.
        let found = ask("Host a\nInclude none one\nUser x\nHost b\nUser y\n", "a");
        assert_eq!((found.port, found.user.as_deref()), (Some(1), Some("x")));
        let found = ask("Host a\nInclude one\nHost b\nInclude one\nUser y\n", "b");
        assert_eq!((found.port, found.user.as_deref()), (Some(1), Some("y")));
        assert_eq!(ask("Include round\n", "a").refused.len(), 1);
        // Criteria: what was found so far, what was written, who we are.
        let text = "Host a\nHostName real\nMatch host a\nPort 1\nMatch host=real user me\nPort 2\nMatch !originalhost a\nUser z\nMatch final all\nUser w\n";
        let found = ask(text, "a");
        assert_eq!((found.port, found.user.as_deref(), found.refused.len()), (Some(2), Some("w"), 0));
        assert_eq!(ask(text, "c").user.as_deref(), Some("z"));
        // What decides by something that is not looked at is told where it would count.
        let found = ask("Match host a exec \"test -e x\"\nPort 7\nCompression yes\n", "a");
        assert!(found.port.is_none() && found.refused.len() == 1 && found.refused[0].contains("exec test -e x"), "{found:?}");
        assert!(ask("Match host b exec x\nPort 7\n", "a").refused.is_empty());
        assert_eq!(ask("ProxyCommand nc %h %p\n", "a").refused.len(), 1);
        assert!(ask("ProxyJump gate\nProxyCommand nc\n", "a").refused.is_empty());
        assert!(ask("ProxyCommand none\nProxyJump gate\n", "a").jumps.is_none());
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
