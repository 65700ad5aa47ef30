//! What is asked of a session: commands, input, interrupts, questions.

use super::task::{Answer, Asked, INBOX, LAST_WORDS, LastWords, Msg, Task, Waiting, gone};
use tokio::time::Instant;
use vmoon_api::views::CommandView;
use vmoon_core::{
    Code, Error,
    driver::ChannelKind,
    frame::{Call, Eval, Frame, tag},
    session::{Input, SessionState},
};

/// How much may wait for the session to be reachable, bytes.
const INBOX_BYTES: usize = 64 << 20;
/// How many keys go to a terminal in one frame, bytes.
const KEYS: usize = 64 << 10;

impl Task {
    pub(super) async fn message(&mut self, msg: Msg) {
        match msg {
            msg @ (Msg::Eval { .. } | Msg::Input { .. } | Msg::Interrupt { .. } | Msg::Ask { .. }) => {
                let can = if matches!(msg, Msg::Eval { .. }) { self.ready() && self.inbox.is_empty() } else { self.link.is_some() };
                if can {
                    self.forward(msg).await;
                } else if self.state == SessionState::Held {
                    self.refuse(msg, self.not_live());
                } else if self.ending.is_some() {
                    self.refuse(msg, gone());
                } else if self.inbox.len() >= INBOX || self.inbox.iter().map(size).sum::<usize>() + size(&msg) > INBOX_BYTES {
                    self.refuse(msg, Error::new(Code::SessionQueueFull, "too many requests wait for the session"));
                } else {
                    self.inbox.push_back(msg);
                    self.wanted().await;
                }
            }
            Msg::Wake(answer) => {
                self.wanted().await;
                let _ = answer.send(Ok(()));
            }
            Msg::Resize(size) => {
                self.size = Some(size);
                self.send(Frame { tag: tag::RESIZE, id: 0, payload: &size }).await;
            }
            Msg::Watch { number, done } => self.watch(number, done),
            Msg::Look { number, answer } => match self.commands.running(number) {
                Some(view) if view.from != 0 || number == 1 => drop(answer.send(Ok(view))),
                _ => self.answer_later(number, answer),
            },
            Msg::Machine(Input::MachineEnded(exit)) => match &mut self.ending {
                Some(ending) if ending.read => {
                    ending.exit = exit;
                    self.finish().await;
                }
                Some(_) => {}
                None => {
                    // The policy's Drain: its last words are read through the ordinary loop before it ends.
                    self.ending = Some(LastWords { exit, until: Instant::now() + LAST_WORDS, read: false });
                    if self.link.is_none() {
                        self.attempts = 0;
                        self.open();
                    }
                }
            },
            Msg::Machine(input) => self.input(input).await,
            Msg::Forget => {}
        }
    }

    /// Sends what the link is open for.
    pub(super) async fn forward(&mut self, msg: Msg) {
        match msg {
            eval @ Msg::Eval { .. } => self.eval(eval).await,
            Msg::Input { data, end, answer } if self.shared.row.channel.kind == ChannelKind::Terminal => {
                // Keys belong to no command, and nothing answers them but what the terminal shows.
                let mut sent = true;
                // No key at all begins a shell that has not begun.
                let none: &[u8] = &[];
                let nothing = (data.is_empty() && !end).then_some(none);
                for piece in nothing.into_iter().chain(data.chunks(KEYS)) {
                    sent = sent && self.send(Frame { tag: tag::INPUT, id: 0, payload: piece }).await;
                }
                if end {
                    sent = sent && self.send(Frame { tag: tag::INPUT_END, id: 0, payload: &[] }).await;
                }
                self.shared.activity.used();
                if let Some(answer) = answer {
                    let _ = answer.send(if sent { Ok(()) } else { Err(self.not_live()) });
                }
            }
            Msg::Input { data, end, answer } => {
                // The question behind it is answered after the machine has taken the input, or has refused it.
                let id = self.question();
                let mut sent = data.is_empty() || self.send(Frame { tag: tag::INPUT, id, payload: &data }).await;
                if end {
                    sent = sent && self.send(Frame { tag: tag::INPUT_END, id, payload: &[] }).await;
                }
                if sent && self.send(Frame { tag: tag::IS_COMPLETE, id, payload: &[] }).await {
                    self.asks.insert(id, Asked::Input(answer));
                } else if let Some(answer) = answer {
                    let _ = answer.send(Err(self.not_live()));
                }
            }
            Msg::Interrupt { number, answer } => {
                let sent = self.send(Frame { tag: tag::INTERRUPT, id: number, payload: &[] }).await;
                if let Some(answer) = answer {
                    let _ = answer.send(if sent { Ok(()) } else { Err(self.not_live()) });
                }
            }
            Msg::Ask { tag, payload, answer } => {
                let id = self.question();
                if self.send(Frame { tag, id, payload: &payload }).await {
                    self.asks.insert(id, Asked::Question(answer));
                } else {
                    let _ = answer.send(Err(self.not_live()));
                }
            }
            Msg::Watch { .. } | Msg::Look { .. } | Msg::Resize(_) | Msg::Wake(_) | Msg::Machine(_) | Msg::Forget => {}
        }
    }

