//! What a specification of such a VM may say, resolved against what the pool offers. Pure.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use vmoon_core::{
    driver::{HostFacts, Setting},
    name::escape,
    size,
    spec::Problems,
};

/// What the pool offers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Facts {
    pub(crate) templates: Vec<Template>,
    pub(crate) storage: Vec<Named>,
    /// The repository for disks of which nothing is said, if the pool has one.
    pub(crate) default_storage: Option<String>,
    pub(crate) networks: Vec<Named>,
}

/// Something with a name that need not be unique.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Named {
    pub(crate) uuid: String,
    pub(crate) name: String,
}

/// A template.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Template {
    #[serde(flatten)]
    pub(crate) named: Named,
    /// Whether it came with the product: it describes disks and has none.
    pub(crate) default: bool,
    pub(crate) memory_min: i64,
}

/// A disk to make.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Disk {
    /// Bytes.
    pub(crate) size: i64,
}

/// A network interface to make.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Interface {
    pub(crate) network: String,
    /// Empty for one that XAPI chooses.
    pub(crate) mac: String,
}

/// A plan's settings: uuids in place of names.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Settings {
    pub(crate) template: String,
    pub(crate) template_name: String,
    pub(crate) default_template: bool,
    /// Copied in full in place of sharing blocks with the template.
    pub(crate) full: bool,
    /// Bytes; as the template has it if not said.
    pub(crate) memory: Option<i64>,
    pub(crate) memory_min: i64,
    pub(crate) cpus: Option<i64>,
    /// Where new disks are made.
    pub(crate) storage: Option<String>,
    pub(crate) disks: Vec<Disk>,
    /// Those of the template if not said.
    pub(crate) interfaces: Option<Vec<Interface>>,
    /// The network that a VM without any gets.
    pub(crate) fallback_network: Option<String>,
    pub(crate) description: String,
}

/// The settings and what they do.
pub(crate) fn known() -> Vec<Setting> {
    let one = |name: &str, help: &str| Setting { name: name.into(), help: help.into() };
    vec![
        one("template", "the template to make it from: its name or uuid; needed"),
        one("memory", "how much memory, for example 2GiB; what the template says if not given"),
        one("cpus", "how many virtual processors; what the template says if not given"),
        one("sr", "the storage repository for new disks: its name or uuid; the pool's default if not given"),
        one("copy", "clone (shares blocks with the template, the default) or full"),
        one("disk", "the size of one further disk, for example 20GiB, or a list of sizes"),
        one(
            "network",
            "the network of its one interface, or a list of them: a name or uuid, with ,mac=AA:BB:CC:DD:EE:FF if it is to have that",
        ),
        one("description", "what people should read about it"),
    ]
}

/// Text or a list of texts.
fn texts(value: &Value) -> Option<Vec<&str>> {
    match value {
        Value::String(text) => Some(vec![text]),
        Value::Array(all) => all.iter().map(Value::as_str).collect(),
        _ => None,
    }
}

/// Bytes of which there is at least one, as XAPI counts them.
pub(crate) fn bytes(value: &Value) -> Option<i64> {
    size::of(value).and_then(|bytes| i64::try_from(bytes).ok()).filter(|bytes| *bytes > 0)
}

/// Finds one by uuid or name; says why not.
fn find<'a, T>(all: &'a [T], named: impl Fn(&T) -> &Named, wanted: &str, what: &str) -> Result<&'a T, String> {
    if let Some(one) = all.iter().find(|one| named(one).uuid == wanted) {
        return Ok(one);
    }
    let mut same = all.iter().filter(|one| named(one).name == wanted);
    match (same.next(), same.next()) {
        (Some(one), None) => Ok(one),
        (Some(_), Some(_)) => {
            let uuids: Vec<&str> = all.iter().filter(|one| named(one).name == wanted).map(|one| named(one).uuid.as_str()).collect();
            Err(format!("the pool has several of that name; give one of these uuids: {}", uuids.join(", ")))
        }
        _ => {
            let mut names: Vec<String> = all.iter().map(|one| escape(&named(one).name)).collect();
            names.sort();
            names.dedup();
            names.truncate(12);
            Err(format!("the pool has no {what} \"{}\"; it has: {}", escape(wanted), names.join(", ")))
        }
    }
}

