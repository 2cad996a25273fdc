//! Numbers that must not be mixed up.

use std::fmt;

/// The offset of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Offset(pub i64);

impl Offset {
    /// The position behind this record.
    pub const fn next(self) -> CommitOffset {
        CommitOffset(self.0.saturating_add(1))
    }
}

/// The offset of the next record to read: what Kafka stores for a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommitOffset(pub i64);

impl fmt::Display for CommitOffset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Counts the times that a container began to read a partition: on assignment, seek and rewind.
/// What was dispatched in an earlier generation may still report, and must not be counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Generation(pub u64);

/// Offsets `first`, `first + 1`, .. of `count` records that follow each other without a gap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    /// The first offset.
    pub first: Offset,
    /// How many; at least 1.
    pub count: u32,
}

impl Span {
    /// The offset behind the last.
    pub const fn end(self) -> i64 {
        self.first.0.saturating_add(self.count as i64)
    }

    /// Joins strictly ascending offsets into spans.
    pub fn of(
        offsets: impl ExactSizeIterator<Item = i64> + DoubleEndedIterator + Clone,
    ) -> Vec<Span> {
        let count = u32::try_from(offsets.len()).unwrap_or(u32::MAX);
        let mut ends = offsets.clone();
        if let Some(first) = ends.next()
            && ends.next_back().unwrap_or(first) - first == i64::from(count) - 1
        {
            // As many as there is room for: without a gap, whatever lies between.
            let first = Offset(first);
            return vec![Span { first, count }];
        }
        let mut spans: Vec<Span> = Vec::new();
        for offset in offsets {
            match spans.last_mut() {
                Some(last) if last.end() == offset && last.count < u32::MAX => last.count += 1,
                _ => spans.push(Span {
                    first: Offset(offset),
                    count: 1,
                }),
            }
        }
        spans
    }
}
