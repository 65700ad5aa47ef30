//! Against a real libvirtd: with its test driver, which has domains that are not there, and with many definitions.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};
use uuid::Uuid;
use vmoon_libvirt_lab::{Lab, Machine};
use vmoon_libvirt_wire::{
    Client, DomainEvent, DomainState, ErrorCode, Event, Events, Life, Options, Topic, UnixSocket,
    flags::{Affect, Define, Destroy, Domains, Networks, NodeDevices, Pools, Start, Stats, StatsHow, Undefine, Xml},
};

pub(crate) async fn connect(lab: &Lab, uri: &str) -> Client {
    Client::connect(UnixSocket(lab.socket()), uri, Options::default()).await.expect("the lab's daemon lets us in")
}

/// Waits for this step of any domain's life.
pub(crate) async fn life(events: &mut Events, step: Life) {
    let wanted = async {
        loop {
            match events.next().await {
                Event::Domain { what: DomainEvent::Life(life, _), .. } if life == step => return,
                Event::Closed(why) => panic!("the connection ended before {step:?}: {why}"),
                _ => {}
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), wanted).await.unwrap_or_else(|_| panic!("no {step:?} came"));
}

#[tokio::test]
async fn the_test_driver_through_a_real_daemon() {
    let lab = Lab::start();
    let client = connect(&lab, "test:///default").await;
    assert_eq!(client.hypervisor().await.expect("a kind"), "TEST");
    assert_eq!(client.canonical_uri().await.expect("a URI"), "test:///default");
    assert!(client.libvirt_version().await.expect("a version") >= 7_000_000);
    assert!(client.hypervisor_version().await.expect("a version") > 0);
    assert!(!client.host_name().await.expect("a name").is_empty());
    let node = client.node_info().await.expect("a host");
    assert_eq!((node.model.as_str(), node.cpus, node.nodes, node.sockets, node.cores, node.threads), ("i686", 16, 2, 2, 2, 2));
    assert!(client.capabilities().await.expect("capabilities").starts_with("<capabilities>"));

    let mut events = client.watch(&[Topic::LIFE, Topic::NodeDevices]).await.expect("a listener");
    let domains = client.domains(Domains::NONE).await.expect("a list");
    let [test] = domains.as_slice() else { panic!("{domains:?}") };
    assert_eq!((test.name.as_str(), test.id), ("test", 1));
    assert_eq!(&client.domain(test.uuid).await.expect("found"), test);
    assert_eq!(&client.domain_named("test").await.expect("found"), test);
    let missing = client.domain_named("no <such> & 'name'").await.expect_err("none");
    assert_eq!(missing.code(), Some(ErrorCode::NO_DOMAIN));
    assert!(missing.is_not_found());
    assert!(client.domain(Uuid::from_u128(1)).await.expect_err("none").is_not_found());

    assert_eq!(client.state(test).await.expect("a state").0, DomainState::Running);
    let info = client.info(test).await.expect("sizes");
    assert_eq!((info.state, info.memory_max_kib, info.vcpus), (DomainState::Running, 8_388_608, 2));
    let stats = client.stats(&[], Stats::STATE, StatsHow::NONE).await.expect("states");
    assert_eq!(stats.iter().map(|stats| (stats.domain.uuid, stats.state())).collect::<Vec<_>>(), [(test.uuid, Some(DomainState::Running))]);

    client.pause(test).await.expect("paused");
    life(&mut events, Life::Suspended).await;
    client.resume(test).await.expect("resumed");
    life(&mut events, Life::Resumed).await;
    client.destroy(test, Destroy::NONE).await.expect("off");
    life(&mut events, Life::Stopped).await;
    let off = client.destroy(test, Destroy::NONE).await.expect_err("it is off");
    assert_eq!(off.code(), Some(ErrorCode::OPERATION_INVALID));
    client.set_memory(test, 4_194_304, Affect::CONFIG).await.expect("less");
    client.set_vcpus(test, 1, Affect::CONFIG).await.expect("fewer");
    assert_eq!(client.vcpus(test, Affect::CONFIG).await.expect("a number"), 1);
    client.set_autostart(test, true).await.expect("with the host");
    assert!(client.autostart(test).await.expect("yes or no"));
    client.set_metadata(test, Some("<machine id='7'/>"), "v", "urn:v:1", Affect::CONFIG).await.expect("noted");
    let noted = client.metadata(test, "urn:v:1", Affect::CONFIG).await.expect("asked").expect("there");
    assert!(noted.contains("id=\"7\""), "{noted}");
    assert_eq!(client.metadata(test, "urn:other", Affect::CONFIG).await.expect("asked"), None);
    client.rename(test, "renamed").await.expect("another name");
    let xml = client.domain_xml(test, Xml::INACTIVE).await.expect("found by its UUID");
    assert!(xml.contains("<name>renamed</name>"));
    client.start(test, Start::NONE).await.expect("on");
    life(&mut events, Life::Started).await;

    let bad = client.define("<domain type='test'><name>x</name>", Define::NONE).await.expect_err("not XML");
    assert_eq!(bad.code(), Some(ErrorCode::XML_DETAIL));
    let other = "<domain type='test'><name>a &lt;b&gt; &amp; c</name><memory>1024</memory><os><type>hvm</type></os></domain>";
    let other = client.define(other, Define::NONE).await.expect("a hostile name");
    assert_eq!(other.name, "a <b> & c");
    life(&mut events, Life::Defined).await;
    client.undefine(&other, Undefine::NONE).await.expect("forgotten");
    life(&mut events, Life::Undefined).await;

    let networks = client.networks(Networks::NONE).await.expect("a list");
    assert_eq!(networks.iter().map(|network| network.name.as_str()).collect::<Vec<_>>(), ["default"]);
    let pools = client.pools(Pools::NONE).await.expect("a list");
    assert_eq!(pools.iter().map(|pool| pool.name.as_str()).collect::<Vec<_>>(), ["default-pool"]);
    let devices = client.node_devices(NodeDevices::NONE).await.expect("a list");
    let computer = devices.iter().find(|device| device.name == "computer").expect("there is one");
    assert!(client.node_device_xml(computer).await.expect("XML").contains("<capability type='system'>"));
    assert!(client.node_device("none").await.expect_err("none").is_not_found());
    assert!(!client.watch_hypervisor().await.expect("answered") || client.ended().is_none());
}

#[tokio::test]
async fn a_uri_that_is_not_there_is_refused_in_libvirts_words() {
    let lab = Lab::start();
    let refused = Client::connect(UnixSocket(lab.socket()), "nonsense:///", Options::default()).await.expect_err("no such driver");
    assert!(refused.refusal().is_some_and(|refusal| refusal.message.contains("nonsense")), "{refused}");
}

#[tokio::test]
async fn a_thousand_domains_are_two_round_trips() {
    let lab = Lab::start();
    let client = connect(&lab, "qemu:///system").await;
    let guest = Lab::guest();
    let defining: Vec<_> = (0..4)
        .map(|part| {
            let (client, guest) = (client.clone(), guest.clone());
            tokio::spawn(async move {
                for number in 0..250 {
                    let xml = Machine::named(&format!("m-{part}-{number}")).xml(&guest);
                    client.define(&xml, Define::NONE).await.expect("defined");
                }
            })
        })
        .collect();
    for part in defining {
        part.await.expect("a thousand");
    }
    let mut best = Duration::MAX;
    for _ in 0..10 {
        let begun = Instant::now();
        let client = connect(&lab, "qemu:///system").await;
        let domains = client.domains(Domains::NONE).await.expect("a list");
        let states = client.stats(&[], Stats::STATE, StatsHow::NONE).await.expect("their states");
        best = best.min(begun.elapsed());
        assert_eq!((domains.len(), states.len()), (1000, 1000));
        assert!(states.iter().all(|of| of.state() == Some(DomainState::Shutoff)));
    }
    // The bar is 10 ms, of a build that is optimised, on a computer that does nothing else; see docs/benchmarks.md.
    assert!(best < Duration::from_millis(100), "a thousand domains took {best:?}");

    let virsh = lab.command("virsh").args(["-c", "qemu:///system", "list", "--all", "--name"]).output().expect("virsh runs");
    let names = String::from_utf8(virsh.stdout).expect("plain names");
    let theirs: BTreeSet<&str> = names.lines().filter(|name| !name.is_empty()).collect();
    let ours = client.domains(Domains::INACTIVE).await.expect("a list");
    assert_eq!(ours.iter().map(|domain| domain.name.as_str()).collect::<BTreeSet<_>>(), theirs, "virsh sees the same");
}

#[tokio::test]
async fn a_daemon_that_is_killed_in_the_middle_fails_every_waiter_and_a_new_one_is_found() {
    let mut lab = Lab::start();
    let client = connect(&lab, "qemu:///system").await;
    let mut events = client.watch(&[Topic::LIFE]).await.expect("a listener");
    lab.freeze_daemon();
    let calls: Vec<_> = (0..9)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { client.domains(Domains::NONE).await })
        })
        .collect();
    let slow = {
        let client = client.within(Duration::from_millis(200));
        client.node_info().await.expect_err("a frozen daemon does not answer")
    };
    assert!(slow.to_string().contains("within 200 ms"), "{slow}");
    lab.kill_daemon();
    for call in calls {
        let error = call.await.expect("no panic").expect_err("killed");
        assert!(error.to_string().starts_with("the connection to libvirt ended: "), "{error}");
    }
    assert!(matches!(events.next().await, Event::Closed(_)));
    let nobody = Client::connect(UnixSocket(lab.socket()), "qemu:///system", Options::default()).await.expect_err("killed");
    assert!(nobody.is_connection(), "{nobody}");
    lab.start_daemon();
    let again = connect(&lab, "qemu:///system").await;
    assert_eq!(again.domains(Domains::NONE).await.expect("a list"), []);
}
