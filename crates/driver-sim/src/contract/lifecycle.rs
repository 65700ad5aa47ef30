//! The rules about a machine's life: plan, create, start, stop, delete, observe, recover. They know nothing of channels' content.

use super::{Fixture, NAME, Notes, Subject, fine, new_id, plan, record, within};
use std::collections::HashSet;
use vmoon_core::{
    MachineId,
    driver::{Channel, Driver, Found, Handle, Observed, Recovered, StopMode},
    machine::Verb,
};

async fn found(driver: &dyn Driver, id: MachineId) -> Option<Found> {
    let mut found = fine("list", driver.list()).await;
    found.retain(|found| found.id == Some(id));
    assert!(found.len() <= 1, "{id} is there more than once: {found:?}");
    found.pop()
}

/// The driver says what it is, and names each setting once, with help.
pub async fn info_names_its_kind(fixture: &impl Fixture) {
    let info = fixture.driver().await.info();
    assert_eq!(info.kind, fixture.spec().kind);
    let mut names = HashSet::new();
    for setting in info.settings {
        assert!(!setting.name.is_empty() && !setting.help.is_empty(), "{setting:?}");
        assert!(names.insert(setting.name.clone()), "{} stands twice", setting.name);
    }
}

/// A bad specification is refused with all that is wrong with it.
pub async fn plan_reports_all_problems_at_once(fixture: &impl Fixture) {
    let driver = fixture.driver().await;
    let facts = fine("facts", driver.facts()).await;
    let mut spec = fixture.spec();
    for setting in driver.info().settings {
        // No setting takes a list of a list.
        spec.settings.insert(setting.name, serde_json::json!([[null]]));
    }
    let wrong = spec.settings.len();
    spec.settings.insert("no_such_setting".into(), true.into());
    let Err(problems) = driver.plan(NAME, &spec, &facts) else { panic!("nonsense was planned") };
    assert!(problems.0.len() > wrong, "{wrong} settings are nonsense and one is unknown: {problems:?}");
    for problem in &problems.0 {
        assert!(!problem.path.is_empty() && !problem.message.is_empty(), "{problem:?}");
    }
}

/// A setting that the driver does not know is never ignored.
pub async fn plan_refuses_unknown_settings(fixture: &impl Fixture) {
    let driver = fixture.driver().await;
    let facts = fine("facts", driver.facts()).await;
    let mut spec = fixture.spec();
    spec.settings.insert("no_such_setting".into(), 1.into());
    spec.settings.insert("nor_this".into(), "x".into());
    let Err(problems) = driver.plan(NAME, &spec, &facts) else { panic!("unknown settings were accepted") };
    for name in ["settings.no_such_setting", "settings.nor_this"] {
        assert!(problems.0.iter().any(|problem| problem.path == name), "{name} is not named: {problems:?}");
    }
}

/// Planning twice gives the same and leaves nothing.
pub async fn plan_is_pure(fixture: &impl Fixture) {
    let driver = fixture.driver().await;
    let before = fine("list", driver.list()).await;
    assert_eq!(plan(&*driver, &fixture.spec()).await, plan(&*driver, &fixture.spec()).await);
    assert_eq!(fine("list", driver.list()).await, before);
}

/// Creating the same id again, also from a fresh driver, gives the same machine.
pub async fn create_is_idempotent_per_id(fixture: &impl Fixture) {
    let subject = Subject::created(fixture, &fixture.spec()).await;
    for driver in [subject.driver.clone(), fixture.driver().await] {
        let plan = plan(&*driver, &fixture.spec()).await;
        let again = fine("create again", driver.create(subject.id, &plan, &Notes::new())).await;
        assert_eq!(again, subject.handle);
        assert!(found(&*driver, subject.id).await.is_some());
    }
    subject.delete().await;
}

/// A created machine is complete and does not run.
pub async fn create_makes_a_stopped_machine(fixture: &impl Fixture) {
    let subject = Subject::created(fixture, &fixture.spec()).await;
    let seen = within("observe", subject.driver.observe(&subject.handle)).await;
    assert!(seen.complete && matches!(seen.observed, Observed::Off(_)), "{seen:?}");
    subject.delete().await;
}

/// What is made can be found by its id alone.
pub async fn create_tags_what_it_makes(fixture: &impl Fixture) {
    let subject = Subject::created(fixture, &fixture.spec()).await;
    let Some(found) = found(&*fixture.driver().await, subject.id).await else { panic!("not found by its id") };
    assert_eq!((found.handle, found.name.as_str()), (subject.handle.clone(), NAME));
    assert!(found.sighting.complete);
    subject.delete().await;
}

