//! What is no call: consoles, import and export, statistics, the database. Each wants a session in the query, in a cookie, or a name and password.

mod console;
mod disk;
mod measured;
mod xva;

pub use console::Consoles;

use crate::{
    fault::{Fault, Result},
    server::{Answer, full, page},
    sim::Sim,
    xmldb,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Limited};
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{AUTHORIZATION, CONNECTION, CONTENT_TYPE, COOKIE, HeaderValue, LOCATION, TRANSFER_ENCODING, WWW_AUTHENTICATE},
};
use percent_encoding::percent_decode_str;
use std::{collections::BTreeMap, sync::Arc};

/// The largest body that is taken, bytes: it is kept in memory.
const MAX_BODY: usize = 256 << 20;

/// Places that a real host has and this one has not, but for the question who asks.
const ELSEWHERE: &[&str] =
    &["/services", "/wlb_report", "/wlb_diagnostics", "/host_rrd", "/vm_rrd", "/sr_rrd", "/host_backup", "/system-status"];

/// What was asked: the query, decoded.
pub(crate) type Query = BTreeMap<String, String>;

/// What a handler makes of a body.
enum Work {
    Export { metadata: bool },
    Import { metadata: bool },
    ExportDisk,
    ImportDisk,
}

/// Answers a request that is no call; nothing if there is no such place.
pub(crate) async fn answer(sim: &Arc<Sim>, is_coordinator: bool, request: Request<Incoming>) -> Option<Response<Answer>> {
    let path = request.uri().path().to_owned();
    let known = match (request.method(), path.as_str()) {
        (&Method::CONNECT | &Method::GET, "/console") | (&Method::GET, "/rrd_updates" | "/pool/xmldbdump" | "/audit_log") => None,
        (&Method::GET, "/export") => Some(Work::Export { metadata: false }),
        (&Method::GET, "/export_metadata") => Some(Work::Export { metadata: true }),
        (&Method::PUT, "/import") => Some(Work::Import { metadata: false }),
        (&Method::PUT, "/import_metadata") => Some(Work::Import { metadata: true }),
        (&Method::GET, "/export_raw_vdi") => Some(Work::ExportDisk),
        (&Method::PUT, "/import_raw_vdi") => Some(Work::ImportDisk),
        (&Method::GET, place) if ELSEWHERE.contains(&place) => None,
        _ => return None,
    };
    let query = query(request.uri().query().unwrap_or_default());
    if !lets_in(sim, &request, &query) {
        let mut refused = page(StatusCode::UNAUTHORIZED, "Please check your credentials and retry.");
        refused.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"xapi\""));
        return Some(refused);
    }
    let elsewhere = sim.state().faults.moved.clone().filter(|_| is_coordinator);
    if let Some(host) = elsewhere {
        let to = request.uri().path_and_query().map_or("/", |to| to.as_str());
        let mut moved = page(StatusCode::FOUND, "It is at another host of the pool.");
        moved.headers_mut().insert(LOCATION, HeaderValue::from_str(&format!("https://{host}{to}")).ok()?);
        return Some(moved);
    }
    Some(match known {
        Some(work) => carry_out(sim, work, &query, request).await,
        None if path == "/console" => console::answer(sim, &query, request),
        None if path == "/rrd_updates" => measured::answer(sim, &query),
        None if ELSEWHERE.contains(&path.as_str()) => page(StatusCode::NOT_FOUND, "The requested URL was not found on this server."),
        None if path == "/audit_log" => full(Bytes::new(), "text/plain"),
        None => {
            let text = xmldb::write(&sim.state().store);
            full(Bytes::from(text), "text/xml")
        }
    })
}

/// Reads `a=b&c=d`.
fn query(text: &str) -> Query {
    let decode = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    text.split('&').filter_map(|pair| pair.split_once('=')).map(|(name, value)| (decode(name), decode(value))).collect()
}

