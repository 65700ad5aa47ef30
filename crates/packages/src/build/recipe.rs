//! How the C modules of a rock are compiled on another computer: its sources, our headers and the compiler's arguments. Nothing is compiled here.

use super::{Builder, Order, archive, builtin, external::External, headers, patch, stage::wrong};
use crate::{cache::walk, lock::Arch};
use std::{fs, path::Path};
use vmoon_core::{Error, Result, name::escape};
use vmoon_sys::stop::Stop;

/// The most that the sources of a rock may weigh to be sent somewhere, bytes.
const WEIGHT: u64 = 32 << 20;
/// Where the headers are, beside the sources.
const HEADERS: &str = "vmoon-headers";

/// What another computer needs to make the C modules of a rock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipe {
    /// Sources and headers, by their paths in one directory.
    pub files: Vec<(String, Vec<u8>)>,
    /// Each module's path in the tree, and the compiler's arguments in that directory but for where the result goes.
    pub modules: Vec<(String, Vec<String>)>,
}

impl Builder {
    /// The recipe of a rock.
    ///
    /// # Errors
    /// [`vmoon_core::Code::PackageBuild`] where it has no sources or is built by other means than a compiler's command line.
    pub fn recipe(&self, order: &Order<'_>, stop: &Stop) -> Result<Recipe> {
        if let Arch::Binary(_) | Arch::All = order.arch {
            return Err(wrong(format!(
                "the server has no source of {} {}, only what is ready for {}",
                order.name, order.version, order.arch
            )));
        }
        let work = self.cache.work()?;
        let read = |path: &Path| fs::read(path).map_err(|error| Error::io(format_args!("read {}", path.display()), error));
        let (text, rock) = match order.arch {
            Arch::Rockspec => (read(&order.rock.path)?, None),
            arch => {
                let rock = work.path().join("rock");
                archive::unpack(&order.rock.path, &arch.file_name(order.name, order.version), &rock, archive::Limits::default(), stop)?;
                let rockspec = rock.join(format!("{}-{}.rockspec", order.name, order.version));
                let rockspec = if rockspec.is_file() { rockspec } else { super::only_rockspec(&rock, order.name)? };
                (read(&rockspec)?, Some(rock))
            }
        };
        let spec = self.rockspec(&text, order.name, order.version)?;
        if !matches!(spec.build.kind.as_str(), "builtin" | "module") {
            return Err(wrong(format!("{} is built by {}, which is done on this computer only", order.name, escape(&spec.build.kind))));
        }
        let source = self.source(order, &spec, rock.as_deref(), &work, stop)?;
        patch::apply_all(&spec.build.patches, &source)?;
        let external = External::elsewhere(&spec, order.lua, Path::new(HEADERS));
        let mut files: Vec<(String, Vec<u8>)> = Vec::new();
        let mut weight = 0;
        let mut unread = None;
        walk(&source, &mut |path, meta| {
            let inside = path.strip_prefix(&source).ok().and_then(Path::to_str);
            // Links among sources lead to files that are sent anyway.
            let (Some(inside), true) = (inside, meta.is_file()) else { return };
            weight += meta.len();
            if weight > WEIGHT {
                return;
            }
            match read(path) {
                Ok(bytes) => files.push((inside.to_owned(), bytes)),
                Err(error) => unread = Some(error),
            }
        })?;
        if let Some(error) = unread {
            return Err(error);
        }
        if weight > WEIGHT {
            return Err(wrong(format!("the sources of {} have more than {WEIGHT} bytes", order.name)));
        }
        files.extend(headers::of(order.lua).map(|(name, text)| (format!("{HEADERS}/{name}"), text.as_bytes().to_vec())));
        let mut modules = Vec::new();
        for (name, module) in builtin::native(&spec, &source)? {
            let arguments = builtin::flags(&module, Path::new(HEADERS), &external)?;
            let arguments = arguments.into_iter().map(|argument| argument.into_string());
            let arguments: Result<Vec<String>, _> = arguments.collect();
            let arguments = arguments.map_err(|_| wrong(format!("the rockspec of {} has arguments that are no UTF-8", order.name)))?;
            modules.push((format!("lib/lua/{}/{}.so", order.lua, name.replace('.', "/")), arguments));
        }
        Ok(Recipe { files, modules })
    }
}
