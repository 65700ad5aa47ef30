//! The work directory of a machine, for whoever copies files in and out of it.

use super::{Inner, LuaDriver, known};
use async_trait::async_trait;
use rustix::{
    fd::OwnedFd,
    fs::{Mode, OFlags},
};
use vmoon_core::{
    Code, Error, MachineId, Result,
    driver::{Files, Handle},
};

impl Inner {
    /// Opens it for finding what is below it. Its parents are ours alone; it is not followed if it became a link.
    fn work(&self, id: MachineId) -> Result<OwnedFd> {
        let path = self.layout.work(&self.record(id)?);
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::open(&path, flags, Mode::empty()).map_err(|error| {
            Error::new(Code::MachineBroken, "the work directory of the machine cannot be opened")
                .source(std::io::Error::from(error))
                .hint("vmoon show NAME says where it should be")
        })
    }
}

#[async_trait]
impl Files for LuaDriver {
    async fn directory(&self, handle: &Handle) -> Result<OwnedFd> {
        let id = known(handle)?;
        self.blocking(move |inner| inner.work(id)).await
    }
}
