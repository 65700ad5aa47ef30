//! The zygote as a real process: what it forks, who finds it, who dies first.

use crate::{
    client::{Client, HOST},
    death::{World, kill},
};
use rustix::net::SocketType;
use std::{
    collections::HashSet,
    fs,
    os::fd::AsFd as _,
    path::{Path, PathBuf},
    time::Duration,
};
use vmoon_core::{
    MachineId,
    driver::{Driver as _, Exit, Handle, Observed, StopMode},
};
use vmoon_driver_lua::{LuaConfig, LuaDriver};
use vmoon_sys::{
    atomic,
    passing::{self, Received},
    process::{Identity, Pidfd, boot_id},
};

const PATIENCE: Duration = Duration::from_secs(20);

/// The zygote that has forked the holder of a life; `None` if it was started as a program.
fn parent(life: &Path) -> Option<Identity> {
    let meta: serde_json::Value = atomic::read_json(&life.join("meta.json")).unwrap().unwrap();
    serde_json::from_value(meta["zygote"]["process"].clone()).ok()
}

fn driver(world: &World) -> LuaDriver {
    LuaDriver::new(LuaConfig { state: world.dir.path().to_owned(), host_exe: HOST.into(), host_args: vec![], environments: None })
}

async fn started(world: &World) -> (MachineId, Handle, PathBuf) {
    let (id, handle) = world.machine(serde_json::json!({})).await;
    world.driver.start(&handle).await.unwrap();
    let life = world.life(id, 1);
    (id, handle, life)
}

fn sockets(world: &World) -> Vec<PathBuf> {
    let entries = fs::read_dir(world.dir.path().join("run").join(boot_id())).unwrap().flatten().map(|entry| entry.path());
    entries.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("zygote-")).collect()
}

fn field(pid: i32, name: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap().trim().to_owned()
}

fn ends(process: &Identity) {
    if let Some(fd) = Pidfd::open(process).unwrap() {
        assert!(fd.wait(PATIENCE).unwrap(), "{process:?} does not end");
    }
}

/// Some are forked, some are spares that had waited a while or none yet: whoever it is, it shows whose it is before anybody else can look.
#[tokio::test]
async fn whoever_becomes_a_machine_shows_whose_it_is() {
    let world = World::new();
    for at in 0..200 {
        // A spare has made its files for the usual ring.
        let ring = if at % 5 == 4 { 512 << 10 } else { 1 << 20 };
        let (id, handle) = world.machine(serde_json::json!({ "ring": ring })).await;
        world.driver.start(&handle).await.unwrap();
        let life = world.life(id, 1);
        let size = |name: &str| fs::metadata(life.join(name)).unwrap().len();
        assert_eq!((size("ring"), size("spill")), (ring + (16 << 10), 0), "machine {at}");
        let (process, mark) = (world.process(id, 1), format!("{id}/1"));
        let args = fs::read_to_string(format!("/proc/{}/cmdline", process.pid)).unwrap();
        assert!(args.starts_with(&format!("vmoon\0lua-host\0{mark}\0")), "machine {at}: {args:?}");
        let environ = fs::read_to_string(format!("/proc/{}/environ", process.pid)).unwrap();
        assert!(environ.split('\0').any(|entry| entry == format!("VMOON_LIFE={mark}")), "machine {at}: {environ:?}");
        // What is done meanwhile takes longer or not at all, so the next one finds spares ready, just begun, or none.
        if at % 3 == 0 {
            assert_eq!(Client::at_path(&life, 0).value("6 * 7"), "42");
        }
        if at % 2 == 0 {
            world.driver.stop(&handle, StopMode::Force).await.unwrap();
        }
    }
}

/// The spares of a zygote that wait already: they are confined then, but in the profile `trusted`.
fn waiting(zygote: &Identity, confined: bool) -> Vec<i32> {
    let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", zygote.pid)).unwrap();
    let all = children.split_whitespace().map(|pid| pid.parse().unwrap());
    let is_spare = |pid: i32| {
        let args = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        args.contains("\0spare\0") && (!confined || status.contains("Seccomp:\t2")) && status.contains("State:\tS")
    };
    all.filter(|pid| is_spare(*pid)).collect()
}

