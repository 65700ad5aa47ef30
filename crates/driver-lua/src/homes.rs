//! Where copies of machines work.
//!
//! What a confined process may open is bound to directories at the moment when it is confined, and can only shrink. So every machine that could be
//! copied is granted a *nursery* from its start, an empty directory `<state>/clones/<machine>/`, and each copy gets a *home* in the nursery of its
//! original: `<random>.<machine>/`, with its work directory and a nursery of its own. After the fork the copy gives up all but its home. The original
//! may not list its nursery (mode 0300, and it can neither change modes nor pass over them), and cannot guess 128 bits.
//!
//! A copy may outlive its original: what it needs is removed when it is deleted itself.

use crate::layout::{Layout, Record, remove_dir};
use rustix::{
    fs::{Mode, chmod, mkdir},
    io::Errno,
};
use std::{
    fs,
    path::{Path, PathBuf},
};
use vmoon_core::{Error, MachineId, Result};
use vmoon_sys::{paths, random};

/// The directory of all nurseries of machines that are no copies.
const CLONES: &str = "clones";
/// Entries can be made and used, but not listed.
const BLIND: Mode = Mode::WUSR.union(Mode::XUSR);

/// The path of a home that is not there yet: nobody can guess it.
pub(crate) fn fresh(nursery: &Path, owner: MachineId) -> PathBuf {
    nursery.join(format!("{}.{owner}", &random::key()[..32]))
}

impl Layout {
    /// Where the homes of this machine's copies are, below the state directory.
    pub(crate) fn nursery(&self, record: &Record) -> PathBuf {
        match &record.home {
            Some(home) => home.join(CLONES),
            None => Path::new(CLONES).join(record.id.to_string()),
        }
    }

    /// Makes it, or finds it; its path without symbolic links above it.
    ///
    /// # Errors
    /// Those of mkdir(2).
    pub(crate) fn make_nursery(&self, record: &Record) -> Result<PathBuf> {
        let path = self.real_state().join(self.nursery(record));
        let failed = |error: Errno| Error::io(format_args!("make the directory {}", path.display()), error.into());
        match mkdir(&path, BLIND) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(Errno::NOENT) => {
                paths::private_dir(&self.state().join(CLONES))?;
                mkdir(&path, BLIND).or_else(|error| if error == Errno::EXIST { Ok(()) } else { Err(failed(error)) })?;
            }
            Err(error) => return Err(failed(error)),
        }
        Ok(path)
    }

    /// Makes the home of a copy, with what belongs in it. Its nursery must be there.
    ///
    /// # Errors
    /// Those of mkdir(2); the copy's record must say where.
    pub(crate) fn make_home(&self, copy: &Record) -> Result<()> {
        let Some(home) = &copy.home else { return Err(Error::internal("a copy without a home")) };
        let home = self.state().join(home);
        for dir in [home.clone(), home.join("work")] {
            mkdir(&dir, Mode::RWXU).map_err(|error| Error::io(format_args!("make the directory {}", dir.display()), error.into()))?;
        }
        self.make_nursery(copy).map(drop)
    }

    /// Removes a home, below the state directory, but for the homes of machines that exist which are in it.
    ///
    /// # Errors
    /// When its work directory cannot be removed.
    pub(crate) fn vacate(&self, home: &Path) -> std::io::Result<()> {
        let home = self.state().join(home);
        remove_dir(&home.join("work"))?;
        if self.clear(&home.join(CLONES)) { remove_dir(&home) } else { Ok(()) }
    }

    /// Removes what a machine that is deleted has left here, as far as no copy of it needs it, and what its originals have left if it was the last
    /// that needed that. What cannot be removed now is removed with the next.
    pub(crate) fn leave_home(&self, id: MachineId, home: Option<&Path>) {
        if let Some(home) = home {
            let _ = self.vacate(home);
        }
        // From the outermost to the innermost: the first that belongs to nobody takes all that is in it along.
        let clones = self.state().join(CLONES);
        let mut nursery = clones.join(
            home.and_then(|home| home.components().nth(1)).map_or_else(|| id.to_string().into(), |first| first.as_os_str().to_owned()),
        );
        let mut owner = nursery.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse().ok());
        let mut below =
            home.into_iter().flat_map(|home| home.components().skip(2).map(|part| part.as_os_str().to_owned()).collect::<Vec<_>>());
        while let Some(known) = owner {
            if !self.machine(known).is_dir() {
                self.clear(&nursery);
                return;
            }
            let Some(name) = below.next() else { return };
            owner = owner_of(&name);
            nursery = nursery.join(name).join(CLONES);
            below.next();
        }
    }

    /// Removes a nursery but for the homes of machines that exist; whether nothing of it is left.
    fn clear(&self, nursery: &Path) -> bool {
        // A program may have put anything there, links above all; nobody who could is alive by now.
        if !is_real_dir(nursery) {
            return true;
        }
        let _ = chmod(nursery, Mode::RWXU);
        let entries = fs::read_dir(nursery).into_iter().flatten().flatten();
        let mut empty = true;
        for entry in entries {
            let path = entry.path();
            let lives = owner_of(&entry.file_name()).is_some_and(|owner| self.machine(owner).is_dir());
            // A home whose machine is gone may hold the homes of its copies.
            let gone = !lives
                && if is_real_dir(&path) {
                    self.clear(&path.join(CLONES)) && remove_dir(&path).is_ok()
                } else {
                    fs::remove_file(&path).is_ok()
                };
            empty &= gone;
        }
        if empty && fs::remove_dir(nursery).is_ok() {
            return true;
        }
        let _ = chmod(nursery, BLIND);
        false
    }
}

