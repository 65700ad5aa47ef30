//! Measures the way from a template to a Lua prompt: clone, provision, start, address, SSH, first answer, through the driver against `xapi-sim`, whose guest is a private
//! SSH server that is there at once, so that no boot is in it. Prints medians as one line of JSON.
//!
//! `cargo run --release -p vmoon-driver-xcpng --example prompt`

use async_trait::async_trait;
use serde_json::json;
use std::{sync::Arc, time::Duration};
use tokio::time::{Instant, timeout};
use vmoon_core::{
    Error, MachineId, Result,
    driver::{Driver, Handle, Journal, LinkItem, Observed},
    frame::{Eval, Frame, tag},
    operation::{Progress, Undo},
    spec::MachineSpec,
};
use vmoon_driver_xcpng::{Keys, XcpngConfig, XcpngDriver};
use vmoon_guest::{Config, Guests};
use vmoon_sys::login::Login;
use vmoon_xapi::Password;
use vmoon_xapi_sim::{Server, Settings, machines::Sshd};

const ROUNDS: u32 = 11;
const PATIENCE: Duration = Duration::from_secs(30);

struct Ring(String);

impl Keys for Ring {
    fn password(&self) -> Option<Password> {
        Some(Password::new("secret"))
    }
    fn fingerprint(&self) -> Option<String> {
        Some(self.0.clone())
    }
}

struct Quiet;

#[async_trait]
impl Journal for Quiet {
    fn progress(&self, _: Progress) {}
    async fn undo(&self, _: Undo) -> Result<()> {
        Ok(())
    }
}

type Failed = Box<dyn std::error::Error>;

/// A pool in a thread of its own, with its address and its fingerprint. It ends with this process.
fn pool() -> std::result::Result<(String, String), Failed> {
    let (tell, told) = std::sync::mpsc::sync_channel(1);
    drop(std::thread::Builder::new().name("pool".into()).spawn(move || {
        let work = async {
            let mut server = Server::start(&Settings { tools: Duration::ZERO, ..Settings::default() }).await?;
            server.boot(Box::new(Sshd::new("no boot is to be measured").map_err(std::io::Error::other)?), PATIENCE)?;
            let _ = tell.send((server.address().to_string(), server.fingerprint().unwrap_or_default().to_owned()));
            std::future::pending::<std::io::Result<()>>().await
        };
        tokio::runtime::Builder::new_current_thread().enable_all().build().and_then(|runtime| runtime.block_on(work))
    })?);
    Ok(told.recv()?)
}

/// Waits for an address: the pool tells when something has changed.
async fn address(driver: &XcpngDriver, handle: &Handle) -> std::result::Result<(), Failed> {
    let mut notices = driver.watch().ok_or("no notices")?;
    let addresses = driver.addresses().ok_or("no addresses")?;
    let waiting = async {
        while addresses.addresses(handle).await?.is_empty() {
            notices.next().await;
        }
        Ok::<_, Error>(())
    };
    Ok(timeout(PATIENCE, waiting).await??)
}

/// Opens the Lua session and has it answer.
async fn answer(driver: &XcpngDriver, handle: &Handle) -> std::result::Result<(), Failed> {
    let Observed::On(channels) = driver.observe(handle).await.observed else { return Err("it does not run".into()) };
    let main = channels.iter().find(|channel| channel.name == "main").ok_or("no session")?;
    let mut link = driver.open(handle, main, 0).await?;
    let payload = Eval { deadline_ms: 0, token: b"", code: b"return 42" }.to_vec();
    link.writer.send(Frame { tag: tag::EVAL, id: 1, payload: &payload }).await?;
    let mut buf = Vec::new();
    loop {
        let item = timeout(PATIENCE, link.reader.next(&mut buf)).await??;
        if !matches!(item, LinkItem::Stream { .. } | LinkItem::Direct) {
            return Err("the session has ended".into());
        }
        let mut rest = &buf[..];
        while let Ok(Some((frame, used))) = Frame::decode(rest) {
            if frame.tag == tag::DONE {
                return Ok(());
            }
            rest = &rest[used..];
        }
    }
}

fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all.get(all.len() / 2).copied().unwrap_or_default()
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::result::Result<(), Failed> {
    let (host, fingerprint) = pool()?;
    let folder = tempfile::tempdir()?;
    let login = Login { home: Some(folder.path().into()), ..Login::from_env() };
    let user = login.user.clone().unwrap_or_else(|| "root".into());
    let guests = Guests::new(Config { dir: folder.path().join("guests"), connection: "lab".into(), login, environments: None });
    let keys = Arc::new(Ring(format!("SHA256:{fingerprint}")));
    let config = XcpngConfig { uri: format!("https://{host}"), user: "root".into(), keys, guests: Some(guests), runtime: None };
    let driver = XcpngDriver::new(config)?;
    let given = json!({"template": "guest", "user": user, "memory": "256MiB", "cpus": 1});
    let spec = MachineSpec { kind: "xcpng".into(), settings: given.as_object().cloned().unwrap_or_default(), ..MachineSpec::default() };
    let facts = driver.facts().await?;
    let mut figures: [Vec<f64>; 5] = Default::default();
    for round in 0..ROUNDS {
        let id: MachineId = format!("01890000-0000-7000-8000-0000000{round:05}").parse()?;
        let plan = driver.plan(&format!("web{round}"), &spec, &facts).map_err(Error::from)?;
        let begin = Instant::now();
        let handle = driver.create(id, &plan, &Quiet).await?;
        let created = begin.elapsed();
        driver.start(&handle).await?;
        let started = begin.elapsed();
        address(&driver, &handle).await?;
        let addressed = begin.elapsed();
        answer(&driver, &handle).await?;
        let answered = begin.elapsed();
        let parts = [created, started - created, addressed - started, answered - addressed, answered];
        for (all, part) in figures.iter_mut().zip(parts) {
            all.push(part.as_secs_f64() * 1e3);
        }
        driver.delete(&handle).await?;
    }
    let [create, start, address, session, all] = figures.map(median);
    let line = json!({ "create_ms": create, "start_ms": start, "address_ms": address, "ssh_and_first_answer_ms": session, "all_ms": all });
    use std::io::Write as _;
    writeln!(std::io::stdout(), "{line}")?;
    Ok(())
}
