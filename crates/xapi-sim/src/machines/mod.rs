//! What is behind VMs: machines that boot. The rows stay the truth: a task compares them with what runs, and starts, pauses and ends machines accordingly;
//! what a guest does by itself comes back as a change of rows.
//!
//! A VM has a machine if its `other_config` has the key `sim:boot`, which the templates of [`TEMPLATES`] have; without a [`Maker`] there are no such templates,
//! and VMs are rows only. Its address is one of loopback that nobody else has, with SSH at the port that `other_config` tells under `vmoon:ssh-port`: 22
//! where that may be bound. The guest's faults are words under the key `sim:guest`:
//!
//! | Word | What happens |
//! |---|---|
//! | `none` | no tools: nothing is told of the guest, polite requests are refused |
//! | `mute` | tools that tell no address |
//! | `noip` | the guest never asks for an address |
//! | `nossh` | it has an address, and its port for SSH is closed |
//! | `nolua` | SSH, but no Lua |
//! | `deaf` | it ignores its power button |
//! | `nosuspend` | it takes no part in being suspended, and its memory cannot be kept |

mod calls;
mod life;
mod place;
mod qemu;
mod qmp;
mod sshd;
mod terminal;

pub use qemu::Qemu;
pub use sshd::Sshd;
pub(crate) use terminal::Terminal;

use crate::{
    model::NULL,
    sim::{Sim, fields},
    store::Store,
};
use life::{Ask, Life};
use place::Places;
use serde_json::{Value, json};
use std::{
    collections::{HashMap, HashSet},
    io,
    net::Ipv4Addr,
    path::PathBuf,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    net::UnixStream,
    sync::{mpsc, watch},
    task::JoinSet,
};

/// The key of `other_config` that VMs with a machine have.
pub(crate) const BOOT: &str = "sim:boot";
/// The key of `other_config` that says what the guest is like.
pub(crate) const GUEST: &str = "sim:guest";
/// The key of `other_config` that says where SSH is.
pub(crate) const PORT: &str = "vmoon:ssh-port";
/// The key of the pool's `other_config` that says what VMs are.
const ABOUT: &str = "sim:guests";

/// The templates of VMs with a machine, and the words that make their guests what they are.
pub const TEMPLATES: [(&str, &str); 7] = [
    ("guest", ""),
    ("guest-nolua", "nolua"),
    ("guest-nossh", "nossh"),
    ("guest-noip", "noip"),
    ("guest-deaf", "deaf"),
    ("guest-mute", "mute"),
    ("guest-notools", "none"),
];

/// A result that comes later.
pub type Soon<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Makes machines of one kind.
pub trait Maker: Send + Sync {
    /// Starts one. It ends when what is given back is dropped, and when this process ends in whatever way.
    ///
    /// # Errors
    /// Why it cannot be started.
    fn start(&self, plan: &Plan) -> io::Result<Box<dyn Body>>;

    /// What VMs are, in one sentence for people.
    fn about(&self) -> String;

    /// Whether what is in the memory of a machine can be kept: [`Order::Save`].
    fn keeps_memory(&self) -> bool {
        true
    }
}

/// What a machine is to be.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Its name, for people.
    pub name: String,
    /// Bytes.
    pub memory: u64,
    /// How many processors.
    pub cpus: u32,
    /// What the guest is to be like: words of the table above.
    pub words: Vec<String>,
    /// The hardware address of its interface, if it has one.
    pub mac: Option<String>,
    /// Where it is reached.
    pub address: Ipv4Addr,
    /// Where its SSH is.
    pub port: u16,
    /// Its disks in order, and whether it may write on them.
    pub disks: Vec<(PathBuf, bool)>,
    /// The memory that it goes on from.
    pub memory_file: Option<PathBuf>,
    /// A folder of its own.
    pub folder: PathBuf,
}

/// What a machine is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// Stand still.
    Pause,
    /// Go on.
    Go,
    /// The power button is pressed.
    Button,
    /// Write the memory to a new file and stand still.
    Save(PathBuf),
}

/// How a machine has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The guest has switched it off.
    Off,
    /// The guest has reset it.
    Reset,
    /// Something else.
    Died(String),
}

/// A machine. Dropped, it is gone.
pub trait Body: Send {
    /// Its serial console, once.
    fn serial(&mut self) -> Option<UnixStream>;

    /// The socket where its screen is shown by RFB, if it has one.
    fn screen(&self) -> Option<PathBuf>;

    /// Tells it something; returns when that is done.
    fn obey(&mut self, order: Order) -> Soon<'_, io::Result<()>>;

    /// Waits for its end. May be dropped and called again.
    fn ended(&mut self) -> Soon<'_, End>;
}

