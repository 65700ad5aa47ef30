//! `vmoon connection`: where machines live.

use super::{
    inventory::{self, connection_rows},
    list::word,
};
use crate::{
    ctx::Ctx,
    exit::Exit,
    import::{self, Imported},
    out::{
        self,
        table::{Cell, Column, View},
        time,
    },
};
use std::{io::Read as _, path::PathBuf, time::Duration};
use vmoon_api::{
    Api as _,
    requests::{AddConnection, ConnectionRef, Empty, LoginConnection, Password, RemoveConnection},
    views::{ConnectionView, TestView},
};
use vmoon_core::{Code, Error, Result, driver::Verdict, name::escape};

/// The longest password that is read, bytes.
const LONGEST: u64 = 4096;
/// The largest file of connections, bytes.
const LARGEST_FILE: u64 = 1 << 20;
/// How long an answer may take: the daemon waits for the other side, and then for its list.
const ANSWER: Duration = Duration::from_secs(60);

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  vmoon connection list
  vmoon connection add ssh admin@web01.example.org
  vmoon connection add libvirt qemu:///system --name kvm
  vmoon connection list -o json        with the settings that a machine may have there")]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

/// How we are let in.
#[derive(Debug, clap::Args)]
struct Credentials {
    /// Read the password, or the passphrase of the key, from standard input
    #[arg(long, conflicts_with = "password_file")]
    password_stdin: bool,
    /// Read the password, or the passphrase of the key, from the first line of this file
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// Do not store the password: after a restart of the daemon the connection is locked until `connection login`
    #[arg(long)]
    no_store: bool,
    /// Accept the other side if this is its fingerprint; for scripts, which cannot be asked
    #[arg(long, value_name = "SHA256:…")]
    accept_fingerprint: Option<String>,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// List connections
    #[command(visible_alias = "ls", after_help = "Examples:\n  vmoon connection list\n  vmoon conn list --filter state=up")]
    List {
        #[command(flatten)]
        view: View,
    },
    /// Try a connection and keep it; its machines appear in `vmoon list`
    #[command(after_help = "Examples:
  vmoon connection add ssh admin@web01.example.org
  vmoon connection add libvirt qemu:///system --name kvm
  vmoon connection add ssh 10.0.0.7:2222 --name box --user root --password-stdin < password.txt")]
    Add {
        /// The kind of its machines
        #[arg(value_name = "KIND")]
        kind: String,
        /// Where it leads: user@host[:port] for ssh, qemu:///system and the like for libvirt
        #[arg(value_name = "URI")]
        uri: String,
        /// Its name [default: the host in the URI]
        #[arg(long)]
        name: Option<String>,
        /// As whom, where the URI does not say
        #[arg(long, value_name = "USER")]
        user: Option<String>,
        /// A file with a private key
        #[arg(long, value_name = "FILE")]
        identity: Option<PathBuf>,
        #[command(flatten)]
        credentials: Credentials,
    },
    /// Show a connection, and what its hosts have to offer: hosts, devices, storage, networks, templates
    #[command(visible_alias = "info", after_help = "Examples:\n  vmoon connection show lab\n  vmoon conn show lab -o json")]
    Show {
        /// The connection
        #[arg(value_name = "NAME")]
        name: String,
    },
    /// Add the connections of a JSON file of the tools that vmoon replaces; their passwords become secrets of the daemon
    #[command(after_help = "Examples:
  vmoon connection import ~/.bioxen/xcpng.json --dry-run
  vmoon connection import xcpng.json --accept-fingerprint SHA256:9F:2C:…")]
    Import {
        /// The file
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Say what would be added and add nothing
        #[arg(long)]
        dry_run: bool,
        /// Do not store the passwords: after a restart of the daemon the connections are locked until `connection login`
        #[arg(long)]
        no_store: bool,
        /// Accept the other side if this is its fingerprint; for scripts, which cannot be asked
        #[arg(long, value_name = "SHA256:…")]
        accept_fingerprint: Option<String>,
    },
    /// Try a connection that is kept, and say what its driver requires
    #[command(after_help = "Examples:\n  vmoon connection test kvm\n  vmoon conn test web01 -o json")]
    Test {
        /// The connection
        #[arg(value_name = "NAME")]
        name: String,
    },
    /// Give a connection another password, or accept another fingerprint
    #[command(after_help = "Examples:
  vmoon connection login box --password-stdin < password.txt
  vmoon conn login web01 --accept-fingerprint SHA256:uNiVztksCsDhcc0u9e8BrotYbfkaeBBDGfQNDkG8RsA")]
    Login {
        /// The connection
        #[arg(value_name = "NAME")]
        name: String,
        #[command(flatten)]
        credentials: Credentials,
    },
    /// Remove a connection and forget its machines; touches nothing real
    #[command(visible_alias = "remove", after_help = "Examples:\n  vmoon connection rm box\n  vmoon conn rm kvm --force --yes")]
    Rm {
        /// The connection
        #[arg(value_name = "NAME")]
        name: String,
        /// Also if machines that vmoon has made live there: they stay there and are forgotten here
        #[arg(short, long)]
        force: bool,
        /// Do not ask; needed where there is no terminal to ask on
        #[arg(short, long)]
        yes: bool,
    },
    /// Make it the connection where `vmoon create` makes machines if nothing else is said
    #[command(after_help = "Examples:\n  vmoon connection default kvm\n  vmoon conn default local")]
    Default {
        /// The connection
        #[arg(value_name = "NAME")]
        name: String,
    },
}

