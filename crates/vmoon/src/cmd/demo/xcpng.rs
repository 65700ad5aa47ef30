//! A pool of XCP-ng by `xapi-sim`, with its connection.

use super::Xcpng;
use crate::{ctx::Ctx, exit::Exit};
use std::{fs, io, path::Path, time::Duration};
use tokio::{
    io::AsyncReadExt as _,
    net::UnixListener,
    signal::unix::{SignalKind, signal},
    time::timeout,
};
use vmoon_api::{
    Api as _,
    requests::{AddConnection, Empty, Password, RemoveConnection},
    views::ConnectionView,
};
use vmoon_core::{Code, Error, Result, name::escape};
use vmoon_guest_image::Guest;
use vmoon_xapi_sim::{
    Server, Settings,
    machines::{Maker, Qemu, Sshd, TEMPLATES},
};

const KIND: &str = "xcpng";
const USER: &str = "root";
/// How long a guest may take to obey its power button; real hosts give it as long.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long the daemon may take to try a connection.
const ANSWER: Duration = Duration::from_secs(60);
/// How long somebody who connects may take to say what he wants.
const WORD: Duration = Duration::from_secs(1);

fn failed(what: &str, error: impl std::fmt::Display) -> Error {
    Error::new(Code::FileFailed, format!("{what}: {error}"))
}

/// Who logs in where VMs are SSH servers of this very account.
const OWN: &str = " --set user=$(id -un)";

/// What makes VMs boot here, or stands for them where nothing does; and what a VM's settings need for that.
fn maker(ctx: &Ctx, args: &Xcpng) -> Result<(Box<dyn Maker>, &'static str)> {
    let guest = match &args.packages {
        None => Guest::kept(),
        Some(packages) => {
            let cache = ctx.daemon.paths().cache.join("guest");
            fs::create_dir_all(&cache).map_err(|error| Error::io(format_args!("make the directory {}", cache.display()), error))?;
            Guest::made(packages, &cache)
        }
    };
    match guest.and_then(Qemu::new) {
        Ok(qemu) => Ok((Box::new(qemu), "")),
        // What was asked for is not put aside silently.
        Err(why) if args.packages.is_some() => Err(failed("the guest cannot be made", why)),
        Err(why) => {
            ctx.out.warn(&format!("nothing can boot here: {why}"));
            let sshd = Sshd::new(&why)
                .map_err(|why| failed("and there is no SSH server that could stand for it", why).hint("--rows needs neither"))?;
            Ok((Box::new(sshd), OWN))
        }
    }
}

/// Ends when somebody wants that.
struct Wish {
    listener: UnixListener,
    signals: [tokio::signal::unix::Signal; 3],
}

impl Wish {
    async fn new(socket: &Path) -> Result<Self> {
        if super::running(socket).await?.is_some() {
            return Err(Error::new(Code::MachineState, "a demonstration runs already").hint("end it first: vmoon demo stop"));
        }
        // What one that was killed has left.
        let _ = fs::remove_file(socket);
        let listener = UnixListener::bind(socket).map_err(|error| Error::io(format_args!("listen on {}", socket.display()), error))?;
        let listen = |kind| signal(kind).map_err(|error| Error::io("wait for signals", error));
        let signals = [listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?, listen(SignalKind::hangup())?];
        Ok(Self { listener, signals })
    }

    /// Waits for it. What is given back is let go when all is done, which tells whoever asked.
    async fn come(&mut self) -> Option<tokio::net::UnixStream> {
        let [one, two, three] = &mut self.signals;
        let listener = &self.listener;
        let asked = async {
            loop {
                // Who only looks whether one runs says nothing.
                let Ok((mut stream, _)) = listener.accept().await else { continue };
                let mut word = [0; super::STOP.len()];
                if matches!(timeout(WORD, stream.read_exact(&mut word)).await, Ok(Ok(_)) if word == super::STOP) {
                    return stream;
                }
            }
        };
        tokio::select! {
            stream = asked => Some(stream),
            _ = one.recv() => None,
            _ = two.recv() => None,
            _ = three.recv() => None,
        }
    }
}

