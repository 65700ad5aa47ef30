//! Making a machine: defined first, so that libvirt has validated it and it can be found by its id; then its volumes; last the mark that it is complete. Each
//! step that leaves something behind is journalled before, and undone when a later one fails.

use super::{Inner, errors::Doing as _, look, storage::Storage};
use crate::{
    model::{Blueprint, Content, PoolRef, volume_name},
    render::{NAMESPACE, PREFIX, Tag},
};
use serde::{Deserialize, Serialize};
use std::path::Path;
use uuid::Uuid;
use vmoon_core::{
    Code, Error, MachineId, Result,
    driver::{Handle, Journal, Plan, Recovered},
    machine::Verb,
    operation::{OpRecord, Progress, Undo},
};
use vmoon_libvirt_wire::{
    Domain,
    flags::{Affect, Define},
};
use vmoon_seed::cloud::Entry;

/// The largest file of user-data, bytes: a seed is not for software.
const USER_DATA: usize = 1 << 20;

/// What a step left behind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "left", rename_all = "snake_case")]
pub(crate) enum Left {
    /// The definition of the machine.
    Domain,
    /// This volume.
    Volume { path: String },
    /// A device that was being added to a machine, with the image made for it.
    Device {
        uuid: Uuid,
        name: String,
        #[serde(default)]
        path: Option<String>,
    },
    /// A device that was being taken away, with the image to delete then.
    Removal {
        uuid: Uuid,
        name: String,
        #[serde(default)]
        path: Option<String>,
    },
}

fn say(journal: &dyn Journal, phase: impl Into<String>, step: usize, steps: usize) {
    let percent = u8::try_from(step * 100 / steps.max(1)).ok();
    journal.progress(Progress { phase: phase.into(), percent });
}

pub(super) async fn note(journal: &dyn Journal, left: &Left) -> Result<()> {
    let value = serde_json::to_value(left).map_err(|error| Error::internal("an undo value cannot be written").source(error))?;
    journal.undo(Undo(value)).await
}

impl Inner {
    /// Makes the machine of a plan.
    pub(crate) async fn create(&self, id: MachineId, plan: &Plan, journal: &dyn Journal) -> Result<Handle> {
        let blueprint: Blueprint = serde_json::from_value(plan.settings.clone())
            .map_err(|error| Error::internal("the plan is not one of the libvirt driver").source(error))?;
        let client = self.link.client().await?;
        let domain = Domain::of(id.uuid());
        match look::tag(&client, &domain).await {
            Ok(Some(tag)) if tag.complete => return Ok(look::handle_of(id.uuid())),
            Ok(_) => {}
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error).doing("look for the machine"),
        }
        self.name_is_free(&client, &blueprint.name, id).await?;
        let storage = Storage { client: &client, local: self.link.endpoint.is_local() };
        self.everything_is_there(&storage, &blueprint).await?;
        if let Some(environment) = &blueprint.environment {
            self.guests()?.look_for(environment).await?;
        }
        let seed = match self.seed(id, &blueprint).await {
            Ok(seed) => seed,
            Err(error) => {
                self.forget_inside(id.uuid());
                return Err(error);
            }
        };

