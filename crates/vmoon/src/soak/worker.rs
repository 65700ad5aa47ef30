//! One machine's worker: it does random things to its machine and knows what must come of each.

use super::{Chance, World};
use std::{rc::Rc, time::Duration};
use tokio::time::Instant;
use vmoon_api::{
    Api as _,
    requests::{CommandRef, CreateMachine, Eval, MachineRef, MachineRequest, WaitMachine, WaitOperation},
    views::{CommandView, MachineView},
};
use vmoon_core::{
    Code, Error, Result,
    driver::Exit,
    machine::{Answer, Request, State},
    spec::MachineSpec,
};
use vmoon_sys::process::{Identity, Pidfd};

/// How long anything may take before it counts as hanging.
const PATIENCE: Duration = Duration::from_secs(60);
/// How many lines a loud command prints.
const LINES: u64 = 2_000;

/// A thing to do.
#[derive(Clone, Copy, Debug)]
enum Deed {
    Count,
    Fail,
    Print,
    Interrupt,
    Deadline,
    Bomb,
    Exit,
    KillProcess,
    Stop,
    Kill,
    Restart,
    Delete,
}

/// What a running machine is asked for, by how often.
const DEEDS: &[(u64, Deed)] = &[
    (40, Deed::Count),
    (8, Deed::Fail),
    (8, Deed::Print),
    (8, Deed::Interrupt),
    (4, Deed::Deadline),
    (2, Deed::Bomb),
    (2, Deed::Exit),
    (4, Deed::KillProcess),
    (3, Deed::Stop),
    (3, Deed::Kill),
    (3, Deed::Restart),
    (3, Deed::Delete),
];

struct Worker {
    world: Rc<World>,
    name: String,
    /// What the machine has counted to; `None` while it does not run.
    count: Option<u64>,
    exists: bool,
    tokens: u64,
}

/// Works until the time is over.
///
/// # Errors
/// What makes it senseless to go on.
pub(super) async fn work(world: Rc<World>, mut chance: Chance, number: u32, until: Instant) -> Result<()> {
    let mut worker = Worker { world, name: format!("soak{number}"), count: None, exists: false, tokens: 0 };
    while Instant::now() < until {
        let deed = if worker.count.is_some() { Some(chance.of(DEEDS)) } else { None };
        let done = tokio::time::timeout(PATIENCE, worker.act(deed)).await;
        let failed = |error: String| {
            let what = deed.map_or_else(|| "Start".to_owned(), |deed| format!("{deed:?}"));
            Error::new(Code::CommandFailed, format!("{}: {what}: {error}", worker.name))
        };
        match done {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(failed(error.chain())),
            Err(_) => return Err(failed(format!("nothing came of it in {} s", PATIENCE.as_secs()))),
        }
    }
    Ok(())
}

impl Worker {
    async fn act(&mut self, deed: Option<Deed>) -> Result<()> {
        let Some(deed) = deed else { return self.start().await };
        match deed {
            Deed::Count => self.count().await,
            Deed::Fail => self.fail().await,
            Deed::Print => self.print().await,
            Deed::Interrupt => self.interrupt().await,
            Deed::Deadline => self.deadline().await,
            Deed::Bomb => self.bomb().await,
            Deed::Exit => self.exit().await,
            Deed::KillProcess => self.kill_process().await,
            Deed::Stop => self.end(Request::Stop, "stop", |exit| matches!(exit, Some(Exit::Code { code: 0 }))).await,
            Deed::Kill => self.end(Request::Kill, "kill", |exit| matches!(exit, Some(Exit::Killed))).await,
            Deed::Restart => {
                self.request(Request::Restart).await?;
                self.world.tally.borrow_mut().count("restart");
                self.begin().await
            }
            Deed::Delete => self.delete().await,
        }
    }

    fn check(&self, right: bool, what: impl FnOnce() -> String) {
        if !right {
            self.world.tally.borrow_mut().wrong(format!("{}: {}", self.name, what()));
        }
    }

    fn counted(&self, what: &'static str) {
        self.world.tally.borrow_mut().count(what);
    }

    async fn start(&mut self) -> Result<()> {
        if self.exists {
            self.request(Request::Start).await?;
            self.counted("start");
            return self.begin().await;
        }
        loop {
            let spec = MachineSpec { kind: "lua".into(), ..MachineSpec::default() };
            let request = CreateMachine { name: self.name.clone(), connection: None, spec, start: true, deadline_ms: None };
            match self.world.ask(async |client| client.create_machine(request.clone()).await).await {
                // The answer to the first question was lost with its daemon.
                Err(error) if error.code() == Code::MachineExists => {}
                created => drop(created?),
            }
            match self.begin().await {
                // A creation that a killed daemon had begun was put back by the next.
                Err(error) if matches!(error.code(), Code::MachineNotFound | Code::MachineGone) => {}
                begun => {
                    self.exists = true;
                    self.counted("create");
                    return begun;
                }
            }
        }
    }