/// A machine that was forked and one that a spare has become cannot be told apart, whatever their shape, and know their own directories only.
#[tokio::test]
async fn a_spare_is_held_as_one_that_is_forked() {
    let data = tempfile::tempdir().unwrap();
    fs::write(data.path().join("given"), "given").unwrap();
    let data = data.path().to_str().unwrap();
    for settings in [
        serde_json::json!({ "profile": "files" }),
        serde_json::json!({ "profile": "sealed" }),
        serde_json::json!({ "profile": "files", "read": [data], "memory": 64 << 20, "cpu": 50, "file-size": 1 << 20 }),
        serde_json::json!({ "profile": "sealed", "write": [data], "without": ["rlimits"] }),
        serde_json::json!({ "profile": "trusted" }),
        serde_json::json!({ "profile": "files", "without": ["landlock", "lua"] }),
    ] {
        let world = World::new();
        let (mut all, mut spares) = (Vec::new(), Vec::new());
        for at in 0..3 {
            let (id, handle) = world.machine(settings.clone()).await;
            world.driver.start(&handle).await.unwrap();
            let (life, process) = (world.life(id, 1), world.process(id, 1));
            // The first is of a shape that nobody has wanted before.
            assert_eq!(spares.contains(&process.pid), at > 0, "{settings} {at}");
            let zygote = parent(&life).expect("it was not forked");
            let (confined, until) = (settings["profile"] != "trusted", std::time::Instant::now() + PATIENCE);
            while waiting(&zygote, confined).len() < 4 {
                assert!(std::time::Instant::now() < until, "no spares");
                tokio::task::yield_now().await;
            }
            spares = waiting(&zygote, confined);
            // With its first command, or before, it has all its threads, and when it has waited for another one all its descriptors.
            let mut client = Client::at_path(&life, 0);
            assert_eq!((client.value("1"), client.value("2")), ("1".into(), "2".into()));
            let meta: serde_json::Value = atomic::read_json(&life.join("meta.json")).unwrap().unwrap();
            let limits = fs::read_to_string(format!("/proc/{}/limits", process.pid)).unwrap();
            // That of descriptors counts from how many are open then.
            let (files, limits): (Vec<&str>, Vec<&str>) = limits.lines().partition(|line| line.starts_with("Max open files"));
            let files: u64 = files[0].split_whitespace().nth(3).unwrap().parse().unwrap();
            let free =
                settings["profile"] == "trusted" || settings["without"].as_array().is_some_and(|all| all.contains(&"rlimits".into()));
            assert!(free || (256 + 16..256 + 64).contains(&files), "{settings}: {files} descriptors");
            let status =
                ["NoNewPrivs", "Seccomp", "Seccomp_filters", "CapEff", "CapPrm", "SigBlk", "SigIgn"].map(|name| field(process.pid, name));
            let mut open: Vec<String> = fs::read_dir(format!("/proc/{}/fd", process.pid))
                .unwrap()
                .flatten()
                .map(|entry| fs::read_link(entry.path()).unwrap().to_string_lossy().into_owned())
                .map(|target| target.rsplit('/').next().unwrap().split(['[', '#']).next().unwrap().to_owned())
                .map(|target| if ["ring", "spill"].contains(&target.as_str()) { String::new() } else { target })
                .collect();
            open.sort();
            let work = world.dir.path().canonicalize().unwrap().join("lua").join(id.to_string()).join("work");
            let work = work.to_str().unwrap();
            let before = all.last().map_or("/nowhere".to_owned(), |(work, ..): &(String, serde_json::Value)| work.clone());
            let tries = [
                "local f = io.open('mine', 'w') if f then f:write('x') f:close() end return f ~= nil".to_owned(),
                format!("(select(2, io.open('{work}/other', 'w')) or 'opened')"),
                format!("(select(2, io.open('{before}/mine')) or 'opened')"),
                format!("(select(2, io.open('{data}/given')) or 'opened')"),
                format!("(select(2, io.open('{data}/made', 'w')) or 'opened')"),
                "(select(2, io.open('/etc/passwd')) or 'opened')".to_owned(),
                "(select(2, pcall(os.tmpname)))".to_owned(),
                "select(2, pcall(os.execute, 'true'))".to_owned(),
                "os.getenv('HOME')".to_owned(),
                "package.path .. package.cpath".to_owned(),
                "type(debug.getinfo(1).func) .. math.floor(collectgarbage('count') / 64)".to_owned(),
            ];
            let without_names = |answer: String| answer.split("/lua_").next().unwrap().replace(work, "WORK").replace(&before, "BEFORE");
            let answers: Vec<String> = tries.iter().map(|code| without_names(client.value(code))).collect();
            all.push((
                work.to_owned(),
                serde_json::json!({ "layers": meta["layers"], "limits": limits, "status": status, "open": open, "answers": answers }),
            ));
        }
        let [(_, first), (_, second), (_, third)] = all.try_into().unwrap();
        assert_eq!(second, third, "{settings}");
        let mut first = first;
        // Nobody was before it.
        first["answers"][2] = second["answers"][2].clone();
        assert_eq!(first, second, "{settings}");
        let held = |at: usize, word: &str| second["answers"][at].as_str().unwrap().contains(word);
        let profile = settings["profile"].as_str().unwrap();
        let files_off = settings["without"].as_array().is_some_and(|without| without.contains(&"landlock".into()));
        if profile != "trusted" && !files_off {
            // Another's work directory, and what is nobody's.
            assert!(!held(2, "opened") && !held(5, "opened"), "{settings}: {second}");
        }
        assert_eq!(held(1, "opened"), profile != "sealed", "{settings}: {second}");
    }
}

