//! What is settled beyond the committed position, written into the commit's metadata.
//!
//! Kafka stores one position and a short text for each partition of a group. Without the text, a
//! restart repeats everything behind the earliest unfinished record, which with many lanes and one
//! slow record can be thousands.
//!
//! The text is `ackwell1:` and base64url of a checksum (FNV-1a over position and payload,
//! 4 bytes, little-endian) and the payload: for each settled span the distance from the end of
//! the one before (from the position for the first) and its length, as LEB128. The position is
//! part of the checksum, so that a position set by hand does not inherit spans that belong to
//! another. Anything unreadable counts as nothing settled, which repeats and never skips.

use crate::offset::{CommitOffset, Offset, Span};

const FAMILY: &str = "ackwell";
const PREFIX: &str = "ackwell1:";
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// The metadata found beside a committed position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Metadata {
    /// Written by [`encode`]: these spans are settled.
    Settled(Vec<Span>),
    /// Ours by its prefix, but damaged, of another position, or of an unknown version.
    Unreadable,
    /// Somebody else's: it is carried on as it is.
    Foreign(String),
}

/// Writes as many of the earliest `spans` as fit into `bytes_max`; nothing settled is an empty
/// text. Spans must be ascending, disjoint and not before `position`; the rest is left out.
pub fn encode(
    position: CommitOffset,
    spans: impl Iterator<Item = Span>,
    bytes_max: usize,
) -> String {
    encode_up_to(position, spans, bytes_max).0
}

/// As [`encode`]; also says whether all spans did fit.
pub fn encode_up_to(
    position: CommitOffset,
    spans: impl Iterator<Item = Span>,
    bytes_max: usize,
) -> (String, bool) {
    let payload_max = bytes_max.saturating_sub(PREFIX.len()) / 4 * 3;
    let mut bytes = vec![0; 4];
    let (mut end, mut whole) = (position.0, true);
    for span in spans {
        let Some(distance) = span
            .first
            .0
            .checked_sub(end)
            .and_then(|d| u64::try_from(d).ok())
        else {
            break;
        };
        let before = bytes.len();
        put_varint(&mut bytes, distance);
        put_varint(&mut bytes, u64::from(span.count));
        if bytes.len() > payload_max {
            bytes.truncate(before);
            whole = false;
            break;
        }
        end = span.end();
    }
    if bytes.len() == 4 {
        return (String::new(), whole);
    }
    let checksum = checksum(position, &bytes[4..]);
    bytes[..4].copy_from_slice(&checksum.to_le_bytes());
    (to_text(&bytes), whole)
}

/// Reads the metadata of a committed `position`.
pub fn decode(position: CommitOffset, text: &str) -> Metadata {
    if text.is_empty() {
        return Metadata::Settled(Vec::new());
    }
    if !text.starts_with(FAMILY) {
        return Metadata::Foreign(text.to_owned());
    }
    let spans = text
        .strip_prefix(PREFIX)
        .and_then(|text| read(position, text));
    spans.map_or(Metadata::Unreadable, Metadata::Settled)
}

fn read(position: CommitOffset, text: &str) -> Option<Vec<Span>> {
    let bytes = from_text(text)?;
    let (expected, mut payload) = bytes.split_first_chunk::<4>()?;
    if u32::from_le_bytes(*expected) != checksum(position, payload) {
        return None;
    }
    let (mut spans, mut end) = (Vec::new(), position.0);
    while !payload.is_empty() {
        let distance = i64::try_from(take_varint(&mut payload)?).ok()?;
        let count = u32::try_from(take_varint(&mut payload)?)
            .ok()
            .filter(|count| *count > 0)?;
        let first = end.checked_add(distance)?;
        end = first.checked_add(i64::from(count))?;
        spans.push(Span {
            first: Offset(first),
            count,
        });
    }
    Some(spans)
}

