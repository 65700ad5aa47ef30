//! Running a program on a host: its output, its end, within a time and a size.

use crate::{
    Connection,
    connect::{ANSWER, Session},
    quote,
};
use russh::{ChannelMsg, Sig};
use std::time::Duration;
use tokio::time::{Instant, timeout, timeout_at};
use vmoon_core::{
    Code, Error, Result,
    ability::{Ended, Program},
};

/// How much of each output is kept, bytes.
pub const OUTPUT: usize = 16 << 20;

impl Connection {
    /// Runs a program and waits for its end. No shell is between but the user's login shell, which SSH always uses; see
    /// [`quote`].
    ///
    /// # Errors
    /// [`Code::OperationDeadline`] when it took too long: it was asked to end and may still run.
    /// [`Code::DriverUnreachable`] when the connection was lost: how it ended is not known.
    pub async fn exec(&self, program: &Program) -> Result<Ended> {
        let line = quote::line(&program.argv);
        if line.is_empty() || line.contains('\0') {
            return Err(Error::new(Code::Usage, "a program needs a name, and no argument may hold a NUL byte"));
        }
        self.run(&line, &program.stdin, Duration::from_millis(program.deadline_ms)).await
    }

    /// The same for a line that is quoted already.
    pub(crate) async fn run(&self, line: &str, stdin: &[u8], deadline: Duration) -> Result<Ended> {
        let until = Instant::now().checked_add(deadline).unwrap_or_else(|| Instant::now() + Duration::from_secs(86_400 * 365));
        for next in 2.. {
            match self.attempt(line, stdin, deadline, until).await? {
                Some(ended) => return Ok(ended),
                None if self.is_worth(next) => {}
                None => break,
            }
        }
        Err(Error::new(Code::DriverUnreachable, format!("{} closes what is to run a program before it has begun", self.name())))
    }

    /// One attempt; nothing if the server closed its channel before it said that the program has begun.
    async fn attempt(&self, line: &str, stdin: &[u8], deadline: Duration, until: Instant) -> Result<Option<Ended>> {
        let late = |_| {
            Error::new(Code::OperationDeadline, format!("the program on {} did not end within {} ms", self.name(), deadline.as_millis()))
        };
        let session = timeout_at(until, self.session()).await.map_err(late)??;
        let (mut reader, writer) = session.channel.split();
        let lost = || self.lost().hint("whether the program ran to its end is not known");
        writer.exec(true, line).await.map_err(|error| lost().source(error))?;
        let feed = async {
            // A program that does not read its input ends all the same: then this future is dropped.
            if writer.data(stdin).await.is_ok() {
                let _ = writer.eof().await;
            }
            std::future::pending::<()>().await
        };
        let mut ended = Ended { code: None, signal: None, stdout: Vec::new(), stderr: Vec::new(), truncated: false };
        let (mut begun, mut finished) = (false, false);
        let listen = async {
            while let Some(msg) = reader.wait().await {
                begun |= !matches!(msg, ChannelMsg::Eof | ChannelMsg::Close | ChannelMsg::WindowAdjusted { .. });
                match msg {
                    ChannelMsg::Data { data } => keep(&mut ended.stdout, &data, &mut ended.truncated),
                    ChannelMsg::ExtendedData { data, ext: 1 } => keep(&mut ended.stderr, &data, &mut ended.truncated),
                    ChannelMsg::ExitStatus { exit_status } => (ended.code, finished) = (Some(exit_status as i32), true),
                    ChannelMsg::ExitSignal { signal_name, .. } => (ended.signal, finished) = (Some(number(&signal_name)), true),
                    ChannelMsg::Failure => {
                        return Err(Error::new(Code::DriverFailed, format!("{} refuses to run programs", self.name()))
                            .hint("the account may be limited to one command or to file transfer"));
                    }
                    _ => {}
                }
            }
            Ok(())
        };
        let outcome = tokio::select! {
            outcome = timeout_at(until, listen) => outcome,
            () = feed => return Err(Error::internal("a pending future has ended")),
        };
        match outcome {
            Ok(Ok(())) if finished => Ok(Some(ended)),
            Ok(Ok(())) if !begun && !self.is_closed() => Ok(None),
            Ok(Ok(())) => Err(lost()),
            Ok(Err(error)) => Err(error),
            Err(elapsed) => {
                let goodbye = async {
                    let _ = writer.signal(Sig::TERM).await;
                    let _ = writer.close().await;
                };
                let _ = timeout(ANSWER, goodbye).await;
                Err(late(elapsed).hint("it was asked to end; give it more time with --timeout"))
            }
        }
    }
}

/// A program on the host that gives back what it is given: what a round trip costs at least.
pub struct Echo {
    session: Session,
    connection: Connection,
}

impl Connection {
    /// Starts one.
    ///
    /// # Errors
    /// As [`Connection::exec`].
    pub async fn echo(&self) -> Result<Echo> {
        let session = self.session().await?;
        session.channel.exec(true, "exec cat").await.map_err(|error| self.lost().source(error))?;
        Ok(Echo { session, connection: self.clone() })
    }
}

impl Echo {
    /// Sends a byte and waits for it.
    ///
    /// # Errors
    /// [`Code::DriverUnreachable`] when it does not come within some seconds.
    pub async fn ping(&mut self) -> Result<()> {
        let lost = || self.connection.lost();
        self.session.channel.data_bytes(&b"."[..]).await.map_err(|error| lost().source(error))?;
        let answer = async {
            while let Some(msg) = self.session.channel.wait().await {
                if matches!(msg, ChannelMsg::Data { .. }) {
                    return true;
                }
            }
            false
        };
        match timeout(ANSWER, answer).await {
            Ok(true) => Ok(()),
            Ok(false) | Err(_) => Err(self.connection.lost()),
        }
    }
}

fn keep(kept: &mut Vec<u8>, more: &[u8], truncated: &mut bool) {
    let room = OUTPUT - kept.len();
    *truncated |= more.len() > room;
    kept.extend_from_slice(&more[..more.len().min(room)]);
}

/// The number a signal has on Linux; 0 for one that we have no number for.
pub(crate) fn number(signal: &Sig) -> i32 {
    match signal {
        Sig::HUP => 1,
        Sig::INT => 2,
        Sig::QUIT => 3,
        Sig::ILL => 4,
        Sig::ABRT => 6,
        Sig::FPE => 8,
        Sig::KILL => 9,
        Sig::USR1 => 10,
        Sig::SEGV => 11,
        Sig::PIPE => 13,
        Sig::ALRM => 14,
        Sig::TERM => 15,
        Sig::Custom(name) => match name.as_str() {
            "TRAP" => 5,
            "BUS" => 7,
            "USR2" => 12,
            "XCPU" => 24,
            "XFSZ" => 25,
            "SYS" => 31,
            _ => 0,
        },
    }
}
