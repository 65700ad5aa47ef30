//! Turns a list of verdicts, one per system call, into a program for seccomp(2). Pure; it must not know which calls are dangerous.
//!
//! The program is a binary search over ranges of call numbers. That is not for the sake of the calls: it is for the price of installing. The kernel
//! translates the program for every process that installs it, and runs it once for every number there is to learn which are always allowed
//! (`seccomp_cache_prepare` in `kernel/seccomp.c`, since Linux 5.11). A list that is walked from its head pays for both.

use std::collections::BTreeMap;

/// What is answered to one system call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is carried out.
    Allow,
    /// It fails with this number.
    Errno(u16),
    /// It is carried out if one of these holds (each a list of conditions that must all hold), else it fails with this number.
    When(Vec<Vec<Condition>>, u16),
}

/// What one argument must be. The kernel takes most arguments as 32-bit integers and ignores what is above, so these look at the lower half, except
/// where a name says otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Condition {
    /// These bits of it have this value.
    Bits { arg: u8, mask: u32, value: u32 },
    /// It lies between these, ends included.
    Between { arg: u8, low: u32, high: u32 },
    /// It is the process's own id, known only when the program is installed.
    OwnPid { arg: u8 },
    /// All 64 bits of it are this.
    Whole { arg: u8, value: u64 },
}

/// Where a number in the program comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Constant {
    Number(u32),
    OwnPid,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Instruction {
    code: u16,
    jt: u8,
    jf: u8,
    k: Constant,
}

/// A program, ready but for the id of the process.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    code: Vec<libc::sock_filter>,
    /// Where the id of the process belongs.
    pids: Vec<usize>,
}

impl Program {
    /// Its code for the process with this id.
    pub(crate) fn for_pid(&self, pid: u32) -> Vec<libc::sock_filter> {
        let mut code = self.code.clone();
        for at in &self.pids {
            code[*at].k = pid;
        }
        code
    }

    /// How many instructions it has.
    pub(crate) fn len(&self) -> usize {
        self.code.len()
    }
}

// Codes of classic BPF (`linux/bpf_common.h`).
const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
const AND: u16 = 0x54; // BPF_ALU | BPF_AND | BPF_K
const JUMP: u16 = 0x05; // BPF_JMP | BPF_JA
const EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
const GREATER: u16 = 0x25; // BPF_JMP | BPF_JGT | BPF_K
const AT_LEAST: u16 = 0x35; // BPF_JMP | BPF_JGE | BPF_K
const RETURN: u16 = 0x06; // BPF_RET | BPF_K

// `linux/seccomp.h`
const RET_ALLOW: u32 = 0x7fff_0000;
const RET_ERRNO: u32 = 0x0005_0000;

// `struct seccomp_data`: the number, the architecture, the instruction pointer, six arguments of 64 bits.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENTS: u32 = 16;

/// Calls of the x32 ABI have this bit set (`__X32_SYSCALL_BIT`); no other number is that large.
const X32: u32 = 0x4000_0000;

/// Compiles. Numbers that `verdicts` does not name fail with `unnamed`, and from `unknown_from` on with ENOSYS, so that C libraries newer than this
/// table fall back as on an older kernel. Calls of another architecture than `architecture` (a value `AUDIT_ARCH_…`) fail with EPERM.
pub(crate) fn compile(architecture: u32, verdicts: &BTreeMap<u32, Verdict>, unnamed: u16, unknown_from: u32) -> Program {
    let mut ranges: Vec<(u32, Verdict)> = Vec::new();
    let last = verdicts.keys().next_back().copied().unwrap_or(0).max(unknown_from.saturating_sub(1));
    for number in 0..=last {
        let otherwise = if number < unknown_from { unnamed } else { libc::ENOSYS as u16 };
        let verdict = verdicts.get(&number).cloned().unwrap_or(Verdict::Errno(otherwise));
        if ranges.last().is_none_or(|(_, before)| *before != verdict) {
            ranges.push((number, verdict));
        }
    }
    if ranges.last().is_none_or(|(_, before)| *before != Verdict::Errno(libc::ENOSYS as u16)) {
        ranges.push((last + 1, Verdict::Errno(libc::ENOSYS as u16)));
    }
    ranges.push((X32, Verdict::Errno(libc::EPERM as u16)));
    let refuse = give_back(RET_ERRNO | libc::EPERM as u32);
    let mut code = vec![plain(LOAD, ARCHITECTURE), jump(EQUAL, 1, 0, architecture), refuse, plain(LOAD, NUMBER)];
    code.extend(search(&ranges));
    let pids = code.iter().enumerate().filter(|(_, instruction)| instruction.k == Constant::OwnPid).map(|(at, _)| at).collect();
    let code = code
        .into_iter()
        .map(|i| libc::sock_filter { code: i.code, jt: i.jt, jf: i.jf, k: if let Constant::Number(k) = i.k { k } else { 0 } })
        .collect();
    Program { code, pids }
}

