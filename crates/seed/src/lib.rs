//! Seeds: the small image that tells a new guest who it is, for cloud-init (NoCloud) or Windows Setup. Pure: no I/O, no clock, no environment; the same
//! content gives the same bytes.

pub mod check;
pub mod cloud;
pub mod iso;
pub mod windows;

use serde::{Deserialize, Serialize};
use vmoon_core::{MachineId, Result};

/// What a machine's seed will say, decided when it is planned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "for", rename_all = "snake_case")]
pub enum Seed {
    /// For cloud-init, as its source NoCloud reads it.
    Cloud(cloud::Cloud),
    /// For Windows Setup: an answer file.
    Windows(windows::Answers),
}

impl Seed {
    /// What it is, for people.
    pub fn sentence(&self) -> String {
        match self {
            Seed::Cloud(cloud) => cloud.sentence(),
            Seed::Windows(answers) => answers.sentence(),
        }
    }

    /// The image. `user_data` is what the user's file holds, where one was named.
    ///
    /// # Errors
    /// If it would be too large.
    pub fn image(&self, id: MachineId, user_data: Option<Vec<u8>>) -> Result<Vec<u8>> {
        self.image_with(id, user_data, None)
    }

    /// The same with what lets vmoon into the guest, which is for cloud-init alone.
    ///
    /// # Errors
    /// As [`Seed::image`].
    pub fn image_with(&self, id: MachineId, user_data: Option<Vec<u8>>, entry: Option<cloud::Entry<'_>>) -> Result<Vec<u8>> {
        match self {
            Seed::Cloud(cloud) => iso::image("cidata", &cloud.files(id, user_data, entry)),
            Seed::Windows(answers) => {
                let content = answers.document().into_bytes();
                iso::image("UNATTEND", &[iso::File { name: "autounattend.xml", content }])
            }
        }
    }
}
