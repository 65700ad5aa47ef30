//! Screens: where they can be seen, and pictures of them.

use super::{Inner, errors::Doing as _};
use std::path::Path;
use tokio::io::AsyncReadExt as _;
use vmoon_core::{
    Code, Error, Result,
    ability::{DisplayOffer, Picture},
    driver::Handle,
};
use vmoon_libvirt_wire::flags::Xml;
use vmoon_xml::Element;

/// The largest picture, bytes: four times that of an 8K screen, compressed.
const MAX_PICTURE: u64 = 64 << 20;

/// A screen of a running domain.
#[derive(Debug, PartialEq, Eq)]
struct Screen {
    protocol: &'static str,
    /// Its number among the domain's.
    index: u32,
    at: At,
}

/// Where a screen is.
#[derive(Debug, PartialEq, Eq)]
enum At {
    Socket(String),
    /// Host and port.
    Address(String),
}

impl Screen {
    fn offer(&self, socket: &str) -> DisplayOffer {
        DisplayOffer { protocol: self.protocol.into(), uri: format!("{}+unix://{}", self.protocol, escaped(socket)) }
    }
}

/// The screens that a running domain's XML names.
fn screens(domain: &Element) -> Vec<Screen> {
    let graphics = domain.first("devices").into_iter().flat_map(|devices| devices.named("graphics"));
    let mut found = Vec::new();
    for (index, screen) in (0u32..).zip(graphics) {
        let protocol = match screen.attribute("type") {
            Some("vnc") => "vnc",
            Some("spice") => "spice",
            _ => continue,
        };
        for listen in screen.named("listen") {
            let socket = listen.attribute("socket").or_else(|| screen.attribute("socket"));
            if let (Some("socket"), Some(socket)) = (listen.attribute("type"), socket) {
                found.push(Screen { protocol, index, at: At::Socket(socket.to_owned()) });
                continue;
            }
            let port = screen.attribute("port").and_then(|port| port.parse::<u16>().ok()).filter(|port| *port > 0);
            let (Some(port), Some(address)) = (port, listen.attribute("address")) else { continue };
            let address = match address {
                "0.0.0.0" => "127.0.0.1".to_owned(),
                "::" => "[::1]".to_owned(),
                address if address.contains(':') => format!("[{address}]"),
                address => address.to_owned(),
            };
            found.push(Screen { protocol, index, at: At::Address(format!("{address}:{port}")) });
        }
    }
    found
}

/// A path as it stands in a URI (RFC 3986, `pchar` and `/`).
fn escaped(path: &str) -> String {
    let mut out = String::new();
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

impl Inner {
    /// Where the machine's screens can be seen.
    pub(crate) async fn offers(&self, handle: &Handle) -> Result<Vec<DisplayOffer>> {
        let client = self.link.client().await?;
        let domain = self.domain(&client, handle).await?;
        if domain.id < 0 {
            return Ok(Vec::new());
        }
        let text = client.domain_xml(&domain, Xml::NONE).await.doing("look for the machine's screen")?;
        let mut found = Vec::new();
        for screen in screens(&Element::parse(&text)?) {
            let offer = match &screen.at {
                // One that a viewer of this user can open itself.
                At::Socket(path) if self.link.endpoint.is_local() && vmoon_sys::image::may_use(Path::new(path)) => screen.offer(path),
                At::Socket(path) if self.link.endpoint.is_local() => {
                    let ours = self.screens.socket(&self.link, domain.uuid, screen.index)?;
                    screen.offer(ours.as_deref().and_then(Path::to_str).unwrap_or(path))
                }
                // On another computer's file system.
                At::Socket(_) => continue,
                At::Address(address) => DisplayOffer { protocol: screen.protocol.into(), uri: format!("{}://{address}", screen.protocol) },
            };
            found.push(offer);
        }
        Ok(found)
    }

    /// What the machine's first screen shows.
    pub(crate) async fn screenshot(&self, handle: &Handle) -> Result<Picture> {
        let what = "take a picture of the screen";
        let client = self.link.client().await?;
        let domain = self.domain(&client, handle).await?;
        if domain.id < 0 {
            return Err(Error::new(Code::MachineStopped, "the machine does not run, so it shows nothing").hint("start it first"));
        }
        let (media_type, stream) = client.screenshot(&domain, 0).await.doing(what)?;
        let mut bytes = Vec::new();
        let read = stream.take(MAX_PICTURE + 1).read_to_end(&mut bytes).await;
        read.map_err(|error| Error::new(Code::DriverFailed, format!("could not {what}")).source(error))?;
        if bytes.len() as u64 > MAX_PICTURE {
            return Err(Error::new(Code::WireMalformed, "the picture is larger than 64 MiB"));
        }
        match media_type.as_str() {
            "image/png" => Ok(Picture { media_type, bytes }),
            "image/x-portable-pixmap" => vmoon_core::png::from_ppm(&bytes).map(|bytes| Picture { media_type: "image/png".into(), bytes }),
            other => Err(Error::new(Code::DriverFailed, format!("libvirt sent a picture of the kind {}", vmoon_core::name::escape(other)))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_and_ports_are_offered() {
        let xml = "<domain><devices>
            <graphics type='vnc' socket='/run/a b/vnc.sock'><listen type='socket' socket='/run/a b/vnc.sock'/></graphics>
            <graphics type='spice' port='5901'><listen type='address' address='0.0.0.0'/></graphics>
            <graphics type='vnc' port='-1'><listen type='address' address='127.0.0.1'/></graphics>
            <graphics type='sdl'/></devices></domain>";
        let found = screens(&Element::parse(xml).unwrap());
        assert_eq!(found[0].offer("/run/a b/vnc.sock").uri, "vnc+unix:///run/a%20b/vnc.sock");
        let expected = [
            Screen { protocol: "vnc", index: 0, at: At::Socket("/run/a b/vnc.sock".into()) },
            Screen { protocol: "spice", index: 1, at: At::Address("127.0.0.1:5901".into()) },
        ];
        assert_eq!(found, expected);
    }
}
