//! JSON, and what is told of a value that is none.
//!
//! Why a value can't be decoded stands in the log, where others read than those who may read the
//! topic, and serde's messages quote what they have found: `invalid type: string "4111 1111 .."`.
//! So quotations are left out. The kind of what was found, what was expected, line and column are
//! enough to find it in the dead letter.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Codec, CodecError};
use crate::encode::JSON;

/// JSON by serde: what events are written in, unless they say otherwise.
///
/// Its errors say what was found where and what was expected, and quote nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Json;

impl<T: Serialize + DeserializeOwned> Codec<T> for Json {
    fn content_type(&self) -> &'static str {
        JSON
    }

    fn encode(&self, value: &T) -> Result<Vec<u8>, CodecError> {
        Ok(serde_json::to_vec(value)?)
    }

    fn decode(&self, bytes: &[u8]) -> Result<T, CodecError> {
        Ok(decode(bytes)?)
    }
}

/// Why a value is no JSON, or not the one that was expected.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct NotDecoded(String);

/// Decodes a value.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, NotDecoded> {
    serde_json::from_slice(bytes).map_err(|error| NotDecoded(unquoted(&error.to_string())))
}

/// serde's messages that quote, how the quotation begins, and how what follows it does.
const QUOTING: [(&str, &str, &str); 4] = [
    ("invalid type: ", " ", ", expected "),
    ("invalid value: ", " ", ", expected "),
    ("unknown variant", " `", "`, expected "),
    ("unknown field", " `", "`, expected "),
];
/// Where serde_json adds line and column.
const PLACE: &str = " at line ";

/// The message without what it quotes of the value.
fn unquoted(message: &str) -> String {
    let quoting = QUOTING
        .iter()
        .find(|(start, ..)| message.starts_with(start));
    let Some((start, begins, ends)) = quoting else {
        return message.to_owned();
    };
    let place = message.rfind(PLACE).unwrap_or(message.len());
    let (what, place) = message.split_at(place);
    let found = &what[start.len()..];
    let kind = found.find(begins).map_or(found, |at| &found[..at]);
    // The last one: a quotation may hold the same words.
    let expected = found.rfind(ends).map_or("", |at| &found[at + ends.len()..]);
    if expected.is_empty() {
        return format!("{start}{kind}{place}");
    }
    format!("{start}{kind}, expected {expected}{place}")
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only decoded")]
    struct Card {
        number: u32,
        kind: Kind,
    }

    #[derive(Debug, Deserialize)]
    enum Kind {
        Debit,
        Credit,
    }

    fn told(value: &str) -> String {
        decode::<Card>(value.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn what_is_told_of_a_broken_value_quotes_nothing_of_it() {
        assert_eq!(
            told(r#"{"number":"4111, expected 1111","kind":"Debit"}"#),
            "invalid type: string, expected u32 at line 1 column 31"
        );
        assert_eq!(
            told(r#"{"number":-4111,"kind":"Debit"}"#),
            "invalid value: integer, expected u32 at line 1 column 15"
        );
        assert_eq!(
            told(r#"{"number":1,"kind":"secret`, expected at line 7"}"#),
            "unknown variant, expected `Debit` or `Credit` at line 1 column 48"
        );
        assert_eq!(
            told(r#"{"secret":1}"#),
            "unknown field, expected `number` or `kind` at line 1 column 9"
        );
    }

    #[test]
    fn what_quotes_nothing_is_told_as_it_is() {
        assert_eq!(told("{}"), "missing field `number` at line 1 column 2");
        assert_eq!(
            told(r#"{"number":"#),
            "EOF while parsing a value at line 1 column 10"
        );
    }
}
