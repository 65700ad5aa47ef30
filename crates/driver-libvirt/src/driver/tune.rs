//! Changing machines that exist: memory, processors, whether they start with the host, their name. The stored definition is changed as a whole, in the nodes
//! that are meant and no others; what runs is changed where the hypervisor can, and what cannot be is said to be for the next start.

use super::{Inner, errors::Doing as _};
use crate::qcow2;
use serde_json::{Map, Value};
use vmoon_core::{
    Code, Error, Result,
    ability::{Change, Effect},
    driver::Handle,
    size,
    spec::Problems,
};
use vmoon_guest::settings::Wanted as Inside;
use vmoon_libvirt_wire::flags::{Affect, Define, Xml};
use vmoon_xml::{Element, can_hold};

/// What is to be changed.
#[derive(Debug, Default, PartialEq, Eq)]
struct Wanted {
    /// Bytes.
    memory: Option<u64>,
    cpus: Option<u32>,
    autostart: Option<bool>,
    /// Bytes.
    disk: Option<u64>,
    /// The image in the first drive; an empty one takes it out.
    iso: Option<Option<String>>,
}

fn wanted(settings: &Map<String, Value>) -> Result<Wanted, Problems> {
    let (mut wanted, mut problems) = (Wanted::default(), Problems::default());
    for (name, value) in settings {
        let path = format!("settings.{name}");
        let text = value.as_str().unwrap_or_default();
        match name.as_str() {
            "memory" => {
                wanted.memory = size::of(value).filter(|bytes| (1 << 20..=64 << 40).contains(bytes));
                if wanted.memory.is_none() {
                    problems.add(path, "must be a size between 1 MiB and 64 TiB, for example 4GiB");
                }
            }
            "cpus" => {
                let count = value.as_u64().or_else(|| text.trim().parse().ok()).filter(|count| (1..=512).contains(count));
                wanted.cpus = count.and_then(|count| u32::try_from(count).ok());
                if wanted.cpus.is_none() {
                    problems.add(path, "must be a whole number between 1 and 512");
                }
            }
            "autostart" => {
                wanted.autostart = match (value, text) {
                    (Value::Bool(flag), _) => Some(*flag),
                    (_, "yes" | "on" | "true") => Some(true),
                    (_, "no" | "off" | "false") => Some(false),
                    _ => None,
                };
                if wanted.autostart.is_none() {
                    problems.add(path, "must be yes or no");
                }
            }
            "disk" => {
                wanted.disk = size::of(value).filter(|bytes| (1..=qcow2::MAX_SIZE).contains(bytes));
                if wanted.disk.is_none() {
                    problems.add(path, "must be a size, for example 40GiB");
                }
            }
            "iso" => match value {
                Value::String(text) if text.is_empty() || text == "none" => wanted.iso = Some(None),
                Value::String(text) if text.starts_with('/') && can_hold(text) => wanted.iso = Some(Some(text.clone())),
                _ => problems.add(path, "must be the absolute path of an image, or none to take it out"),
            },
            _ => problems.add(path, "cannot be changed on a machine that exists; memory, cpus, autostart, disk, iso, env and ssh-… can"),
        }
    }
    problems.or(wanted)
}

/// The bytes that an element with a unit says.
fn bytes_of(element: &Element) -> Option<u64> {
    let number: u64 = element.content().parse().ok()?;
    let unit = match element.attribute("unit").unwrap_or("KiB") {
        "b" | "bytes" => 1,
        "KB" => 1000,
        "k" | "KiB" => 1 << 10,
        "MB" => 1_000_000,
        "M" | "MiB" => 1 << 20,
        "GB" => 1_000_000_000,
        "G" | "GiB" => 1 << 30,
        "TB" => 1_000_000_000_000,
        "T" | "TiB" => 1 << 40,
        _ => return None,
    };
    number.checked_mul(unit)
}

