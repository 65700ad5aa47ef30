//! A window that shows a machine's screen: remote-viewer, and what it needs to see a screen on a private socket.
//!
//! For SPICE it opens such a socket itself. For VNC it knows hosts and ports only, so it is given a port of this computer that leads to the socket and takes
//! connections of this user alone, as long as the window is open.

use std::{
    ffi::{OsStr, OsString},
    net::Ipv4Addr,
    os::unix::ffi::OsStringExt as _,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::{
    net::{TcpListener, TcpStream, UnixStream},
    task::JoinSet,
};
use vmoon_core::{Code, Error, Result, ability::DisplayOffer};
use vmoon_sys::{
    peer,
    process::{Detached, Identity, reap},
};

/// The viewer, from virt-viewer.
pub(super) const VIEWER: &str = "remote-viewer";
/// How long one wait for its end lasts.
const WAIT: Duration = Duration::from_secs(3600);
/// How long what a viewer has said may take to arrive when it has ended.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Where the viewer is, if it is installed.
pub(super) fn find(path: Option<OsString>) -> Option<PathBuf> {
    std::env::split_paths(&path?).filter(|dir| dir.is_absolute()).map(|dir| dir.join(VIEWER)).find(|program| program.is_file())
}

/// The path of the socket, if it is one that the viewer cannot open.
pub(super) fn needs_a_way(offer: &DisplayOffer) -> Option<PathBuf> {
    let path = offer.uri.strip_prefix("vnc+unix://")?;
    Some(OsString::from_vec(vmoon_api::files::path_from_text(path)).into())
}

/// Starts the viewer, which outlives us; its pid.
///
/// # Errors
/// [`Code::WireMalformed`] for an address that is an option, and those of starting a program.
pub(super) fn start(program: &Path, uri: &str) -> Result<i32> {
    // The address is the driver's; an argument that looks like an option would be one.
    if uri.starts_with('-') {
        return Err(Error::new(Code::WireMalformed, "the display's address is none"));
    }
    let viewer = Detached { exe: program, args: vec![OsStr::new(uri)], env: Vec::new(), stdio: [None; 3] };
    viewer.spawn().map_err(|error| Error::io(format_args!("start {}", program.display()), error))
}

/// Shows the screen on this socket, until the viewer ends.
///
/// # Errors
/// Those of starting a program, and of a port of this computer.
pub(super) async fn show(program: &Path, socket: &Path) -> Result<()> {
    let port = |error| Error::io("listen at a port of this computer for the viewer", error);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(port)?;
    let pid = start(program, &format!("vnc://{}", listener.local_addr().map_err(port)?))?;
    let mut ended = tokio::task::spawn_blocking(move || {
        while let Some(viewer) = Identity::of(pid).filter(Identity::is_alive) {
            if viewer.wait_end(WAIT).is_err() {
                break;
            }
        }
        reap(pid)
    });
    let mut ways = JoinSet::new();
    loop {
        tokio::select! {
            _ = &mut ended => {
                // What it said last is still led on.
                let rest = async { while ways.join_next().await.is_some() {} };
                let _ = tokio::time::timeout(LAST_WORDS, rest).await;
                return Ok(());
            }
            accepted = listener.accept() => if let Ok((viewer, _)) = accepted {
                ways.spawn(lead(viewer, socket.to_owned()));
            },
            Some(_) = ways.join_next() => {}
        }
    }
}

/// Leads a connection of this user to the socket.
async fn lead(mut viewer: TcpStream, socket: PathBuf) {
    if let Err(error) = peer::check_tcp(&viewer) {
        tracing::warn!(error = %error.chain(), "a connection to the screen was refused");
        return;
    }
    match UnixStream::connect(&socket).await {
        // How it ends is seen in the window.
        Ok(mut screen) => drop(tokio::io::copy_bidirectional(&mut viewer, &mut screen).await),
        Err(error) => tracing::warn!(%error, socket = %socket.display(), "the screen cannot be seen"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        fs,
        os::unix::fs::{PermissionsExt as _, symlink},
    };
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    fn offer(uri: &str) -> DisplayOffer {
        DisplayOffer { protocol: "vnc".into(), uri: uri.into() }
    }

    /// A program that leaves a trace of its one argument stands in for the viewer.
    #[test]
    fn the_viewer_on_the_path_is_started_with_the_address() {
        let dir = tempfile::tempdir().unwrap();
        let (bin, seen) = (dir.path().join("bin"), dir.path().join("seen & <b>"));
        fs::create_dir(&bin).unwrap();
        let path = || std::env::join_paths([Path::new("relative"), &dir.path().join("none"), &bin]).ok();
        assert_eq!(find(path()), None);
        symlink("/usr/bin/touch", bin.join(VIEWER)).unwrap();
        let found = find(path()).expect("it is on the path");
        assert!(start(&found, "--reference=/etc/shadow").is_err(), "an option is no address");
        start(&found, &seen.display().to_string()).unwrap();
        let until = vmoon_sys::clock::instant() + Duration::from_secs(20);
        while !seen.exists() {
            assert!(vmoon_sys::clock::instant() < until, "it was not started");
            std::thread::yield_now();
        }
    }

    /// A program that says what it hears at the address, and answers, stands in for the viewer: VNC on a socket is nothing that one opens.
    #[tokio::test]
    async fn a_screen_on_a_socket_is_led_to_a_viewer_that_knows_ports_only() {
        let dir = tempfile::tempdir().unwrap();
        let (program, socket) = (dir.path().join(VIEWER), dir.path().join("a b%.sock"));
        let shown = offer(&format!("vnc+unix://{}/a%20b%25.sock", dir.path().display()));
        assert_eq!(needs_a_way(&shown), Some(socket.clone()));
        assert!(needs_a_way(&offer("spice+unix:///x")).is_none() && needs_a_way(&offer("vnc://127.0.0.1:5900")).is_none());
        let script = "#!/bin/bash\nexec 3<>/dev/tcp/127.0.0.1/${1##*:}\nread -r line <&3\necho \"$line heard\" >&3\n";
        fs::write(&program, script).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let screen = tokio::net::UnixListener::bind(&socket).unwrap();
        let said = async {
            let (mut viewer, _) = screen.accept().await.unwrap();
            viewer.write_all(b"RFB 003.008\n").await.unwrap();
            let mut said = String::new();
            viewer.read_to_string(&mut said).await.unwrap();
            said
        };
        let both = async { tokio::join!(said, show(&program, &socket)) };
        let (said, done) = tokio::time::timeout(Duration::from_secs(20), both).await.expect("it ends with the viewer");
        assert_eq!(said, "RFB 003.008 heard\n");
        done.unwrap();
    }
}
