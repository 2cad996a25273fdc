//! The outbox: events that wait, durable, until the relay has published them.

use ackwell::{EncodedEvent, Headers};

use crate::backend::Sqlite;
use crate::error::{Error, Kind, Result};
use crate::params;

/// What Kafka's batch and record framing may add to key, value and headers.
const FRAMING_BYTES: usize = 512;

/// Refuses an event that no broker would take. In the outbox it would stop all that follow.
pub(crate) fn check_size(event: &EncodedEvent, bytes_max: usize) -> Result<()> {
    let headers: usize = event
        .headers
        .iter()
        .map(|header| header.name().len() + header.value().map_or(0, <[u8]>::len) + 10)
        .sum();
    let bytes = event.key.len() + event.value.len() + headers + FRAMING_BYTES;
    if bytes <= bytes_max {
        return Ok(());
    }
    Err(Error::new(
        Kind::TooLarge,
        format!(
            "emitting to {}: the event has {bytes} bytes, more than the {bytes_max} of a message",
            event.topic
        ),
    ))
}

/// Adds the event to the open transaction of a file.
pub(crate) fn insert(file: &mut Sqlite, event: &EncodedEvent) -> Result<()> {
    let inserted = file.execute(
        "INSERT INTO ackwell_outbox (topic, key, value, headers, created_at) \
         VALUES ($1, $2, $3, $4, $5)",
        params![
            event.topic,
            event.key,
            event.value,
            encode_headers(&event.headers),
            jiff::Timestamp::now()
        ],
    );
    inserted.map(drop)
}

/// Length of a null value, which Kafka tells apart from an empty one.
const NULL: u32 = u32::MAX;

/// Headers as bytes: for each, length and text of its name, length and bytes of its value,
/// lengths as four bytes, big end first.
pub(crate) fn encode_headers(headers: &Headers) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(headers.len() * 40);
    for header in headers {
        put(&mut bytes, header.name().as_bytes());
        match header.value() {
            Some(value) => put(&mut bytes, value),
            None => bytes.extend_from_slice(&NULL.to_be_bytes()),
        }
    }
    bytes
}

/// A message's size is checked before, so every length fits.
fn put(bytes: &mut Vec<u8>, part: &[u8]) {
    let len = u32::try_from(part.len()).unwrap_or(NULL - 1);
    bytes.extend_from_slice(&len.to_be_bytes());
    bytes.extend_from_slice(part);
}

/// A header's name and value.
pub(crate) type Stored<'a> = (&'a str, Option<&'a [u8]>);

/// Reads what [`encode_headers`] wrote; `None` when it is damaged.
pub(crate) fn decode_headers(mut bytes: &[u8]) -> Option<Vec<Stored<'_>>> {
    let mut headers = Vec::new();
    while !bytes.is_empty() {
        let name = take(&mut bytes)??;
        headers.push((std::str::from_utf8(name).ok()?, take(&mut bytes)?));
    }
    Some(headers)
}

fn take<'a>(bytes: &mut &'a [u8]) -> Option<Option<&'a [u8]>> {
    let (len, rest) = bytes.split_first_chunk::<4>()?;
    let len = u32::from_be_bytes(*len);
    if len == NULL {
        *bytes = rest;
        return Some(None);
    }
    let (part, rest) = rest.split_at_checked(len as usize)?;
    *bytes = rest;
    Some(Some(part))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn headers_come_back_as_they_were(
            list in prop::collection::vec((".{0,20}", prop::option::of(prop::collection::vec(any::<u8>(), 0..50))), 0..8)
        ) {
            let mut headers = Headers::new();
            for (name, value) in &list {
                match value {
                    Some(value) => headers.push(name, value.clone()),
                    None => headers.push_null(name),
                }
            }
            let bytes = encode_headers(&headers);
            let decoded = decode_headers(&bytes).unwrap();
            let expected: Vec<_> =
                list.iter().map(|(name, value)| (name.as_str(), value.as_deref())).collect();
            prop_assert_eq!(decoded, expected);
        }

        #[test]
        fn damaged_headers_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = decode_headers(&bytes);
        }
    }
}
