//! A small XAPI: sessions, a few records, events, tasks; and what goes wrong on demand. Its answers are shaped as those of a real one.

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{Request, Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{self, ServerConfig, pki_types::PrivateKeyDer},
};
use vmoon_xapi::{Client, Config, Password, trust::Fingerprint};

/// What the server has and what was asked of it.
#[derive(Default)]
pub(crate) struct World {
    pub(crate) sessions: Vec<String>,
    pub(crate) logins: u32,
    /// Every method, in order.
    pub(crate) calls: Vec<String>,
    /// The same as they came.
    pub(crate) bodies: Vec<Value>,
    /// Calls that are being answered, and how many those were at most.
    pub(crate) busy: [usize; 2],
    pub(crate) vms: BTreeMap<String, Value>,
    /// Events by their number, which is the token.
    pub(crate) events: Vec<Value>,
    pub(crate) tasks: BTreeMap<String, Value>,
    /// Sent to another: its address, and perhaps its certificate.
    pub(crate) slave_of: Option<(String, Option<String>)>,
    pub(crate) addresses: Vec<String>,
    /// What a method answers instead, once.
    pub(crate) instead: BTreeMap<String, Vec<Reply>>,
}

/// An answer that is not the usual one.
pub(crate) enum Reply {
    Failure(Vec<&'static str>),
    Raw(u16, &'static str, Vec<u8>),
    /// The same, with the request's id in the place of `"ID"`.
    Fixture(u16, String, String),
    /// The connection is closed without an answer.
    Drop,
    /// Never.
    Silence,
}

/// A server.
pub(crate) struct Server {
    pub(crate) world: Arc<Mutex<World>>,
    pub(crate) fingerprint: Fingerprint,
    pub(crate) host: String,
    changed: watch::Sender<u64>,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::at("127.0.0.1").await
    }

    pub(crate) async fn at(address: &str) -> Self {
        Self::bind(&format!("{address}:0")).await
    }

    pub(crate) async fn bind(address: &str) -> Self {
        let made = rcgen::generate_simple_self_signed(vec!["xcp.test".into()]).unwrap();
        let fingerprint = Fingerprint::of(made.cert.der());
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        // As XAPI does it: TLS 1.2 alone.
        let tls = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS12])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        let listener = TcpListener::bind(address).await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let world = Arc::new(Mutex::new(World::default()));
        let (changed, seen) = watch::channel(0);
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        let shared = world.clone();
        let task = tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let (acceptor, world, seen) = (acceptor.clone(), shared.clone(), seen.clone());
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(tcp).await else { return };
                    let service = service_fn(move |request| answer(world.clone(), seen.clone(), request));
                    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Self { world, fingerprint, host, changed, task }
    }

    pub(crate) fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }

    pub(crate) fn config(&self) -> Config {
        let mut config = Config::new(&self.host, "root", Password::new("right"));
        config.pin("127.0.0.1", self.fingerprint);
        config.deadline = Duration::from_secs(10);
        config
    }

    pub(crate) fn client(&self) -> Client {
        Client::new(self.config()).unwrap()
    }

    /// Answers this once instead of the usual.
    pub(crate) fn once(&self, method: &str, reply: Reply) {
        self.world().instead.entry(method.into()).or_default().push(reply);
    }

    /// Something happened to an object.
    pub(crate) fn event(&self, class: &str, operation: &str, reference: &str, record: Value) {
        let mut world = self.world();
        let all = if class == "task" { &mut world.tasks } else { &mut world.vms };
        let mut event = json!({"id": "1", "timestamp": "0.0", "class": class, "operation": operation, "ref": reference});
        if operation == "del" {
            all.remove(reference);
        } else {
            all.insert(reference.into(), record.clone());
            event["snapshot"] = record;
        }
        world.events.push(event);
        drop(world);
        self.changed.send_modify(|n| *n += 1);
    }

    /// Ends every session, as a restart of XAPI does.
    pub(crate) fn restart(&self) {
        self.world().sessions.clear();
        self.changed.send_modify(|n| *n += 1);
    }

    pub(crate) fn logins(&self) -> u32 {
        self.world().logins
    }

    pub(crate) fn count(&self, method: &str) -> usize {
        self.world().calls.iter().filter(|call| *call == method).count()
    }
}

fn reply(id: &Value, result: Value) -> Value {
    json!({"jsonrpc": "2.0", "result": result, "id": id})
}

fn failure(id: &Value, code: &[&str]) -> Value {
    json!({"jsonrpc": "2.0", "error": {"code": 1, "message": code[0], "data": code[1..]}, "id": id})
}

