//! Manifests that are plain data, as the programs write them that make manifests: assignments of tables of strings, without escapes, comments or
//! expressions. They are read here, in a tenth of the time that an evaluation in a process of its own takes. Nothing is evaluated; whatever is not exactly of
//! this form is left to the evaluator.

use super::{Listed, Manifest};
use crate::name::RockName;

/// Tables in tables beyond this are left to the evaluator.
const MAX_DEPTH: usize = 8;

/// Reads plain text; `None` if it is not plain.
pub(super) fn read(text: &[u8]) -> Option<Manifest> {
    let mut reader = Reader { text, at: 0 };
    let mut manifest = Manifest::default();
    let mut has_repository = false;
    reader.space();
    while reader.at < text.len() {
        let name = reader.word()?;
        reader.token(b'=')?;
        match name {
            "repository" => {
                has_repository = true;
                reader.table(|reader, name| rock(reader, &mut manifest, name?))?;
            }
            "modules" => reader.table(|reader, module| {
                let module = module?;
                reader.table(|reader, key| {
                    let rock = reader.string()?;
                    if key.is_none() {
                        manifest.module(module, rock);
                    }
                    Some(())
                })
            })?,
            _ => reader.skip(0)?,
        }
        if reader.peek() == Some(b';') {
            reader.token(b';')?;
        }
    }
    has_repository.then_some(manifest)
}

/// `["VERSION"] = { { arch = "ARCH" }, … }, …`
fn rock(reader: &mut Reader<'_>, manifest: &mut Manifest, name: &str) -> Option<()> {
    let name = name.parse::<RockName>().ok();
    manifest.passed_over += usize::from(name.is_none());
    let mut versions = Vec::new();
    let mut odd = 0;
    reader.table(|reader, version| {
        let version = version?;
        let mut archs = Vec::new();
        reader.table(|reader, key| {
            // Only a list has no keys.
            if key.is_some() {
                return None;
            }
            let mut arch = None;
            reader.table(|reader, field| {
                if field == Some("arch") {
                    arch = Some(reader.string()?);
                    Some(())
                } else {
                    reader.skip(0)
                }
            })?;
            match arch {
                Some(arch) => archs.extend(arch.parse().ok()),
                None => odd += 1,
            }
            Some(())
        })?;
        match version.parse() {
            Ok(version) if !archs.is_empty() => versions.push(Listed { version, archs }),
            _ => odd += 1,
        }
        Some(())
    })?;
    manifest.passed_over += odd;
    manifest.add(name, versions);
    Some(())
}

struct Reader<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn space(&mut self) {
        while self.peek().is_some_and(|byte| byte.is_ascii_whitespace()) {
            self.at += 1;
        }
    }

    /// This byte, and the white space after it.
    fn token(&mut self, byte: u8) -> Option<()> {
        if self.peek()? != byte {
            return None;
        }
        self.at += 1;
        self.space();
        Some(())
    }

    /// A name of Lua.
    fn word(&mut self) -> Option<&'a str> {
        let rest = &self.text[self.at..];
        let end = rest.iter().position(|byte| !(byte.is_ascii_alphanumeric() || *byte == b'_')).unwrap_or(rest.len());
        if !rest.first().is_some_and(|byte| byte.is_ascii_alphabetic() || *byte == b'_') {
            return None;
        }
        self.at += end;
        self.space();
        std::str::from_utf8(&rest[..end]).ok()
    }

    /// A string in double quotes without escapes and line ends.
    fn string(&mut self) -> Option<&'a str> {
        if self.peek()? != b'"' {
            return None;
        }
        let rest = &self.text[self.at + 1..];
        let end = rest.iter().position(|byte| matches!(byte, b'"' | b'\\' | b'\n' | b'\r'))?;
        if rest[end] != b'"' {
            return None;
        }
        self.at += end + 2;
        self.space();
        std::str::from_utf8(&rest[..end]).ok()
    }

    /// A table: the function reads each value, and is given its key if it has one.
    fn table(&mut self, mut value: impl FnMut(&mut Self, Option<&'a str>) -> Option<()>) -> Option<()> {
        self.token(b'{')?;
        while self.peek()? != b'}' {
            let key = match self.peek()? {
                b'[' => {
                    self.token(b'[')?;
                    let key = self.string()?;
                    self.token(b']')?;
                    self.token(b'=')?;
                    Some(key)
                }
                b'"' | b'{' => None,
                // A value may be a name too (`true`), but then it is not plain.
                _ => {
                    let key = self.word()?;
                    self.token(b'=')?;
                    Some(key)
                }
            };
            value(self, key)?;
            match self.peek()? {
                separator @ (b',' | b';') => self.token(separator)?,
                b'}' => {}
                _ => return None,
            }
        }
        self.token(b'}')
    }

    /// A string or a table of such.
    fn skip(&mut self, depth: usize) -> Option<()> {
        match self.peek()? {
            b'"' => self.string().map(drop),
            b'{' if depth < MAX_DEPTH => self.table(|reader, _| reader.skip(depth + 1)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "commands = {}\nmodules = { ['x'] = 1 }\n";
    const PLAIN: &str = "commands = { lua2json = { \"lua-cjson/2.1-1\" } }\nmodules = {\n   cjson = {\n      \"lua-cjson/2.1-1\"\n   },\n   [\"cjson.util\"] = { \"lua-cjson/2.1-1\", }\n}\n\
        repository = {\n   [\"lua-cjson\"] = {\n      [\"2.1-1\"] = {\n         {\n            arch = \"rockspec\"\n         }, {\n            arch = \"src\", modules = { a = \"b\" };\n         }\n      }\n   },\n\
        \x20  lpeg = { [\"../1\"] = { { arch = \"src\" } }, [\"1-1\"] = { { arch = \"src\" }, {} } }\n}\n";

    #[test]
    fn plain_data_is_read_without_an_evaluation() {
        let manifest = read(PLAIN.as_bytes()).unwrap();
        assert_eq!(manifest.rocks["lua-cjson"][0].archs.len(), 2);
        assert_eq!((manifest.rocks["lpeg"].len(), manifest.passed_over), (1, 2));
        assert_eq!(manifest.modules.len(), 2);
        assert!(read(b"repository = {}").is_some());
    }

    #[test]
    fn what_is_not_plain_is_left_to_the_evaluator() {
        for text in [
            TEXT,
            "",
            "modules = {}",
            "repository = { a = { [\"1-1\"] = { { arch = \"s\\114c\" } } } }",
            "repository = { a = { [\"1-1\"] = { { arch = \"src\" .. x } } } }",
            "repository = { a = { [\"1-1\"] = { { arch = f() } } } }",
            "repository = { a = { [1] = {} } }",
            "repository = { { [\"1-1\"] = {} } }",
            "repository = {} -- comment",
            "local repository = {}",
            "repository = {} repository.a = {}",
            "repository = {",
            "repository = { a = { [\"1-1\"] = { { arch = \"src",
            "return {}",
        ] {
            assert!(read(text.as_bytes()).is_none(), "{text}");
        }
        for cut in 0..PLAIN.trim_end().len() {
            assert!(read(&PLAIN.as_bytes()[..cut]).is_none(), "{cut}");
        }
        let deep = format!("commands = {}{} repository = {{}}", "{".repeat(100_000), "}".repeat(100_000));
        assert!(read(deep.as_bytes()).is_none());
    }
}
