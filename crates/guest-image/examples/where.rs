//! `cargo run -p vmoon-guest-image --example where` makes the guest, if it is not there, and says where its kernel and its file system are.

use std::io::Write as _;

fn main() -> std::io::Result<()> {
    let guest = vmoon_guest_image::Guest::kept().map_err(std::io::Error::other)?;
    writeln!(std::io::stdout(), "{}\n{}", guest.kernel.display(), guest.initrd.display())
}
