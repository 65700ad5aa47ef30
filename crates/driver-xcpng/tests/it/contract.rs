//! The suite that every driver passes.

use crate::{driver, ring, settings};
use serde_json::json;
use std::{sync::Arc, time::Duration};
use vmoon_core::{device::NewDevice, driver::Driver, spec::MachineSpec};
use vmoon_driver_sim::contract::{Fixture, Snippet};
use vmoon_xapi_sim::{Server, Settings};

/// A pool, and what it had before anything was made.
struct Pool(Server, Vec<String>);

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
        let mut left = everything(&self.0);
        for known in &self.1 {
            left.remove(left.iter().position(|name| name == known).unwrap_or_else(|| panic!("{known} is gone")));
        }
        left
    }

    fn copies(&self) -> bool {
        // Of VMs that are off only.
        false
    }

    fn device(&self) -> Option<NewDevice> {
        Some(NewDevice { kind: "disk".into(), settings: settings(json!({"size": "1GiB"})) })
    }

    fn keys(&self) -> Option<(String, String)> {
        Some(("hello".into(), "hello".into()))
    }
}

pub(crate) fn everything(server: &Server) -> Vec<String> {
    ["VM", "VDI", "VBD", "VIF", "console", "VM_guest_metrics"]
        .iter()
        .flat_map(|class| server.sim.names(class).into_iter().map(move |name| format!("{class} {name}")))
        .collect()
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
    let server = told.recv().unwrap();
    let before = everything(&server);
    Pool(server, before)
}

vmoon_driver_sim::contract_tests!(fixture());
