//! Lists the domains of a daemon and then prints what happens: `cargo run -p vmoon-libvirt-wire --example list -- /run/libvirt/libvirt-sock qemu:///system`.

use std::{error::Error, io::Write as _, time::Instant};
use vmoon_libvirt_wire::{
    Client, Event, Options, Topic, UnixSocket,
    flags::{Domains, Stats, StatsHow},
};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut words = std::env::args().skip(1);
    let socket = words.next().unwrap_or_else(|| "/run/libvirt/libvirt-sock".to_owned());
    let uri = words.next().unwrap_or_else(|| "qemu:///system".to_owned());
    let begun = Instant::now();
    let client = Client::connect(UnixSocket(socket.into()), &uri, Options::default()).await?;
    let connected = begun.elapsed();
    let domains = client.domains(Domains::NONE).await?;
    let listed = begun.elapsed();
    let stats = client.stats(&[], Stats::STATE, StatsHow::NONE).await?;
    let known = begun.elapsed();
    let mut out = std::io::stdout().lock();
    for of in &stats {
        writeln!(out, "{} {} {:?}", of.domain.uuid, of.domain.name, of.state())?;
    }
    writeln!(out, "{} domains; connected after {connected:?}, listed after {listed:?}, states after {known:?}", domains.len())?;
    let mut events = client.watch(&[Topic::LIFE, Topic::REBOOT, Topic::AGENT, Topic::Networks, Topic::Pools, Topic::NodeDevices]).await?;
    if words.next().as_deref() == Some("watch") {
        loop {
            let event = events.next().await;
            writeln!(out, "{event:?}")?;
            if matches!(event, Event::Closed(_)) {
                break;
            }
        }
    }
    Ok(())
}
