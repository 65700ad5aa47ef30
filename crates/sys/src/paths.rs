//! Where vmoon keeps things.
//!
//! State is in `$XDG_STATE_HOME/vmoon` (the store, transcripts, holders); only the daemon's socket and its lock are in the
//! runtime directory, which logind removes at logout.

use rustix::fs::{Mode, mkdir, stat};
use std::{
    env,
    ffi::OsString,
    os::unix::ffi::OsStringExt as _,
    path::{Path, PathBuf},
};
use vmoon_core::{Code, Error, Result};

/// The directories of one user's vmoon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    /// `$XDG_STATE_HOME/vmoon`, 0700.
    pub state: PathBuf,
    /// `$XDG_RUNTIME_DIR/vmoon`, 0700, or a private directory per user under the system's temporary directory.
    pub runtime: PathBuf,
    /// `$XDG_CONFIG_HOME/vmoon`; may not exist.
    pub config: PathBuf,
    /// `$XDG_CACHE_HOME/vmoon`; may not exist.
    pub cache: PathBuf,
}

impl Paths {
    /// The paths that the environment names.
    ///
    /// # Errors
    /// [`Code::Usage`] when neither `XDG_STATE_HOME` nor `HOME` is set.
    pub fn from_env() -> Result<Self> {
        Self::from_lookup(|name| env::var_os(name), rustix::process::getuid().as_raw())
    }

