//! Holds the containers to the promise.

use std::collections::BTreeMap;

use ackwell_core::metadata::{Metadata, decode};
use ackwell_core::offset::CommitOffset;

use crate::brain::Record;

pub(crate) type MemberId = usize;
pub(crate) type Checked = Result<(), String>;

/// What must not overlap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Serial {
    Partition,
    Key(u64),
    Alone(i64),
}

/// A record that is being handled.
#[derive(Debug, Clone)]
struct InWork {
    member: MemberId,
    lane: Serial,
    /// Its owner has lost the partition without being told: nobody can prevent an overlap.
    excused: bool,
}

/// What is known of one partition, whoever owned it.
#[derive(Debug, Default)]
pub(crate) struct Checker {
    unsettled: BTreeMap<(u32, i64), Record>,
    in_work: BTreeMap<(u32, i64, MemberId), InWork>,
    by_key: bool,
}

impl Checker {
    pub(crate) fn new(by_key: bool) -> Self {
        Checker {
            by_key,
            ..Checker::default()
        }
    }

    pub(crate) fn produced(&mut self, partition: u32, record: &Record) {
        self.unsettled
            .insert((partition, record.offset), record.clone());
    }

    /// Records that are serial among each other: by key, those without one are nobody's equals.
    fn lane(&self, record: &Record) -> Serial {
        match record.key {
            Some(key) if self.by_key => Serial::Key(key),
            None if self.by_key => Serial::Alone(record.offset),
            _ => Serial::Partition,
        }
    }

    /// The earliest unsettled record of a partition.
    pub(crate) fn earliest(&self, partition: u32) -> Option<i64> {
        let of = (partition, i64::MIN)..=(partition, i64::MAX);
        self.unsettled.range(of).next().map(|((_, at), _)| *at)
    }

    /// A handler starts: nobody else may be at work on its key, and everything before it in the
    /// order of its key must be settled.
    pub(crate) fn begin(
        &mut self,
        p: u32,
        record: &Record,
        member: MemberId,
        owner: bool,
    ) -> Checked {
        let lane = self.lane(record);
        for ((_, offset, other), work) in self
            .in_work
            .range((p, i64::MIN, 0)..=(p, i64::MAX, MemberId::MAX))
        {
            if work.lane == lane && !work.excused && owner {
                return Err(format!(
                    "two at once: member {member} begins {p}/{} while member {other} is at {offset}",
                    record.offset
                ));
            }
        }
        for earlier in self
            .unsettled
            .range((p, i64::MIN)..(p, record.offset))
            .map(|(_, found)| found)
        {
            if self.lane(earlier) == lane {
                return Err(format!(
                    "out of order: member {member} begins {p}/{} before {} is settled",
                    record.offset, earlier.offset
                ));
            }
        }
        let work = InWork {
            member,
            lane,
            excused: !owner,
        };
        self.in_work.insert((p, record.offset, member), work);
        Ok(())
    }

    pub(crate) fn end(&mut self, partition: u32, offset: i64, member: MemberId) {
        self.in_work.remove(&(partition, offset, member));
    }

    /// A record took its effect, was skipped, or lies in the dead-letter topic.
    pub(crate) fn settle(&mut self, partition: u32, offset: i64) {
        self.unsettled.remove(&(partition, offset));
    }

    pub(crate) fn crashed(&mut self, member: MemberId) {
        self.in_work.retain(|_, work| work.member != member);
    }

    pub(crate) fn lost(&mut self, partition: u32, member: MemberId) {
        for ((p, ..), work) in &mut self.in_work {
            work.excused |= *p == partition && work.member == member;
        }
    }

    /// A partition was handed over properly: its old owner must be done with it.
    pub(crate) fn handed_over(&self, partition: u32, member: MemberId) -> Checked {
        let found = self
            .in_work
            .iter()
            .find(|((p, ..), work)| *p == partition && work.member == member && !work.excused);
        found.map_or(Ok(()), |((_, offset, _), _)| {
            Err(format!(
                "member {member} hands over {partition} while it is at {offset}"
            ))
        })
    }

    /// The broker has stored a commit.
    pub(crate) fn committed(
        &self,
        partition: u32,
        position: CommitOffset,
        metadata: &str,
    ) -> Checked {
        if let Some((place, _)) = self
            .unsettled
            .range((partition, i64::MIN)..(partition, position.0))
            .next()
        {
            return Err(format!(
                "the position {position} passes the unsettled record {place:?}"
            ));
        }
        match decode(position, metadata) {
            Metadata::Settled(spans) => {
                let offsets = spans.iter().flat_map(|span| span.first.0..span.end());
                let wrong = offsets
                    .map(|offset| (partition, offset))
                    .find(|place| self.unsettled.contains_key(place));
                wrong.map_or(Ok(()), |place| {
                    Err(format!("metadata claims that {place:?} is settled"))
                })
            }
            Metadata::Unreadable | Metadata::Foreign(_) => Err(format!("metadata {metadata:?}")),
        }
    }

    /// Records that are not settled.
    pub(crate) fn unsettled(&self) -> usize {
        self.unsettled.len()
    }
}
