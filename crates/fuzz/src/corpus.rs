//! Samples as text: one a line, printable bytes as they are and the others as Rust writes them in strings. So that they can be read and compared.

use std::path::PathBuf;

/// The file that has the samples of a target.
pub fn file(target: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("corpus").join(format!("{target}.txt"))
}

/// Samples as lines, in their order and each once.
pub fn format(samples: &[Vec<u8>]) -> String {
    let mut lines: Vec<String> = samples.iter().map(|sample| format!("\"{}\"\n", sample.escape_ascii())).collect();
    lines.sort();
    lines.dedup();
    lines.concat()
}

/// The samples of a text.
///
/// # Errors
/// The number of the first line that is no sample, from 1.
pub fn parse(text: &str) -> Result<Vec<Vec<u8>>, usize> {
    text.lines().enumerate().map(|(at, line)| unescape(line).ok_or(at + 1)).collect()
}

fn unescape(line: &str) -> Option<Vec<u8>> {
    let mut rest = line.strip_prefix('"')?.strip_suffix('"')?.bytes();
    let mut out = Vec::new();
    while let Some(byte) = rest.next() {
        if byte != b'\\' {
            out.push(byte);
            continue;
        }
        out.push(match rest.next()? {
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'x' => {
                let digit = |byte: u8| char::from(byte).to_digit(16);
                (digit(rest.next()?)? * 16 + digit(rest.next()?)?) as u8
            }
            same @ (b'\\' | b'"' | b'\'') => same,
            _ => return None,
        });
    }
    Some(out)
}
