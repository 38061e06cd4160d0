//! Checks untrusted JSON before anything is built from it: ambiguous documents are rejected, and so are those whose values would take
//! far more memory than their text.
//!
//! The check reads the text once and allocates nothing but the keys of the objects that are open, so it costs about as much as the text
//! is long, whatever the text says.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use crate::memory;
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

/// What a document may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JsonLimits {
    /// Nesting of lists and objects; at most 100.
    pub depth: usize,
    /// Values of all kinds, and keys.
    pub values: usize,
    /// Of these, all but numbers, booleans and nulls: what takes more memory than its text.
    pub objects: usize,
}

/// Why a document is rejected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// It is not JSON, or a number, string or key of it has no single meaning.
    #[error("{0}")]
    Invalid(String),
    /// It is nested too deeply.
    #[error("it is nested more than {0} levels deep")]
    Depth(usize),
    /// It has too many values.
    #[error("it has more than {0} values")]
    Values(usize),
    /// It has too many lists, objects, strings and keys.
    #[error("it has more than {0} lists, objects, strings and keys")]
    Objects(usize),
    /// There is not enough memory to check it.
    #[error("there is not enough memory for it")]
    Memory,
}

/// Checks that `text` is one JSON value within `limits`: valid UTF-8, no key twice in an object, no half of a surrogate pair, no number
/// beyond the range of a double.
///
/// # Errors
/// What is wrong with it.
pub fn check(text: &[u8], limits: JsonLimits) -> Result<(), JsonError> {
    let text = std::str::from_utf8(text)
        .map_err(|error| JsonError::Invalid(format!("it is not UTF-8: the byte at {} begins no character", error.valid_up_to())))?;
    // Strings with escapes are put together in a buffer of the parser, which has no other answer to a shortage than to abort.
    if !memory::available(text.len().saturating_mul(3)) {
        return Err(JsonError::Memory);
    }
    let mut count = Count { limits, values: 0, objects: 0, exceeded: None };
    let mut parser = serde_json::Deserializer::from_str(text);
    let result = Check { count: &mut count, depth: 0 }.deserialize(&mut parser).and_then(|()| parser.end());
    match (result, count.exceeded) {
        (_, Some(error)) => Err(error),
        (Err(error), None) => Err(JsonError::Invalid(error.to_string())),
        (Ok(()), None) => Ok(()),
    }
}

struct Count {
    limits: JsonLimits,
    values: usize,
    objects: usize,
    exceeded: Option<JsonError>,
}

impl Count {
    /// Counts a value; `object`: it is a list, an object, a string or a key.
    fn add<E: serde::de::Error>(&mut self, object: bool) -> Result<(), E> {
        self.values += 1;
        self.objects += usize::from(object);
        if self.values > self.limits.values {
            return Err(self.exceed(JsonError::Values(self.limits.values)));
        }
        if self.objects > self.limits.objects {
            return Err(self.exceed(JsonError::Objects(self.limits.objects)));
        }
        Ok(())
    }

    fn exceed<E: serde::de::Error>(&mut self, error: JsonError) -> E {
        self.exceeded = Some(error);
        E::custom("a limit is exceeded")
    }
}

/// A value at some depth.
struct Check<'a> {
    count: &'a mut Count,
    depth: usize,
}

impl Check<'_> {
    fn open<E: serde::de::Error>(&mut self) -> Result<(), E> {
        self.count.add(true)?;
        if self.depth >= self.count.limits.depth {
            return Err(self.count.exceed(JsonError::Depth(self.count.limits.depth)));
        }
        Ok(())
    }

    fn below(&mut self) -> Check<'_> {
        Check { count: self.count, depth: self.depth + 1 }
    }
}

