//! The compiled program, run by a small interpreter of classic BPF, against the verdicts it was made from.

use super::*;

const ARCH: u32 = 0xC000_003E;
const PID: u32 = 4321;
const TOKEN: u64 = 0x1234_5678_9ABC_DEF0;

/// Runs a program on one call: what seccomp(2) would do.
fn run(code: &[libc::sock_filter], arch: u32, number: u32, args: [u64; 6]) -> u32 {
    let mut data = [0u32; 16];
    (data[0], data[1]) = (number, arch);
    for (at, arg) in args.iter().enumerate() {
        (data[4 + 2 * at], data[5 + 2 * at]) = (*arg as u32, (*arg >> 32) as u32);
    }
    let (mut at, mut a) = (0usize, 0u32);
    loop {
        let i = &code[at];
        at += 1;
        let mut branch = |taken: bool| at += usize::from(if taken { i.jt } else { i.jf });
        match i.code {
            LOAD => a = data[i.k as usize / 4],
            AND => a &= i.k,
            JUMP => at += i.k as usize,
            EQUAL => branch(a == i.k),
            GREATER => branch(a > i.k),
            AT_LEAST => branch(a >= i.k),
            RETURN => return i.k,
            other => panic!("no such code: {other}"),
        }
    }
}

fn errno(number: i32) -> u32 {
    RET_ERRNO | number as u32
}

#[test]
fn every_number_gets_its_verdict() {
    // Enough single ranges that jumps pass 255 instructions.
    let mut verdicts = BTreeMap::new();
    for number in (0..440).step_by(2) {
        verdicts.insert(number, if number % 3 == 0 { Verdict::Errno(38) } else { Verdict::Allow });
    }
    let program = compile(ARCH, &verdicts, libc::EPERM as u16, 450);
    let code = program.for_process(PID, TOKEN);
    assert!(program.len() > 300, "the long jump is tested, too: {}", program.len());
    for number in (0..1000).chain([X32 - 1, X32, X32 | 39, u32::MAX]) {
        let wanted = match verdicts.get(&number) {
            Some(Verdict::Allow) => RET_ALLOW,
            Some(Verdict::Errno(e)) => errno(i32::from(*e)),
            _ if number >= X32 => errno(libc::EPERM),
            _ if number < 450 => errno(libc::EPERM),
            _ => errno(libc::ENOSYS),
        };
        assert_eq!(run(&code, ARCH, number, [0; 6]), wanted, "call {number}");
    }
    assert_eq!(run(&code, 0x4000_0003, 2, [0; 6]), errno(libc::EPERM), "i386 is refused whatever the number");
}

#[test]
fn conditions_look_at_the_half_that_counts() {
    let bits = |arg, mask, value| Condition::Bits { arg, mask, value };
    let cases = vec![
        vec![bits(0, u32::MAX, 2), bits(1, 0xf, 1)],
        vec![Condition::OwnPid { arg: 0 }],
        vec![Condition::Between { arg: 2, low: 36, high: 38 }],
        vec![Condition::Whole { arg: 4, value: 0xAB_0000_0001 }],
        vec![Condition::Token { arg: 5 }],
    ];
    let code = compile(ARCH, &BTreeMap::from([(7, Verdict::When(cases, 13))]), 1, 10).for_process(PID, TOKEN);
    let allowed = |args: [u64; 6]| match run(&code, ARCH, 7, args) {
        RET_ALLOW => true,
        other => {
            assert_eq!(other, errno(13));
            false
        }
    };
    assert!(allowed([2, 0x80801, 0, 0, 0, 0]));
    assert!(allowed([2 | 1 << 40, 0x80801, 0, 0, 0, 0]), "an int: the kernel does not see the upper half either");
    assert!(!allowed([2, 2, 0, 0, 0, 0]));
    assert!(allowed([u64::from(PID), 9, 0, 0, 0, 0]));
    assert!(!allowed([0; 6]));
    for (value, wanted) in [(35, false), (36, true), (38, true), (39, false)] {
        assert_eq!(allowed([0, 0, value, 0, 0, 0]), wanted, "{value}");
    }
    assert!(allowed([0, 0, 0, 0, 0xAB_0000_0001, 0]));
    assert!(allowed([0, 0, 0, 0, 0, TOKEN]));
    for wrong in [TOKEN ^ 1, TOKEN ^ 1 << 63, TOKEN >> 32, TOKEN & 0xffff_ffff] {
        assert!(!allowed([0, 0, 0, 0, 0, wrong]), "{wrong:x}");
    }
    assert!(!allowed([0, 0, 0, 0, 1, 0]) && !allowed([0, 0, 0, 0, 0xAB_0000_0000, 0]));
}

#[test]
fn nothing_named_means_nothing_allowed() {
    let code = compile(ARCH, &BTreeMap::new(), 1, 0).for_process(PID, TOKEN);
    for number in [0, 1, 500] {
        assert_ne!(run(&code, ARCH, number, [0; 6]), RET_ALLOW);
    }
}
