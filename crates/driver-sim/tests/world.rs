//! The world does to a driver what it was told to, and a driver cut off at any step leaves nothing that cannot be found.

use async_trait::async_trait;
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};
use uuid::Uuid;
use vmoon_core::{
    Code, MachineId, OperationId, Result,
    driver::{Abilities, Channel, Driver, Exit, Handle, HostFacts, Journal, LinkItem, Observed, Plan, Recovered, SessionLink, StopMode},
    frame::{Eval, Frame, tag},
    machine::Verb,
    operation::{OpRecord, Progress, Undo},
    spec::MachineSpec,
};
use vmoon_driver_sim::{Fault, Gate, Guest, Overflow, SimDriver, StopAnswer, World};

#[derive(Default)]
struct Store(Mutex<Vec<Undo>>);

#[async_trait]
impl Journal for Store {
    fn progress(&self, _: Progress) {}
    async fn undo(&self, undo: Undo) -> Result<()> {
        self.0.lock().unwrap().push(undo);
        Ok(())
    }
}

fn id() -> MachineId {
    MachineId::from_uuid(Uuid::now_v7())
}

fn plan(driver: &SimDriver) -> Plan {
    let spec = MachineSpec { kind: "sim".into(), ..MachineSpec::default() };
    driver.plan("m", &spec, &HostFacts::default()).unwrap()
}

fn record(verb: Verb, machine: MachineId) -> OpRecord {
    let id = OperationId::from_uuid(Uuid::now_v7());
    OpRecord::new(id, verb, machine, 0, Duration::from_millis(1))
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(10), future).await.expect("in time")
}

async fn machine(world: &Arc<World>) -> (SimDriver, Handle) {
    let driver = SimDriver::new(world.clone());
    let handle = driver.create(id(), &plan(&driver), &Store::default()).await.unwrap();
    (driver, handle)
}

async fn channel(driver: &SimDriver, handle: &Handle) -> Channel {
    match driver.observe(handle).await.observed {
        Observed::On(channels) => channels[0].clone(),
        other => panic!("{other:?}"),
    }
}

async fn opened(driver: &SimDriver, handle: &Handle) -> SessionLink {
    driver.start(handle).await.unwrap();
    driver.open(handle, &channel(driver, handle).await, 0).await.unwrap()
}

async fn eval(link: &mut SessionLink, id: u64, code: &str) {
    let payload = Eval { deadline_ms: 0, token: b"", code: code.as_bytes() }.to_vec();
    link.writer.send(Frame { tag: tag::EVAL, id, payload: &payload }).await.unwrap();
}

/// The bytes of the stream up to the end of that command, gaps counted, and whether there was a gap.
async fn until_done(link: &mut SessionLink, id: u64, ack: bool) -> (u64, u64) {
    let (mut buf, mut at, mut lost) = (Vec::new(), 0, 0);
    loop {
        let item = soon(link.reader.next(&mut buf)).await.unwrap();
        assert_eq!(item, LinkItem::Stream { at });
        let mut rest = &buf[..];
        while let Some((frame, len)) = Frame::decode(rest).unwrap() {
            rest = &rest[len..];
            at += frame.stream_len();
            match frame.tag {
                tag::GAP => lost += frame.stream_len(),
                tag::DONE if frame.id == id => return (at, lost),
                _ => {}
            }
        }
        if ack {
            link.writer.send(Frame { tag: tag::ACK, id: 0, payload: &at.to_le_bytes() }).await.unwrap();
        }
    }
}

/// Runs `call` until it ends or is cut after `n` steps; whether it was cut.
async fn cut<T>(world: &World, n: u64, call: impl Future<Output = T>) -> bool {
    world.cut_after(n);
    let cut = tokio::select! {
        biased;
        _ = call => false,
        () = world.was_cut() => true,
    };
    world.cut_after(u64::MAX);
    cut
}

/// A daemon is killed at every step of a creation, and again at every step of its recovery.
#[tokio::test]
async fn a_create_cut_anywhere_is_finished_or_leaves_nothing() {
    let (mut finished, mut reversed) = (0, 0);
    for first in 1.. {
        let mut cut_first = false;
        for second in 1.. {
            let world = World::new();
            let (machine, store) = (id(), Store::default());
            let driver = SimDriver::new(world.clone());
            cut_first = cut(&world, first, driver.create(machine, &plan(&driver), &store)).await;
            drop(driver);
            let undos = store.0.lock().unwrap().clone();
            let record = record(Verb::Create, machine);
            let cut_second = cut(&world, second, SimDriver::new(world.clone()).recover(&record, &undos)).await;
            match SimDriver::new(world.clone()).recover(&record, &undos).await.unwrap() {
                Recovered::Finished(handle) => {
                    finished += 1;
                    assert_eq!(handle, world.find(machine));
                    assert!(world.look(&handle.unwrap()).unwrap().complete);
                    assert_eq!((world.machines().len(), world.disks().len()), (1, 1));
                }
                Recovered::Reversed => {
                    reversed += 1;
                    assert!(world.machines().is_empty() && world.disks().is_empty(), "cut at {first} and {second}");
                }
            }
            if !cut_second {
                break;
            }
        }
        if !cut_first {
            break;
        }
    }
    assert!(finished > 3 && reversed > 20, "{finished} {reversed}");
}

