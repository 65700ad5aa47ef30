//! Bytes in JSON: `{"utf8": text}` where they are UTF-8, else `{"base64": text}`.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Deserializer, Serialize, Serializer, ser::SerializeMap};

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

impl<'de> Deserialize<'de> for Data {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Wire {
            Plain(String),
            Utf8 { utf8: String },
            Base64 { base64: String },
        }
        match Wire::deserialize(deserializer)
            .map_err(|_| serde::de::Error::custom("bytes are {\"utf8\": text}, {\"base64\": text} or a string"))?
        {
            Wire::Plain(text) | Wire::Utf8 { utf8: text } => Ok(Self(text.into_bytes())),
            Wire::Base64 { base64 } => STANDARD.decode(base64).map(Self).map_err(serde::de::Error::custom),
        }
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
        assert!(serde_json::from_str::<Data>(r#"{"base64":"*"}"#).is_err());
    }
}