const COLUMNS: &[Column<ConnectionView>] = &[
    Column { name: "name", wide: false, get: |c| Cell::text(&c.name) },
    Column { name: "kind", wide: false, get: |c| Cell::text(&c.kind) },
    Column { name: "state", wide: false, get: |c| Cell::text(word(&c.state)) },
    Column { name: "machines", wide: false, get: |c| Cell::Number(c.machines, None) },
    Column { name: "default", wide: false, get: |c| if c.default { Cell::text("yes") } else { Cell::Empty } },
    Column { name: "uri", wide: false, get: |c| if c.uri.is_empty() { Cell::Empty } else { Cell::text(&c.uri) } },
    Column { name: "error", wide: false, get: |c| c.error.as_ref().map_or(Cell::Empty, |error| Cell::text(&error.message)) },
    Column { name: "secret", wide: true, get: |c| Cell::text(word(&c.secret)) },
    Column { name: "fingerprint", wide: true, get: |c| c.fingerprint.as_ref().map_or(Cell::Empty, Cell::text) },
    Column { name: "settings", wide: true, get: |c| Cell::text(c.settings.keys().cloned().collect::<Vec<_>>().join(",")) },
    Column { name: "id", wide: true, get: |c| Cell::text(c.id) },
];

/// Runs the verb.
pub(crate) async fn run(ctx: &Ctx, args: Args) -> Result<Exit> {
    match args.verb {
        Verb::List { view } => {
            let connections = ctx.daemon.ask(async |client| client.list_connections(Empty {}).await).await?;
            ctx.out.list(connections, COLUMNS, &view)?;
        }
        Verb::Add { kind, uri, name, user, identity, credentials } => {
            let name = match name {
                Some(name) => name,
                None => host(&uri).ok_or_else(|| {
                    Error::new(Code::Usage, format!("\"{}\" names no host that could be the connection's name", escape(&uri)))
                        .hint("say --name NAME")
                })?,
            };
            vmoon_core::name::check(&name)?;
            let (password, store) = credentials.password()?;
            let request = AddConnection {
                kind,
                uri,
                name,
                user,
                identity: identity.as_deref().map(absolute).transpose()?,
                password,
                store,
                fingerprint: credentials.accept_fingerprint,
            };
            told(ctx, &added(ctx, &request).await?, "added")?;
        }
        Verb::Show { name } => return inventory::run(ctx, name).await,
        Verb::Import { file, dry_run, no_store, accept_fingerprint } => {
            return imported(ctx, &file, dry_run, no_store, accept_fingerprint).await;
        }
        Verb::Test { name } => {
            let request = ConnectionRef { connection: name };
            let view = patient(ctx, async |client| client.test_connection(request.clone()).await).await?;
            return tested(ctx, &view);
        }
        Verb::Login { name, credentials } => {
            let (password, store) = credentials.password()?;
            let request = LoginConnection { connection: name, password, store, fingerprint: credentials.accept_fingerprint };
            let view = trusting(request.fingerprint.is_some(), &request.connection, async |fingerprint| {
                let fingerprint = fingerprint.or_else(|| request.fingerprint.clone());
                let request = LoginConnection { fingerprint, ..request.clone() };
                patient(ctx, async |client| client.login_connection(request.clone()).await).await
            });
            told(ctx, &view.await?, "logged in to")?;
        }
        Verb::Rm { name, force, yes } => {
            if !yes {
                let question = format!("Remove the connection {} and forget its machines and their transcripts?", escape(&name));
                match out::confirm(&question) {
                    Some(true) => {}
                    Some(false) => {
                        ctx.out.note("nothing was removed");
                        return Ok(Exit(Code::Cancelled.exit()));
                    }
                    None => {
                        return Err(Error::new(Code::Usage, "removing needs a yes, and there is no terminal to ask on")
                            .hint("add --yes if you are sure"));
                    }
                }
            }
            let request = RemoveConnection { connection: name, force };
            let view = ctx.daemon.ask_once(async |client| client.remove_connection(request.clone()).await).await?;
            told(ctx, &view, "removed")?;
        }
        Verb::Default { name } => {
            let request = ConnectionRef { connection: name };
            let view = ctx.daemon.ask(async |client| client.default_connection(request.clone()).await).await?;
            told(ctx, &view, "the default is now")?;
        }
    }
    Ok(Exit::OK)
}

