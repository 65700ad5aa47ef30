//! What the client costs, against this server in another process.
//!
//! `bench serve 1000` starts a server with so many VMs and prints its address and fingerprint; `bench measure ADDRESS FINGERPRINT` prints what was measured as JSON, `bench
//! pictures …` only first pictures, for a profiler.
//! `tests/clients/bench.py` and `bench.mjs` measure the same with clients of others.

use serde_json::{Value, json};
use std::{
    collections::HashMap,
    fs,
    io::{self, Write as _},
    time::{Duration, Instant},
};
use vmoon_xapi::{Client, Config, Password, records::Vm, watch::Watch};
use vmoon_xapi_sim::{Server, Settings};

/// How often everything is read.
const PICTURES: usize = 20;
/// How many small calls are made.
const CALLS: usize = 2000;

fn failed(error: vmoon_xapi::Error) -> io::Error {
    io::Error::other(error.to_string())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> io::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["serve", count] => serve(count.parse().map_err(io::Error::other)?).await,
        ["measure", host, fingerprint] => measure(host, fingerprint).await,
        ["pictures", host, fingerprint] => {
            let (all, _) = pictures(&client(host, fingerprint)?).await?;
            writeln!(io::stdout(), "{:.3} ms", median(all))
        }
        _ => Err(io::Error::other("bench serve COUNT | bench measure ADDRESS FINGERPRINT | bench pictures ADDRESS FINGERPRINT")),
    }
}

fn client(host: &str, fingerprint: &str) -> io::Result<Client> {
    let mut config = Config::new(host, "root", Password::new("secret"));
    config.pin(host.split(':').next().unwrap_or(host), fingerprint.parse().map_err(failed)?);
    Client::new(config).map_err(failed)
}

async fn serve(count: usize) -> io::Result<()> {
    let server = Server::start(&Settings { tools: Duration::ZERO, ..Settings::default() }).await?;
    let (host, fingerprint) = (server.address().to_string(), server.fingerprint().unwrap_or_default().to_owned());
    let client = client(&host, &fingerprint)?;
    let template: Vec<String> = client.get("VM.get_by_name_label", vec!["Other install media".into()]).await.map_err(failed)?;
    for n in 0..count {
        let params = vec![template[0].clone().into(), format!("vm-{n:05}").into()];
        let vm = client.call("VM.clone", params).await.map_err(failed)?;
        client.call("VM.provision", vec![vm]).await.map_err(failed)?;
    }
    client.close().await;
    writeln!(io::stdout(), "{host} {fingerprint}")?;
    io::stdout().flush()?;
    std::future::pending::<()>().await;
    drop(server);
    Ok(())
}

/// The median, milliseconds.
fn median(mut all: Vec<Duration>) -> f64 {
    all.sort();
    all.get(all.len() / 2).map_or(0.0, |middle| middle.as_secs_f64() * 1e3)
}

/// The most memory this process has had, MiB.
fn memory() -> f64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<f64>().ok());
    kib.unwrap_or_default() / 1024.0
}

/// Reads every VM as those do who go on with events; how long each time took, and the last one.
async fn pictures(client: &Client) -> io::Result<(Vec<Duration>, Watch)> {
    client.read("pool.get_all", vec![]).await.map_err(failed)?;
    let mut all = Vec::new();
    loop {
        let begun = Instant::now();
        let watch = Watch::begin(client.clone(), &["VM"]).await.map_err(failed)?;
        all.push(begun.elapsed());
        if all.len() == PICTURES {
            return Ok((all, watch));
        }
    }
}

async fn measure(host: &str, fingerprint: &str) -> io::Result<()> {
    let begun = Instant::now();
    let client = client(host, fingerprint)?;
    client.read("pool.get_all", vec![]).await.map_err(failed)?;
    let first = begun.elapsed();
    let vm: Vec<String> = client.get("VM.get_by_name_label", vec!["vm-00000".into()]).await.map_err(failed)?;
    let mut calls = Vec::new();
    for _ in 0..CALLS {
        let begun = Instant::now();
        client.read("VM.get_power_state", vec![vm[0].clone().into()]).await.map_err(failed)?;
        calls.push(begun.elapsed());
    }
    let (mut values, mut typed) = (Vec::new(), Vec::new());
    let mut count = 0;
    for _ in 0..PICTURES {
        let begun = Instant::now();
        let records = client.read("VM.get_all_records", vec![]).await.map_err(failed)?;
        values.push(begun.elapsed());
        count = records.as_object().map_or(0, serde_json::Map::len);
        let begun = Instant::now();
        let records: HashMap<String, Vm> = client.get("VM.get_all_records", vec![]).await.map_err(failed)?;
        typed.push(begun.elapsed());
        drop(records);
    }
    let (pictures, mut watch) = pictures(&client).await?;
    let mut seen = Vec::new();
    for n in 0..PICTURES {
        let other = client.clone();
        let target = vm[0].clone();
        let changed = tokio::spawn(async move {
            other.call("VM.set_name_description", vec![target.into(), format!("{n}").into()]).await.map(|_| Instant::now())
        });
        while watch.next().await.map_err(failed)?.is_empty() {}
        let told = Instant::now();
        let changed = changed.await.map_err(io::Error::other)?.map_err(failed)?;
        seen.push(told.saturating_duration_since(changed));
    }
    let kept: Value = watch.cache().count("VM").into();
    client.close().await;
    let result = json!({
        "vms": count, "kept": kept, "connect_login_first_answer_ms": first.as_secs_f64() * 1e3, "call_ms": median(calls),
        "all_records_ms": median(values), "all_records_typed_ms": median(typed), "watch_begin_ms": median(pictures),
        "change_seen_ms": median(seen), "memory_mib": memory(),
    });
    writeln!(io::stdout(), "{result:#}")
}