async fn answer(
    world: Arc<Mutex<World>>,
    mut seen: watch::Receiver<u64>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, std::io::Error> {
    let asks = request.headers().get("x-xenapi-request-host-certificate-thumbprint").is_some_and(|value| value == "sha-256:master");
    let body = request.into_body().collect().await.map_err(std::io::Error::other)?.to_bytes();
    let call: Value = serde_json::from_slice(&body).unwrap();
    let (id, method) = (&call["id"], call["method"].as_str().unwrap().to_owned());
    let special = {
        let mut world = world.lock().unwrap();
        world.calls.push(method.clone());
        world.bodies.push(call.clone());
        world.busy[0] += 1;
        world.busy[1] = world.busy[1].max(world.busy[0]);
        world.instead.get_mut(&method).and_then(|replies| (!replies.is_empty()).then(|| replies.remove(0)))
    };
    // The others come meanwhile.
    for _ in 0..if method == "VM.get_all_records" { 50 } else { 0 } {
        tokio::task::yield_now().await;
    }
    world.lock().unwrap().busy[0] -= 1;
    let mut response = Response::builder().header("content-type", "application/json");
    if let Some((_, Some(fingerprint))) = &world.lock().unwrap().slave_of
        && asks
    {
        response = response.header("x-xenapi-response-host-certificate-thumbprint", fingerprint);
    }
    let json = match special {
        Some(Reply::Failure(code)) => failure(id, &code),
        Some(Reply::Raw(status, kind, bytes)) => {
            return Ok(Response::builder().status(status).header("content-type", kind).body(Full::new(bytes.into())).unwrap());
        }
        Some(Reply::Fixture(status, kind, body)) => {
            let body = body.replace("\"ID\"", &id.to_string());
            return Ok(Response::builder().status(status).header("content-type", kind).body(Full::new(body.into())).unwrap());
        }
        Some(Reply::Drop) => return Err(std::io::ErrorKind::ConnectionReset.into()),
        Some(Reply::Silence) => std::future::pending::<Value>().await,
        None => usual(&world, &mut seen, id, &method, &call["params"]).await.unwrap_or_else(|never| match never {}),
    };
    Ok(response.body(Full::new(json.to_string().into())).unwrap())
}

async fn usual(
    world: &Mutex<World>,
    seen: &mut watch::Receiver<u64>,
    id: &Value,
    method: &str,
    params: &Value,
) -> Result<Value, Infallible> {
    let text = |at: usize| params[at].as_str().unwrap_or_default().to_owned();
    {
        let mut world = world.lock().unwrap();
        if let Some((address, _)) = &world.slave_of {
            return Ok(failure(id, &["HOST_IS_SLAVE", address]));
        }
        if method == "session.login_with_password" {
            if text(1) != "right" {
                return Ok(failure(id, &["SESSION_AUTHENTICATION_FAILED", &text(0), "Authentication failure"]));
            }
            world.logins += 1;
            let session = format!("OpaqueRef:session-{}", world.logins);
            world.sessions.push(session.clone());
            return Ok(reply(id, session.into()));
        }
        if !world.sessions.contains(&text(0)) {
            return Ok(failure(id, &["SESSION_INVALID", &text(0)]));
        }
    }
    if method == "event.from" {
        return Ok(events(world, seen, id, params).await);
    }
    let mut world = world.lock().unwrap();
    Ok(match method {
        "session.logout" => {
            world.sessions.retain(|session| *session != text(0));
            reply(id, "".into())
        }
        "host.get_all_records" => {
            let hosts: BTreeMap<_, _> = world.addresses.iter().map(|a| (format!("OpaqueRef:{a}"), json!({"address": a}))).collect();
            reply(id, json!(hosts))
        }
        "pool.get_all" => reply(id, json!(["OpaqueRef:pool"])),
        "event.inject" => reply(id, json!(format!("{:020},0", world.events.len()))),
        "VM.get_all_records" => reply(id, json!(world.vms)),
        "VM.get_record" => match world.vms.get(&text(1)) {
            Some(record) => reply(id, record.clone()),
            None => failure(id, &["HANDLE_INVALID", "VM", &text(1)]),
        },
        "VM.start" | "task.destroy" | "task.cancel" => reply(id, "".into()),
        "Async.VM.start" => {
            let task = format!("OpaqueRef:task-{}", world.tasks.len());
            world.tasks.insert(task.clone(), json!({"status": "pending", "progress": 0.0}));
            reply(id, task.into())
        }
        _ => failure(id, &["MESSAGE_METHOD_UNKNOWN", method]),
    })
}

/// Answers when there is something from the token on, or the session has ended.
async fn events(world: &Mutex<World>, seen: &mut watch::Receiver<u64>, id: &Value, params: &Value) -> Value {
    let wanted: Vec<String> = params[1].as_array().unwrap().iter().map(|class| class.as_str().unwrap().to_lowercase()).collect();
    let token = params[2].as_str().unwrap().to_owned();
    loop {
        seen.borrow_and_update();
        {
            let world = world.lock().unwrap();
            if !world.sessions.iter().any(|session| params[0] == *session) {
                return failure(id, &["SESSION_INVALID", params[0].as_str().unwrap()]);
            }
            let about = |event: &&Value| {
                let (class, reference) = (event["class"].as_str().unwrap(), event["ref"].as_str().unwrap());
                wanted.iter().any(|wanted| *wanted == class || *wanted == format!("{class}/{reference}").to_lowercase())
            };
            let found: Vec<Value> = match token.split(',').next().unwrap().parse::<usize>() {
                Ok(from) => world.events.iter().skip(from).filter(about).cloned().collect(),
                // From nothing: everything there is, as if it were new.
                Err(_) => {
                    let all = world.tasks.iter().map(|(reference, record)| ("task", reference, record));
                    let add =
                        |(class, reference, record)| json!({"class": class, "operation": "add", "ref": reference, "snapshot": record});
                    let all: Vec<Value> = all.map(add).collect();
                    all.iter().filter(about).cloned().collect()
                }
            };
            if !found.is_empty() || token.is_empty() {
                let counts = json!({"vm": world.vms.len()});
                return reply(id, json!({"events": found, "token": format!("{:020},0", world.events.len()), "valid_ref_counts": counts}));
            }
        }
        if seen.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}
