//! A Lua session on a host that outlives the SSH connection, with nothing installed there but `sh`, `mkfifo`, `tail`, `cat` and Lua.
//!
//! A session is a directory on the host with a FIFO for input and an append-only stream for output, and a process below a shell that waits for
//! it (`start.sh`). The process runs the driver program of `vmoon-lua-wire`, the same as in a holder on this computer; `guest.lua` gives it
//! the files in the place of pipes, knows which commands were accepted, and writes the stream in the daemon's frames, so that an
//! offset in the stream is a place in the files. Attaching (`attach.sh`) takes the lease, which makes every older connection's lines void,
//! and runs two small programs: `relay.lua` passes lines on, `follow.lua` sends the stream from an offset on and is woken through a FIFO, because no `tail`
//! that can be relied on wakes without polling.
//!
//! What the deadline of a command and an interrupt that is not obeyed lead to is decided here, while somebody is attached.

mod attach;
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

const LOOK: &str = concat!(include_str!("alive.sh"), include_str!("look.sh"));
const ATTACH: &str = concat!(include_str!("alive.sh"), include_str!("attach.sh"));
/// Begins a life and attaches to it, in one go: each script on the host costs a channel, a login shell and several round trips.
const BEGIN_AND_ATTACH: &str = concat!(include_str!("start.sh"), include_str!("alive.sh"), include_str!("attach.sh"));
const GUEST: &str = include_str!("guest.lua");
const RELAY: &str = include_str!("relay.lua");
/// Reads the program above from standard input: dropbear takes no line of more than 9000 bytes (its `MAX_CMD_LEN`).
const READ: &str = "assert((loadstring or load)(io.read(tonumber((io.read('*l')))),'=[relay]'))()";
/// As an argument of `-e`, which may not begin with a dash, as its comment does.
const FOLLOW: &str = concat!(" ", include_str!("follow.lua"));
/// What the interpreter runs first: the program file says how long the first program is, and contains it.
const BEGIN: &str = "local d=os.getenv('VMOON_DIR') local f=assert(io.open(d..'/prog','rb')) \
    assert((loadstring or load)(f:read(tonumber((f:read('*l')))),'=[vmoon]'))(f,d)";
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
        Ok(Self(Arc::new(Place { host, owner, name, lua, seen: Mutex::default(), inputs: Mutex::default() })))
    }

    /// The host it is on.
    pub fn host(&self) -> &Host {
        &self.0.host
    }

    /// What the last look has shown.
    pub fn last_seen(&self) -> Option<Seen> {
        self.0.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Looks at the host. A life whose processes are gone, or that is of another boot, is recorded as over there.
    ///
    /// # Errors
    /// [`Code::DriverUnreachable`]; [`Code::DriverFailed`] when the host has no shell we can speak to.
    pub async fn look(&self) -> Result<Seen> {
        let connection = self.0.host.connection().await?;
        self.look_through(&connection).await
    }

    async fn look_through(&self, connection: &Connection) -> Result<Seen> {
        let line = script(LOOK, &[&self.0.owner, &self.0.name]);
        let ended = connection.run(&line, b"", SCRIPT).await?;
        let text = String::from_utf8_lossy(&ended.stdout);
        let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).map(str::to_owned);
        let life = field("life").and_then(|life| {
            let (number, how) = life.split_once(' ')?;
            Some((number.parse().ok().filter(|number| *number < 1 << 50)?, how == "lives"))
        });
        let (Some(base), Some(boot), Some((life, lives))) = (field("base").filter(|base| base.starts_with('/')), field("boot"), life)
        else {
            return Err(strange(connection, &ended.stdout, &ended.stderr));
        };
        let lua = self.0.lua.clone().or_else(|| field("lua"));
        let lines = text.lines().filter_map(|line| record::line(line.strip_prefix("env ")?)).take(ENVIRONMENTS);
        let environments = lines.filter(|(is_used, _)| *is_used).map(|(_, used)| used).collect();
        let seen = Seen { base, boot, lua, life, lives, environments };
        *self.0.seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(seen.clone());
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
        let over = || Error::new(Code::SessionEnded, "that life of the session is over");
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

    /// Makes the life if it is not there, and attaches to it.
    async fn begin(&self, life: u64) -> Result<attach::Attached> {
        let connection = self.0.host.connection().await?;
        let seen = self.looked(&connection, 0).await?;
        let lua = seen.lua.clone().ok_or_else(|| no_lua(&connection))?;
        let dir = format!("{}/{life}", seen.base);
        // `…/vmoon/guest/OWNER/NAME` is beside `…/vmoon/packages`.
        let tree = |used: &Used| Some(format!("{}/packages/trees/{}", seen.base.rsplitn(4, '/').nth(3)?, used.key));
        let newest = seen.environments.last().and_then(|used| Some((tree(used)?, &used.environment.lua)));
        let modules = newest.and_then(|(tree, lua)| program::Modules::of_tree(&tree, lua, true).ok());
        let options = program::Options { modules, ..program::Options::default() };
        let mut upload = format!("{}\n{GUEST}", GUEST.len()).into_bytes();
        upload.extend_from_slice(&program::preamble(&format!("{dir}/int"), &options));
        upload.extend_from_slice(b"END\n");
        let life_text = life.to_string();
        let begin = attach::Begin { base: &seen.base, life: &life_text, program: &upload };
        let attached = attach::attach(&connection, &dir, &lua, 0, Some(begin)).await?;
        if let Some(seen) = self.0.seen.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            (seen.life, seen.lives) = (life, true);
        }
        attached.ok_or_else(|| Error::new(Code::DriverFailed, format!("{dir} is gone again")))
    }

    async fn attach(&self, connection: &Connection, seen: &Seen, life: u64, from: Offset) -> Result<Option<SessionLink>> {
        let lua = seen.lua.as_deref().ok_or_else(|| no_lua(connection))?;
        let dir = format!("{}/{life}", seen.base);
        Ok(attach::attach(connection, &dir, lua, from, None).await?.map(|attached| pump::running(self.clone(), life, from, attached)))
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
        let arguments = [&dir, &lease, &from, &dir, READ, &follow, &dir, "1000000", BEGIN, AGAIN, "1000000"];
        let begin = script(&lean(BEGIN_AND_ATTACH), &arguments).len();
        assert!(begin < 9_000 && script(&lean(ATTACH), &arguments).len() < begin, "{begin}");
        assert!(script(LOOK, &["o", "n"]).len() < 9_000);
    }
}
