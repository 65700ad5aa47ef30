//! Applies rules to the calling process: the layers, one after the other.

use crate::report::{Error, Report, Status};
use crate::rules::{Layer, Profile, Rules};
use crate::seccomp::{self, Filter, policy::Variant};
use crate::{landlock, privileges, rlimits};

/// What can be made once, before there is a process to be confined: the filters, what this kernel has, and how much address space is mapped, from which the limit
/// of memory counts. Make one in the process that forks others, when it has loaded all that it will.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// The ABI, or why there is none.
    landlock: Result<u32, String>,
    /// Bytes of address space that are mapped; or why that is not known.
    mapped: Result<u64, String>,
    /// By whether TCP is granted, and whether code may be mapped; or why there are none.
    filters: Result<[[Filter; 2]; 2], String>,
}

/// Which way the process will go on; the filter and the limits depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// As it is, with all descriptors open that it needs for itself, and may fork siblings with this token.
    Ready(u64),
    /// The same, but it opens more for itself.
    Stay(u64),
    /// It becomes another program by one execveat(2) with these addresses of path, arguments and environment.
    Exec([u64; 3]),
}

impl Prepared {
    /// Looks at the kernel and compiles the filters; takes about 0.1 ms.
    pub fn new() -> Self {
        let landlock = landlock::abi();
        let filters = seccomp::supported().map(|()| {
            [false, true].map(|tcp| [false, true].map(|map_code| Filter::new(Self::variant(&landlock, tcp, map_code, Next::Stay(0)))))
        });
        let mapped = rlimits::mapped().map_err(|error| format!("/proc/self/statm could not be read: {error}"));
        Self { landlock, mapped, filters }
    }

    /// The version of Landlock, if this kernel has it.
    pub(crate) fn landlock(&self) -> Option<u32> {
        self.landlock.as_ref().ok().copied()
    }

    /// How many instructions the longest filter has.
    pub fn filter_length(&self) -> usize {
        self.filters.iter().flatten().flatten().map(Filter::instructions).max().unwrap_or(0)
    }

    fn variant(landlock: &Result<u32, String>, tcp: bool, map_code: bool, next: Next) -> Variant {
        let exec = if let Next::Exec(addresses) = next { Some(addresses) } else { None };
        let no_truncate = landlock.as_ref().is_ok_and(|abi| *abi < 3);
        Variant { tcp, map_code, no_truncate, exec, fork: exec.is_none(), programs: false }
    }
}

impl Default for Prepared {
    fn default() -> Self {
        Self::new()
    }
}

/// Confines the calling process for the rest of its life, and all threads and processes it starts from now on. It must have one thread.
///
/// Descriptors that are open stay usable, whatever they are of: close what the process must not have. What needs a path, a new socket or another process
/// must be done before. Profile [`Profile::Trusted`] applies the limits and nothing else. Of a layer that this kernel does not have, the report says
/// that it is off; whether that is good enough is for the caller to decide.
///
/// # Errors
/// The layer that the kernel has and could not apply, and why. Part of the rules hold then: end the process.
pub fn apply(rules: &Rules, prepared: &Prepared) -> Result<Report, Error> {
    let mut token = [0; 8];
    rustix::rand::getrandom(&mut token, rustix::rand::GetRandomFlags::empty())
        .map_err(|error| Error::new(Layer::Seccomp, format!("there are no random numbers: {error}")))?;
    apply_for(rules, prepared, Next::Ready(u64::from_ne_bytes(token)))
}

/// As [`apply`]; whoever knows the token can make the process fork siblings (`vmoon_sys::fork::sibling`). It is not kept: make it random, keep it
/// elsewhere, and forget it here.
///
/// # Errors
/// As [`apply`].
pub fn apply_forkable(rules: &Rules, prepared: &Prepared, token: u64) -> Result<Report, Error> {
    apply_for(rules, prepared, Next::Stay(token))
}

pub(crate) fn apply_for(rules: &Rules, prepared: &Prepared, next: Next) -> Result<Report, Error> {
    apply_but(None, rules, prepared, next)
}

