//! A Lua session on a host that outlives the SSH connection, with nothing installed there but `sh`, `mkfifo`, `tail`, `cat` and Lua.
//!
//! A session is a directory on the host with a FIFO for input and an append-only stream for output, and a process below a shell that waits for
//! it (`enter.sh`). The process runs the driver program of `vmoon-lua-wire`, the same as in a holder on this computer; `guest.lua` gives it
//! the files in the place of pipes, knows which commands were accepted, and writes the stream in the daemon's frames, so that an
//! offset in the stream is a place in the files. Attaching (`attach.sh`) takes the lease, which makes every older connection's lines void,
//! and runs two small programs: `relay.lua` passes lines on, `follow.lua` sends the stream from an offset on and is woken through a FIFO, because no `tail`
//! that can be relied on wakes without polling.
//!
//! What the deadline of a command and an interrupt that is not obeyed lead to is decided here, while somebody is attached.

mod attach;
mod enter;
mod inputs;
mod link;
mod pump;
pub(crate) mod wire;

use crate::{
    Connection, Host,
    environment::{Used, record},
    quote,
};
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use vmoon_core::{
    Code, Error, Result,
    driver::{Offset, SessionLink},
};
use vmoon_lua_wire::program;

/// Looks, and goes on to begin a life if it is told so: each script on the host costs a channel, a login shell and several round trips.
const ENTER: &str = concat!(include_str!("alive.sh"), include_str!("enter.sh"));
const ATTACH: &str = concat!(include_str!("alive.sh"), include_str!("attach.sh"));
const GUEST: &str = include_str!("guest.lua");
const RELAY: &str = include_str!("relay.lua");
/// Reads the program above from standard input: dropbear takes no line of more than 9000 bytes (its `MAX_CMD_LEN`).
const READ: &str = "assert((loadstring or load)(io.read(tonumber((io.read('*l')))),'=[relay]'))()";
/// As an argument of `-e`, which may not begin with a dash, as its comment does.
const FOLLOW: &str = concat!(" ", include_str!("follow.lua"));
/// What the interpreter runs first. Once it is told by a line that the program file is there, that says how long the first program is, and contains it.
const BEGIN: &str = "local e=os.getenv local d=e('VMOON_DIR') \
    local i=io.open(e('VMOON_NEW')..'/in','r+b') or assert(io.open(d..'/in','r+b')) i:read('*l') \
    local f=assert(io.open(d..'/prog','rb')) assert((loadstring or load)(f:read(tonumber((f:read('*l')))),'=[vmoon]'))(f,d,i)";
/// And then again and again: see [`program::arguments`].
const AGAIN: &str = "_VMOON()";
/// How many environments of a session are read at most.
const ENVIRONMENTS: usize = 64;
/// How long a small script on the host may take.
const SCRIPT: Duration = Duration::from_secs(15);

/// What a look at a host has shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The directory of the session's lives there.
    pub base: String,
    /// The host's boot id; `unknown` where it has none.
    pub boot: String,
    /// The Lua interpreter that would run the session.
    pub lua: Option<String>,
    /// The number of the newest life, 0 if there was none.
    pub life: u64,
    /// Whether that life is not over.
    pub lives: bool,
    /// The environments of packages that its lives use, the newest last.
    pub environments: Vec<Used>,
}

impl Seen {
    /// The life that a session opened now would be of.
    pub fn next_life(&self) -> u64 {
        if self.lives { self.life } else { self.life + 1 }
    }
}

/// One session's place on a host, through all its lives. Clones share it.
#[derive(Clone, Debug)]
pub struct Guest(Arc<Place>);

#[derive(Debug)]
struct Place {
    host: Host,
    owner: String,
    name: String,
    /// An interpreter to use instead of the first that is found.
    lua: Option<String>,
    seen: Mutex<Option<Seen>>,
    /// The script of the last look, which waits to be told to begin a life.
    ready: enter::Kept,
    /// Input that was sent and may have been lost with its connection.
    inputs: Mutex<inputs::Inputs>,
}

impl Guest {
    /// A session's place. `owner` keeps the sessions of different daemons and connections apart.
    ///
    /// # Errors
    /// [`Code::NameInvalid`] unless both names are made of letters, digits, dots, dashes and underscores, and begin with no dot.
    pub fn new(host: Host, owner: &str, name: &str, lua: Option<String>) -> Result<Self> {
        for text in [owner, name] {
            let plain = text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
            if text.is_empty() || text.len() > 100 || text.starts_with(['.', '-']) || !plain {
                return Err(Error::new(Code::NameInvalid, format!("\"{}\" cannot name a session's directory", text.escape_debug())));
            }
        }
        let (owner, name) = (owner.to_owned(), name.to_owned());
        Ok(Self(Arc::new(Place {
            host,
            owner,
            name,
            lua,
            seen: Mutex::default(),
            ready: enter::Kept::default(),
            inputs: Mutex::default(),
        })))
    }