        if let Some(original) = &blueprint.copy_of {
            self.entry_of_copy(original, id)?;
        }
        let mut left = Vec::new();
        let made = self.build(id, &blueprint, &storage, seed, journal, &mut left).await;
        if let Err(error) = made {
            // Whatever cannot be undone now is undone by recover, from the journal.
            if let Err(second) = self.reverse(id, &left).await {
                tracing::warn!(machine = %id, error = %second.chain(), "a failed creation left something behind");
            }
            return Err(error);
        }
        Ok(look::handle_of(id.uuid()))
    }

    async fn name_is_free(&self, client: &vmoon_libvirt_wire::Client, name: &str, id: MachineId) -> Result<()> {
        match client.domain_named(name).await {
            Ok(other) if other.uuid != id.uuid() => {
                Err(Error::new(Code::MachineExists, format!("the hypervisor has a domain {name} already")).hint("choose another name"))
            }
            Ok(_) => Ok(()),
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) => Err(error).doing("look for the name"),
        }
    }

    /// Everything that the user names must be there before anything is made; all that is missing is told at once.
    async fn everything_is_there(&self, storage: &Storage<'_>, blueprint: &Blueprint) -> Result<()> {
        let mut problems = vmoon_core::spec::Problems::default();
        for need in &blueprint.needs {
            if !storage.exists(&need.path).await? {
                problems.add(format!("settings.{}", need.setting), format!("there is no {}", need.path));
            }
        }
        Ok(problems.or(())?)
    }

    async fn seed(&self, id: MachineId, blueprint: &Blueprint) -> Result<Option<Vec<u8>>> {
        let Some(seed) = &blueprint.seed else { return Ok(None) };
        let user_data = match seed {
            vmoon_seed::Seed::Cloud(cloud) => cloud.user_data.clone(),
            vmoon_seed::Seed::Windows(_) => None,
        };
        let user_data = match user_data {
            None => None,
            Some(path) => Some(
                super::storage::blocking(move || {
                    let head = vmoon_sys::image::head(Path::new(&path), USER_DATA + 1);
                    let data = head.map_err(|error| Error::io(format_args!("read the user-data {path}"), error))?;
                    if data.len() > USER_DATA {
                        return Err(Error::new(Code::SpecInvalid, format!("the user-data {path} is larger than 1 MiB")));
                    }
                    Ok(data)
                })
                .await?,
            ),
        };
        let entry = self.entry(id, seed, blueprint.environment.as_deref())?;
        let entry = entry.as_ref().map(|entry| Entry {
            user: &entry.user,
            key: &entry.key,
            host_private: entry.host.private(),
            host_public: entry.host.public(),
        });
        seed.image_with(id, user_data, entry).map(Some)
    }

    async fn build(
        &self,
        id: MachineId,
        blueprint: &Blueprint,
        storage: &Storage<'_>,
        seed: Option<Vec<u8>>,
        journal: &dyn Journal,
        left: &mut Vec<Left>,
    ) -> Result<()> {
        let client = storage.client;
        let steps = blueprint.volumes.len() + 2;
        say(journal, "define the domain", 0, steps);
        note(journal, &Left::Domain).await?;
        left.push(Left::Domain);
        let xml = blueprint.xml(Some(id), false)?;
        let domain = client.define(&xml.to_text(), Define::VALIDATE).await.doing("define the machine")?;
        // A base is no disk of the domain: libvirt cannot be asked for it so.
        for need in blueprint.needs.iter().filter(|need| need.setting != "base") {
            storage.is_seen(&domain, &need.path, &need.path).await?;
        }
        for (n, volume) in blueprint.volumes.iter().enumerate() {
            let Some(pool) = &blueprint.pool else { return Err(Error::internal("a plan has volumes and no pool")) };
            let name = volume_name(&blueprint.name, Some(id), volume);
            say(journal, format!("make the volume {name}"), n + 1, steps);
            let volume_left = Left::Volume { path: blueprint.path_of(Some(id), volume) };
            note(journal, &volume_left).await?;
            left.push(volume_left);
            let seed = match &volume.content {
                Content::Again { path } => Some(storage.renewed(path, id).await?),
                _ => seed.clone(),
            };
            storage.make(pool, &name, volume, seed).await?;
            self.is_found(storage, pool, &blueprint.path_of(Some(id), volume)).await?;
        }
        if blueprint.autostart {
            client.set_autostart(&domain, true).await.doing("let the machine start with the host")?;
        }
        say(journal, "mark the domain as complete", steps - 1, steps);
        let tag = Tag { id, complete: true, template: blueprint.template.clone(), life: None };
        let element = tag.element().to_text();
        client.set_metadata(&domain, Some(&element), PREFIX, NAMESPACE, Affect::CONFIG).await.doing("mark the machine as complete")
    }

    /// The first image in a directory shows whether libvirt sees the same files there as we do: one that runs in a container may have others at that path.
    pub(crate) async fn is_found(&self, storage: &Storage<'_>, pool: &PoolRef, path: &str) -> Result<()> {
        if !storage.local || !pool.files || self.link.shares(&pool.target) {
            return Ok(());
        }
        if storage.volume_at(path).await?.is_none() {
            return Err(super::storage::unseen(path));
        }
        self.link.found_in(&pool.target);
        Ok(())
    }

    /// Takes back what a creation has left, newest first.
    async fn reverse(&self, id: MachineId, left: &[Left]) -> Result<()> {
        self.forget_inside(id.uuid());
        let client = self.link.client().await?;
        let storage = Storage { client: &client, local: self.link.endpoint.is_local() };
        for step in left.iter().rev() {
            match step {
                Left::Volume { path } => storage.delete(path).await?,
                Left::Domain => self.undefine(&client, id.uuid()).await?,
                Left::Device { uuid, name, path } => self.take_back(*uuid, name, path.as_deref()).await?,
                Left::Removal { .. } => {}
            }
        }
        Ok(())
    }

    /// Finishes or reverses what a crash has cut off.
    pub(crate) async fn recover(&self, op: &OpRecord, undos: &[Undo]) -> Result<Recovered> {
        let (id, handle) = (op.machine, look::handle_of(op.machine.uuid()));
        match op.verb {
            Verb::Create => {
                let client = self.link.client().await?;
                match look::tag(&client, &Domain::of(id.uuid())).await {
                    Ok(Some(tag)) if tag.complete => return Ok(Recovered::Finished(Some(handle))),
                    Ok(_) => {}
                    Err(error) if error.is_not_found() => {}
                    Err(error) => return Err(error).doing("look for the machine"),
                }
                let left: Vec<Left> = undos.iter().filter_map(|undo| serde_json::from_value(undo.0.clone()).ok()).collect();
                self.reverse(id, &left).await?;
                Ok(Recovered::Reversed)
            }
            Verb::Delete => {
                self.delete(&handle).await?;
                Ok(Recovered::Finished(None))
            }
            Verb::Kill => {
                self.force(&handle).await?;
                Ok(Recovered::Finished(None))
            }
            Verb::Start | Verb::Restart | Verb::Resume => {
                // One that was started and not yet let run goes on.
                self.let_run(&handle).await?;
                let seen = self.look(&handle).await.observed;
                Ok(if matches!(seen, vmoon_core::driver::Observed::On(_)) { Recovered::Finished(None) } else { Recovered::Reversed })
            }
            Verb::Work => {
                let left: Vec<Left> = undos.iter().filter_map(|undo| serde_json::from_value(undo.0.clone()).ok()).collect();
                self.reverse(id, &left).await?;
                match left.last() {
                    Some(Left::Device { .. }) => Ok(Recovered::Reversed),
                    Some(Left::Removal { uuid, name, path }) if !self.finish_removal(*uuid, name, path.as_deref()).await? => {
                        Ok(Recovered::Reversed)
                    }
                    _ => Ok(Recovered::Finished(None)),
                }
            }
            _ => Ok(Recovered::Finished(None)),
        }
    }
}