/// Applies all layers but one that follows later, of which the report says so.
pub(crate) fn apply_but(later: Option<Layer>, rules: &Rules, prepared: &Prepared, next: Next) -> Result<Report, Error> {
    let trusted = rules.profile == Profile::Trusted;
    let mut report = Report::default();
    let unwanted = |layer: Layer| {
        if rules.without.contains(&layer) {
            Some(Status::off("switched off on request"))
        } else if trusted && layer != Layer::Rlimits {
            Some(Status::off("the profile is trusted"))
        } else {
            None
        }
    };
    // In this order: the limits need what Landlock takes away, Landlock and seccomp need no_new_privs, and seccomp takes away the calls of all others.
    for layer in [Layer::Privileges, Layer::Rlimits, Layer::Landlock, Layer::Seccomp] {
        if later == Some(layer) {
            need_no_new_privs(rules, layer)?;
            report.set(layer, Status::off("its paths are not known yet"));
            continue;
        }
        let status = match unwanted(layer) {
            Some(off) => off,
            None => one(layer, rules, prepared, next)?,
        };
        report.set(layer, status);
    }
    Ok(report)
}

fn one(layer: Layer, rules: &Rules, prepared: &Prepared, next: Next) -> Result<Status, Error> {
    let exec = matches!(next, Next::Exec(_));
    match layer {
        Layer::Privileges => {
            privileges::drop_all(if exec { privileges::Bounding::Empty } else { privileges::Bounding::Keep })?;
            Ok(Status::On)
        }
        Layer::Rlimits => {
            let base = match &prepared.mapped {
                _ if exec => rlimits::Base::Program,
                Ok(bytes) => rlimits::Base::Mapped(*bytes),
                Err(why) => return Err(Error::new(layer, why)),
            };
            let own = match next {
                Next::Ready(_) => rlimits::Own::Open,
                Next::Stay(_) => rlimits::Own::Opening,
                Next::Exec(_) => rlimits::Own::Inherited,
            };
            rlimits::apply(&rules.limits, (base, own), rules.profile != Profile::Trusted)?;
            Ok(Status::On)
        }
        Layer::Landlock => match &prepared.landlock {
            Err(why) => Ok(Status::off(why)),
            Ok(abi) => {
                need_no_new_privs(rules, layer)?;
                landlock::restrict(rules, *abi)?;
                Ok(landlock::status(*abi))
            }
        },
        Layer::Seccomp => match &prepared.filters {
            Err(why) => Ok(Status::off(why)),
            Ok(filters) => {
                need_no_new_privs(rules, layer)?;
                let (tcp, map_code) = (rules.profile == Profile::Net, rules.compiles || !rules.execute.is_empty());
                match next {
                    _ if rules.programs => {
                        let variant = Prepared::variant(&prepared.landlock, tcp, true, next);
                        Filter::new(Variant { programs: true, fork: false, ..variant }).install(0)?;
                    }
                    Next::Stay(token) | Next::Ready(token) => filters[usize::from(tcp)][usize::from(map_code)].install(token)?,
                    Next::Exec(_) => Filter::new(Prepared::variant(&prepared.landlock, tcp, true, next)).install(0)?,
                }
                Ok(Status::On)
            }
        },
        Layer::Lua | Layer::Broker | Layer::Cgroup => Ok(Status::off("is not applied here")),
    }
}

/// Landlock and seccomp need `no_new_privs` of who is not root, so it is set for them even where its layer is switched off.
fn need_no_new_privs(rules: &Rules, layer: Layer) -> Result<(), Error> {
    if rules.without.contains(&Layer::Privileges) { privileges::no_new_privs(layer) } else { Ok(()) }
}

/// What the layers would be on this computer for profile `sealed`, without confining anybody: for `doctor`.
pub fn probe() -> Report {
    let mut report = Report::default();
    report.set(Layer::Privileges, Status::On);
    report.set(Layer::Rlimits, Status::On);
    report.set(Layer::Landlock, landlock::abi().map_or_else(Status::off, landlock::status));
    report.set(Layer::Seccomp, seccomp::supported().map_or_else(Status::off, |()| Status::On));
    report.set(Layer::Cgroup, crate::cgroup::Subtree::find().map_or_else(Status::off, |_| Status::On));
    report
}
