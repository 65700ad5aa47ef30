//! XDR (RFC 4506), as far as libvirt uses it: big endian, everything in units of four bytes.
//!
//! A decoder is given bytes of a peer that may lie: it never reads past the end, never reserves more memory than the bytes at hand can fill, and says
//! what was wrong. It knows nothing of procedures.

use std::fmt;
use uuid::Uuid;

/// The longest string either side may send, bytes (`REMOTE_STRING_MAX`, src/remote/remote_protocol.x of libvirt 9.0.0).
pub const STRING_MAX: usize = 4_194_304;

/// Bytes that are not what the protocol says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed {
    /// What is wrong.
    pub what: &'static str,
    /// Where, in bytes from the beginning of the body.
    pub at: usize,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at byte {}", self.what, self.at)
    }
}

impl std::error::Error for Malformed {}

/// Writes a body.
#[derive(Debug, Default)]
pub struct Encoder {
    bytes: Vec<u8>,
    problem: Option<&'static str>,
}

impl Encoder {
    /// An empty body, with this much room before it.
    pub(crate) fn after(header: usize) -> Self {
        let mut bytes = Vec::with_capacity(header + 256);
        bytes.resize(header, 0);
        Self { bytes, problem: None }
    }

    /// What was written.
    ///
    /// # Errors
    /// If something was put in that the protocol cannot carry.
    pub fn finish(self) -> Result<Vec<u8>, &'static str> {
        match self.problem {
            None => Ok(self.bytes),
            Some(problem) => Err(problem),
        }
    }

    /// Four bytes.
    pub fn u32(&mut self, value: u32) {
        self.bytes.extend_from_slice(&value.to_be_bytes());
    }

    /// Eight bytes.
    pub fn u64(&mut self, value: u64) {
        self.bytes.extend_from_slice(&value.to_be_bytes());
    }

    /// Bytes whose number both sides know.
    pub fn fixed(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        self.bytes.resize(self.bytes.len() + padding(bytes.len()), 0);
    }

    /// A string. The other side holds strings with a NUL at the end: one with a NUL in it would silently become another, so it is refused.
    pub fn string(&mut self, text: &str) {
        if text.len() > STRING_MAX {
            self.problem.get_or_insert("a text is longer than 4 MiB");
            return;
        }
        if text.as_bytes().contains(&0) {
            self.problem.get_or_insert("a text contains a NUL byte");
            return;
        }
        self.u32(text.len() as u32);
        self.fixed(text.as_bytes());
    }

    /// How many elements of a list follow.
    pub fn count(&mut self, count: usize) {
        match u32::try_from(count) {
            Ok(count) => self.u32(count),
            Err(_) => {
                self.problem.get_or_insert("a list is too long");
            }
        }
    }
}

/// Reads a body.
#[derive(Debug)]
pub struct Decoder<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Decoder<'a> {
    /// From the beginning of these.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// How many bytes are left.
    pub fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// That all was read.
    ///
    /// # Errors
    /// If something is left.
    pub fn end(&self) -> Result<(), Malformed> {
        if self.left() == 0 { Ok(()) } else { Err(self.malformed("more than was expected")) }
    }

    pub(crate) fn malformed(&self, what: &'static str) -> Malformed {
        Malformed { what, at: self.at }
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let end = self.at.checked_add(count).filter(|end| *end <= self.bytes.len()).ok_or_else(|| self.malformed("cut short"))?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    /// Four bytes.
    ///
    /// # Errors
    /// If there are fewer.
    pub fn u32(&mut self) -> Result<u32, Malformed> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    /// Eight bytes.
    ///
    /// # Errors
    /// If there are fewer.
    pub fn u64(&mut self) -> Result<u64, Malformed> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    /// This many bytes and what fills them up to a multiple of four.
    ///
    /// # Errors
    /// If there are fewer.
    pub fn fixed(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let taken = self.take(count)?;
        self.take(padding(count))?;
        Ok(taken)
    }

    /// A string. Names on the other side are bytes of unknown encoding: what is not UTF-8 is replaced.
    ///
    /// # Errors
    /// If it is longer than [`STRING_MAX`] or than what is there.
    pub fn string(&mut self) -> Result<String, Malformed> {
        let length = self.u32()? as usize;
        if length > STRING_MAX {
            return Err(self.malformed("a text longer than 4 MiB"));
        }
        let bytes = self.fixed(length)?;
        Ok(match std::str::from_utf8(bytes) {
            Ok(text) => text.to_owned(),
            Err(_) => String::from_utf8_lossy(bytes).into_owned(),
        })
    }
}

/// How many bytes fill a value of this length up to a multiple of four.
fn padding(length: usize) -> usize {
    (4 - length % 4) % 4
}

/// What can be an argument.
pub trait Encode {
    /// Writes it.
    fn encode(&self, to: &mut Encoder);
}

