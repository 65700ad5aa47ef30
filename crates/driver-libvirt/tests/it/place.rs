//! A lab with a storage pool, and drivers for it.

use serde_json::Value;
use std::{fs, path::PathBuf, sync::Arc};
use uuid::Uuid;
use vmoon_core::{
    MachineId, Result,
    driver::{Driver, Handle, Journal},
    operation::{Progress, Undo},
    spec::MachineSpec,
};
use vmoon_driver_libvirt::{LibvirtConfig, LibvirtDriver};
use vmoon_libvirt_lab::Lab;
use vmoon_libvirt_wire::{Client, Options, UnixSocket, flags::PoolStart};

/// A libvirtd of a test's own, with the pool `default`.
pub(crate) struct Place {
    pub(crate) lab: Lab,
}

impl Place {
    pub(crate) async fn new() -> Self {
        Self::of(Lab::start()).await
    }

    /// One whose libvirtd differs.
    pub(crate) async fn of(lab: Lab) -> Self {
        let place = Self { lab };
        fs::create_dir(place.images()).unwrap();
        let xml = format!("<pool type='dir'><name>default</name><target><path>{}</path></target></pool>", place.images().display());
        let client = place.client().await;
        let pool = client.pool_define(&xml).await.unwrap();
        client.pool_start(&pool, PoolStart::NONE).await.unwrap();
        client.set_pool_autostart(&pool, true).await.unwrap();
        place
    }

    /// The directory of the pool.
    pub(crate) fn images(&self) -> PathBuf {
        self.lab.path().join("images")
    }

    /// A client that is not the driver's, as virsh would be.
    pub(crate) async fn client(&self) -> Client {
        Client::connect(UnixSocket(self.lab.socket()), "qemu:///system", Options::default()).await.unwrap()
    }

    pub(crate) fn uri(&self) -> String {
        format!("qemu+unix:///system?socket={}", self.lab.socket().display())
    }

    pub(crate) fn driver(&self) -> Arc<LibvirtDriver> {
        Arc::new(
            LibvirtDriver::connect(&LibvirtConfig {
                uri: self.uri(),
                runtime: Some(self.lab.path().join("runtime")),
                ..LibvirtConfig::default()
            })
            .unwrap(),
        )
    }

    /// Everything that machines leave on this host: volumes, definitions, saved states, firmware variables, states of TPMs.
    pub(crate) fn remains(&self) -> Vec<String> {
        let mut all = Vec::new();
        for folder in ["images", "etc/qemu", "lib/qemu/save", "lib/qemu/nvram", "lib/qemu/snapshot", "lib/swtpm"] {
            let Ok(entries) = fs::read_dir(self.lab.path().join(folder)) else { continue };
            let files =
                entries.flatten().map(|entry| entry.path()).filter(|path| !path.ends_with("networks") && !path.ends_with("autostart"));
            all.extend(files.map(|path| path.display().to_string()));
        }
        all.sort();
        all
    }
}

pub(crate) fn spec(settings: Value) -> MachineSpec {
    let Value::Object(settings) = settings else { panic!("settings are an object") };
    MachineSpec { kind: "libvirt".into(), settings, ..MachineSpec::default() }
}

pub(crate) fn new_id() -> MachineId {
    MachineId::from_uuid(Uuid::now_v7())
}

/// A journal that nobody reads.
pub(crate) struct Unread;

#[async_trait::async_trait]
impl Journal for Unread {
    fn progress(&self, _: Progress) {}
    async fn undo(&self, _: Undo) -> Result<()> {
        Ok(())
    }
}

/// A machine of these settings, off.
pub(crate) async fn created(driver: &dyn Driver, name: &str, settings: Value) -> Handle {
    let facts = driver.facts().await.unwrap();
    let plan = driver.plan(name, &spec(settings), &facts).unwrap_or_else(|problems| panic!("{problems:?}"));
    driver.create(new_id(), &plan, &Unread).await.unwrap_or_else(|error| panic!("{}", error.chain()))
}
