//! Screens: where they can be seen, and pictures of them.

use super::{Inner, errors::Doing as _};
use crate::xml::Element;
use tokio::io::AsyncReadExt as _;
use vmoon_core::{
    Code, Error, Result,
    ability::{DisplayOffer, Picture},
    driver::Handle,
};
use vmoon_libvirt_wire::flags::Xml;

/// The largest picture, bytes: four times that of an 8K screen, compressed.
const MAX_PICTURE: u64 = 64 << 20;

/// The offers of a running domain, as its XML names them.
fn offers(domain: &Element) -> Vec<DisplayOffer> {
    let screens = domain.first("devices").into_iter().flat_map(|devices| devices.named("graphics"));
    let mut found = Vec::new();
    for screen in screens {
        let Some(protocol @ ("vnc" | "spice")) = screen.attribute("type") else { continue };
        for listen in screen.named("listen") {
            let socket = listen.attribute("socket").or_else(|| screen.attribute("socket"));
            if let (Some("socket"), Some(socket)) = (listen.attribute("type"), socket) {
                found.push(DisplayOffer { protocol: protocol.into(), uri: format!("{protocol}+unix://{}", escaped(socket)) });
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
            found.push(DisplayOffer { protocol: protocol.into(), uri: format!("{protocol}://{address}:{port}") });
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
        Ok(offers(&Element::parse(&text)?))
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
            "image/x-portable-pixmap" => super::png::from_ppm(&bytes).map(|bytes| Picture { media_type: "image/png".into(), bytes }),
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
        let uris: Vec<String> = offers(&Element::parse(xml).unwrap()).into_iter().map(|offer| offer.uri).collect();
        assert_eq!(uris, ["vnc+unix:///run/a%20b/vnc.sock", "spice://127.0.0.1:5901"]);
    }
}
