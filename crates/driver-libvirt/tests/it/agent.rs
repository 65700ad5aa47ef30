//! Agents that lie, dribble, flood and answer late: each call ends at its deadline, and what was wrong before does not show in what is asked after. The liar is a
//! program in the guest, at the port of the real agent; libvirt is a real one.

use super::{
    life::{guest, program},
    place::{Place, created},
    terminal::{PATIENCE, Terminal, channel},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use std::time::{Duration, Instant};
use vmoon_core::{Code, driver::Driver};

/// Answers as the file /run/mode says. libvirt asks for a number back (guest-sync) once, and again after each command that was not answered.
const LIAR: &str = r#"
exec 3<>/dev/virtio-ports/org.qemu.guest_agent.0
say() { printf '%s\n' "$1" >&3; }
slowly() { s=$1; while [ -n "$s" ]; do printf %s "${s%"${s#?}"}" >&3; s=${s#?}; sleep 0.3; done; echo >&3; }
large() { { printf '{"return": {"exited": true, "exitcode": 5, "out-data": "'; busybox cat "$@" & echo $! > /run/cat; wait $!; echo '"}}'; } >&3; }
# Nothing can be read as long as nobody listens on the other side.
while :; do sleep 0.1; while read -r line <&3; do
  mode=$(cat /run/mode)
  case $line in
  *guest-sync*)
    id=${line##*:}; id=${id%%\}*}
    case $mode in
    wrong) say '{"return": 1}' ;;
    silent) ;;
    dribble) slowly "{\"return\": $id}" ;;
    *) say "{\"return\": $id}" ;;
    esac ;;
  *guest-exec-status*)
    case $mode in
    status) say '{"return": {"exitcode": 0}}' ;;
    over) large /run/large ;;
    beyond) large /run/large /run/large ;;
    inside) printf '{"return": {"exited": true, "exitcode": 5, "out-data": "b2s=\001\377\000\n' >&3; say '"}}' ;;
    base64) say '{"return": {"exited": true, "exitcode": 0, "out-data": "!"}}' ;;
    never) say '{"return": {"exited": false}}' ;;
    *) say '{"return": {"exited": true, "exitcode": 5, "out-data": "b2s="}}' ;;
    esac ;;
  *)
    case $mode in
    flood) dd if=/dev/zero bs=1048576 count=100 >&3 2>/dev/null ;;
    silent) ;;
    text) say '{"return": {"pid": "one"}}' ;;
    nothing) say '{"return": null}' ;;
    between) printf 'x\001\377\000\376}{\n' >&3; say '{"return": {"pid": 7}}' ;;
    slow) slowly '{"return": {"pid": 9}}' ;;
    twice) say '{"return": {"pid": 7}}'; say '{"return": {"pid": 8}}' ;;
    *) say '{"return": {"pid": 7}}' ;;
    esac ;;
  esac
done; done
"#;

/// How much later than its deadline a call may end: what a busy computer takes to notice.
const SLACK: Duration = Duration::from_millis(1500);

async fn typed(terminal: &mut Terminal, line: &str, number: u32) {
    terminal.keys(&format!("{line}; echo did-$(({number} + 0))\r")).await;
    terminal.wait_for(&format!("did-{number}\r")).await;
}

/// The next question gets its own answer, as soon as libvirt hears the agent again.
async fn honest(run: &impl AsyncFn(u64) -> (vmoon_core::Result<vmoon_core::ability::Ended>, Duration), after: &str) {
    let begun = Instant::now();
    loop {
        match run(8_000).await.0 {
            Ok(ended) => return assert_eq!((ended.code, ended.stdout.as_slice()), (Some(5), &b"ok"[..]), "after {after}"),
            // libvirt waits for an answer that it was asked to wait for, in whole seconds.
            Err(error) => assert!(begun.elapsed() < PATIENCE, "no answer after {after}: {}", error.chain()),
        }
    }
}

