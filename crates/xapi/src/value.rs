//! The values of XAPI in JSON: references, integers, times.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use std::{fmt, hash::Hash, marker::PhantomData};

/// What XAPI says instead of a reference to nothing; a JSON null is an error to it.
pub const NULL: &str = "OpaqueRef:NULL";

/// A reference to an object of a class. References of some objects change (those of disks with a revert, of metrics with each boot): keep
/// uuids, use references.
pub struct Ref<T> {
    text: String,
    class: PhantomData<fn() -> T>,
}

impl<T> Ref<T> {
    /// Takes a reference as XAPI wrote it.
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), class: PhantomData }
    }

    /// The reference to nothing.
    pub fn null() -> Self {
        Self::new(NULL)
    }

    /// Whether it refers to nothing; XAPI also writes an empty text for that.
    pub fn is_null(&self) -> bool {
        self.text == NULL || self.text.is_empty()
    }

    /// Itself, unless it refers to nothing.
    pub fn known(&self) -> Option<&Self> {
        (!self.is_null()).then_some(self)
    }

    /// As XAPI writes it.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl<T> Clone for Ref<T> {
    fn clone(&self) -> Self {
        Self::new(self.text.clone())
    }
}

impl<T> Default for Ref<T> {
    fn default() -> Self {
        Self::null()
    }
}

impl<T> PartialEq for Ref<T> {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl<T> Eq for Ref<T> {}

impl<T> PartialOrd for Ref<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Ref<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.text.cmp(&other.text)
    }
}

impl<T> Hash for Ref<T> {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

impl<T> fmt::Debug for Ref<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl<T> fmt::Display for Ref<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl<T> From<Ref<T>> for serde_json::Value {
    fn from(reference: Ref<T>) -> Self {
        reference.text.into()
    }
}

impl<T> From<&Ref<T>> for serde_json::Value {
    fn from(reference: &Ref<T>) -> Self {
        reference.text.clone().into()
    }
}

impl<T> Serialize for Ref<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de, T> Deserialize<'de> for Ref<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self::new(String::deserialize(deserializer)?))
    }
}

/// An integer of 64 bits. XAPI writes numbers in JSON, and decimal text where a value went through XML.
pub fn int<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Form {
        Number(i64),
        Float(f64),
        Text(String),
    }
    match Form::deserialize(deserializer)? {
        Form::Number(number) => Ok(number),
        // Beyond 2⁵³ it would not be exact; XAPI has no such sizes.
        Form::Float(number) if number.fract() == 0.0 && number.abs() < 9.0e15 => Ok(number as i64),
        Form::Float(number) => Err(D::Error::custom(format!("{number} is no integer"))),
        Form::Text(text) => text.trim().parse().map_err(|_| D::Error::custom(format!("\"{text}\" is no integer"))),
    }
}

/// A point in time, in UTC, as XAPI writes it: `20261120T18:36:45Z`, the basic form of ISO 8601 with colons.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time {
    /// Seconds since the Unix epoch; 0 is how XAPI says "never".
    pub unix: i64,
}

impl Time {
    /// Whether it ever was.
    pub const fn is_never(self) -> bool {
        self.unix == 0
    }

    /// Reads it; fractions of a second, and the dashes of the extended form, are read too.
    pub fn parse(text: &str) -> Option<Self> {
        let digits: String = text.trim_end_matches('Z').chars().filter(|c| !matches!(c, '-' | ':')).collect();
        let (date, time) = digits.split_once('T')?;
        let time = time.split('.').next()?;
        let number = |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse::<i64>().ok()).flatten();
        // Not only digits: a letter of several bytes would be cut in the middle.
        if date.len() != 8 || time.len() != 6 || !date.is_ascii() || !time.is_ascii() {
            return None;
        }
        let (year, month, day) = (number(&date[..4])?, number(&date[4..6])?, number(&date[6..])?);
        let (hour, minute, second) = (number(&time[..2])?, number(&time[2..4])?, number(&time[4..])?);
        if !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60 {
            return None;
        }
        Some(Self { unix: days(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second })
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| D::Error::custom(format!("\"{text}\" is no time")))
    }
}

/// Days from 1970-01-01 in the Gregorian calendar (H. Hinnant, "chrono-Compatible Low-Level Date Algorithms", days_from_civil).
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_to_nothing_have_two_forms() {
        let of = |text: &str| serde_json::from_value::<Ref<()>>(text.into()).unwrap();
        assert!(of("OpaqueRef:NULL").is_null() && of("").is_null() && Ref::<()>::default().is_null());
        assert_eq!(of("OpaqueRef:a").known().unwrap().as_str(), "OpaqueRef:a");
        assert!(serde_json::from_str::<Ref<()>>("null").is_err());
    }

    #[test]
    fn integers_are_numbers_or_text() {
        #[derive(Deserialize)]
        struct One(#[serde(deserialize_with = "int")] i64);
        let of = |text: &str| serde_json::from_str::<One>(text).map(|one| one.0);
        assert_eq!(of("9223372036854775807").unwrap(), i64::MAX);
        assert_eq!(of("\"9223372036854775807\"").unwrap(), i64::MAX);
        assert_eq!(of("\"-1\"").unwrap(), -1);
        assert_eq!(of("4.0").unwrap(), 4);
        for bad in ["4.5", "\"\"", "\"x\"", "null", "true", "1e300"] {
            assert!(of(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn times_are_read_in_the_forms_that_xapi_has_had() {
        let of = |text: &str| Time::parse(text).map(|time| time.unix);
        assert_eq!(of("19700101T00:00:00Z"), Some(0));
        assert_eq!(of("20261120T18:36:45Z"), Some(1_795_199_805));
        assert_eq!(of("2026-11-20T18:36:45.123Z"), Some(1_795_199_805));
        assert_eq!(of("20000229T23:59:60Z"), Some(951_868_800));
        for bad in [
            "",
            "now",
            "20261320T00:00:00Z",
            "2026112T00:00:00Z",
            "20261120T1é:00:00Z",
            "é1831120T10:00:00Z",
            "20261120",
            "20261120T+1:00:00Z",
        ] {
            assert_eq!(of(bad), None, "{bad}");
        }
    }
}
