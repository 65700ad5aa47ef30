//! Where a session's Lua looks for modules, and how it is told of other places while it runs.

pub use crate::program::Modules;

/// A program for a session: it sets `package.path` and `package.cpath` to its first two arguments and gives a list of the modules that are
/// loaded already and lie in those templates, or in those of its third argument, which were used before.
pub const SWITCH: &str = include_str!("lua/switch.lua");

impl Modules {
    /// The templates for a tree laid out as LuaRocks does it, `share/lua/VERSION` and `lib/lua/VERSION`. They stand in the place of what is
    /// installed on the computer, so that a program finds the same everywhere; `here` is whether modules beside the program, in its
    /// current directory, are looked for, too.
    ///
    /// # Errors
    /// A sentence: the path cannot be part of such a list.
    pub fn of_tree(tree: &str, lua: &str, here: bool) -> Result<Self, String> {
        if tree.contains([';', '?', '\n']) {
            return Err(format!("Lua cannot look for modules in {}: the path has ; or ? or a line feed", tree.escape_debug()));
        }
        let mut path = format!("{tree}/share/lua/{lua}/?.lua;{tree}/share/lua/{lua}/?/init.lua");
        let mut cpath = format!("{tree}/lib/lua/{lua}/?.so");
        if here {
            path.push_str(";./?.lua;./?/init.lua");
            cpath.push_str(";./?.so");
        }
        Ok(Self { path, cpath })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_would_be_read_otherwise_is_refused() {
        let modules = Modules::of_tree("/e", "5.4", true).unwrap();
        assert!(modules.path.starts_with("/e/share/lua/5.4/?.lua;") && modules.path.ends_with(";./?/init.lua"));
        assert_eq!(Modules::of_tree("/e", "5.1", false).unwrap().cpath, "/e/lib/lua/5.1/?.so");
        for bad in ["/a;b", "/a?b", "/a\nb"] {
            assert!(Modules::of_tree(bad, "5.4", true).is_err());
        }
    }
}