/// Runs a create that is cut off at its `n`th undo value, for every `n`; `check` sees what is left and cleans up.
async fn cut_off_everywhere<F: Fixture>(fixture: &F, check: impl AsyncFn(&dyn Driver, MachineId, &Notes)) {
    for limit in 0..100 {
        let driver = fixture.driver().await;
        let (id, notes) = (new_id(), Notes::refusing_after(limit));
        let plan = plan(&*driver, &fixture.spec()).await;
        if let Ok(handle) = within("create", driver.create(id, &plan, &notes)).await {
            let known = driver.undo_of_create(id, &plan).is_some();
            assert!(limit > 0 || known, "create left something behind and journalled nothing");
            fine("delete", driver.delete(&handle)).await;
            return;
        }
        drop(driver);
        check(&*fixture.driver().await, id, &notes).await;
    }
    panic!("create journals a hundred undo values");
}

/// With the undo values stored so far, everything that a cut-off create left can be put back.
pub async fn create_journals_before_it_leaves_something_behind(fixture: &impl Fixture) {
    let before = fixture.remains();
    cut_off_everywhere(fixture, async |driver, id, notes| {
        let record = record(Verb::Create, id);
        if let Recovered::Finished(handle) = fine("recover", driver.recover(&record, &notes.undos())).await {
            let Some(handle) = handle else { panic!("a finished create without a handle") };
            fine("delete", driver.delete(&handle)).await;
        }
        assert_eq!(found(driver, id).await, None, "left behind after {} undo values", notes.undos().len());
        assert_eq!(fixture.remains(), before, "left behind after {} undo values", notes.undos().len());
    })
    .await;
}

/// A machine whose creation was cut off never looks complete.
pub async fn create_writes_complete_last(fixture: &impl Fixture) {
    cut_off_everywhere(fixture, async |driver, id, notes| {
        if let Some(found) = found(driver, id).await {
            assert!(!found.sighting.complete, "complete after {} undo values: {found:?}", notes.undos().len());
            assert!(matches!(found.sighting.observed, Observed::Off(_)), "{found:?}");
        }
        fine("recover", driver.recover(&record(Verb::Create, id), &notes.undos())).await;
    })
    .await;
}

/// Recovering twice does what recovering once does.
pub async fn recover_is_idempotent(fixture: &impl Fixture) {
    cut_off_everywhere(fixture, async |driver, id, notes| {
        let record = record(Verb::Create, id);
        let first = fine("recover", driver.recover(&record, &notes.undos())).await;
        let left = found(driver, id).await;
        let second = fine("recover again", driver.recover(&record, &notes.undos())).await;
        assert_eq!((&first, left), (&second, found(driver, id).await));
        if let Recovered::Finished(Some(handle)) = first {
            fine("delete", driver.delete(&handle)).await;
        }
    })
    .await;
}

/// A create that had finished when the daemon died is finished, not reversed.
pub async fn recover_of_a_finished_create_keeps_the_machine(fixture: &impl Fixture) {
    let driver = fixture.driver().await;
    let (id, notes) = (new_id(), Notes::new());
    let plan = plan(&*driver, &fixture.spec()).await;
    let handle = fine("create", driver.create(id, &plan, &notes)).await;
    for driver in [driver, fixture.driver().await] {
        let recovered = fine("recover", driver.recover(&record(Verb::Create, id), &notes.undos())).await;
        assert_eq!(recovered, Recovered::Finished(Some(handle.clone())));
        assert!(found(&*driver, id).await.is_some_and(|found| found.sighting.complete));
    }
    fine("delete", fixture.driver().await.delete(&handle)).await;
}

/// A delete that was cut off before or after its work ends in one of the two, for good.
pub async fn recover_of_a_delete_is_idempotent(fixture: &impl Fixture) {
    for deleted in [false, true] {
        let subject = Subject::created(fixture, &fixture.spec()).await;
        if deleted {
            fine("delete", subject.driver.delete(&subject.handle)).await;
        }
        let driver = fixture.driver().await;
        let record = record(Verb::Delete, subject.id);
        let first = fine("recover", driver.recover(&record, &[])).await;
        let left = found(&*driver, subject.id).await;
        assert_eq!(fine("recover again", driver.recover(&record, &[])).await, first);
        assert_eq!(found(&*driver, subject.id).await, left);
        match first {
            Recovered::Finished(_) => assert_eq!(left, None),
            Recovered::Reversed => assert!(left.is_none_or(|found| found.sighting.complete), "half deleted and left so"),
        }
        subject.delete().await;
    }
}

/// Starting what runs is `Ok`.
pub async fn start_is_safe_to_repeat(fixture: &impl Fixture) {
    let subject = Subject::running(fixture).await;
    subject.start(fixture).await;
    subject.channels().await;
    subject.delete().await;
}

