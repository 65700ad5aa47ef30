//! One chunk in many sessions at once.

use super::{
    Service,
    commands::{Chunk, Sent, Wait},
};
use crate::session::{Shared, task::gone};
use futures_util::{StreamExt as _, stream};
use std::{collections::VecDeque, sync::Arc, time::Duration};
use tokio::time::Instant;
use vmoon_api::{
    Data,
    requests::{Eval, EvalMany},
    views::{CommandView, ManyView},
};
use vmoon_core::{Code, Error, Result, driver::ChannelKind, session::SessionState};

/// How many sessions one request names at most.
const MOST: usize = 10_000;
/// How much of each output is repeated, bytes, if the request does not say.
const REPEATED: u64 = 64 << 10;
/// How many commands are under way at once.
const AT_ONCE: usize = 1_024;

impl Service {
    pub(super) async fn evaluate_many(&self, request: EvalMany) -> Result<Vec<ManyView>> {
        if request.sessions.len() > MOST {
            return Err(Error::new(Code::Usage, format!("{} sessions at once; at most 10 000 can be asked", request.sessions.len()))
                .hint("ask them in parts"));
        }
        let max = request.max.unwrap_or(REPEATED).min(1 << 20) as usize;
        let chunk = Chunk::new(request.code.clone(), request.args.as_deref(), request.data, request.token.clone(), request.deadline_ms);
        let chunk = match chunk {
            Ok(chunk) => chunk,
            // Each is told what it would be told alone.
            Err(error) => {
                let view = |session: &String| ManyView { session: session.clone(), command: None, error: Some(error.to_record()) };
                return Ok(request.sessions.iter().map(view).collect());
            }
        };
        // Most machines run and only have to be sent the chunk; the others are waited for each by itself.
        let (plain, others): (Vec<_>, Vec<_>) = request
            .sessions
            .iter()
            .map(|session| (session, self.plain_repl(session)))
            .enumerate()
            .partition(|(_, (_, found))| found.is_some());
        let view = |session: &String, answer: Result<CommandView>| match answer {
            Ok(view) => ManyView { session: session.clone(), command: Some(bounded(view, max)), error: None },
            Err(error) => ManyView { session: session.clone(), command: None, error: Some(error.to_record()) },
        };
        let one = |(index, (session, _)): (usize, (&String, Option<Arc<Shared>>))| {
            let eval = Eval {
                session: session.clone(),
                code: request.code.clone(),
                args: request.args.clone(),
                data: request.data,
                token: request.token.clone(),
                deadline_ms: request.deadline_ms,
                wait_ms: request.wait_ms,
            };
            let (session, view) = (session.clone(), &view);
            async move { (index, view(&session, self.evaluate(eval).await)) }
        };
        let others = stream::iter(others.into_iter().map(one)).buffered(AT_ONCE).collect::<Vec<_>>();
        let plain = async {
            let mut views = Vec::with_capacity(plain.len());
            let mut under_way = VecDeque::new();
            for (index, (session, shared)) in plain {
                if under_way.len() == AT_ONCE {
                    views.extend(self.first(&mut under_way, &view).await);
                }
                let sent = shared.ok_or_else(gone).and_then(|shared| chunk.clone().send(shared));
                let wait = request.wait_ms.map_or(Wait::Done, |ms| Wait::Until(Instant::now() + Duration::from_millis(ms)));
                under_way.push_back((index, session, sent, wait));
            }
            while let Some(answered) = self.first(&mut under_way, &view).await {
                views.push(answered);
            }
            views
        };
        let (mut views, more) = if request.sessions.is_empty() { Default::default() } else { tokio::join!(plain, others) };
        if !more.is_empty() {
            views.extend(more);
            views.sort_unstable_by_key(|(index, _)| *index);
        }
        Ok(views.into_iter().map(|(_, view)| view).collect())
    }

    /// The answer of the command that was sent first.
    async fn first(
        &self,
        under_way: &mut VecDeque<(usize, &String, Result<Sent>, Wait)>,
        view: &impl Fn(&String, Result<CommandView>) -> ManyView,
    ) -> Option<(usize, ManyView)> {
        let (index, session, sent, wait) = under_way.pop_front()?;
        let answer = match sent {
            Ok(sent) => self.answer(sent, wait).await,
            Err(error) => Err(error),
        };
        Some((index, view(session, answer)))
    }

    /// A session that can be sent a chunk now.
    fn plain_repl(&self, session: &str) -> Option<Arc<Shared>> {
        let shared = self.plain_session(session)?;
        let live = shared.row.channel.kind == ChannelKind::Repl && shared.live.borrow().state == SessionState::Live;
        live.then_some(shared)
    }
}

/// The answer with at most so many bytes of each output.
fn bounded(mut view: CommandView, max: usize) -> CommandView {
    let mut cut = view.data.as_ref().is_some_and(|data| serde_json::to_vec(data).is_ok_and(|json| json.len() > max));
    if cut {
        view.data = None;
    }
    let mut keep = |data: &mut Data| {
        cut |= data.0.len() > max;
        data.0.truncate(max);
    };
    keep(&mut view.stdout);
    keep(&mut view.stderr);
    if let Some(values) = &mut view.values {
        keep(values);
    }
    if let Some(error) = &mut view.error {
        keep(&mut error.message);
        keep(&mut error.traceback);
    }
    view.truncated |= cut;
    view
}