/// Adds a connection, asking about its fingerprint where it is not known.
async fn added(ctx: &Ctx, request: &AddConnection) -> Result<ConnectionView> {
    trusting(request.fingerprint.is_some(), &request.name, async |fingerprint| {
        let fingerprint = fingerprint.or_else(|| request.fingerprint.clone());
        let request = AddConnection { fingerprint, ..request.clone() };
        patient(ctx, async |client| client.add_connection(request.clone()).await).await
    })
    .await
}

/// Adds what a file holds; one that cannot be added does not stop the others.
async fn imported(ctx: &Ctx, file: &std::path::Path, dry_run: bool, no_store: bool, fingerprint: Option<String>) -> Result<Exit> {
    let read = std::fs::File::open(file).map_err(|error| Error::io(format_args!("read {}", file.display()), error))?;
    let mut text = String::new();
    read.take(LARGEST_FILE + 1).read_to_string(&mut text).map_err(|error| Error::io(format_args!("read {}", file.display()), error))?;
    if text.len() as u64 > LARGEST_FILE {
        return Err(Error::new(Code::Usage, "the file is larger than 1 MiB, so it is no file of connections"));
    }
    // It holds passwords: like one it is zeroed.
    let found = import::read(Password::new(text).expose())?;
    let mut exit = Exit::OK;
    let mut values = Vec::new();
    for Imported { mut add, create, notes } in found.connections {
        (add.store, add.fingerprint) = (no_store.then_some(false), fingerprint.clone());
        let mut hints = notes;
        if !create.is_empty() {
            let settings: Vec<String> = create.iter().map(|(name, value)| format!("--set {name}={}", quoted(value))).collect();
            hints.push(format!("machines like those before: vmoon create {}:NAME {}", add.name, settings.join(" ")));
        }
        if dry_run {
            let user = add.user.as_deref().unwrap_or_default();
            let stored = if no_store { "kept in memory" } else { "kept as a secret of the daemon" };
            let text = format!("would add {} ({} as {}, its password {stored})", escape(&add.name), escape(&add.uri), escape(user));
            if ctx.out.format().is_machine() {
                values.push(serde_json::json!({
                    "name": add.name, "kind": add.kind, "uri": add.uri, "user": add.user, "create": create.into_iter().collect::<std::collections::BTreeMap<_, _>>(),
                    "notes": hints,
                }));
                continue;
            }
            ctx.out.line(&text)?;
        } else {
            match added(ctx, &add).await {
                Ok(view) if ctx.out.format().is_machine() => {
                    values.push(serde_json::to_value(&view).unwrap_or_default());
                    continue;
                }
                Ok(view) => told(ctx, &view, "added")?,
                Err(error) => {
                    exit = exit.worse(Exit::of(&error));
                    ctx.out.error_of(Some(&add.name), &error);
                    continue;
                }
            }
        }
        for hint in hints {
            ctx.out.note(&format!("{}: {}", escape(&add.name), escape(&hint)));
        }
    }
    if ctx.out.format().is_machine() {
        ctx.out.values(&values)?;
    } else if !dry_run && exit == Exit::OK {
        ctx.out.hint(&format!("the file still holds the passwords in the clear; delete it if nothing else needs it: {}", file.display()));
    }
    Ok(exit)
}

/// A value as a shell takes it, for people to copy.
fn quoted(value: &str) -> String {
    let plain = value.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '/' | ',' | '='));
    if plain && !value.is_empty() { value.to_owned() } else { format!("'{}'", value.replace('\'', "'\\''")) }
}

/// Asks something that waits for the other side, once.
async fn patient<T>(ctx: &Ctx, call: impl AsyncFn(&vmoon_api::Client) -> Result<T>) -> Result<T> {
    ctx.daemon.hello().await?;
    tokio::time::timeout(ANSWER, call(ctx.daemon.client()))
        .await
        .unwrap_or_else(|_| Err(Error::new(Code::Timeout, "the connection took too long to answer")))
}