#[tokio::test]
async fn a_delete_cut_anywhere_is_findable_and_finished() {
    for first in 1.. {
        let world = World::new();
        let (driver, handle) = machine(&world).await;
        driver.start(&handle).await.unwrap();
        let machine = driver.list().await.unwrap()[0].id.unwrap();
        let was_cut = cut(&world, first, driver.delete(&handle)).await;
        if !world.disks().is_empty() {
            assert!(world.find(machine).is_some(), "cut at {first}: a disk that nothing leads to");
        }
        let fresh = SimDriver::new(world.clone());
        if let Some(seen) = world.look(&handle)
            && matches!(seen.observed, Observed::Off(_))
        {
            assert!(!seen.complete && fresh.start(&handle).await.is_err(), "half a machine can be started");
        }
        assert_eq!(fresh.recover(&record(Verb::Delete, machine), &[]).await.unwrap(), Recovered::Finished(None));
        assert!(world.machines().is_empty() && world.disks().is_empty());
        if !was_cut {
            return;
        }
    }
}

#[tokio::test]
async fn a_cut_driver_never_answers_again_and_others_do() {
    let world = World::new();
    let (driver, handle) = machine(&world).await;
    assert!(cut(&world, 1, driver.start(&handle)).await, "before the start");
    assert!(matches!(world.look(&handle).unwrap().observed, Observed::Off(_)));
    assert!(tokio::time::timeout(Duration::ZERO, driver.observe(&handle)).await.is_err());
    let fresh = SimDriver::new(world.clone());
    assert!(cut(&world, 2, fresh.start(&handle)).await, "after the start");
    assert!(matches!(world.look(&handle).unwrap().observed, Observed::On(_)));
}

#[tokio::test]
async fn every_step_is_told_before_and_after() {
    let world = World::new();
    let told = Arc::new(Mutex::new(Vec::new()));
    let keep = told.clone();
    world.on_step(Box::new(move |step| keep.lock().unwrap().push(step.to_owned())));
    let (driver, handle) = machine(&world).await;
    driver.stop(&handle, StopMode::Force).await.unwrap();
    let told = told.lock().unwrap();
    let wanted = [
        "before create",
        "before create.disk",
        "after create.disk",
        "before create.define",
        "after create.define",
        "before create.complete",
        "after create.complete",
        "after create",
        "before kill",
        "after kill",
    ];
    assert_eq!(*told, wanted);
    assert_eq!((world.steps(), world.calls("kill"), world.calls("stop")), (10, 1, 0));
}

#[tokio::test]
async fn faults_come_in_their_order_once_each() {
    let world = World::new();
    let (driver, handle) = machine(&world).await;
    world.fault("start", Fault::Fail(Code::DriverFailed));
    world.fault("start", Fault::ActThenFail(Code::DriverUnreachable));
    assert_eq!(driver.start(&handle).await.unwrap_err().code(), Code::DriverFailed);
    assert!(matches!(driver.observe(&handle).await.observed, Observed::Off(_)), "it did nothing");
    assert_eq!(driver.start(&handle).await.unwrap_err().code(), Code::DriverUnreachable);
    let before = driver.observe(&handle).await.observed;
    assert!(matches!(before, Observed::On(_)), "it did it all the same");
    driver.start(&handle).await.unwrap();
    assert_eq!(driver.observe(&handle).await.observed, before);
}

#[tokio::test]
async fn a_create_that_fails_in_the_middle_is_reversed_by_its_undo_values() {
    let world = World::new();
    world.fault("create.complete", Fault::Fail(Code::DriverFailed));
    let (driver, store, machine) = (SimDriver::new(world.clone()), Store::default(), id());
    driver.create(machine, &plan(&driver), &store).await.unwrap_err();
    let handle = world.find(machine).unwrap();
    assert!(!driver.observe(&handle).await.complete);
    let undos = store.0.lock().unwrap().clone();
    assert_eq!(driver.recover(&record(Verb::Create, machine), &undos).await.unwrap(), Recovered::Reversed);
    assert!(world.machines().is_empty() && world.disks().is_empty());
    let damaged = [Undo(serde_json::json!({ "undo": "the moon" }))];
    assert_eq!(driver.recover(&record(Verb::Create, machine), &damaged).await.unwrap_err().code(), Code::DriverFailed);
}