    /// Somebody wants to use it: if opening it was given up, it is tried again, and why it had failed is forgotten.
    pub(super) fn unpark(&mut self) {
        if self.parked && self.state == SessionState::Opening {
            self.attempts = 0;
            self.shared.live.send_modify(|live| live.trouble = None);
            self.open();
        }
    }

    pub(super) fn watch(&mut self, number: u64, done: Answer<CommandView>) {
        if self.commands.running(number).is_some() || self.unaccepted.contains_key(&number) {
            self.waiting.entry(number).or_default().push(done);
        } else {
            self.answer_later(number, done);
        }
    }

    pub(super) fn question(&mut self) -> u64 {
        self.next_ask += 1;
        self.next_ask
    }

    pub(super) fn not_live(&self) -> Error {
        Error::new(Code::SessionHeld, format!("{} cannot be reached now; the session is kept", self.shared.machine_name))
            .hint("try again when the machine can be reached")
    }

    /// Whether new commands can be sent: the link is open and the stream has told of every command the machine has.
    pub(super) fn ready(&self) -> bool {
        let (last, end) = self.catch_up;
        self.link.is_some() && self.rebuilding.is_none() && (self.commands.last() >= last || self.transcript.end() >= end)
    }

    pub(super) async fn caught_up(&mut self) {
        if !self.ready() {
            return;
        }
        // The stream has told of every command up to that number: one of ours that it has not told of will never be answered.
        let fresh = self.unaccepted.split_off(&(self.catch_up.0 + 1));
        if self.resend {
            for (number, waiting) in std::mem::replace(&mut self.unaccepted, fresh) {
                self.waiting.remove(&number);
                for accepted in waiting.accepted {
                    let _ = accepted.send(Err(Error::new(Code::CommandLost, "the command was lost with the link to the machine")));
                }
            }
        } else {
            self.unaccepted.extend(fresh);
        }
        if std::mem::take(&mut self.resend) {
            // What the machine has not accepted, it never got: it obeys everything an old link still holds before it answers
            // a new one. So it is sent again, once.
            let again: Vec<(u64, u8, Vec<u8>)> =
                self.unaccepted.iter().map(|(number, waiting)| (*number, waiting.tag, waiting.payload.clone())).collect();
            for (number, tag, payload) in again {
                if !self.send(Frame { tag, id: number, payload: &payload }).await {
                    return;
                }
            }
        }
        while self.ready()
            && let Some(msg) = self.inbox.pop_front()
        {
            self.forward(msg).await;
        }
    }

    pub(super) async fn eval(&mut self, msg: Msg) {
        let Msg::Eval { code, arguments, data, token, deadline_ms, accepted, done } = msg else { return };
        if !token.is_empty() {
            if let Some((number, waiting)) = self.unaccepted.iter_mut().find(|(_, waiting)| waiting.token == token) {
                waiting.accepted.push(accepted);
                let number = *number;
                self.waiting.entry(number).or_default().extend(done);
                return;
            }
            if let Some(number) = self.commands.by_token(&token) {
                let _ = accepted.send(Ok(number));
                if let Some(done) = done {
                    self.watch(number, done);
                }
                return;
            }
            if self.older {
                // It may stand in a part of the transcript that was not read since the daemon started.
                self.rebuild();
                self.inbox.push_front(Msg::Eval { code, arguments, data, token, deadline_ms, accepted, done });
                return;
            }
        }
        let newest = self.unaccepted.last_key_value().map_or(0, |(number, _)| *number);
        let number = self.commands.last().max(newest).max(self.catch_up.0) + 1;
        let eval = Eval { deadline_ms, token: &token, code: &code };
        let (tag, payload) = if arguments.is_empty() && !data {
            (tag::EVAL, eval.to_vec())
        } else {
            (tag::CALL, Call { data, arguments: &arguments, eval }.to_vec())
        };
        if self.link.as_ref().is_some_and(|link| !link.writer.takes(tag)) {
            let _ = accepted.send(Err(self.takes_no_data()));
            return;
        }
        if let Some(done) = done {
            self.waiting.entry(number).or_default().push(done);
        }
        self.send(Frame { tag, id: number, payload: &payload }).await;
        // If it could not be sent, it is when there is a link again.
        self.unaccepted.insert(number, Waiting { tag, payload, token, accepted: vec![accepted] });
    }

    fn takes_no_data(&self) -> Error {
        let name = &self.shared.machine_name;
        Error::new(
            Code::DriverUnsupported,
            format!("{name} takes no arguments and gives no data: an older vmoon has started it, or its kind cannot"),
        )
        .hint(format!("the chunk alone runs as before; if the machine is older, `vmoon restart {name}` starts it anew"))
    }
}

/// How much of the inbox a message takes, bytes.
fn size(msg: &Msg) -> usize {
    match msg {
        Msg::Eval { code, arguments, .. } => code.len() + arguments.len(),
        Msg::Input { data, .. } => data.len(),
        Msg::Ask { payload, .. } => payload.len(),
        _ => 0,
    }
}
