//! Commands, as the API asks for them.

use super::{Service, patience};
use crate::{
    awake,
    session::{Shared, task::Msg, task::gone},
};
use std::{sync::Arc, time::Duration};
use tokio::{sync::oneshot, time::Instant};
use vmoon_api::{
    Data,
    requests::{AskCode, CommandRef, Eval, Input, Interrupt},
    views::{CommandState, CommandView, CompletenessView, NamesView, Nothing},
};
use vmoon_core::{
    Code, CommandId, Error, Result,
    driver::ChannelKind,
    frame::{MAX_PAYLOAD, tag},
    name::escape,
};

/// How long a machine that cannot be reached is waited for by a command without a deadline of its own.
const AWAY: Duration = Duration::from_secs(10);
/// How long a question about code may take before the machine counts as busy.
const QUESTION: Duration = Duration::from_secs(2);

/// How many arguments a chunk takes: Lua 5.1 keeps no more than that on its stack for sure.
const MOST_ARGUMENTS: usize = 250;

/// Waits for an answer of a session's task.
async fn answered<T>(answer: oneshot::Receiver<Result<T>>) -> Result<T> {
    answer.await.map_err(|_| gone())?
}

fn check_size(len: usize, what: &str) -> Result<()> {
    // Room for the token and the fields before the code.
    if len <= MAX_PAYLOAD - 512 {
        return Ok(());
    }
    Err(Error::new(Code::CommandTooLarge, format!("{what} has {len} bytes; at most 16 MiB can be sent at once"))
        .hint("put it into a file that the machine can read, or send it in parts"))
}

/// The arguments of a chunk as they go to the machine; empty for none.
fn arguments(args: Option<&[serde_json::Value]>) -> Result<Vec<u8>> {
    let Some(args) = args else { return Ok(Vec::new()) };
    if args.len() > MOST_ARGUMENTS {
        return Err(Error::new(Code::Usage, format!("{} arguments; a chunk takes at most {MOST_ARGUMENTS}", args.len()))
            .hint("put them into one array"));
    }
    serde_json::to_vec(args).map_err(|error| Error::internal("the arguments cannot be written").source(error))
}

/// A chunk that was looked at: any session may get it.
#[derive(Clone)]
pub(super) struct Chunk {
    code: Vec<u8>,
    arguments: Vec<u8>,
    data: bool,
    token: Vec<u8>,
    deadline_ms: u32,
}

impl Chunk {
    /// # Errors
    /// When it is too large, or its token too long.
    pub(super) fn new(
        code: Data,
        args: Option<&[serde_json::Value]>,
        data: bool,
        token: Option<String>,
        deadline: Option<u32>,
    ) -> Result<Self> {
        let arguments = arguments(args)?;
        check_size(code.0.len() + arguments.len(), if arguments.is_empty() { "the code" } else { "the code with its arguments" })?;
        let token = token.unwrap_or_default().into_bytes();
        if token.len() > 255 {
            return Err(Error::new(Code::WireMalformed, format!("a token has at most 255 bytes, not {}", token.len())));
        }
        Ok(Self { code: code.0, arguments, data, token, deadline_ms: deadline.unwrap_or(0) })
    }

    /// Hands it to a session.
    ///
    /// # Errors
    /// [`Code::SessionEnded`], [`Code::SessionQueueFull`].
    pub(super) fn send(self, shared: Arc<Shared>) -> Result<Sent> {
        let (accepted, number) = oneshot::channel();
        let (done, view) = oneshot::channel();
        let Self { code, arguments, data, token, deadline_ms } = self;
        shared.tell(Msg::Eval { code, arguments, data, token, deadline_ms, accepted, done: Some(done) })?;
        awake::stay();
        Ok(Sent { shared, number, view })
    }
}

/// A command that a session was told of.
pub(super) struct Sent {
    shared: Arc<Shared>,
    number: oneshot::Receiver<Result<u64>>,
    view: oneshot::Receiver<Result<CommandView>>,
}

/// How long the answer of a command is waited for; then what it has said so far is the answer.
#[derive(Clone, Copy)]
pub(super) enum Wait {
    /// Until it is there.
    Done,
    /// So long after the machine has accepted the command.
    For(Duration),
    /// Until then.
    Until(Instant),
}

impl Service {
    pub(super) async fn evaluate(&self, request: Eval) -> Result<CommandView> {
        let chunk = Chunk::new(request.code, request.args.as_deref(), request.data, request.token, request.deadline_ms)?;
        let deadline = request.deadline_ms.map_or(AWAY, |ms| Duration::from_millis(ms.into()));
        let shared = self.repl_within(&request.session, deadline).await?;
        self.answer(chunk.send(shared)?, request.wait_ms.map_or(Wait::Done, |ms| Wait::For(Duration::from_millis(ms)))).await
    }

