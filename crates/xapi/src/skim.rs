//! Finds the records of a long answer without decoding them, and proves on the way that all of it is JSON. Pure.
//!
//! A thousand VMs are 4.5 MB, most of it text between quotes that nobody looks at. What is asked of each byte there is only whether it ends the text, sixteen bytes at a
//! time; the general reader of JSON needs two to three times as long for that. What is odd in any way (escaped keys, an error, deep nesting, white space within reason
//! excepted) is left to that reader: it also says what is wrong.

use std::str;

/// Deeper than this nobody nests records.
const DEEP: u32 = 100;

/// What an answer consists of.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Found<'a> {
    /// The number of the request, as it is written.
    pub(crate) id: &'a str,
    /// The members of the result: each key, and the text of its value.
    pub(crate) members: Vec<(&'a str, &'a str)>,
}

/// The members of the result of an answer that is one object with a result that is one, and without an error; nothing if it is anything else.
pub(crate) fn members(body: &[u8]) -> Option<Found<'_>> {
    let mut skim = Skim { body, at: 0, ascii: true };
    let (mut id, mut result) = (None, None);
    if skim.next()? != b'{' {
        return None;
    }
    loop {
        let (from, to) = skim.key()?;
        let key = &body[from..to];
        match key {
            b"result" if result.is_none() => result = Some(skim.map()?),
            b"id" if id.is_none() => id = Some(skim.range()?),
            b"jsonrpc" => drop(skim.range()?),
            _ => return None,
        }
        match skim.next()? {
            b',' => {}
            b'}' => break,
            _ => return None,
        }
    }
    skim.blank();
    if skim.at != body.len() {
        return None;
    }
    // What is not ASCII was only seen between quotes, and is looked at once.
    if !skim.ascii {
        str::from_utf8(body).ok()?;
    }
    // All of it is UTF-8, and these begin and end beside ASCII.
    let text = |(from, to): (usize, usize)| str::from_utf8(&body[from..to]).ok();
    let members = result?.into_iter().map(|(key, value)| Some((text(key)?, text(value)?))).collect::<Option<_>>()?;
    Some(Found { id: text(id?)?, members })
}

type Range = (usize, usize);

struct Skim<'a> {
    body: &'a [u8],
    at: usize,
    ascii: bool,
}

/// The first and the second sixteen bytes.
fn pair(rest: &[u8]) -> Option<(&[u8; 16], &[u8; 16])> {
    Some((rest.first_chunk()?, rest.get(16..)?.first_chunk()?))
}

