//! Single hosts for installed interpreters, by Debian's LuaSocket: the broker decides as for the builtin runtime, which the table of attempts covers.

use crate::{client::Client, death::World};
use serde_json::json;
use std::{
    io::{Read as _, Write as _},
    net::TcpListener,
};
use vmoon_core::driver::{Driver as _, StopMode};

/// Connects, says something, and gives what comes back; or why not.
const TALK: &str = "local s = require('socket') local c = s.tcp() c:settimeout(10) local ok, why = c:connect(HOST, PORT) \
    if not ok then return why end c:send('ping\\n') return (c:receive('*l'))";

fn talk(host: &str, port: u16) -> String {
    TALK.replace("HOST", &format!("'{host}'")).replace("PORT", &port.to_string())
}

#[tokio::test]
async fn an_installed_interpreter_connects_where_it_may_and_nowhere_else() {
    let (granted, other) = (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
    let port = |listener: &TcpListener| listener.local_addr().unwrap().port();
    let (here, there) = (port(&granted), port(&other));
    let world = World::new();
    for runtime in ["lua5.4", "lua5.1", "luajit"] {
        let (id, handle) = world.machine(json!({ "runtime": runtime, "profile": "net", "net": [format!("127.0.0.1:{here}")] })).await;
        world.driver.start(&handle).await.unwrap();
        let mut client = Client::at_path(&world.life(id, 1), 0);
        let said = std::thread::scope(|scope| {
            let server = scope.spawn(|| {
                let (mut stream, _) = granted.accept().unwrap();
                let mut line = [0; 5];
                stream.read_exact(&mut line).unwrap();
                stream.write_all(b"pong\n").unwrap();
                line
            });
            let said = client.value(talk("127.0.0.1", here));
            assert_eq!(&server.join().unwrap(), b"ping\n", "{runtime}");
            said
        });
        assert_eq!(said, "pong", "{runtime} (apt install lua-socket)");
        let refused = client.value(talk("127.0.0.1", there));
        assert!(refused.contains("denied"), "{runtime}: {refused}");
        other.set_nonblocking(true).unwrap();
        assert!(other.accept().is_err(), "{runtime}: somebody has come through");
        // Names are not looked up here, and nothing else leads out.
        assert_ne!(client.value(talk("localhost", here)), "pong", "{runtime}");
        assert_eq!(client.value("return (require('socket').udp():sendto('x', '127.0.0.1', 9))"), "nil", "{runtime}");
        let shown = world.driver.describe(&handle).await;
        assert!(shown["isolation"].to_string().contains("broker on"), "{shown:?}");
        world.driver.stop(&handle, StopMode::Force).await.unwrap();
    }
}