    /// The answer of a command.
    pub(super) async fn answer(&self, sent: Sent, wait: Wait) -> Result<CommandView> {
        let Sent { shared, mut number, mut view } = sent;
        // A refusal arrives by the first channel, and then nothing by the second.
        let number = tokio::select! {
            biased;
            view = &mut view => {
                // Whoever has its answer may well ask again.
                awake::stay();
                return match number.try_recv() { Ok(Err(refused)) => Err(refused), _ => view.unwrap_or_else(|_| Err(gone())) };
            }
            number = &mut number => number.map_err(|_| gone())??,
        };
        let end = answered(view);
        let until = match wait {
            Wait::Done => return end.await,
            Wait::For(limit) => Instant::now() + limit,
            Wait::Until(until) => until,
        };
        match tokio::time::timeout_at(until, end).await {
            Ok(view) => view,
            Err(_) => self.look(&shared, number).await,
        }
    }

    /// What a command has said so far.
    async fn look(&self, shared: &Arc<Shared>, number: u64) -> Result<CommandView> {
        let (answer, view) = oneshot::channel();
        match shared.tell(Msg::Look { number, answer }) {
            Ok(()) => answered(view).await,
            Err(_) => crate::session::collect(shared.clone(), number, None).await,
        }
    }

    fn command_id(&self, text: &str) -> Result<(Arc<Shared>, CommandId)> {
        let id: CommandId = text.parse().map_err(|what: &str| {
            Error::new(Code::CommandNotFound, format!("\"{}\" is no command: {what}", escape(text)))
                .hint("`vmoon eval --no-wait` prints one")
        })?;
        Ok((self.session(&id.session.to_string())?, id))
    }

    pub(super) async fn command(&self, request: CommandRef) -> Result<CommandView> {
        let (shared, id) = self.command_id(&request.command)?;
        let view = self.look(&shared, id.number).await?;
        let wait = patience(request.wait_ms, 0);
        if view.state != CommandState::Running || wait.is_zero() {
            return Ok(view);
        }
        let (done, end) = oneshot::channel();
        if shared.tell(Msg::Watch { number: id.number, done }).is_err() {
            return self.look(&shared, id.number).await;
        }
        match tokio::time::timeout(wait, answered(end)).await {
            Ok(Ok(view)) => Ok(view),
            Ok(Err(_)) | Err(_) => self.look(&shared, id.number).await,
        }
    }

    pub(super) async fn interrupt_one(&self, request: CommandRef) -> Result<CommandView> {
        let (shared, id) = self.command_id(&request.command)?;
        let view = self.look(&shared, id.number).await?;
        if view.state != CommandState::Running {
            return Err(Error::new(Code::OperationEnded, format!("command {id} is over")));
        }
        let (answer, sent) = oneshot::channel();
        shared.tell(Msg::Interrupt { number: id.number, answer: Some(answer) })?;
        answered(sent).await?;
        self.look(&shared, id.number).await
    }

    pub(super) async fn interrupt_running(&self, request: Interrupt) -> Result<Nothing> {
        let shared = self.repl(&request.session).await?;
        let (answer, sent) = oneshot::channel();
        shared.tell(Msg::Interrupt { number: request.command.unwrap_or(0), answer: Some(answer) })?;
        answered(sent).await?;
        Ok(Nothing {})
    }

    pub(super) async fn feed(&self, request: Input) -> Result<Nothing> {
        check_size(request.data.0.len(), "the input")?;
        let shared = self.listening(&request.session).await?;
        shared.pen_is_free()?;
        if shared.row.channel.kind == ChannelKind::Repl && shared.live.borrow().busy.is_none() {
            return Err(Error::new(
                Code::SessionNotWaiting,
                format!("no command of {}/{} waits for input", shared.machine_name, shared.row.name),
            )
            .hint("input answers io.read of a running command; to run code use `vmoon eval`"));
        }
        let (answer, sent) = oneshot::channel();
        shared.tell(Msg::Input { data: request.data.0, end: request.end, answer: Some(answer) })?;
        answered(sent).await?;
        Ok(Nothing {})
    }

    async fn ask(&self, request: AskCode, tag: u8) -> Result<Option<(u8, Vec<u8>)>> {
        check_size(request.code.0.len(), "the code")?;
        let shared = self.repl(&request.session).await?;
        let (answer, reply) = oneshot::channel();
        shared.tell(Msg::Ask { tag, payload: request.code.0, answer })?;
        tokio::time::timeout(QUESTION, answered(reply)).await.ok().transpose()
    }

    pub(super) async fn names(&self, request: AskCode) -> Result<NamesView> {
        match self.ask(request, tag::COMPLETE).await? {
            Some((tag::NAMES, json)) => serde_json::from_slice(&json)
                .map_err(|e| Error::new(Code::WireMalformed, "the machine's answer cannot be understood").source(e)),
            _ => Ok(NamesView { busy: true, ..NamesView::default() }),
        }
    }

    pub(super) async fn completeness(&self, request: AskCode) -> Result<CompletenessView> {
        let reply = self.ask(request, tag::IS_COMPLETE).await?;
        let (verdict, message) = match reply.as_ref().and_then(|(_, payload)| payload.split_first()) {
            Some((b'c', message)) => ("complete", message),
            Some((b'i', message)) => ("incomplete", message),
            Some((b'x', message)) => ("invalid", message),
            _ => ("busy", &[][..]),
        };
        Ok(CompletenessView { verdict: verdict.into(), message: message.into() })
    }
}
