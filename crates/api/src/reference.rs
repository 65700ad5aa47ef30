//! Prints `docs/reference/api.md` from the endpoint table.

use crate::endpoint::TABLE;
use std::fmt::Write as _;

/// The reference page.
pub fn markdown() -> String {
    let mut out = String::from(
        "# The API\n\n<!-- Generated from crates/api/src/endpoint.rs by `cargo xtask docs`. Do not edit. -->\n\n\
         HTTP/1.1 and JSON on `$XDG_RUNTIME_DIR/vmoon/api.sock`, or where the file `daemon.socket` in the state directory says. A request's fields travel in the path where it names them, else in the\n\
         query (GET) or in a JSON body (POST). Unknown fields are ignored. Bytes are `{\"utf8\": text}` or `{\"base64\": text}`.\n\
         Both sides send the header `vmoon-protocol: MIN-MAX`; a client may send `vmoon-state: PATH`, and the daemon of another state directory\n\
         refuses then (`daemon.other`). An error is `{\"error\": {code, message, hint, detail}}` with the status of\n\
         its code (see `errors.md`). The types are those of `crates/api/src/requests.rs` and `views.rs`.\n\n\
         | name | method and path | request | answer | |\n|---|---|---|---|---|\n",
    );
    for e in TABLE {
        let how = if e.websocket { "GET, WebSocket" } else { e.method.as_str() };
        let _ = writeln!(out, "| `{}` | {how} `{}` | `{}` | `{}` | {} |", e.name, e.path, e.request, e.response, e.summary);
    }
    out.push_str(STREAMS);
    out
}

const STREAMS: &str = "
## `vmoon.session.1`

Binary messages. From the daemon: the stream offset of the first frame (`u64 LE`), then whole frames
(`len: u32 LE`, `tag: u8`, `id: u64 LE`, payload; see `crates/core/src/frame.rs`). A gap is a frame `G` whose payload is the
number of bytes that are missing (`u64 LE`); where that is unknown, 1 and then one byte 1. The offset `2^64 - 1` marks a direct frame, which answers a question and is not part of the stream.
From the client: one frame a message. `E`, `S`, `F`, `I`, `C`, `K`, `Y` need the pen (`mode=writer`, or `mode=takeover`, which sends away
whoever has it). On a terminal `S` carries keys and `Y` its size, `O` is what it shows, all with the id 0. `P` stops the daemon from
sending, `U` resumes, `A` says what was received. A text message from the daemon is an error, as in an HTTP answer; after
`{\"ended\": true}` the session is over and everything was sent.

A client that comes back says `from=OFFSET` and gets the rest. Whoever reads slowly slows nobody down: each attachment reads
the transcript at its own pace.

## `vmoon.files.1`

One file. Binary messages are its bytes, in order, at most 256 KiB each; text messages are JSON. With `direction=get` the daemon
sends the file's entry, its bytes and `{\"end\": true}`. With `direction=put` the client sends the bytes and
`{\"end\": true}`; the daemon answers with the entry and `{\"end\": true}` when the file has its name. An error is
`{\"error\": …}` and the last message. A file that was not stored whole leaves nothing under its name. Paths are text in which the
percent sign and bytes that are not UTF-8 are written `%25` and `%FF`.

## `vmoon.events.1`

One JSON text message an event. `since=SEQ` continues after that number, also across restarts of the daemon; when it is too
old the error `events.gap` comes first: read the state anew.
";

#[cfg(test)]
mod tests {
    #[test]
    fn the_checked_in_page_is_current() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/reference/api.md");
        let found = std::fs::read_to_string(path).unwrap_or_default();
        assert!(found == super::markdown(), "docs/reference/api.md is stale: run `cargo xtask docs`");
    }
}