/// Starting what runs changes nothing, also from a fresh driver.
pub async fn start_does_not_create_a_second_life(fixture: &impl Fixture) {
    let subject = Subject::running(fixture).await;
    let before = subject.channels().await;
    let fresh = fixture.driver().await;
    for driver in [&subject.driver, &fresh] {
        fine("start again", driver.start(&subject.handle)).await;
        assert_eq!(subject.channels().await, before);
    }
    subject.delete().await;
}

/// Stopped and started again, a machine's channels are new ones.
pub async fn each_start_is_a_new_life(fixture: &impl Fixture) {
    let subject = Subject::running(fixture).await;
    let lives = |channels: Vec<Channel>| -> HashSet<u64> { channels.iter().map(|channel| channel.life).collect() };
    let first = lives(subject.channels().await);
    subject.kill().await;
    subject.start(fixture).await;
    let second = lives(subject.channels().await);
    assert!(first.is_disjoint(&second), "{first:?} {second:?}");
    subject.delete().await;
}

/// What is missing cannot be started.
pub async fn starting_what_is_missing_is_an_error(fixture: &impl Fixture) {
    let Subject { driver, handle, .. } = Subject::created(fixture, &fixture.spec()).await;
    fine("delete", driver.delete(&handle)).await;
    assert!(within("start", driver.start(&handle)).await.is_err());
    assert_eq!(within("observe", driver.observe(&handle)).await.observed, Observed::Missing);
}

/// A guest that obeys goes off by a polite stop alone.
pub async fn polite_stop_ends_an_obedient_guest(fixture: &impl Fixture) {
    let subject = Subject::running(fixture).await;
    let link = match subject.repl().await {
        Some(channel) => Some(fine("open", subject.driver.open(&subject.handle, &channel, 0)).await),
        None => None,
    };
    fine("stop", subject.driver.stop(&subject.handle, StopMode::Polite)).await;
    if let Some(mut link) = link {
        // The end of its channel is the event to wait for.
        super::talk::read_to_the_end(&mut *link.reader).await;
        let seen = subject.observe().await;
        assert!(matches!(seen, Observed::Off(_)), "{seen:?}");
    }
    subject.delete().await;
}

/// A guest that ignores a polite stop runs on.
pub async fn polite_stop_does_not_kill(fixture: &impl Fixture) {
    let Some(spec) = fixture.stubborn() else { return };
    let subject = Subject::created(fixture, &spec).await;
    subject.start(fixture).await;
    let before = subject.channels().await;
    for _ in 0..2 {
        // It may say that the guest does not listen; it must come back.
        let _ = within("a polite stop", subject.driver.stop(&subject.handle, StopMode::Polite)).await;
        assert_eq!(subject.channels().await, before, "the same life");
    }
    subject.kill().await;
    let seen = subject.observe().await;
    assert!(matches!(seen, Observed::Off(_)), "{seen:?}");
    subject.delete().await;
}

/// When a stop by force has returned, the machine is off.
pub async fn force_stop_returns_when_off(fixture: &impl Fixture) {
    let subject = Subject::running(fixture).await;
    subject.kill().await;
    let seen = subject.observe().await;
    assert!(matches!(seen, Observed::Off(_)), "{seen:?}");
    subject.delete().await;
}

/// Stopping what is off is `Ok`, either way, before the first start and after.
pub async fn stopping_what_is_off_is_ok(fixture: &impl Fixture) {
    let subject = Subject::created(fixture, &fixture.spec()).await;
    for _ in 0..2 {
        for how in [StopMode::Polite, StopMode::Force] {
            fine("stop what is off", subject.driver.stop(&subject.handle, how)).await;
        }
        subject.start(fixture).await;
        subject.kill().await;
    }
    subject.delete().await;
}

/// Nothing that was made for the machine is left.
pub async fn delete_takes_everything(fixture: &impl Fixture) {
    let before = fixture.remains();
    let subject = Subject::created(fixture, &fixture.spec()).await;
    let id = subject.id;
    assert_ne!(fixture.remains(), before, "the fixture sees what a driver makes");
    subject.delete().await;
    assert_eq!(found(&*fixture.driver().await, id).await, None);
    assert_eq!(fixture.remains(), before);
}

/// A running machine is deleted as well.
pub async fn delete_takes_what_runs(fixture: &impl Fixture) {
    let before = fixture.remains();
    let subject = Subject::running(fixture).await;
    let id = subject.id;
    assert_ne!(fixture.remains(), before, "the fixture sees what a driver makes");
    subject.delete().await;
    assert_eq!(found(&*fixture.driver().await, id).await, None);
    assert_eq!(fixture.remains(), before);
}

