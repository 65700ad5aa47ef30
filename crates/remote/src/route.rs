//! From what a user writes to a route: the target, `~/.ssh/config`, the usual files.

use crate::{Auth, Hop, Route, Target, Trust, config};
use std::path::{Path, PathBuf};
use vmoon_core::{Code, Error, Result};
use vmoon_sys::login::Login;

/// How many jump hosts may lead to one another.
const JUMPS: usize = 8;
/// How many files one `Include` may bring.
const FILES: usize = 256;
/// The longest configuration that is read, bytes.
const CONFIG: u64 = 1 << 20;
/// Key files that are tried if nothing else is said.
const KEYS: [&str; 3] = ["id_ed25519", "id_ecdsa", "id_rsa"];

/// Everything that says how to reach a host, before any of it is looked up.
#[derive(Clone, Debug)]
pub struct Wish {
    /// The host, as the user wrote it.
    pub target: Target,
    /// The login name, where it is given apart from the target.
    pub user: Option<String>,
    /// What to show the server. Empty `identities`, no agent: those of the user's configuration are used.
    pub auth: Auth,
    /// Confirmed fingerprints of any host on the way; with one the files of known hosts do not count for the target.
    pub pins: Vec<String>,
    /// Whether `~/.ssh/config` and the user's keys and known hosts are used.
    pub user_files: bool,
}

/// Makes a route. Reads the user's SSH configuration, nothing else; connects nowhere.
///
/// # Errors
/// [`Code::Usage`] when jump hosts lead in a circle, no login name is known, or the configuration asks for what is not done here.
pub fn resolve(wish: &Wish, login: &Login) -> Result<Route> {
    let home = login.home.as_deref().filter(|_| wish.user_files);
    let text = home.map(|home| read(&home.join(".ssh/config"))).unwrap_or_default();
    let mut jumps = Vec::new();
    let mut target = wish.target.clone();
    if wish.user.is_some() {
        target.user = wish.user.clone();
    }
    let hop = walk(&target, wish, login, home, &text, &mut jumps, 0)?;
    Ok(Route::new(jumps, hop))
}

/// The texts of the files that an `Include` names: relative to `~/.ssh`, with `*` and `?` in any part, in order of their names.
fn included(pattern: &str, home: Option<&Path>) -> Vec<String> {
    let Some(home) = home else { return Vec::new() };
    let pattern = match pattern.strip_prefix("~/") {
        Some(below) => home.join(below),
        None => home.join(".ssh").join(pattern),
    };
    let mut paths = vec![PathBuf::new()];
    for part in &pattern {
        let Some(text) = part.to_str().filter(|text| text.contains(['*', '?'])) else {
            paths.iter_mut().for_each(|path| path.push(part));
            continue;
        };
        let below = |dir: &PathBuf| {
            let mut names: Vec<_> = std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.file_name()).collect();
            names.sort();
            // As with shells, a pattern does not mean hidden files.
            let fits = |name: &str| !name.starts_with('.') && config::wild(text.as_bytes(), name.as_bytes());
            names.into_iter().filter(|name| name.to_str().is_some_and(fits)).map(|name| dir.join(name)).collect::<Vec<_>>()
        };
        paths = paths.iter().flat_map(below).take(FILES).collect();
    }
    paths.into_iter().filter(|path| path.is_file()).take(FILES).map(|path| read(&path)).collect()
}