fn checksum(position: CommitOffset, payload: &[u8]) -> u32 {
    let position = position.0.to_le_bytes();
    position
        .iter()
        .chain(payload)
        .fold(0x811c_9dc5, |hash: u32, byte| {
            (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
        })
}

fn put_varint(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..63).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn to_text(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(PREFIX.len() + bytes.len().div_ceil(3) * 4);
    text.push_str(PREFIX);
    for chunk in bytes.chunks(3) {
        let word = chunk
            .iter()
            .fold(0u32, |word, byte| word << 8 | u32::from(*byte));
        let word = word << (8 * (3 - chunk.len()));
        for place in 0..=chunk.len() {
            let sextet = word >> (18 - 6 * place) & 0x3f;
            text.push(char::from(ALPHABET[sextet as usize]));
        }
    }
    text
}

fn from_text(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3 + 2);
    for chunk in text.as_bytes().chunks(4) {
        if chunk.len() == 1 {
            return None;
        }
        let mut word = 0u32;
        for symbol in chunk {
            let sextet = ALPHABET.iter().position(|known| known == symbol)?;
            word = word << 6 | u32::try_from(sextet).ok()?;
        }
        word <<= 6 * (4 - chunk.len());
        bytes.extend_from_slice(&word.to_be_bytes()[1..chunk.len()]);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn spans(position: i64, pairs: &[(u16, u8)]) -> Vec<Span> {
        let mut at = position;
        let place = |(distance, count): &(u16, u8)| {
            let first = at + i64::from(*distance) + 1;
            at = first + i64::from(*count) + 1;
            Span {
                first: Offset(first),
                count: u32::from(*count) + 1,
            }
        };
        pairs.iter().map(place).collect()
    }

    #[test]
    fn nothing_settled_is_an_empty_text() {
        assert_eq!(encode(CommitOffset(7), [].into_iter(), 4096), "");
        assert_eq!(decode(CommitOffset(7), ""), Metadata::Settled(vec![]));
    }

    #[test]
    fn foreign_metadata_is_left_alone() {
        let foreign = "connect-worker-1".to_owned();
        assert_eq!(
            decode(CommitOffset(7), &foreign),
            Metadata::Foreign(foreign)
        );
    }

    #[test]
    fn a_position_set_by_hand_does_not_inherit_spans() {
        let text = encode(CommitOffset(7), spans(7, &[(1, 1)]).into_iter(), 4096);
        assert_eq!(decode(CommitOffset(6), &text), Metadata::Unreadable);
    }

    #[test]
    fn an_unknown_version_is_unreadable_rather_than_foreign() {
        assert_eq!(
            decode(CommitOffset(0), "ackwell2:AAAA"),
            Metadata::Unreadable
        );
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(
            position in 0i64..1 << 60, pairs in prop::collection::vec((0u16.., 0u8..), 1..50),
        ) {
            let spans = spans(position, &pairs);
            let text = encode(CommitOffset(position), spans.iter().copied(), 4096);
            prop_assert_eq!(decode(CommitOffset(position), &text), Metadata::Settled(spans));
        }

        #[test]
        fn the_limit_is_kept_and_the_earliest_spans_survive(
            pairs in prop::collection::vec((0u16.., 0u8..), 1..200), limit in 0usize..300,
        ) {
            let spans = spans(5, &pairs);
            let text = encode(CommitOffset(5), spans.iter().copied(), limit);
            prop_assert!(text.len() <= limit);
            let Metadata::Settled(read) = decode(CommitOffset(5), &text) else {
                return Err(TestCaseError::fail("unreadable"));
            };
            prop_assert_eq!(&spans[..read.len()], &read[..]);
        }

        #[test]
        fn a_damaged_text_never_settles_anything_else(
            pairs in prop::collection::vec((0u16.., 0u8..), 1..20),
            at in 9usize..100, symbol in 0usize..64,
        ) {
            let spans = spans(5, &pairs);
            let mut text = encode(CommitOffset(5), spans.iter().copied(), 4096).into_bytes();
            let at = at.min(text.len() - 1);
            text[at] = ALPHABET[symbol];
            let read = decode(CommitOffset(5), &String::from_utf8(text).unwrap());
            prop_assert!(read == Metadata::Unreadable || read == Metadata::Settled(spans));
        }

        #[test]
        fn any_text_is_survived(position in 0i64.., text in "(ackwell1:)?[A-Za-z0-9_-]{0,80}") {
            decode(CommitOffset(position), &text);
        }
    }
}
