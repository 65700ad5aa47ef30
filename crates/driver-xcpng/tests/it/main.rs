//! The driver against `xapi-sim`: the suite that every driver passes, and what is its own.

mod contract;
mod cuts;
mod devices;
mod entered;
mod faults;
mod guests;
mod hosts;
mod machines;
mod raw;
mod trust;

use serde_json::{Map, Value};
use std::{
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};
use vmoon_driver_xcpng::{Keys, XcpngConfig, XcpngDriver};
use vmoon_guest::Guests;
use vmoon_xapi::Password;
use vmoon_xapi_sim::{Server, Settings};

/// What lets us in, as a test wants it.
#[derive(Default)]
struct Ring {
    password: Mutex<Option<String>>,
    fingerprint: Mutex<Option<String>>,
}

impl Keys for Ring {
    fn password(&self) -> Option<Password> {
        self.password.lock().unwrap().clone().map(Password::new)
    }

    fn fingerprint(&self) -> Option<String> {
        self.fingerprint.lock().unwrap().clone()
    }
}

/// A pool whose guests have their tools at once.
async fn pool() -> Server {
    Server::start(&Settings { tools: Duration::ZERO, ..Settings::default() }).await.unwrap()
}

fn ring(server: &Server) -> Arc<Ring> {
    let fingerprint = server.fingerprint().map(|text| format!("SHA256:{text}"));
    Arc::new(Ring { password: Mutex::new(Some("secret".into())), fingerprint: Mutex::new(fingerprint) })
}

fn driver(server: &Server, keys: Arc<Ring>) -> XcpngDriver {
    driver_with(server, keys, None, None)
}

fn driver_with(server: &Server, keys: Arc<Ring>, guests: Option<Guests>, runtime: Option<PathBuf>) -> XcpngDriver {
    let uri = format!("https://{}", server.address());
    XcpngDriver::new(XcpngConfig { uri, user: "root".into(), keys, guests, runtime }).unwrap()
}

fn settings(value: Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}
