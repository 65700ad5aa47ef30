//! The task that owns a session: its link, its transcript, its commands.
//!
//! It is the only reader of the link. What arrives is appended to the transcript first, then told to whoever waits, then
//! acknowledged. While the transcript cannot be written (a full disk), the link is not read, so the machine waits and nothing
//! is lost. What may happen to the session's state is decided by `core::session::step`.

use super::{
    commands::Commands,
    shared::{Live, Shared},
    transcript::{CAP, Writer},
};
use crate::{
    store::{About, SessionRow, Store},
    timer,
};
use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    future::Future,
    path::Path,
    pin::Pin,
    sync::Arc,
    time::Duration,
};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::Instant;
use vmoon_api::views::CommandView;
use vmoon_core::{
    Code, Error, Result,
    driver::{Driver, Exit, Handle, LinkReader, LinkWriter, SessionLink},
    event::EventKind,
    session::{Effect, Input, SessionState, step::step},
};

/// How many commands may wait for the session to be reachable.
pub(super) const INBOX: usize = 1_024;
/// How long an ended machine's last words are waited for.
pub(super) const LAST_WORDS: Duration = Duration::from_secs(20);
/// Questions and inputs are numbered from here, so that no number is a command's.
const FIRST_QUESTION: u64 = 1 << 63;

pub(super) type Answer<T> = oneshot::Sender<Result<T>>;

/// What can be asked of a session's task.
#[derive(Debug)]
pub(crate) enum Msg {
    /// Run a chunk.
    Eval {
        /// The chunk.
        code: Vec<u8>,
        /// Its arguments, a JSON array; empty for none.
        arguments: Vec<u8>,
        /// Whether its values are wanted as data.
        data: bool,
        /// The client's own name for it; may be empty.
        token: Vec<u8>,
        /// 0 for none.
        deadline_ms: u32,
        /// Told its number when the machine has accepted it.
        accepted: Answer<u64>,
        /// Told when it is done.
        done: Option<Answer<CommandView>>,
    },
    /// Tell when a command is done.
    Watch {
        /// Which.
        number: u64,
        /// Whom.
        done: Answer<CommandView>,
    },
    /// Tell what a command has said so far.
    Look {
        /// Which.
        number: u64,
        /// Whom.
        answer: Answer<CommandView>,
    },
    /// Feed `io.read`.
    Input {
        /// The bytes.
        data: Vec<u8>,
        /// Whether the input ends here.
        end: bool,
        /// Whom to tell that it was sent.
        answer: Option<Answer<()>>,
    },
    /// Interrupt a command, or whatever runs (0).
    Interrupt {
        /// Which.
        number: u64,
        /// Whom to tell that it was sent.
        answer: Option<Answer<()>>,
    },
    /// Ask a question that is answered directly.
    Ask {
        /// IS_COMPLETE or COMPLETE.
        tag: u8,
        /// The question.
        payload: Vec<u8>,
        /// Told the answer's tag and payload.
        answer: Answer<(u8, Vec<u8>)>,
    },
    /// Columns and rows of the terminal of whoever writes, each u16 LE.
    Resize([u8; 4]),
    /// Open the channel, if nobody tries that any more; answered when somebody does.
    Wake(Answer<()>),
    /// Something happened to the machine.
    Machine(Input),
    /// The session is dropped, with its transcript.
    Forget,
}

/// The error of everything that is asked of a session that is over.
pub(crate) fn gone() -> Error {
    Error::new(Code::SessionEnded, "the session is over")
        .hint("its transcript can still be read; a machine that was started or resumed has a new one soon: vmoon wait NAME --until session")
}

/// A command that was sent and that the stream has not told of yet.
pub(super) struct Waiting {
    /// EVAL or CALL.
    pub(super) tag: u8,
    pub(super) payload: Vec<u8>,
    pub(super) token: Vec<u8>,
    pub(super) accepted: Vec<Answer<u64>>,
}

/// What is answered directly: a question, or an input with the question behind it that shows it has arrived.
pub(super) enum Asked {
    Question(Answer<(u8, Vec<u8>)>),
    Input(Option<Answer<()>>),
}

/// The machine has ended; what the channel still holds is being read.
pub(super) struct LastWords {
    pub(super) exit: Exit,
    pub(super) until: Instant,
    /// Set when nothing is left to read and only the machine's own word on its end is waited for.
    pub(super) read: bool,
}

pub(super) struct Link {
    pub(super) reader: Box<dyn LinkReader>,
    pub(super) writer: Box<dyn LinkWriter>,
}

pub(super) type Opening = Pin<Box<dyn Future<Output = Result<SessionLink>> + Send>>;
pub(super) type Rebuilding = Pin<Box<dyn Future<Output = Result<Commands>> + Send>>;

