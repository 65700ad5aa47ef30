//! Bytes in JSON: `{"utf8": text}` where they are UTF-8, else `{"base64": text}`.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, MapAccess, Visitor},
    ser::SerializeMap,
};
use std::fmt;

/// A byte string that survives JSON unchanged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Data(pub Vec<u8>);

impl Data {
    /// Its text, with anything that is not UTF-8 replaced; for showing only.
    pub fn lossy(&self) -> std::borrow::Cow<'_, str> {
        String::from_utf8_lossy(&self.0)
    }
}

impl<T: Into<Vec<u8>>> From<T> for Data {
    fn from(bytes: T) -> Self {
        Self(bytes.into())
    }
}

impl Serialize for Data {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(1))?;
        match std::str::from_utf8(&self.0) {
            Ok(text) => map.serialize_entry("utf8", text)?,
            Err(_) => map.serialize_entry("base64", &STANDARD.encode(&self.0))?,
        }
        map.end()
    }
}

/// What the bytes of JSON may be, for messages.
const EXPECTED: &str = "bytes: {\"utf8\": text}, {\"base64\": text} or a string";

/// Reads them without a copy in between: answers of thousands of machines have three of them each.
struct Bytes;

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "lowercase")]
enum Field {
    Utf8,
    Base64,
    #[serde(other)]
    Other,
}

impl<'de> Visitor<'de> for Bytes {
    type Value = Data;

    fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(EXPECTED)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Data, E> {
        Ok(Data(text.as_bytes().to_vec()))
    }

    fn visit_string<E: de::Error>(self, text: String) -> Result<Data, E> {
        Ok(Data(text.into_bytes()))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Data, A::Error> {
        let mut found: Option<Vec<u8>> = None;
        // As with every object of the API, fields that nobody knows are passed over.
        while let Some(field) = map.next_key()? {
            match field {
                Field::Utf8 => found = Some(map.next_value::<String>()?.into_bytes()),
                Field::Base64 => found = Some(STANDARD.decode(map.next_value::<String>()?).map_err(de::Error::custom)?),
                Field::Other => drop(map.next_value::<de::IgnoredAny>()?),
            }
        }
        found.map(Data).ok_or_else(|| de::Error::custom(format_args!("expected {EXPECTED}")))
    }
}

impl<'de> Deserialize<'de> for Data {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_survive_json() {
        for (bytes, json) in [(&b"a\0b"[..], r#"{"utf8":"a\u0000b"}"#), (b"\xff\x00", r#"{"base64":"/wA="}"#), (b"", r#"{"utf8":""}"#)] {
            let data = Data(bytes.to_vec());
            assert_eq!(serde_json::to_string(&data).unwrap(), json);
            assert_eq!(serde_json::from_str::<Data>(json).unwrap(), data);
        }
        assert_eq!(serde_json::from_str::<Data>("\"x\"").unwrap(), Data::from("x"));
        assert_eq!(serde_json::from_str::<Data>(r#"{"new":[1],"utf8":"\u0041"}"#).unwrap(), Data::from("A"));
        assert_eq!(serde_json::from_value::<Data>(serde_json::json!({"base64": "/wA="})).unwrap(), Data::from(&b"\xff\0"[..]));
        for bad in [r#"{"base64":"*"}"#, "{}", "7", r#"{"utf8":7}"#] {
            assert!(serde_json::from_str::<Data>(bad).is_err(), "{bad}");
        }
    }
}
