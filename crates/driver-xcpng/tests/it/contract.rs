//! The suite that every driver passes.

use crate::{driver, ring, settings};
use serde_json::json;
use std::{sync::Arc, time::Duration};
use vmoon_core::{driver::Driver, spec::MachineSpec};
use vmoon_driver_sim::contract::{Fixture, Snippet};
use vmoon_xapi_sim::{Server, Settings};

struct Pool(Server);

impl Fixture for Pool {
    async fn driver(&self) -> Arc<dyn Driver> {
        Arc::new(driver(&self.0, ring(&self.0)))
    }

    fn spec(&self) -> MachineSpec {
        // A template of the product, which is the hard case, and a disk besides.
        let settings = settings(json!({"template": "Debian Bookworm 12", "disk": "1GiB", "memory": "1GiB", "cpus": 2}));
        MachineSpec { kind: "xcpng".into(), settings, ..MachineSpec::default() }
    }

    fn code(&self, _: Snippet<'_>) -> String {
        String::new()
    }

    fn remains(&self) -> Vec<String> {
        let sim = &self.0.sim;
        ["VM", "VDI", "VBD", "VIF", "console", "VM_guest_metrics"]
            .iter()
            .flat_map(|class| sim.names(class).into_iter().map(move |name| format!("{class} {name}")))
            .collect()
    }
}

/// A pool whose server lives on a thread of its own, as the suite makes fixtures outside of a runtime.
fn fixture() -> Pool {
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let server = Server::start(&Settings { tools: Duration::ZERO, ..Settings::default() }).await.unwrap();
            if tell.send(server).is_ok() {
                std::future::pending::<()>().await;
            }
        });
    });
    Pool(told.recv().unwrap())
}

vmoon_driver_sim::contract_tests!(fixture());