#[tokio::test]
async fn a_lying_agent_costs_its_deadline_and_nothing_else() {
    let place = Place::new().await;
    let driver = place.driver();
    let handle = created(&*driver, "liar", guest("name=liar mute")).await;
    driver.start(&handle).await.unwrap();
    let serial = channel(&*driver, &handle).await;
    let mut terminal = Terminal::open(&*driver, &handle, &serial, 0).await;
    terminal.wait_for("GUEST READY liar").await;
    // A line at a time, once there is a prompt: what a terminal is given faster than its shell reads is lost.
    terminal.wait_for("built-in shell (ash)").await;
    terminal.wait_for("# ").await;
    for (n, piece) in STANDARD.encode(LIAR).as_bytes().chunks(300).enumerate() {
        typed(&mut terminal, &format!("echo {} >> /run/encoded", String::from_utf8_lossy(piece)), 100 + n as u32).await;
    }
    typed(&mut terminal, "busybox base64 -d /run/encoded > /run/liar; echo honest > /run/mode; sh /run/liar & pid=$!", 1).await;
    let exec = driver.exec().unwrap();
    let run = async |deadline: u64| {
        let begun = Instant::now();
        let ended = exec.exec(&handle, &program(&["/bin/true"], deadline)).await;
        let took = begun.elapsed();
        assert!(took < Duration::from_millis(deadline) + SLACK, "{deadline} ms became {took:?}: {ended:?}");
        (ended, took)
    };
    // libvirt must have seen that somebody opened the port.
    let begun = Instant::now();
    loop {
        match run(5_000).await.0 {
            Ok(ended) => break assert_eq!((ended.code, ended.stdout.as_slice()), (Some(5), &b"ok"[..])),
            Err(error) => {
                assert!(begun.elapsed() < PATIENCE, "the liar can be honest: {}; {}", error.chain(), terminal.screen);
                typed(&mut terminal, "jobs; busybox ls -l /dev/virtio-ports", begun.elapsed().as_millis() as u32).await;
            }
        }
    }
    for (n, (mode, deadline, codes)) in [
        // Answers that are no answers: told at once, as what they are.
        ("text", 20_000, &[Code::WireMalformed][..]),
        ("nothing", 20_000, &[Code::WireMalformed]),
        ("status", 20_000, &[Code::WireMalformed]),
        ("base64", 20_000, &[Code::WireMalformed]),
        // Nothing that could be taken for an answer: told at the deadline.
        ("wrong", 1_300, &[Code::OperationDeadline, Code::GuestAgent]),
        ("silent", 700, &[Code::OperationDeadline, Code::GuestAgent]),
        ("dribble", 1_000, &[Code::OperationDeadline, Code::GuestAgent]),
        ("slow", 1_200, &[Code::OperationDeadline, Code::GuestAgent]),
        ("never", 900, &[Code::OperationDeadline]),
    ]
    .into_iter()
    .enumerate()
    {
        if ["wrong", "dribble"].contains(&mode) {
            typed(&mut terminal, "echo silent > /run/mode", 200 + n as u32).await;
            run(700).await.0.expect_err("nobody has answered");
        }
        typed(&mut terminal, &format!("echo {mode} > /run/mode"), 10 + n as u32).await;
        let (ended, _) = run(deadline).await;
        let error = ended.err().unwrap_or_else(|| panic!("{mode} was believed"));
        assert!(codes.contains(&error.code()), "{mode}: {}", error.chain());
        // The next question gets its own answer, whatever is still on its way.
        typed(&mut terminal, "echo honest > /run/mode", 40 + n as u32).await;
        honest(&run, mode).await;
    }
    // An answer too many is not the answer to what is asked next.
    typed(&mut terminal, "echo twice > /run/mode", 70).await;
    let ended = run(20_000).await.0.unwrap_or_else(|error| panic!("twice: {}", error.chain()));
    assert_eq!((ended.code, ended.stdout.as_slice()), (Some(5), &b"ok"[..]));
    // More output than is kept is cut, and said to be; more than libvirt carries is an error.
    typed(&mut terminal, "busybox dd if=/dev/zero bs=1024 count=2500 2>/dev/null | busybox base64 | busybox tr -d '\\n' > /run/large", 90)
        .await;
    typed(&mut terminal, "echo over > /run/mode", 91).await;
    let ended = run(60_000).await.0.unwrap_or_else(|error| panic!("over the cap: {}", error.chain()));
    assert_eq!((ended.code, ended.stdout.len(), ended.truncated), (Some(5), 2 << 20, true));
    typed(&mut terminal, "echo beyond > /run/mode", 92).await;
    let error = run(60_000).await.0.expect_err("more than libvirt carries");
    assert!(matches!(error.code(), Code::GuestAgent | Code::DriverFailed | Code::OperationDeadline), "{}", error.chain());
    // Bytes that are no text, between answers and inside of one. libvirt may give such an agent up; one that is started again is heard. Only one may have the port
    // open, and who was writing more than libvirt carries has it as long as it lives.
    for (n, mode) in ["between", "inside"].into_iter().enumerate() {
        let number = 100 + 10 * n as u32;
        let gone = "kill -9 $pid $(cat /run/cat); while [ -e /proc/$(cat /run/cat)/fd/1 ]; do sleep 0.1; done";
        typed(&mut terminal, &format!("{gone}; echo honest > /run/mode; sh /run/liar & pid=$!"), number).await;
        honest(&run, mode).await;
        typed(&mut terminal, &format!("echo {mode} > /run/mode"), number + 1).await;
        let begun = Instant::now();
        let (ended, _) = run(10_000).await;
        match ended {
            // It passed over them, or the answer came whole before it gave up.
            Ok(ended) => assert_eq!((ended.code, ended.stdout.as_slice()), (Some(5), &b"ok"[..]), "{mode}"),
            Err(error) => {
                let told = matches!(error.code(), Code::GuestAgent | Code::WireMalformed | Code::OperationDeadline);
                assert!(told, "{mode}: {}", error.chain());
            }
        }
        assert!(begun.elapsed() < Duration::from_secs(12), "{mode}");
    }
    typed(&mut terminal, "kill -9 $pid; echo honest > /run/mode; sh /run/liar & pid=$!", 120).await;
    honest(&run, "bytes").await;
    // A line without an end: libvirt gives that agent up; the call ends all the same.
    typed(&mut terminal, "echo flood > /run/mode", 81).await;
    let (ended, _) = run(10_000).await;
    let error = ended.expect_err("a hundred megabytes of nothing");
    assert!(matches!(error.code(), Code::GuestAgent | Code::DriverFailed | Code::OperationDeadline), "{}", error.chain());
    // From then on it is said what helps.
    typed(&mut terminal, "kill -9 $pid; killall dd", 82).await;
    let error = run(10_000).await.0.expect_err("nobody is there");
    assert!(error.code() == Code::GuestAgent && error.hint_text().is_some(), "{}", error.chain());
    driver.delete(&handle).await.unwrap();
}
