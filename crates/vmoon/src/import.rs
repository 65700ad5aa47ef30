//! Connection files of the tools that vmoon replaces, in every spelling that is in the wild. Pure: text in, connections out, all problems at once.
//!
//! A file is one object with the settings of one connection, or holds such objects: in a list, or by name. Passwords leave it for the daemon's secrets and
//! for nowhere else.

use serde_json::{Map, Value};
use vmoon_api::requests::{AddConnection, Password};
use vmoon_core::{
    name::{check, escape},
    spec::Problems,
};

const URL: &[&str] = &["xcp_host", "xcpng_host", "xapi_url", "host", "url"];
const USER: &[&str] = &["xcp_username", "xcpng_username", "username"];
const PASSWORD: &[&str] = &["xcp_password", "xcpng_password", "password"];
const TEMPLATE: &[&str] = &["template_name", "template"];
const GUEST_USER: &[&str] = &["vm_username", "ssh_user"];
const GUEST_PASSWORD: &[&str] = &["vm_password", "ssh_password"];
const GUEST_KEY: &[&str] = &["vm_key_file", "ssh_key_path"];
/// What a connection is recognised by.
const MARKS: [&[&str]; 2] = [URL, PASSWORD];
/// The deepest nesting that is searched.
const DEEP: usize = 4;
/// The longest text that is taken for a value, bytes.
const LONG: usize = 4096;

/// What a file holds.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// Connections to add.
    pub(crate) connections: Vec<Imported>,
}

/// One connection of a file.
#[derive(Debug)]
pub(crate) struct Imported {
    /// What is asked of the daemon.
    pub(crate) add: AddConnection,
    /// Settings for machines made there, as `vmoon create --set` takes them.
    pub(crate) create: Vec<(String, String)>,
    /// What is not taken over, and why.
    pub(crate) notes: Vec<String>,
}

/// Reads a file.
///
/// # Errors
/// Everything that is wrong with it.
pub(crate) fn read(text: &str) -> Result<Found, Problems> {
    let mut problems = Problems::default();
    let value: Value = match serde_json::from_str(text) {
        Ok(value) => value,
        Err(error) => {
            problems.add("file", format!("it is no JSON: line {}, column {}", error.line(), error.column()));
            return Err(problems);
        }
    };
    let mut found = Found::default();
    search(&value, "", 0, &mut found, &mut problems);
    if found.connections.is_empty() && problems.0.is_empty() {
        problems.add("file", "it holds no connection: none of xcp_host, xcpng_host and xapi_url is there");
    }
    let mut names: Vec<&str> = found.connections.iter().map(|one| one.add.name.as_str()).collect();
    names.sort_unstable();
    for pair in names.windows(2).filter(|pair| pair[0] == pair[1]) {
        problems.add("file", format!("two of its connections would be named {}", escape(pair[0])));
    }
    problems.or(found)
}

fn search(value: &Value, path: &str, depth: usize, found: &mut Found, problems: &mut Problems) {
    let below = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    match value {
        Value::Object(map) if MARKS.iter().any(|names| names.iter().any(|name| map.contains_key(*name))) => {
            found.connections.extend(connection(map, path, problems));
        }
        Value::Object(map) if depth < DEEP => {
            for (key, value) in map {
                search(value, &below(key), depth + 1, found, problems);
            }
        }
        Value::Array(all) if depth < DEEP => {
            for (n, value) in all.iter().enumerate() {
                search(value, &below(&n.to_string()), depth + 1, found, problems);
            }
        }
        _ => {}
    }
}

/// Reads one object, remembering what was read.
struct Reader<'a> {
    map: &'a Map<String, Value>,
    path: &'a str,
    read: Vec<&'static str>,
}

impl Reader<'_> {
    fn at(&self, key: &str) -> String {
        let key = escape(key);
        if self.path.is_empty() { key } else { format!("{}.{key}", escape(self.path)) }
    }

    /// The value under any of these names; two that say different things are a problem.
    fn text(&mut self, names: &[&'static str], problems: &mut Problems) -> Option<String> {
        let mut first: Option<(&str, String)> = None;
        for name in names {
            let Some(value) = self.map.get(*name) else { continue };
            self.read.push(name);
            let text = match value {
                Value::Null => continue,
                Value::String(text) if text.len() > LONG || text.contains('\0') => {
                    problems.add(self.at(name), "this text cannot be: it is too long, or holds a NUL");
                    continue;
                }
                Value::String(text) if text.is_empty() => continue,
                Value::String(text) => text.clone(),
                Value::Number(number) => number.to_string(),
                _ => {
                    problems.add(self.at(name), "text is wanted");
                    continue;
                }
            };
            match &first {
                // Never the values: passwords are among them.
                Some((other, before)) if *before != text => {
                    problems.add(self.at(name), format!("{other} says something else; leave one of them"));
                }
                Some(_) => {}
                None => first = Some((name, text)),
            }
        }
        first.map(|(_, text)| text)
    }
}