fn walk(target: &Target, wish: &Wish, login: &Login, home: Option<&Path>, text: &str, jumps: &mut Vec<Hop>, depth: usize) -> Result<Hop> {
    if depth > JUMPS || jumps.len() > JUMPS {
        return Err(Error::new(Code::Usage, format!("more than {JUMPS} jump hosts lead to {}", wish.target))
            .hint("look at ProxyJump in ~/.ssh/config"));
    }
    let asked = config::Asked { host: &target.host, user: target.user.as_deref(), local_user: login.user.as_deref(), home };
    let found = config::find(text, asked, &|pattern| included(pattern, home));
    if !found.refused.is_empty() {
        return Err(Error::new(
            Code::Usage,
            format!("~/.ssh/config says of {} what is not done here: {}", target.host, found.refused.join("; ")),
        )
        .hint("name the host by its address, or put a Host block of its own before that one"));
    }
    for jump in found.jumps.iter().flatten() {
        let hop = walk(jump, wish, login, home, text, jumps, depth + 1)?;
        jumps.push(hop);
    }
    let user = target.user.clone().or(found.user).or_else(|| login.user.clone());
    let user =
        user.ok_or_else(|| Error::new(Code::Usage, format!("no login name is known for {}", target.host)).hint("write user@host"))?;
    let mut auth = wish.auth.clone();
    let usual = |name: &&str| home.map(|home| home.join(".ssh").join(name));
    if wish.user_files && auth.identities.is_empty() {
        auth.identities = found.identities;
        auth.identities_only |= found.identities_only;
        auth.usual_identities = KEYS.iter().filter_map(usual).collect();
    }
    if wish.user_files && auth.agent.is_none() {
        auth.agent = login.agent.clone();
    }
    if depth > 0 {
        // The password is the target's; a jump host must not see it.
        auth.password = None;
    }
    let mut known_hosts: Vec<PathBuf> = found.known_hosts;
    if known_hosts.is_empty() {
        known_hosts.extend(usual(&"known_hosts"));
    }
    if wish.user_files {
        known_hosts.push("/etc/ssh/ssh_known_hosts".into());
    }
    let host = found.host_name.unwrap_or_else(|| target.host.clone());
    let port = target.port.or(found.port).unwrap_or(22);
    // A jump host that the files know needs no pin.
    let trust = Trust { pins: wish.pins.clone(), known_hosts: known_hosts.clone() };
    let trust = if depth > 0 && !trust.recorded(&host, port).is_empty() { Trust { pins: Vec::new(), known_hosts } } else { trust };
    Ok(Hop { name: target.host.clone(), host, port, user, auth, trust })
}

fn read(file: &Path) -> String {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    // A file that cannot be read says nothing; ssh itself complains about it.
    let _ = std::fs::File::open(file).and_then(|file| file.take(CONFIG).read_to_end(&mut bytes));
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Secret;

    #[test]
    fn jump_hosts_are_walked_and_never_see_the_password() {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir(home.path().join(".ssh")).unwrap();
        let text = "Host deep\n ProxyJump mid\n HostName 192.0.2.9\nHost mid\n ProxyJump gate\n User m\nHost round\n ProxyJump round\nHost *\n Port 2200\n";
        std::fs::write(home.path().join(".ssh/config"), text).unwrap();
        let login = Login { home: Some(home.path().into()), user: Some("me".into()), agent: None };
        let wish = |target: &str| Wish {
            target: target.parse().unwrap(),
            user: None,
            auth: Auth { password: Some(Secret::new("x")), ..Auth::default() },
            pins: vec![],
            user_files: true,
        };
        let route = resolve(&wish("deep:9"), &login).unwrap();
        let all: Vec<(&str, &str, u16, bool)> = route
            .jumps
            .iter()
            .chain([&route.target])
            .map(|hop| (hop.host.as_str(), hop.user.as_str(), hop.port, hop.auth.password.is_some()))
            .collect();
        assert_eq!(all, [("gate", "me", 2200, false), ("mid", "m", 2200, false), ("192.0.2.9", "me", 9, true)]);
        assert_eq!(resolve(&wish("round"), &login).unwrap_err().code(), Code::Usage);
        let bare = resolve(&Wish { user_files: false, ..wish("a@deep") }, &login).unwrap();
        assert!(bare.jumps.is_empty() && bare.target.host == "deep" && bare.target.trust.known_hosts.is_empty());
        assert_eq!(resolve(&wish("h"), &Login::default()).unwrap_err().code(), Code::Usage);
        // Files that are included, by a pattern and by a path from the home.
        std::fs::create_dir(home.path().join(".ssh/conf.d")).unwrap();
        for (name, text) in [
            ("conf.d/1.conf", "Host one\n Port 1\n"),
            ("conf.d/2.conf", "Host *\n User two\n"),
            ("conf.d/.hidden", "Port 9\n"),
            ("more", "Host odd\n ProxyCommand x\n"),
        ] {
            std::fs::write(home.path().join(".ssh").join(name), text).unwrap();
        }
        std::fs::write(home.path().join(".ssh/config"), "Include conf.d/* ~/.ssh/more\n").unwrap();
        let route = resolve(&wish("one"), &login).unwrap();
        assert_eq!((route.target.port, route.target.user.as_str()), (1, "two"));
        let error = resolve(&wish("odd"), &login).unwrap_err();
        assert!(error.code() == Code::Usage && error.message().contains("ProxyCommand"), "{error}");
    }
}
