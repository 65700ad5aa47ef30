//! A pool to try things with: `cargo run -p vmoon-xapi-sim --example serve -- 127.0.0.1:8443`. The user is `root`, the password `secret`; nothing is kept.

use std::io::{self, Write as _};
use vmoon_xapi_sim::{Server, Settings};

#[tokio::main(flavor = "current_thread")]
async fn main() -> io::Result<()> {
    let listen = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8443".into());
    let listen = listen.parse().map_err(|error| io::Error::other(format!("{listen}: {error}")))?;
    let server = Server::start(&Settings { listen, ..Settings::default() }).await?;
    writeln!(io::stdout(), "https://{} SHA256:{}", server.address(), server.fingerprint().unwrap_or_default())?;
    io::stdout().flush()?;
    std::future::pending::<()>().await;
    drop(server);
    Ok(())
}