/// Whether it is a directory and no link to one.
fn is_real_dir(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|found| found.is_dir())
}

/// Whose home a directory of this name is.
fn owner_of(name: &std::ffi::OsStr) -> Option<MachineId> {
    name.to_str()?.split_once('.')?.1.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Settings;

    struct Place {
        dir: tempfile::TempDir,
        layout: Layout,
    }

    impl Place {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let layout = Layout::new(dir.path().to_owned());
            Self { dir, layout }
        }

        fn machine(&self, original: Option<&Record>) -> Record {
            let id = MachineId::from_uuid(random::uuid());
            let home = original.map(|original| fresh(&self.layout.nursery(original), id));
            let record = Record { id, name: "m".into(), settings: Settings::default(), complete: true, home };
            fs::create_dir_all(self.layout.machine(id)).unwrap();
            match original {
                Some(original) => {
                    self.layout.make_nursery(original).unwrap();
                    self.layout.make_home(&record).unwrap();
                }
                None => self.layout.make_nursery(&record).map(drop).unwrap(),
            }
            record
        }

        fn delete(&self, record: &Record) {
            fs::remove_dir_all(self.layout.machine(record.id)).unwrap();
            self.layout.leave_home(record.id, record.home.as_deref());
        }

        fn left(&self) -> usize {
            fs::read_dir(self.dir.path().join(CLONES)).unwrap().count()
        }
    }

    #[test]
    fn copies_keep_what_they_need_and_the_last_one_clears_up() {
        let place = Place::new();
        let first = place.machine(None);
        let second = place.machine(Some(&first));
        let third = place.machine(Some(&second));
        let other = place.machine(Some(&first));
        fs::write(place.layout.work(&third).join("kept"), "x").unwrap();
        place.delete(&first);
        place.delete(&second);
        assert!(!place.layout.work(&second).exists(), "the work directory of a deleted copy is left");
        assert!(place.layout.work(&third).join("kept").exists() && place.layout.work(&other).exists());
        place.delete(&other);
        assert!(!place.layout.work(&other).exists() && place.layout.work(&third).exists());
        place.delete(&third);
        assert_eq!(place.left(), 0);
    }

    #[test]
    fn a_living_machine_keeps_its_nursery_and_what_a_program_has_put_there_goes_with_it() {
        let place = Place::new();
        let first = place.machine(None);
        let copy = place.machine(Some(&first));
        place.delete(&copy);
        assert!(place.dir.path().join(place.layout.nursery(&first)).is_dir(), "what the original is granted is this very directory");
        let nursery = place.dir.path().join(place.layout.nursery(&first));
        fs::write(nursery.join("junk"), "x").unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        fs::create_dir_all(elsewhere.path().join(CLONES)).unwrap();
        fs::write(elsewhere.path().join(CLONES).join("precious"), "x").unwrap();
        std::os::unix::fs::symlink(elsewhere.path(), nursery.join("trap")).unwrap();
        fs::create_dir(nursery.join("other")).unwrap();
        std::os::unix::fs::symlink(elsewhere.path().join(CLONES), nursery.join("other").join(CLONES)).unwrap();
        place.delete(&first);
        assert_eq!(place.left(), 0);
        assert!(elsewhere.path().join(CLONES).join("precious").exists(), "a link was followed");
    }
}