    /// The host it is on.
    pub fn host(&self) -> &Host {
        &self.0.host
    }

    /// What the last look has shown.
    pub fn last_seen(&self) -> Option<Seen> {
        self.0.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Looks at the host. A life whose processes are gone, or that is of another boot, is recorded as over there. A session that is opened soon after begins
    /// sooner.
    ///
    /// # Errors
    /// [`Code::DriverUnreachable`]; [`Code::DriverFailed`] when the host has no shell we can speak to.
    pub async fn look(&self) -> Result<Seen> {
        self.look_and(enter::Then::Wait).await
    }

    /// The same where a session is about to be opened: what it needs is started already, and ends again when nothing comes of that within a second.
    ///
    /// # Errors
    /// As [`Self::look`].
    pub async fn prepare(&self) -> Result<Seen> {
        self.look_and(enter::Then::Start).await
    }

    async fn look_and(&self, then: enter::Then<'_>) -> Result<Seen> {
        let connection = self.0.host.connection().await?;
        let (seen, ready) = enter::enter(&connection, &self.0, then).await?;
        self.0.ready.keep(ready);
        Ok(seen)
    }

    /// A look after which nothing is begun.
    async fn look_through(&self, connection: &Connection) -> Result<Seen> {
        let (seen, ready) = enter::enter(connection, &self.0, enter::Then::Wait).await?;
        if let Some(ready) = ready {
            ready.close().await;
        }
        Ok(seen)
    }

    /// What is known, if it tells of that life: that it is there, or would be the next one.
    async fn looked(&self, connection: &Connection, life: u64) -> Result<Seen> {
        match self.last_seen().filter(|seen| (seen.life >= life || life == seen.next_life()) && seen.lua.is_some()) {
            Some(seen) => Ok(seen),
            None => self.look_through(connection).await,
        }
    }

    /// Opens a life of the session from a stream offset on. One that has not begun begins with its first command.
    ///
    /// # Errors
    /// [`Code::SessionEnded`] when that life is over and nothing of it is left; [`Code::WireMalformed`] for an offset that is none;
    /// [`Code::GuestNoLua`]; [`Code::DriverUnreachable`].
    pub async fn open(&self, life: u64, from: Offset) -> Result<SessionLink> {
        let connection = self.0.host.connection().await?;
        let seen = self.looked(&connection, life).await?;
        if life > seen.life {
            if life != seen.next_life() || from > 0 {
                return Err(over());
            }
            if seen.lua.is_none() {
                return Err(no_lua(&connection));
            }
            return Ok(pump::lazy(self.clone(), life));
        }
        match self.attach(&connection, &seen, life, from).await? {
            Some(link) => Ok(link),
            None => Err(over()),
        }
    }

    /// Makes the life if it is not there, and attaches to it. The first command may be sent along; whether it was is told.
    async fn begin(&self, life: u64, first: Option<&link::Order>) -> Result<(attach::Attached, bool)> {
        let connection = self.0.host.connection().await?;
        let seen = self.looked(&connection, 0).await?;
        let lua = seen.lua.clone().ok_or_else(|| no_lua(&connection))?;
        let dir = format!("{}/{life}", seen.base);
        // `…/vmoon/guest/OWNER/NAME` is beside `…/vmoon/packages`.
        let tree = |used: &Used| Some(format!("{}/packages/trees/{}", seen.base.rsplitn(4, '/').nth(3)?, used.key));
        let newest = seen.environments.last().and_then(|used| Some((tree(used)?, &used.environment.lua)));
        let modules = newest.and_then(|(tree, lua)| program::Modules::of_tree(&tree, lua, true).ok());
        let options = program::Options { modules, ..program::Options::default() };
        let mut program = format!("{}\n{GUEST}", GUEST.len()).into_bytes();
        program.extend_from_slice(&program::preamble(&format!("{dir}/int"), &options));
        program.extend_from_slice(b"END\n");
        let told = enter::Told { program: &program, first: enter::fit(first) };
        let ready = match self.0.ready.take(&connection, &seen, life) {
            Some(ready) => Some(ready.tell(&told).await?),
            None => {
                let (seen, ready) = enter::enter(&connection, &self.0, enter::Then::Begin(&told)).await?;
                if seen.next_life() != life {
                    return Err(over());
                }
                ready
            }
        };
        let attached = match ready {
            Some(ready) => match ready.attach(&dir).await {
                Ok(attached) => (attached.ok_or_else(over)?, told.first.is_some()),
                // Whether it never began is known only where it did not.
                Err(error) if !connection.is_closed() && self.look_through(&connection).await?.next_life() == life => {
                    let message = format!("{} could not begin a session in {dir}", connection.name());
                    return Err(Error::new(Code::DriverFailed, message)
                        .source(error)
                        .hint("the interpreter must be one of Lua, and the directory writable, on a file system with FIFOs and room"));
                }
                Err(error) => return Err(error),
            },
            // It was begun by an attempt whose answer was lost.
            None => {
                let attached = attach::attach(&connection, &dir, &lua, 0).await?;
                (attached.ok_or_else(|| Error::new(Code::DriverFailed, format!("{dir} is gone again")))?, false)
            }
        };
        if let Some(seen) = self.0.seen.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            (seen.life, seen.lives) = (life, true);
        }
        Ok(attached)
    }

