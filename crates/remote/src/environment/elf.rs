//! What an ELF file is for: the kind of computer, the C library, and which of its versions. The files may be anything. Pure.
//!
//! Layouts are those of elf(5); the table of needed versions is that of the Linux Standard Base, "Symbol Versioning".

use std::fmt;

/// `PT_LOAD`.
const LOAD: u64 = 1;
/// `PT_DYNAMIC`.
const DYNAMIC: u64 = 2;
/// `PT_INTERP`.
const INTERP: u64 = 3;
/// The most entries of any table that are looked at.
const ENTRIES: u64 = 4_096;

/// For what kind of computer a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Machine {
    /// 32 or 64.
    pub bits: u8,
    /// Whether numbers have their smallest byte first.
    pub little: bool,
    /// `e_machine`.
    pub number: u16,
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match (self.number, self.bits, self.little) {
            (62, 64, _) => "x86_64",
            (62, ..) => "x32",
            (183, _, true) => "aarch64",
            (3, ..) => "i386",
            (40, ..) => "arm",
            (243, 64, _) => "riscv64",
            (21, _, true) => "ppc64le",
            (22, ..) => "s390x",
            (258, 64, _) => "loongarch64",
            (number, bits, _) => return write!(f, "machine {number} with {bits} bits"),
        };
        f.write_str(name)
    }
}

/// A C library.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Libc {
    /// GNU's.
    Glibc,
    /// musl.
    Musl,
}

impl fmt::Display for Libc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if *self == Self::Glibc { "glibc" } else { "musl" })
    }
}

/// What a file says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Elf {
    /// For which computers.
    pub machine: Machine,
    /// With which C library, if it is linked with one.
    pub libc: Option<Libc>,
    /// Which version of glibc it needs at least.
    pub glibc: Option<(u32, u32)>,
    /// Whether it is a shared object.
    pub shared: bool,
}

/// Numbers and names at places in a file that may be too short.
struct Bytes<'a> {
    file: &'a [u8],
    machine: Machine,
}

/// A header of a segment: its kind, where it is in the file and in memory, its size.
struct Segment {
    kind: u64,
    offset: u64,
    address: u64,
    size: u64,
}

impl<'a> Bytes<'a> {
    fn number(&self, at: u64, length: u64) -> Option<u64> {
        let start = usize::try_from(at).ok()?;
        let bytes = self.file.get(start..start.checked_add(length as usize)?)?;
        let add = |sum: u64, byte: &u8| sum << 8 | u64::from(*byte);
        Some(if self.machine.little { bytes.iter().rev().fold(0, add) } else { bytes.iter().fold(0, add) })
    }

    /// A field whose place and length depend on the file's class: (32 bits, 64 bits).
    fn field(&self, base: u64, places: (u64, u64), lengths: (u64, u64)) -> Option<u64> {
        let (place, length) = if self.machine.bits == 64 { (places.1, lengths.1) } else { (places.0, lengths.0) };
        self.number(base.checked_add(place)?, length)
    }

    fn name(&self, at: u64) -> Option<&'a str> {
        let rest = self.file.get(usize::try_from(at).ok()?..)?;
        let end = rest.iter().take(300).position(|byte| *byte == 0)?;
        std::str::from_utf8(&rest[..end]).ok()
    }

    fn segments(&self) -> Option<Vec<Segment>> {
        let table = self.field(0, (28, 32), (4, 8))?;
        let size = self.field(0, (42, 54), (2, 2))?;
        let count = self.field(0, (44, 56), (2, 2))?;
        let mut all = Vec::new();
        for number in 0..count.min(ENTRIES) {
            let at = table.checked_add(number.checked_mul(size)?)?;
            all.push(Segment {
                kind: self.number(at, 4)?,
                offset: self.field(at, (4, 8), (4, 8))?,
                address: self.field(at, (8, 16), (4, 8))?,
                size: self.field(at, (16, 32), (4, 8))?,
            });
        }
        Some(all)
    }
}

/// Where an address is in the file.
fn place(segments: &[Segment], address: u64) -> Option<u64> {
    let one = segments.iter().find(|one| one.kind == LOAD && address >= one.address && address - one.address < one.size)?;
    one.offset.checked_add(address - one.address)
}

/// Reads a file, or at least its beginning: then what is farther behind is not known.
pub fn read(file: &[u8]) -> Option<Elf> {
    let (class, order) = (*file.get(4)?, *file.get(5)?);
    if !file.starts_with(b"\x7fELF") || !matches!(class, 1 | 2) || !matches!(order, 1 | 2) {
        return None;
    }
    let machine = Machine { bits: if class == 2 { 64 } else { 32 }, little: order == 1, number: 0 };
    let bytes = Bytes { file, machine };
    let kind = bytes.number(16, 2)?;
    let machine = Machine { number: bytes.number(18, 2)? as u16, ..machine };
    let bytes = Bytes { file, machine };
    let mut elf = Elf { machine, libc: None, glibc: None, shared: kind == 3 };
    let segments = bytes.segments().unwrap_or_default();
    if let Some(interp) = segments.iter().find(|one| one.kind == INTERP) {
        let loader = bytes.name(interp.offset).unwrap_or_default();
        elf.libc = match loader {
            loader if loader.contains("ld-musl") => Some(Libc::Musl),
            loader if loader.contains("/ld-linux") || loader.contains("/ld64.so") || loader.ends_with("/ld.so.1") => Some(Libc::Glibc),
            _ => None,
        };
    }
    dynamic(&bytes, &segments, &mut elf);
    Some(elf)
}