#[tokio::test]
async fn many_are_forked_and_each_is_its_own() {
    let world = World::new();
    let mut machines = Vec::new();
    for _ in 0..30 {
        machines.push(world.machine(serde_json::json!({ "profile": "trusted" })).await);
    }
    let starts: Vec<_> = machines
        .iter()
        .map(|(_, handle)| {
            let (driver, handle) = (world.driver.clone(), handle.clone());
            tokio::spawn(async move { driver.start(&handle).await })
        })
        .collect();
    for start in starts {
        start.await.unwrap().unwrap();
    }
    let zygote = parent(&world.life(machines[0].0, 1)).expect("it was not forked");
    let mut open: HashSet<String> = HashSet::new();
    let mut orders = HashSet::new();
    let mut numbers = HashSet::new();
    for (id, _) in &machines {
        let (life, process) = (world.life(*id, 1), world.process(*id, 1));
        assert_eq!(parent(&life).as_ref(), Some(&zygote));
        assert_eq!(field(process.pid, "PPid"), zygote.pid.to_string());
        let session = fs::read_to_string(format!("/proc/{}/stat", process.pid)).unwrap();
        assert_eq!(session.rsplit(')').next().unwrap().split_whitespace().nth(3), Some(process.pid.to_string().as_str()), "its session");
        // What it shows: its own arguments and its own mark.
        let mark = format!("{id}/1");
        let args = fs::read_to_string(format!("/proc/{}/cmdline", process.pid)).unwrap();
        assert!(args.starts_with(&format!("vmoon\0lua-host\0{mark}\0")), "{args:?}");
        let environ = fs::read_to_string(format!("/proc/{}/environ", process.pid)).unwrap();
        assert!(environ.split('\0').any(|entry| entry == format!("VMOON_LIFE={mark}")), "{environ:?}");
        assert_eq!(field(process.pid, "SigBlk"), "0000000000000000");
        // No descriptor of one is a descriptor of another.
        let mut own = HashSet::new();
        for entry in fs::read_dir(format!("/proc/{}/fd", process.pid)).unwrap().flatten() {
            let target = fs::read_link(entry.path()).unwrap().to_string_lossy().into_owned();
            let private =
                target.starts_with("socket:") || target.starts_with("pipe:") || target.starts_with(world.dir.path().to_str().unwrap());
            assert!(!open.contains(&target), "{target} is open in two machines");
            assert!(private || target == "/dev/null" || target.starts_with("anon_inode:["), "{target}");
            if private {
                own.insert(target);
            }
        }
        open.extend(own);
        // The seeds differ, although all were made in the same second from the same memory.
        let mut client = Client::at_path(&life, 0);
        numbers.insert(client.value("math.random()"));
        // Names of some length: each byte brings two more bits of the seed down to those that order a table of this size; short ones show a dozen
        // bits only, of which two among thirty machines are equal once in twenty runs.
        let order = "local t, s = {}, {} for i = 1, 64 do t['a name that is not short ' .. i] = i end for k in pairs(t) do s[#s + 1] = t[k] end \
            return table.concat(s, ',')";
        orders.insert(client.value(order));
        assert_eq!(client.value("os.getenv('VMOON_LIFE')"), mark);
        client.run("os.execute('setsid sleep 1000 &')");
    }
    for entry in fs::read_dir(format!("/proc/{}/fd", zygote.pid)).unwrap().flatten() {
        let target = fs::read_link(entry.path()).unwrap().to_string_lossy().into_owned();
        assert!(!open.contains(&target), "{target} is open in the zygote and in a machine");
    }
    assert_eq!(numbers.len(), 30, "seeds are equal");
    // Lua 5.1 hashes without a seed; tables of LuaJIT are in the order of numbers that strings have, whose hashes are seeded by itself.
    assert!(crate::OLD || orders.len() == 30, "{} seeds of hashes", orders.len());
    for (id, handle) in &machines {
        let process = world.process(*id, 1);
        assert!(vmoon_sys::tree::count(&process, None) >= 1);
        world.driver.stop(handle, StopMode::Force).await.unwrap();
        assert_eq!((world.off(handle).await, vmoon_sys::tree::count(&process, None)), (Some(Exit::Killed), 0));
    }
    assert!(zygote.is_alive(), "it was taken for one of its children");
}

