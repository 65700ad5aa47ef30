//! What `vmoon doctor` asks of this computer for Lua machines.

use crate::{flavour, settings};
use std::path::Path;
use vmoon_confine::{Layer, Status};
use vmoon_core::driver::{Check, Verdict};

/// Looks at everything; a failure is a finding.
pub(crate) fn checks(exe: &Path) -> Vec<Check> {
    let mut checks = vec![holder(exe), flavours(), interpreters(), logout(), descriptors(), processes()];
    checks.extend(layers());
    checks
}

fn check(requirement: &str, verdict: Verdict, finding: impl Into<String>, fix: impl Into<String>) -> Check {
    Check { requirement: requirement.into(), verdict, finding: finding.into(), fix: fix.into() }
}

fn holder(exe: &Path) -> Check {
    const WHAT: &str = "the program that runs Lua machines";
    if exe.is_file() {
        check(WHAT, Verdict::Ok, format!("{}; the builtin runtime is {}", exe.display(), flavour::OURS.says), "")
    } else {
        check(WHAT, Verdict::Fail, format!("{} is missing", exe.display()), "install vmoon again and restart its daemon")
    }
}

/// The other Lua versions that machines can have inside their holder.
fn flavours() -> Check {
    const WHAT: &str = "other builtin runtimes";
    let (found, missing): (Vec<_>, Vec<_>) =
        flavour::ALL.iter().filter(|flavour| !flavour.is_ours()).partition(|flavour| flavour.find().is_ok());
    let list = |all: &[&flavour::Flavour]| all.iter().map(|one| one.runtime).collect::<Vec<_>>().join(", ");
    let there = if found.is_empty() { "none".to_owned() } else { list(&found) };
    // Nothing needs them that does not name them.
    match missing.first() {
        None => check(WHAT, Verdict::Ok, there, ""),
        Some(first) => check(WHAT, Verdict::Ok, format!("{there}; not built: {}", list(&missing)), first.find().err().unwrap_or_default()),
    }
}

fn interpreters() -> Check {
    const WHAT: &str = "Lua interpreters for --runtime";
    let (found, missing): (Vec<&str>, Vec<&str>) = settings::INTERPRETERS.iter().partition(|name| settings::find(name).is_ok());
    let list = if found.is_empty() { "none".to_owned() } else { found.join(", ") };
    if missing.is_empty() {
        return check(WHAT, Verdict::Ok, list, "");
    }
    // The builtin runtime needs none of them.
    check(WHAT, Verdict::Ok, format!("{list}; not installed: {}", missing.join(", ")), format!("apt install {}", missing.join(" ")))
}

/// Whether logging out ends the user's processes (logind.conf(5) KillUserProcesses, loginctl(1) enable-linger).
fn logout() -> Check {
    const WHAT: &str = "sessions survive a logout";
    if !Path::new("/run/systemd/system").exists() {
        return check(WHAT, Verdict::Ok, "there is no systemd that would end them", "");
    }
    let uid = rustix::process::getuid().as_raw();
    let user = std::fs::read_to_string("/etc/passwd")
        .ok()
        .and_then(|passwd| {
            let line = passwd.lines().find(|line| line.split(':').nth(2) == Some(&uid.to_string()))?.to_owned();
            line.split(':').next().map(str::to_owned)
        })
        .unwrap_or_else(|| uid.to_string());
    if Path::new("/var/lib/systemd/linger").join(&user).exists() {
        return check(WHAT, Verdict::Ok, format!("lingering is on for {user}"), "");
    }
    check(
        WHAT,
        Verdict::Warn,
        format!("lingering is off for {user}: a logout may end the daemon and, where logind has KillUserProcesses=yes, every machine"),
        format!("loginctl enable-linger {user}"),
    )
}

fn descriptors() -> Check {
    const WHAT: &str = "open files";
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    match (limit.current, limit.maximum) {
        (Some(soft), hard) if soft < 4096 && hard.is_none_or(|hard| hard < 4096) => {
            check(WHAT, Verdict::Warn, format!("at most {soft}: enough for about {} machines", soft / 4), "raise LimitNOFILE or ulimit -n")
        }
        (soft, _) => check(WHAT, Verdict::Ok, soft.map_or_else(|| "unlimited".to_owned(), |n| format!("at most {n}")), ""),
    }
}

fn processes() -> Check {
    const WHAT: &str = "processes and threads";
    let pid_max = std::fs::read_to_string("/proc/sys/kernel/pid_max").ok().and_then(|text| text.trim().parse::<u64>().ok());
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nproc).current;
    let most = [pid_max, limit].into_iter().flatten().min().unwrap_or(u64::MAX);
    // A machine is two threads.
    let finding = format!("at most {most}: about {} machines", most / 2);
    let verdict = if most < 2000 { Verdict::Warn } else { Verdict::Ok };
    check(WHAT, verdict, finding, if verdict == Verdict::Warn { "raise ulimit -u, TasksMax or kernel.pid_max" } else { "" })
}

/// One line for each layer of the kernel that a machine's process can be held by.
fn layers() -> Vec<Check> {
    const FIX: &str = "a newer kernel (Linux 6.12 has everything); until then vmoon show says of each machine what holds it";
    let mut checks: Vec<Check> = vmoon_confine::probe()
        .layers
        .into_iter()
        // No machine has a group of its own.
        .filter(|entry| entry.layer != Layer::Cgroup)
        .map(|entry| {
            let what = format!("isolation of machines, {}", entry.layer);
            match entry.status {
                Status::On => check(&what, Verdict::Ok, "on", ""),
                Status::Partial { missing } => check(&what, Verdict::Warn, format!("in part: {missing}"), FIX),
                Status::Off { why } => check(&what, Verdict::Warn, format!("off: {why}"), FIX),
            }
        })
        .collect();
    const BROKER: &str = "isolation of machines, broker of the profile net";
    checks.push(match vmoon_confine::net::probe() {
        Ok(()) => check(BROKER, Verdict::Ok, "on", ""),
        // What is not possible is refused, so nothing is weaker than it says.
        Err(why) => check(BROKER, Verdict::Ok, format!("{why}; machines with the profile net are refused"), ""),
    });
    checks
}
