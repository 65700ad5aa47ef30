//! As an ordinary user of the group that libvirt lets in: he works without any other right. Who is not of it: `session.rs`.

use super::place::{Place, created};
use rustix::process::{Gid, Uid};
use serde_json::{Value, json};
use std::{os::unix::fs::chown, sync::Arc};
use vmoon_core::driver::{Driver, StopMode};
use vmoon_driver_libvirt::{LibvirtConfig, LibvirtDriver};
use vmoon_libvirt_lab::{Lab, Setup};

/// `nobody` and `nogroup`, who are on every Debian: libvirtd turns away who has no name.
const NOBODY: u32 = 65_534;
/// The group `users`, which stands for the group `libvirt`.
const GROUP: u32 = 100;

/// Does something as that user with no other right, in a thread of its own: Linux keeps users by thread, and threads that it starts have its user.
fn as_member(uri: String, work: impl AsyncFnOnce(Arc<LibvirtDriver>) + Send + 'static) {
    let thread = std::thread::spawn(move || {
        rustix::thread::set_thread_groups(&[]).expect("we are root");
        rustix::thread::set_thread_gid(Gid::from_raw(GROUP)).expect("we are root");
        rustix::thread::set_thread_uid(Uid::from_raw(NOBODY)).expect("we are root");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let config = LibvirtConfig { uri, ..LibvirtConfig::default() };
            work(Arc::new(LibvirtDriver::connect(&config).unwrap())).await
        })
    });
    thread.join().unwrap();
}

fn small() -> Value {
    json!({"disk": "16MiB", "firmware": "bios", "network": "none", "accelerator": "tcg", "memory": "64MiB", "user": "ada"})
}

async fn lives(driver: &dyn Driver, name: &str) {
    let handle = created(driver, name, small()).await;
    driver.start(&handle).await.unwrap_or_else(|error| panic!("{}", error.chain()));
    driver.stop(&handle, StopMode::Force).await.unwrap_or_else(|error| panic!("{}", error.chain()));
    driver.delete(&handle).await.unwrap_or_else(|error| panic!("{}", error.chain()));
}

#[tokio::test]
async fn the_group_is_enough() {
    let conf = "unix_sock_rw_perms = \"0770\"\nauth_unix_rw = \"none\"\n".to_owned();
    let place = Place::of(Lab::start_with(&Setup { libvirtd_conf: conf, ..Setup::default() })).await;
    chown(place.lab.socket(), None, Some(GROUP)).unwrap();
    place.lab.open_to_all();
    // The pool's directory belongs to root: everything goes through libvirt.
    as_member(place.uri(), async |driver| lives(&*driver, "of-a-member").await);
    assert_eq!(place.remains(), Vec::<String>::new());
}
