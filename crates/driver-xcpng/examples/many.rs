//! Measures what the driver adds to the pool's own time, against `xapi-sim` whose calls take a fixed while: fifty VMs created at once, eight at a time, beside one
//! created alone; and one VM from its template to a running address. The pool is a thread of its own, so that processor time can be told apart. Each is done five
//! times and the median printed, as one line of JSON: a computer that does something else for a moment is not the driver.
//!
//! `cargo run --release -p vmoon-driver-xcpng --example many`

use async_trait::async_trait;
use serde_json::json;
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::time::Instant;
use vmoon_core::{
    MachineId, Result,
    driver::{Driver, Journal},
    operation::{Progress, Undo},
    spec::MachineSpec,
};
use vmoon_driver_xcpng::{Keys, XcpngConfig, XcpngDriver};
use vmoon_xapi::Password;
use vmoon_xapi_sim::{Server, Settings, Sim};

/// How long the pool takes for each call.
const CALL: Duration = Duration::from_millis(10);
const VMS: u32 = 50;
const AT_ONCE: u32 = 8;
/// How often everything is done.
const ROUNDS: u32 = 5;

struct Ring(String);

impl Keys for Ring {
    fn password(&self) -> Option<Password> {
        Some(Password::new("secret"))
    }
    fn fingerprint(&self) -> Option<String> {
        Some(self.0.clone())
    }
}

/// Counts what is told.
#[derive(Default)]
struct Told(AtomicU64);

#[async_trait]
impl Journal for Told {
    fn progress(&self, _: Progress) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
    async fn undo(&self, _: Undo) -> Result<()> {
        Ok(())
    }
}

/// A pool in a thread of its own: it, its address and its fingerprint. It ends with this process.
fn pool() -> std::result::Result<(Arc<Sim>, String, String), Box<dyn std::error::Error>> {
    let (tell, told) = std::sync::mpsc::sync_channel(1);
    drop(std::thread::Builder::new().name("pool".into()).spawn(move || {
        let work = async {
            let server = Server::start(&Settings { tools: Duration::ZERO, ..Settings::default() }).await?;
            let about = (server.sim.clone(), server.address().to_string(), server.fingerprint().unwrap_or_default().to_owned());
            let _ = tell.send(about);
            std::future::pending::<std::io::Result<()>>().await
        };
        tokio::runtime::Builder::new_current_thread().enable_all().build().and_then(|runtime| runtime.block_on(work))
    })?);
    Ok(told.recv()?)
}

/// Processor time of this thread, from the scheduler.
fn used() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    Duration::from_nanos(text.split(' ').next().and_then(|nanos| nanos.parse().ok()).unwrap_or(0))
}

fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all.get(all.len() / 2).copied().unwrap_or_default()
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let (sim, address, fingerprint) = pool()?;
    let keys = Arc::new(Ring(format!("SHA256:{fingerprint}")));
    let config = XcpngConfig { uri: format!("https://{address}"), user: "root".into(), keys, guests: None, runtime: None };
    let driver = XcpngDriver::new(config)?;
    let spec = MachineSpec {
        kind: "xcpng".into(),
        settings: json!({"template": "linux-lua", "memory": "1GiB", "cpus": 2}).as_object().cloned().unwrap_or_default(),
        ..MachineSpec::default()
    };
    let facts = driver.facts().await?;
    let id = |n: u32| -> std::result::Result<MachineId, _> { format!("01890000-0000-7000-8000-0000000{n:05}").parse() };
    let create = |n: u32| {
        let (driver, spec, facts) = (&driver, &spec, &facts);
        async move {
            let told = Told::default();
            let plan = driver.plan(&format!("web{n}"), spec, facts).map_err(vmoon_core::Error::from)?;
            let handle = driver.create(id(n).map_err(|_| vmoon_core::Error::internal("an id"))?, &plan, &told).await?;
            Ok::<_, vmoon_core::Error>((handle, told.0.into_inner()))
        }
    };
    let begin = Instant::now();
    create(0).await?;
    let bare = begin.elapsed();
    sim.faults(|faults| faults.delay = CALL);
    let (mut ones, mut starts, mut alls, mut over, mut busy, mut told) = (vec![], vec![], vec![], vec![], vec![], 0);
    for round in 0..ROUNDS {
        let first = 1 + round * (VMS + 1);
        let begin = Instant::now();
        let (handle, _) = create(first).await?;
        let one = begin.elapsed().as_secs_f64();
        let begin = Instant::now();
        driver.start(&handle).await?;
        while driver.addresses().ok_or("no addresses")?.addresses(&handle).await?.is_empty() {}
        starts.push(begin.elapsed().as_secs_f64());
        let (begin, before) = (Instant::now(), used());
        let made = futures_util::future::try_join_all((first + 1..=first + VMS).map(create)).await?;
        let all = begin.elapsed().as_secs_f64();
        // One after the other, eight beside each other: what the pool itself needs.
        let ideal = one * f64::from(VMS.div_ceil(AT_ONCE));
        over.push(all / ideal - 1.0);
        busy.push((used() - before).as_secs_f64() / all);
        told += made.iter().map(|(_, told)| told).sum::<u64>();
        // Room for the next round.
        sim.faults(|faults| faults.delay = Duration::ZERO);
        for (handle, _) in made.iter().chain([&(handle, 0)]) {
            driver.delete(handle).await?;
        }
        sim.faults(|faults| faults.delay = CALL);
        ones.push(one);
        alls.push(all);
    }
    let line = json!({
        "vms": VMS, "call_ms": CALL.as_millis() as u64, "create_without_delay_ms": bare.as_secs_f64() * 1e3, "create_ms": median(ones) * 1e3,
        "start_to_address_ms": median(starts) * 1e3, "all_ms": median(alls) * 1e3, "overheads": over.clone(), "overhead": median(over),
        "processor": median(busy), "progress_reports": told,
    });
    use std::io::Write as _;
    writeln!(std::io::stdout(), "{line}")?;
    Ok(())
}
