//! Work in place: what leaves a machine's state alone, or at least does not aim at one. Each is one call of one ability.

use serde_json::{Map, Value};
use vmoon_core::{
    Result,
    ability::NewSnapshot,
    device::DeviceChange,
    driver::{Driver, Handle, Journal, unsupported},
    name::escape,
};

/// What is to be done to a machine.
#[derive(Clone, Debug)]
pub(crate) enum Work {
    /// Make a snapshot.
    Snapshot(NewSnapshot),
    /// Return to a snapshot.
    Revert(String),
    /// Delete a snapshot.
    DeleteSnapshot(String),
    /// Change settings.
    Tune(Map<String, Value>),
    /// Give it another name.
    Rename(String),
    /// Add or remove a device.
    Device(DeviceChange),
    /// Press its reset button.
    Reset,
    /// Move it to another host.
    Migrate(String),
}

impl Work {
    /// What is being done, for people.
    pub(crate) fn phase(&self) -> String {
        match self {
            Self::Snapshot(new) => format!("making the snapshot {}", escape(&new.name)),
            Self::Revert(name) => format!("returning to the snapshot {}", escape(name)),
            Self::DeleteSnapshot(name) => format!("deleting the snapshot {}", escape(name)),
            Self::Tune(settings) => {
                format!("changing {}", settings.keys().map(|name| escape(name)).collect::<Vec<_>>().join(", "))
            }
            Self::Rename(name) => format!("renaming it to {}", escape(name)),
            Self::Device(DeviceChange::Add(new)) => format!("adding a {}", escape(&new.kind)),
            Self::Device(DeviceChange::Remove { name, .. }) => format!("removing the device {}", escape(name)),
            Self::Reset => "pressing its reset button".into(),
            Self::Migrate(host) => format!("moving it to {}", escape(host)),
        }
    }

    /// Does it. The handle is the machine's from now on, if it has another one.
    pub(super) async fn carry_out(self, driver: &dyn Driver, handle: &Handle, journal: &dyn Journal) -> Result<Option<Handle>> {
        let lacks = |what: &str| unsupported(&driver.info().kind, what);
        let snapshots = || driver.snapshots().ok_or_else(|| lacks("have snapshots"));
        let tune = || driver.tune().ok_or_else(|| lacks("be changed"));
        match self {
            Self::Snapshot(new) => drop(snapshots()?.create(handle, &new).await?),
            Self::Revert(name) => snapshots()?.revert(handle, &name).await?,
            Self::DeleteSnapshot(name) => snapshots()?.delete(handle, &name).await?,
            Self::Tune(settings) => drop(tune()?.tune(handle, &settings, false).await?),
            Self::Migrate(host) => driver.migrate().ok_or_else(|| lacks("be moved to another host"))?.migrate(handle, &host).await?,
            Self::Rename(name) => return tune()?.rename(handle, &name).await.map(Some),
            Self::Device(change) => driver.devices().ok_or_else(|| lacks("get other devices"))?.change(handle, &change, journal).await?,
            Self::Reset => driver.reset().ok_or_else(|| lacks("be reset"))?.reset(handle).await?,
        }
        Ok(None)
    }
}
