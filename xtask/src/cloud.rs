//! The one test that needs what cannot be made here in seconds: the image of a real distribution, which takes minutes to boot without KVM.

use crate::{cargo, xapi::absolute};
use std::path::Path;

/// Enters a guest that is cloned from an image, by the ordinary commands. The kernel and its initrd are for images that bring no boot loader.
///
/// # Errors
/// That of the test, or when a file is not there.
pub(crate) fn run(root: &Path, image: &str, boot: Option<(&str, &str)>) -> Result<(), String> {
    let args = [
        "test",
        "-p",
        "vmoon",
        "--features",
        "cloud-guest",
        "--test",
        "cli",
        "--",
        "--nocapture",
        "--exact",
        "guests::a_cloud_image_is_entered",
    ];
    let mut command = cargo::command(root, &args);
    command.env("VMOON_CLOUD_IMAGE", absolute(image)?);
    if let Some((kernel, initrd)) = boot {
        command.env("VMOON_CLOUD_KERNEL", absolute(kernel)?).env("VMOON_CLOUD_INITRD", absolute(initrd)?);
    }
    let status = command.status().map_err(|e| format!("cargo: {e}"))?;
    if status.success() { Ok(()) } else { Err(format!("the guest of {image}: {status}")) }
}