    /// Waits until it runs, and begins to count.
    async fn begin(&mut self) -> Result<()> {
        // A daemon that is killed may take the start back; then it is asked for again.
        while self.wait(State::Running).await?.state != State::Running {
            self.request(Request::Start).await?;
        }
        self.count = Some(0);
        let view = self.eval("n = 0 return n", None).await?;
        self.check(values(&view) == "0", || format!("a new life began with {view:?}"));
        Ok(())
    }

    async fn wait(&self, state: State) -> Result<MachineView> {
        let timeout_ms = Some(2_000);
        let request = WaitMachine { machine: self.name.clone(), until: Some(state), generation: None, timeout_ms };
        self.world.ask(async |client| client.wait_machine(request.clone()).await).await
    }

    async fn show(&self) -> Result<MachineView> {
        let request = MachineRef { machine: self.name.clone() };
        self.world.ask(async |client| client.show_machine(request.clone()).await).await
    }

    /// Asks for something and waits for the end of its operation, whatever that is.
    async fn request(&self, request: Request) -> Result<()> {
        let request = MachineRequest { machine: self.name.clone(), request, confirm: None, disks: None, deadline_ms: None };
        let answered = match self.world.ask(async |client| client.request_machine(request.clone()).await).await {
            Err(error) if matches!(error.code(), Code::MachineNotFound | Code::MachineGone) => return Ok(()),
            answered => answered?,
        };
        if let Answer::Started { operation } | Answer::Joined { operation } = answered.answer {
            let request = WaitOperation { operation: operation.to_string(), timeout_ms: Some(PATIENCE.as_millis() as u64) };
            match self.world.ask(async |client| client.wait_operation(request.clone()).await).await {
                Err(error) if error.code() == Code::OperationNotFound => {}
                ended => drop(ended?),
            }
        }
        Ok(())
    }

    fn token(&mut self) -> String {
        self.tokens += 1;
        format!("{}-{}", self.name, self.tokens)
    }

    /// Evaluates once, however many daemons it takes.
    async fn eval(&mut self, code: &str, deadline_ms: Option<u32>) -> Result<CommandView> {
        let request = Eval {
            session: self.name.clone(),
            code: code.into(),
            args: None,
            data: false,
            token: Some(self.token()),
            deadline_ms,
            wait_ms: None,
        };
        loop {
            match self.world.ask(async |client| client.eval(request.clone()).await).await {
                // A daemon that was just started did not know yet that the machine lives anew: nothing was run.
                Err(error) if error.code() == Code::SessionEnded && self.count == Some(0) => {
                    self.world.tally.borrow_mut().asked_again += 1;
                    tokio::task::yield_now().await;
                }
                answer => return answer,
            }
        }
    }

    async fn count(&mut self) -> Result<()> {
        let next = self.count.map_or(1, |count| count + 1);
        let view = self.eval("n = n + 1 print(n) return n", None).await?;
        let right = values(&view) == next.to_string() && view.stdout.0 == format!("{next}\n").as_bytes() && view.error.is_none();
        self.check(right, || format!("counted to {next} and got {view:?}"));
        self.count = Some(next);
        self.counted("count");
        Ok(())
    }

    async fn fail(&mut self) -> Result<()> {
        let token = self.tokens;
        let view = self.eval(&format!("print('before') error('wanted {token}', 0)"), None).await?;
        let right =
            view.error.as_ref().is_some_and(|error| error.message.lossy() == format!("wanted {token}")) && view.stdout.0 == b"before\n";
        self.check(right, || format!("an error became {view:?}"));
        self.counted("error");
        Ok(())
    }

    async fn print(&mut self) -> Result<()> {
        let view = self.eval(&format!("for i = 1, {LINES} do print(n, i) end"), None).await?;
        let count = self.count.unwrap_or(0);
        let expected: String = (1..=LINES).map(|line| format!("{count}\t{line}\n")).collect();
        self.check(view.stdout.0 == expected.as_bytes(), || {
            format!("{} bytes were printed, {} arrived", expected.len(), view.stdout.0.len())
        });
        self.counted("print");
        Ok(())
    }

