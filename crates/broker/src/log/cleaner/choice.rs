//! Whether a pass is due, and over what: Kafka's `LogCleanerManager`.

use std::sync::Arc;

use super::super::segment::Segment;
use crate::store::TopicConfig;

/// A segment holds so many offsets at most, so that an index entry fits into four bytes.
const OFFSETS_MAX: i64 = i32::MAX as i64;

/// A closed segment whose records are all visible.
#[derive(Debug, Clone, Copy)]
pub(super) struct Candidate {
    pub(super) base: i64,
    /// The base offset of the segment behind it.
    pub(super) next: i64,
    pub(super) size: u64,
    /// The time of its newest record.
    pub(super) newest_ms: i64,
}

/// A pass that is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Due {
    pub(super) first_dirty: i64,
    /// The offset behind what may be cleaned.
    pub(super) end: i64,
}

/// What to clean now: when the dirty part is large enough, or its oldest record has waited for as long as it may.
pub(super) fn due(
    candidates: &[Candidate],
    first_dirty: i64,
    oldest_dirty_ms: Option<i64>,
    config: &TopicConfig,
    now_ms: i64,
) -> Option<Due> {
    let is_young = |candidate: &&Candidate| {
        config.min_compaction_lag_ms > 0
            && candidate.next > first_dirty
            && now_ms.saturating_sub(candidate.newest_ms) < config.min_compaction_lag_ms
    };
    let young = candidates.iter().find(is_young).map(|young| young.base);
    let end = young.or_else(|| candidates.last().map(|last| last.next))?;
    let (mut clean, mut dirty) = (0_u64, 0_u64);
    for candidate in candidates.iter().filter(|candidate| candidate.base < end) {
        match candidate.next <= first_dirty {
            true => clean += candidate.size,
            false => dirty += candidate.size,
        }
    }
    if dirty == 0 || end <= first_dirty {
        return None;
    }
    let ratio = dirty as f64 / (clean + dirty) as f64;
    let waited = oldest_dirty_ms.map_or(0, |oldest| now_ms.saturating_sub(oldest));
    let is_due = ratio > config.min_cleanable_dirty_ratio || waited > config.max_compaction_lag_ms;
    is_due.then_some(Due { first_dirty, end })
}

/// The segments up to `end` in groups, each of which becomes one segment: small ones are joined.
pub(super) fn groups(
    segments: &[Arc<Segment>],
    end: i64,
    segment_bytes: u64,
) -> Vec<Vec<Arc<Segment>>> {
    let mut groups: Vec<Vec<Arc<Segment>>> = Vec::new();
    let (mut bytes, mut first) = (0, 0);
    for (at, segment) in segments.iter().enumerate() {
        if segment.base() >= end {
            break;
        }
        let next = segments.get(at + 1).map_or(end, |next| next.base());
        let fits = bytes + segment.size() <= segment_bytes && next - first <= OFFSETS_MAX;
        match groups.last_mut().filter(|_| fits) {
            Some(group) => group.push(segment.clone()),
            None => {
                groups.push(vec![segment.clone()]);
                (bytes, first) = (0, segment.base());
            }
        }
        bytes += segment.size();
    }
    groups
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    const NOW: i64 = 1_000_000;

    fn config(settings: &[(&str, &str)]) -> TopicConfig {
        let settings = settings
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        TopicConfig::new(settings, &BTreeMap::new()).unwrap()
    }

    /// Segments of 100 offsets and 100 bytes each, with their newest times.
    fn candidates(newest: &[i64]) -> Vec<Candidate> {
        newest
            .iter()
            .zip(0..)
            .map(|(&newest_ms, at)| Candidate {
                base: at * 100,
                next: (at + 1) * 100,
                size: 100,
                newest_ms,
            })
            .collect()
    }

    fn due_of(
        newest: &[i64],
        first_dirty: i64,
        oldest: Option<i64>,
        settings: &[(&str, &str)],
    ) -> Option<(i64, i64)> {
        due(
            &candidates(newest),
            first_dirty,
            oldest,
            &config(settings),
            NOW,
        )
        .map(|due| (due.first_dirty, due.end))
    }

    #[test]
    fn a_pass_is_due_when_more_than_half_of_the_log_is_dirty() {
        assert_eq!(due_of(&[1, 1, 1], 0, None, &[]), Some((0, 300)));
        assert_eq!(due_of(&[1, 1, 1], 100, None, &[]), Some((100, 300)));
        assert_eq!(due_of(&[1, 1], 100, None, &[]), None, "exactly half");
        assert_eq!(due_of(&[1, 1], 200, None, &[]), None, "all is clean");
        assert_eq!(due_of(&[], 0, None, &[]), None);
    }

    #[test]
    fn the_ratio_is_the_topics() {
        let settings = [("min.cleanable.dirty.ratio", "0.1")];
        assert_eq!(
            due_of(&[1, 1, 1, 1], 300, None, &settings),
            Some((300, 400))
        );
    }

    #[test]
    fn records_younger_than_the_lag_and_all_behind_them_stay() {
        let settings = [("min.compaction.lag.ms", "1000")];
        assert_eq!(
            due_of(&[1, NOW - 999, 1], 0, None, &settings),
            Some((0, 100))
        );
        assert_eq!(due_of(&[NOW - 999, 1, 1], 0, None, &settings), None);
        assert_eq!(due_of(&[NOW - 1000], 0, None, &settings), Some((0, 100)));
    }

    #[test]
    fn a_dirty_record_that_waited_too_long_makes_a_pass_due_whatever_the_ratio() {
        let settings = [("max.compaction.lag.ms", "500")];
        let newest = [1, 1, 1, 1];
        assert_eq!(due_of(&newest, 300, Some(NOW - 500), &settings), None);
        assert_eq!(
            due_of(&newest, 300, Some(NOW - 501), &settings),
            Some((300, 400))
        );
    }
}
