//! A picture of a screen over RFB: one full update in raw pixels, and goodbye. Everything the other side says has bounds.
//!
//! The protocol is that of RFC 6143; hosts speak 3.3 or 3.8 without a password of its own, because the connection is let in by the session.

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use vmoon_core::{Code, Error, Result, name::escape};

/// The most pixels of one side.
const MAX_SIDE: u16 = 8192;
/// The most rectangles and other messages that are read for one picture.
const MOST: usize = 4096;
/// The longest text the other side may say.
const TEXT: u32 = 64 << 10;

fn bad(why: &str) -> Error {
    Error::new(Code::WireMalformed, format!("the screen cannot be read: {why}"))
}

fn lost(error: std::io::Error) -> Error {
    Error::new(Code::DriverUnreachable, "the screen was lost").source(error)
}

async fn skip(stream: &mut (impl AsyncRead + Unpin), mut count: u64) -> Result<()> {
    let mut bytes = [0; 4096];
    while count > 0 {
        let some = bytes.len().min(usize::try_from(count).unwrap_or(usize::MAX));
        stream.read_exact(&mut bytes[..some]).await.map_err(lost)?;
        count -= some as u64;
    }
    Ok(())
}

/// Why the other side lets nobody in, as it says it (RFC 6143, 7.1.2 and 7.1.3).
async fn refusal(stream: &mut (impl AsyncRead + Unpin)) -> Result<Error> {
    let length = stream.read_u32().await.map_err(lost)?;
    if length > TEXT {
        return Err(bad("its reason is too long"));
    }
    let mut reason = vec![0; length as usize];
    stream.read_exact(&mut reason).await.map_err(lost)?;
    let reason: String = String::from_utf8_lossy(&reason).chars().take(300).collect();
    let reason = if reason.is_empty() { "and does not say why".to_owned() } else { escape(&reason) };
    Ok(Error::new(Code::DriverUnsupported, format!("the screen lets nobody in: {reason}")))
}

