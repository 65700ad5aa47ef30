//! Measures the driver against a libvirtd of its own with many machines, beside virsh and qemu-img: `cargo run --release -p vmoon-driver-libvirt --example
//! measure [NUMBER [RUNNING]]`: so many machines, and so many of them that run. Needs root and what `cargo xtask install` installs.

use serde_json::json;
use std::{
    collections::HashMap,
    fmt::Write as _,
    io::Write as _,
    time::{Duration, Instant},
};
use uuid::Uuid;
use vmoon_core::{
    MachineId, Result,
    driver::{Channel, ChannelKind, Driver, Handle, Journal},
    operation::{Progress, Undo},
    spec::MachineSpec,
};
use vmoon_driver_libvirt::{LibvirtConfig, LibvirtDriver};
use vmoon_libvirt_lab::Lab;
use vmoon_libvirt_wire::{
    Client, Domain, Options, UnixSocket,
    flags::{Affect, Define, Destroy, PoolStart, Start, Undefine},
};

struct Unread;

#[async_trait::async_trait]
impl Journal for Unread {
    fn progress(&self, _: Progress) {}
    async fn undo(&self, _: Undo) -> Result<()> {
        Ok(())
    }
}

/// The shortest of some tries.
async fn shortest<T>(tries: usize, mut work: impl AsyncFnMut() -> T) -> Duration {
    let mut best = Duration::MAX;
    for _ in 0..tries {
        let begin = Instant::now();
        work().await;
        best = best.min(begin.elapsed());
    }
    best
}

