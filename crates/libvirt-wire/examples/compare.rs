//! What this client costs beside `virsh` and libvirt's Python library, over a daemon of its own with a thousand domains that are off:
//! `cargo run --release -p vmoon-libvirt-wire --example compare` (as root). The best of several runs each; see docs/benchmarks.md.

use std::{
    error::Error,
    io::Write as _,
    process::Stdio,
    time::{Duration, Instant},
};
use vmoon_libvirt_lab::{Lab, Machine};
use vmoon_libvirt_wire::{
    Client, DomainEvent, Event, Life, Options, Topic, UnixSocket,
    flags::{Define, Domains, Stats, StatsHow, Xml},
};

const RUNS: usize = 15;
const DOMAINS: usize = 1000;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut out = std::io::stdout();
    let mut lab = Lab::start();
    let guest = Lab::guest();
    let open = || Client::connect(UnixSocket(lab.socket()), "qemu:///system", Options::default());
    let client = open().await?;

    // From the call that causes an event to the event at another client: more than what the event takes, and nobody can see less.
    let test = || Client::connect(UnixSocket(lab.socket()), "test:///default", Options::default());
    let (one, other) = (test().await?, test().await?);
    let mut listener = other.watch(&[Topic::LIFE]).await?;
    let domain = one.domain_named("test").await?;
    let mut heard = Vec::new();
    for _ in 0..200 {
        let said = Instant::now();
        let (paused, ()) = tokio::join!(one.pause(&domain), async {
            while !matches!(listener.next().await, Event::Domain { what: DomainEvent::Life(Life::Suspended, _), .. }) {}
            heard.push(said.elapsed());
        });
        paused?;
        one.resume(&domain).await?;
    }
    heard.sort_unstable();
    writeln!(out, "from a call to its event at another client\tp50 {} µs, slowest {} µs", heard[100].as_micros(), heard[199].as_micros())?;

    let begun = Instant::now();
    for number in 0..DOMAINS {
        client.define(&Machine::named(&format!("m{number}")).xml(&guest), Define::NONE).await?;
    }
    writeln!(out, "defining {DOMAINS}\t{} ms", begun.elapsed().as_millis())?;

    let [mut connect, mut list, mut states, mut all, mut each] = [Duration::MAX; 5];
    for _ in 0..RUNS {
        let begun = Instant::now();
        let client = open().await?;
        connect = connect.min(begun.elapsed());
        let mark = Instant::now();
        let domains = client.domains(Domains::NONE).await?;
        list = list.min(mark.elapsed());
        let mark = Instant::now();
        let known = client.stats(&[], Stats::STATE, StatsHow::NONE).await?;
        states = states.min(mark.elapsed());
        all = all.min(begun.elapsed());
        assert_eq!((domains.len(), known.len()), (DOMAINS, DOMAINS));
        let mark = Instant::now();
        for four in domains.chunks(4) {
            let xml = async |at: usize| match four.get(at) {
                Some(domain) => client.domain_xml(domain, Xml::NONE).await.map(drop),
                None => Ok(()),
            };
            let (a, b, c, d) = tokio::join!(xml(0), xml(1), xml(2), xml(3));
            a.and(b).and(c).and(d)?;
        }
        each = each.min(mark.elapsed());
    }
    for (name, took) in
        [("connect", connect), ("list", list), ("states", states), ("connect+list+states", all), ("XML of each, four at once", each)]
    {
        writeln!(out, "vmoon: {name}\t{} µs", took.as_micros())?;
    }

    for words in [&["list", "--all"][..], &["list", "--all", "--name"]] {
        let mut best = Duration::MAX;
        for _ in 0..RUNS {
            let begun = Instant::now();
            let done = lab.command("virsh").args(["-q", "-c", "qemu:///system"]).args(words).stdout(Stdio::null()).status()?;
            assert!(done.success());
            best = best.min(begun.elapsed());
        }
        writeln!(out, "virsh {} (process, with nsenter)\t{} µs", words.join(" "), best.as_micros())?;
    }
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/compare.py");
    let python = lab.command("/usr/bin/python3").arg(script).stderr(Stdio::inherit()).output()?;
    for line in String::from_utf8(python.stdout)?.lines() {
        writeln!(out, "python: {line} µs")?;
    }
    lab.stop_daemon();
    Ok(())
}