fn set_memory(domain: &mut Element, bytes: u64) {
    for name in ["memory", "currentMemory"] {
        if name == "memory" || domain.first(name).is_some() {
            let element = domain.ensure(name);
            element.attributes.clear();
            element.set("unit", "KiB");
            element.children.clear();
            element.children.push(vmoon_xml::Node::Text(bytes.div_ceil(1024).to_string()));
        }
    }
}

/// Sets the number of processors and what has to agree with it.
fn set_cpus(domain: &mut Element, count: u32) {
    let element = domain.ensure("vcpu");
    element.attributes.retain(|(name, _)| name != "current");
    element.children.clear();
    element.children.push(vmoon_xml::Node::Text(count.to_string()));
    // What lists single processors is of the old number.
    domain.remove(|element| element.name == "vcpus");
    let Some(topology) = domain.first_mut("cpu").and_then(|cpu| cpu.first_mut("topology")) else { return };
    let number = |name: &str| topology.attribute(name).and_then(|text| text.parse::<u32>().ok()).unwrap_or(1).max(1);
    let (mut sockets, dies, mut threads) = (number("sockets"), number("dies"), number("threads"));
    let mut fixed = sockets * dies * threads;
    if !count.is_multiple_of(fixed) {
        (sockets, threads) = (1, 1);
        fixed = dies;
    }
    let (dies, fixed) = if count.is_multiple_of(fixed) { (dies, fixed) } else { (1, 1) };
    for (name, value) in [("sockets", sockets), ("cores", count / fixed), ("threads", threads)] {
        topology.set(name, value);
    }
    if topology.attribute("dies").is_some() {
        topology.set("dies", dies);
    }
}

impl Inner {
    /// What concerns entering the guest, and the rest.
    fn split(&self, settings: &Map<String, Value>) -> Result<(Inside, Wanted), Problems> {
        let (mut rest, mut problems) = (settings.clone(), Problems::default());
        let inside = Inside::take(&mut rest, &mut problems);
        let read = wanted(&rest);
        match read {
            Ok(wanted) => problems.or((inside, wanted)),
            Err(more) => {
                problems.0.extend(more.0);
                Err(problems)
            }
        }
    }

    pub(crate) async fn tune(&self, handle: &Handle, settings: &Map<String, Value>, dry_run: bool) -> Result<Vec<Change>> {
        let (inside, wanted) = self.split(settings)?;
        let what = "change the machine";
        let client = self.link.client().await?;
        let domain = self.domain(&client, handle).await?;
        if wanted == Wanted::default() {
            return self.tune_inside(handle, &inside, dry_run).await;
        }
        let running = domain.id >= 0;
        let later = if running { Effect::NextStart } else { Effect::Now };
        let mut stored = Element::parse(&client.domain_xml(&domain, Xml::INACTIVE | Xml::SECURE).await.doing(what)?)?;
        let mut changes = self.tune_inside(handle, &inside, true).await?;
        let (mut redefine, mut live) = (false, None);
        if let Some(bytes) = wanted.memory {
            let before = stored.first("memory").and_then(bytes_of).unwrap_or(0);
            let now = if running {
                // What runs can be given less, or again what it was started with.
                let most = Element::parse(&client.domain_xml(&domain, Xml::NONE).await.doing(what)?)?.first("memory").and_then(bytes_of);
                most.is_some_and(|most| bytes <= most)
            } else {
                false
            };
            live = now.then_some(bytes);
            if before != bytes || live.is_some() {
                set_memory(&mut stored, bytes);
                redefine = true;
                let effect = if now { Effect::Now } else { later };
                changes.push(Change {
                    setting: "memory".into(),
                    what: format!("memory {} → {}", size::show(before), size::show(bytes)),
                    effect,
                });
            }
        }
        if let Some(count) = wanted.cpus {
            let before = stored.first("vcpu").map(Element::content).unwrap_or_default();
            if before != count.to_string() {
                set_cpus(&mut stored, count);
                redefine = true;
                changes.push(Change { setting: "cpus".into(), what: format!("processors {before} → {count}"), effect: later });
            }
        }
        let mut autostart = None;
        if let Some(on) = wanted.autostart
            && client.autostart(&domain).await.doing(what)? != on
        {
            autostart = Some(on);
            let word = |on: bool| if on { "yes" } else { "no" };
            changes.push(Change {
                setting: "autostart".into(),
                what: format!("autostart {} → {}", word(!on), word(on)),
                effect: Effect::Now,
            });
        }
        let mut growth = None;
        if let Some(bytes) = wanted.disk
            && let Some((planned, change)) = self.plan_growth(&client, &domain, &stored, bytes).await?
        {
            growth = Some(planned);
            changes.push(change);
        }
        let mut insertion = None;
        if let Some(image) = &wanted.iso
            && let Some((planned, change)) = self.plan_insertion(&client, &domain, &stored, image.as_deref()).await?
        {
            insertion = Some(planned);
            changes.push(change);
        }
        if dry_run {
            return Ok(changes);
        }
        if redefine {
            client.define(&stored.to_text(), Define::VALIDATE).await.doing(what)?;
        }
        if let Some(bytes) = live {
            client.set_memory(&domain, bytes.div_ceil(1024), Affect::LIVE).await.doing("change the memory of the running machine")?;
        }
        if let Some(on) = autostart {
            client.set_autostart(&domain, on).await.doing(what)?;
        }
        if let Some(growth) = &growth {
            self.grow(&client, &domain, growth).await?;
        }
        if let Some(insertion) = &insertion {
            self.insert(&client, &domain, insertion).await?;
        }
        self.tune_inside(handle, &inside, false).await?;
        Ok(changes)
    }