/// What can be a result.
pub trait Decode: Sized {
    /// The fewest bytes it takes: bounds what a list may claim to hold. At least 4.
    const LEAST: usize;
    /// Reads it.
    ///
    /// # Errors
    /// If that is not what the bytes are.
    fn decode(from: &mut Decoder<'_>) -> Result<Self, Malformed>;
}

/// Reads a whole body.
///
/// # Errors
/// If it is something else, or more.
pub fn decode_all<T: Decode>(bytes: &[u8]) -> Result<T, Malformed> {
    let mut from = Decoder::new(bytes);
    let value = T::decode(&mut from)?;
    from.end()?;
    Ok(value)
}

macro_rules! plain {
    ($($type:ty, $bits:ty, $method:ident, $size:literal;)*) => {$(
        impl Encode for $type {
            fn encode(&self, to: &mut Encoder) {
                to.$method(<$bits>::from_ne_bytes(self.to_ne_bytes()));
            }
        }
        impl Decode for $type {
            const LEAST: usize = $size;
            fn decode(from: &mut Decoder<'_>) -> Result<Self, Malformed> {
                Ok(<$type>::from_ne_bytes(from.$method()?.to_ne_bytes()))
            }
        }
    )*};
}

plain! {
    u32, u32, u32, 4;
    i32, u32, u32, 4;
    u64, u64, u64, 8;
    i64, u64, u64, 8;
    f64, u64, u64, 8;
}

/// As libvirt does it: an `int` that is 0 or not.
impl Encode for bool {
    fn encode(&self, to: &mut Encoder) {
        to.u32(u32::from(*self));
    }
}

impl Decode for bool {
    const LEAST: usize = 4;
    fn decode(from: &mut Decoder<'_>) -> Result<Self, Malformed> {
        Ok(from.u32()? != 0)
    }
}

impl Encode for str {
    fn encode(&self, to: &mut Encoder) {
        to.string(self);
    }
}

impl Encode for String {
    fn encode(&self, to: &mut Encoder) {
        to.string(self);
    }
}

impl Decode for String {
    const LEAST: usize = 4;
    fn decode(from: &mut Decoder<'_>) -> Result<Self, Malformed> {
        from.string()
    }
}

impl Encode for Uuid {
    fn encode(&self, to: &mut Encoder) {
        to.fixed(self.as_bytes());
    }
}

impl Decode for Uuid {
    const LEAST: usize = 16;
    fn decode(from: &mut Decoder<'_>) -> Result<Self, Malformed> {
        Ok(Uuid::from_bytes(from.array()?))
    }
}

impl<T: Encode> Encode for Option<T> {
    fn encode(&self, to: &mut Encoder) {
        to.u32(u32::from(self.is_some()));
        if let Some(value) = self {
            value.encode(to);
        }
    }
}

impl<T: Decode> Decode for Option<T> {
    const LEAST: usize = 4;
    fn decode(from: &mut Decoder<'_>) -> Result<Self, Malformed> {
        match from.u32()? {
            0 => Ok(None),
            1 => Ok(Some(T::decode(from)?)),
            _ => Err(from.malformed("an optional value that is neither there nor absent")),
        }
    }
}

impl<T: Encode> Encode for [T] {
    fn encode(&self, to: &mut Encoder) {
        to.count(self.len());
        for value in self {
            value.encode(to);
        }
    }
}

impl<T: Encode> Encode for Vec<T> {
    fn encode(&self, to: &mut Encoder) {
        self.as_slice().encode(to);
    }
}

impl<T: Decode> Decode for Vec<T> {
    const LEAST: usize = 4;
    fn decode(from: &mut Decoder<'_>) -> Result<Self, Malformed> {
        let count = from.u32()? as usize;
        if count > from.left() / T::LEAST.max(4) {
            return Err(from.malformed("a list that claims more than is there"));
        }
        let mut list = Self::with_capacity(count);
        for _ in 0..count {
            list.push(T::decode(from)?);
        }
        Ok(list)
    }
}

impl<T: Encode + ?Sized> Encode for &T {
    fn encode(&self, to: &mut Encoder) {
        (**self).encode(to);
    }
}

impl Encode for () {
    fn encode(&self, _: &mut Encoder) {}
}

impl Decode for () {
    const LEAST: usize = 0;
    fn decode(_: &mut Decoder<'_>) -> Result<Self, Malformed> {
        Ok(())
    }
}

macro_rules! tuples {
    ($($($name:ident)+;)*) => {$(
        impl<$($name: Encode),+> Encode for ($($name,)+) {
            #[expect(non_snake_case, reason = "the type parameters name the values too")]
            fn encode(&self, to: &mut Encoder) {
                let ($($name,)+) = self;
                $($name.encode(to);)+
            }
        }
        impl<$($name: Decode),+> Decode for ($($name,)+) {
            const LEAST: usize = 0 $(+ $name::LEAST)+;
            fn decode(from: &mut Decoder<'_>) -> Result<Self, Malformed> {
                Ok(($($name::decode(from)?,)+))
            }
        }
    )*};
}

tuples! {
    A;
    A B;
    A B C;
    A B C D;
    A B C D E;
    A B C D E F;
}

/// Gives a struct of plain fields its two directions, the fields in the order of the wire.
macro_rules! wire_struct {
    ($type:ty { $($field:tt: $kind:ty),+ $(,)? }) => {
        impl $crate::xdr::Encode for $type {
            fn encode(&self, to: &mut $crate::xdr::Encoder) {
                $(self.$field.encode(to);)+
            }
        }
        impl $crate::xdr::Decode for $type {
            const LEAST: usize = 0 $(+ <$kind as $crate::xdr::Decode>::LEAST)+;
            fn decode(from: &mut $crate::xdr::Decoder<'_>) -> Result<Self, $crate::xdr::Malformed> {
                Ok(Self { $($field: <$kind as $crate::xdr::Decode>::decode(from)?),+ })
            }
        }
    };
}
pub(crate) use wire_struct;