async fn greet(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> Result<()> {
    let mut version = [0; 12];
    stream.read_exact(&mut version).await.map_err(lost)?;
    if !version.starts_with(b"RFB 003.") || version[11] != b'\n' {
        return Err(bad("what answers does not speak RFB"));
    }
    let modern = &version[8..11] >= b"007".as_slice();
    stream.write_all(if modern { b"RFB 003.008\n" } else { b"RFB 003.003\n" }).await.map_err(lost)?;
    stream.flush().await.map_err(lost)?;
    if modern {
        let count = stream.read_u8().await.map_err(lost)?;
        if count == 0 {
            return Err(refusal(stream).await?);
        }
        let mut kinds = vec![0; usize::from(count)];
        stream.read_exact(&mut kinds).await.map_err(lost)?;
        if !kinds.contains(&1) {
            return Err(bad("it wants a password of its own"));
        }
        stream.write_u8(1).await.map_err(lost)?;
        stream.flush().await.map_err(lost)?;
        if &version[8..11] >= b"008".as_slice() && stream.read_u32().await.map_err(lost)? != 0 {
            return Err(refusal(stream).await?);
        }
    } else {
        match stream.read_u32().await.map_err(lost)? {
            1 => {}
            0 => return Err(refusal(stream).await?),
            _ => return Err(bad("it wants a password of its own")),
        }
    }
    // Others may look, too.
    stream.write_u8(1).await.map_err(lost)?;
    stream.flush().await.map_err(lost)
}

/// The pixels of the screen, red, green and blue, with its width and height.
///
/// # Errors
/// [`Code::WireMalformed`] for what is no RFB, or beyond all bounds; [`Code::DriverUnreachable`] when the connection is lost.
pub(super) async fn picture(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> Result<(u32, u32, Vec<u8>)> {
    greet(stream).await?;
    let (width, height) = (stream.read_u16().await.map_err(lost)?, stream.read_u16().await.map_err(lost)?);
    if !(1..=MAX_SIDE).contains(&width) || !(1..=MAX_SIDE).contains(&height) {
        return Err(bad("its size is impossible"));
    }
    skip(stream, 16).await?;
    let name = stream.read_u32().await.map_err(lost)?;
    if name > TEXT {
        return Err(bad("its name is too long"));
    }
    skip(stream, name.into()).await?;
    // Four bytes for a pixel, little-endian, blue first; then raw rectangles only; then everything, now.
    let format = [0, 0, 0, 0, 32, 24, 0, 1, 0, 255, 0, 255, 0, 255, 16, 8, 0, 0, 0, 0];
    let encodings = [2, 0, 0, 1, 0, 0, 0, 0];
    let mut ask = vec![3, 0, 0, 0, 0, 0];
    ask.extend(width.to_be_bytes());
    ask.extend(height.to_be_bytes());
    for message in [&format[..], &encodings[..], &ask[..]] {
        stream.write_all(message).await.map_err(lost)?;
    }
    stream.flush().await.map_err(lost)?;
    let (wide, high) = (usize::from(width), usize::from(height));
    let mut pixels = vec![0; wide * high * 3];
    let (mut seen, mut messages) = (0, 0);
    while seen < wide * high {
        messages += 1;
        if messages > MOST {
            return Err(bad("it talks and shows nothing"));
        }
        match stream.read_u8().await.map_err(lost)? {
            0 => {
                skip(stream, 1).await?;
                let count = stream.read_u16().await.map_err(lost)?;
                for _ in 0..count {
                    seen += rectangle(stream, (wide, high), &mut pixels).await?;
                }
                if count == 0 {
                    continue;
                }
            }
            // Colours of a palette, which we have not asked for.
            1 => {
                skip(stream, 3).await?;
                let count = stream.read_u16().await.map_err(lost)?;
                skip(stream, u64::from(count) * 6).await?;
            }
            2 => {}
            3 => {
                skip(stream, 3).await?;
                let length = stream.read_u32().await.map_err(lost)?;
                if length > TEXT {
                    return Err(bad("a text is too long"));
                }
                skip(stream, length.into()).await?;
            }
            _ => return Err(bad("a message that was not asked for")),
        }
    }
    Ok((width.into(), height.into(), pixels))
}

/// Reads one rectangle; how many pixels it has.
async fn rectangle(stream: &mut (impl AsyncRead + Unpin), (wide, high): (usize, usize), pixels: &mut [u8]) -> Result<usize> {
    let mut head = [0; 12];
    stream.read_exact(&mut head).await.map_err(lost)?;
    let number = |at: usize| usize::from(u16::from_be_bytes([head[at], head[at + 1]]));
    let (x, y, w, h) = (number(0), number(2), number(4), number(6));
    if head[8..12] != [0; 4] {
        return Err(bad("an encoding that was not asked for"));
    }
    if x + w > wide || y + h > high {
        return Err(bad("a rectangle beyond the screen"));
    }
    let mut line = vec![0; w * 4];
    for row in 0..h {
        stream.read_exact(&mut line).await.map_err(lost)?;
        let at = ((y + row) * wide + x) * 3;
        for (pixel, from) in pixels[at..at + w * 3].chunks_exact_mut(3).zip(line.chunks_exact(4)) {
            pixel.copy_from_slice(&[from[2], from[1], from[0]]);
        }
    }
    Ok(w * h)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A screen of two by one pixels, red and blue, in two rectangles, with a bell between.
    fn server() -> Vec<u8> {
        let mut said = b"RFB 003.008\n\x01\x01\0\0\0\0".to_vec();
        said.extend([0, 2, 0, 1]);
        said.extend([0; 16]);
        said.extend([0, 0, 0, 1, b'x']);
        said.extend([0, 0, 0, 1, 0, 0, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0, 255, 0]);
        said.push(2);
        said.extend([0, 0, 0, 1, 0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0, 255, 0, 0, 0]);
        said
    }

    async fn read(said: &[u8]) -> Result<(u32, u32, Vec<u8>)> {
        let (mut ours, mut theirs) = tokio::io::duplex(1 << 16);
        theirs.write_all(said).await.unwrap();
        theirs.shutdown().await.unwrap();
        picture(&mut ours).await
    }

    #[tokio::test]
    async fn a_picture_is_put_together_from_rectangles() {
        assert_eq!(read(&server()).await.unwrap(), (2, 1, vec![255, 0, 0, 0, 0, 255]));
    }

    #[tokio::test]
    async fn who_lets_nobody_in_is_heard() {
        for said in [
            b"RFB 003.008\n\0\0\0\0\x09no\x1b[31m <".as_slice(),
            b"RFB 003.008\n\x01\x01\0\0\0\x01\0\0\0\x09no\x1b[31m <",
            b"RFB 003.003\n\0\0\0\0\0\0\0\x09no\x1b[31m <",
        ] {
            let error = read(said).await.unwrap_err();
            assert_eq!(error.code(), Code::DriverUnsupported);
            assert!(error.to_string().ends_with("no\\u{1b}[31m <"), "{error}");
        }
        let error = read(b"RFB 003.008\n\0\xff\xff\xff\xff").await.unwrap_err();
        assert!(error.to_string().contains("too long"), "{error}");
    }

    #[tokio::test]
    async fn what_is_cut_or_beyond_bounds_is_an_error() {
        let whole = server();
        for cut in 0..whole.len() {
            assert!(read(&whole[..cut]).await.is_err(), "{cut}");
        }
        let mut beyond = server();
        let at = beyond.len() - 20 + 5;
        beyond[at] = 9;
        assert_eq!(read(&beyond).await.unwrap_err().code(), Code::WireMalformed);
        assert_eq!(read(b"HTTP/1.1 500\r\n\r\n").await.unwrap_err().code(), Code::WireMalformed);
    }
}
