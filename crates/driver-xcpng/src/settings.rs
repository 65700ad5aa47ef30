//! What a specification of such a VM may say, resolved against what the pool offers. Pure.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use vmoon_core::{
    driver::{HostFacts, Setting},
    name::escape,
    size,
    spec::Problems,
};
use vmoon_guest::settings::ENVIRONMENT;
use vmoon_seed::{check, cloud::Cloud};

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
    /// What tells the guest who it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) seed: Option<Cloud>,
    /// What Lua sessions in the guest begin with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) environment: Option<String>,
    /// The VM it is a copy of, in place of a template.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) original: Option<String>,
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
        one("seed", "yes or no: whether a small disk tells the guest who it is, for cloud-init; yes with any of the following"),
        one("hostname", "the guest's name (the machine's)"),
        one("user", "the user to make in the guest"),
        one("ssh-key", "public SSH keys that may log in, one or a list"),
        one("packages", "packages to install at the first boot, one or a list"),
        one("user-data", "a file of cloud-init user-data, an absolute path; it has the last word over user, ssh-key and packages"),
        one("ssh", "no: vmoon puts no key of its own into the seed, and offers no sessions in the guest unless you say how (ssh-user)"),
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
pub(crate) fn resolve(name: &str, given: &Map<String, Value>, facts: &Facts, problems: &mut Problems) -> Settings {
    let mut settings = Settings::default();
    let known: Vec<String> = known().into_iter().map(|setting| setting.name).chain([ENVIRONMENT.to_owned()]).collect();
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
    copying(given, facts, &mut settings, problems);
    if settings.storage.is_none() && !given.contains_key("sr") {
        settings.storage = facts.default_storage.clone();
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
    settings.seed = seed(name, given, problems);
    if settings.seed.is_some() && settings.storage.is_none() {
        problems.add("settings.sr", "the pool has no default storage repository for the seed; name one");
    }
    match given.get(ENVIRONMENT).map(vmoon_guest::settings::environment) {
        Some(Ok(name)) => settings.environment = Some(name.to_owned()),
        Some(Err(why)) => problems.add("settings.env", why),
        None => {}
    }
    settings.fallback_network = facts.networks.first().map(|network| network.uuid.clone());
    settings
}

/// What can be said of a copy, be it of a template or of a VM: how it is made, where, and what people should read.
pub(crate) fn copying(given: &Map<String, Value>, facts: &Facts, settings: &mut Settings, problems: &mut Problems) {
    match given.get("copy").map(|value| value.as_str().unwrap_or_default()) {
        None | Some("clone") => {}
        Some("full") => settings.full = true,
        Some(_) => problems.add("settings.copy", "clone or full"),
    }
    if let Some(wanted) = given.get("sr").map(|value| value.as_str().unwrap_or_default()) {
        match storage(facts, wanted) {
            Ok(found) => settings.storage = Some(found.uuid.clone()),
            Err(why) => problems.add("settings.sr", why),
        }
    }
    match given.get("description").map(Value::as_str) {
        None => {}
        Some(Some(text)) => settings.description = text.to_owned(),
        Some(None) => problems.add("settings.description", "text is wanted"),
    }
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
        if !mac.is_empty() && !is_mac(mac) {
            problems.add(path.clone(), format!("\"{}\" is no hardware address", escape(mac)));
        }
        match find(&facts.networks, |one| one, wanted, "network") {
            Ok(network) => found.push(Interface { network: network.uuid.clone(), mac: mac.to_lowercase() }),
            Err(why) => problems.add(path, why),
        }
    }
    found
}

