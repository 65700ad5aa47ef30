//! What kinds of URL there are, where redirects lead, and what a file is called. Pure.

use percent_encoding::percent_decode_str;
use std::{ffi::OsStr, os::unix::ffi::OsStrExt as _, path::PathBuf};
use ureq::http::Uri;
use vmoon_core::{Code, Error, Result, name::escape};

/// Where something is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// `https://…`, `http://…`
    Http {
        /// Whether by TLS.
        secure: bool,
        /// The host, without port and brackets.
        host: String,
    },
    /// `file:///…`
    File(PathBuf),
    /// `builtin:…`, the rest.
    Builtin(String),
    /// `git+https://…`, `git+file://…`, and `git://github.com/…`, which is reached by HTTPS: the URL for `git`.
    Git(String),
}

/// Tells where a URL leads.
///
/// # Errors
/// [`Code::Usage`] for what is no URL or of a kind that is not fetched.
pub fn locate(url: &str) -> Result<Location> {
    let bad = |why: &str, hint: &'static str| {
        // What stands before an @ may be a secret.
        let shown = if url.split('/').nth(2).is_some_and(|host| host.contains('@')) { "an address".into() } else { escape(url) };
        let shown: String = shown.chars().take(160).collect();
        Err(Error::new(Code::Usage, format!("{shown} cannot be fetched: {why}")).hint(hint))
    };
    if url.bytes().any(|byte| byte.is_ascii_control() || byte == b' ') || !url.is_ascii() {
        return bad("it has characters that no address has", "have the address written with percent signs");
    }
    if let Some(name) = url.strip_prefix("builtin:") {
        return Ok(Location::Builtin(name.to_owned()));
    }
    if let Some(rest) = url.strip_prefix("git+").or_else(|| url.strip_prefix("git://").map(|_| url)) {
        return match rest.split_once("://") {
            // That protocol ended in 2022; LuaRocks reads it so as well.
            Some(("git", path)) if path.starts_with("github.com/") => repository(&["https://", path].concat()),
            Some(("https" | "http" | "file", _)) => repository(rest),
            Some(("git", _)) => bad("that protocol proves nothing about what it brings", "git+https:// does"),
            _ => bad("repositories are fetched by HTTPS only", "git+https:// is"),
        };
    }
    if let Some(path) = url.strip_prefix("file://") {
        let path = path.strip_prefix("localhost").unwrap_or(path);
        let decoded: Vec<u8> = percent_decode_str(path).collect();
        if !decoded.starts_with(b"/") || decoded.contains(&0) {
            return bad("it is no path of this computer", "write file:///…");
        }
        return Ok(Location::File(PathBuf::from(OsStr::from_bytes(&decoded))));
    }
    let Ok(uri) = url.parse::<Uri>() else { return bad("it is no address", "addresses are https://…, file:///… or git+https://…") };
    let secure = match uri.scheme_str() {
        Some("https") => true,
        Some("http") => false,
        _ => return bad("that kind of address is not known", "addresses are https://…, file:///… or git+https://…"),
    };
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return bad("it has a user or password in it", "use a mirror with a file:// address");
    }
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    if host.is_empty() {
        return bad("it names no computer", "addresses are https://…, file:///… or git+https://…");
    }
    Ok(Location::Http { secure, host })
}

fn repository(url: &str) -> Result<Location> {
    let url = url.split(['#', '?']).next().unwrap_or_default();
    match locate(url)? {
        Location::Http { secure: false, host } if !crate::servers::is_loopback(&host) => {
            Err(Error::new(Code::Usage, format!("{} would be fetched without encryption", escape(url))).hint("git+https:// is encrypted"))
        }
        _ => Ok(Location::Git(url.to_owned())),
    }
}

/// Whether what is at this URL is of this computer and perhaps of nobody else's business.
fn is_local(url: &str) -> Result<bool> {
    Ok(match locate(url)? {
        Location::File(_) => true,
        Location::Builtin(_) => false,
        Location::Http { host, .. } => crate::servers::is_loopback(&host),
        Location::Git(url) => is_local(&url)?,
    })
}

/// Whether a rock from one URL may name a source at another. One from elsewhere may not name what is on this computer: it could have somebody's files
/// installed where programs read them.
///
/// # Errors
/// [`Code::PackageInvalid`]; [`Code::Usage`] for what is no URL.
pub fn may_name(rock: &str, source: &str) -> Result<()> {
    if is_local(source)? && !is_local(rock)? {
        let why = format!("a rock from {} names a source on this computer: {}", escape(rock), escape(source));
        return Err(Error::new(Code::PackageInvalid, why).hint("a rock of your own belongs on a server with a file:// address"));
    }
    Ok(())
}

