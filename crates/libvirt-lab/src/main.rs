//! A lab to play with: `cargo run -p vmoon-libvirt-lab` starts one, says where its socket is, defines a guest's XML beside it, and ends it all when its
//! standard input ends.

use std::io::{Read as _, Write as _};
use vmoon_libvirt_lab::{Lab, Machine};

fn main() -> std::io::Result<()> {
    let lab = Lab::start();
    let xml = lab.path().join("guest.xml");
    let guest = Machine::named("guest").xml(&Lab::guest());
    std::fs::File::create(&xml)?.write_all(guest.as_bytes())?;
    let mut out = std::io::stdout();
    writeln!(out, "socket: {}\na guest: {}\nend: close standard input (Ctrl-D)", lab.socket().display(), xml.display())?;
    out.flush()?;
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}