/// A session's task.
pub(crate) struct Task {
    pub(super) shared: Arc<Shared>,
    pub(super) rx: mpsc::Receiver<Msg>,
    pub(super) driver: Arc<dyn Driver>,
    pub(super) handle: Handle,
    pub(super) store: Store,
    /// Told when the link ends or breaks: the machine should be looked at.
    pub(super) look: Arc<Notify>,
    pub(super) state: SessionState,
    pub(super) link: Option<Link>,
    pub(super) opening: Option<Opening>,
    pub(super) attempts: u32,
    /// Opening it has failed in a way that trying again would not help: the next who wants to use it makes it be tried.
    pub(super) parked: bool,
    pub(super) transcript: Writer,
    pub(super) acked: u64,
    pub(super) commands: Commands,
    /// The machine has accepted commands up to this number; ours come when the stream has told of them, which it has at this
    /// offset at the latest.
    pub(super) catch_up: (u64, u64),
    /// The transcript has segments that were not read, so commands and tokens may be in it that are not known.
    pub(super) older: bool,
    /// The whole transcript is being read for them; the link waits.
    pub(super) rebuilding: Option<Rebuilding>,
    pub(super) inbox: VecDeque<Msg>,
    pub(super) unaccepted: BTreeMap<u64, Waiting>,
    pub(super) waiting: HashMap<u64, Vec<Answer<CommandView>>>,
    pub(super) asks: HashMap<u64, Asked>,
    pub(super) next_ask: u64,
    /// Whether the link was reopened since the unaccepted commands were sent.
    pub(super) resend: bool,
    /// A batch that the transcript could not take yet.
    pub(super) stalled: Option<(u64, Vec<u8>)>,
    /// When to try again.
    pub(super) stall_retry: Instant,
    pub(super) ending: Option<LastWords>,
    /// When to see whether anybody still uses the link, where it may be closed.
    pub(super) rest_at: Option<Instant>,
    /// The size of the terminal, once somebody has said it: told anew to every link.
    pub(super) size: Option<[u8; 4]>,
}

impl Task {
    /// Opens the transcript and starts the task. `look` is told when the machine should be looked at.
    ///
    /// # Errors
    /// When the transcript cannot be opened.
    pub(crate) fn start(
        row: SessionRow,
        machine_name: String,
        dir: &Path,
        driver: Arc<dyn Driver>,
        handle: Handle,
        store: Store,
        look: Arc<Notify>,
    ) -> Result<Arc<Shared>> {
        let mut commands = Commands::new(row.id, &machine_name);
        let transcript = Writer::open(dir, CAP, |at, frame| {
            commands.take(at, frame);
        })?;
        let older = transcript.has_older();
        let (tx, rx) = mpsc::channel(INBOX);
        let written = transcript.end();
        let state = row.state.clone();
        let live = Live {
            state: state.clone(),
            written,
            busy: None,
            queued: 0,
            waiting_input: false,
            resting: false,
            stalled: None,
            trouble: None,
        };
        let shared = Shared::new(row, machine_name, live, transcript.reader(0), tx);
        shared.activity.accepted(commands.last());
        if matches!(state, SessionState::Ended { .. }) {
            return Ok(shared);
        }
        let mut task = Self {
            shared: shared.clone(),
            rx,
            driver,
            handle,
            store,
            look,
            state: SessionState::Opening,
            link: None,
            opening: None,
            attempts: 0,
            parked: false,
            transcript,
            acked: written,
            commands,
            catch_up: (0, 0),
            older,
            rebuilding: None,
            inbox: VecDeque::new(),
            unaccepted: BTreeMap::new(),
            waiting: HashMap::new(),
            asks: HashMap::new(),
            next_ask: FIRST_QUESTION + (vmoon_sys::clock::now_ms() << 16),
            resend: false,
            stalled: None,
            stall_retry: Instant::now(),
            ending: None,
            rest_at: None,
            size: None,
        };
        if state != SessionState::Held {
            task.open();
        } else {
            task.state = SessionState::Held;
        }
        drop(tokio::spawn(Box::new(task).run()));
        Ok(shared)
    }

    /// What comes seldom has its state in a box of its own: most of ten thousand sessions only wait.
    async fn run(mut self: Box<Self>) {
        let mut buf = Vec::new();
        while !matches!(self.state, SessionState::Ended { .. }) {
            let idle = self.stalled.is_none() && self.rebuilding.is_none();
            let link = self.link.as_mut().filter(|_| idle);
            let retry = self.stalled.is_some().then_some(self.stall_retry);
            let silence = self.ending.as_ref().filter(|_| self.stalled.is_none()).map(|ending| ending.until);
            tokio::select! {
                item = async { match link { Some(link) => link.reader.next(&mut buf).await, None => std::future::pending().await } } => {
                    self.item(item, &mut buf).await;
                }
                msg = self.rx.recv() => match msg {
                    Some(Msg::Forget) | None => break,
                    Some(msg) => self.message(msg).await,
                },
                opened = async { match &mut self.opening { Some(opening) => opening.await, None => std::future::pending().await } } => {
                    self.opening = None;
                    Box::pin(self.opened(opened)).await;
                }
                rebuilt = async { match &mut self.rebuilding { Some(work) => work.await, None => std::future::pending().await } } => {
                    self.rebuilding = None;
                    Box::pin(self.rebuilt(rebuilt)).await;
                }
                () = timer::until(retry) => {
                    if let Some((at, mut frames)) = self.stalled.take() {
                        Box::pin(self.stream(at, &mut frames)).await;
                    }
                }
                () = timer::until(silence) => Box::pin(self.finish()).await,
                () = timer::until(self.rest_at) => Box::pin(self.rest()).await,
            }
        }
        self.farewell();
    }