/// The part of the program that finds the range of the number in the accumulator.
fn search(ranges: &[(u32, Verdict)]) -> Vec<Instruction> {
    let middle = ranges.len() / 2;
    let [(_, verdict)] = ranges else {
        let (left, right) = (search(&ranges[..middle]), search(&ranges[middle..]));
        let from = ranges[middle].0;
        let mut code = match u8::try_from(left.len()) {
            Ok(over) => vec![jump(AT_LEAST, over, 0, from)],
            Err(_) => vec![jump(AT_LEAST, 0, 1, from), plain(JUMP, left.len() as u32)],
        };
        code.extend(left);
        code.extend(right);
        return code;
    };
    match verdict {
        Verdict::Allow => vec![give_back(RET_ALLOW)],
        Verdict::Errno(number) => vec![give_back(RET_ERRNO | u32::from(*number))],
        Verdict::When(cases, number) => {
            let mut code: Vec<Instruction> = cases.iter().flat_map(|case| one_case(case)).collect();
            code.push(give_back(RET_ERRNO | u32::from(*number)));
            code
        }
    }
}

/// Allows if all conditions hold; goes on behind itself if one does not.
fn one_case(case: &[Condition]) -> Vec<Instruction> {
    // From the end, because a jump must know how far it is to go.
    let mut code = vec![give_back(RET_ALLOW)];
    for condition in case.iter().rev() {
        // Over everything that is behind the last instruction of this condition. A case has a handful of conditions, so a byte is enough.
        let out = |more: usize| (code.len() + more) as u8;
        let mut tested = match *condition {
            Condition::Bits { arg, mask: u32::MAX, value } => vec![plain(LOAD, low(arg)), jump(EQUAL, 0, out(0), value)],
            Condition::Bits { arg, mask, value } => vec![plain(LOAD, low(arg)), plain(AND, mask), jump(EQUAL, 0, out(0), value)],
            Condition::Between { arg, low: from, high } => {
                vec![plain(LOAD, low(arg)), jump(AT_LEAST, 0, out(1), from), jump(GREATER, out(0), 0, high)]
            }
            Condition::OwnPid { arg } => {
                vec![plain(LOAD, low(arg)), Instruction { code: EQUAL, jt: 0, jf: out(0), k: Constant::OwnPid }]
            }
            Condition::Whole { arg, value } => vec![
                plain(LOAD, low(arg)),
                jump(EQUAL, 0, out(2), value as u32),
                plain(LOAD, low(arg) + 4),
                jump(EQUAL, 0, out(0), (value >> 32) as u32),
            ],
        };
        tested.append(&mut code);
        code = tested;
    }
    code
}

/// Where the lower half of an argument lies. Both architectures we know are little-endian.
fn low(arg: u8) -> u32 {
    ARGUMENTS + 8 * u32::from(arg)
}

fn plain(code: u16, k: u32) -> Instruction {
    jump(code, 0, 0, k)
}

fn jump(code: u16, jt: u8, jf: u8, k: u32) -> Instruction {
    Instruction { code, jt, jf, k: Constant::Number(k) }
}

fn give_back(value: u32) -> Instruction {
    plain(RETURN, value)
}

#[cfg(test)]
mod tests;
