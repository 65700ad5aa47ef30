//! Lists: how many questions they take, whatever number of machines there is.

use super::place::{Place, new_id};
use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{UnixListener, UnixStream},
};
use vmoon_core::{
    Code,
    driver::{Channel, Driver, Found, Handle, Observed},
};
use vmoon_driver_libvirt::{LibvirtConfig, LibvirtDriver};
use vmoon_libvirt_wire::{
    Client, Domain,
    flags::{Define, Destroy, Start},
};

/// Something between a driver and the daemon that counts what is asked.
struct Counted {
    uri: String,
    asked: Arc<AtomicUsize>,
}

impl Counted {
    fn new(place: &Place, name: &str) -> Self {
        let path = place.lab.path().join(name);
        let listener = UnixListener::bind(&path).unwrap();
        let (asked, real) = (Arc::new(AtomicUsize::new(0)), place.lab.socket());
        let counter = asked.clone();
        drop(tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let daemon = UnixStream::connect(&real).await.unwrap();
                let ((mut from, mut to), (mut answers, mut requests)) = (client.into_split(), daemon.into_split());
                drop(tokio::spawn(async move { tokio::io::copy(&mut answers, &mut to).await }));
                let counter = counter.clone();
                drop(tokio::spawn(async move {
                    let mut length = [0; 4];
                    while from.read_exact(&mut length).await.is_ok() {
                        counter.fetch_add(1, Ordering::SeqCst);
                        let mut rest = vec![0; u32::from_be_bytes(length) as usize - 4];
                        from.read_exact(&mut rest).await.unwrap();
                        requests.write_all(&[&length[..], &rest].concat()).await.unwrap();
                    }
                }));
            }
        }));
        Self { uri: format!("qemu+unix:///system?socket={}", path.display()), asked }
    }

    /// A driver that has not asked anything yet.
    fn driver(&self) -> LibvirtDriver {
        self.asked.store(0, Ordering::SeqCst);
        LibvirtDriver::connect(&LibvirtConfig { uri: self.uri.clone(), ..LibvirtConfig::default() }).unwrap()
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

/// Defines machines that bear our tag; how many of them are to be incomplete.
async fn define(client: &Client, count: usize, incomplete: usize) -> Vec<Handle> {
    let mut handles = Vec::new();
    for n in 0..count {
        let (id, complete) = (new_id(), if n < incomplete { "no" } else { "yes" });
        let uuid = id.uuid();
        let tag = format!(
            "<metadata><v:machine xmlns:v='urn:vmoon:libvirt:1' id='{id}' complete='{complete}' template='linux-cloud'/></metadata>"
        );
        let xml = format!(
            "<domain type='qemu'><name>m-{uuid}</name><uuid>{uuid}</uuid>{tag}<memory>65536</memory><os><type arch='x86_64' machine='q35'>hvm</type></os></domain>"
        );
        client.define(&xml, Define::NONE).await.unwrap();
        handles.push(Handle(uuid.to_string()));
    }
    handles
}

#[tokio::test]
async fn what_is_known_is_listed_with_the_same_number_of_questions_however_much_it_is() {
    let place = Place::new().await;
    let client = place.client().await;
    let counted = Counted::new(&place, "counted");
    let known = |handles: Vec<Handle>| handles.into_iter().map(|handle| (handle, Vec::new()));
    let mut all: HashMap<Handle, Vec<Channel>> = known(define(&client, 2, 0).await).collect();
    let few = counted.driver();
    assert_eq!(few.list_knowing(&all).await.unwrap().len(), 2);
    let questions = counted.asked();
    all.extend(known(define(&client, 40, 0).await));
    let many = counted.driver();
    let found = many.list_knowing(&all).await.unwrap();
    assert_eq!((found.len(), counted.asked()), (42, questions), "one for all");
    assert!(found.iter().all(|found| found.sighting.complete && found.sighting.observed == Observed::Off(None)), "{found:?}");

    // What the caller does not know is asked, and told: whose it is, and that it is not whole.
    let strange = define(&client, 2, 1).await;
    let found = counted.driver().list_knowing(&all).await.unwrap();
    assert_eq!(counted.asked(), questions + 2);
    let of = |handle: &Handle| found.iter().find(|found| found.handle == *handle).unwrap();
    assert_eq!((of(&strange[0]).sighting.complete, of(&strange[1]).sighting.complete), (false, true));
    assert!(strange.iter().all(|handle| of(handle).id.is_some_and(|id| id.to_string() == handle.0)));
    // What has begun to run unseen is asked for its life: the list says the same as one that knows nothing.
    let running = all.keys().next().unwrap().clone();
    client.start(&domain(&running), Start::NONE).await.unwrap();
    let seen = |found: Vec<Found>| found.into_iter().find(|found| found.handle == running).unwrap();
    assert_eq!(seen(counted.driver().list_knowing(&all).await.unwrap()), seen(counted.driver().list().await.unwrap()));
}

fn domain(handle: &Handle) -> Domain {
    Domain::of(handle.0.parse().unwrap())
}

#[tokio::test]
async fn what_runs_is_listed_with_the_same_number_of_questions_by_who_has_its_console() {
    let place = Place::new().await;
    let client = place.client().await;
    let counted = Counted::new(&place, "counted");
    let handles = define(&client, 4, 0).await;
    let driver = place.driver();
    let mut all: HashMap<Handle, Vec<Channel>> = HashMap::new();
    let mut questions = Vec::new();
    for (n, handle) in handles.iter().enumerate() {
        driver.start(handle).await.unwrap();
        let Observed::On(channels) = driver.observe(handle).await.observed else { panic!("it runs") };
        all.insert(handle.clone(), channels);
        if n == 0 || n == 3 {
            let listing = counted.driver();
            let found = listing.list_knowing(&all).await.unwrap();
            // Those that it was not told of are asked one by one.
            questions.push(counted.asked() - (handles.len() - all.len()));
            assert!(found.iter().filter(|found| all.contains_key(&found.handle)).all(|found| found.sighting.complete));
            let lives = |found: &Found| matches!(&found.sighting.observed, Observed::On(channels) if *channels == all[&found.handle]);
            assert_eq!(found.iter().filter(|found| lives(found)).count(), n + 1, "{found:?}");
        }
    }
    assert_eq!(questions[0], questions[1], "as many questions for four that run as for one");

    // Somebody has stopped and started one while nobody looked: that its life is another shows in opening it, and in looking at it.
    let again = &handles[0];
    client.destroy(&domain(again), Destroy::NONE).await.unwrap();
    driver.start(again).await.unwrap();
    let late = counted.driver();
    let found = late.list_knowing(&all).await.unwrap();
    assert_eq!(found.iter().find(|found| found.handle == *again).unwrap().sighting.observed, Observed::On(all[again].clone()));
    let error = late.open(again, &all[again][0], 0).await.err().expect("that life is over");
    assert_eq!(error.code(), Code::SessionEnded);
    let Observed::On(channels) = late.observe(again).await.observed else { panic!("it runs") };
    assert!(channels[0].life > all[again][0].life);
    // What was taken on trust is not kept.
    let Observed::On(listed) =
        &late.list().await.unwrap().into_iter().find(|found| found.handle == *again).unwrap().sighting.observed.clone()
    else {
        panic!("it runs")
    };
    assert_eq!(*listed, channels);
    for handle in &handles {
        driver.delete(handle).await.unwrap();
    }
}
