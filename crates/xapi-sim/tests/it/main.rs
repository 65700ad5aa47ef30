//! The server by clients that were written for the real one: ours, and the module that XenServer publishes.

mod boots;
mod faults;
mod lives;
mod names;
mod others;
mod replays;
mod streams;

use std::time::Duration;
use vmoon_xapi::{Client, Config, Password};
use vmoon_xapi_sim::{Server, Settings};

/// A pool and a client of it.
async fn pool() -> (Server, Client) {
    let server = Server::start(&Settings::default()).await.unwrap();
    let client = client(&server);
    (server, client)
}

fn client(server: &Server) -> Client {
    patient(server, Duration::from_secs(10))
}

/// A client that waits so long for an answer.
fn patient(server: &Server, deadline: Duration) -> Client {
    let mut config = Config::new(server.address().to_string(), "root", Password::new("secret"));
    config.pin(server.address().ip().to_string(), server.fingerprint().unwrap().parse().unwrap());
    config.deadline = deadline;
    Client::new(config).unwrap()
}