fn id() -> MachineId {
    MachineId::from_uuid(Uuid::now_v7())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let number: usize = std::env::args().nth(1).map_or(Ok(1000), |text| text.parse())?;
    let lab = Lab::start();
    let client = Client::connect(UnixSocket(lab.socket()), "qemu:///system", Options::default()).await?;
    let images = lab.path().join("images");
    std::fs::create_dir(&images)?;
    let pool = format!("<pool type='dir'><name>default</name><target><path>{}</path></target></pool>", images.display());
    let pool = client.pool_define(&pool).await?;
    client.pool_start(&pool, PoolStart::NONE).await?;
    let config = LibvirtConfig { uri: format!("qemu+unix:///system?socket={}", lab.socket().display()), ..LibvirtConfig::default() };
    let mut report = String::new();

    let driver = LibvirtDriver::connect(&config)?;
    let plan = async |name: &str, settings: serde_json::Value| -> Result<_> {
        let spec =
            MachineSpec { kind: "libvirt".into(), settings: settings.as_object().cloned().unwrap_or_default(), ..MachineSpec::default() };
        Ok(driver.plan(name, &spec, &driver.facts().await?)?)
    };
    let plain = json!({"disk": "1GiB", "firmware": "bios", "network": "none", "accelerator": "tcg"});
    let base = id();
    driver.create(base, &plan("base", plain.clone()).await?, &Unread).await?;
    let mut linked = plain;
    linked["base"] = format!("base-{base}-vda.qcow2").into();
    let mut plans = Vec::new();
    for n in 0..20 {
        plans.push(plan(&format!("clone-{n}"), linked.clone()).await?);
    }
    let mut next = plans.iter();
    let clone = shortest(20, async || match next.next() {
        Some(plan) => driver.create(id(), plan, &Unread).await.map(drop),
        None => Ok(()),
    })
    .await;
    writeln!(report, "linked clone with its definition, no start: {:.1} ms", clone.as_secs_f64() * 1e3)?;

    for n in 0..number {
        let tail = "<memory>65536</memory><os><type arch='x86_64' machine='q35'>hvm</type></os></domain>";
        let theirs = format!("<domain type='qemu'><name>m{n}</name>{tail}");
        client.define(&theirs, Define::NONE).await?;
    }
    let first = shortest(7, async || LibvirtDriver::connect(&config)?.list().await.map(|found| assert!(found.len() >= number))).await;
    writeln!(report, "list {number} machines of others, from connect: {:.1} ms", first.as_secs_f64() * 1e3)?;
    let again = shortest(7, async || driver.list().await.map(drop)).await;
    writeln!(report, "list {number} machines, connected: {:.1} ms", again.as_secs_f64() * 1e3)?;
    for n in 0..number {
        client.undefine(&client.domain_named(&format!("m{n}")).await?, Undefine::NONE).await?;
    }
    let mut known: HashMap<Handle, Vec<Channel>> = driver.list().await?.into_iter().map(|found| (found.handle, Vec::new())).collect();
    for n in 0..number {
        let id = id();
        let tag =
            format!("<metadata><v:machine xmlns:v='urn:vmoon:libvirt:1' id='{id}' complete='yes' template='linux-cloud'/></metadata>");
        let tail = "<memory>65536</memory><os><type arch='x86_64' machine='q35'>hvm</type></os></domain>";
        let ours = format!("<domain type='qemu'><name>m{n}</name><uuid>{id}</uuid>{tag}{tail}");
        client.define(&ours, Define::NONE).await?;
        known.insert(Handle(id.to_string()), Vec::new());
    }
    let ours = shortest(7, async || {
        let found = LibvirtDriver::connect(&config)?.list_knowing(&known).await?;
        assert!(found.len() >= number, "all are there");
        Ok::<_, vmoon_core::Error>(())
    })
    .await;
    writeln!(report, "list {number} machines of ours that are known, from connect: {:.1} ms", ours.as_secs_f64() * 1e3)?;
    let unknown = shortest(7, async || LibvirtDriver::connect(&config)?.list().await.map(|found| assert!(found.len() >= number))).await;
    writeln!(report, "list {number} machines of ours that nobody knows, from connect: {:.1} ms", unknown.as_secs_f64() * 1e3)?;
    // All of these run, held before their first instruction, as if this process had begun anew: what a daemon that was started again does.
    let running: usize = std::env::args().nth(2).map_or(Ok(20), |text| text.parse())?;
    let mut runs: Vec<Handle> = known.keys().filter(|handle| handle.0 != base.to_string()).take(running).cloned().collect();
    for handle in &runs {
        let domain = Domain::of(handle.0.parse()?);
        client.start(&domain, Start::PAUSED).await?;
        let tag = format!("<machine id='{}' complete='yes' template='linux-cloud' life='7'/>", handle.0);
        client.set_metadata(&domain, Some(&tag), "v", "urn:vmoon:libvirt:1", Affect::LIVE).await?;
        client.resume(&domain).await?;
        client.pause(&domain).await?;
    }
    let seen: Vec<Channel> = vec![Channel { name: "serial".into(), kind: ChannelKind::Terminal, life: 7 }];
    runs.iter().for_each(|handle| drop(known.insert(handle.clone(), seen.clone())));
    let knowing = shortest(7, async || LibvirtDriver::connect(&config)?.list_knowing(&known).await.map(drop)).await;
    writeln!(report, "… of which {running} run, and their consoles are known: {:.1} ms", knowing.as_secs_f64() * 1e3)?;
    runs.iter().for_each(|handle| drop(known.insert(handle.clone(), Vec::new())));
    let asking = shortest(7, async || LibvirtDriver::connect(&config)?.list_knowing(&known).await.map(drop)).await;
    writeln!(report, "… and each is asked for its life: {:.1} ms", asking.as_secs_f64() * 1e3)?;
    for handle in runs.drain(..) {
        client.destroy(&Domain::of(handle.0.parse()?), Destroy::NONE).await?;
    }
    let virsh =
        shortest(5, async || lab.command("virsh").args(["-q", "list", "--all"]).output().map(|output| assert!(output.status.success())))
            .await;
    writeln!(report, "virsh list --all, as a process in the lab: {:.1} ms", virsh.as_secs_f64() * 1e3)?;
    let overlay = images.join("theirs.qcow2");
    let qemu_img = shortest(5, async || {
        let arguments = ["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b"];
        let base = images.join(format!("base-{base}-vda.qcow2"));
        lab.command("qemu-img").args(arguments).arg(base).arg(&overlay).output().map(|output| assert!(output.status.success()))
    })
    .await;
    writeln!(report, "qemu-img create -b, as a process in the lab: {:.1} ms", qemu_img.as_secs_f64() * 1e3)?;

    let Some(mut notices) = driver.watch() else { return Err("no notices".into()) };
    notices.next().await;
    let event = shortest(10, async || {
        let xml = format!("<domain type='qemu'><name>e</name><uuid>{}</uuid><memory>65536</memory><os><type arch='x86_64' machine='q35'>hvm</type></os></domain>", Uuid::from_u128(7));
        let defined = client.define(&xml, Define::NONE).await;
        notices.next().await;
        defined.is_ok()
    })
    .await;
    writeln!(report, "define by another client until our notice, both: {:.1} ms", event.as_secs_f64() * 1e3)?;
    std::io::stdout().write_all(report.as_bytes())?;
    Ok(())
}
