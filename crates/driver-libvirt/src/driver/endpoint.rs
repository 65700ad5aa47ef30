//! Where a libvirt is and how to get there: the URIs that users give. Parsing is pure; connecting is for [`Connect`].
//!
//! `qemu:///system`, `qemu:///session` and `test:///default` lead to a socket of this computer, `qemu+unix:///system?socket=PATH` to that
//! one, `qemu+ssh://[USER@]HOST[:PORT]/system` through `ssh HOST virt-ssh-helper`, which speaks for the daemon there.

use std::{
    ffi::OsString,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task,
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf},
    net::unix::pipe,
    sync::watch,
    time::timeout,
};
use vmoon_core::{Code, Error, Result, name::escape};
use vmoon_guest::Gate;
use vmoon_libvirt_wire::{Connect, Connecting, Transport, UnixSocket};
use vmoon_sys::speak::{self, Spoken};

/// A hypervisor's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// What the daemon is told to open: `qemu:///system`.
    pub(crate) uri: String,
    pub(crate) way: Way,
    /// Whether machines run as this user.
    pub(crate) session: bool,
    /// The other computer, where it is on one: its guests are reached through it.
    pub(crate) gate: Option<Gate>,
    /// What ssh has said last.
    pub(crate) said: Said,
}

/// The last words of a program, for errors.
#[derive(Clone, Debug, Default)]
pub(crate) struct Said(Arc<Words>);

#[derive(Debug, Default)]
struct Words {
    text: Mutex<String>,
    /// Whether there is a program that may yet say something.
    speaking: watch::Sender<bool>,
}

/// What was said makes no difference between addresses.
impl PartialEq for Said {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Said {}

impl Said {
    /// The last words of a program that has failed, if there are any, for people. Waits a moment for what it has said and we have not read yet.
    pub(crate) async fn last(&self) -> Option<String> {
        let mut speaking = self.0.speaking.subscribe();
        let _late = timeout(LAST_WORDS, speaking.wait_for(|speaking| !speaking)).await;
        let text = self.text();
        text.lines().map(str::trim).rfind(|line| !line.is_empty()).map(|line| escape(line).chars().take(SAID).collect())
    }

    fn text(&self) -> MutexGuard<'_, String> {
        self.0.text.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self) {
        self.text().clear();
        self.0.speaking.send_replace(true);
    }

    fn hear(&self, words: &str) {
        let mut text = self.text();
        text.push_str(words);
        let first = text.char_indices().rev().nth(2 * SAID).map_or(0, |(at, _)| at);
        text.drain(..first);
    }

    fn end(&self) {
        self.0.speaking.send_replace(false);
    }
}

/// How long a program that failed may take to say why.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// How much of it is kept, characters.
const SAID: usize = 200;

/// How to get there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// The first of these sockets that is there.
    Sockets(Vec<PathBuf>),
    /// `ssh` with these arguments.
    Ssh(Vec<OsString>),
}

/// How the user wants SSH to be used, where the URI does not say.
#[derive(Clone, Debug, Default)]
pub(crate) struct SshOptions {
    pub(crate) user: Option<String>,
    pub(crate) identity: Option<String>,
}

fn refused(uri: &str, why: &str) -> Error {
    Error::new(Code::Usage, format!("{} is not a libvirt URI that vmoon takes: {why}", escape(uri)))
        .hint("qemu:///system, qemu:///session, qemu+ssh://HOST/system or qemu+unix:///system?socket=PATH")
}

fn plain(text: &str) -> bool {
    !text.is_empty() && !text.starts_with('-') && text.chars().all(|char| char.is_ascii_alphanumeric() || ".-_:[]%".contains(char))
}