/// What the dynamic section tells: which C library is needed, and which of its versions.
fn dynamic(bytes: &Bytes<'_>, segments: &[Segment], elf: &mut Elf) -> Option<()> {
    let section = segments.iter().find(|one| one.kind == DYNAMIC)?;
    let word = if bytes.machine.bits == 64 { 8 } else { 4 };
    let (mut strings, mut versions, mut count, mut needed) = (None, None, 0, Vec::new());
    for number in 0..(section.size / (2 * word)).min(ENTRIES) {
        let at = section.offset.checked_add(number * 2 * word)?;
        let value = bytes.number(at.checked_add(word)?, word)?;
        match bytes.number(at, word)? {
            0 => break,
            1 => needed.push(value),
            5 => strings = place(segments, value),
            0x6fff_fffe => versions = place(segments, value),
            0x6fff_ffff => count = value,
            _ => {}
        }
    }
    let strings = strings?;
    for name in needed.into_iter().filter_map(|at| bytes.name(strings.checked_add(at)?)) {
        match name {
            "libc.so.6" => elf.libc = Some(Libc::Glibc),
            name if name == "libc.so" || name.starts_with("libc.musl-") => elf.libc = Some(Libc::Musl),
            _ => {}
        }
    }
    let mut at = versions?;
    for _ in 0..count.min(ENTRIES) {
        let mut one = at.checked_add(bytes.number(at.checked_add(8)?, 4)?)?;
        for _ in 0..bytes.number(at.checked_add(2)?, 2)? {
            let name = bytes.name(strings.checked_add(bytes.number(one.checked_add(8)?, 4)?)?).unwrap_or_default();
            if let Some(version) = name.strip_prefix("GLIBC_").and_then(pair) {
                elf.glibc = elf.glibc.max(Some(version));
            }
            match bytes.number(one.checked_add(12)?, 4)? {
                0 => break,
                next => one = one.checked_add(next)?,
            }
        }
        match bytes.number(at.checked_add(12)?, 4)? {
            0 => break,
            next => at = at.checked_add(next)?,
        }
    }
    Some(())
}

/// `2.34` and `2.3.4` as numbers; `PRIVATE` is none.
pub fn pair(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// What runs Lua on a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Computer {
    /// Its kind, from the interpreter's own file; not known where that cannot be read.
    pub machine: Option<Machine>,
    /// Its C library, likewise.
    pub libc: Option<Libc>,
    /// The version of its glibc, if it tells.
    pub glibc: Option<(u32, u32)>,
}

impl fmt::Display for Computer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.machine {
            Some(machine) => write!(f, "{machine}")?,
            None => f.write_str("a computer of unknown kind")?,
        }
        match (self.libc, self.glibc) {
            (Some(Libc::Glibc), Some((major, minor))) => write!(f, " with glibc {major}.{minor}"),
            (Some(libc), _) => write!(f, " with {libc}"),
            (None, _) => Ok(()),
        }
    }
}

/// Whether a C module can be loaded there, as far as its header tells.
///
/// # Errors
/// Why not, as the end of a sentence that begins with the module.
pub fn fits(module: &[u8], there: &Computer) -> Result<(), String> {
    let Some(module) = read(module).filter(|module| module.shared) else { return Err("is no shared object".into()) };
    if there.machine.is_some_and(|machine| machine != module.machine) {
        return Err(format!("was compiled for {}", module.machine));
    }
    if let (Some(has), Some(needs)) = (there.libc, module.libc)
        && has != needs
    {
        return Err(format!("was compiled for {needs}"));
    }
    match (module.glibc, there.glibc) {
        (Some(needs), Some(has)) if needs > has => Err(format!("needs glibc {}.{}", needs.0, needs.1)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn here() -> Vec<u8> {
        std::fs::read(std::env::current_exe().unwrap()).unwrap()
    }

    #[test]
    fn a_program_of_this_computer_is_read() {
        let elf = read(&here()).unwrap();
        assert_eq!((elf.machine.bits, elf.libc), (64, Some(Libc::Glibc)));
        assert!(elf.glibc.is_some_and(|(major, minor)| major == 2 && minor >= 17), "{elf:?}");
        // The beginning of the file tells the loader.
        assert_eq!(read(&here()[..4096]).unwrap().libc, Some(Libc::Glibc));
    }

    #[test]
    fn what_does_not_fit_says_why() {
        let mut module = here();
        module[16] = 3;
        let elf = read(&module).unwrap();
        let there = Computer { machine: Some(elf.machine), libc: Some(Libc::Glibc), glibc: elf.glibc };
        assert_eq!(fits(&module, &there), Ok(()));
        assert_eq!(fits(&module, &Computer { machine: None, libc: None, glibc: None }), Ok(()));
        assert_eq!(fits(&module, &Computer { libc: Some(Libc::Musl), ..there.clone() }), Err("was compiled for glibc".into()));
        assert!(fits(&module, &Computer { glibc: Some((2, 2)), ..there.clone() }).unwrap_err().starts_with("needs glibc 2."));
        let other = Computer { machine: Some(Machine { number: 183, ..elf.machine }), ..there };
        assert_eq!(fits(&module, &other), Err(format!("was compiled for {}", elf.machine)));
        assert_eq!(other.to_string().split(' ').next(), Some("aarch64"));
        assert_eq!(fits(b"#!/bin/sh", &other), Err("is no shared object".into()));
    }

    #[test]
    fn spoilt_files_are_survived() {
        let good = here();
        let mut hostile = vmoon_driver_sim::Hostile::new(11);
        for _ in 0..2_000 {
            let mut bytes = good[..4096].to_vec();
            hostile.spoil(&mut bytes);
            let _ = read(&bytes);
        }
        for at in 0..200 {
            let mut bytes = good.clone();
            bytes[at] = 0xff;
            let _ = read(&bytes);
        }
    }
}