    pub(crate) async fn rename(&self, handle: &Handle, name: &str) -> Result<Handle> {
        vmoon_core::name::check(name)?;
        let client = self.link.client().await?;
        let domain = self.domain(&client, handle).await?;
        if domain.name == name {
            return Ok(handle.clone());
        }
        if domain.id >= 0 {
            return Err(Error::new(Code::MachineRunning, "libvirt renames machines that are off only").hint("stop it first"));
        }
        client.rename(&domain, name).await.doing("rename the machine")?;
        Ok(handle.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn settings(value: Value) -> Map<String, Value> {
        value.as_object().cloned().unwrap_or_default()
    }

    #[test]
    fn all_problems_are_told() {
        let problems =
            wanted(&settings(json!({"memory": "x", "cpus": 0, "autostart": 3, "disk": 0, "iso": "x", "pool": "p"}))).unwrap_err();
        assert_eq!(problems.0.len(), 6);
        let good = wanted(&settings(json!({"memory": "2GiB", "cpus": "4", "autostart": "on"}))).unwrap();
        assert_eq!(good, Wanted { memory: Some(2 << 30), cpus: Some(4), autostart: Some(true), ..Wanted::default() });
    }

    #[test]
    fn only_what_is_meant_changes_and_the_topology_agrees() {
        let text =
            "<domain><name>a</name><memory unit='MiB'>512</memory><currentMemory unit='KiB'>1</currentMemory><vcpu current='1'>2</vcpu>
            <cpu><topology sockets='1' dies='1' cores='1' threads='2'/><x:y xmlns:x='urn:x'/></cpu></domain>";
        let mut domain = Element::parse(text).unwrap();
        assert_eq!(domain.first("memory").and_then(bytes_of), Some(512 << 20));
        set_memory(&mut domain, 1 << 30);
        for (count, topology) in [(6, [1, 3, 2]), (3, [1, 3, 1])] {
            set_cpus(&mut domain, count);
            let found = domain.at("cpu/topology").unwrap();
            let numbers = ["sockets", "cores", "threads"].map(|name| found.attribute(name).unwrap().parse::<u32>().unwrap());
            assert_eq!(numbers, topology);
        }
        let text = domain.to_text();
        assert!(
            text.contains("<x:y xmlns:x=\"urn:x\"/>")
                && text.contains("<memory unit=\"KiB\">1048576</memory>")
                && !text.contains("current=")
        );
    }
}
