//! What a machine has when it is ready: a session that is open, somebody who greets as an SSH server.

use crate::{machine::Machine, session::Shared};
use std::{io::ErrorKind, sync::Arc, time::Duration};
use tokio::{io::AsyncReadExt as _, net::TcpStream};
use vmoon_api::views::ReadyView;
use vmoon_core::{Result, codes::Retry, session::SessionState, target::MAIN};

/// How long a host may take to greet.
const GREETING: Duration = Duration::from_secs(3);

/// The session of a channel, or of the one that is meant where none is named: `main`, else the first.
fn session_of(machine: &Machine, channel: Option<&str>) -> (Option<String>, Option<Arc<Shared>>) {
    let channels = machine.channels();
    let meant = || channels.iter().find(|channel| channel.name == MAIN).or(channels.first()).map(|channel| channel.name.clone());
    let Some(name) = channel.map(str::to_owned).or_else(meant) else { return (None, None) };
    // One of an earlier life may still wait for its last words: it says nothing of this one.
    let lives = |session: &Arc<Shared>| session.row.name == name && !session.ended() && !machine.outlives(session);
    let open = machine.sessions().into_iter().rev().find(lives);
    (Some(name), open)
}

/// Somebody waits for a session: one that was given up is tried again.
pub(super) async fn wake(machine: &Machine, channel: Option<&str>) {
    if let (_, Some(session)) = session_of(machine, channel) {
        session.wake().await;
    }
}

/// Whether the session is open, or what is missing; opens it if nobody has.
///
/// # Errors
/// `session.channel` if the machine has no such channel, and why it cannot be opened if waiting would not help.
pub(super) async fn session(machine: &Machine, channel: Option<&str>) -> Result<ReadyView> {
    let not = |missing: String| Ok(ReadyView { ready: false, address: None, missing });
    let session = match session_of(machine, channel) {
        (_, Some(session)) => session,
        (Some(name), None) if channel.is_some() || !machine.channels().is_empty() => {
            machine.open(&name).await?;
            return not("its session is being opened".into());
        }
        _ => return not("it offers no channel yet".into()),
    };
    let live = session.live.borrow().clone();
    match (live.state, live.trouble) {
        (SessionState::Live, _) => Ok(ReadyView { ready: true, address: None, missing: String::new() }),
        (_, Some(trouble)) if trouble.code.retry() == Retry::Never => Err(trouble.into()),
        (_, Some(trouble)) => not(trouble.message),
        (SessionState::Held, None) => not("it cannot be reached now".into()),
        (_, None) => not("its session is being opened".into()),
    }
}

/// Why nobody greets as an SSH server at any of these places; `None` if somebody does.
pub(super) async fn greets(places: &[(String, u16)]) -> Option<String> {
    let mut why = Vec::new();
    for (host, port) in places.iter().take(4) {
        let greeting = async {
            let mut stream = TcpStream::connect((host.as_str(), *port)).await.map_err(|error| error.to_string())?;
            let mut bytes = [0; 4];
            stream.read_exact(&mut bytes).await.map_err(|error| match error.kind() {
                ErrorKind::UnexpectedEof => "it hangs up without a greeting; is an SSH server behind it?".to_owned(),
                _ => error.to_string(),
            })?;
            if &bytes == b"SSH-" { Ok(()) } else { Err("what answers is no SSH server".to_owned()) }
        };
        match tokio::time::timeout(GREETING, greeting).await.unwrap_or_else(|_| Err("nothing answers".to_owned())) {
            Ok(()) => return None,
            Err(error) => why.push(format!("{host} port {port}: {error}")),
        }
    }
    Some(if why.is_empty() { "nobody has said where its SSH server is".to_owned() } else { why.join("; ") })
}
