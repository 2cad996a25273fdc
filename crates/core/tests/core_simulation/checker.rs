//! Holds the containers to the promise.

use std::collections::{BTreeMap, BTreeSet};

use ackwell_core::engine::{PartitionId, Position};

use crate::manners::still_settled;
use crate::member::Record;

pub(crate) type MemberId = usize;
pub(crate) type Checked = Result<(), String>;

/// What must be handled one after another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Lane {
    Partition,
    Key(u64),
    /// By key, a record without one is nobody's equal.
    Alone(i64),
}

/// A record that is being handled.
#[derive(Debug, Clone)]
struct InWork {
    offset: i64,
    member: MemberId,
    lane: Lane,
    /// Its owner has lost the partition without being told: nobody can prevent an overlap.
    excused: bool,
}

/// What is known of one partition, whoever owned it.
#[derive(Debug, Default)]
struct Log {
    unsettled: BTreeSet<i64>,
    /// Safe in a durable place, to be handled from there.
    parked: BTreeSet<i64>,
    lanes: BTreeMap<Lane, BTreeSet<i64>>,
    in_work: Vec<InWork>,
}

/// What is known of all partitions.
#[derive(Debug)]
pub(crate) struct Checker {
    logs: Vec<Log>,
    by_key: bool,
    /// Records may be acknowledged long after they were handled.
    manual: bool,
}

impl Checker {
    pub(crate) fn new(partitions: u64, by_key: bool, manual: bool) -> Self {
        Checker {
            logs: (0..partitions).map(|_| Log::default()).collect(),
            by_key,
            manual,
        }
    }

    fn log(&mut self, partition: u32) -> &mut Log {
        &mut self.logs[partition as usize]
    }

    fn lane(&self, record: &Record) -> Lane {
        match record.key {
            Some(key) if self.by_key => Lane::Key(key),
            None if self.by_key => Lane::Alone(record.offset),
            _ => Lane::Partition,
        }
    }

    /// The earliest unsettled record of a partition.
    pub(crate) fn earliest(&self, partition: u32) -> Option<i64> {
        self.logs[partition as usize].unsettled.first().copied()
    }

    pub(crate) fn produced(&mut self, partition: u32, record: &Record) {
        let lane = self.lane(record);
        let log = self.log(partition);
        log.unsettled.insert(record.offset);
        log.lanes.entry(lane).or_default().insert(record.offset);
    }

    /// A handler starts with these: nobody else may be at work on their keys, and everything
    /// before them in the order of their keys must be settled, or come with them.
    pub(crate) fn begin(
        &mut self,
        p: u32,
        records: &[Record],
        member: MemberId,
        owner: bool,
    ) -> Checked {
        let lanes = records
            .iter()
            .map(|record| (self.lane(record), record.offset));
        let lanes: Vec<_> = lanes.collect();
        for (lane, offset) in &lanes {
            self.check_begin(p, (*lane, *offset), &lanes, member, owner)?;
        }
        let begun = lanes.into_iter().map(|(lane, offset)| InWork {
            offset,
            member,
            lane,
            excused: !owner,
        });
        self.log(p).in_work.extend(begun);
        Ok(())
    }

    fn check_begin(
        &mut self,
        p: u32,
        (lane, offset): (Lane, i64),
        together: &[(Lane, i64)],
        member: MemberId,
        owner: bool,
    ) -> Checked {
        let manual = self.manual;
        let log = self.log(p);
        let clash = |work: &&InWork| work.lane == lane && !work.excused && owner;
        if let Some(work) = log.in_work.iter().find(clash) {
            return Err(format!(
                "two at once: member {member} begins {p}/{offset} while member {} is at {}",
                work.member, work.offset
            ));
        }
        let before = log.lanes.get(&lane).map(|lane| lane.range(..offset));
        let mut before = before.into_iter().flatten();
        let earlier = before.find(|earlier| !together.contains(&(lane, **earlier)));
        if let Some(earlier) = earlier.filter(|_| !manual) {
            return Err(format!(
                "out of order: member {member} begins {p}/{offset} before {earlier} is settled"
            ));
        }
        Ok(())
    }

