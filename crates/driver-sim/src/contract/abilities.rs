//! The rules about abilities: what a driver offers through an accessor behaves as the trait's documentation says. Whatever a driver
//! lacks is skipped by design.

use super::{Fixture, Notes, Subject, fine, new_id, within};
use vmoon_core::{
    Code,
    ability::{NewSnapshot, Program},
    driver::{ChannelKind, Observed},
    frame::{Frame, tag},
};

fn snapshot(name: &str) -> NewSnapshot {
    NewSnapshot { name: name.into(), memory: None }
}

/// Snapshots are listed with parents before their children, and exactly one is the machine's own.
pub async fn snapshots_are_listed_parents_first(fixture: &impl Fixture) {
    let subject = Subject::running(fixture).await;
    if let Some(snapshots) = subject.driver.snapshots().filter(|_| fixture.snapshots()) {
        assert!(fine("list snapshots", snapshots.list(&subject.handle)).await.is_empty());
        for name in ["one", "two"] {
            let made = fine("make a snapshot", snapshots.create(&subject.handle, &snapshot(name))).await;
            assert_eq!(made.name, name);
        }
        let all = fine("list snapshots", snapshots.list(&subject.handle)).await;
        assert_eq!(all.iter().map(|one| one.name.as_str()).collect::<Vec<_>>(), ["one", "two"], "{all:?}");
        for (at, one) in all.iter().enumerate() {
            let before = |parent: &String| all[..at].iter().any(|other| other.name == *parent);
            assert!(one.parent.as_ref().is_none_or(before), "{all:?}");
        }
        assert!(all.iter().filter(|one| one.current).count() <= 1, "{all:?}");
    }
    subject.delete().await;
}

/// A name is taken once; a failure leaves no second one.
pub async fn a_snapshot_name_is_taken_once(fixture: &impl Fixture) {
    let subject = Subject::running(fixture).await;
    if let Some(snapshots) = subject.driver.snapshots().filter(|_| fixture.snapshots()) {
        fine("make a snapshot", snapshots.create(&subject.handle, &snapshot("one"))).await;
        let again = within("make it again", snapshots.create(&subject.handle, &snapshot("one"))).await;
        assert_eq!(again.map(drop).map_err(|error| error.code()), Err(Code::SnapshotExists));
        assert_eq!(fine("list snapshots", snapshots.list(&subject.handle)).await.len(), 1);
    }
    subject.delete().await;
}

/// Returning to a snapshot leaves a machine that exists and can run; one that is not there is an error.
pub async fn revert_returns_to_a_machine_that_works(fixture: &impl Fixture) {
    let subject = Subject::running(fixture).await;
    if let Some(snapshots) = subject.driver.snapshots().filter(|_| fixture.snapshots()) {
        fine("make a snapshot", snapshots.create(&subject.handle, &snapshot("one"))).await;
        fine("return to it", snapshots.revert(&subject.handle, "one")).await;
        let seen = subject.observe().await;
        assert!(!matches!(seen, Observed::Missing | Observed::Unreachable), "{seen:?}");
        if matches!(seen, Observed::Off(_)) {
            subject.start(fixture).await;
        }
        let missing = within("return to nothing", snapshots.revert(&subject.handle, "nothing")).await;
        assert_eq!(missing.map_err(|error| error.code()), Err(Code::SnapshotNotFound));
    }
    subject.delete().await;
}

/// Deleting a snapshot keeps its children; deleting what is missing is fine.
pub async fn deleting_a_snapshot_keeps_its_children(fixture: &impl Fixture) {
    let subject = Subject::running(fixture).await;
    if let Some(snapshots) = subject.driver.snapshots().filter(|_| fixture.snapshots()) {
        for name in ["one", "two"] {
            fine("make a snapshot", snapshots.create(&subject.handle, &snapshot(name))).await;
        }
        for _ in 0..2 {
            fine("delete a snapshot", snapshots.delete(&subject.handle, "one")).await;
        }
        let all = fine("list snapshots", snapshots.list(&subject.handle)).await;
        assert_eq!(all.iter().map(|one| one.name.as_str()).collect::<Vec<_>>(), ["two"], "{all:?}");
        assert!(all[0].parent.is_none(), "{all:?}");
    }
    subject.delete().await;
}

/// A program's status and output come back as they are.
pub async fn exec_passes_status_and_output(fixture: &impl Fixture) {
    let subject = Subject::running(fixture).await;
    if let (Some(exec), Some(argv)) = (subject.driver.exec(), fixture.program("hello world")) {
        let program = |argv: Vec<String>| Program { argv, stdin: Vec::new(), deadline_ms: 10_000 };
        let ended = fine("run a program", exec.exec(&subject.handle, &program(argv))).await;
        assert_eq!((ended.code, ended.signal, ended.truncated), (Some(0), None, false), "{ended:?}");
        assert_eq!(String::from_utf8_lossy(&ended.stdout).trim_end(), "hello world");
        let missing = within("run nothing", exec.exec(&subject.handle, &program(vec!["/no/such/program".into()]))).await;
        match missing {
            Err(error) => assert_eq!(error.code(), Code::FileNotFound),
            // Where a shell stands between, it says so with its status.
            Ok(ended) => assert_eq!(ended.code, Some(127), "{ended:?}"),
        }
    }
    subject.delete().await;
}

