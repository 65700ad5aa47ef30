//! The server without its sockets: sessions, dispatch, events, tasks.

use crate::{
    engine,
    fault::{Fault, Result},
    handlers::Consoles,
    machines::{self, Link, Machines},
    model::{Accessor, Call, Class, Model, NULL, Param, Type},
    store::Store,
    values::check,
    verbs, xmldb,
};
use serde_json::{Map, Value, json};
use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};
use tokio::sync::watch;

/// Sessions that one originator may have; the oldest go (`xapi_globs.ml`).
const SESSIONS: usize = 500;

/// What goes wrong on demand.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// The pool's coordinator is elsewhere: its address, and its certificate's fingerprint.
    pub slave_of: Option<(String, String)>,
    /// Methods that fail the next times, each with these words.
    pub fail: HashMap<String, Vec<Vec<String>>>,
    /// Calls of a later release than the data model: each answers with its value and what it was given.
    pub newer: HashMap<String, Value>,
    /// How long each call takes.
    pub delay: Duration,
    /// The host just started.
    pub booting: bool,
    /// Consoles, imports, exports and statistics are at another host: `name:port`.
    pub moved: Option<String>,
    /// The connection is cut at a call.
    pub cut: Option<Cut>,
}

/// Where the connection to a client is cut: from then on no call is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// After so many calls that may change something.
    pub after: u64,
    /// Whether the next one of them is done and only its answer lost.
    pub done: bool,
}

/// Everything that changes.
pub(crate) struct State {
    pub(crate) store: Store,
    pub(crate) sessions: Vec<Session>,
    pub(crate) faults: Faults,
    pub(crate) user: String,
    pub(crate) password: String,
    /// How long tools in a guest take to tell something.
    pub(crate) tools: Duration,
    /// What is behind consoles.
    pub(crate) consoles: Option<Consoles>,
}

impl State {
    pub(crate) fn has_session(&self, session: &str) -> bool {
        self.sessions.iter().any(|one| one.reference == session)
    }
}

pub(crate) struct Session {
    pub(crate) reference: String,
    originator: String,
    pub(crate) classes: BTreeSet<String>,
    /// Of `event.next`.
    pub(crate) seen: u64,
}

/// A pool.
pub struct Sim {
    state: Mutex<State>,
    pub(crate) changed: watch::Sender<u64>,
    /// What is behind VMs, if they are not rows only.
    machines: OnceLock<Arc<Machines>>,
}

/// An answer and its type, by which XML is written.
pub(crate) type Answer = (Value, Type);

