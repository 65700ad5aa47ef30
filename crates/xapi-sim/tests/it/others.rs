//! Clients that others wrote for the real one: Python's own library for XML-RPC, the module `XenAPI` of PyPI, the package `xen-api` of npm.

use crate::pool;
use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};
use tokio::{io::AsyncWriteExt as _, process::Command};

/// Logs in, walks through classes, makes a VM, follows events, and ends its session.
const PROGRAM: &str = r#"
import ssl, sys, xmlrpc.client
url = sys.argv[1]
server = xmlrpc.client.ServerProxy(url, context=ssl._create_unverified_context(), allow_none=True)

def call(method, *params):
    target = server
    for part in method.split('.'):
        target = getattr(target, part)
    answer = target(*params)
    if answer['Status'] == 'Success':
        return answer['Value']
    raise Exception(answer['ErrorDescription'])

assert 'VM.start' in server.system.listMethods()
try:
    call('session.login_with_password', 'root', 'wrong')
    raise SystemExit('a wrong password was taken')
except Exception as error:
    assert error.args[0] == ['SESSION_AUTHENTICATION_FAILED', 'root', 'Authentication failure'], error
session = call('session.login_with_password', 'root', 'secret', '1.0', 'python')
records = call('VM.get_all_records', session)
template = [r for r in records if records[r]['name_label'] == 'linux-lua'][0]
record = records[template]
# Integers are text, truths are truths, times are times.
assert record['memory_static_max'] == str(2 << 30) and record['is_a_template'] is True, record
assert isinstance(record['snapshot_time'], xmlrpc.client.DateTime), record['snapshot_time']
name = 'a <b> & "ü"'
vm = call('VM.clone', session, template, name)
call('VM.provision', session, vm)
assert call('VM.get_name_label', session, vm) == name
batch = call('event.from', session, ['VM'], '', 0.0)
assert any(e['ref'] == vm and e['operation'] == 'add' and e['snapshot']['name_label'] == name for e in batch['events'])
task = call('Async.VM.start', session, vm, False, False)
while call('task.get_status', session, task) == 'pending':
    call('event.from', session, ['task'], batch['token'], 1.0)
assert call('task.get_status', session, task) == 'success', call('task.get_error_info', session, task)
assert call('task.get_result', session, task) == '<value></value>'
call('task.destroy', session, task)
assert call('VM.get_power_state', session, vm) == 'Running'
call('session.logout', session)
try:
    call('VM.get_all', session)
    raise SystemExit('a session that was ended is good')
except Exception as error:
    assert error.args[0] == ['SESSION_INVALID', session], error
print('ok')
"#;

#[tokio::test]
async fn pythons_library_works_unmodified() {
    let (server, _) = pool().await;
    let mut child = Command::new("python3")
        .args(["-", &format!("https://{}/", server.address())])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("python3 is needed: apt install python3");
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(PROGRAM.as_bytes()).await.unwrap();
    drop(stdin);
    let output = child.wait_with_output().await.unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "ok\n", "{}", String::from_utf8_lossy(&output.stderr));
}

/// What `cargo xtask install` has put into the target directory.
fn installed(part: &str) -> PathBuf {
    let exe = std::env::current_exe().unwrap();
    let target = exe.ancestors().find(|folder| folder.join("CACHEDIR.TAG").is_file()).expect("tests run in a target directory of cargo");
    let path = target.join("clients").join(part);
    assert!(path.exists(), "{} is not there: cargo xtask install", path.display());
    path
}

/// Runs a client of a pool of two hosts, with the addresses of both.
async fn client(program: &Path, before: &[&Path], script: &str) {
    let (server, _) = pool().await;
    let listen = format!("127.0.0.8:{}", server.address().port()).parse().unwrap();
    let member = server.member("sim-host-2", listen).await.unwrap();
    let output = Command::new(program)
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(script))
        .args(before)
        .args([format!("https://{}", server.address()), format!("https://{}", member.address())])
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(Duration::from_secs(60), output).await.expect("it takes too long");
    let output = output.unwrap_or_else(|error| panic!("{}: {error}: cargo xtask install", program.display()));
    let (said, problem) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.ends_with("ok\n"), "{said}{problem}");
    assert!(server.sim.names("task").is_empty(), "it clears its tasks away");
}

#[tokio::test]
async fn the_module_xenapi_works_unmodified() {
    client(&installed("venv/bin/python"), &[], "client.py").await;
}

#[tokio::test]
async fn the_package_xen_api_works_unmodified() {
    client(Path::new("node"), &[&installed("node/node_modules")], "client.mjs").await;
}
