//! The driver passes the suite that every driver passes. Its machines have no system: a firmware that finds nothing to boot ignores the power button.

use super::place::{Place, spec};
use serde_json::json;
use std::sync::Arc;
use tokio::sync::OnceCell;
use vmoon_core::{device::NewDevice, driver::Driver, spec::MachineSpec};
use vmoon_driver_sim::contract::{Fixture, Snippet};

/// Its lab is started when a rule needs one.
#[derive(Default)]
struct Libvirt(OnceCell<Place>);

impl Fixture for Libvirt {
    async fn driver(&self) -> Arc<dyn Driver> {
        self.0.get_or_init(Place::new).await.driver()
    }

    fn spec(&self) -> MachineSpec {
        let settings = json!({
            "memory": "64MiB", "cpus": 1, "disk": "16MiB", "firmware": "bios", "network": "none", "user": "ada", "accelerator": "tcg",
        });
        spec(settings)
    }

    fn device(&self) -> Option<NewDevice> {
        let settings = json!({"size": "8MiB"}).as_object().cloned().unwrap_or_default();
        Some(NewDevice { kind: "disk".into(), settings })
    }

    fn copies(&self) -> bool {
        // Disks are copied, and those of a running machine change meanwhile.
        false
    }

    fn stubborn(&self) -> Option<MachineSpec> {
        Some(self.spec())
    }

    fn has_repl(&self) -> bool {
        false
    }

    fn code(&self, _: Snippet<'_>) -> String {
        unreachable!("a serial console evaluates no code")
    }

    fn remains(&self) -> Vec<String> {
        self.0.get().map(Place::remains).unwrap_or_default()
    }
}

vmoon_driver_sim::contract_tests!(Libvirt::default());