#[tokio::test]
async fn whoever_comes_at_once_finds_one_zygote() {
    let world = World::new();
    let mut starts = Vec::new();
    for _ in 0..8 {
        let (id, handle) = world.machine(serde_json::json!({})).await;
        let driver = driver(&world);
        starts.push((id, tokio::spawn(async move { driver.start(&handle).await.map(|()| driver) })));
    }
    let mut zygotes = HashSet::new();
    let mut drivers = Vec::new();
    for (id, start) in starts {
        drivers.push(start.await.unwrap().unwrap());
        zygotes.insert(parent(&world.life(id, 1)).unwrap());
    }
    assert_eq!((zygotes.len(), sockets(&world).len()), (1, 1));
}

#[tokio::test]
async fn how_a_holder_died_is_known_to_a_daemon_that_was_away() {
    let mut world = World::new();
    let (a, first, life) = started(&world).await;
    let (b, second, _) = started(&world).await;
    let (_, third, quits) = started(&world).await;
    let zygote = parent(&life).unwrap();
    // The driver is gone; the machines are not.
    world.driver = driver(&world);
    kill(&world.process(a, 1));
    let fd = Pidfd::open(&world.process(b, 1)).unwrap().unwrap();
    fd.send(rustix::process::Signal::ABORT).unwrap();
    assert!(fd.wait(PATIENCE).unwrap());
    Client::at_path(&quits, 0).eval("os.exit(3)");
    ends(&{
        let meta: serde_json::Value = atomic::read_json(&quits.join("meta.json")).unwrap().unwrap();
        serde_json::from_value(meta["process"].clone()).unwrap()
    });
    assert_eq!(world.off(&first).await, Some(Exit::Signal { signal: 9 }));
    assert_eq!(world.off(&second).await, Some(Exit::Signal { signal: 6 }));
    assert_eq!(world.off(&third).await, Some(Exit::Code { code: 3 }));
    // Nobody needs it any more.
    ends(&zygote);
    assert_eq!(sockets(&world), [] as [PathBuf; 0]);
    // And who needs one again starts another.
    world.driver.start(&first).await.unwrap();
    assert!(parent(&world.life(a, 2)).is_some_and(|other| other != zygote));
}

#[tokio::test]
async fn machines_outlive_their_zygote() {
    let mut world = World::new();
    let (a, handle, life) = started(&world).await;
    let mut client = Client::at_path(&life, 0);
    client.run("kept = 42");
    let at = client.at;
    drop(client);
    let zygote = parent(&life).unwrap();
    kill(&zygote);
    let (_, _, next) = started(&world).await;
    assert!(parent(&next).is_some_and(|other| other != zygote));
    assert_eq!(sockets(&world).len(), 1, "the dead one's socket is in the way");
    // Another daemon adopts it.
    world.driver = driver(&world);
    assert!(matches!(world.driver.observe(&handle).await.observed, Observed::On(_)));
    assert_eq!(Client::at_path(&life, at).value("kept"), "42");
    // Its parent is nobody who would know.
    kill(&world.process(a, 1));
    assert_eq!(world.off(&handle).await, Some(Exit::Lost));
    // A holder that ends by itself says so in its ring.
    let (b, handle, life) = started(&world).await;
    kill(&parent(&life).unwrap());
    let process = world.process(b, 1);
    Client::at_path(&life, 0).eval("os.exit(5)");
    ends(&process);
    assert!(!life.join("exit.json").exists(), "a confined process wrote a file");
    assert_eq!(world.off(&handle).await, Some(Exit::Code { code: 5 }));
}