/// Calls; if the other side is not known, asks on a terminal whether its fingerprint is right and calls again with it.
async fn trusting<T>(said: bool, name: &str, call: impl AsyncFn(Option<String>) -> Result<T>) -> Result<T> {
    let error = match call(None).await {
        Err(error) if error.code() == Code::ConnectionUntrusted && !said => error,
        answer => return answer,
    };
    let detail = error.detail_value().cloned().unwrap_or_default();
    let Some(fingerprint) = detail["fingerprint"].as_str() else { return Err(error) };
    // A key that has changed may be an attack: it is shown beside the old one, and accepted only on purpose.
    let changed = detail["expected"].as_str().map(|old| format!(" It was {} before: somebody may sit in between.", escape(old)));
    let question = format!(
        "{}: the other side is not known. Its fingerprint is {}.{} Accept it?",
        escape(name),
        escape(fingerprint),
        changed.unwrap_or_default()
    );
    match out::confirm(&question) {
        Some(true) => call(Some(fingerprint.to_owned())).await,
        Some(false) => Err(Error::new(Code::ConnectionUntrusted, "the fingerprint was not accepted; nothing was changed")),
        None => {
            let hint = format!("if that is its fingerprint: --accept-fingerprint {}", escape(fingerprint));
            Err(error.hint(hint))
        }
    }
}

impl Credentials {
    /// The password, if one is to be read, and whether to store it.
    fn password(&self) -> Result<(Option<Password>, Option<bool>)> {
        let store = self.no_store.then_some(false);
        let source: Box<dyn std::io::Read> = match &self.password_file {
            Some(path) => {
                let file = std::fs::File::open(path).map_err(|error| Error::io(format_args!("read {}", path.display()), error))?;
                Box::new(file)
            }
            None if self.password_stdin => Box::new(std::io::stdin()),
            None => return Ok((None, store)),
        };
        let mut text = String::with_capacity(LONGEST as usize + 1);
        source.take(LONGEST + 1).read_to_string(&mut text).map_err(|error| Error::io("read the password", error))?;
        // Taken over at once, so that it is zeroed whatever comes.
        let whole = Password::new(text);
        let line = whole.expose().lines().next().unwrap_or_default();
        if line.is_empty() || line.len() as u64 > LONGEST {
            return Err(Error::new(Code::Usage, format!("a password is one line of 1 to {LONGEST} bytes")));
        }
        Ok((Some(Password::new(line)), store))
    }
}

/// The name of the host in a URI, if it could name a connection.
fn host(uri: &str) -> Option<String> {
    let rest = uri.split_once("://").map_or(uri, |(_, rest)| rest);
    let rest = rest.split('/').next()?;
    let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
    let host = host.split_once(':').map_or(host, |(host, _)| host);
    vmoon_core::name::check(host).ok().map(|()| host.to_owned())
}

fn absolute(path: &std::path::Path) -> Result<String> {
    let whole = std::path::absolute(path).map_err(|error| Error::io(format_args!("find {}", path.display()), error))?;
    whole.into_os_string().into_string().map_err(|_| Error::new(Code::Usage, "the path of the key is not valid UTF-8"))
}

fn told(ctx: &Ctx, view: &ConnectionView, what: &str) -> Result<()> {
    if ctx.out.format().is_machine() {
        return ctx.out.one(view, &view.name, &connection_rows(view));
    }
    let machines = if view.machines == 1 { "1 machine".to_owned() } else { format!("{} machines", view.machines) };
    ctx.out.changed(&format!("{what} {} ({}, {machines})", escape(&view.name), word(&view.state)))?;
    for concern in &view.concerns {
        ctx.out.warn(&escape(concern));
    }
    Ok(())
}

fn tested(ctx: &Ctx, view: &TestView) -> Result<Exit> {
    let mut rows = connection_rows(&view.connection);
    rows.push(("listed".into(), format!("{} machines in {}", view.machines, time::took(Duration::from_micros(view.took_us)))));
    for check in &view.checks {
        rows.push((word(&check.verdict), format!("{}: {}", check.requirement, check.finding)));
        if !check.fix.is_empty() {
            rows.push(("fix".into(), check.fix.clone()));
        }
    }
    ctx.out.one(view, &view.connection.name, &rows)?;
    let failed = view.checks.iter().any(|check| check.verdict == Verdict::Fail);
    Ok(if failed { Exit(Code::DoctorFailed.exit()) } else { Exit::OK })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_gives_its_connection_a_name() {
        for (uri, name) in [
            ("admin@web01.example.org", Some("web01.example.org")),
            ("web01:2222", Some("web01")),
            ("https://xcp1.lab/", Some("xcp1.lab")),
            ("qemu+ssh://root@kvm1/system", Some("kvm1")),
            ("qemu:///system", None),
            ("[::1]", None),
            ("", None),
        ] {
            assert_eq!(host(uri).as_deref(), name, "{uri}");
        }
    }
}
