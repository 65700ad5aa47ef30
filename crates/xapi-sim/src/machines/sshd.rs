//! Where nothing boots: a private SSH server for each VM, on this very computer, with its Lua. It is no machine, and it says so.
//!
//! Who gets in is the account that runs the simulator, with the keys that the VM's seed names; the seed's host key is shown. Its sessions keep their files in a
//! folder of the VM's.

use super::{Body, End, Maker, Order, Plan, Soon, qemu::find};
use rustix::process::Signal;
use serde_json::Value;
use std::{
    ffi::OsStr,
    fs::{self, File},
    io::{self, Write as _},
    os::{
        fd::AsFd as _,
        unix::{
            fs::{DirBuilderExt as _, OpenOptionsExt as _},
            net::UnixStream as StdUnixStream,
        },
    },
    path::{Path, PathBuf},
    process::Child,
    time::Duration,
};
use tokio::{io::unix::AsyncFd, net::UnixStream};
use vmoon_sys::{
    child::Tied,
    process::{Identity, Pidfd},
    run::Run,
    stop::Stop,
    tree,
};

/// How long it may take to make a key, and to die.
const LIMIT: Duration = Duration::from_secs(10);
/// A seed is small.
const SEED: usize = 16 << 20;
const BEGIN: &[u8] = b"#cloud-config\n";

/// Makes private SSH servers.
#[derive(Clone, Debug)]
pub struct Sshd {
    why: String,
    program: PathBuf,
    keygen: PathBuf,
}

impl Sshd {
    /// For this reason.
    ///
    /// # Errors
    /// If there is no SSH server either.
    pub fn new(why: &str) -> Result<Self, String> {
        let found = |name: &str| find(name).ok_or_else(|| format!("{name} is not installed"));
        Ok(Self { why: why.to_owned(), program: found("sshd")?, keygen: found("ssh-keygen")? })
    }

    fn key(&self, file: &Path) -> io::Result<()> {
        let words = ["-q", "-t", "ed25519", "-N", "", "-f"];
        let ran = Run {
            exe: &self.keygen,
            args: words.iter().map(OsStr::new).chain([file.as_os_str()]).collect(),
            env: Vec::new(),
            dir: Path::new("/"),
            input: &[],
            extra: Vec::new(),
            merged: true,
            keep: 4096,
            limit: LIMIT,
            largest_file: None,
        };
        let ran = ran.run(&Stop::new())?;
        if file.is_file() { Ok(()) } else { Err(io::Error::other(format!("ssh-keygen: {}", ran.out.text().trim()))) }
    }
}

/// What a seed among the disks says; nothing if there is none, or it is not JSON.
fn seed(disks: &[(PathBuf, bool)]) -> Option<Value> {
    disks.iter().find_map(|(file, _)| {
        let bytes = vmoon_sys::image::head(file, SEED).ok()?;
        let at = bytes.windows(BEGIN.len()).position(|window| window == BEGIN)?;
        // What follows is the end of a sector.
        serde_json::Deserializer::from_slice(&bytes[at + BEGIN.len()..]).into_iter::<Value>().next()?.ok()
    })
}

/// The keys that a seed lets in, of whatever user: here there is one.
fn keys(seed: &Value) -> Vec<String> {
    let of = |value: &Value| -> Vec<String> {
        let all = value["ssh_authorized_keys"].as_array().into_iter().flatten();
        all.filter_map(Value::as_str).filter(|key| !key.contains('\n')).map(str::to_owned).collect()
    };
    let users = seed["users"].as_array().into_iter().flatten();
    users.flat_map(of).chain(of(seed)).collect()
}

fn private(path: &Path, text: &str) -> io::Result<()> {
    let mut file = File::options().create(true).truncate(true).write(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())
}