    /// Everybody who still waits learns that the session is over.
    pub(super) fn farewell(&mut self) {
        self.rx.close();
        if !matches!(self.state, SessionState::Ended { .. }) {
            self.shared.live.send_modify(|live| live.state = SessionState::Ended { exit: Exit::Lost });
        }
        while let Ok(msg) = self.rx.try_recv() {
            self.refuse(msg, gone());
        }
        for msg in std::mem::take(&mut self.inbox) {
            self.refuse(msg, gone());
        }
        for (_, waiting) in std::mem::take(&mut self.unaccepted) {
            for accepted in waiting.accepted {
                let _ = accepted.send(Err(Error::new(Code::CommandLost, "the machine ended before it accepted the command")));
            }
        }
        let exit = if let SessionState::Ended { exit } = &self.state { exit.clone() } else { Exit::Lost };
        for view in self.commands.lost(&exit) {
            self.tell(view.id.number, &view);
        }
        for (_, waiters) in std::mem::take(&mut self.waiting) {
            for waiter in waiters {
                let _ = waiter.send(Err(Error::new(Code::CommandLost, "the machine ended before the command was answered")));
            }
        }
    }

    pub(super) fn refuse(&self, msg: Msg, why: Error) {
        match msg {
            Msg::Eval { accepted, .. } => drop(accepted.send(Err(why))),
            Msg::Watch { number, done: answer } | Msg::Look { number, answer } => self.answer_later(number, answer),
            Msg::Input { answer: Some(answer), .. } | Msg::Interrupt { answer: Some(answer), .. } => drop(answer.send(Err(why))),
            Msg::Ask { answer, .. } => drop(answer.send(Err(why))),
            Msg::Wake(answer) => drop(answer.send(Err(why))),
            Msg::Input { .. } | Msg::Interrupt { .. } | Msg::Resize(_) | Msg::Machine(_) | Msg::Forget => {}
        }
    }

    // ---- the state ----

    pub(super) async fn input(&mut self, input: Input) {
        let before = self.state.clone();
        let next = step(before.clone(), input);
        self.state = next.state;
        for effect in next.effects {
            match effect {
                Effect::OpenLink => self.open(),
                Effect::CloseLink => (self.link, self.opening) = (None, None),
                // Done before the policy was asked; see `Msg::Machine`.
                Effect::Drain => {}
                Effect::FailWaiting(_) => {}
                Effect::Announce => self.announce(before == SessionState::Held).await,
            }
        }
        if self.state != SessionState::Live {
            self.awake();
        }
        if self.link.is_none() {
            self.resend = true;
            for (_, asked) in std::mem::take(&mut self.asks) {
                match asked {
                    Asked::Question(answer) => drop(answer.send(Err(self.not_live()))),
                    Asked::Input(answer) => drop(answer.map(|answer| answer.send(Err(self.not_live())))),
                }
            }
        }
        if self.state == SessionState::Held {
            for msg in std::mem::take(&mut self.inbox) {
                self.refuse(msg, self.not_live());
            }
        }
    }

    pub(super) async fn announce(&mut self, was_held: bool) {
        let about = About { machine: Some(self.shared.row.machine), session: Some(self.shared.row.id), ..About::default() };
        let row = SessionRow { state: self.state.clone(), ..self.shared.row.clone() };
        let ended = matches!(self.state, SessionState::Ended { .. });
        let (kind, text) = if ended { (EventKind::SessionEnded, "ended") } else { (EventKind::SessionChanged, "changed") };
        if ended || was_held || self.state == SessionState::Held {
            let stored = self
                .store
                .run(move |tx| {
                    tx.update_session(&row)?;
                    tx.event(kind, about, format!("session {} {text}", row.name))
                })
                .await;
            if let Err(error) = stored {
                // The state can be seen again from the machine after a restart.
                tracing::warn!(session = %self.shared.row.id, error = %error.chain(), "a session's state could not be stored");
            }
        } else {
            // Opening or live is found out anew by every daemon.
            self.store.announce(kind, about, format!("session {} {text}", row.name));
        }
        let (state, busy) = (self.state.clone(), self.commands.busy());
        self.shared.live.send_modify(|live| {
            live.state = state;
            (live.busy, live.waiting_input) = if ended { (None, false) } else { busy.map_or((None, false), |(n, w)| (Some(n), w)) };
            live.queued = if ended { 0 } else { live.queued };
        });
    }
}