/// Two observations arrive in the other order than they were begun, the first one long after a start.
#[tokio::test]
async fn observations_can_be_late_and_out_of_order() {
    let world = World::new();
    let (driver, handle) = machine(&world).await;
    let (first, second) = (Gate::new(), Gate::new());
    world.fault("observe", Fault::ActThenHang(first.clone()));
    world.fault("observe", Fault::ActThenHang(second.clone()));
    let driver = Arc::new(driver);
    let look = |driver: Arc<SimDriver>, handle: Handle| tokio::spawn(async move { driver.observe(&handle).await.observed });
    let early = look(driver.clone(), handle.clone());
    soon(first.arrived()).await;
    driver.start(&handle).await.unwrap();
    let late = look(driver.clone(), handle.clone());
    soon(second.arrived()).await;
    second.open();
    assert!(matches!(soon(late).await.unwrap(), Observed::On(_)));
    assert!(!early.is_finished());
    first.open();
    assert!(matches!(soon(early).await.unwrap(), Observed::Off(_)), "what was true when it looked");
}

#[tokio::test]
async fn delays_and_slow_guests_follow_the_worlds_clock() {
    let world = World::new();
    let (driver, handle) = machine(&world).await;
    let driver = Arc::new(driver);
    world.fault("start", Fault::Delay(100));
    let (starting, target) = (driver.clone(), handle.clone());
    let start = tokio::spawn(async move { starting.start(&target).await });
    soon(world.until(|world| world.calls("start") == 1)).await;
    world.advance(99);
    assert!(matches!(world.look(&handle).unwrap().observed, Observed::Off(_)));
    world.advance(1);
    soon(start).await.unwrap().unwrap();
    world.set_guest(&handle, Guest { stop: StopAnswer::After(50), ..Guest::default() });
    driver.stop(&handle, StopMode::Polite).await.unwrap();
    world.advance(49);
    assert!(matches!(driver.observe(&handle).await.observed, Observed::On(_)), "it takes its time");
    driver.stop(&handle, StopMode::Polite).await.unwrap();
    world.advance(1);
    assert_eq!(driver.observe(&handle).await.observed, Observed::Off(Some(Exit::Code { code: 0 })), "asking again does not delay it");
}

#[tokio::test]
async fn unreachable_is_neither_off_nor_missing() {
    let world = World::new();
    let (driver, handle) = machine(&world).await;
    let mut link = opened(&driver, &handle).await;
    world.set_reachable(false);
    assert_eq!(soon(link.reader.next(&mut Vec::new())).await.unwrap(), LinkItem::Broken);
    let lost = link.writer.send(Frame { tag: tag::QUIT, id: 0, payload: b"" }).await.unwrap_err();
    assert_eq!(lost.code(), Code::DriverUnreachable);
    assert_eq!(driver.observe(&handle).await.observed, Observed::Unreachable);
    assert_eq!(driver.list().await.unwrap_err().code(), Code::DriverUnreachable);
    assert_eq!(driver.stop(&handle, StopMode::Force).await.unwrap_err().code(), Code::DriverUnreachable);
    world.set_reachable(true);
    let mut link = driver.open(&handle, &channel(&driver, &handle).await, 0).await.unwrap();
    eval(&mut link, 1, "value here").await;
    until_done(&mut link, 1, false).await;
}

#[tokio::test]
async fn machines_change_behind_everybodys_back() {
    let world = World::new();
    let (driver, handle) = machine(&world).await;
    world.power_on(&handle);
    channel(&driver, &handle).await;
    world.pause(&handle);
    assert_eq!(driver.observe(&handle).await.observed, Observed::Paused);
    assert_eq!(driver.start(&handle).await.unwrap_err().code(), Code::DriverFailed);
    world.unpause(&handle);
    world.suspend(&handle);
    assert_eq!(driver.observe(&handle).await.observed, Observed::Suspended);
    world.unpause(&handle);
    world.power_off(&handle, Exit::Signal { signal: 11 });
    assert_eq!(driver.observe(&handle).await.observed, Observed::Off(Some(Exit::Signal { signal: 11 })));
    let foreign = world.add_foreign("a & b <c>");
    let names: Vec<_> = driver.list().await.unwrap().into_iter().map(|found| (found.name, found.id.is_some())).collect();
    assert_eq!(names, [("a & b <c>".to_owned(), false), ("m".to_owned(), true)]);
    assert!(driver.observe(&foreign).await.complete, "what somebody else made is whole");
    world.vanish(&handle);
    assert_eq!(driver.observe(&handle).await.observed, Observed::Missing);
}

