//! How long an interrupt takes: from the frame that asks for it to the end of its command.

use super::{Talk, failed, start_of};
use crate::layout::{MARK, Meta, mark};
use std::{
    ffi::{OsStr, OsString},
    fs,
    io::{self, Read as _},
    os::fd::AsFd as _,
    path::Path,
    time::{Duration, Instant},
};
use vmoon_core::{
    MachineId, Result,
    frame::{Eval, tag},
};
use vmoon_sys::{
    atomic,
    process::{Detached, Identity},
    random, tree,
};

/// What runs before each loop: in the first millisecond of a command an interrupt waits for the I/O thread to take over, and nobody
/// interrupts a command that young.
const WARM: &str = "local t = os.clock() while os.clock() - t < 0.003 do end ";
/// Loops that are hard to stop; each says that it runs before it does.
const LOOPS: [&str; 4] = [
    "io.write('x') io.stdout:flush() while true do end",
    "io.write('x') io.stdout:flush() while true do pcall(function() while true do end end) end",
    "io.write('x') io.stdout:flush() coroutine.wrap(function() while true do end end)()",
    "io.write('x') io.stdout:flush() while true do string.gsub('aaaa', 'a', function(a) return a end) end",
];

/// Starts a holder of the embedded Lua in the empty directory `dir` (which must exist), interrupts `n` endless loops in it, of
/// several shapes in turn, and ends it. The times are those from before the write of the interrupt to after the read of the
/// command's last frame.
///
/// # Errors
/// When the holder cannot be started or does not answer.
pub fn interrupt_latency(exe: &Path, exe_args: &[OsString], dir: &Path, n: usize) -> Result<Vec<Duration>> {
    let id = MachineId::from_uuid(random::uuid());
    atomic::write_json(&dir.join("start.json"), &start_of(id, dir))?;
    let mark = mark(id, 1);
    let (mut ready, writer) = io::pipe().map_err(failed)?;
    let mut args: Vec<&OsStr> = exe_args.iter().map(OsString::as_os_str).collect();
    args.push(dir.as_os_str());
    let pid = Detached { exe, args, env: vec![(MARK, &mark)], stdio: [None, Some(writer.as_fd()), None] }.spawn().map_err(failed)?;
    drop(writer);
    let identity = Identity::of(pid);
    let result = ready.read_exact(&mut [0; 6]).and_then(|()| measure(dir, n));
    if let Some(identity) = identity {
        tree::kill(&identity, None, Duration::from_secs(10)).map_err(failed)?;
        identity.reap();
    }
    result.map_err(failed)
}

fn measure(dir: &Path, n: usize) -> io::Result<Vec<Duration>> {
    let meta: Meta = serde_json::from_slice(&fs::read(dir.join("meta.json"))?)?;
    let mut talk = Talk::begin(dir, &meta.key)?;
    talk.until(tag::HELLO)?;
    let mut times = Vec::with_capacity(n);
    for (id, code) in (1..=n as u64).zip(LOOPS.iter().cycle()) {
        let code = format!("{WARM}{code}");
        talk.send(tag::EVAL, id, &Eval { deadline_ms: 0, token: b"", code: code.as_bytes() }.to_vec())?;
        talk.until(tag::STDOUT)?;
        let begun = Instant::now();
        talk.send(tag::INTERRUPT, id, b"")?;
        talk.until(tag::DONE)?;
        times.push(begun.elapsed());
        talk.send(tag::ACK, 0, &talk.at.to_le_bytes())?;
    }
    Ok(times)
}