    async fn attach(&self, connection: &Connection, seen: &Seen, life: u64, from: Offset) -> Result<Option<SessionLink>> {
        let lua = seen.lua.as_deref().ok_or_else(|| no_lua(connection))?;
        let dir = format!("{}/{life}", seen.base);
        Ok(attach::attach(connection, &dir, lua, from).await?.map(|attached| pump::running(self.clone(), life, from, attached)))
    }

    /// Ends a life by force, if it is there.
    ///
    /// # Errors
    /// As of programs that are run on the host.
    pub async fn kill(&self, life: u64) -> Result<()> {
        let connection = self.0.host.connection().await?;
        let seen = self.look_through(&connection).await?;
        if seen.life != life || !seen.lives {
            return Ok(());
        }
        let line = script(KILL, &[&format!("{}/{life}", seen.base)]);
        connection.run(&line, b"", SCRIPT).await?;
        self.look_through(&connection).await.map(drop)
    }
}

/// That nothing more is to be heard of a life.
fn over() -> Error {
    Error::new(Code::SessionEnded, "that life of the session is over")
}

/// Ends a session by force and waits until its shell has noted that: the FIFO has no reader any more then.
const KILL: &str = "cd \"$1\" || exit 1\nread -r lua group own start <pid || exit 1\necho killed >why\nkill -s KILL $lua\n\
    n=0\nwhile [ ! -e exit ] && kill -0 $group 2>/dev/null && [ $n -lt 100000 ]; do n=$((n + 1)); done\n";

/// A program without what only people read: comments on lines of their own and indentation. None of those that are sent has a string of several lines
/// where that would matter.
fn lean(text: &str) -> String {
    let lines = text.lines().map(str::trim_start).filter(|line| !line.is_empty() && !line.starts_with('#') && !line.starts_with("--"));
    lines.collect::<Vec<_>>().join("\n")
}

/// A script as one line for the login shell, run by `sh` whatever that is.
pub(crate) fn script(text: &str, arguments: &[&str]) -> String {
    let mut argv = vec!["exec", "sh", "-c", text, "vmoon"];
    argv.extend(arguments);
    quote::line(&argv)
}

pub(crate) fn no_lua(connection: &Connection) -> Error {
    Error::new(Code::GuestNoLua, format!("{} has no Lua interpreter (lua5.4, lua, lua5.3, lua5.2, lua5.1, luajit)", connection.name()))
        .hint("install one there (Debian: apt install lua5.4), or use a shell session: vmoon attach HOST/shell")
}

fn strange(connection: &Connection, stdout: &[u8], stderr: &[u8]) -> Error {
    let show = |bytes: &[u8]| bytes[..bytes.len().min(200)].escape_ascii().to_string();
    Error::new(
        Code::DriverFailed,
        format!("{} has no POSIX shell as we know it: it answered \"{}\" and \"{}\"", connection.name(), show(stdout), show(stderr)),
    )
    .hint("a login script that prints, or an account limited to one command, does this; exec and shell sessions may work all the same")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Dropbear refuses longer ones without a word: its `MAX_CMD_LEN`.
    #[test]
    fn no_line_is_longer_than_a_small_server_takes() {
        let dir = "/".to_owned() + &"d".repeat(300);
        let (lease, from) = ("f".repeat(24), u64::MAX.to_string());
        let follow = lean(FOLLOW);
        let owner = "o".repeat(100);
        let enter = script(&lean(ENTER), &[&owner, &owner, &follow, READ, BEGIN, AGAIN, &lease, &dir, "wait"]).len();
        let attach = script(&lean(ATTACH), &[&dir, &lease, &from, &dir, READ, &follow]).len();
        assert!(enter < 9_000 && attach < 9_000, "{enter}, {attach}");
    }
}
