//! A rocks server to measure with: a directory with a manifest, rockspecs and archives. Rocks of the shapes that users install, made here, so that every
//! computer measures the same.

use flate2::{Compression, write::GzEncoder};
use std::{
    collections::BTreeMap,
    fmt::Write as _,
    io::Write as _,
    path::{Path, PathBuf},
};
use vmoon_core::{Error, Result};

/// The directory.
pub(super) struct Mirror {
    dir: PathBuf,
    listed: BTreeMap<String, Vec<String>>,
}

impl Mirror {
    /// An empty one.
    ///
    /// # Errors
    /// Those of the file system.
    pub(super) fn at(dir: &Path) -> Result<Self> {
        vmoon_sys::paths::private_dir(dir)?;
        Ok(Self { dir: dir.to_owned(), listed: BTreeMap::new() })
    }

    /// Its address.
    pub(super) fn url(&self) -> String {
        format!("file://{}", self.dir.display())
    }

    /// Puts a rock there: its modules are these files, by module; what ends with `.c` is compiled.
    ///
    /// # Errors
    /// Those of the file system.
    pub(super) fn add(&mut self, name: &str, version: &str, needs: &[String], modules: &[(String, String, String)]) -> Result<()> {
        let folder = format!("{name}-{version}");
        let files: Vec<(String, &str)> = modules.iter().map(|(_, file, text)| (format!("{folder}/{file}"), text.as_str())).collect();
        let archive = format!("{folder}.tar.gz");
        self.write(&archive, &packed(&files)?)?;
        let mut spec = format!(
            "package = \"{name}\"\nversion = \"{version}-1\"\nsource = {{ url = \"{}/{archive}\", dir = \"{folder}\" }}\n\
             description = {{ summary = \"A rock to measure with\" }}\ndependencies = {{ \"lua >= 5.1\"",
            self.url()
        );
        for need in needs {
            // Writing to a string cannot fail.
            let _ = write!(spec, ", \"{need}\"");
        }
        spec.push_str(" }\nbuild = { type = \"builtin\", modules = {\n");
        for (module, file, _) in modules {
            let _ = writeln!(spec, "  [\"{module}\"] = \"{file}\",");
        }
        spec.push_str("} }\n");
        self.write(&format!("{folder}-1.rockspec"), spec.as_bytes())?;
        self.listed.entry(name.to_owned()).or_default().push(format!("{version}-1"));
        Ok(())
    }

    /// Writes the manifest.
    ///
    /// # Errors
    /// Those of the file system.
    pub(super) fn publish(&self) -> Result<()> {
        let mut text = String::from("commands = {}\nmodules = {}\nrepository = {\n");
        for (name, versions) in &self.listed {
            let _ = writeln!(text, "  [\"{name}\"] = {{");
            for version in versions {
                let _ = writeln!(text, "    [\"{version}\"] = {{ {{ arch = \"rockspec\" }} }},");
            }
            text.push_str("  },\n");
        }
        text.push_str("}\n");
        // luarocks looks for the one of its Lua version only.
        self.write("manifest-5.4", text.as_bytes())?;
        self.write("manifest", text.as_bytes())
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        vmoon_sys::atomic::write(&self.dir.join(name), bytes)
    }
}

/// A compressed archive of these files.
fn packed(files: &[(String, &str)]) -> Result<Vec<u8>> {
    let mut out = GzEncoder::new(Vec::new(), Compression::fast());
    out.write_all(&tar(files)).and_then(|()| out.finish()).map_err(|error| Error::io("pack an archive", error))
}

/// An archive of these files, in the oldest format that all read.
fn tar(files: &[(String, &str)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (path, text) in files {
        let mut header = [0_u8; 512];
        let mut put = |at: usize, field: &str| header[at..at + field.len()].copy_from_slice(field.as_bytes());
        put(0, path);
        put(100, "0000644\0");
        put(108, "0000000\0");
        put(116, "0000000\0");
        put(124, &format!("{:011o}\0", text.len()));
        put(136, "00000000000\0");
        put(148, "        ");
        put(156, "0");
        put(257, "ustar\u{0}00");
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        out.extend_from_slice(&header);
        out.extend_from_slice(text.as_bytes());
        out.resize(out.len().next_multiple_of(512), 0);
    }
    out.resize(out.len() + 1024, 0);
    out
}

/// A manifest of as many lines as the public server's has, in its form.
pub(super) fn public_sized() -> String {
    let mut text = String::from("commands = {}\nmodules = {}\nrepository = {\n");
    let (mut lines, mut rock) = (3, 0);
    while lines < 285_000 {
        let _ = writeln!(text, "   [\"rock-{rock}\"] = {{");
        for version in 0..(rock * 7 % 14 + 1) {
            let _ = write!(
                text,
                "      [\"{}.{}.{version}-1\"] = {{\n         {{\n            arch = \"rockspec\"\n         }}, {{\n            arch = \"src\"\n         }}\n      }},\n",
                version / 4,
                version % 4
            );
            lines += 7;
        }
        text.push_str("   },\n");
        lines += 2;
        rock += 1;
    }
    text.push_str("}\n");
    text
}
