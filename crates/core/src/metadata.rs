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
//!
//! Brokers bound the text (`offset.metadata.max.bytes`, 4,096 by default). What outgrows it is
//! written elsewhere as a [`snapshot`], and the text says where: `ackwell2:`, whose payload begins
//! with a [`Reference`]; its spans are those settled since. So a snapshot is written once for
//! about a thousand spans, and each commit in between is complete all the same.

mod bytes;
pub mod snapshot;

use self::bytes::{from_text, put_varint, take_varint, to_text};
use crate::offset::{CommitOffset, Offset, Span};

const FAMILY: &str = "ackwell";
const PLAIN: &str = "ackwell1:";
const REFERRING: &str = "ackwell2:";
/// Bytes of a [`Reference`]'s place.
pub const PLACE_BYTES_MAX: usize = 32;

/// The metadata found beside a committed position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Metadata {
    /// Written by [`encode`]: these spans are settled.
    Settled(Vec<Span>),
    /// Written by [`refer_up_to`]: these spans are settled, and those of a snapshot.
    Referring(Reference, Vec<Span>),
    /// Ours by its prefix, but damaged, of another position, or of an unknown version.
    Unreadable,
    /// Somebody else's: it is carried on as it is.
    Foreign(String),
}

/// Where a snapshot lies, and what it must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// Which of the partition's two slots it lies in: a new snapshot goes into the other, so that
    /// the one that is referred to stays until the reference has changed.
    pub slot: u8,
    /// The snapshot's checksum.
    pub checksum: u32,
    /// What the store needs to find it, at most [`PLACE_BYTES_MAX`] bytes.
    pub place: Vec<u8>,
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
    let mut bytes = vec![0; 4];
    let whole = put_spans(&mut bytes, position, spans, room(PLAIN, bytes_max));
    if bytes.len() == 4 {
        return (String::new(), whole);
    }
    (sealed(PLAIN, position, bytes), whole)
}

/// As [`encode_up_to`], with a reference to a snapshot that knows the spans which are not given
/// here. A reference that does not fit gives an empty text.
pub fn refer_up_to(
    position: CommitOffset,
    reference: &Reference,
    spans: impl Iterator<Item = Span>,
    bytes_max: usize,
) -> (String, bool) {
    let Reference {
        slot,
        checksum,
        place,
    } = reference;
    let mut bytes = vec![0; 4];
    bytes.push(*slot);
    bytes.extend_from_slice(&checksum.to_le_bytes());
    put_varint(&mut bytes, place.len() as u64);
    bytes.extend_from_slice(place);
    let room = room(REFERRING, bytes_max);
    if bytes.len() > room || place.len() > PLACE_BYTES_MAX {
        return (String::new(), false);
    }
    let whole = put_spans(&mut bytes, position, spans, room);
    (sealed(REFERRING, position, bytes), whole)
}

/// Bytes that fit into a text of `bytes_max`.
fn room(prefix: &str, bytes_max: usize) -> usize {
    bytes_max.saturating_sub(prefix.len()) / 4 * 3
}

/// Writes as many spans as there is room for; whether that were all.
fn put_spans(
    bytes: &mut Vec<u8>,
    position: CommitOffset,
    spans: impl Iterator<Item = Span>,
    room: usize,
) -> bool {
    let mut end = position.0;
    for span in spans {
        let distance = span.first.0.checked_sub(end);
        let Some(distance) = distance.and_then(|distance| u64::try_from(distance).ok()) else {
            return false;
        };
        let before = bytes.len();
        put_varint(bytes, distance);
        put_varint(bytes, u64::from(span.count));
        if bytes.len() > room {
            bytes.truncate(before);
            return false;
        }
        end = span.end();
    }
    true
}

