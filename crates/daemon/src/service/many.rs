//! One chunk in many sessions at once.

use super::Service;
use futures_util::{StreamExt as _, stream};
use vmoon_api::{
    Data,
    requests::{Eval, EvalMany},
    views::{CommandView, ManyView},
};
use vmoon_core::{Code, Error, Result};

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
        let one = |session: &String| {
            let eval = Eval {
                session: session.clone(),
                code: request.code.clone(),
                args: request.args.clone(),
                data: request.data,
                token: request.token.clone(),
                deadline_ms: request.deadline_ms,
                wait_ms: request.wait_ms,
            };
            async move {
                let session = eval.session.clone();
                match self.evaluate(eval).await {
                    Ok(view) => ManyView { session, command: Some(bounded(view, max)), error: None },
                    Err(error) => ManyView { session, command: None, error: Some(error.to_record()) },
                }
            }
        };
        Ok(stream::iter(request.sessions.iter().map(one)).buffered(AT_ONCE).collect().await)
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
