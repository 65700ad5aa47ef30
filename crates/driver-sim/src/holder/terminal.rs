//! The program behind a simulated serial console: it echoes what is typed, runs a line with every Return, and tells its size.
//!
//! Lines: `echo TEXT`, `flood BYTES`, `exit STATUS`; anything else is not found. No command has a number: every frame's is 0.

use super::{PIECE, State};
use vmoon_core::{
    driver::Exit,
    frame::{Frame, tag},
};

/// What it says before anything is typed, after each line, and when it starts.
const PROMPT: &[u8] = b"sim$ ";
pub(super) const BOOT: &[u8] = b"booted\r\nsim$ ";

impl State {
    /// Obeys a frame on a terminal.
    pub(super) fn typed(&mut self, frame: Frame<'_>) {
        match frame.tag {
            tag::INPUT => {
                for &byte in frame.payload {
                    self.key(byte);
                }
            }
            tag::INPUT_END => self.end(Exit::Code { code: 0 }),
            tag::RESIZE => {
                if let [a, b, c, d] = *frame.payload {
                    let (columns, rows) = (u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d]));
                    self.print(format!("[{columns}x{rows}]\r\n").as_bytes());
                }
            }
            tag::ACK => self.acknowledge(frame),
            tag::QUIT => self.end(Exit::Code { code: 0 }),
            _ => {}
        }
    }

    /// Writes to the terminal.
    pub(super) fn print(&mut self, bytes: &[u8]) {
        for piece in bytes.chunks(PIECE) {
            self.say(tag::STDOUT, 0, piece);
        }
    }

    fn key(&mut self, byte: u8) {
        match byte {
            b'\r' | b'\n' => {
                let line = std::mem::take(&mut self.line);
                self.print(b"\r\n");
                self.run(&String::from_utf8_lossy(&line));
            }
            0x03 => {
                self.line.clear();
                self.print(b"^C\r\n");
                self.print(PROMPT);
            }
            byte => {
                self.line.push(byte);
                self.print(&[byte]);
            }
        }
    }

    fn run(&mut self, line: &str) {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match word {
            "" => {}
            "echo" => self.print(format!("{rest}\r\n").as_bytes()),
            "flood" => {
                let bytes = rest.parse().unwrap_or(0).min(64 << 20);
                self.print(&vec![b'x'; bytes]);
                self.print(b"\r\n");
            }
            "exit" => return self.end(Exit::Code { code: rest.parse().unwrap_or(0) }),
            _ => self.print(format!("{word}: not found\r\n").as_bytes()),
        }
        self.print(PROMPT);
    }
}