    async fn interrupt(&mut self) -> Result<()> {
        let token = Some(self.token());
        let code = "while true do pcall(function() while true do end end) end";
        let mut request =
            Eval { session: self.name.clone(), code: code.into(), args: None, data: false, token, deadline_ms: None, wait_ms: Some(0) };
        let begun = self.world.ask(async |client| client.eval(request.clone()).await).await?;
        let command = CommandRef { command: begun.id.to_string(), wait_ms: None };
        match self.world.ask(async |client| client.interrupt_command(command.clone()).await).await {
            // The first question was obeyed, and its answer lost with its daemon.
            Err(error) if error.code() == Code::OperationEnded => {}
            answer => drop(answer?),
        }
        request.wait_ms = None;
        let view = self.world.ask(async |client| client.eval(request.clone()).await).await?;
        self.check(failure(&view) == Some(Code::CommandInterrupted), || format!("an interrupt became {view:?}"));
        self.counted("interrupt");
        self.still().await
    }

    async fn deadline(&mut self) -> Result<()> {
        let view = self.eval("while true do end", Some(20)).await?;
        self.check(failure(&view) == Some(Code::CommandDeadline), || format!("a deadline became {view:?}"));
        self.counted("deadline");
        self.still().await
    }

    async fn bomb(&mut self) -> Result<()> {
        let view = self.eval("return ('x'):rep(1e15)", None).await?;
        self.check(failure(&view) == Some(Code::CommandFailed), || format!("a bomb became {view:?}"));
        self.counted("bomb");
        self.still().await
    }

    /// What was interrupted has changed nothing else.
    async fn still(&mut self) -> Result<()> {
        let view = self.eval("return n", None).await?;
        let count = self.count.unwrap_or(0);
        self.check(values(&view) == count.to_string(), || format!("{count} became {view:?}"));
        Ok(())
    }

    async fn exit(&mut self) -> Result<()> {
        let view = self.eval("print('last words') os.exit(7)", None).await;
        // Whether the command or the machine is told to have ended first is a matter of moments.
        if let Ok(view) = view {
            self.check(view.stdout.0 == b"last words\n", || format!("last words became {view:?}"));
        }
        self.counted("exit");
        self.ended(|exit| matches!(exit, Some(Exit::Code { code: 7 }))).await
    }

    async fn kill_process(&mut self) -> Result<()> {
        let shown = self.show().await?;
        let pid = shown.facts.as_ref().and_then(|facts| facts.get("pid")?.as_i64());
        let process = pid.and_then(|pid| Identity::of(i32::try_from(pid).ok()?));
        let Some(process) = process else {
            self.check(false, || format!("a running machine has no process: {shown:?}"));
            return Ok(());
        };
        if let Some(pidfd) = Pidfd::open(&process).map_err(|error| Error::io("open a process", error))? {
            pidfd.send(rustix::process::Signal::KILL).map_err(|error| Error::io("kill a process", error))?;
        }
        self.counted("kill_process");
        let lost = std::cell::Cell::new(false);
        self.ended(|exit| {
            lost.set(matches!(exit, Some(Exit::Lost)));
            matches!(exit, Some(Exit::Signal { signal: 9 } | Exit::Lost))
        })
        .await?;
        self.world.tally.borrow_mut().reasons_lost += u64::from(lost.get());
        Ok(())
    }

    async fn end(&mut self, request: Request, what: &'static str, right: impl Fn(Option<&Exit>) -> bool) -> Result<()> {
        self.request(request).await?;
        self.counted(what);
        self.ended(right).await
    }

    /// Waits until it is seen stopped, and checks how it ended.
    async fn ended(&mut self, right: impl Fn(Option<&Exit>) -> bool) -> Result<()> {
        let view = loop {
            let view = self.wait(State::Stopped).await?;
            if view.state == State::Stopped {
                break view;
            }
        };
        self.count = None;
        self.check(right(view.exit.as_ref()), || format!("it ended with {:?}", view.exit));
        Ok(())
    }

    async fn delete(&mut self) -> Result<()> {
        self.request(Request::DeleteForce).await?;
        let left = loop {
            match self.show().await {
                Err(error) if matches!(error.code(), Code::MachineNotFound | Code::MachineGone) => break None,
                Err(error) => return Err(error),
                // A daemon that was killed finishes what it had begun; the operation may be another one by then.
                Ok(view) if view.operation.is_some() => self.request(Request::DeleteForce).await?,
                Ok(view) => break Some(view),
            }
        };
        self.check(left.is_none(), || format!("it was deleted and is there: {left:?}"));
        (self.count, self.exists) = (None, left.is_some());
        self.counted("delete");
        Ok(())
    }
}

fn values(view: &CommandView) -> String {
    view.values.as_ref().map(|values| values.lossy().into_owned()).unwrap_or_default()
}

fn failure(view: &CommandView) -> Option<Code> {
    view.error.as_ref().map(|error| error.code)
}