/// Deleting what is missing is `Ok`.
pub async fn deleting_what_is_missing_is_ok(fixture: &impl Fixture) {
    let Subject { driver, handle, .. } = Subject::created(fixture, &fixture.spec()).await;
    let fresh = fixture.driver().await;
    for driver in [&driver, &driver, &fresh] {
        fine("delete", driver.delete(&handle)).await;
    }
}

/// Looking comes back, also at a machine that is busy.
pub async fn observe_is_bounded(fixture: &impl Fixture) {
    let subject = Subject::created(fixture, &fixture.spec()).await;
    assert!(matches!(subject.observe().await, Observed::Off(_)));
    subject.start(fixture).await;
    subject.channels().await;
    if let Some(mut talk) = super::talk::Talk::open(&subject, 0).await {
        talk.eval(&fixture.code(super::Snippet::Forever)).await;
        talk.wait_for("the command to begin", |frame| frame.tag == vmoon_core::frame::tag::ACCEPTED).await;
        subject.channels().await;
    }
    subject.kill().await;
    assert!(matches!(subject.observe().await, Observed::Off(_)));
    subject.delete().await;
}

/// A handle of nothing, and nonsense for a handle, is `Missing`.
pub async fn unknown_handle_is_missing(fixture: &impl Fixture) {
    let Subject { driver, handle, .. } = Subject::created(fixture, &fixture.spec()).await;
    fine("delete", driver.delete(&handle)).await;
    for handle in [handle, Handle(String::new()), Handle("../\0x".into()), Handle("{}".into()), Handle("\"../../etc\"".into())] {
        let seen = within("observe", driver.observe(&handle)).await;
        assert_eq!(seen.observed, Observed::Missing, "{handle:?}");
    }
}

/// The list and a look at each machine agree.
pub async fn list_shows_what_observe_shows(fixture: &impl Fixture) {
    let subject = Subject::running(fixture).await;
    for _ in 0..2 {
        let Some(found) = found(&*subject.driver, subject.id).await else { panic!("it is not in the list") };
        assert_eq!(found.sighting, within("observe", subject.driver.observe(&subject.handle)).await);
        subject.kill().await;
    }
    subject.delete().await;
}

/// Everything is outside: a fresh driver knows as much, and the machine did not notice.
pub async fn a_fresh_driver_sees_the_same_machines(fixture: &impl Fixture) {
    let Subject { driver, id, handle } = Subject::running(fixture).await;
    let before = found(&*driver, id).await;
    assert!(before.is_some());
    drop(driver);
    let driver = fixture.driver().await;
    assert_eq!(found(&*driver, id).await, before);
    let subject = Subject { driver, id, handle };
    subject.channels().await;
    subject.delete().await;
}

/// No ability without the accessor for it.
pub async fn abilities_match_accessors(fixture: &impl Fixture) {
    let subject = Subject::running(fixture).await;
    let abilities = subject.driver.abilities(&subject.handle);
    assert!(!abilities.pause || subject.driver.pause().is_some());
    assert!(!abilities.suspend || subject.driver.suspend().is_some());
    assert_eq!(abilities.eval, subject.repl().await.is_some(), "eval means that there is a repl");
    subject.delete().await;
}

/// Pausing what is paused and resuming what runs is `Ok`; the life goes on.
pub async fn pause_and_resume_are_safe_to_repeat(fixture: &impl Fixture) {
    let subject = Subject::running(fixture).await;
    if let Some(pause) = subject.driver.pause().filter(|_| subject.driver.abilities(&subject.handle).pause) {
        let before = subject.channels().await;
        for _ in 0..2 {
            fine("pause", pause.pause(&subject.handle)).await;
            assert_eq!(subject.observe().await, Observed::Paused);
        }
        for _ in 0..2 {
            fine("resume", pause.resume(&subject.handle)).await;
            assert_eq!(subject.channels().await, before);
        }
        fine("pause", pause.pause(&subject.handle)).await;
        subject.kill().await;
        assert!(matches!(subject.observe().await, Observed::Off(_)), "a paused machine can be ended");
    }
    subject.delete().await;
}

/// Suspended to storage and back, the life goes on.
pub async fn suspend_and_resume_keep_the_life(fixture: &impl Fixture) {
    let subject = Subject::running(fixture).await;
    if let Some(suspend) = subject.driver.suspend().filter(|_| subject.driver.abilities(&subject.handle).suspend) {
        let before = subject.channels().await;
        fine("suspend", suspend.suspend(&subject.handle)).await;
        assert_eq!(subject.observe().await, Observed::Suspended);
        fine("resume", suspend.resume(&subject.handle)).await;
        assert_eq!(subject.channels().await, before);
    }
    subject.delete().await;
}
