//! The guest's agent: programs in the guest, through QEMU's agent protocol as libvirt carries it.
//!
//! libvirt keeps questions and answers together (it begins with guest-sync, and again after a command that was not answered in time), so a guest that answers late cannot be taken for answering the next
//! question; one that answers twice can, which shows in what it says, and is mended. What else is ours: exact deadlines, bounds on what is read, and no trust in what the guest says. Commands as in QEMU's
//! `qga/qapi-schema.json`.

use super::{Inner, errors::failed};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::Instant;
use vmoon_core::{
    Code, Error, Result,
    ability::{Ended, Program},
    driver::Handle,
};
use vmoon_libvirt_wire::{self as wire, Client, Domain};
use vmoon_sys::clock;

/// The most that is given to a program's standard input, bytes: the agent takes a command of 32 MiB at most, and libvirt one string of 4 MiB.
const MAX_INPUT: usize = 1 << 20;
/// The most that is kept of each stream, bytes. The agent itself keeps 16 MiB, of which libvirt would carry a fourth.
const MAX_OUTPUT: usize = 2 << 20;
/// How often a program that runs is asked about at first, and in the end.
const POLL: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(250));
/// How long one question may take that the agent answers at once.
const ANSWER: Duration = Duration::from_secs(10);
/// How long an agent may go on saying what nobody has asked for.
const SETTLE: Duration = Duration::from_millis(100);
/// How long the answer may take that carries what a program has said: libvirt reads it by the kilobyte, and looks through all of it after each.
const CARRY: Duration = Duration::from_secs(60);
/// The question that is answered with that.
const STATUS: &str = "guest-exec-status";

fn nonsense(what: &str) -> Error {
    Error::new(Code::WireMalformed, format!("the guest's agent sent nonsense: {what}"))
}

fn late(deadline_ms: u64) -> Error {
    Error::new(Code::OperationDeadline, format!("the program did not end within {deadline_ms} ms; it may still run in the guest"))
}

/// A conversation with one guest's agent until a deadline.
pub(crate) struct Agent<'a> {
    client: &'a Client,
    domain: &'a Domain,
    until: Instant,
    deadline_ms: u64,
}

impl<'a> Agent<'a> {
    pub(crate) fn new(client: &'a Client, domain: &'a Domain, deadline_ms: u64) -> Self {
        let until = Instant::from_std(clock::instant()) + Duration::from_millis(deadline_ms.min(7 * 24 * 3_600_000));
        Self { client, domain, until, deadline_ms }
    }

    /// Asks one question; its answer's `return`.
    pub(crate) async fn ask(&self, command: &str, arguments: Value) -> Result<Value> {
        let left = self.until.saturating_duration_since(Instant::from_std(clock::instant()));
        if left.is_zero() {
            return Err(late(self.deadline_ms));
        }
        let question = json!({ "execute": command, "arguments": arguments }).to_string();
        let wait = left.min(if command == STATUS { CARRY } else { ANSWER });
        let client = self.client.within(wait);
        let asked = client.agent_command(self.domain, &question, wait);
        // The deadline is exact, whatever libvirt rounds it to.
        let answer = match tokio::time::timeout_at(self.until.min(Instant::from_std(clock::instant()) + wait), asked).await {
            Ok(Ok(answer)) => answer,
            // Whichever clock was first: at our deadline it is our deadline that passed.
            Ok(Err(_)) if Instant::from_std(clock::instant()) >= self.until => return Err(late(self.deadline_ms)),
            Ok(Err(wire::Error::Deadline { .. })) if wait == left => return Err(late(self.deadline_ms)),
            Ok(Err(error)) => return Err(refused(command, error)),
            Err(_) if wait == left => return Err(late(self.deadline_ms)),
            Err(_) => {
                return Err(Error::new(
                    Code::GuestAgent,
                    format!("the guest's agent did not answer {command} within {} s", wait.as_secs()),
                ));
            }
        };
        let mut answer: Value = serde_json::from_str(&answer).map_err(|_| nonsense("an answer that is no JSON"))?;
        Ok(answer.get_mut("return").map(Value::take).unwrap_or_default())
    }
}

/// Whether the detail of an error says that there is no agent: it was not even asked.
pub(crate) fn is_absent(detail: &Value) -> bool {
    detail["agent"] == "absent"
}

impl Agent<'_> {
    /// Makes answers belong to their questions again, after one that did not: an agent that has said too much is a word ahead from then on. What it says while nobody
    /// asks is thrown away by libvirt, so there is a pause before a number is asked back (guest-sync). Whether it came.
    async fn agrees_again(&self) -> bool {
        let mut pause = SETTLE;
        for _ in 0..4 {
            tokio::time::sleep_until((Instant::from_std(clock::instant()) + pause).min(self.until)).await;
            // Not negative, and exact in every JSON reader.
            let id = vmoon_sys::random::number() >> 12;
            match self.ask("guest-sync", json!({ "id": id })).await {
                Ok(answer) if answer.as_u64() == Some(id) => return true,
                Ok(_) => pause *= 2,
                Err(_) => return false,
            }
        }
        false
    }
}