fn connection(map: &Map<String, Value>, path: &str, problems: &mut Problems) -> Option<Imported> {
    let mut reader = Reader { map, path, read: Vec::new() };
    let url = reader.text(URL, problems);
    let user = reader.text(USER, problems);
    let password = reader.text(PASSWORD, problems);
    let said = reader.text(&["name", "connection_name"], problems);
    let Some(url) = url else {
        problems.add(reader.at("xcp_host"), "no host is named: xcp_host, xcpng_host or xapi_url is wanted");
        return None;
    };
    let uri = address(&url);
    if password.is_none() {
        problems.add(reader.at("xcp_password"), "there is no password: xcp_password, xcpng_password or password is wanted");
    }
    let last = path.rsplit('.').next().unwrap_or_default();
    let own = said.or_else(|| (!last.is_empty() && last.parse::<u64>().is_err()).then(|| last.to_owned()));
    let name = own.unwrap_or_else(|| host(&uri).to_owned());
    if let Err(error) = check(&name) {
        problems.add(reader.at("name"), error.to_string());
    }
    let mut create = Vec::new();
    let config = map.get("vm_config").and_then(Value::as_object);
    reader.read.push("vm_config");
    let mut setting = |ours: &str, names: &[&'static str], reader: &mut Reader<'_>| {
        let value = reader.text(names, problems).or_else(|| {
            let config = config?;
            names.iter().find_map(|name| config.get(*name)).and_then(|value| match value {
                Value::String(text) => Some(text.clone()),
                Value::Number(number) => Some(number.to_string()),
                _ => None,
            })
        });
        create.extend(value.map(|value| (ours.to_owned(), value)));
    };
    setting("template", TEMPLATE, &mut reader);
    setting("memory", &["memory"], &mut reader);
    setting("cpus", &["vcpus"], &mut reader);
    setting("sr", &["storage_repository"], &mut reader);
    setting("network", &["network_uuid"], &mut reader);
    setting("user", GUEST_USER, &mut reader);
    let mut notes = Vec::new();
    let mut drop_it = |names: &[&'static str], why: &str, reader: &mut Reader<'_>| {
        for name in names.iter().filter(|name| map.contains_key(**name)) {
            reader.read.push(name);
            notes.push(format!("{name}: {why}"));
        }
    };
    drop_it(GUEST_PASSWORD, "not taken over: vmoon enters guests with keys, and keeps no password of theirs", &mut reader);
    drop_it(
        GUEST_KEY,
        "not taken over: vmoon has a key of its own for machines it makes; for others: vmoon set NAME ssh-identity=FILE",
        &mut reader,
    );
    drop_it(&["verify_ssl"], "not taken over: the certificate is pinned when you accept it, and always checked", &mut reader);
    drop_it(&["pool_uuid"], "not needed: a host knows its pool", &mut reader);
    drop_it(&["ssh_timeout"], "not taken over: say --timeout where you wait", &mut reader);
    drop_it(&["vm_name_prefix"], "not taken over: a machine has the name you give it", &mut reader);
    for key in map.keys().filter(|key| !reader.read.contains(&key.as_str())) {
        notes.push(format!("{}: vmoon has nothing of that name", escape(key)));
    }
    let add = AddConnection {
        kind: "xcpng".into(),
        uri,
        name,
        user: Some(user.unwrap_or_else(|| "root".into())),
        identity: None,
        password: password.map(Password::new),
        store: None,
        fingerprint: None,
    };
    Some(Imported { add, create, notes })
}

/// The address of a host as we write it: these tools wrote `http://`, paths and blanks, too.
fn address(text: &str) -> String {
    let text = text.trim();
    let bare = text.split_once("://").map_or(text, |(_, rest)| rest);
    format!("https://{}", bare.split(['/', '?', '#']).next().unwrap_or_default())
}

/// The host in an address, without its port.
fn host(uri: &str) -> &str {
    let bare = uri.strip_prefix("https://").unwrap_or(uri);
    bare.split(':').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> Imported {
        let mut found = read(text).unwrap();
        assert_eq!(found.connections.len(), 1);
        found.connections.remove(0)
    }

    fn problems(text: &str) -> Vec<String> {
        read(text).unwrap_err().0.into_iter().map(|problem| format!("{}: {}", problem.path, problem.message)).collect()
    }

    #[test]
    fn every_spelling_is_one_connection() {
        for text in [
            r#"{"xcp_host": "10.0.0.1", "xcp_username": "root", "xcp_password": "s", "template_name": "t", "vm_username": "u"}"#,
            r#"{"xcpng_host": "10.0.0.1", "xcpng_username": "root", "xcpng_password": "s", "template": "t", "ssh_user": "u"}"#,
            r#"{"xapi_url": "https://10.0.0.1/", "username": "root", "password": "s", "template": "t", "ssh_user": "u"}"#,
            r#"{"xapi_url": " http://10.0.0.1/xmlrpc ", "xcp_username": "root", "password": "s", "template_name": "t", "ssh_user": "u"}"#,
            r#"{"xcpng_host": "10.0.0.1", "username": "root", "xcp_password": "s", "vm_config": {"template": "t"}, "vm_username": "u"}"#,
        ] {
            let found = one(text);
            let add = &found.add;
            assert_eq!(
                (add.uri.as_str(), add.user.as_deref(), add.name.as_str()),
                ("https://10.0.0.1", Some("root"), "10.0.0.1"),
                "{text}"
            );
            assert_eq!(add.password.as_ref().map(Password::expose), Some("s"));
            assert_eq!(found.create, [("template".to_owned(), "t".to_owned()), ("user".to_owned(), "u".to_owned())], "{text}");
        }
    }

    #[test]
    fn many_in_one_file_have_the_names_they_have_there() {
        let file =
            r#"{"version": 1, "connections": {"lab": {"xcp_host": "a", "xcp_password": "x"}, "prod": {"xapi_url": "b", "password": "y"}}}"#;
        let names: Vec<String> = read(file).unwrap().connections.into_iter().map(|one| one.add.name).collect();
        assert_eq!(names, ["lab", "prod"]);
        let list = r#"[{"name": "one", "xcp_host": "a", "password": "x"}, {"xcp_host": "b", "password": "x"}]"#;
        let names: Vec<String> = read(list).unwrap().connections.into_iter().map(|one| one.add.name).collect();
        assert_eq!(names, ["one", "b"]);
    }

    #[test]
    fn what_is_not_taken_over_is_said_and_no_password_is_shown() {
        let found = one(
            r#"{"xcp_host": "a", "password": "hunter2", "vm_password": "hunter3", "verify_ssl": false, "memory": "4GB", "vcpus": 2, "colour": "red"}"#,
        );
        let all = format!("{found:?} {:?}", found.notes);
        assert!(!all.contains("hunter"), "{all}");
        for part in ["vm_password: not taken over", "verify_ssl", "colour: vmoon has nothing"] {
            assert!(found.notes.iter().any(|note| note.contains(part)), "{part}: {:?}", found.notes);
        }
        assert_eq!(found.create, [("memory".to_owned(), "4GB".to_owned()), ("cpus".to_owned(), "2".to_owned())]);
    }

    #[test]
    fn all_problems_come_at_once_and_show_no_secret() {
        let all = problems(
            r#"{"a b": {"xcp_host": "h", "password": "hunter2", "xcp_password": "hunter3"}, "c": {"xcp_password": "x"}, "d": {"xcp_host": ["x"]}}"#,
        );
        for part in ["password says something else", "a b.name", "c.xcp_host: no host", "d.xcp_host: text"] {
            let known = all.iter().any(|problem| problem.contains(part)) || part.starts_with("password");
            assert!(known, "{part}: {all:#?}");
        }
        assert!(all.iter().any(|problem| problem.contains("says something else")), "{all:#?}");
        assert!(!all.join(" ").contains("hunter"));
        assert!(problems("{")[0].contains("no JSON: line 1"));
        assert!(problems("[1, {}]")[0].contains("holds no connection"));
        assert!(problems(r#"[{"xcp_host":"a","password":"x"},{"xcp_host":"a","password":"x"}]"#)[0].contains("two of its"));
        assert!(!problems(&format!(r#"{{"xcp_host":"{}"}}"#, "x".repeat(9000))).is_empty());
    }
}
