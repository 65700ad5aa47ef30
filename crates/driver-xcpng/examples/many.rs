//! Measures what the driver adds to the pool's own time, against `xapi-sim` whose calls take a fixed while: fifty VMs created at once, eight at a time, beside the
//! same calls without anything between them; and one VM from its template to a running address. Prints one line of JSON.
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
use vmoon_xapi_sim::{Server, Settings};

/// How long the pool takes for each call.
const CALL: Duration = Duration::from_millis(10);
const VMS: u32 = 50;
const AT_ONCE: u32 = 8;

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

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let server = Server::start(&Settings { tools: Duration::ZERO, ..Settings::default() }).await?;
    let keys = Arc::new(Ring(format!("SHA256:{}", server.fingerprint().unwrap_or_default())));
    let config = XcpngConfig { uri: format!("https://{}", server.address()), user: "root".into(), keys, guests: None, runtime: None };
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
    // Without a pause the pool's calls cost what they cost; with one, that much more for each.
    let begin = Instant::now();
    create(1).await?;
    let bare = begin.elapsed();
    server.sim.faults(|faults| faults.delay = CALL);
    let begin = Instant::now();
    let (handle, _) = create(2).await?;
    let one = begin.elapsed();
    let begin = Instant::now();
    driver.start(&handle).await?;
    while driver.addresses().ok_or("no addresses")?.addresses(&handle).await?.is_empty() {}
    let started = begin.elapsed();
    let begin = Instant::now();
    let made = futures_util::future::try_join_all((3..3 + VMS).map(create)).await?;
    let all = begin.elapsed();
    // One after the other, eight beside each other: what the pool itself needs.
    let rounds = f64::from(VMS.div_ceil(AT_ONCE));
    let ideal = one.as_secs_f64() * rounds;
    let told: u64 = made.iter().map(|(_, told)| told).sum();
    let line = json!({
        "vms": made.len(), "call_ms": CALL.as_millis() as u64, "create_without_delay_ms": bare.as_secs_f64() * 1e3, "create_ms": one.as_secs_f64() * 1e3,
        "start_to_address_ms": started.as_secs_f64() * 1e3, "all_ms": all.as_secs_f64() * 1e3, "ideal_ms": ideal * 1e3,
        "overhead": all.as_secs_f64() / ideal - 1.0, "progress_reports": told,
    });
    use std::io::Write as _;
    writeln!(std::io::stdout(), "{line}")?;
    Ok(())
}