impl Maker for Sshd {
    fn start(&self, plan: &Plan) -> io::Result<Box<dyn Body>> {
        let at = |name: &str| plan.folder.join(name);
        let seed = seed(&plan.disks).unwrap_or_default();
        let host = at("host");
        match seed["ssh_keys"]["ed25519_private"].as_str() {
            Some(key) => private(&host, key)?,
            None if !host.exists() => self.key(&host)?,
            None => {}
        }
        private(&at("authorized"), &format!("{}\n", keys(&seed).join("\n")))?;
        fs::DirBuilder::new().recursive(true).mode(0o700).create(at("state"))?;
        if rustix::process::geteuid().is_root() {
            // sshd wants a directory of root's to lock its children into.
            fs::create_dir_all("/run/sshd")?;
        }
        let text = format!(
            "ListenAddress {}:{}\nHostKey {}\nAuthorizedKeysFile {}\nStrictModes no\nUsePAM no\nPasswordAuthentication no\n\
             KbdInteractiveAuthentication no\nPermitRootLogin yes\nPidFile none\nPrintMotd no\nSubsystem sftp internal-sftp\nSetEnv XDG_STATE_HOME={}\n",
            plan.address,
            plan.port,
            host.display(),
            at("authorized").display(),
            at("state").display()
        );
        private(&at("config"), &text)?;
        let closed = plan.words.iter().any(|word| word == "nossh");
        let log = File::options().create(true).append(true).mode(0o600).open(at("log"))?;
        let words = if closed { vec!["-t".into()] } else { vec!["-D".into(), "-e".into()] };
        let args = [words, vec!["-f".into(), at("config").display().to_string()]].concat();
        let (console, serial) = StdUnixStream::pair()?;
        for end in [&console, &serial] {
            end.set_nonblocking(true)?;
        }
        let mut banner = serial.try_clone()?;
        write!(
            banner,
            "{}\r\nThere is nothing to log in to here: use SSH, as the account that runs this.\r\nGUEST READY {}\r\n",
            self.about(),
            plan.name.escape_debug()
        )?;
        let child = Tied { exe: &self.program, args, output: [log.as_fd(), log.as_fd()], extra: Vec::new() }.spawn()?;
        let identity = Identity::of(child.id().cast_signed());
        let power = plan.words.iter().all(|word| word != "deaf");
        // From here on it ends if anything fails.
        let mark = format!("XDG_STATE_HOME={}", at("state").display());
        let mut server = Server { child, identity, mark, ended: None, console: None, serial, off: false, power };
        server.console = Some(UnixStream::from_std(console)?);
        // One that is closed has only looked at its configuration.
        if let Some(identity) = server.identity.as_ref().filter(|_| !closed) {
            // SAFETY: the descriptor is owned by the Pidfd, which gives always this one and is dropped with it.
            server.ended = Pidfd::open(identity)?.map(|fd| unsafe { AsyncFd::register(fd) }).transpose()?;
        }
        Ok(Box::new(server))
    }

    fn keeps_memory(&self) -> bool {
        false
    }

    fn about(&self) -> String {
        format!("VMs are private SSH servers on this computer, with its Lua, because nothing can boot here: {}.", self.why)
    }
}

struct Server {
    child: Child,
    identity: Option<Identity>,
    /// What stands in the environment of all that runs in it: nothing of that outlives the machine, whoever it belongs to by then.
    mark: String,
    ended: Option<AsyncFd<Pidfd>>,
    console: Option<UnixStream>,
    /// The far end of its console, which says nothing more.
    serial: StdUnixStream,
    /// Its power button was pressed.
    off: bool,
    /// Whether it obeys that.
    power: bool,
}

impl Server {
    fn signal(&self, signal: Signal) -> io::Result<()> {
        if let Some(identity) = &self.identity {
            if let Some(fd) = &self.ended {
                fd.get_ref().send(signal)?;
            }
            tree::signal_offspring(identity, signal);
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(identity) = &self.identity
            && let Err(error) = tree::kill(identity, Some(&self.mark), LIMIT)
        {
            tracing::warn!("an SSH server does not end: {error}");
        }
        let _ = self.child.wait();
        let _ = self.serial.shutdown(std::net::Shutdown::Both);
    }
}

impl Body for Server {
    fn serial(&mut self) -> Option<UnixStream> {
        self.console.take()
    }

    fn screen(&self) -> Option<PathBuf> {
        None
    }

    fn obey(&mut self, order: Order) -> Soon<'_, io::Result<()>> {
        Box::pin(async move {
            match order {
                Order::Pause => self.signal(Signal::STOP),
                Order::Go => self.signal(Signal::CONT),
                Order::Button => {
                    self.off = self.power;
                    Ok(())
                }
                Order::Save(_) => Err(io::Error::other("it is no machine: it has no memory that could be kept")),
            }
        })
    }

    fn ended(&mut self) -> Soon<'_, End> {
        Box::pin(async move {
            if self.off {
                return End::Off;
            }
            match &self.ended {
                Some(fd) => match fd.readable().await {
                    Ok(_) => End::Died("sshd has ended".into()),
                    Err(error) => End::Died(error.to_string()),
                },
                None => std::future::pending().await,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_seed_is_found_wherever_it_lies() {
        let folder = tempfile::tempdir().unwrap();
        let (none, some) = (folder.path().join("none"), folder.path().join("some"));
        fs::write(&none, vec![0; 5000]).unwrap();
        let config = json!({"ssh_authorized_keys": ["k0"], "users": [{"name": "lua", "ssh_authorized_keys": ["k1", "bad\nk2"]}]});
        let mut image = vec![0; 4096];
        image.extend(BEGIN);
        image.extend(config.to_string().bytes().chain([b'\n', 0, 0]));
        fs::write(&some, image).unwrap();
        assert!(seed(&[(none.clone(), true)]).is_none());
        let found = seed(&[(none, true), (some, false)]).unwrap();
        assert_eq!(keys(&found), ["k1", "k0"]);
    }
}
