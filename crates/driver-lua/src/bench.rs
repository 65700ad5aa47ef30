//! The figure below which no evaluation can fall: a round trip on a holder's own socket, measured from a blocking client.

use crate::layout::{Meta, Start};
use crate::{host::store::Overflow, layout::MARK, settings::BUILTIN};
use rustix::fs::{Mode, OFlags};
use std::{
    ffi::{OsStr, OsString},
    fs,
    io::{self, Read as _, Write as _},
    os::{
        fd::{AsFd as _, AsRawFd as _},
        unix::net::UnixStream,
    },
    path::Path,
    time::{Duration, Instant},
};
use vmoon_core::{
    Error, MachineId, Result,
    frame::{Eval, Frame, tag},
};
use vmoon_lua_wire::hello::ClientHello;
use vmoon_sys::{
    atomic,
    process::{Detached, Identity},
    random, tree,
};

/// Starts a holder in the empty directory `dir` (which must exist), evaluates `1` in it `n` times and ends it. The times are
/// those from before the write to after the read of the last frame, in order.
///
/// # Errors
/// When the holder cannot be started or does not answer.
pub fn host_roundtrip(exe: &Path, exe_args: &[OsString], dir: &Path, n: usize) -> Result<Vec<Duration>> {
    let id = MachineId::from_uuid(random::uuid());
    let start = Start {
        machine: id,
        life: 1,
        work: dir.to_owned(),
        runtime: BUILTIN.into(),
        overflow: Overflow::Wait,
        ring: 1 << 20,
        spill: 0,
        memory: None,
        grace_ms: 1000,
        lua: Default::default(),
    };
    atomic::write_json(&dir.join("start.json"), &start)?;
    let mark = crate::layout::mark(id, 1);
    let failed = |error: io::Error| Error::io("measure a holder", error);
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
    let fd = rustix::fs::open(dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let mut socket = UnixStream::connect(format!("/proc/self/fd/{}/sock", fd.as_raw_fd()))?;
    socket.write_all(&Frame { tag: tag::HELLO, id: 0, payload: &ClientHello::new(meta.key, 0).to_vec() }.to_vec())?;
    let mut inbox = Vec::new();
    let mut buffer = vec![0; 64 << 10];
    let mut at = 0;
    let mut until = |socket: &mut UnixStream, last: u8| -> io::Result<u64> {
        loop {
            let n = socket.read(&mut buffer)?;
            if n == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            inbox.extend_from_slice(&buffer[..n]);
            while let Ok(Some((frame, n))) = Frame::decode(&inbox) {
                at += frame.stream_len();
                let done = frame.tag == last;
                inbox.drain(..n);
                if done {
                    return Ok(at);
                }
            }
        }
    };
    until(&mut socket, tag::HELLO)?;
    let payload = Eval { deadline_ms: 0, token: b"", code: b"1" }.to_vec();
    let mut request = Vec::new();
    let mut times = Vec::with_capacity(n);
    for id in 1..=n as u64 {
        request.clear();
        Frame { tag: tag::EVAL, id, payload: &payload }.encode(&mut request);
        let begun = Instant::now();
        socket.write_all(&request)?;
        let at = until(&mut socket, tag::DONE)?;
        times.push(begun.elapsed());
        if id % 1000 == 0 {
            socket.write_all(&Frame { tag: tag::ACK, id: 0, payload: &at.to_le_bytes() }.to_vec())?;
        }
    }
    Ok(times)
}
