//! Who is let in, and over which ways: a user's own daemon, a user without rights, the standard streams of a program.

use crate::daemon::connect;
use rustix::process::{Gid, Uid};
use std::io::ErrorKind;
use tokio::process::Command;
use vmoon_libvirt_lab::{Lab, Machine, Setup};
use vmoon_libvirt_wire::{
    Client, Connect, Connecting, DomainState, Error, Options, Transport, UnixSocket,
    flags::{Define, Destroy, Domains, Start, Undefine},
};

/// The user and group `nobody` and `nogroup`, who exist on every Debian: libvirtd turns away who has no name.
const NOBODY: u32 = 65_534;
/// The group `users`, which the daemon lets in.
const GROUP: u32 = 100;

/// Connects as this user, in a thread of its own: Linux keeps users by thread.
fn connects_as(socket: std::path::PathBuf, user: u32, group: u32) -> Result<usize, Error> {
    let thread = std::thread::spawn(move || {
        rustix::thread::set_thread_groups(&[]).expect("we are root");
        rustix::thread::set_thread_gid(Gid::from_raw(group)).expect("we are root");
        rustix::thread::set_thread_uid(Uid::from_raw(user)).expect("we are root");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let client = Client::connect(UnixSocket(socket), "qemu:///system", Options::default()).await?;
            Ok(client.domains(Domains::NONE).await?.len())
        })
    });
    thread.join().expect("no panic")
}

#[test]
fn the_group_is_let_in_and_others_are_told_so() {
    // The setting for the group takes a name, and ours has none: the socket gets it afterwards.
    let conf = "unix_sock_rw_perms = \"0770\"\nauth_unix_rw = \"none\"\n".to_owned();
    let lab = Lab::start_with(&Setup { libvirtd_conf: conf, ..Setup::default() });
    std::os::unix::fs::chown(lab.socket(), None, Some(GROUP)).expect("we are root");
    lab.open_to_all();
    assert_eq!(connects_as(lab.socket(), NOBODY, GROUP).expect("of the group"), 0);
    let error = connects_as(lab.socket(), NOBODY, NOBODY).expect_err("a stranger");
    assert!(matches!(&error, Error::Unreachable { kind: ErrorKind::PermissionDenied, .. }), "{error}");
}

#[test]
fn polkit_that_is_not_there_lets_nobody_in() {
    let conf = "unix_sock_rw_perms = \"0777\"\nauth_unix_rw = \"polkit\"\n".to_owned();
    let lab = Lab::start_with(&Setup { libvirtd_conf: conf, ..Setup::default() });
    lab.open_to_all();
    let error = connects_as(lab.socket(), NOBODY, NOBODY).expect_err("a stranger");
    assert!(matches!(&error, Error::Authentication(why) if why.starts_with("polkit did not let us in")), "{error}");
}

#[tokio::test]
async fn a_users_own_daemon_runs_a_guest() {
    let lab = Lab::start_with(&Setup { user: Some(NOBODY), ..Setup::default() });
    let client = connect(&lab, "qemu:///session").await;
    let guest = Lab::guest();
    // The user reads neither our directory nor what is kept there.
    let near = |file: &std::path::Path, name: &str| {
        let to = lab.path().join("own").join(name);
        std::fs::copy(file, &to).expect("a copy");
        to
    };
    let guest = vmoon_libvirt_lab::Guest { kernel: near(&guest.kernel, "kernel"), initrd: near(&guest.initrd, "initrd") };
    let domain = client.define(&Machine::named("mine").xml(&guest), Define::VALIDATE).await.expect("defined");
    client.start(&domain, Start::NONE).await.expect("started");
    assert_eq!(client.state(&domain).await.expect("a state").0, DomainState::Running);
    client.destroy(&domain, Destroy::NONE).await.expect("off");
    client.undefine(&domain, Undefine::NONE).await.expect("forgotten");
}

/// A program of the lab that speaks for us on its standard streams, as `ssh HOST virt-ssh-helper` does.
struct Program(std::sync::Arc<Lab>);

impl Connect for Program {
    fn connect(&self) -> Connecting<'_> {
        Box::pin(async {
            let mut command = Command::from(self.0.command("virt-ssh-helper"));
            command.arg("qemu:///system").stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped()).kill_on_drop(true);
            let mut child = command.spawn()?;
            let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
            let both = stdin.zip(stdout).ok_or(ErrorKind::BrokenPipe)?;
            Ok(Transport::pipes(Holding(both.1, child), both.0))
        })
    }

    fn describe(&self) -> String {
        "virt-ssh-helper".to_owned()
    }
}

/// What is read, and the process it comes from, which lives as long.
struct Holding(tokio::process::ChildStdout, #[expect(dead_code, reason = "held, not used")] tokio::process::Child);

impl tokio::io::AsyncRead for Holding {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        into: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut self.0).poll_read(cx, into)
    }
}

#[tokio::test]
async fn the_standard_streams_of_a_program_are_as_good_as_a_socket() {
    let lab = std::sync::Arc::new(Lab::start());
    let client = Client::connect(Program(lab.clone()), "qemu:///system", Options::default()).await.expect("let in");
    let domain = client.define(&Machine::named("far").xml(&Lab::guest()), Define::VALIDATE).await.expect("defined");
    assert_eq!(client.domains(Domains::NONE).await.expect("a list"), std::slice::from_ref(&domain));
    // The second connection is a second program.
    client.start(&domain, Start::PAUSED).await.expect("started");
    client.destroy(&domain, Destroy::NONE).await.expect("off");
}
