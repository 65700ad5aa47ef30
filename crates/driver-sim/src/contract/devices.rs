//! The rules about devices and the reset button.

use super::{Fixture, Notes, Subject, fine, record, within};
use vmoon_core::{
    Code,
    device::{DeviceChange, NewDevice, Presence},
    driver::Recovered,
    machine::Verb,
};

/// What can be added is planned without being done, is there afterwards, and leaves nothing behind when it is removed.
pub async fn devices_come_and_go_without_a_trace(fixture: &impl Fixture) {
    let subject = Subject::created(fixture, &fixture.spec()).await;
    if let (Some(devices), Some(new)) = (subject.driver.devices(), fixture.device()) {
        assert!(devices.kinds().iter().any(|kind| kind.name == new.kind), "the fixture's device is of no kind that is offered");
        let (before, remains) = (fine("list devices", devices.list(&subject.handle)).await, fixture.remains());
        let add = DeviceChange::Add(new.clone());
        let planned = fine("plan a device", devices.plan(&subject.handle, &add)).await;
        assert_eq!(planned, fine("plan it again", devices.plan(&subject.handle, &add)).await);
        assert_eq!(before, fine("list devices", devices.list(&subject.handle)).await, "a plan has changed something");
        assert_eq!(remains, fixture.remains(), "a plan has left something behind");
        fine("add the device", devices.change(&subject.handle, &add, &Notes::new())).await;
        let after = fine("list devices", devices.list(&subject.handle)).await;
        let added: Vec<_> = after.iter().filter(|device| before.iter().all(|known| known.name != device.name)).collect();
        let [added] = added.as_slice() else { panic!("one device was added: {after:?}") };
        assert_eq!((added.kind.as_str(), added.presence), (new.kind.as_str(), Presence::Kept), "{added:?}");
        let remove = DeviceChange::Remove { name: added.name.clone(), keep: false };
        assert!(!fine("plan its removal", devices.plan(&subject.handle, &remove)).await.is_empty());
        fine("remove the device", devices.change(&subject.handle, &remove, &Notes::new())).await;
        assert_eq!(before, fine("list devices", devices.list(&subject.handle)).await);
        assert_eq!(remains, fixture.remains(), "the removed device has left something behind");
        // What is still plugged in when the machine is deleted goes with it: `Subject::delete` and the fixture's world say so.
        fine("add the device again", devices.change(&subject.handle, &add, &Notes::new())).await;
    }
    subject.delete().await;
    assert_eq!(fixture.remains(), Vec::<String>::new(), "the deleted machine has left something behind");
}

/// Whatever leaves something behind is journalled before; a failure and a crash leave the machine with the devices it had, or with the new one whole.
pub async fn a_device_is_journalled_before_it_leaves_something_behind(fixture: &impl Fixture) {
    let subject = Subject::created(fixture, &fixture.spec()).await;
    if let (Some(devices), Some(new)) = (subject.driver.devices(), fixture.device()) {
        let (before, remains) = (fine("list devices", devices.list(&subject.handle)).await, fixture.remains());
        let add = DeviceChange::Add(new);
        let refused = within("add without a journal", devices.change(&subject.handle, &add, &Notes::refusing_after(0))).await;
        assert_eq!(refused.map_err(|error| error.code()), Err(Code::StoreFailed));
        assert_eq!((before.clone(), remains.clone()), (fine("list", devices.list(&subject.handle)).await, fixture.remains()));
        let notes = Notes::new();
        fine("add the device", devices.change(&subject.handle, &add, &notes)).await;
        let record = record(Verb::Work, subject.id);
        for _ in 0..2 {
            match fine("recover", subject.driver.recover(&record, &notes.undos())).await {
                Recovered::Finished(_) => assert_eq!(before.len() + 1, fine("list", devices.list(&subject.handle)).await.len()),
                Recovered::Reversed => {
                    assert_eq!((before.clone(), remains.clone()), (fine("list", devices.list(&subject.handle)).await, fixture.remains()));
                }
            }
        }
    }
    subject.delete().await;
}

/// A kind that is not offered, settings that do not fit and names that are not there are refused.
pub async fn unknown_devices_are_refused(fixture: &impl Fixture) {
    let subject = Subject::created(fixture, &fixture.spec()).await;
    if let (Some(devices), Some(mut new)) = (subject.driver.devices(), fixture.device()) {
        let other = DeviceChange::Add(NewDevice { kind: "no-such-kind".into(), settings: serde_json::Map::new() });
        new.settings.insert("no-such-setting-a".into(), 1.into());
        new.settings.insert("no-such-setting-b".into(), 2.into());
        let gone = DeviceChange::Remove { name: "../no & such".into(), keep: false };
        for (change, code) in [(other, Code::SpecInvalid), (DeviceChange::Add(new), Code::SpecInvalid), (gone, Code::DeviceNotFound)] {
            let planned = within("plan it", devices.plan(&subject.handle, &change)).await.map(drop);
            assert_eq!(planned.as_ref().map_err(|error| error.code()), Err(code), "{change:?}");
            if let (Err(error), DeviceChange::Add(new)) = (&planned, &change)
                && !new.settings.is_empty()
            {
                assert!(error.message().contains("no-such-setting-a") && error.message().contains("no-such-setting-b"), "{error}");
            }
            let done = within("do it", devices.change(&subject.handle, &change, &Notes::new())).await;
            assert_eq!(done.map_err(|error| error.code()), Err(code), "{change:?}");
        }
    }
    subject.delete().await;
}

/// The reset button begins the guest anew in the same life; what is off has no use for it.
pub async fn reset_keeps_the_life(fixture: &impl Fixture) {
    let subject = Subject::running(fixture).await;
    if let Some(reset) = subject.driver.reset() {
        let before = subject.channels().await;
        fine("reset", reset.reset(&subject.handle)).await;
        assert_eq!(subject.channels().await, before);
        subject.kill().await;
        let off = within("reset what is off", reset.reset(&subject.handle)).await;
        assert_eq!(off.map_err(|error| error.code()), Err(Code::MachineStopped));
    }
    subject.delete().await;
}