/// Everything that runs.
pub(crate) struct Machines {
    maker: Box<dyn Maker>,
    /// How long a guest may take to obey its power button.
    patience: Duration,
    places: Mutex<Places>,
    lives: Mutex<HashMap<String, Life>>,
}

impl Machines {
    pub(crate) fn new(maker: Box<dyn Maker>, patience: Duration) -> io::Result<Self> {
        Ok(Self { maker, patience, places: Mutex::new(Places::find()?), lives: Mutex::default() })
    }

    /// What VMs are, for people.
    pub(crate) fn about(&self) -> String {
        self.maker.about()
    }

    fn lives(&self) -> MutexGuard<'_, HashMap<String, Life>> {
        self.lives.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether their memory can be kept.
    pub(crate) fn keeps_memory(&self) -> bool {
        self.maker.keeps_memory()
    }

    /// How to tell the machine of a VM something; nothing if it does not run.
    fn ask(&self, vm: &str) -> Option<(mpsc::Sender<Ask>, watch::Receiver<()>)> {
        self.lives().get(vm).map(|life| (life.asks.clone(), life.alive.clone()))
    }

    /// What is behind a console of a VM.
    pub(crate) fn link(&self, vm: &str, protocol: &str) -> Option<Link> {
        let lives = self.lives();
        let life = lives.get(vm)?;
        match protocol {
            "vt100" => Some(Link::Text(life.terminal.clone())),
            _ => life.screen.borrow().clone().map(Link::Screen),
        }
    }
}

/// What is behind a console.
pub(crate) enum Link {
    Text(Arc<Terminal>),
    /// A socket that speaks RFB.
    Screen(PathBuf),
}

impl Link {
    /// Carries bytes between it and a stream, until one of them ends.
    pub(crate) async fn carry(self, mut stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin) -> io::Result<()> {
        match self {
            Link::Text(terminal) => terminal.carry(stream).await,
            Link::Screen(path) => {
                let mut screen = UnixStream::connect(path).await?;
                tokio::io::copy_bidirectional(&mut stream, &mut screen).await.map(drop)
            }
        }
    }
}

/// The word of a guest that cannot be suspended.
const RESTLESS: &str = "nosuspend";

/// Whether a VM can be suspended while it runs, and its memory kept, if its tools are up.
pub(crate) fn rests(store: &Store, vm: &str) -> bool {
    !words(store, vm).iter().any(|word| word == RESTLESS)
}

/// Whether a VM has a machine.
pub(crate) fn has_machine(store: &Store, vm: &str) -> bool {
    config(store, vm, BOOT).is_some()
}

/// The words that say what a VM's guest is like.
pub(crate) fn words(store: &Store, vm: &str) -> Vec<String> {
    config(store, vm, GUEST).unwrap_or_default().split_whitespace().map(str::to_owned).collect()
}

fn config(store: &Store, vm: &str, key: &str) -> Option<String> {
    store.field("VM", vm, "other_config").ok()?.get(key)?.as_str().map(str::to_owned)
}

/// Adds the templates, and says what VMs are.
pub(crate) fn furnish(store: &mut Store, about: &str, keeps_memory: bool) {
    const MIB: i64 = 1 << 20;
    let pool = store.rows("pool").next().map(|(reference, _)| reference.clone()).unwrap_or_default();
    let mut config = store.field("pool", &pool, "other_config").unwrap_or_default();
    if let Some(config) = config.as_object_mut() {
        config.insert(ABOUT.into(), about.into());
    }
    let _ = store.set("pool", &pool, "other_config", config);
    let storage = store.text("pool", &pool, "default_SR").unwrap_or_default();
    let network = store.rows("network").next().map(|(reference, _)| reference.clone());
    for (name, words) in TEMPLATES {
        let words = if keeps_memory { words.to_owned() } else { format!("{words} {RESTLESS}").trim_start().to_owned() };
        let vm = store.insert(
            "VM",
            fields(json!({
                "name_label": name, "is_a_template": true, "power_state": "Halted", "name_description": format!("A small Linux that boots. {about}"),
                "other_config": { BOOT: "guest", GUEST: words },
                "memory_static_max": 256 * MIB, "memory_static_min": 192 * MIB, "memory_dynamic_max": 256 * MIB, "memory_dynamic_min": 256 * MIB,
                "VCPUs_max": 1, "VCPUs_at_startup": 1, "domain_type": "hvm", "HVM_boot_policy": "BIOS order",
                "HVM_boot_params": {"order": "c", "firmware": "bios"}, "platform": {"acpi": "1", "apic": "true"},
                "allowed_operations": ["clone", "copy", "provision", "export", "destroy"],
            })),
        );
        let disk = store.insert(
            "VDI",
            fields(json!({"name_label": format!("{name} home"), "SR": storage, "virtual_size": 64 * MIB, "type": "user", "managed": true})),
        );
        store.insert(
            "VBD",
            fields(json!({"VM": vm, "VDI": disk, "userdevice": "0", "bootable": true, "mode": "RW", "type": "Disk", "empty": false})),
        );
        if let Some(network) = &network {
            store.insert(
                "VIF",
                fields(json!({"VM": vm, "network": network, "device": "0", "MAC": "", "MAC_autogenerated": true, "MTU": 1500})),
            );
        }
    }
}