impl Endpoint {
    /// Reads a URI. `runtime` is where sockets of this user's own daemons are.
    ///
    /// # Errors
    /// [`Code::Usage`].
    pub(crate) fn parse(uri: &str, runtime: Option<&Path>, ssh: &SshOptions) -> Result<Self> {
        let (scheme, rest) = uri.split_once("://").ok_or_else(|| refused(uri, "it has no scheme"))?;
        let (kind, transport) = scheme.split_once('+').unwrap_or((scheme, ""));
        if !matches!(kind, "qemu" | "test") {
            return Err(refused(uri, "the driver is for qemu"));
        }
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_once('/').ok_or_else(|| refused(uri, "it has no path"))?;
        if kind == "qemu" && !matches!(path, "system" | "session") {
            return Err(refused(uri, "the path is system or session"));
        }
        if path.is_empty() || path.contains("..") || !path.chars().all(|char| char.is_ascii_alphanumeric() || "/._-".contains(char)) {
            return Err(refused(uri, "the path has characters that no path of a hypervisor has"));
        }
        let mut socket = None;
        let mut key = ssh.identity.clone();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            match pair.split_once('=') {
                Some(("socket", path)) if path.starts_with('/') => socket = Some(PathBuf::from(path)),
                Some(("keyfile", path)) if path.starts_with('/') => key = Some(path.to_owned()),
                _ => return Err(refused(uri, "of options it takes socket=PATH and keyfile=PATH")),
            }
        }
        let inner = format!("{kind}:///{path}");
        let session = path == "session";
        match transport {
            "" | "unix" if authority.is_empty() => {
                let sockets = match socket {
                    Some(socket) => vec![socket],
                    None if session => UnixSocket::places(Some(runtime.ok_or_else(|| refused(uri, "there is no XDG_RUNTIME_DIR"))?)),
                    None => UnixSocket::places(None),
                };
                Ok(Self { uri: inner, way: Way::Sockets(sockets), session, gate: None, said: Said::default() })
            }
            "ssh" if socket.is_some() => Err(refused(uri, "virt-ssh-helper finds the socket over there by itself")),
            "ssh" if !authority.is_empty() => {
                let (user, host) = match authority.rsplit_once('@') {
                    Some((user, host)) => (Some(user), host),
                    None => (ssh.user.as_deref(), authority),
                };
                let (host, port) = match host.rsplit_once(':') {
                    Some((host, port)) if port.chars().all(|char| char.is_ascii_digit()) && !port.is_empty() => (host, Some(port)),
                    _ => (host, None),
                };
                if !plain(host) || !user.is_none_or(plain) {
                    return Err(refused(uri, "the host or the user has characters that no name has"));
                }
                // Never asks anything: whoever has to answer is not there.
                let mut arguments: Vec<OsString> = ["-T", "-e", "none", "-o", "BatchMode=yes"].map(Into::into).into();
                for (option, value) in [("-l", user), ("-p", port), ("-i", key.as_deref())] {
                    if let Some(value) = value {
                        arguments.extend([option.into(), value.into()]);
                    }
                }
                let host = host.trim_start_matches('[').trim_end_matches(']');
                let gate = Gate {
                    host: host.to_owned(),
                    port: port.and_then(|port| port.parse().ok()),
                    user: user.map(str::to_owned),
                    identity: key.as_deref().map(PathBuf::from),
                };
                arguments.extend(["--".into(), host.into(), "virt-ssh-helper".into(), inner.clone().into()]);
                Ok(Self { uri: inner, way: Way::Ssh(arguments), session, gate: Some(gate), said: Said::default() })
            }
            _ => Err(refused(uri, "of transports it takes unix (without a host) and ssh (with one)")),
        }
    }

    /// Whether the hypervisor's files are on this computer.
    pub(crate) fn is_local(&self) -> bool {
        matches!(self.way, Way::Sockets(_))
    }
}

impl Connect for Endpoint {
    fn connect(&self) -> Connecting<'_> {
        Box::pin(async move {
            match &self.way {
                Way::Sockets(sockets) => {
                    let mut last = io::Error::from(io::ErrorKind::NotFound);
                    for socket in sockets {
                        match UnixSocket(socket.clone()).connect().await {
                            Ok(transport) => return Ok(transport),
                            // One that refuses us says more than one that is not there.
                            Err(error) if last.kind() == io::ErrorKind::NotFound => last = error,
                            Err(_) => {}
                        }
                    }
                    Err(last)
                }
                Way::Ssh(arguments) => through_ssh(arguments, &self.said),
            }
        })
    }

    fn describe(&self) -> String {
        match &self.way {
            Way::Sockets(sockets) => sockets.first().map(|path| path.display().to_string()).unwrap_or_default(),
            Way::Ssh(arguments) => {
                let words: Vec<_> = arguments.iter().map(|word| word.to_string_lossy()).collect();
                format!("ssh {}", words.join(" "))
            }
        }
    }
}

/// Our end of a program's pipe, with the program: it ends with whichever half goes last.
struct Half<T> {
    pipe: T,
    _program: Arc<Spoken>,
}

