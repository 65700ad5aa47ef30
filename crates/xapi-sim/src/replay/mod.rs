//! Recordings of a real xapi, asked of this server again: whether it answers in the same shape.
//!
//! A recording is a file of JSON lines, each a request and what came back. Requests are sent as they were, but for references, uuids and tokens that are others
//! here. Then field sets, JSON types, error codes and the number of their parameters are compared, not values. Beside that every record is read by the table of
//! the data model and written again.

mod decode;
mod shape;
mod wire;

pub use decode::Decoded;

use crate::{
    Server, Settings,
    model::{Model, NULL, Type},
    wire::xml,
};
use serde_json::Value;
use shape::{Names, compare};
use std::{io, time::Duration};
use tokio::time::timeout;
use wire::Kind;

/// Why hosts and storage may be other ones.
const LATER: &str = "the database is of a later time, with another coordinator and other storage";

/// What is known to differ, and why that is so: a method, or the beginning of a note; what the difference says; the reason.
const EXCUSES: &[(&str, &str, &str)] = &[
    ("VM.copy", "/error: only there", "its storage could not copy disks"),
    ("pool_migrate to self", "", "its hosts had no features of processors to compare"),
    ("message.get_since", "", "no messages are kept here"),
    ("VM.resume_on", "/error: only there", LATER),
    ("pool.eject master", "", LATER),
    ("forwarded call", "HANDLE_INVALID", LATER),
    ("rrd_updates", "", "it ran without the service for statistics"),
    ("host_rrd", "", "it ran without the service for statistics"),
    ("event.from", "no \"del\" of \"task\"", "what had happened before is not in the recording"),
    ("event.from", "no \"mod\" of \"vm_guest_metrics\"", "guests there told of themselves in several steps"),
];

/// How long tools in a guest take to tell something: longer than from one request to the next, less than events are waited for.
const TOOLS: Duration = Duration::from_millis(400);

/// How one request went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// As it was.
    Matched,
    /// Otherwise: every difference.
    Differs(Vec<String>),
    /// Otherwise, and known why.
    Excused(String),
}

/// How all requests of a file went.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Requests whose answers have the same shape.
    pub matched: usize,
    /// Those that have not, with what is different.
    pub differing: Vec<(String, Vec<String>)>,
    /// Those that have not, with the reason.
    pub excused: Vec<(String, String)>,
    /// What was read and written again.
    pub decoded: Decoded,
}

impl Report {
    /// Adds another file's.
    pub fn add(&mut self, other: Report) {
        self.matched += other.matched;
        self.differing.extend(other.differing);
        self.excused.extend(other.excused);
        self.decoded.add(other.decoded);
    }
}

/// Whom the recordings log in as.
#[derive(Clone, Debug)]
pub struct Login {
    /// The user.
    pub user: String,
    /// The password.
    pub password: String,
}

impl Login {
    /// The first login in a recording that went well.
    pub fn find(recording: &str) -> Option<Self> {
        lines(recording).find_map(|line| {
            let call: Value = serde_json::from_str(line["request"]["body"].as_str()?).ok()?;
            let went_well = line["response"]["body"].as_str()?.contains("\"result\":\"OpaqueRef:");
            let [user, password, ..] = call["params"].as_array()?.as_slice() else { return None };
            (call["method"] == "session.login_with_password" && went_well)
                .then(|| Some(Self { user: user.as_str()?.to_owned(), password: password.as_str()?.to_owned() }))?
        })
    }
}

fn lines(recording: &str) -> impl Iterator<Item = Value> {
    recording.lines().filter_map(|line| serde_json::from_str(line).ok())
}

/// Reads a database and writes it again; what it has.
///
/// # Errors
/// Why it cannot be read.
pub fn database(text: &str) -> Result<(crate::xmldb::Read, bool), String> {
    let mut store = crate::store::Store::new(Model::get());
    let read = crate::xmldb::read(&mut store, text)?;
    let again = crate::xmldb::write(&store);
    let mut second = crate::store::Store::new(Model::get());
    crate::xmldb::read(&mut second, &again)?;
    Ok((read, crate::xmldb::write(&second) == again.replacen(&store.generation.to_string(), &second.generation.to_string(), 1)))
}