fn lets_in(sim: &Sim, request: &Request<Incoming>, query: &Query) -> bool {
    let header = |name| request.headers().get(name).and_then(|value| value.to_str().ok());
    let cookie = header(COOKIE).and_then(|all| all.split(';').find_map(|one| one.trim().strip_prefix("session_id=")));
    if let Some(session) = query.get("session_id").map(String::as_str).or(cookie) {
        return sim.state().has_session(session);
    }
    let basic = header(AUTHORIZATION).and_then(|value| value.strip_prefix("Basic ")).and_then(|value| STANDARD.decode(value).ok());
    let state = sim.state();
    basic.is_some_and(|given| given == format!("{}:{}", state.user, state.password).as_bytes())
}

/// An import or export, with its task: the one that was named, or a new one. The answer's header says which.
async fn carry_out(sim: &Arc<Sim>, work: Work, query: &Query, request: Request<Incoming>) -> Response<Answer> {
    let task = match query.get("task_id") {
        Some(task) if sim.state().store.get("task", task).is_ok() => task.clone(),
        Some(task) => return broken(&Fault::handle("task", task)),
        None => sim.new_task(request.uri().path().trim_start_matches('/')),
    };
    let chunked = request.headers().contains_key(TRANSFER_ENCODING);
    let body = async {
        if chunked {
            return Err(Fault::new("IMPORT_ERROR_CANNOT_HANDLE_CHUNKED", []));
        }
        let read = Limited::new(request.into_body(), MAX_BODY).collect().await;
        read.map(|body| body.to_bytes()).map_err(|_| Fault::new("IMPORT_ERROR_PREMATURE_EOF", []))
    };
    let done: Result<(String, Response<Answer>)> = match work {
        Work::Export { metadata } => {
            xva::export(&sim.state().store, query, !metadata).map(|bytes| (String::new(), full(bytes.into(), "application/octet-stream")))
        }
        Work::Import { metadata } => body
            .await
            .and_then(|body| xva::import(&mut sim.state().store, query, &body, !metadata))
            .map(|result| (result, full(Bytes::new(), "application/octet-stream"))),
        Work::ExportDisk => disk::export(&sim.state().store, query).map(|answer| (String::new(), answer)),
        Work::ImportDisk => body
            .await
            .and_then(|body| disk::import(&mut sim.state().store, query, body))
            .map(|()| ("<value></value>".to_owned(), full(Bytes::new(), "application/octet-stream"))),
    };
    let (mut response, result) = match done {
        Ok((result, response)) => (response, Ok(result)),
        Err(fault) => (broken(&fault), Err(fault)),
    };
    sim.end_task(&task, result);
    if let Ok(value) = HeaderValue::from_str(&task) {
        response.headers_mut().insert("task-id", value);
    }
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

/// A handler that died, as XAPI shows it.
fn broken(fault: &Fault) -> Response<Answer> {
    let words = if fault.0.first().is_some_and(|code| code == "INTERNAL_ERROR") { &fault.0[1..] } else { &fault.0[..] };
    let inside = quick_xml::escape::escape(words.join(", ")).into_owned();
    let text = "An unexpected error occurred; please wait a while and try again. If the problem persists, please contact your support representative.";
    page(StatusCode::INTERNAL_SERVER_ERROR, &format!("{text}<h1> Additional information </h1>{inside}"))
}

/// An object that is named by `uuid` or `ref`.
fn named(store: &crate::store::Store, class: &str, query: &Query) -> Result<String> {
    if let Some(reference) = query.get("ref") {
        return store.get(class, reference).map(|_| reference.clone());
    }
    let uuid = query.get("uuid").map(String::as_str).unwrap_or_default();
    by_uuid(store, class, uuid).ok_or_else(|| Fault::internal(&format!("Db_exn.Read_missing_uuid(\"{class}\", \"\", \"{uuid}\")")))
}

fn by_uuid(store: &crate::store::Store, class: &str, uuid: &str) -> Option<String> {
    store.rows(class).find(|(_, row)| row.fields.get("uuid").is_some_and(|known| known == uuid)).map(|(reference, _)| reference.clone())
}

/// A response with these headers and nothing in it.
fn empty(status: StatusCode) -> Response<Answer> {
    let mut response = full(Bytes::new(), "text/plain");
    *response.status_mut() = status;
    response.headers_mut().remove(CONTENT_TYPE);
    response
}
