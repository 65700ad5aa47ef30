//! The simulated driver passes the suite that every driver passes.

use std::sync::Arc;
use vmoon_core::{device::NewDevice, driver::Driver, spec::MachineSpec};
use vmoon_driver_sim::{
    SimDriver, World,
    contract::{Fixture, Snippet},
};

struct Sim(Arc<World>);

impl Fixture for Sim {
    async fn driver(&self) -> Arc<dyn Driver> {
        Arc::new(SimDriver::new(self.0.clone()))
    }

    fn spec(&self) -> MachineSpec {
        let settings = [("serial".to_owned(), true.into())].into_iter().collect();
        MachineSpec { kind: "sim".into(), settings, ..MachineSpec::default() }
    }

    fn stubborn(&self) -> Option<MachineSpec> {
        let mut spec = self.spec();
        spec.settings.insert("ignores_stop".into(), true.into());
        Some(spec)
    }

    fn code(&self, what: Snippet<'_>) -> String {
        match what {
            Snippet::Print(text) => format!("echo {text}"),
            Snippet::Value(text) => format!("value {text}"),
            Snippet::Fail(text) => format!("error {text}"),
            Snippet::Forever => "hang".into(),
            Snippet::Unfinished => "echo (".into(),
            Snippet::Flood(bytes) => format!("flood {bytes}"),
            Snippet::Ask => "ask".into(),
            Snippet::Exit(status) => format!("exit {status}"),
        }
    }

    fn program(&self, text: &str) -> Option<Vec<String>> {
        Some(vec!["echo".into(), text.into()])
    }

    fn change(&self) -> Option<serde_json::Map<String, serde_json::Value>> {
        Some([("memory".to_owned(), 64.into())].into_iter().collect())
    }

    fn device(&self) -> Option<NewDevice> {
        Some(NewDevice { kind: "disk".into(), settings: [("size".to_owned(), 7.into())].into_iter().collect() })
    }

    fn keys(&self) -> Option<(String, String)> {
        Some(("echo hi\r".into(), "[80x24]\r\necho hi\r\nhi\r\n".into()))
    }

    fn remains(&self) -> Vec<String> {
        [self.0.machines(), self.0.disks()].concat()
    }

    fn pass(&self, ms: u64) {
        self.0.advance(ms);
    }
}

vmoon_driver_sim::contract_tests!(Sim(World::new()));
