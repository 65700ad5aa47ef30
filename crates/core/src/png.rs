//! Pictures of screens, which hypervisors give as plain pixels or pixmaps, as PNG. Nothing is compressed: the picture is looked at once.
//!
//! Formats: `ppm(5)` with the magic P6; the PNG specification (RFC 2083) with stored deflate blocks (RFC 1951, RFC 1950).

use crate::{Code, Error, Result};

/// The most pixels of one side.
const MAX_SIDE: u32 = 16_384;

fn bad(why: &str) -> Error {
    Error::new(Code::WireMalformed, format!("the picture is not valid: {why}"))
}

/// CRC-32 as of ISO 3309, bit by bit.
fn crc(bytes: &[u8], mut crc: u32) -> u32 {
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 };
        }
    }
    crc
}

fn chunk(out: &mut Vec<u8>, kind: &[u8; 4], data: &[u8]) {
    out.extend((data.len() as u32).to_be_bytes());
    out.extend(kind);
    out.extend(data);
    out.extend((!crc(data, crc(kind, !0))).to_be_bytes());
}

fn adler(bytes: &[u8]) -> u32 {
    let (mut a, mut b) = (1u32, 0u32);
    for byte in bytes {
        a = (a + u32::from(*byte)) % 65_521;
        b = (b + a) % 65_521;
    }
    b << 16 | a
}

/// One number of the header, and what follows it.
fn number(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let mut rest = bytes;
    loop {
        match rest.first()? {
            b'#' => rest = &rest[rest.iter().position(|byte| *byte == b'\n')?..],
            byte if byte.is_ascii_whitespace() => rest = &rest[1..],
            _ => break,
        }
    }
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    Some((std::str::from_utf8(&rest[..digits]).ok()?.parse().ok()?, &rest[digits..]))
}

/// The same picture as PNG.
///
/// # Errors
/// [`Code::WireMalformed`].
pub fn from_ppm(ppm: &[u8]) -> Result<Vec<u8>> {
    let rest = ppm.strip_prefix(b"P6").ok_or_else(|| bad("it is no pixmap"))?;
    let header = || -> Option<(u32, u32, u32, &[u8])> {
        let (width, rest) = number(rest)?;
        let (height, rest) = number(rest)?;
        let (depth, rest) = number(rest)?;
        Some((width, height, depth, rest.get(1..)?))
    };
    let (width, height, depth, pixels) = header().ok_or_else(|| bad("its header is cut"))?;
    if depth != 255 || !(1..=MAX_SIDE).contains(&width) || !(1..=MAX_SIDE).contains(&height) {
        return Err(bad("its size or depth is impossible"));
    }
    if pixels.len() < width as usize * 3 * height as usize {
        return Err(bad("it is cut off"));
    }
    encode(width, height, pixels)
}

/// A picture from its pixels, three bytes (red, green, blue) for each, row by row from the top.
///
/// # Errors
/// [`Code::WireMalformed`] if there are fewer than that, or its sides are impossible.
pub fn encode(width: u32, height: u32, pixels: &[u8]) -> Result<Vec<u8>> {
    if !(1..=MAX_SIDE).contains(&width) || !(1..=MAX_SIDE).contains(&height) {
        return Err(bad("its size is impossible"));
    }
    let row = width as usize * 3;
    if pixels.len() < row * height as usize {
        return Err(bad("it is cut off"));
    }
    // Each row begins with the number of its filter: none.
    let mut raw = Vec::with_capacity((row + 1) * height as usize);
    for line in pixels.chunks_exact(row).take(height as usize) {
        raw.push(0);
        raw.extend(line);
    }
    let mut data = vec![0x78, 0x01];
    let mut blocks = raw.chunks(0xffff).peekable();
    while let Some(block) = blocks.next() {
        data.push(u8::from(blocks.peek().is_none()));
        data.extend((block.len() as u16).to_le_bytes());
        data.extend((!(block.len() as u16)).to_le_bytes());
        data.extend(block);
    }
    data.extend(adler(&raw).to_be_bytes());
    let mut out = b"\x89PNG\r\n\x1a\n".to_vec();
    let mut head = Vec::new();
    head.extend(width.to_be_bytes());
    head.extend(height.to_be_bytes());
    head.extend([8, 2, 0, 0, 0]);
    chunk(&mut out, b"IHDR", &head);
    chunk(&mut out, b"IDAT", &data);
    chunk(&mut out, b"IEND", b"");
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_those_of_the_specifications() {
        assert_eq!((!crc(b"123456789", !0), adler(b"Wikipedia")), (0xcbf4_3926, 0x11e6_0398));
        let png = from_ppm(b"P6 # c\n2 1\n255\n\x00\x01\x02\xff\xfe\xfd").unwrap();
        assert!(png.starts_with(b"\x89PNG") && png.ends_with(b"IEND\xae\x42\x60\x82"));
    }

    #[test]
    fn spoilt_pictures_are_refused() {
        for bad in [&b""[..], b"P5", b"P6", b"P6 2 2 255\n123", b"P6 0 1 255\n", b"P6 99999 1 255\n", b"P6 1 1 65535\nxxxxxx", b"P6 #"] {
            assert!(from_ppm(bad).is_err(), "{bad:?}");
        }
    }
}