/// A machine that is off has no addresses, which is no error.
pub async fn addresses_of_what_is_off_are_none(fixture: &impl Fixture) {
    let subject = Subject::created(fixture, &fixture.spec()).await;
    if let Some(addresses) = subject.driver.addresses() {
        let found = fine("ask for addresses", addresses.addresses(&subject.handle)).await;
        assert!(found.iter().all(|address| address.ip.parse::<std::net::IpAddr>().is_ok()), "{found:?}");
    }
    subject.delete().await;
}

/// A dry run changes nothing, and all problems come at once.
pub async fn a_dry_run_of_changes_changes_nothing(fixture: &impl Fixture) {
    let subject = Subject::created(fixture, &fixture.spec()).await;
    if let (Some(tune), Some(settings)) = (subject.driver.tune(), fixture.change()) {
        let first = fine("plan changes", tune.tune(&subject.handle, &settings, true)).await;
        let second = fine("plan changes again", tune.tune(&subject.handle, &settings, true)).await;
        assert_eq!(first, second, "a dry run has changed something");
        assert!(!first.is_empty(), "the fixture's change is none");
        fine("make changes", tune.tune(&subject.handle, &settings, false)).await;
        let wrong = [("no-such-setting-a", 1), ("no-such-setting-b", 2)];
        let wrong = wrong.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect();
        let refused = within("make wrong changes", tune.tune(&subject.handle, &wrong, false)).await.map(drop);
        let Err(error) = refused else { panic!("unknown settings are accepted") };
        assert!(error.message().contains("no-such-setting-a") && error.message().contains("no-such-setting-b"), "{error}");
    }
    subject.delete().await;
}

/// A renamed machine is the same machine, under the handle that was given back.
pub async fn rename_keeps_the_machine(fixture: &impl Fixture) {
    let mut subject = Subject::created(fixture, &fixture.spec()).await;
    let renamed = match subject.driver.tune() {
        Some(tune) => Some(fine("rename", tune.rename(&subject.handle, "contract-renamed")).await),
        None => None,
    };
    if let Some(handle) = renamed {
        subject.handle = handle;
        assert!(matches!(subject.observe().await, Observed::Off(_)));
        let all = fine("list", subject.driver.list()).await;
        let found = all.iter().find(|found| found.id == Some(subject.id));
        assert_eq!(found.map(|found| (found.handle.clone(), found.name.as_str())), Some((subject.handle.clone(), "contract-renamed")));
    }
    subject.delete().await;
}

/// A copy runs as soon as it is created, and the original goes on in the same life.
pub async fn a_copy_goes_on_and_so_does_the_original(fixture: &impl Fixture) {
    let subject = Subject::running(fixture).await;
    if let Some(clones) = subject.driver.clones().filter(|_| fixture.copies()) {
        let before = subject.channels().await;
        let plan = fine("plan a copy", clones.plan("contract-copy", &subject.handle)).await;
        let id = new_id();
        let handle = fine("create the copy", subject.driver.create(id, &plan, &Notes::new())).await;
        let copy = Subject { driver: subject.driver.clone(), id, handle };
        assert!(!copy.channels().await.is_empty());
        assert_eq!(subject.channels().await, before, "the original's life");
        copy.kill().await;
        copy.delete().await;
    }
    subject.delete().await;
}

/// A terminal carries keys there and bytes back, under no command's number.
pub async fn a_terminal_carries_keys_and_bytes(fixture: &impl Fixture) {
    let subject = Subject::running(fixture).await;
    let terminal = subject.channels().await.into_iter().find(|channel| channel.kind == ChannelKind::Terminal);
    if let (Some(channel), Some((keys, wanted))) = (terminal, fixture.keys()) {
        let mut link = fine("open the terminal", subject.driver.open(&subject.handle, &channel, 0)).await;
        for frame in
            [Frame { tag: tag::RESIZE, id: 0, payload: &[80, 0, 24, 0] }, Frame { tag: tag::INPUT, id: 0, payload: keys.as_bytes() }]
        {
            fine("type", link.writer.send(frame)).await;
        }
        let (mut shown, mut buf) = (Vec::new(), Vec::new());
        while !shown.windows(wanted.len()).any(|window| window == wanted.as_bytes()) {
            fine("read the terminal", link.reader.next(&mut buf)).await;
            let mut rest = buf.as_slice();
            while let Ok(Some((frame, len))) = Frame::decode(rest) {
                if frame.tag == tag::STDOUT {
                    assert_eq!(frame.id, 0, "output of a terminal belongs to no command");
                    shown.extend_from_slice(frame.payload);
                }
                rest = &rest[len..];
            }
        }
    }
    subject.delete().await;
}
