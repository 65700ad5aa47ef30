//! Sessions on a terminal.

use crate::{home::Home, terminal::Terminal};

const DETACH: &[u8] = b"\x1dd";

fn lab() -> Home {
    let home = Home::new();
    home.ok(["create", "lab", "--start"]);
    home
}

fn attached(home: &Home) -> Terminal {
    let mut terminal = Terminal::start(home.command(["attach", "lab"]));
    terminal.expect("attached to lab");
    terminal.prompt();
    terminal
}

#[test]
fn a_person_types_completes_and_detaches() {
    let home = lab();
    let mut terminal = attached(&home);
    terminal.line("x = 'va' .. 'lue'; return x");
    terminal.expect("\nvalue\n");
    terminal.prompt();
    // Several lines until the chunk is complete.
    terminal.line("for i = 1, 2 do");
    terminal.expect(">> ");
    terminal.line("print('row', i) end");
    terminal.expect("\nrow\t1\nrow\t2\n");
    terminal.prompt();
    // The name and its field come from the running machine.
    terminal.line("uncommon = { very_long_field = 'fou' .. 'nd' }");
    terminal.prompt();
    terminal.send("return uncom\t");
    terminal.expect("uncommon");
    terminal.send(".ver\t");
    terminal.expect("very_long_field");
    terminal.send("\r");
    terminal.expect("\nfound\n");
    terminal.prompt();
    terminal.line("error('bad' .. '!')");
    terminal.expect("bad!\nstack traceback");
    terminal.prompt();
    terminal.send(DETACH);
    let before = terminal.expect("detached; lab keeps running · vmoon attach lab");
    assert!(before.trim_matches(['>', ' ', '\n']).is_empty(), "{before:?}");
    assert!(terminal.wait().success());

    // What was typed is history, for this user only.
    let mut terminal = attached(&home);
    terminal.send("\x1b[A");
    terminal.expect("error('bad' .. '!')");
    terminal.send("\x03");
    terminal.prompt();
    terminal.line("return x");
    terminal.expect("\nvalue\n");
    terminal.prompt();
    terminal.send("\x04");
    terminal.expect("detached");
    assert!(terminal.wait().success());
    let folder = home.path().join("state/vmoon/history");
    for entry in std::fs::read_dir(folder).unwrap() {
        let mode = std::os::unix::fs::PermissionsExt::mode(&entry.unwrap().metadata().unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600);
    }
}

#[test]
fn ctrl_c_interrupts_a_chunk_and_the_state_stays() {
    let home = lab();
    let mut terminal = attached(&home);
    terminal.line("kept = 'sti' .. 'll here'; print('go' .. 'ing'); while true do end");
    terminal.expect("\ngoing\n");
    terminal.send("\x03");
    terminal.expect("interrupted");
    terminal.prompt();
    terminal.line("return kept");
    terminal.expect("\nstill here\n");
    terminal.prompt();
    // Detached while it runs, and found running again.
    terminal.line("print('agai' .. 'n'); while true do end");
    terminal.expect("\nagain\n");
    terminal.send(DETACH);
    terminal.expect("detached; lab keeps running");
    assert!(terminal.wait().success());
    let mut terminal = Terminal::start(home.command(["attach", "lab"]));
    terminal.expect("is still running");
    terminal.send("\x03");
    terminal.expect("interrupted");
    terminal.prompt();
    // What is typed while something runs is not lost.
    terminal.line("print('wai' .. 'ting'); io.read()");
    terminal.expect("\nwaiting\n");
    terminal.line("answer");
    terminal.prompt();
    terminal.send(DETACH);
    assert!(terminal.wait().success());
}

#[test]
fn a_program_reads_lines_and_the_end_of_input() {
    let home = lab();
    let mut terminal = attached(&home);
    terminal.line("io.write('na' .. 'me? '); local n = io.read(); return 'hello ' .. n:upper()");
    terminal.expect("name? ");
    terminal.line("world");
    terminal.expect("hello WORLD\n");
    terminal.prompt();
    terminal.line("print('rea' .. 'd'); return tostring(io.read()) .. '!'");
    terminal.expect("\nread\n");
    terminal.send("\x04");
    terminal.expect("nil!");
    terminal.prompt();
    terminal.line("print('rea' .. 'd again'); io.read()");
    terminal.expect("\nread again\n");
    terminal.send("\x03");
    terminal.expect("interrupted");
    terminal.prompt();
    terminal.line("print('rea' .. 'd a third time'); io.read()");
    terminal.expect("\nread a third time\n");
    terminal.send(DETACH);
    terminal.expect("detached");
    assert!(terminal.wait().success());
}

#[test]
fn the_end_of_input_may_be_typed_before_the_program_asks() {
    let home = lab();
    let mut terminal = attached(&home);
    for round in 0..20 {
        // In one write: the key arrives before, while or after the terminal changes its mode.
        terminal.send(format!("io.write(''); return tostring(io.read()) .. '{round}!'\r\x04"));
        terminal.expect(&format!("\nnil{round}!\n"));
        terminal.prompt();
    }
    terminal.send("return io.read() .. tostring(io.read())\rfirst\r\x04");
    terminal.expect("\nfirstnil\n");
    terminal.prompt();
    terminal.send(DETACH);
    assert!(terminal.wait().success());
}