#[tokio::test]
async fn a_guest_dies_right_after_its_start() {
    let world = World::new();
    let (driver, handle) = machine(&world).await;
    world.set_guest(&handle, Guest { dies_after_start: true, ..Guest::default() });
    driver.start(&handle).await.unwrap();
    assert_eq!(driver.observe(&handle).await.observed, Observed::Off(Some(Exit::Code { code: 1 })));
}

#[tokio::test]
async fn a_full_ring_waits_for_its_reader_or_leaves_one_exact_gap() {
    const BYTES: u64 = 100_000;
    for overflow in [Overflow::Wait, Overflow::Drop] {
        let world = World::new();
        let (driver, handle) = machine(&world).await;
        world.set_guest(&handle, Guest { ring: 16_384, overflow, ..Guest::default() });
        let mut link = opened(&driver, &handle).await;
        eval(&mut link, 1, &format!("flood {BYTES}")).await;
        let (end, lost) = until_done(&mut link, 1, true).await;
        assert!(end > BYTES, "{overflow:?}: {end}");
        match overflow {
            Overflow::Wait => assert_eq!(lost, 0),
            Overflow::Drop => assert!(lost > BYTES - 16_384 && lost < end, "{lost} of {end}"),
        }
    }
}

#[tokio::test]
async fn one_reader_per_stream() {
    let world = World::new();
    let (driver, handle) = machine(&world).await;
    let mut first = opened(&driver, &handle).await;
    let mut second = opened(&driver, &handle).await;
    assert_eq!(soon(first.reader.next(&mut Vec::new())).await.unwrap(), LinkItem::Broken);
    eval(&mut second, 1, "echo x").await;
    until_done(&mut second, 1, false).await;
}

#[tokio::test]
async fn a_link_learns_what_runs_and_what_waits() {
    let world = World::new();
    let (driver, handle) = machine(&world).await;
    let mut link = opened(&driver, &handle).await;
    for (id, code) in [(1, "ask"), (2, "hang"), (3, "echo x")] {
        eval(&mut link, id, code).await;
    }
    let link = opened(&driver, &handle).await;
    assert_eq!((link.last_command, link.running, link.queued, link.waiting_input), (3, Some(1), 2, true));
}

/// Nothing that a peer sends makes the program answer wrongly or die.
#[tokio::test]
async fn nonsense_is_refused_and_repeated_requests_are_not_run_again() {
    let world = World::new();
    let (driver, handle) = machine(&world).await;
    let mut link = opened(&driver, &handle).await;
    let zero = Eval { deadline_ms: 0, token: b"", code: b"echo x" }.to_vec();
    for (tag, id, payload, code) in [
        (tag::EVAL, 1, &b"cut"[..], "wire.malformed"),
        (tag::EVAL, 0, &zero[..], "wire.malformed"),
        (tag::ACK, 0, b"short", "wire.malformed"),
        (tag::ACK, 0, &99u64.to_le_bytes(), "wire.malformed"),
        (tag::INTERRUPT, 9, b"", "command.not_found"),
        (tag::INPUT, 0, b"x", "session.not_waiting"),
    ] {
        link.writer.send(Frame { tag, id, payload }).await.unwrap();
        let mut buf = Vec::new();
        assert_eq!(soon(link.reader.next(&mut buf)).await.unwrap(), LinkItem::Direct);
        let (frame, _) = Frame::decode(&buf).unwrap().unwrap();
        assert_eq!((frame.tag, frame.payload.split(|b| *b == b'\n').next()), (tag::REFUSED, Some(code.as_bytes())));
    }
    link.writer.send(Frame { tag: b'?', id: 0, payload: b"from the future" }).await.unwrap();
    for _ in 0..2 {
        eval(&mut link, 1, "echo once").await;
    }
    let (end, _) = until_done(&mut link, 1, false).await;
    eval(&mut link, 2, "echo next").await;
    let mut buf = Vec::new();
    assert_eq!(soon(link.reader.next(&mut buf)).await.unwrap(), LinkItem::Stream { at: end }, "the repetition left no frame");
}

#[tokio::test]
async fn abilities_can_be_missing() {
    let world = World::new();
    let driver = SimDriver::with_abilities(world.clone(), Abilities::default());
    assert!(driver.pause().is_none() && driver.suspend().is_none());
    let handle = world.add_foreign("x");
    assert_eq!(driver.abilities(&handle), Abilities { eval: true, ..Abilities::default() });
}
