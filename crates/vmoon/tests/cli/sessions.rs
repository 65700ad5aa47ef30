//! Sessions from the command line: commands and their ids, input, interrupts, transcripts, events.

use crate::home::Home;
use serde_json::Value;
use std::io::{BufRead as _, BufReader, Read as _};

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON line: {line}"))).collect()
}

#[test]
fn a_command_that_is_not_waited_for_is_found_by_its_id() {
    let home = Home::new();
    home.run(&["create", "lab", "--start"]).ok();
    let id = home.run(&["eval", "lab", "print('out') return 7", "--no-wait"]).ok().trim().to_owned();
    assert!(home.run(&["wait", &id]).ok().starts_with(&format!("{id} is done")));
    assert_eq!(home.run(&["read", "--command", &id]).ok(), "out\n7\n");
    let failed = home.run(&["eval", "lab", "error('no')", "--no-wait"]).ok().trim().to_owned();
    home.json(&["wait", &failed]).fails("command.failed", 1);

    let endless = home.run(&["eval", "lab", "while true do end", "--no-wait"]).ok().trim().to_owned();
    home.json(&["wait", &endless, "--timeout", "0.2"]).fails_with_hint("timeout", 8);
    home.json(&["eval", "lab", "return 1", "--timeout", "0.2"]).fails_with_hint("timeout", 8);
    home.run(&["operation", "cancel", &endless]).ok();
    let ended = home.run(&["wait", &endless]);
    assert_eq!(ended.code, 130, "{ended:?}");
    assert_eq!(home.run(&["eval", "lab", "return 'still here'"]).ok(), "still here\n");
    home.end();
}

#[test]
fn a_running_chunk_is_interrupted_and_the_state_is_kept() {
    let home = Home::new();
    home.run(&["create", "lab", "--start"]).ok();
    let mut eval = home.command(&["eval", "lab", "x = 5 print('go') while true do end"]).spawn().unwrap();
    let mut go = [0; 3];
    eval.stdout.as_mut().unwrap().read_exact(&mut go).unwrap();
    home.run(&["interrupt", "lab"]).ok();
    assert_eq!(eval.wait().unwrap().code(), Some(130));
    assert_eq!(home.run(&["eval", "lab", "return x"]).ok(), "5\n");
    home.end();
}

#[test]
fn one_ctrl_c_detaches_and_says_how_to_come_back() {
    let home = Home::new();
    home.run(&["create", "lab", "--start"]).ok();
    let code = "print('go') local t = os.clock() while os.clock() - t < 2.5 do end return 'done'";
    let mut eval = home.command(&["eval", "lab", code]).spawn().unwrap();
    let mut go = [0; 3];
    eval.stdout.as_mut().unwrap().read_exact(&mut go).unwrap();
    let pid = rustix::process::Pid::from_raw(eval.id() as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let output = eval.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(130), "{said}");
    let id = said.split("vmoon wait ").nth(1).and_then(|rest| rest.split(',').next()).expect("the id of the command").to_owned();
    home.run(&["wait", &id]).ok();
    assert!(home.run(&["read", "--command", &id]).ok().ends_with("done\n"));
    home.end();
}