#[test]
fn watchers_see_everything_and_only_one_writes() {
    let home = lab();
    let mut writer = attached(&home);
    let mut watcher = Terminal::start(home.command(["attach", "lab", "--read-only"]));
    watcher.expect("attached to lab");
    let refused = home.vmoon(["attach", "lab"], b"return 1");
    assert_eq!(refused.status.code(), Some(4), "{refused:?}");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("--read-only"), "{refused:?}");

    writer.line("print('se' .. 'en') error('to' .. 'o')");
    writer.expect("\nseen\n");
    writer.prompt();
    watcher.expect("> print('se' .. 'en') error('to' .. 'o')");
    watcher.expect("\nseen\n");
    watcher.expect("too\n");

    // Somebody else evaluates: the line being typed stays.
    writer.send("return 'ty' ..");
    writer.expect("return 'ty' ..");
    assert_eq!(home.ok(["eval", "lab", "print('from outside') return 6 * 7"]), "from outside\n42\n");
    writer.expect("[other] > print('from outside') return 6 * 7\nfrom outside\n42\n");
    writer.expect("return 'ty' ..");
    writer.line(" 'ped'");
    writer.expect("\ntyped\n");
    watcher.expect("\ntyped\n");
    watcher.send("\x03");
    watcher.expect("not watching lab any more");
    assert!(watcher.wait().success());
    writer.prompt();
    writer.send(DETACH);
    assert!(writer.wait().success());
}

#[test]
fn a_killed_daemon_is_not_noticed_in_the_output() {
    let home = lab();
    let mut terminal = attached(&home);
    terminal.line("for i = 1, 3 do print('part ' .. i) io.read() end return 'do' .. 'ne'");
    terminal.expect("\npart 1\n");
    let kill = |pid| rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), rustix::process::Signal::KILL).unwrap();
    kill(home.daemon());
    terminal.expect("attached again, nothing is lost");
    terminal.line("");
    let between = terminal.expect("\npart 2\n");
    assert!(!between.contains("part 1"), "output was repeated: {between}");
    terminal.line("");
    terminal.expect("part 3\n");
    terminal.line("");
    terminal.expect("done\n");
    terminal.prompt();
    kill(home.daemon());
    terminal.expect("attached again");
    terminal.line("return 'aft' .. 'er'");
    terminal.expect("\nafter\n");
    terminal.prompt();
    terminal.send(DETACH);
    assert!(terminal.wait().success());
}

#[test]
fn the_end_of_a_session_says_why() {
    let home = lab();
    let mut terminal = attached(&home);
    terminal.line("os.exit(3)");
    terminal.expect("lab has ended: exit code 3");
    assert_eq!(terminal.wait().code(), Some(1));
    home.ok(["start", "lab"]);
    let terminal_of_zero = {
        let mut terminal = attached(&home);
        terminal.line("os.exit()");
        terminal.expect("lab has ended: exit code 0");
        terminal
    };
    assert_eq!(terminal_of_zero.wait().code(), Some(0));
    home.ok(["start", "lab"]);
    let mut terminal = attached(&home);
    home.ok(["kill", "lab"]);
    terminal.expect("lab has ended: killed");
    assert_eq!(terminal.wait().code(), Some(1));
}

#[test]
fn a_pipe_is_evaluated_chunk_by_chunk_until_one_fails() {
    let home = lab();
    let output =
        home.vmoon(["attach", "lab"], b"#!/x\nx = 5\nfor i = 1, 2 do\n  print(i)\nend\nreturn x, { x }\nprint(io.read())\na line\n");
    assert!(output.status.success(), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "1\n2\n5\t{ 5 }\na line\n");
    let output = home.vmoon(["attach", "lab"], b"print(1)\nerror('stop')\nprint(2)\n");
    assert_eq!((output.status.code(), &*output.stdout), (Some(1), &b"1\n"[..]), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("stop"), "{output:?}");
    let output = home.vmoon(["attach", "lab"], b"for i = 1, 2 do");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let replay = home.vmoon(["attach", "none"], b"");
    assert_eq!(replay.status.code(), Some(3), "{replay:?}");
}

#[test]
fn a_temporary_session_is_gone_when_it_is_left() {
    let home = Home::new();
    let mut terminal = Terminal::start(home.command(["run"]));
    terminal.expect("attached to tmp-");
    terminal.prompt();
    assert!(!terminal.echoes(), "the editor shows what is typed, not the terminal");
    terminal.line("return 'temp' .. 'orary'");
    terminal.expect("\ntemporary\n");
    terminal.prompt();
    terminal.send(DETACH);
    assert!(terminal.wait().success());
    assert_eq!(home.ok(["list", "-o", "json"]).trim(), "[]");

    let mut terminal = Terminal::start(home.command(["run"]));
    let name = {
        terminal.expect("attached to ");
        terminal.prompt();
        let list: serde_json::Value = serde_json::from_str(&home.ok(["list", "-o", "json"])).unwrap();
        list[0]["name"].as_str().unwrap().to_owned()
    };
    assert!(!terminal.close().success());
    // Its terminal has died: the daemon sees to it.
    let output = home.vmoon(["wait", &name, "--until", "gone", "--timeout", "30s"], b"");
    assert!(matches!(output.status.code(), Some(0 | 3)), "{output:?}");
    assert_eq!(home.ok(["list", "-o", "json"]).trim(), "[]");
}
