//! The driver of a connection whose own one cannot be made: everything is refused with the reason, nothing is lost.

use async_trait::async_trait;
use serde_json::{Map, Value};
use vmoon_core::{
    MachineId, Result,
    driver::{
        Abilities, Channel, Check, Driver, DriverInfo, Found, Handle, HostFacts, Journal, Observed, Offset, Plan, Recovered, SessionLink,
        Sighting, StopMode, Verdict,
    },
    error::ErrorRecord,
    operation::{OpRecord, Undo},
    spec::{MachineSpec, Problems},
};

/// Refuses.
pub(super) struct Unavailable {
    kind: String,
    why: ErrorRecord,
}

impl Unavailable {
    pub(super) fn new(kind: &str, why: ErrorRecord) -> Self {
        Self { kind: kind.into(), why }
    }

    fn refuse<T>(&self) -> Result<T> {
        Err(self.why.clone().into())
    }
}

#[async_trait]
impl Driver for Unavailable {
    fn info(&self) -> DriverInfo {
        DriverInfo { kind: self.kind.clone(), settings: Vec::new() }
    }

    async fn probe(&self) -> Vec<Check> {
        vec![Check {
            requirement: format!("connections of kind {} can be used", self.kind),
            verdict: Verdict::Fail,
            finding: self.why.message.clone(),
            fix: self.why.hint.clone().unwrap_or_default(),
        }]
    }

    async fn facts(&self) -> Result<HostFacts> {
        self.refuse()
    }

    fn plan(&self, _: &str, _: &MachineSpec, _: &HostFacts) -> Result<Plan, Problems> {
        let mut problems = Problems::default();
        problems.add("connection", self.why.message.clone());
        Err(problems)
    }

    async fn create(&self, _: MachineId, _: &Plan, _: &dyn Journal) -> Result<Handle> {
        self.refuse()
    }

    async fn start(&self, _: &Handle) -> Result<()> {
        self.refuse()
    }

    async fn stop(&self, _: &Handle, _: StopMode) -> Result<()> {
        self.refuse()
    }

    async fn delete(&self, _: &Handle) -> Result<()> {
        self.refuse()
    }

    async fn observe(&self, _: &Handle) -> Sighting {
        Sighting { observed: Observed::Unreachable, complete: false }
    }

    async fn list(&self) -> Result<Vec<Found>> {
        self.refuse()
    }

    async fn recover(&self, _: &OpRecord, _: &[Undo]) -> Result<Recovered> {
        self.refuse()
    }

    async fn open(&self, _: &Handle, _: &Channel, _: Offset) -> Result<SessionLink> {
        self.refuse()
    }

    fn abilities(&self, _: &Handle) -> Abilities {
        Abilities::default()
    }

    async fn describe(&self, _: &Handle) -> Map<String, Value> {
        Map::new()
    }
}