/// Runs it until it is ended.
pub(super) async fn run(ctx: &Ctx, args: &Xcpng) -> Result<Exit> {
    vmoon_core::name::check(&args.name)?;
    // The daemon is there, and with it the directories.
    let known = ctx.daemon.ask(async |client| client.list_connections(Empty {}).await).await?;
    let socket = super::socket(ctx);
    let mut wish = Wish::new(&socket).await?;
    let ran = serve(ctx, args, known, &mut wish).await;
    let _ = fs::remove_file(&socket);
    ran.map(|_asked| Exit::OK)
}

async fn serve(ctx: &Ctx, args: &Xcpng, known: Vec<ConnectionView>, wish: &mut Wish) -> Result<Option<tokio::net::UnixStream>> {
    if let Some(old) = known.iter().find(|one| one.name == args.name) {
        if old.kind != KIND || !old.uri.starts_with("https://127.0.0.1:") {
            return Err(Error::new(
                Code::Usage,
                format!("there is a connection {} already, and it is no demonstration", escape(&args.name)),
            )
            .hint("give this one another name: --name NAME"));
        }
        ctx.out.note("removing what a demonstration that was killed has left");
        remove(ctx, &args.name).await?;
    }
    let password = vmoon_sys::random::key();
    let mut server = Server::start(&Settings { password: password.clone(), ..Settings::default() }).await.map_err(start_failed)?;
    let (about, user) = if args.rows {
        ("VMs only pretend to run.".to_owned(), "")
    } else {
        let (maker, user) = maker(ctx, args)?;
        let about = maker.about();
        server.boot(maker, PATIENCE).map_err(start_failed)?;
        (about, user)
    };
    let request = AddConnection {
        kind: KIND.into(),
        uri: format!("https://{}", server.address()),
        name: args.name.clone(),
        user: Some(USER.into()),
        identity: None,
        password: Some(Password::new(password)),
        store: None,
        fingerprint: server.fingerprint().map(|fingerprint| format!("SHA256:{fingerprint}")),
    };
    let added = tokio::select! {
        added = timeout(ANSWER, ctx.daemon.client().add_connection(request)) => added,
        asked = wish.come() => {
            server.stop().await;
            let _ = remove(ctx, &args.name).await;
            return Ok(asked);
        }
    };
    let view = added.unwrap_or_else(|_| Err(Error::new(Code::Timeout, "the daemon took too long to try the connection")))?;
    let told = tell(ctx, args, &view, &about, user);
    let asked = if told.is_ok() { wish.come().await } else { None };
    ctx.out.step("ending the machines and removing the connection");
    server.stop().await;
    let removed = remove(ctx, &args.name).await;
    told.and(removed).map(|()| asked)
}

fn start_failed(error: io::Error) -> Error {
    Error::io("start the pool", error)
}

/// Removes the connection; one that somebody else has removed is fine.
async fn remove(ctx: &Ctx, name: &str) -> Result<()> {
    let request = RemoveConnection { connection: name.to_owned(), force: true };
    match ctx.daemon.ask_once(async |client| client.remove_connection(request.clone()).await).await {
        Err(error) if error.code() == Code::ConnectionNotFound => Ok(()),
        other => other.map(drop),
    }
}

fn tell(ctx: &Ctx, args: &Xcpng, view: &ConnectionView, about: &str, user: &str) -> Result<()> {
    let name = &args.name;
    if ctx.out.format().is_machine() {
        return ctx.out.one(view, name, &[("name".into(), name.clone()), ("uri".into(), view.uri.clone())]);
    }
    ctx.out.changed(&format!("a pool runs at {}, with the connection {name} to it", view.uri))?;
    ctx.out.note(about);
    let template = if args.rows { "linux-lua" } else { TEMPLATES[0].0 };
    let mut lines = vec![
        format!(
            "vmoon create {name}:moon --set template={template}{}",
            if args.rows { " --start".to_owned() } else { format!(" --set seed=yes{user} --until session") }
        ),
        "vmoon list".to_owned(),
    ];
    if !args.rows {
        lines.extend([
            format!("vmoon eval {name}:moon 'return 6 * 7'"),
            format!("vmoon console {name}:moon"),
            format!("vmoon snapshot create {name}:moon before"),
        ]);
    }
    lines.extend([format!("vmoon stop {name}:moon"), format!("vmoon rm {name}:moon --yes")]);
    ctx.out.note("try, in another terminal:");
    for line in lines {
        ctx.out.note(&format!("  {line}"));
    }
    ctx.out.note("it ends with Ctrl-C here, or with: vmoon demo stop");
    Ok(())
}