impl Skim<'_> {
    fn peek(&self) -> Option<u8> {
        self.body.get(self.at).copied()
    }

    fn blank(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    /// The next byte that is not blank; it is taken.
    fn next(&mut self) -> Option<u8> {
        let mut byte = self.peek()?;
        if byte <= b' ' {
            self.blank();
            byte = self.peek()?;
        }
        self.at += 1;
        Some(byte)
    }

    /// The rest of a text after its quote; whether it has escapes.
    fn rest(&mut self) -> Option<bool> {
        let mut escapes = false;
        loop {
            // Two at once: most texts end in the first of them or in the second, and which of the two cannot be foretold.
            while let Some((first, second)) = self.body.get(self.at..).and_then(pair) {
                let ((ends, high), (more, higher)) = (marks(first), marks(second));
                self.ascii &= high | higher == 0;
                let skipped = (ends | more << 16).trailing_zeros();
                self.at += skipped as usize;
                if skipped < 32 {
                    break;
                }
            }
            let byte = self.peek()?;
            self.at += 1;
            match byte {
                b'"' => return Some(escapes),
                b'\\' => {
                    escapes = true;
                    let what = self.peek()?;
                    self.at += 1;
                    match what {
                        b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => {}
                        b'u' => {
                            let digits = self.body.get(self.at..self.at + 4)?;
                            if !digits.iter().all(u8::is_ascii_hexdigit) {
                                return None;
                            }
                            self.at += 4;
                        }
                        _ => return None,
                    }
                }
                0..0x20 => return None,
                // The last few bytes of all.
                _ => self.ascii &= byte.is_ascii(),
            }
        }
    }

    /// A key without escapes, and its colon.
    fn key(&mut self) -> Option<Range> {
        if self.next()? != b'"' {
            return None;
        }
        let from = self.at;
        if self.rest()? {
            return None;
        }
        let to = self.at - 1;
        (self.next()? == b':').then_some((from, to))
    }

    /// Where a value is.
    fn range(&mut self) -> Option<Range> {
        self.blank();
        let from = self.at;
        self.value()?;
        Some((from, self.at))
    }

    /// The members of a map.
    fn map(&mut self) -> Option<Vec<(Range, Range)>> {
        if self.next()? != b'{' {
            return None;
        }
        let mut all = Vec::new();
        self.blank();
        if self.peek()? == b'}' {
            self.at += 1;
            return Some(all);
        }
        loop {
            let key = self.key()?;
            all.push((key, self.range()?));
            match self.next()? {
                b',' => {}
                b'}' => return Some(all),
                _ => return None,
            }
        }
    }

    /// Passes over one value.
    fn value(&mut self) -> Option<()> {
        // One bit for each that is open: whether it is a map.
        let (mut depth, mut maps) = (0_u32, 0_u128);
        loop {
            match self.next()? {
                b'"' => drop(self.rest()?),
                open @ (b'{' | b'[') => {
                    self.blank();
                    let map = open == b'{';
                    if self.peek()? == if map { b'}' } else { b']' } {
                        self.at += 1;
                    } else {
                        (depth, maps) = (depth + 1, maps << 1 | u128::from(map));
                        if depth > DEEP {
                            return None;
                        }
                        if map {
                            self.any_key()?;
                        }
                        continue;
                    }
                }
                b't' => self.word(b"rue")?,
                b'f' => self.word(b"alse")?,
                b'n' => self.word(b"ull")?,
                first @ (b'-' | b'0'..=b'9') => self.number(first)?,
                _ => return None,
            }
            loop {
                if depth == 0 {
                    return Some(());
                }
                let map = maps & 1 == 1;
                match self.next()? {
                    b',' => {
                        if map {
                            self.any_key()?;
                        }
                        break;
                    }
                    b'}' if map => (depth, maps) = (depth - 1, maps >> 1),
                    b']' if !map => (depth, maps) = (depth - 1, maps >> 1),
                    _ => return None,
                }
            }
        }
    }

    fn any_key(&mut self) -> Option<()> {
        if self.next()? != b'"' {
            return None;
        }
        self.rest()?;
        (self.next()? == b':').then_some(())
    }

    fn word(&mut self, rest: &[u8]) -> Option<()> {
        let found = self.body.get(self.at..self.at + rest.len())? == rest;
        self.at += rest.len();
        found.then_some(())
    }

    fn digits(&mut self) -> Option<()> {
        let from = self.at;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        (self.at > from).then_some(())
    }

    fn number(&mut self, first: u8) -> Option<()> {
        let lead = if first == b'-' {
            self.at += 1;
            self.body.get(self.at - 1).copied()?
        } else {
            first
        };
        match lead {
            b'0' => {}
            b'1'..=b'9' => drop(self.digits()),
            _ => return None,
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        Some(())
    }
}

/// One bit for each byte that ends plain text (a quote, a backslash, a control character), and one for each that is not ASCII.
#[cfg(target_arch = "x86_64")]
fn marks(chunk: &[u8; 16]) -> (u32, u32) {
    // SAFETY: SSE2 is part of x86-64.
    unsafe { marks_by_sse2(chunk) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "sse2")]
#[inline]
fn marks_by_sse2(chunk: &[u8; 16]) -> (u32, u32) {
    use std::arch::x86_64::{_mm_cmpeq_epi8, _mm_min_epu8, _mm_movemask_epi8, _mm_or_si128, _mm_set_epi64x, _mm_set1_epi8};
    let half = |from: usize| chunk[from..].first_chunk().map_or(0, |half| i64::from_le_bytes(*half));
    let bytes = _mm_set_epi64x(half(8), half(0));
    let quotes = _mm_cmpeq_epi8(bytes, _mm_set1_epi8(b'"'.cast_signed()));
    let slashes = _mm_cmpeq_epi8(bytes, _mm_set1_epi8(b'\\'.cast_signed()));
    let control = _mm_cmpeq_epi8(_mm_min_epu8(bytes, _mm_set1_epi8(0x1f)), bytes);
    let ends = _mm_or_si128(_mm_or_si128(quotes, slashes), control);
    (_mm_movemask_epi8(ends).cast_unsigned(), _mm_movemask_epi8(bytes).cast_unsigned())
}

/// One bit for each byte that ends plain text (a quote, a backslash, a control character), and one for each that is not ASCII.
#[cfg(not(target_arch = "x86_64"))]
fn marks(chunk: &[u8; 16]) -> (u32, u32) {
    let mut all = (0, 0);
    for (at, byte) in chunk.iter().enumerate() {
        all.0 |= u32::from(matches!(byte, b'"' | b'\\' | 0..0x20)) << at;
        all.1 |= u32::from(!byte.is_ascii()) << at;
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use vmoon_driver_sim::Hostile;

    fn wrapped(result: &str) -> String {
        format!(r#"{{"jsonrpc":"2.0","result":{result},"id":7}}"#)
    }

    /// What is found is what the general reader finds, and nothing is found where that one refuses.
    fn agrees(body: &[u8]) -> bool {
        let whole = serde_json::from_slice::<Value>(body);
        let Some(found) = members(body) else { return false };
        let whole = whole.unwrap_or_else(|error| panic!("{error}: {}", body.escape_ascii()));
        let result = whole["result"].as_object().expect("a map");
        for (key, text) in &found.members {
            let value: Value = serde_json::from_str(text).expect("JSON");
            // Of keys that come twice the last counts.
            let last = found.members.iter().rev().find(|(other, _)| other == key).is_some_and(|(_, last)| last == text);
            assert!(!last || result[*key] == value, "{key}: {}", body.escape_ascii());
        }
        assert!(result.keys().all(|key| found.members.iter().any(|(found, _)| found == key)), "{}", body.escape_ascii());
        assert_eq!(serde_json::from_str::<Value>(found.id).expect("JSON"), whole["id"]);
        true
    }

    #[test]
    fn what_is_well_formed_is_found_and_nothing_else() {
        let long = json!({"a": "x".repeat(100), "b\"\\": ["é\u{1f600}", "\n", 1, -0.5e-7, 1e9, true, false, null, {}, [], {"": [[{}]]}]});
        for result in
            ["{}", " { } ", r#"{"r":1}"#, r#"{"r": {"a" : [ ] } , "s":"" }"#, &json!({"OpaqueRef:1": long, "OpaqueRef:2": 0}).to_string()]
        {
            assert!(agrees(wrapped(result).as_bytes()), "{result}");
        }
        assert!(agrees(b" {\"id\":\"x\",\"result\":{\"a\":\"\\u00e9\\/\"}}\n"));
        let many = (0..100).map(|n| format!("\"{n}\":\"{}\"", "é".repeat(n))).collect::<Vec<_>>().join(",");
        let body = wrapped(&format!("{{{many}}}"));
        assert_eq!(members(body.as_bytes()).unwrap().members.len(), 100);
        // Left to the general reader.
        for result in ["[]", "null", "1", r#"{"a\u0062":1}"#, &format!("{{\"a\":{}1{}}}", "[".repeat(200), "]".repeat(200))] {
            assert_eq!(members(wrapped(result).as_bytes()), None, "{result}");
        }
        for body in [
            "",
            "[]",
            "{}",
            r#"{"result":{},"error":null,"id":7}"#,
            r#"{"result":{}}"#,
            r#"{"result":{},"id":7} x"#,
            "{\"result\":{},\"result\":{},\"id\":7}",
        ] {
            assert_eq!(members(body.as_bytes()), None, "{body}");
        }
    }

    #[test]
    fn what_is_no_json_is_never_found() {
        for bad in [
            r#"{"a":}"#,
            r#"{"a":1,}"#,
            r#"{"a" 1}"#,
            r#"{a:1}"#,
            r#"{"a":01}"#,
            r#"{"a":1.}"#,
            r#"{"a":.5}"#,
            r#"{"a":-}"#,
            r#"{"a":1e}"#,
            r#"{"a":+1}"#,
            r#"{"a":tru}"#,
            r#"{"a":[1 2]}"#,
            r#"{"a":[1,]}"#,
            r#"{"a":[}]"#,
            r#"{"a":"\x"}"#,
            r#"{"a":"\u12g4"}"#,
            "{\"a\":\"\n\"}",
            r#"{"a":"}"#,
            r#"{"a":{]}"#,
            "{\"a\":\"\u{1}\"}",
        ] {
            assert_eq!(members(wrapped(bad).as_bytes()), None, "{bad}");
            assert!(serde_json::from_str::<Value>(&wrapped(bad)).is_err(), "{bad}");
        }
        // No UTF-8, at every place of a chunk.
        for before in 0..40 {
            let mut body = wrapped(&format!(r#"{{"a":"{}#"}}"#, "x".repeat(before))).into_bytes();
            assert!(members(&body).is_some());
            let at = body.iter().position(|byte| *byte == b'#').unwrap();
            body[at] = 0xff;
            assert_eq!(members(&body), None);
        }
        let sample = wrapped(
            r#"{"OpaqueRef:1":{"uuid":"0123456789abcdef0123","VCPUs_max":"4","other_config":{"a\n":"é"},"l":[1,-2.5e3,true,null]},"OpaqueRef:2":{}}"#,
        );
        for end in 0..sample.len() {
            assert_eq!(members(&sample.as_bytes()[..end]), None, "cut after {end}");
        }
        let (mut hostile, mut found) = (Hostile::new(77), 0);
        for _ in 0..20_000 {
            let mut bytes = sample.as_bytes().to_vec();
            hostile.spoil(&mut bytes);
            found += usize::from(agrees(&bytes));
        }
        assert!(found > 100, "{found}");
    }
}