#[tokio::test]
async fn a_fork_that_fails_says_why() {
    let world = World::new();
    let (_, handle, life) = started(&world).await;
    let zygote = parent(&life).unwrap();
    let (id, broken) = world.machine(serde_json::json!({})).await;
    fs::remove_dir(world.dir.path().join("lua").join(id.to_string()).join("work")).unwrap();
    let error = world.driver.start(&broken).await.unwrap_err();
    assert!(error.to_string().contains("could not enter"), "{error}");
    assert_eq!(world.off(&broken).await, Some(Exit::Code { code: 1 }));
    // What is no request is answered as such, and harms nobody.
    let dir = fs::File::open(world.dir.path().join("run").join(boot_id())).unwrap();
    let name = sockets(&world)[0].file_name().unwrap().to_string_lossy().into_owned();
    let stranger = passing::connect(dir.as_fd(), &name, SocketType::SEQPACKET).unwrap();
    let mut buffer = [0; 1024];
    let mut answer = || match passing::receive(&stranger, &mut buffer, true).unwrap() {
        Received::Message(n, _) => String::from_utf8_lossy(&buffer[..n]).into_owned(),
        other => panic!("{other:?}"),
    };
    assert!(answer().contains("hello"));
    for nonsense in [&b"\0"[..], b"{}", b"{\"fork\":{}}", &[b'['; 60_000]] {
        passing::send(&stranger, nonsense, &[dir.as_fd(), dir.as_fd(), dir.as_fd()], true).unwrap();
        assert!(answer().contains("failed"));
    }
    passing::send(&stranger, b"\"settle\"", &[], true).unwrap();
    assert_eq!(answer(), "\"settled\"");
    drop(stranger);
    assert!(zygote.is_alive() && matches!(world.driver.observe(&handle).await.observed, Observed::On(_)));
    let open = fs::read_dir(format!("/proc/{}/fd", zygote.pid)).unwrap().count();
    assert!(open < 20, "{open} descriptors are open in the zygote");
}

#[tokio::test]
async fn without_a_zygote_a_holder_is_started_as_a_program() {
    let mut world = World::new();
    // A program of which nobody knows how to make it a zygote.
    let args = ["-c", "exec \"$0\" \"$1\"", HOST].map(Into::into).to_vec();
    world.driver =
        LuaDriver::new(LuaConfig { state: world.dir.path().to_owned(), host_exe: "/bin/sh".into(), host_args: args, environments: None });
    let (_, handle, life) = started(&world).await;
    assert_eq!((parent(&life), sockets(&world)), (None, vec![]));
    assert_eq!(Client::at_path(&life, 0).value("1 + 1"), "2");
    world.driver.stop(&handle, StopMode::Force).await.unwrap();
    assert_eq!(world.off(&handle).await, Some(Exit::Killed));
}

#[test]
fn what_it_costs_can_be_measured() {
    let dir = tempfile::tempdir().unwrap();
    let made = vmoon_driver_lua::bench::creation(HOST.as_ref(), &[], dir.path(), 20, 4).unwrap();
    assert_eq!((made.first_frame.len(), made.first_answer.len()), (20, 20));
    assert!(made.per_second > 1.0 && made.first_frame.iter().zip(&made.first_answer).all(|(frame, answer)| frame < answer));
    let cost = vmoon_driver_lua::bench::idle(HOST.as_ref(), &[], dir.path(), 5).unwrap();
    assert!(cost.private > 0 && cost.private <= cost.pss && cost.pss < 4 << 20, "{cost:?}");
    assert!(vmoon_driver_lua::bench::idle("/no/such/program".as_ref(), &[], dir.path(), 1).is_err());
}