#[test]
fn a_second_ctrl_c_interrupts_the_command() {
    let home = Home::new();
    home.run(&["create", "lab", "--start"]).ok();
    let mut eval = home.command(&["eval", "lab", "x = 7 print('go') while true do end"]).spawn().unwrap();
    let mut go = [0; 3];
    eval.stdout.as_mut().unwrap().read_exact(&mut go).unwrap();
    let pid = rustix::process::Pid::from_raw(eval.id() as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    // It has heard the first when it says so.
    let mut said = [0; 8];
    eval.stderr.as_mut().unwrap().read_exact(&mut said).unwrap();
    assert_eq!(&said, b"detached");
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    assert_eq!(eval.wait().unwrap().code(), Some(130));
    assert_eq!(home.run(&["eval", "lab", "return x", "--timeout", "30"]).ok(), "7\n", "the endless loop is over and the state is kept");
    home.end();
}

#[test]
fn a_question_is_answered_from_another_terminal() {
    let home = Home::new();
    home.run(&["create", "lab", "--start"]).ok();
    let mut eval = home.command(&["eval", "lab", "print('name?') local a = io.read() return a, io.read('a')"]).spawn().unwrap();
    let mut asked = [0; 6];
    eval.stdout.as_mut().unwrap().read_exact(&mut asked).unwrap();
    // The session says when the program waits.
    while !home.run(&["session", "show", "lab"]).ok().contains("waits for input") {}
    // Who comes later is told what is before them.
    let mut later = home.command(&["eval", "lab", "1"]).spawn().unwrap();
    let mut told = String::new();
    BufReader::new(later.stderr.as_mut().unwrap()).read_line(&mut told).unwrap();
    assert!(told.contains("an earlier command, which waits for input: vmoon send lab TEXT"), "{told}");
    home.run(&["send", "lab", "Ada"]).ok();
    while !home.run(&["session", "show", "lab"]).ok().contains("waits for input") {}
    let ran = home.feed(&["send", "lab", "-", "--end"], b"rest\xff");
    assert_eq!(ran.code, 0, "{ran:?}");
    let output = eval.wait_with_output().unwrap();
    assert!(output.status.success() && output.stdout.starts_with(b"Ada\trest"), "{output:?}");
    assert!(later.wait().unwrap().success());
    home.end();
}

#[test]
fn what_was_said_can_be_read_again_and_waited_for() {
    let home = Home::new();
    home.run(&["create", "lab", "--start"]).ok();
    home.run(&["eval", "lab", "print('one')"]).ok();
    let pieces = lines(&home.json(&["read", "lab"]).ok());
    let next = pieces.iter().find(|piece| piece["kind"] == "done").unwrap()["at"].as_u64().unwrap();
    let reader = home.command(&["read", "lab", "--until", "needle", "--timeout", "60"]).spawn().unwrap();
    home.run(&["eval", "lab", "io.write('nee') io.flush() io.write('dle\\n') return nil"]).ok();
    let output = reader.wait_with_output().unwrap();
    assert!(output.status.success() && output.stdout.starts_with(b"one\n"), "{output:?}");
    let later = lines(&home.json(&["read", "lab", "--since", &next.to_string()]).ok());
    assert!(later[0]["at"].as_u64() == Some(next) && later.iter().all(|piece| piece["at"].as_u64() >= Some(next)), "{later:?}");
    home.json(&["read", "lab", "--until", "never", "--timeout", "0.2"]).fails("timeout", 8);
    home.end();
}

#[test]
fn events_and_logs_tell_what_happened_in_order() {
    let home = Home::new();
    home.run(&["create", "lab", "--start"]).ok();
    home.run(&["eval", "lab", "print('said')"]).ok();
    let events = lines(&home.json(&["events", "lab"]).ok());
    let numbers: Vec<u64> = events.iter().map(|event| event["seq"].as_u64().unwrap()).collect();
    assert!(numbers.is_sorted() && events.iter().any(|event| event["kind"] == "machine_added"), "{events:?}");
    let after = numbers[numbers.len() / 2];
    let rest = lines(&home.json(&["events", "lab", "--since", &after.to_string()]).ok());
    assert_eq!(rest.first().map(|event| event["seq"].as_u64().unwrap() > after), Some(true));
    let log = home.run(&["logs", "lab"]).ok();
    assert!(log.contains("machine_added") && log.contains("\nsaid\n"), "{log}");
    assert!(home.run(&["session", "list", "--no-header"]).ok().starts_with("lab/main"));
    home.end();
}

#[test]
fn many_machines_answer_for_themselves() {
    let home = Home::new();
    home.run(&["create", "f{1..4}", "--start", "-q"]).ok();
    home.run(&["eval", "f2", "me = 2"]).ok();
    let ran = home.run(&["eval", "f*", "print('one') return me"]);
    let said: Vec<Vec<&str>> = ran.out.lines().skip(1).map(|line| line.split_whitespace().collect()).collect();
    let row = |name, value| vec![name, "done", value, "one"];
    assert_eq!(said, [row("f1", "nil"), row("f2", "2"), row("f3", "nil"), row("f4", "nil")]);
    let ran = home.run(&["eval", "f{1..4}", "if me then error('no') end"]);
    assert!(ran.code == 1 && ran.out.contains("failed") && ran.out.contains("no"), "{ran:?}");
    home.end();
}
