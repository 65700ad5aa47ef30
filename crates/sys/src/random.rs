//! Random bytes and the identifiers made of them.

use std::fmt::Write as _;

/// Fills `bytes` from the kernel's generator.
pub fn fill(bytes: &mut [u8]) {
    let mut rest = bytes;
    while !rest.is_empty() {
        match rustix::rand::getrandom(&mut *rest, rustix::rand::GetRandomFlags::empty()) {
            Ok(n) => rest = &mut rest[n..],
            Err(rustix::io::Errno::INTR) => {}
            // getrandom(2) without flags fails only on kernels that lack it, which vmoon cannot run on.
            Err(error) => panic!("getrandom: {error}"),
        }
    }
}

/// A random number of 64 bits.
pub fn number() -> u64 {
    let mut bytes = [0; 8];
    fill(&mut bytes);
    u64::from_ne_bytes(bytes)
}

/// A 256-bit key as 64 hexadecimal digits.
pub fn key() -> String {
    let mut bytes = [0; 32];
    fill(&mut bytes);
    bytes.iter().fold(String::with_capacity(64), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// A new UUID of version 7.
pub fn uuid() -> uuid::Uuid {
    let mut bytes = [0; 10];
    fill(&mut bytes);
    uuid::Builder::from_unix_timestamp_millis(crate::clock::now_ms(), &bytes).into_uuid()
}
