//! What one-shot programs may do unless they are granted more, in the embedded Lua and in installed ones.

use crate::home::Home;

/// The runtimes of this computer.
fn runtimes() -> Vec<&'static str> {
    let there = |name: &&str| *name == "builtin" || std::process::Command::new(name).arg("-v").output().is_ok();
    ["builtin", "lua5.1", "lua5.3", "lua5.4", "luajit"].into_iter().filter(there).collect()
}

/// Exit code, output and errors of a run in this home.
fn run(home: &Home, args: &[&str]) -> (Option<i32>, String, String) {
    let args: Vec<&str> = ["run"].into_iter().chain(args.iter().copied()).collect();
    let output = home.vmoon(&args, b"from stdin\n");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn a_program_reads_its_own_folder_and_its_input_and_no_more() {
    let home = Home::new();
    std::fs::create_dir(home.path().join("app")).unwrap();
    home.file("app/beside.lua", b"return 'beside'");
    home.file("app/data.txt", b"data");
    home.file("other.txt", b"other");
    home.file(
        "app/p.lua",
        b"print(require 'beside', io.open(arg[1]) ~= nil, io.read()) print(io.open(arg[2])) print(io.open(arg[1], 'w'))
          print(pcall(os.execute, 'true')) print(pcall(io.popen, 'true')) print((loadstring or load)(string.char(27) .. 'Lua'))",
    );
    let at = |name: &str| home.path().join(name).to_string_lossy().into_owned();
    let (program, data, other) = (at("app/p.lua"), at("app/data.txt"), at("other.txt"));
    for runtime in runtimes() {
        // Installed interpreters look for modules where they were started.
        let module = if runtime == "builtin" { String::new() } else { format!("package.path = '{}/?.lua'\n", at("app")) };
        home.file("app/q.lua", format!("{module}dofile('{program}')").as_bytes());
        let (code, stdout, stderr) = run(&home, &["--runtime", runtime, &at("app/q.lua"), &data, &other]);
        let lines: Vec<&str> = stdout.lines().collect();
        assert_eq!((code, lines.len()), (Some(0), 6), "{runtime} {stdout} {stderr}");
        assert_eq!(lines[0], "beside\ttrue\tfrom stdin", "{runtime}");
        assert!(
            lines[1].contains("Permission denied (not granted: profile sealed may read") && lines[1].contains("--read PATH"),
            "{stdout}"
        );
        assert!(lines[2].starts_with("nil\t") && lines[2].contains("--write PATH"), "{stdout}");
        assert!(lines[3..].iter().all(|line| line.contains("--profile trusted")), "{stdout}");

        let (code, stdout, stderr) = run(&home, &["--runtime", runtime, "--read", "other.txt", &at("app/q.lua"), &data, &other]);
        assert_eq!(code, Some(0), "{stderr}");
        assert!(stdout.lines().nth(1).unwrap().starts_with("file ("), "{runtime} {stdout}");
        let (_, stdout, _) = run(&home, &["--runtime", runtime, "--write", "app", &at("app/q.lua"), &data, &other]);
        assert!(stdout.lines().nth(2).unwrap().starts_with("file ("), "{runtime} {stdout}");
        home.file("app/data.txt", b"data");
    }
}

#[test]
fn code_without_a_file_is_granted_nothing_and_trusted_everything() {
    let home = Home::new();
    let other = home.file("other.txt", b"other").to_string_lossy().into_owned();
    for runtime in runtimes() {
        let open = "return (io.open(arg[1])) == nil, os.getenv('HOME')";
        let (code, stdout, stderr) = run(&home, &["--runtime", runtime, "-e", open, &other]);
        assert_eq!((code, stdout.as_str()), (Some(0), "true\tnil\n"), "{runtime} {stderr}");
        let (_, stdout, stderr) = run(&home, &["--runtime", runtime, "--profile", "trusted", "-e", open, &other]);
        assert!(stdout.starts_with("false\t/"), "{runtime} {stdout} {stderr}");
    }
}

#[test]
fn a_folder_that_holds_more_than_the_program_is_not_granted_with_it() {
    let home = Home::new();
    home.file("secret", b"key");
    let program = home.file("p.lua", b"print(io.open(arg[0]) ~= nil, (io.open(arg[1])))").to_string_lossy().into_owned();
    let secret = home.path().join("secret");
    let mut command = home.command(["run", &program, &secret.to_string_lossy()]);
    let output = command.env("HOME", home.path()).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "true\tnil\n", "{output:?}");
}

#[test]
fn limits_end_or_stop_the_program() {
    let home = Home::new();
    let (code, stdout, _) = run(&home, &["--memory", "16M", "-e", "return pcall(string.rep, 'x', 1e9)"]);
    assert_eq!((code, stdout.as_str()), (Some(0), "false\tnot enough memory\n"));
    let output = home.vmoon(["run", "--cpu", "1", "-e", "while true do end"], b"");
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&output.status), Some(24), "SIGXCPU {output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("has used up its processor time (--cpu)"), "{output:?}");
    let other = home.file("other.txt", b"other").to_string_lossy().into_owned();
    let open = "local t = {} while #t < 3000 do local f = io.open(arg[1]) if not f then break end t[#t + 1] = f end return #t";
    let opened = |most: &str| run(&home, &["--open-files", most, "--read", "other.txt", "-e", open, &other]).1.trim().parse::<u32>();
    // What the process has open itself does not count.
    assert_eq!(opened("9").unwrap() + 100, opened("109").unwrap());
    assert!((16..=20).contains(&opened("16").unwrap()), "{:?}", opened("16"));
}

#[test]
fn what_makes_no_sense_is_refused_before_anything_runs() {
    let home = Home::new();
    for (args, message) in [
        (&["--profile", "root", "-e", "print(1)"][..], "--profile: must be one of sealed, files, net, trusted"),
        (&["--read", "/no/such/place", "-e", "print(1)"], "--read: /no/such/place does not exist"),
        (&["--read", "/", "-e", "print(1)"], "--read: granting / grants everything"),
        (&["--read", "/proc", "-e", "print(1)"], "--read: /proc cannot be granted"),
        (&["--net", "nonsense", "-e", "print(1)"], "--net: nonsense is not HOST:PORT"),
        (&["-e", "print(1)", "--net", "example.org"], "--net: example.org is not HOST:PORT"),
        (&["--profile", "trusted", "--read", "/usr", "-e", "print(1)"], "trusted"),
        (&["--net", "localhost:1", "--runtime", "lua5.4", "-e", "print(1)"], "builtin"),
        (&["--command-time", "5s", "-e", "print(1)"], "--command-time"),
    ] {
        let (code, stdout, stderr) = run(&home, args);
        assert_eq!((code, stdout.as_str()), (Some(2), ""), "{args:?} {stderr}");
        assert!(stderr.contains(message), "{args:?} {stderr}");
        assert!(!stderr.contains("needs the hosts"), "hosts were named: {stderr}");
    }
}