/// Asks everything in a recording of a server that has this database, and compares.
///
/// # Errors
/// Those of the sockets.
pub async fn run(recording: &str, database: Option<&str>, login: &Login) -> io::Result<Report> {
    let settings = Settings { tls: false, user: login.user.clone(), password: login.password.clone(), tools: TOOLS, ..Settings::default() };
    let server = Server::start(&settings).await?;
    if let Some(database) = database {
        server.sim.load(database).map_err(io::Error::other)?;
    }
    let member = server.member("replayed", "127.0.0.1:0".parse().map_err(io::Error::other)?).await?;
    prepare(&server, recording);
    let (mut report, mut names) = (Report::default(), Names::default());
    for line in lines(recording) {
        let title = format!("{} {}", line["n"].as_i64().unwrap_or(-1), line["note"].as_str().unwrap_or_default());
        let Some(exchange) = wire::Exchange::read(&line) else {
            report.excused.push((title, "the recording has not the whole request".into()));
            continue;
        };
        report.decoded.answer(&exchange);
        // It is not written down of whom it was asked; what a member answers is known.
        let of_member = exchange.answer.as_ref().is_some_and(|answer| answer.text().contains("HOST_IS_SLAVE"));
        let asked = if of_member { &member } else { &server };
        let mut told = wire::ask(asked, &exchange, &names).await?;
        // There more time had passed since the VM was started.
        let lacks = |answer: &Option<wire::Answer>| answer.as_ref().is_some_and(|answer| answer.text().contains("VM_LACKS_FEATURE"));
        if lacks(&told) && !lacks(&exchange.answer) {
            let _ = timeout(2 * TOOLS, server.sim.next_change()).await;
            told = wire::ask(asked, &exchange, &names).await?;
        }
        let method = exchange.method();
        match verdict(&exchange, told, &mut names) {
            Verdict::Matched => report.matched += 1,
            Verdict::Excused(why) => report.excused.push((title, why)),
            Verdict::Differs(all) => match excuse(&method, &title, &all) {
                Some(why) => report.excused.push((title, why.to_owned())),
                None => report.differing.push((format!("{title} ({method})"), all)),
            },
        }
    }
    Ok(report)
}

/// The database may be of a later time than the recording: what the recording says of the pool is so again.
fn prepare(server: &Server, recording: &str) {
    if recording.contains("VM_NO_SUSPEND_SR") {
        let mut state = server.sim.state();
        let pools: Vec<String> = state.store.rows("pool").map(|(reference, _)| reference.clone()).collect();
        for pool in pools {
            // It was just there.
            let _ = state.store.set("pool", &pool, "suspend_image_SR", NULL);
        }
    }
}

fn excuse(method: &str, title: &str, all: &[String]) -> Option<&'static str> {
    let fits = |(of, part, _): &&(&str, &str, &str)| (*of == method || title.contains(of)) && all.iter().any(|one| one.contains(part));
    EXCUSES.iter().find(fits).map(|(.., why)| *why)
}

/// Compares what is told here with what was told there, and learns which names stand for which.
fn verdict(exchange: &wire::Exchange, told: Option<wire::Answer>, names: &mut Names) -> Verdict {
    let (Some(there), Some(here)) = (&exchange.answer, &told) else {
        return if exchange.answer.is_none() == told.is_none() {
            Verdict::Matched
        } else {
            Verdict::Differs(vec![format!("there an answer: {}, here: {}", exchange.answer.is_some(), told.is_some())])
        };
    };
    let mut all = Vec::new();
    if there.status != here.status {
        all.push(format!("status {} there, {} here", there.status, here.status));
    }
    if let Some(value) = here.value() {
        names.token(&value);
    }
    let both = [there.kind(), here.kind()];
    let some = |kind: &Kind| matches!(kind, Kind::Bytes | Kind::Xml);
    if both.contains(&Kind::Bytes) && both.iter().all(some) {
        // Nothing is known of it but that there is something.
    } else if there.kind() != here.kind() {
        all.push(format!("{:?} there, {:?} here", there.kind(), here.kind()));
    } else if let (Some(mut a), Some(mut b)) = (there.value(), here.value()) {
        if answers_a_map(&exchange.method()) && a["result"].is_object() && b["result"].is_object() {
            (a["result"], b["result"]) = (Value::Null, Value::Null);
        }
        compare("", &a, &b, names, &mut all);
    } else if there.is_cut() {
        return Verdict::Excused("the recording has only the beginning of the answer".into());
    }
    if all.is_empty() { Verdict::Matched } else { Verdict::Differs(all) }
}

/// Whether the keys of what it answers are data.
fn answers_a_map(method: &str) -> bool {
    let answers = Model::get().method(method).map(|method| method.result);
    matches!(answers, Ok(Type::Map(_, of)) if !matches!(*of, Type::Record(_)))
}

/// The value in an answer of XML-RPC.
fn xml_value(text: &str) -> Option<Value> {
    let start = text.find("<param>")? + "<param>".len();
    let end = text.rfind("</param>")?;
    xml::read_value(text.get(start..end)?)
}