fn refused(command: &str, error: wire::Error) -> Error {
    let message = error.to_string();
    // The words of `qemuDomainAgentAvailable`.
    if message.contains("agent is not connected") || message.contains("agent is not configured") {
        return Error::new(Code::GuestAgent, format!("the guest's agent is not there: {message}"))
            .hint("install qemu-guest-agent in the guest and start it; it may also be booting")
            .detail(json!({ "agent": "absent" }));
    }
    // What is no JSON object, or longer than 10 MiB: libvirt closes its end for good.
    if message.contains("not available due to an error") {
        return Error::new(Code::GuestAgent, "the guest's agent has sent nonsense, and libvirt does not listen to it any more")
            .hint("restart it in the guest: systemctl restart qemu-guest-agent");
    }
    if message.contains("has been disabled") || message.contains("not found") && message.contains("command") {
        return Error::new(Code::GuestAgent, format!("the guest's agent does not allow {command}")).hint(
            "its configuration in the guest blocks it: see block-rpcs or allow-rpcs of qemu-ga (/etc/sysconfig/qemu-ga, qemu-ga.conf)",
        );
    }
    // qemu-ga starts a program by GLib's g_spawn, whose words these are.
    if message.contains("Failed to execute child process") {
        let code = if message.contains("Permission denied") { Code::Permission } else { Code::FileNotFound };
        return Error::new(code, format!("the guest cannot run the program: {message}"));
    }
    if let wire::Error::Deadline { .. } = error {
        return Error::new(Code::GuestAgent, format!("the guest's agent did not answer {command}"));
    }
    failed("ask the guest's agent", error)
}

/// What one stream of a program said, at most [`MAX_OUTPUT`] bytes, and whether that was all.
fn output(status: &Value, name: &str) -> Result<(Vec<u8>, bool)> {
    let truncated = status.get(format!("{name}-truncated")).and_then(Value::as_bool).unwrap_or(false);
    let Some(text) = status.get(format!("{name}-data")).and_then(Value::as_str) else { return Ok((Vec::new(), truncated)) };
    let mut bytes = STANDARD.decode(text).map_err(|_| nonsense("output that is not base64"))?;
    let cut = bytes.len() > MAX_OUTPUT;
    bytes.truncate(MAX_OUTPUT);
    Ok((bytes, truncated || cut))
}

/// The end of a program, from the answer to guest-exec-status; `None` while it runs.
fn ended(status: &Value) -> Result<Option<Ended>> {
    if !status.get("exited").and_then(Value::as_bool).ok_or_else(|| nonsense("a status without exited"))? {
        return Ok(None);
    }
    let number = |name: &str| status.get(name).and_then(Value::as_i64).and_then(|number| i32::try_from(number).ok());
    let ((stdout, first), (stderr, second)) = (output(status, "out")?, output(status, "err")?);
    Ok(Some(Ended { code: number("exitcode"), signal: number("signal"), stdout, stderr, truncated: first || second }))
}

impl Inner {
    /// Runs a program in the guest and waits for its end.
    pub(crate) async fn exec(&self, handle: &Handle, program: &Program) -> Result<Ended> {
        let Some((path, arguments)) = program.argv.split_first() else { return Err(Error::new(Code::Usage, "no program is named")) };
        if program.stdin.len() > MAX_INPUT {
            return Err(Error::new(Code::CommandTooLarge, "the input is larger than 1 MiB, which is the most the agent is given"));
        }
        if program.argv.iter().any(|word| word.contains('\0')) {
            return Err(Error::new(Code::Usage, "an argument holds a NUL byte, which no program can be given"));
        }
        let client = self.link.client().await?;
        let domain = self.domain(&client, handle).await?;
        if domain.id < 0 {
            return Err(Error::new(Code::MachineStopped, "the machine does not run").hint("start it first"));
        }
        let agent = Agent::new(&client, &domain, program.deadline_ms);
        let mut arguments = json!({ "path": path, "arg": arguments, "capture-output": true });
        if !program.stdin.is_empty() {
            arguments["input-data"] = STANDARD.encode(&program.stdin).into();
        }
        let started = agent.ask("guest-exec", arguments).await?;
        let Some(pid) = started.get("pid").and_then(Value::as_i64) else {
            // It is not asked again: the program may have begun.
            agent.agrees_again().await;
            return Err(nonsense("a program without a number"));
        };
        let mut doubted = false;
        let mut pause = POLL.0;
        loop {
            match ended(&agent.ask(STATUS, json!({ "pid": pid })).await?) {
                Ok(Some(ended)) => return Ok(ended),
                Ok(None) => {}
                // Perhaps the answer to another question.
                Err(_) if !doubted && agent.agrees_again().await => {
                    doubted = true;
                    continue;
                }
                Err(error) => return Err(error),
            }
            // The agent has no event for a program's end, so it is asked again.
            let next = Instant::from_std(clock::instant()) + pause;
            tokio::time::sleep_until(next.min(agent.until)).await;
            pause = pause.saturating_mul(2).min(POLL.1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_read_with_bounds() {
        assert_eq!(ended(&json!({"exited": false})).unwrap(), None);
        let end = ended(&json!({"exited": true, "exitcode": 3, "out-data": "aGk=", "err-truncated": true})).unwrap().unwrap();
        assert_eq!((end.code, end.stdout.as_slice(), end.truncated), (Some(3), &b"hi"[..], true));
        let end = ended(&json!({"exited": true, "signal": 9})).unwrap().unwrap();
        assert_eq!((end.code, end.signal), (None, Some(9)));
        let long = STANDARD.encode(vec![b'x'; MAX_OUTPUT + 1]);
        let end = ended(&json!({"exited": true, "exitcode": 0, "out-data": long})).unwrap().unwrap();
        assert!(end.stdout.len() == MAX_OUTPUT && end.truncated);
    }

    #[test]
    fn a_lying_agent_is_an_error() {
        for bad in [json!({}), json!([]), json!(null), json!({"exited": "yes"}), json!({"exited": true, "out-data": "§"})] {
            assert_eq!(ended(&bad).unwrap_err().code(), Code::WireMalformed, "{bad}");
        }
    }
}