/// Resolves what was written.
pub(crate) fn resolve(given: &Map<String, Value>, facts: &Facts, problems: &mut Problems) -> Settings {
    let mut settings = Settings::default();
    let known: Vec<String> = known().into_iter().map(|setting| setting.name).collect();
    for name in given.keys().filter(|name| !known.contains(name)) {
        problems.add(format!("settings.{name}"), format!("there is no such setting; there are: {}", known.join(", ")));
    }
    match given.get("template").map(Value::as_str) {
        None => problems.add("settings.template", "which template? give its name or uuid"),
        Some(None) => problems.add("settings.template", "a name or uuid is wanted"),
        Some(Some(wanted)) => match find(&facts.templates, |one| &one.named, wanted, "template") {
            Ok(template) => {
                settings.template = template.named.uuid.clone();
                settings.template_name = template.named.name.clone();
                settings.default_template = template.default;
                settings.memory_min = template.memory_min;
            }
            Err(why) => problems.add("settings.template", why),
        },
    }
    if let Some(value) = given.get("memory") {
        match bytes(value).filter(|bytes| *bytes >= 16 << 20) {
            Some(bytes) => settings.memory = Some(bytes),
            None => problems.add("settings.memory", "a size of at least 16MiB is wanted, for example 2GiB"),
        }
    }
    if let Some(value) = given.get("cpus") {
        let number = value.as_i64().or_else(|| value.as_str()?.parse().ok());
        match number.filter(|number| (1..=128).contains(number)) {
            Some(number) => settings.cpus = Some(number),
            None => problems.add("settings.cpus", "a number from 1 to 128 is wanted"),
        }
    }
    match given.get("copy").map(|value| value.as_str().unwrap_or_default()) {
        None | Some("clone") => {}
        Some("full") => settings.full = true,
        Some(_) => problems.add("settings.copy", "clone or full"),
    }
    match given.get("sr").map(|value| value.as_str().unwrap_or_default()) {
        None => settings.storage = facts.default_storage.clone(),
        Some(wanted) => match find(&facts.storage, |one| one, wanted, "storage repository") {
            Ok(found) => settings.storage = Some(found.uuid.clone()),
            Err(why) => problems.add("settings.sr", why),
        },
    }
    if let Some(value) = given.get("disk") {
        let list = if let Value::Array(all) = value { all.clone() } else { vec![value.clone()] };
        for (n, one) in list.iter().enumerate() {
            match bytes(one) {
                Some(size) => settings.disks.push(Disk { size }),
                None => problems.add(format!("settings.disk[{n}]"), "a size is wanted, for example 20GiB"),
            }
        }
    }
    if settings.storage.is_none() && (settings.default_template || !settings.disks.is_empty()) {
        problems.add("settings.sr", "the pool has no default storage repository; name one");
    }
    if let Some(value) = given.get("network") {
        settings.interfaces = Some(interfaces(value, facts, problems));
    }
    settings.fallback_network = facts.networks.first().map(|network| network.uuid.clone());
    match given.get("description").map(Value::as_str) {
        None => {}
        Some(Some(text)) => settings.description = text.to_owned(),
        Some(None) => problems.add("settings.description", "text is wanted"),
    }
    settings
}

fn interfaces(value: &Value, facts: &Facts, problems: &mut Problems) -> Vec<Interface> {
    let Some(all) = texts(value) else {
        problems.add("settings.network", "a name or uuid is wanted, or a list of them");
        return Vec::new();
    };
    let mut found = Vec::new();
    for (n, text) in all.iter().enumerate() {
        let path = format!("settings.network[{n}]");
        let (wanted, mac) = text.rsplit_once(",mac=").unwrap_or((text, ""));
        let good = mac.is_empty()
            || (mac.split(':').count() == 6 && mac.split(':').all(|b| b.len() == 2 && b.bytes().all(|b| b.is_ascii_hexdigit())));
        if !good {
            problems.add(path.clone(), format!("\"{}\" is no hardware address", escape(mac)));
        }
        match find(&facts.networks, |one| one, wanted, "network") {
            Ok(network) => found.push(Interface { network: network.uuid.clone(), mac: mac.to_lowercase() }),
            Err(why) => problems.add(path, why),
        }
    }
    found
}

/// The facts that a plan is made from.
pub(crate) fn facts(host: &HostFacts) -> Facts {
    serde_json::from_value(host.0.clone()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pool() -> Facts {
        let named = |uuid: &str, name: &str| Named { uuid: uuid.into(), name: name.into() };
        Facts {
            templates: vec![
                Template { named: named("t1", "debian"), default: true, memory_min: 1 << 30 },
                Template { named: named("t2", "twice"), default: false, memory_min: 0 },
                Template { named: named("t3", "twice"), default: false, memory_min: 0 },
            ],
            storage: vec![named("s1", "local"), named("s2", "nfs")],
            default_storage: Some("s1".into()),
            networks: vec![named("n1", "lan")],
        }
    }

    fn problems(given: Value) -> Vec<String> {
        let mut problems = Problems::default();
        resolve(given.as_object().unwrap(), &pool(), &mut problems);
        problems.0.into_iter().map(|problem| format!("{}: {}", problem.path, problem.message)).collect()
    }

    #[test]
    fn names_become_uuids() {
        let given = json!({"template": "debian", "memory": "2GiB", "cpus": "4", "sr": "nfs", "disk": ["1G", 4096], "network": "lan,mac=AA:bb:cc:dd:ee:0f"});
        let mut none = Problems::default();
        let settings = resolve(given.as_object().unwrap(), &pool(), &mut none);
        assert!(none.0.is_empty(), "{none:?}");
        assert_eq!((settings.template.as_str(), settings.memory, settings.cpus), ("t1", Some(2 << 30), Some(4)));
        assert_eq!((settings.storage.as_deref(), settings.disks.len(), settings.disks[1].size), (Some("s2"), 2, 4096));
        assert_eq!(settings.interfaces.unwrap(), [Interface { network: "n1".into(), mac: "aa:bb:cc:dd:ee:0f".into() }]);
    }

    #[test]
    fn every_problem_is_told_at_once() {
        let all = problems(json!({
            "template": "twice", "memory": "0", "cpus": 0, "sr": "x\u{1b}", "copy": "half", "disk": "big", "network": "lan,mac=zz", "colour": "red",
        }));
        for part in [
            "t2, t3",
            "memory: a size",
            "cpus: a number",
            "no storage repository \"x\\u{1b}\"; it has: local, nfs",
            "copy: clone or full",
            "disk[0]",
            "\"zz\"",
            "colour: there is no such setting",
        ] {
            assert!(all.iter().any(|problem| problem.contains(part)), "{part}: {all:#?}");
        }
        assert!(problems(json!({}))[0].contains("which template"));
        assert!(problems(json!({"template": "windows"}))[0].contains("it has: debian, twice"));
    }
}
