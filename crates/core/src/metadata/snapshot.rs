//! What is settled beyond a position, when it does not fit beside it.
//!
//! A snapshot is four bytes of checksum (FNV-1a, little-endian) and spans as in the metadata,
//! counted from offset 0. What is settled stays settled, so an old snapshot is still true; it is
//! used only through a reference from the metadata of a commit, which a position that was set by
//! hand does not have.

use super::bytes::checksum;
use super::{Reference, put_spans, take_spans};
use crate::offset::{CommitOffset, Offset, Span};

/// A snapshot's bytes, well below what a broker takes as one record by default; some 80,000 spans
/// that lie close together.
pub const BYTES_MAX: usize = 256 << 10;

/// Writes as many of the earliest spans as fit into [`BYTES_MAX`]; also says whether that were all.
pub fn write(spans: impl Iterator<Item = Span>) -> (Vec<u8>, bool) {
    let mut bytes = vec![0; 4];
    let whole = put_spans(&mut bytes, CommitOffset(0), spans, BYTES_MAX);
    let checksum = checksum(&bytes[4..]);
    bytes[..4].copy_from_slice(&checksum.to_le_bytes());
    (bytes, whole)
}

/// The checksum with which a snapshot begins.
pub fn checksum_of(bytes: &[u8]) -> u32 {
    let first = bytes.first_chunk::<4>().copied().unwrap_or_default();
    u32::from_le_bytes(first)
}

/// Reads what lies where `reference` says; nothing if it is not what was written there.
pub fn read(reference: &Reference, bytes: &[u8]) -> Option<Vec<Span>> {
    let (expected, payload) = bytes.split_first_chunk::<4>()?;
    let expected = u32::from_le_bytes(*expected);
    if expected != reference.checksum || expected != checksum(payload) {
        return None;
    }
    take_spans(CommitOffset(0), payload)
}

/// What is in `all` and not in `known`; both ascending and disjoint.
pub fn difference(all: &[Span], known: &[Span]) -> Vec<Span> {
    let mut known = known.iter().peekable();
    let mut rest = Vec::new();
    for span in all {
        let (mut at, end) = (span.first.0, span.end());
        while at < end {
            while known.next_if(|next| next.end() <= at).is_some() {}
            let until = known.peek().map_or(end, |next| next.first.0.min(end));
            if at < until {
                push(&mut rest, at, until);
            }
            at = known.peek().map_or(end, |next| next.end()).max(until);
        }
    }
    rest
}

/// What is in either from `position` on; both ascending and disjoint.
pub fn union(position: CommitOffset, one: &[Span], other: &[Span]) -> Vec<Span> {
    let mut spans: Vec<_> = one.iter().chain(other).collect();
    spans.sort_unstable_by_key(|span| span.first);
    let mut joined: Vec<(i64, i64)> = Vec::new();
    for span in spans {
        let (first, end) = (span.first.0.max(position.0), span.end());
        match joined.last_mut() {
            _ if first >= end => {}
            Some((_, last)) if first <= *last => *last = end.max(*last),
            _ => joined.push((first, end)),
        }
    }
    let mut spans = Vec::with_capacity(joined.len());
    for (first, end) in joined {
        push(&mut spans, first, end);
    }
    spans
}

fn push(spans: &mut Vec<Span>, mut first: i64, end: i64) {
    while first < end {
        let count = u32::try_from(end - first).unwrap_or(u32::MAX);
        spans.push(Span {
            first: Offset(first),
            count,
        });
        first += i64::from(count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn set(spans: &[Span]) -> BTreeSet<i64> {
        spans
            .iter()
            .flat_map(|span| span.first.0..span.end())
            .collect()
    }

    fn spans(offsets: &BTreeSet<i64>) -> Vec<Span> {
        Span::of(offsets.iter().copied())
    }

    fn reference(bytes: &[u8]) -> Reference {
        Reference {
            slot: 0,
            checksum: checksum_of(bytes),
            place: Vec::new(),
        }
    }

    #[test]
    fn a_snapshot_that_is_another_or_damaged_is_not_read() {
        let (one, _) = write(spans(&[3, 4, 9].into()).into_iter());
        let (mut other, _) = write(spans(&[3, 4, 8].into()).into_iter());
        assert_eq!(read(&reference(&one), &other), None);
        let wanted = reference(&other);
        *other.last_mut().unwrap() ^= 1;
        assert_eq!(read(&wanted, &other), None);
        assert_eq!(read(&wanted, &[]), None);
    }

    #[test]
    fn a_snapshot_has_a_limit_and_says_so() {
        let spans = (0..200_000).map(|at| Span {
            first: Offset(at * 1_000),
            count: 1,
        });
        let (bytes, whole) = write(spans);
        assert!(bytes.len() <= BYTES_MAX && !whole);
        assert!(read(&reference(&bytes), &bytes).is_some_and(|read| read.len() > 50_000));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(offsets in prop::collection::btree_set(0i64..5_000, 0..300)) {
            let written = spans(&offsets);
            let (bytes, whole) = write(written.iter().copied());
            prop_assert!(whole);
            prop_assert_eq!(read(&reference(&bytes), &bytes), Some(written));
        }

        #[test]
        fn difference_and_union_are_those_of_sets(
            one in prop::collection::btree_set(0i64..200, 0..100),
            other in prop::collection::btree_set(0i64..200, 0..100),
            position in 0i64..200,
        ) {
            let rest = difference(&spans(&one), &spans(&other));
            prop_assert_eq!(set(&rest), &one - &other);
            let both = union(CommitOffset(position), &spans(&one), &spans(&other));
            let expected: BTreeSet<_> = (&one | &other).into_iter().filter(|at| *at >= position).collect();
            prop_assert_eq!(set(&both), expected.clone());
            prop_assert_eq!(both, spans(&expected));
        }
    }
}