impl<T: AsyncRead + Unpin> AsyncRead for Half<T> {
    fn poll_read(mut self: std::pin::Pin<&mut Self>, cx: &mut task::Context<'_>, buf: &mut ReadBuf<'_>) -> task::Poll<io::Result<()>> {
        std::pin::Pin::new(&mut self.pipe).poll_read(cx, buf)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Half<T> {
    fn poll_write(mut self: std::pin::Pin<&mut Self>, cx: &mut task::Context<'_>, buf: &[u8]) -> task::Poll<io::Result<usize>> {
        std::pin::Pin::new(&mut self.pipe).poll_write(cx, buf)
    }
    fn poll_flush(mut self: std::pin::Pin<&mut Self>, cx: &mut task::Context<'_>) -> task::Poll<io::Result<()>> {
        std::pin::Pin::new(&mut self.pipe).poll_flush(cx)
    }
    fn poll_shutdown(mut self: std::pin::Pin<&mut Self>, cx: &mut task::Context<'_>) -> task::Poll<io::Result<()>> {
        std::pin::Pin::new(&mut self.pipe).poll_shutdown(cx)
    }
}

fn through_ssh(arguments: &[OsString], said: &Said) -> io::Result<Transport> {
    said.begin();
    let heard = said.clone();
    let (program, pipes) = speak::start(Path::new("ssh"), arguments)?;
    let program = Arc::new(program);
    let reader = Half { pipe: pipe::Receiver::from_owned_fd(pipes.output)?, _program: program.clone() };
    let writer = Half { pipe: pipe::Sender::from_owned_fd(pipes.input)?, _program: program };
    let mut errors = pipe::Receiver::from_owned_fd(pipes.errors)?;
    // What ssh complains of is the only place where a wrong key or host is explained. The task ends with the pipe.
    drop(tokio::spawn(async move {
        let mut said = [0; 1024];
        while let Ok(read @ 1..) = errors.read(&mut said).await {
            let words = String::from_utf8_lossy(&said[..read]).into_owned();
            tracing::warn!(said = %escape(&words), "ssh says");
            heard.hear(&words);
        }
        heard.end();
    }));
    Ok(Transport::pipes(reader, writer))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(uri: &str) -> Result<Endpoint> {
        Endpoint::parse(uri, Some(Path::new("/run/user/7")), &SshOptions::default())
    }

    #[test]
    fn uris_lead_somewhere() {
        let system = parse("qemu:///system").unwrap();
        assert_eq!((system.uri.as_str(), system.is_local(), system.session), ("qemu:///system", true, false));
        let Way::Sockets(places) = parse("qemu:///session").unwrap().way else { panic!("not a socket") };
        assert_eq!(places[0], Path::new("/run/user/7/libvirt/libvirt-sock"));
        assert_eq!(parse("qemu+unix:///system?socket=/a/b").unwrap().way, Way::Sockets(vec!["/a/b".into()]));
        assert_eq!(parse("test:///default").unwrap().uri, "test:///default");
        let far = parse("qemu+ssh://ada@far.example:2222/system?keyfile=/k").unwrap();
        assert!(!far.is_local());
        let expected = "ssh -T -e none -o BatchMode=yes -l ada -p 2222 -i /k -- far.example virt-ssh-helper qemu:///system";
        assert_eq!(far.describe(), expected);
        let gate = Gate { host: "far.example".into(), port: Some(2222), user: Some("ada".into()), identity: Some("/k".into()) };
        assert_eq!((far.gate, system.gate), (Some(gate), None));
    }

    #[test]
    fn hostile_uris_are_refused() {
        for bad in [
            "",
            "qemu",
            "qemu:///",
            "qemu:///other",
            "xen:///system",
            "qemu+tls://h/system",
            "qemu+ssh:///system",
            "qemu://host/system",
            "qemu+ssh://-oProxyCommand=x/system",
            "qemu+ssh://a b/system",
            "qemu+ssh://-l@h/system",
            "qemu+ssh://h;x/system",
            "qemu:///system?socket=rel",
            "qemu:///system?command=x",
            "qemu+ssh://h/system?socket=/a",
            "test:///../x",
            "test:///a b",
            "qemu:///system\n",
        ] {
            assert_eq!(parse(bad).unwrap_err().code(), Code::Usage, "{bad:?}");
        }
    }
}