impl Sim {
    /// A pool with this in it, for this user.
    pub(crate) fn new(store: Store, user: &str, password: &str, tools: Duration) -> Arc<Self> {
        let state = State {
            store,
            sessions: Vec::new(),
            faults: Faults::default(),
            user: user.to_owned(),
            password: password.to_owned(),
            tools,
            consoles: None,
        };
        Arc::new(Self { state: Mutex::new(state), changed: watch::Sender::new(0), machines: OnceLock::new() })
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells when something may have changed.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Gives VMs machines; what makes them run, until it is dropped.
    pub(crate) fn boot(self: &Arc<Self>, machines: Arc<Machines>) -> impl Future<Output = ()> + Send + use<> {
        machines::furnish(&mut self.state().store, &machines.about(), machines.keeps_memory());
        let machines = self.machines.get_or_init(|| machines).clone();
        machines::follow(self.clone(), machines)
    }

    /// What is behind the console of a VM that has a machine.
    pub(crate) fn link(&self, vm: &str, protocol: &str) -> Option<Link> {
        self.machines.get()?.link(vm, protocol)
    }

    /// Whoever waits for events looks again.
    pub(crate) fn wake(&self) {
        self.changed.send_modify(|n| *n += 1);
    }

    /// Waits until something changes.
    pub(crate) async fn next_change(&self) {
        let mut changed = self.changed.subscribe();
        changed.borrow_and_update();
        // It lives as long as this does.
        let _ = changed.changed().await;
    }

    /// Sets what goes wrong from now on.
    pub fn faults(&self, change: impl FnOnce(&mut Faults)) {
        change(&mut self.state().faults);
        self.wake();
    }

    /// Puts an object into the pool, as if it had always been there; its reference.
    pub fn insert(&self, class: &str, value: Value) -> String {
        let made = self.state().store.insert(class, fields(value));
        self.wake();
        made
    }

    /// Whether the connection is cut before this call, and whether after it.
    pub(crate) fn cut(&self, method: &str) -> (bool, bool) {
        let Some(cut) = &mut self.state().faults.cut else { return (false, false) };
        let verb = method.rsplit('.').next().unwrap_or_default();
        let reads =
            verb.starts_with("get_") || method.starts_with("event.") || method.starts_with("session.") || method.starts_with("task.");
        match (cut.after, reads) {
            (0, true) => (!cut.done, false),
            (0, false) => {
                let done = std::mem::replace(&mut cut.done, false);
                (!done, done)
            }
            (_, true) => (false, false),
            (_, false) => {
                cut.after -= 1;
                (false, false)
            }
        }
    }

    /// Says what is behind the consoles of VMs that run.
    pub fn set_consoles(&self, consoles: Consoles) {
        self.state().consoles = Some(consoles);
    }

    /// Adds a host to the pool, with its certificate.
    pub fn add_host(&self, name: &str, address: &str, fingerprint: &str) {
        let mut state = self.state();
        let host = json!({"name_label": name, "hostname": name, "address": address, "enabled": true});
        let host = state.store.insert("host", fields(host));
        // It reaches the storage that the pool has.
        let storage: Vec<String> = state.store.rows("SR").map(|(reference, _)| reference.clone()).collect();
        for sr in storage {
            state.store.insert("PBD", fields(json!({"host": host, "SR": sr, "currently_attached": true})));
        }
        let certificate = json!({"type": "host", "host": host, "fingerprint": fingerprint, "fingerprint_sha256": fingerprint});
        state.store.insert("Certificate", fields(certificate));
    }

    /// Puts what a file `xapi-db.xml` has in the place of everything there is.
    ///
    /// # Errors
    /// Why it cannot be read; everything is then as it was.
    pub fn load(&self, text: &str) -> std::result::Result<xmldb::Read, String> {
        let mut store = Store::new(Model::get());
        let read = xmldb::read(&mut store, text)?;
        let mut state = self.state();
        // Tokens of before are of the past.
        store.generation += state.store.generation;
        state.store = store;
        state.sessions.clear();
        drop(state);
        self.wake();
        Ok(read)
    }

    /// The database as such a file.
    pub fn dump(&self) -> String {
        xmldb::write(&self.state().store)
    }

    /// A task of something that is no call.
    pub(crate) fn new_task(&self, name: &str) -> String {
        let fields = json!({"name_label": name, "status": "pending", "created": verbs::now(), "progress": 0.0});
        self.state().store.insert("task", fields.as_object().cloned().unwrap_or_default())
    }

    /// Ends a task with its result in XML, or its failure.
    pub(crate) fn end_task(&self, reference: &str, ended: Result<String>) {
        let mut state = self.state();
        let mut set = |name: &str, value: Value| {
            // It may have been destroyed meanwhile.
            let _ = state.store.set("task", reference, name, value);
        };
        match ended {
            Ok(result) => {
                set("result", result.into());
                set("status", "success".into());
            }
            Err(Fault(words)) => {
                set("error_info", json!(words));
                set("status", "failure".into());
            }
        }
        set("progress", json!(1.0));
        set("finished", verbs::now().into());
        set("allowed_operations", json!([]));
        drop(state);
        self.wake();
    }

    /// Ends every session, as a restart of XAPI does; tokens are good afterwards, and everything is told again.
    pub fn restart(&self) {
        let mut state = self.state();
        state.sessions.clear();
        state.store.forget_deletions();
        drop(state);
        self.wake();
    }

    /// Forgets which objects are gone: a slow reader does not learn of it.
    pub fn forget_deletions(&self) {
        self.state().store.forget_deletions();
    }

    /// The names of all objects of a class, in order, with a number where several share one.
    pub fn names(&self, class: &str) -> Vec<String> {
        let state = self.state();
        let name = |row: &crate::store::Row| row.fields.get("name_label").and_then(Value::as_str).unwrap_or_default().to_owned();
        let mut all: Vec<String> = state.store.rows(class).map(|(_, row)| name(row)).collect();
        all.sort();
        all
    }

    /// The file with what is on a disk, by the disk's reference. Its guest may have it open.
    ///
    /// # Errors
    /// If there is no such disk, or its file cannot be made.
    pub fn disk(&self, reference: &str) -> std::io::Result<std::path::PathBuf> {
        let state = self.state();
        let bytes = state.store.field("VDI", reference, "virtual_size")?.as_u64().unwrap_or_default();
        state.store.images.file(reference, bytes)
    }

    /// How many sessions there are.
    pub fn sessions(&self) -> usize {
        self.state().sessions.len()
    }

    /// Answers a call.
    ///
    /// # Errors
    /// What XAPI answers.
    pub(crate) async fn call(self: &Arc<Self>, method: &str, params: &[Value]) -> Result<Answer> {
        self.call_at(None, method, params).await
    }

    /// Answers a call at a host whose coordinator is elsewhere, by that one's address: who logs in is sent there before his password is looked at, who has a
    /// session, too.
    pub(crate) async fn call_at(self: &Arc<Self>, coordinator: Option<&str>, method: &str, params: &[Value]) -> Result<Answer> {
        let delay = self.state().faults.delay;
        if !delay.is_zero() {
            verbs::rest(delay).await;
        }
        let planned = {
            let mut state = self.state();
            if state.faults.booting {
                return Err(Fault::new("HOST_STILL_BOOTING", []));
            }
            state.faults.fail.get_mut(method).filter(|all| !all.is_empty()).map(|all| all.remove(0))
        };
        if let Some(words) = planned {
            return Err(Fault(words));
        }
        let elsewhere =
            coordinator.map(str::to_owned).or_else(|| self.state().faults.slave_of.as_ref().map(|(address, _)| address.clone()));
        if let Some(address) = elsewhere {
            let known = params.first().and_then(Value::as_str).is_some_and(|session| self.state().has_session(session));
            if known || method == "session.login_with_password" {
                return Err(Fault::new("HOST_IS_SLAVE", [&address]));
            }
        }
        if let Some(method) = method.strip_prefix("Async.") {
            return self.begin(method, params);
        }
        match method {
            "system.listMethods" => {
                let newer: Vec<String> =
                    self.state().faults.newer.keys().flat_map(|name| [name.clone(), format!("Async.{name}")]).collect();
                let all = methods().into_iter().chain(newer).map(Value::from).collect();
                Ok((Value::Array(all), Type::Set(Box::new(Type::Text))))
            }
            "session.login_with_password" | "session.slave_local_login_with_password" => self.log_in(params),
            "event.from" => self.events_from(params).await,
            "event.next" => self.events_next(params).await,
            _ => {
                if let Some(machines) = self.machines.get()
                    && let Some(answer) = machines.instead(self, method, params).await
                {
                    return answer;
                }
                let answer = self.obey(method, params);
                self.wake();
                answer
            }
        }
    }

    /// Whether a call reads every record of a class and nothing is to go wrong with it: the class, and whatever else there is. Such an answer is written without being
    /// copied.
    pub(crate) fn whole_class<T>(
        &self,
        method: &str,
        params: &[Value],
        write: impl FnOnce(&engine::Records<'_>) -> Option<T>,
    ) -> Option<T> {
        let class = method.strip_suffix(".get_all_records")?;
        let known = Model::get().classes.get(class)?;
        let state = self.state();
        let faults = &state.faults;
        let plain = faults.delay.is_zero() && !faults.booting && faults.slave_of.is_none() && !faults.fail.contains_key(method);
        let is_accessor =
            matches!(Accessor::find(known, "get_all_records"), Some(Accessor::AllRecords)) && !known.calls.contains_key("get_all_records");
        if !(plain && is_accessor && params.len() == 1 && check_session(&state, method, params).is_ok()) {
            return None;
        }
        write(&engine::Records { store: &state.store, class })
    }

    fn log_in(&self, params: &[Value]) -> Result<Answer> {
        if !(2..=4).contains(&params.len()) {
            return Err(count("session.login_with_password", 4, params.len() as i64));
        }
        let text = |at: usize| params.get(at).and_then(Value::as_str).unwrap_or_default().to_owned();
        let mut state = self.state();
        if text(0) != state.user || text(1) != state.password {
            return Err(Fault::new("SESSION_AUTHENTICATION_FAILED", [&text(0), "Authentication failure"]));
        }
        let host = state.store.rows("host").next().map_or(NULL.to_owned(), |(reference, _)| reference.clone());
        let fields = json!({"this_host": host, "is_local_superuser": true, "originator": text(3), "last_active": verbs::now()});
        let reference = state.store.insert("session", fields.as_object().cloned().unwrap_or_default());
        let of: Vec<String> = state.sessions.iter().filter(|session| session.originator == text(3)).map(|s| s.reference.clone()).collect();
        if of.len() >= SESSIONS {
            end(&mut state, &of[0]);
        }
        state.sessions.push(Session { reference: reference.clone(), originator: text(3), classes: BTreeSet::new(), seen: 0 });
        Ok((reference.into(), Type::Ref("session".into())))
    }

    /// Answers everything that needs no waiting.
    fn obey(self: &Arc<Self>, method: &str, params: &[Value]) -> Result<Answer> {
        let mut state = self.state();
        let session = check_session(&state, method, params)?;
        match method {
            "session.logout" | "session.local_logout" => {
                end(&mut state, &session);
                return Ok(("".into(), Type::Void));
            }
            "event.inject" => {
                let text = |at: usize| params.get(at).and_then(Value::as_str).unwrap_or_default();
                let class = class_named(text(1)).ok_or_else(|| Fault::handle(text(1), text(2)))?;
                return Ok((state.store.touch(class, text(2))?.into(), Type::Text));
            }
            "event.register" | "event.unregister" => {
                let wanted: Vec<String> = params
                    .get(1)
                    .and_then(Value::as_array)
                    .into_iter()
                    .flatten()
                    .filter_map(|c| c.as_str().map(str::to_lowercase))
                    .collect();
                let generation = state.store.generation;
                if let Some(session) = state.sessions.iter_mut().find(|one| one.reference == session) {
                    session.seen = if session.classes.is_empty() { generation } else { session.seen };
                    if method == "event.register" {
                        session.classes.extend(wanted);
                    } else {
                        session.classes.retain(|class| !wanted.contains(class));
                    }
                }
                return Ok(("".into(), Type::Void));
            }
            "event.get_current_id" => return Ok((state.store.generation.into(), Type::Int)),
            _ => {}
        }
        if let Some(answer) = state.faults.newer.get(method) {
            return Ok((json!({"answer": answer, "given": &params[1..]}), Type::Any));
        }
        let (class, verb) = method.split_once('.').ok_or_else(|| Fault::new("MESSAGE_METHOD_UNKNOWN", [method]))?;
        let known = class_of(method)?;
        if let Some(call) = known.calls.get(verb) {
            let params = typed(&state.store, method, call, &params[1..])?;
            let (result, value) = (call.result.clone(), verbs::obey(self, &mut state, method, &params)?);
            return Ok((value, result));
        }
        let Some(accessor) = Accessor::find(known, verb) else { return Err(Fault::new("MESSAGE_METHOD_UNKNOWN", [method])) };
        let (types, result) = accessor.shape(class);
        let given = &params[1..];
        if given.len() != types.len() {
            return Err(count(method, types.len(), given.len() as i64));
        }
        let model = state.store.model;
        let given = types.iter().zip(given).map(|(param, value)| check(&param.ty, model, value)).collect::<Result<Vec<_>>>()?;
        if let Some(value) = verbs::instead(self, &mut state, method, &given)? {
            return Ok((value, result));
        }
        Ok((engine::obey(&accessor, &mut state.store, class, &given)?, result))
    }

    /// Does a call as a task; the task.
    fn begin(self: &Arc<Self>, method: &str, params: &[Value]) -> Result<Answer> {
        let task = {
            let mut state = self.state();
            check_session(&state, method, params)?;
            let (_, verb) = method.split_once('.').unwrap_or((method, ""));
            // Only calls can be tasks, and accessors that make or destroy.
            let known = class_of(method)?;
            if !known.calls.contains_key(verb) && !matches!(verb, "create" | "destroy") && !state.faults.newer.contains_key(method) {
                return Err(Fault::new("MESSAGE_METHOD_UNKNOWN", [&format!("Async.{method}")]));
            }
            let fields = json!({
                "name_label": format!("Async.{method}"), "status": "pending", "created": verbs::now(), "progress": 0.0,
                "allowed_operations": ["cancel"],
            });
            state.store.insert("task", fields.as_object().cloned().unwrap_or_default())
        };
        self.wake();
        let (this, method, params, reference) = (self.clone(), method.to_owned(), params.to_vec(), task.clone());
        drop(tokio::spawn(async move {
            let ended = Box::pin(this.call(&method, &params)).await;
            this.end_task(&reference, ended.map(|(value, ty)| crate::wire::xml::value(&value, &ty, Model::get())));
        }));
        Ok((task.into(), Type::Ref("task".into())))
    }
}

/// A class by its name in any case.
pub(crate) fn class_named(name: &str) -> Option<&'static str> {
    Model::get().classes.keys().find(|class| class.eq_ignore_ascii_case(name)).map(String::as_str)
}

pub(crate) fn count(method: &str, wanted: usize, given: i64) -> Fault {
    // What it expected is said by accessors without parameters only; it is what was seen.
    let wanted = wanted.to_string();
    Fault::new("MESSAGE_PARAMETER_COUNT_MISMATCH", [method, &wanted, &given.to_string()])
}

pub(crate) fn check_session(state: &State, method: &str, params: &[Value]) -> Result<String> {
    let Some(first) = params.first() else { return Err(count(method, 0, -1)) };
    let session = first.as_str().ok_or_else(|| Fault::internal("Failure(\"Expected string, got 'N'\")"))?;
    if state.has_session(session) { Ok(session.to_owned()) } else { Err(Fault::new("SESSION_INVALID", [session])) }
}

fn end(state: &mut State, session: &str) {
    state.sessions.retain(|one| one.reference != session);
    state.store.remove("session", session);
}

/// The parameters of a call, checked; those that were left out are not there.
fn typed(store: &Store, method: &str, call: &Call, given: &[Value]) -> Result<Vec<Value>> {
    let needed = call.params.iter().filter(|param| !param.optional).count();
    if given.len() < needed || given.len() > call.params.len() {
        return Err(count(method, call.params.len(), given.len() as i64));
    }
    call.params.iter().zip(given).map(|(Param { ty, .. }, value)| check(ty, store.model, value)).collect()
}

/// Every method there is.
fn methods() -> Vec<String> {
    let mut all = Model::get().methods();
    let tasks: Vec<String> = all.iter().map(|name| format!("Async.{name}")).filter(|name| Model::get().method(name).is_ok()).collect();
    all.extend(tasks);
    all
}

/// The class that a method is of.
fn class_of(method: &str) -> Result<&'static Class> {
    let known = method.split_once('.').and_then(|(class, _)| Model::get().classes.get(class));
    known.ok_or_else(|| Fault::new("MESSAGE_METHOD_UNKNOWN", [method]))
}

/// An object's fields from JSON.
pub(crate) fn fields(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}
