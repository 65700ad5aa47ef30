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
    /// All 64 bits of it are a number that is known only when the program is installed.
    Token { arg: u8 },
}

/// Where a number in the program comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Constant {
    Number(u32),
    OwnPid,
    TokenLow,
    TokenHigh,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Instruction {
    code: u16,
    jt: u8,
    jf: u8,
    k: Constant,
}

/// A program, ready but for the id of the process and its token.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    code: Vec<libc::sock_filter>,
    /// What belongs where.
    holes: Vec<(usize, Constant)>,
}

impl Program {
    /// Its code for the process with this id and this token.
    pub(crate) fn for_process(&self, pid: u32, token: u64) -> Vec<libc::sock_filter> {
        let mut code = self.code.clone();
        for (at, what) in &self.holes {
            code[*at].k = match what {
                Constant::Number(number) => *number,
                Constant::OwnPid => pid,
                Constant::TokenLow => token as u32,
                Constant::TokenHigh => (token >> 32) as u32,
            };
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
    let mut tail = Tail::default();
    let root = tail.search(&ranges);
    tail.go(root);
    let refuse = plain(RETURN, RET_ERRNO | libc::EPERM as u32);
    let start = [plain(LOAD, ARCHITECTURE), jump(EQUAL, 1, 0, Constant::Number(architecture)), refuse, plain(LOAD, NUMBER)];
    let code: Vec<Instruction> = start.into_iter().chain(tail.instructions.into_iter().rev()).collect();
    let holes = code.iter().enumerate().filter(|(_, i)| !matches!(i.k, Constant::Number(_))).map(|(at, i)| (at, i.k)).collect();
    let code = code
        .into_iter()
        .map(|i| libc::sock_filter { code: i.code, jt: i.jt, jf: i.jf, k: if let Constant::Number(k) = i.k { k } else { 0 } })
        .collect();
    Program { code, holes }
}

/// The end of a program, built from its last instruction to its first, since jumps only go forward: whatever is jumped to is there already, and what is the
/// same is jumped to rather than written again.
#[derive(Default)]
struct Tail {
    /// The last one first.
    instructions: Vec<Instruction>,
    /// Answers that were written, the nearest last.
    answers: Vec<(Verdict, Label)>,
}

/// An instruction, counted from the last of the program.
type Label = usize;

/// How far a conditional jump goes: 255, less the few instructions that may still come between.
const REACH: usize = 250;

impl Tail {
    fn push(&mut self, instruction: Instruction) -> Label {
        self.instructions.push(instruction);
        self.instructions.len() - 1
    }

    /// The same place, or a jump to it, within reach of a conditional jump.
    fn near(&mut self, label: Label) -> Label {
        let over = self.instructions.len() - label - 1;
        if over <= REACH { label } else { self.push(plain(JUMP, over as u32)) }
    }

    /// Makes the program go on there.
    fn go(&mut self, label: Label) {
        let over = self.instructions.len() - label - 1;
        if over > 0 {
            self.push(plain(JUMP, over as u32));
        }
    }

    /// Jumps to `yes` or `no`, both near, by a comparison of the accumulator.
    fn branch(&mut self, code: u16, k: Constant, yes: Label, no: Label) -> Label {
        let over = |label: Label| (self.instructions.len() - label - 1) as u8;
        let instruction = jump(code, over(yes), over(no), k);
        self.push(instruction)
    }

    /// The part that finds the range of the number in the accumulator.
    fn search(&mut self, ranges: &[(u32, Verdict)]) -> Label {
        if let [(_, verdict)] = ranges {
            return self.answer(verdict);
        }
        let (left, right) = ranges.split_at(ranges.len() / 2);
        let right_label = self.search(right);
        let left_label = self.search(left);
        let (yes, no) = (self.near(right_label), self.near(left_label));
        self.branch(AT_LEAST, Constant::Number(right[0].0), yes, no)
    }

    /// The part that gives this answer.
    fn answer(&mut self, verdict: &Verdict) -> Label {
        let known = self.answers.iter().rev().find(|(other, _)| other == verdict).map(|(_, label)| *label);
        if let Some(label) = known.filter(|label| self.instructions.len() - label <= REACH) {
            return label;
        }
        let label = match verdict {
            Verdict::Allow => self.push(plain(RETURN, RET_ALLOW)),
            Verdict::Errno(number) => self.push(plain(RETURN, RET_ERRNO | u32::from(*number))),
            Verdict::When(cases, number) => {
                let mut label = self.answer(&Verdict::Errno(*number));
                for at in (0..cases.len()).rev() {
                    let loaded = at.checked_sub(1).and_then(|before| left_in_accumulator(&cases[before]));
                    label = self.case(&cases[at], loaded, label);
                }
                label
            }
        };
        self.answers.push((verdict.clone(), label));
        label
    }

    /// The part that allows if all conditions hold, and goes to `otherwise` if one does not. `loaded` is the argument that the accumulator holds.
    fn case(&mut self, case: &[Condition], loaded: Option<u8>, otherwise: Label) -> Label {
        let mut label = self.answer(&Verdict::Allow);
        for (at, condition) in case.iter().enumerate().rev() {
            let (yes, no) = (self.near(label), self.near(otherwise));
            let arg = condition.arg();
            label = match *condition {
                Condition::Bits { mask, value, .. } => {
                    let test = self.branch(EQUAL, Constant::Number(value), yes, no);
                    if mask == u32::MAX { test } else { self.push(plain(AND, mask)) }
                }
                Condition::Between { low, high, .. } if low == high => self.branch(EQUAL, Constant::Number(low), yes, no),
                Condition::Between { low, high, .. } => {
                    let upper = self.branch(GREATER, Constant::Number(high), no, yes);
                    self.branch(AT_LEAST, Constant::Number(low), upper, no)
                }
                Condition::OwnPid { .. } => self.branch(EQUAL, Constant::OwnPid, yes, no),
                Condition::Whole { value, .. } => {
                    self.whole(arg, [Constant::Number(value as u32), Constant::Number((value >> 32) as u32)], yes, no)
                }
                Condition::Token { .. } => self.whole(arg, [Constant::TokenLow, Constant::TokenHigh], yes, no),
            };
            if at > 0 || loaded != Some(arg) {
                label = self.load(low_half(arg), label);
            }
        }
        label
    }

    /// Goes to `yes` if both halves of an argument, of which the lower one is loaded, are these.
    fn whole(&mut self, arg: u8, [low, high]: [Constant; 2], yes: Label, no: Label) -> Label {
        let upper = self.branch(EQUAL, high, yes, no);
        let upper = self.load(low_half(arg) + 4, upper);
        self.branch(EQUAL, low, upper, no)
    }

    /// Loads a word and goes on there, which must be what was written last.
    fn load(&mut self, word: u32, then: Label) -> Label {
        debug_assert_eq!(then + 1, self.instructions.len());
        self.push(plain(LOAD, word))
    }
}

/// The argument that is in the accumulator when this case did not hold: known if there was one test of it, and no mask.
fn left_in_accumulator(case: &[Condition]) -> Option<u8> {
    match case {
        [Condition::Bits { arg, mask: u32::MAX, .. } | Condition::Between { arg, .. } | Condition::OwnPid { arg }] => Some(*arg),
        _ => None,
    }
}

impl Condition {
    fn arg(&self) -> u8 {
        match self {
            Condition::Bits { arg, .. } | Condition::Between { arg, .. } | Condition::Whole { arg, .. } => *arg,
            Condition::OwnPid { arg } | Condition::Token { arg } => *arg,
        }
    }
}

/// Where the lower half of an argument lies. Both architectures we know are little-endian.
fn low_half(arg: u8) -> u32 {
    ARGUMENTS + 8 * u32::from(arg)
}

fn plain(code: u16, k: u32) -> Instruction {
    jump(code, 0, 0, Constant::Number(k))
}

fn jump(code: u16, jt: u8, jf: u8, k: Constant) -> Instruction {
    Instruction { code, jt, jf, k }
}

#[cfg(test)]
mod tests;