    /// A record is safe in a durable place; in the order of its key it still waits.
    pub(crate) fn park(&mut self, partition: u32, record: &Record) {
        let log = self.log(partition);
        log.unsettled.remove(&record.offset);
        log.parked.insert(record.offset);
    }

    /// Whether a member handles the record.
    pub(crate) fn is_at_work(&self, partition: u32, offset: i64, member: MemberId) -> bool {
        let works = &self.logs[partition as usize].in_work;
        works
            .iter()
            .any(|work| work.offset == offset && work.member == member)
    }

    pub(crate) fn end(&mut self, partition: u32, offset: i64, member: MemberId) {
        let works = &mut self.log(partition).in_work;
        works.retain(|work| work.offset != offset || work.member != member);
    }

    /// A record took its effect, was skipped, or lies in the dead-letter topic. Whether it was
    /// unsettled until now.
    pub(crate) fn settle(&mut self, partition: u32, record: &Record) -> bool {
        let lane = self.lane(record);
        let log = self.log(partition);
        if let Some(lane) = log.lanes.get_mut(&lane) {
            lane.remove(&record.offset);
        }
        let parked = log.parked.remove(&record.offset);
        log.unsettled.remove(&record.offset) || parked
    }

    /// Somebody seeks forwards: everything before `to` is passed over on purpose.
    pub(crate) fn pass_over(&mut self, partition: u32, to: i64) {
        let log = self.log(partition);
        log.unsettled = log.unsettled.split_off(&to);
        for lane in log.lanes.values_mut() {
            lane.retain(|offset| *offset >= to || log.parked.contains(offset));
        }
    }

    pub(crate) fn crashed(&mut self, member: MemberId) {
        for log in &mut self.logs {
            log.in_work.retain(|work| work.member != member);
        }
    }

    pub(crate) fn lost(&mut self, partition: u32, member: MemberId) {
        for work in &mut self.log(partition).in_work {
            work.excused |= work.member == member;
        }
    }

    /// A partition was handed over properly: its old owner must be done with it.
    pub(crate) fn handed_over(&mut self, partition: u32, member: MemberId) -> Checked {
        let works = &self.log(partition).in_work;
        let found = works
            .iter()
            .find(|work| work.member == member && !work.excused);
        found.map_or(Ok(()), |work| {
            let at = work.offset;
            Err(format!(
                "member {member} hands over {partition} while it is at {at}"
            ))
        })
    }

    /// The broker has stored a commit.
    pub(crate) fn committed(
        &mut self,
        stored: &Position,
        end: i64,
        snapshots: &BTreeMap<u8, Vec<u8>>,
    ) -> Checked {
        let (PartitionId(p), position) = (stored.partition, stored.offset);
        let unsettled = &self.log(p).unsettled;
        if let Some(offset) = unsettled.first().filter(|offset| **offset < position.0) {
            return Err(format!(
                "the position {position} passes the unsettled record {p}/{offset}"
            ));
        }
        if position.0 > end {
            return Err(format!(
                "the position {position} passes the end {end} of {p}"
            ));
        }
        let Some(spans) = still_settled(position, &stored.metadata, snapshots) else {
            return Err(format!("metadata that is none: {stored:?}"));
        };
        let in_span = |span: &ackwell_core::offset::Span| {
            let claimed = unsettled.range(span.first.0..span.end());
            claimed.copied().next()
        };
        let wrong = spans.iter().find_map(in_span);
        wrong.map_or(Ok(()), |offset| {
            Err(format!("metadata claims that {p}/{offset} is settled"))
        })
    }

    /// Records that are not settled.
    pub(crate) fn unsettled(&self) -> usize {
        let left = |log: &Log| log.unsettled.len() + log.parked.len();
        self.logs.iter().map(left).sum()
    }
}