/// What the rows want of machines: of which life each is, and whether it stands still.
fn wanted(store: &Store) -> HashMap<String, (i64, bool)> {
    let of = |(vm, row): (&String, &crate::store::Row)| {
        let field = |name: &str| row.fields.get(name);
        let paused = match field("power_state")?.as_str()? {
            "Running" => false,
            "Paused" => true,
            _ => return None,
        };
        field("other_config")?.get(BOOT)?;
        let template = field("is_a_template") == Some(&true.into());
        (!template).then_some((vm.clone(), (field("domid")?.as_i64()?, paused)))
    };
    store.rows("VM").filter_map(of).collect()
}

/// Makes what runs what the rows want, until it is aborted, which ends everything.
pub(crate) async fn follow(sim: Arc<Sim>, machines: Arc<Machines>) {
    let mut changed = sim.changes();
    let mut tasks = JoinSet::new();
    loop {
        changed.borrow_and_update();
        let wanted = wanted(&sim.state().store);
        {
            let mut lives = machines.lives();
            let gone: HashSet<String> = lives.keys().filter(|vm| !wanted.contains_key(*vm)).cloned().collect();
            for vm in gone {
                // Letting go of it ends it.
                lives.remove(&vm);
            }
            for (vm, (domain, paused)) in wanted {
                match lives.get(&vm) {
                    Some(life) if life.domain == domain => {
                        life.paused.send_if_modified(|now| std::mem::replace(now, paused) != paused);
                    }
                    _ => {
                        let before = lives.remove(&vm).map(|life| life.alive.clone());
                        let (life, task) = Life::begin(&sim, &machines, &vm, domain, paused, before);
                        tasks.spawn(task);
                        lives.insert(vm, life);
                    }
                }
            }
        }
        tokio::select! {
            ended = changed.changed() => if ended.is_err() { return },
            Some(_) = tasks.join_next() => {}
        }
    }
}

/// What a machine of this VM would be now.
fn plan(sim: &Sim, machines: &Machines, vm: &str) -> io::Result<Plan> {
    let (address, port) = machines.places.lock().unwrap_or_else(PoisonError::into_inner).of(vm)?;
    let mut state = sim.state();
    let store = &mut state.store;
    let number = |name: &str| store.field("VM", vm, name).map(|value| value.as_u64().unwrap_or_default());
    let (memory, cpus) = (number("memory_static_max")?, number("VCPUs_at_startup")?);
    let mut disks = Vec::new();
    for vbd in store.list("VM", vm, "VBDs")? {
        let vdi = store.text("VBD", &vbd, "VDI")?;
        if store.field("VBD", &vbd, "empty")? == true || vdi == NULL {
            continue;
        }
        let bytes = store.field("VDI", &vdi, "virtual_size")?.as_u64().unwrap_or_default();
        let writes = store.text("VBD", &vbd, "mode")? == "RW" && store.text("VBD", &vbd, "type")? == "Disk";
        let device: u32 = store.text("VBD", &vbd, "userdevice")?.parse().unwrap_or(u32::MAX);
        disks.push((device, (store.images.file(&vdi, bytes)?, writes)));
    }
    disks.sort_by_key(|(device, _)| *device);
    let mut interfaces = Vec::new();
    for vif in store.list("VM", vm, "VIFs")? {
        interfaces.push((store.text("VIF", &vif, "device")?, store.text("VIF", &vif, "MAC")?));
    }
    interfaces.sort();
    let mut config = store.field("VM", vm, "other_config")?;
    if let Some(config) = config.as_object_mut()
        && config.get(PORT) != Some(&Value::from(port.to_string()))
    {
        config.insert(PORT.into(), port.to_string().into());
        store.set("VM", vm, "other_config", config.clone())?;
    }
    let folder = store.images.folder()?.join(format!("vm-{}", vm.rsplit(':').next().unwrap_or_default()));
    std::fs::create_dir_all(&folder)?;
    let saved = store.images.memory(vm)?;
    Ok(Plan {
        name: store.text("VM", vm, "name_label")?,
        memory,
        cpus: u32::try_from(cpus).unwrap_or(1).max(1),
        words: words(store, vm),
        mac: interfaces.into_iter().next().map(|(_, mac)| mac),
        address,
        port,
        disks: disks.into_iter().map(|(_, disk)| disk).collect(),
        memory_file: saved.exists().then_some(saved),
        folder,
    })
}