    fn from_lookup(get: impl Fn(&str) -> Option<OsString>, uid: u32) -> Result<Self> {
        let absolute = |name: &str| get(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let home = |variable: &str, under: &str| {
            absolute(variable).or_else(|| absolute("HOME").map(|home| home.join(under))).map(|dir| dir.join("vmoon")).ok_or_else(|| {
                Error::new(Code::Usage, format!("neither {variable} nor HOME is set to an absolute path"))
                    .hint("set HOME to your home directory")
            })
        };
        let runtime = match absolute("XDG_RUNTIME_DIR").filter(|dir| dir.is_dir()) {
            Some(dir) => dir.join("vmoon"),
            None => temporary(&get, uid),
        };
        let (state, config, cache) =
            (home("XDG_STATE_HOME", ".local/state")?, home("XDG_CONFIG_HOME", ".config")?, home("XDG_CACHE_HOME", ".cache")?);
        Ok(Self { state, runtime, config, cache })
    }

    /// The daemon's socket.
    pub fn socket(&self) -> PathBuf {
        self.runtime.join("api.sock")
    }

    /// The file whose lock makes a process *the* daemon of this state directory.
    pub fn lock(&self) -> PathBuf {
        self.state.join("daemon.lock")
    }

    /// The file in which the daemon of this state directory says where it listens: whoever has another runtime directory finds it there.
    pub fn listens(&self) -> PathBuf {
        self.state.join("daemon.socket")
    }

    /// The socket of the daemon of this state directory, as far as can be known: where it has said to listen, if there is a socket of this user,
    /// else where one of ours would.
    pub fn found_socket(&self) -> PathBuf {
        self.said_socket().unwrap_or_else(|| self.socket())
    }

    fn said_socket(&self) -> Option<PathBuf> {
        let said = PathBuf::from(OsString::from_vec(std::fs::read(self.listens()).ok()?));
        let found = rustix::fs::lstat(&said).ok()?;
        let is_socket = rustix::fs::FileType::from_raw_mode(found.st_mode) == rustix::fs::FileType::Socket;
        (is_socket && found.st_uid == rustix::process::getuid().as_raw()).then_some(said)
    }

    /// The same with another runtime directory, for who has lost theirs: logind removes it at logout.
    #[must_use]
    pub fn without_login(&self) -> Self {
        let lookup = |name: &str| if name == "TMPDIR" { env::var_os(name) } else { None };
        Self { runtime: temporary(lookup, rustix::process::getuid().as_raw()), ..self.clone() }
    }

    /// The store.
    pub fn store(&self) -> PathBuf {
        self.state.join("vmoon.db")
    }

    /// The daemon's log.
    pub fn log(&self) -> PathBuf {
        self.state.join("daemon.log")
    }

    /// Makes the state and runtime directories, private to this user.
    ///
    /// # Errors
    /// [`Code::Permission`] if one exists and belongs to somebody else or is open to others.
    pub fn make(&self) -> Result<()> {
        private_dir(&self.state)?;
        private_dir(&self.runtime)
    }
}

/// Where the socket is of who has no runtime directory.
fn temporary(get: impl Fn(&str) -> Option<OsString>, uid: u32) -> PathBuf {
    let dir = get("TMPDIR").map(PathBuf::from).filter(|path| path.is_absolute());
    dir.unwrap_or_else(|| "/tmp".into()).join(format!("vmoon-{uid}"))
}

/// Where programs of this user keep what they make: `$XDG_DATA_HOME`, or `.local/share` at home. Nothing of vmoon is there.
pub fn data_home() -> Option<PathBuf> {
    data_home_from(|name| env::var_os(name))
}

fn data_home_from(get: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let absolute = |name: &str| get(name).map(PathBuf::from).filter(|path| path.is_absolute());
    absolute("XDG_DATA_HOME").or_else(|| absolute("HOME").map(|home| home.join(".local/share")))
}

/// Those of these variables that our environment has, to be handed on to a program that gets nothing else.
pub fn inherited(names: &[&str]) -> Vec<(OsString, OsString)> {
    names.iter().filter_map(|name| Some((OsString::from(name), env::var_os(name)?))).collect()
}

/// Makes `dir` with mode 0700, or checks that it is ours and closed to others. Parents are made as needed.
///
/// # Errors
/// [`Code::Permission`] if it belongs to another user; [`Code::FileFailed`] if it cannot be made.
pub fn private_dir(dir: &Path) -> Result<()> {
    if let Some(parent) = dir.parent() {
        std::fs::create_dir_all(parent).map_err(|error| Error::io(format_args!("make the directory {}", parent.display()), error))?;
    }
    match mkdir(dir, Mode::RWXU) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => {}
        Err(error) => return Err(Error::io(format_args!("make the directory {}", dir.display()), error.into())),
    }
    // lstat, not stat: a link that somebody else put here must not be followed.
    let found =
        rustix::fs::lstat(dir).or_else(|_| stat(dir)).map_err(|e| Error::io(format_args!("look at {}", dir.display()), e.into()))?;
    let is_dir = rustix::fs::FileType::from_raw_mode(found.st_mode) == rustix::fs::FileType::Directory;
    if !is_dir || found.st_uid != rustix::process::getuid().as_raw() {
        return Err(Error::new(Code::Permission, format!("{} is not a directory of ours", dir.display()))
            .hint("remove it, or set XDG_RUNTIME_DIR and XDG_STATE_HOME to directories of your own"));
    }
    if found.st_mode & 0o077 != 0 {
        rustix::fs::chmod(dir, Mode::RWXU).map_err(|e| Error::io(format_args!("close {} to others", dir.display()), e.into()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_is_at_home_unless_said_otherwise() {
        let from = |pairs: &[(&str, &str)]| {
            data_home_from(|name| pairs.iter().find(|(known, _)| *known == name).map(|(_, value)| OsString::from(value)))
        };
        assert_eq!(from(&[("HOME", "/h")]), Some("/h/.local/share".into()));
        assert_eq!(from(&[("HOME", "/h"), ("XDG_DATA_HOME", "/d")]), Some("/d".into()));
        assert_eq!(from(&[("HOME", "/h"), ("XDG_DATA_HOME", "d")]), Some("/h/.local/share".into()));
        assert_eq!(from(&[]), None);
    }
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn paths(vars: &[(&str, &str)]) -> Result<Paths> {
        Paths::from_lookup(|name| vars.iter().find(|(n, _)| *n == name).map(|(_, v)| v.into()), 42)
    }

    #[test]
    fn the_environment_decides_and_has_fallbacks() {
        let p = paths(&[("HOME", "/h"), ("TMPDIR", "/t")]).unwrap();
        assert_eq!((p.state, p.runtime), ("/h/.local/state/vmoon".into(), "/t/vmoon-42".into()));
        let p = paths(&[("HOME", "/h"), ("XDG_STATE_HOME", "/s"), ("XDG_RUNTIME_DIR", "/")]).unwrap();
        assert_eq!((p.state, p.runtime), ("/s/vmoon".into(), "/vmoon".into()));
        // Relative values are to be ignored (XDG Base Directory Specification 0.8).
        assert_eq!(paths(&[("HOME", "h")]).unwrap_err().code(), Code::Usage);
    }

    #[test]
    fn a_socket_is_found_where_its_daemon_says_and_nowhere_else() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let paths = Paths { state: at("state"), runtime: at("run"), config: at("config"), cache: at("cache") };
        std::fs::create_dir(&paths.state).unwrap();
        assert_eq!(paths.found_socket(), paths.socket());
        let _listener = std::os::unix::net::UnixListener::bind(at("other")).unwrap();
        std::fs::write(at("plain"), "").unwrap();
        symlink(at("other"), at("link")).unwrap();
        for (said, found) in
            [(at("other"), at("other")), (at("plain"), paths.socket()), (at("link"), paths.socket()), (at("gone"), paths.socket())]
        {
            std::fs::write(paths.listens(), said.as_os_str().as_encoded_bytes()).unwrap();
            assert_eq!(paths.found_socket(), found);
        }
    }

    #[test]
    fn a_directory_is_closed_to_others_and_a_link_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let ours = dir.path().join("ours");
        std::fs::create_dir(&ours).unwrap();
        std::fs::set_permissions(&ours, PermissionsExt::from_mode(0o755)).unwrap();
        private_dir(&ours).unwrap();
        assert_eq!(std::fs::metadata(&ours).unwrap().permissions().mode() & 0o777, 0o700);
        let link = dir.path().join("link");
        symlink(&ours, &link).unwrap();
        assert_eq!(private_dir(&link).unwrap_err().code(), Code::Permission);
    }
}