/// What a guest is told of itself, if anything is said.
fn seed(name: &str, given: &Map<String, Value>, problems: &mut Problems) -> Option<Cloud> {
    let mut flag = |setting: &str, otherwise: bool| match given.get(setting) {
        None => otherwise,
        Some(Value::Bool(flag)) => *flag,
        Some(Value::String(text)) if matches!(text.as_str(), "yes" | "true" | "on") => true,
        Some(Value::String(text)) if matches!(text.as_str(), "no" | "false" | "off") => false,
        Some(_) => {
            problems.add(format!("settings.{setting}"), "yes or no");
            otherwise
        }
    };
    let about = ["hostname", "user", "ssh-key", "packages", "user-data"];
    let asked = about.iter().any(|setting| given.contains_key(*setting));
    let (wanted, entered) = (flag("seed", asked), flag("ssh", true));
    if !wanted {
        for setting in about.iter().filter(|setting| given.contains_key(**setting)) {
            problems.add(format!("settings.{setting}"), "is told to the guest by a seed, and seed is no");
        }
        return None;
    }
    let mut all = |setting: &str, what: &str, good: fn(&str) -> bool| -> Vec<String> {
        let Some(value) = given.get(setting) else { return Vec::new() };
        let Some(found) = texts(value) else {
            problems.add(format!("settings.{setting}"), format!("{what} is wanted, or a list of them"));
            return Vec::new();
        };
        for text in found.iter().filter(|text| !good(text)) {
            let shown: String = escape(text).chars().take(60).collect();
            problems.add(format!("settings.{setting}"), format!("\"{shown}\" is not {what}"));
        }
        found.into_iter().map(str::to_owned).collect()
    };
    let is_path = |text: &str| text.starts_with('/') && text.len() > 1 && !text.contains('\0');
    let (ssh_keys, packages) =
        (all("ssh-key", "a public SSH key", check::is_ssh_key), all("packages", "the name of a package", check::is_package));
    let mut one = |setting: &str, what: &str, good: fn(&str) -> bool| {
        let mut found = all(setting, what, good);
        if found.len() > 1 {
            found.truncate(1);
        }
        found.pop()
    };
    let hostname = one("hostname", "a host name", check::is_hostname).unwrap_or_else(|| check::hostname_of(name));
    let user = one("user", "a login name", check::is_user);
    let user_data = one("user-data", "an absolute path", is_path);
    Some(Cloud { hostname, user, ssh_keys, packages, user_data, entered })
}

/// A storage repository by name or uuid; why not.
pub(crate) fn storage<'a>(facts: &'a Facts, wanted: &str) -> Result<&'a Named, String> {
    find(&facts.storage, |one| one, wanted, "storage repository")
}

/// A network by name or uuid; why not.
pub(crate) fn network<'a>(facts: &'a Facts, wanted: &str) -> Result<&'a Named, String> {
    find(&facts.networks, |one| one, wanted, "network")
}

/// Whether it is a hardware address of one card.
pub(crate) fn is_mac(text: &str) -> bool {
    let parts: Vec<&str> = text.split(':').collect();
    let bytes: Option<Vec<u8>> = parts.iter().map(|part| (part.len() == 2).then(|| u8::from_str_radix(part, 16).ok())?).collect();
    bytes.is_some_and(|bytes| bytes.len() == 6 && bytes[0] & 1 == 0)
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
        resolve("web", given.as_object().unwrap(), &pool(), &mut problems);
        problems.0.into_iter().map(|problem| format!("{}: {}", problem.path, problem.message)).collect()
    }

    #[test]
    fn names_become_uuids() {
        let given = json!({"template": "debian", "memory": "2GiB", "cpus": "4", "sr": "nfs", "disk": ["1G", 4096], "network": "lan,mac=AA:bb:cc:dd:ee:0f"});
        let mut none = Problems::default();
        let settings = resolve("web", given.as_object().unwrap(), &pool(), &mut none);
        assert!(none.0.is_empty(), "{none:?}");
        assert_eq!((settings.template.as_str(), settings.memory, settings.cpus), ("t1", Some(2 << 30), Some(4)));
        assert_eq!((settings.storage.as_deref(), settings.disks.len(), settings.disks[1].size), (Some("s2"), 2, 4096));
        assert_eq!(settings.interfaces.unwrap(), [Interface { network: "n1".into(), mac: "aa:bb:cc:dd:ee:0f".into() }]);
    }

    #[test]
    fn what_is_said_of_the_guest_makes_a_seed_and_nothing_else_does() {
        let seed = |given: Value| resolve("web_1", given.as_object().unwrap(), &pool(), &mut Problems::default()).seed;
        assert_eq!(seed(json!({"template": "debian"})), None);
        let made = seed(json!({"template": "debian", "user": "ada"})).unwrap();
        assert_eq!((made.hostname.as_str(), made.user.as_deref(), made.entered), ("web-1", Some("ada"), true));
        assert!(!seed(json!({"template": "debian", "seed": "yes", "ssh": "no"})).unwrap().entered);
        let all = problems(
            json!({"template": "debian", "user": "-x", "ssh-key": ["a\nb"], "packages": "--now", "user-data": "x", "hostname": "a b", "ssh": 3}),
        );
        assert_eq!(all.len(), 6, "{all:#?}");
        assert!(problems(json!({"template": "debian", "seed": false, "user": "ada"}))[0].contains("seed is no"));
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
