//! Copies of VMs that are off: their disks share blocks with the original's, or are copied in full.

use super::{XcpngDriver, checks::allowed, pool::Pool, uuid};
use crate::settings::{self, Settings};
use async_trait::async_trait;
use serde_json::{Map, Value};
use vmoon_core::{
    Code, Error, Result,
    driver::{BEWARE, Clones, Driver as _, Handle, Plan, as_original},
    name::escape,
    spec::Problems,
};
use vmoon_xapi::records::PowerState;

/// What a copy may have otherwise.
const OTHERWISE: [&str; 3] = ["copy", "sr", "description"];

impl Pool {
    async fn plan_copy(&self, name: &str, uuid: &str, given: &Map<String, Value>, mut problems: Problems) -> Result<Plan> {
        let (_, vm) = self.known(uuid).await?;
        let facts = self.facts().await?;
        let mut settings = Settings { original: Some(vm.uuid.clone()), template_name: vm.name_label.clone(), ..Settings::default() };
        settings::copying(given, &facts, &mut settings, &mut problems);
        problems.or(())?;
        let mut reasons = Vec::new();
        match vm.power_state {
            PowerState::Halted => {}
            PowerState::Suspended => {
                reasons.push("it is suspended, and its memory belongs to its disks: resume and stop it first".to_owned())
            }
            _ => reasons.push("it runs, and its disks change while they are copied: stop it first".to_owned()),
        }
        if let Err(error) = allowed(&vm, if settings.full { "copy" } else { "clone" }, "copy the VM") {
            reasons.push(error.to_string());
        }
        if !reasons.is_empty() {
            let message = format!("{} cannot be copied: {}", escape(&vm.name_label), reasons.join("; "));
            return Err(Error::new(Code::MachineNotCopyable, message).detail(reasons.into()));
        }
        let how = if settings.full { "in full" } else { "sharing blocks with it" };
        let shown = escape(&vm.name_label);
        let mut steps = vec![format!("copy {shown} as {name}, {how}, with interfaces of its own addresses")];
        if self.has_seed(&vm).await? {
            steps.push(
                "make of the seed that of another instance: cloud-init sets the system up once more, with the same users and keys".into(),
            );
        }
        steps.push("tag it and its disks as made by vmoon".into());
        steps.push(format!("{BEWARE}the system in it is the same, with its host name, SSH host keys and machine id"));
        if let Some(guests) = self.guests() {
            steps.push(match guests.is_known(&vm.uuid) {
                true => format!("enter it as {shown} is entered: the same login, the same keys"),
                false => format!("nobody has said how {shown} is entered, so its copy is not; if you know: vmoon set {name} ssh-user=USER"),
            });
        }
        let settings = serde_json::to_value(&settings).map_err(|error| Error::internal("a plan cannot be written").source(error))?;
        Ok(Plan { name: name.to_owned(), steps, settings })
    }
}

#[async_trait]
impl Clones for XcpngDriver {
    async fn plan(&self, name: &str, original: &Handle) -> Result<Plan> {
        self.0.plan_copy(name, &uuid(original)?, &Map::new(), Problems::default()).await
    }

    async fn plan_with(&self, name: &str, original: &Handle, settings: &Map<String, Value>) -> Result<Plan> {
        let problems = as_original(&self.info(), &OTHERWISE, self.tune().is_some(), settings);
        self.0.plan_copy(name, &uuid(original)?, settings, problems).await
    }
}