fn take_spans(position: CommitOffset, mut payload: &[u8]) -> Option<Vec<Span>> {
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

fn sealed(prefix: &str, position: CommitOffset, mut bytes: Vec<u8>) -> String {
    let checksum = checksum(position, &bytes[4..]);
    bytes[..4].copy_from_slice(&checksum.to_le_bytes());
    to_text(prefix, &bytes)
}

/// Reads the metadata of a committed `position`.
pub fn decode(position: CommitOffset, text: &str) -> Metadata {
    if text.is_empty() {
        return Metadata::Settled(Vec::new());
    }
    if !text.starts_with(FAMILY) {
        return Metadata::Foreign(text.to_owned());
    }
    let read = if let Some(text) = text.strip_prefix(PLAIN) {
        opened(position, text)
            .and_then(|payload| take_spans(position, &payload))
            .map(Metadata::Settled)
    } else if let Some(text) = text.strip_prefix(REFERRING) {
        opened(position, text).and_then(|payload| read_referring(position, &payload))
    } else {
        None
    };
    read.unwrap_or(Metadata::Unreadable)
}

/// The payload, if it belongs to this position and is as it was.
fn opened(position: CommitOffset, text: &str) -> Option<Vec<u8>> {
    let bytes = from_text(text)?;
    let (expected, payload) = bytes.split_first_chunk::<4>()?;
    (u32::from_le_bytes(*expected) == checksum(position, payload)).then(|| payload.to_vec())
}

fn read_referring(position: CommitOffset, payload: &[u8]) -> Option<Metadata> {
    let (slot, payload) = payload.split_first()?;
    let (checksum, mut payload) = payload.split_first_chunk::<4>()?;
    let length = usize::try_from(take_varint(&mut payload)?).ok()?;
    let place = payload
        .get(..length)
        .filter(|_| length <= PLACE_BYTES_MAX)?;
    let reference = Reference {
        slot: *slot,
        checksum: u32::from_le_bytes(*checksum),
        place: place.to_vec(),
    };
    let spans = take_spans(position, payload.get(length..)?)?;
    Some(Metadata::Referring(reference, spans))
}

fn checksum(position: CommitOffset, payload: &[u8]) -> u32 {
    bytes::checksum(position.0.to_le_bytes().iter().chain(payload))
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
    fn a_reference_is_read_with_what_was_settled_since() {
        let reference = Reference {
            slot: 1,
            checksum: 7,
            place: vec![0, 255, 3],
        };
        let since = spans(9, &[(1, 1), (300, 4)]);
        let (text, whole) = refer_up_to(CommitOffset(9), &reference, since.iter().copied(), 4_096);
        assert!(whole);
        assert_eq!(
            decode(CommitOffset(9), &text),
            Metadata::Referring(reference.clone(), since)
        );
        assert_eq!(decode(CommitOffset(8), &text), Metadata::Unreadable);
        let (text, whole) = refer_up_to(CommitOffset(9), &reference, [].into_iter(), 10);
        assert_eq!((text.as_str(), whole), ("", false));
    }

    #[test]
    fn an_unknown_version_is_unreadable_rather_than_foreign() {
        assert_eq!(
            decode(CommitOffset(0), "ackwell3:AAAA"),
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
            let (_, whole) = encode_up_to(CommitOffset(5), spans.iter().copied(), limit);
            let Metadata::Settled(read) = decode(CommitOffset(5), &text) else {
                return Err(TestCaseError::fail("unreadable"));
            };
            prop_assert_eq!(&spans[..read.len()], &read[..]);
            prop_assert_eq!(whole, read.len() == spans.len());
        }

        #[test]
        fn a_damaged_text_never_settles_anything_else(
            pairs in prop::collection::vec((0u16.., 0u8..), 1..20),
            at in 9usize..100, symbol in 0usize..64,
        ) {
            let spans = spans(5, &pairs);
            let mut text = encode(CommitOffset(5), spans.iter().copied(), 4096).into_bytes();
            let at = at.min(text.len() - 1);
            let symbols = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
            text[at] = symbols[symbol];
            let read = decode(CommitOffset(5), &String::from_utf8(text).unwrap());
            prop_assert!(read == Metadata::Unreadable || read == Metadata::Settled(spans));
        }

        #[test]
        fn any_text_is_survived(position in 0i64.., text in "(ackwell[12]:)?[A-Za-z0-9_-]{0,80}") {
            decode(CommitOffset(position), &text);
        }
    }
}
