//! What a ready C module is for: looks at the symbols of a shared object, which may be anything. Pure.

use super::headers::functions;
use crate::lua_version::LuaVersion;

/// `EM_X86_64`, `EM_AARCH64` and others of elf(5).
#[cfg(target_arch = "x86_64")]
const MACHINE: u64 = 62;
/// `EM_X86_64`, `EM_AARCH64` and others of elf(5).
#[cfg(target_arch = "aarch64")]
const MACHINE: u64 = 183;

/// The most symbols that are looked at.
const SYMBOLS: usize = 200_000;

/// Little-endian numbers and names at places in a file that may be too short.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn number(&self, at: u64, length: u64) -> Option<u64> {
        let start = usize::try_from(at).ok()?;
        let bytes = self.0.get(start..start.checked_add(length as usize)?)?;
        Some(bytes.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
    }

    fn name(&self, at: u64) -> Option<&'a str> {
        let rest = self.0.get(usize::try_from(at).ok()?..)?;
        let end = rest.iter().take(300).position(|byte| *byte == 0)?;
        std::str::from_utf8(&rest[..end]).ok()
    }
}

/// The names that a shared object wants from others (`SHT_DYNSYM`, symbols without a section); `None` if it is none of this machine.
fn wanted(file: &[u8]) -> Option<Vec<&str>> {
    let bytes = Bytes(file);
    if !file.starts_with(b"\x7fELF\x02\x01") || bytes.number(16, 2)? != 3 || bytes.number(18, 2)? != MACHINE {
        return None;
    }
    let (table, size, count) = (bytes.number(40, 8)?, bytes.number(58, 2)?, bytes.number(60, 2)?);
    let section = |number: u64| table.checked_add(number.checked_mul(size)?);
    let mut names = Vec::new();
    for number in 0..count {
        let header = section(number)?;
        if bytes.number(header.checked_add(4)?, 4)? != 11 {
            continue;
        }
        let (offset, length, link) = (
            bytes.number(header.checked_add(24)?, 8)?,
            bytes.number(header.checked_add(32)?, 8)?,
            bytes.number(header.checked_add(40)?, 4)?,
        );
        let strings = bytes.number(section(link)?.checked_add(24)?, 8)?;
        for symbol in (0..length / 24).take(SYMBOLS) {
            let at = offset.checked_add(symbol * 24)?;
            if bytes.number(at.checked_add(6)?, 2)? == 0 {
                names.push(bytes.name(strings.checked_add(bytes.number(at, 4)?)?)?);
            }
        }
    }
    Some(names)
}

/// Whether a C module can be loaded by this version of Lua on this machine.
///
/// # Errors
/// Why not, as the end of a sentence that begins with the module.
pub(super) fn fits(file: &[u8], lua: LuaVersion) -> Result<(), String> {
    let wanted = wanted(file).ok_or("is no shared object for this kind of computer")?;
    let of_lua = |name: &&str| name.starts_with("lua_") || name.starts_with("luaL_") || name.starts_with("luaopen_");
    let known = |name: &str| LuaVersion::ALL.iter().any(|lua| functions(*lua).contains(name));
    let missing: Vec<&str> = wanted.into_iter().filter(of_lua).filter(|name| known(name) && !functions(lua).contains(name)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let others = LuaVersion::ALL.iter().filter(|lua| missing.iter().all(|name| functions(**lua).contains(name)));
    let others: Vec<&str> = others.map(|lua| lua.as_str()).collect();
    let shown = missing.iter().take(3).copied().collect::<Vec<_>>().join(", ");
    Err(format!(
        "was compiled for Lua {} (it needs {shown}), not for {lua}",
        if others.is_empty() { "of another kind".into() } else { others.join(" or ") }
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spoilt_files_are_no_modules() {
        assert!(fits(b"", LuaVersion::V54).is_err());
        assert!(fits(b"\x7fELF\x02\x01", LuaVersion::V54).is_err());
        let mut file = vec![0xff; 4096];
        file[..6].copy_from_slice(b"\x7fELF\x02\x01");
        file[16..20].copy_from_slice(&[3, 0, MACHINE as u8, 0]);
        for at in (40..64).step_by(2) {
            for value in [0, 0x10, 0x80] {
                file[at] = value;
                let _ = fits(&file, LuaVersion::V54);
            }
        }
    }
}