impl<'de> DeserializeSeed<'de> for Check<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Check<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }
    fn visit_unit<E: serde::de::Error>(self) -> Result<(), E> {
        self.count.add(false)
    }
    fn visit_bool<E: serde::de::Error>(self, _: bool) -> Result<(), E> {
        self.count.add(false)
    }
    fn visit_i64<E: serde::de::Error>(self, _: i64) -> Result<(), E> {
        self.count.add(false)
    }
    fn visit_u64<E: serde::de::Error>(self, _: u64) -> Result<(), E> {
        self.count.add(false)
    }
    fn visit_f64<E: serde::de::Error>(self, _: f64) -> Result<(), E> {
        self.count.add(false)
    }
    fn visit_str<E: serde::de::Error>(self, _: &str) -> Result<(), E> {
        self.count.add(true)
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<(), A::Error> {
        self.open()?;
        while items.next_element_seed(self.below())?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut items: A) -> Result<(), A::Error> {
        self.open()?;
        let mut keys = HashSet::new();
        while let Some(key) = items.next_key_seed(Key)? {
            self.count.add(true)?;
            if keys.contains(&key) {
                let shown: String = key.chars().take(100).collect();
                return Err(A::Error::custom(format!("the key {shown:?} is there twice")));
            }
            if keys.try_reserve(1).is_err() {
                return Err(self.count.exceed(JsonError::Memory));
            }
            keys.insert(key);
            items.next_value_seed(self.below())?;
        }
        Ok(())
    }
}

/// A key, borrowed from the text where it has no escapes.
struct Key;

impl<'de> DeserializeSeed<'de> for Key {
    type Value = Cow<'de, str>;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Key {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }
    fn visit_borrowed_str<E: serde::de::Error>(self, key: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(key))
    }
    fn visit_str<E: serde::de::Error>(self, key: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(key.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: JsonLimits = JsonLimits { depth: 4, values: 8, objects: 5 };

    fn reason(text: impl AsRef<[u8]>) -> String {
        check(text.as_ref(), LIMITS).map_or_else(|error| error.to_string(), |()| "fine".to_owned())
    }

    #[test]
    fn values_within_the_limits_pass() {
        for text in ["null", "1", " [] ", r#"{"a": [1, 2.5, true], "b": "\u00e9\ud83d\ude00"}"#, "[[[[]]]]", "[1,2,3,4,5,6,7]", "-0.0"] {
            assert_eq!(reason(text), "fine", "{text}");
        }
    }

    #[test]
    fn limits_are_exact_and_named() {
        assert_eq!(reason("[[[[[]]]]]"), "it is nested more than 4 levels deep");
        assert_eq!(reason("[1,2,3,4,5,6,7,8]"), "it has more than 8 values");
        assert_eq!(reason(r#"{"a":[],"b":[]}"#), "fine");
        assert_eq!(reason(r#"{"a":[],"b":[],"c":1}"#), "it has more than 5 lists, objects, strings and keys");
        assert_eq!(reason(r#"["","","","",""]"#), "it has more than 5 lists, objects, strings and keys");
    }

    #[test]
    fn a_limit_is_found_before_what_follows_is_read() {
        let bomb = [b"[".as_slice(), &b"[],".repeat(1 << 20), b"\xff"].concat();
        assert!(check(&bomb[..bomb.len() - 1], LIMITS).is_err_and(|error| error == JsonError::Objects(5)));
        assert_eq!(reason("[".repeat(1 << 20)), "it is nested more than 4 levels deep");
        // Keys count too: the limit of objects is the first to be reached.
        assert_eq!(reason(r#"{"a":"#.repeat(1 << 20)), "it has more than 5 lists, objects, strings and keys");
    }

    #[test]
    fn what_has_no_single_meaning_is_rejected() {
        for (text, word) in [
            (r#"{"a":1,"a":2}"#, "twice"),
            (r#"{"a":1,"\u0061":2}"#, "twice"),
            (r#"["\ud83d"]"#, "hex escape"),
            (r#"{"\udc00":1}"#, "hex escape"),
            ("NaN", "expected"),
            ("[Infinity]", "expected"),
            ("1e999", "out of range"),
            ("[1]]", "trailing"),
            ("{}{}", "trailing"),
            ("[1,]", "trailing comma"),
            ("", "EOF"),
            ("\u{feff}1", "expected"),
            ("\"\u{1}\"", "control character"),
            ("01", "invalid number"),
        ] {
            assert!(reason(text).contains(word), "{text}: {}", reason(text));
        }
        assert!(reason("9".repeat(5000)).contains("out of range"));
        assert!(reason(b"[\"\xff\"]").contains("not UTF-8"));
        assert!(reason(b"[\"\xc0\xaf\"]").contains("not UTF-8"));
    }
}