/// Where a redirect from `base` leads.
///
/// # Errors
/// A sentence: it leads nowhere, or from TLS to plain text.
pub(super) fn redirect(base: &Uri, to: &str) -> Result<Uri, String> {
    let wrong = || format!("it redirects to \"{}\", which is no address", escape(&to.chars().take(160).collect::<String>()));
    let parsed: Uri = match to.split('#').next().unwrap_or_default() {
        to if to.contains("://") => to.parse().map_err(|_| wrong())?,
        to => {
            let mut parts = base.clone().into_parts();
            let path = if let Some(rest) = to.strip_prefix("//") {
                let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
                parts.authority = Some(authority.parse().map_err(|_| wrong())?);
                path.to_owned()
            } else if to.starts_with('/') {
                to.to_owned()
            } else {
                let folder = base.path().rsplit_once('/').map_or("", |(folder, _)| folder);
                [folder, "/", to].concat()
            };
            parts.path_and_query = Some(if path.is_empty() { "/" } else { &path }.parse().map_err(|_| wrong())?);
            Uri::from_parts(parts).map_err(|_| wrong())?
        }
    };
    match locate(&parsed.to_string()) {
        Ok(Location::Http { secure, host }) => {
            let was_secure = base.scheme_str() == Some("https");
            if was_secure && !secure {
                Err(format!("it redirects from https to {parsed}, which is not encrypted"))
            } else if !secure && !crate::servers::is_loopback(&host) && base.host() != Some(host.as_str()) {
                Err(format!("it redirects to {parsed}, which is not encrypted"))
            } else {
                Ok(parsed)
            }
        }
        _ => Err(wrong()),
    }
}

/// The last part of a URL's path, decoded: what its file is called. Empty if it has none that can be the name of a file.
pub fn file_name(url: &str) -> String {
    let path = url.split(['?', '#']).next().unwrap_or_default();
    let last = path.rsplit('/').next().unwrap_or_default();
    let name = percent_decode_str(last).decode_utf8_lossy().into_owned();
    let fits = !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '\0']) && name.len() <= 200;
    if fits && !name.chars().any(char::is_control) { name } else { String::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_told_apart() {
        let http = |secure, host: &str| Some(Location::Http { secure, host: host.into() });
        for (url, expected) in [
            ("https://luarocks.org/a", http(true, "luarocks.org")),
            ("http://[::1]:80/a", http(false, "::1")),
            ("file:///a%20b", Some(Location::File("/a b".into()))),
            ("builtin:x.rock", Some(Location::Builtin("x.rock".into()))),
            ("git+https://x.org/y.git", Some(Location::Git("https://x.org/y.git".into()))),
            ("git://github.com/a/b", Some(Location::Git("https://github.com/a/b".into()))),
            ("git+file:///srv/a", Some(Location::Git("file:///srv/a".into()))),
            ("git+http://127.0.0.1/a", Some(Location::Git("http://127.0.0.1/a".into()))),
            ("git+http://x.org/a", None),
            ("git://x.org/a", None),
            ("git+ssh://git@x.org/a", None),
            ("git+ext::sh -c x", None),
            ("file://host/a", None),
            ("file:///a%00b", None),
            ("ftp://x.org/a", None),
            ("https://u:p@x.org/a", None),
            ("https:///a", None),
            ("https://x.org/\n", None),
            ("--upload-pack=x", None),
            ("", None),
        ] {
            assert_eq!(locate(url).ok(), expected, "{url}");
        }
    }

    #[test]
    fn only_rocks_of_this_computer_name_sources_on_it() {
        let local = ["file:///etc/passwd", "git+file:///srv/x", "http://127.0.0.1/x", "https://localhost/x", "git+http://[::1]/x"];
        for source in local {
            assert_eq!(may_name("https://x.org/a.rockspec", source).unwrap_err().code(), Code::PackageInvalid, "{source}");
            assert!(may_name("builtin:a.rockspec", source).is_err());
            assert!(local.iter().all(|rock| may_name(rock, source).is_ok()));
        }
        assert!(
            may_name("https://x.org/a.rockspec", "https://y.org/a.zip").is_ok() && may_name("file:///a", "git+https://y.org/a").is_ok()
        );
    }

    #[test]
    fn redirects_are_followed_but_never_out_of_encryption() {
        let base: Uri = "https://a.org/x/y".parse().unwrap();
        let to = |to: &str| redirect(&base, to).map(|uri| uri.to_string());
        assert_eq!(to("https://b.org/z").unwrap(), "https://b.org/z");
        assert_eq!(to("/z?q=1#f").unwrap(), "https://a.org/z?q=1");
        assert_eq!(to("z").unwrap(), "https://a.org/x/z");
        assert_eq!(to("//b.org/z").unwrap(), "https://b.org/z");
        for bad in ["http://a.org/x/y", "http://127.0.0.1/", "file:///etc/passwd", "ftp://a.org/", "https://u@b.org/", "https://"] {
            assert!(to(bad).is_err(), "{bad}");
        }
        let plain: Uri = "http://127.0.0.1:8000/x".parse().unwrap();
        assert!(redirect(&plain, "http://127.0.0.1:9000/y").is_ok() && redirect(&plain, "http://a.org/").is_err());
    }

    #[test]
    fn names_of_files_are_names_and_no_paths() {
        for (url, name) in [
            ("https://x/a-1.tar.gz?raw=1", "a-1.tar.gz"),
            ("https://x/a%20b.zip#c", "a b.zip"),
            ("https://x/a/", ""),
            ("https://x/..%2f..%2fpasswd", ""),
            ("https://x/..", ""),
            ("https://x/a%0ab", ""),
        ] {
            assert_eq!(file_name(url), name, "{url}");
        }
    }
}
