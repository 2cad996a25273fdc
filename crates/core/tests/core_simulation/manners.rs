//! What a container owes beyond the promise: attempts, waits, pauses, limits, and commits that
//! say all they could.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ackwell_core::Class;
use ackwell_core::engine::{Config, Failure, PartitionId, Position, RunId};
use ackwell_core::metadata::{Metadata, decode};

use crate::checker::{Checked, MemberId};
use crate::member::{Drain, Record};
use crate::world::{POLL_RECORDS, World};

/// What timers that are rounded up to milliseconds may add.
const SLACK: u64 = 10;

/// The attempts at the records of one partition, while one engine reads it.
pub(crate) type Tries = BTreeMap<i64, Try>;

/// What is known of a record that has failed.
#[derive(Debug, Default)]
pub(crate) struct Try {
    /// Failures that count as attempts.
    failures: u32,
    since: u64,
    /// Nothing may be done about it earlier.
    not_before: u64,
    /// It is to be recovered, not retried.
    given_up: bool,
    /// Recoveries that have failed.
    failed_recoveries: u32,
}

/// An outage as its container must see it.
#[derive(Debug)]
pub(crate) struct Away {
    began: u64,
    probe: Option<RunId>,
    probes: u32,
    not_before: u64,
}

/// Offsets of records that metadata says are settled.
pub(crate) fn claimed(position: i64, metadata: &str) -> BTreeSet<i64> {
    let position = ackwell_core::offset::CommitOffset(position);
    match decode(position, metadata) {
        Metadata::Settled(spans) => spans
            .iter()
            .flat_map(|span| span.first.0..span.end())
            .collect(),
        Metadata::Referring(..) | Metadata::Unreadable | Metadata::Foreign(_) => BTreeSet::new(),
    }
}

const fn millis(wait: Duration) -> u64 {
    wait.as_millis() as u64
}

impl Try {
    fn failed(&mut self, now: u64, class: Class, config: &Config) {
        if class == Class::Unavailable {
            return;
        }
        if self.failures == 0 {
            self.since = now;
        }
        self.failures += 1;
        let elapsed = Duration::from_millis(now - self.since);
        match config.retry.next(self.failures, elapsed, 0.0) {
            Some(wait) if class == Class::Transient => self.not_before = now + millis(wait),
            _ => self.given_up = true,
        }
    }
}

impl World {
    /// An attempt has failed; whether its engine still counts it.
    pub(crate) fn note_failure(
        &mut self,
        id: MemberId,
        run: RunId,
        (partition, tenure): (u32, u64),
        offset: i64,
        failure: &Failure,
    ) {
        let (now, class) = (self.now, failure.class);
        let stopping = self.members[id].stopping;
        if self.members[id].current(partition, tenure).is_some() && class == Class::Stop {
            self.begin_stop(id);
        }
        if self.members[id].current(partition, tenure).is_none() {
            return self.note_end(id, run, false);
        }
        let answers = class != Class::Unavailable || stopping;
        if answers {
            // First: the outage that it ends does not count for this record either.
            self.note_end(id, run, true);
        }
        if let Some(tenure) = self.members[id].current(partition, tenure)
            && tenure.drain.is_none()
        {
            let found = tenure.tries.entry(offset).or_default();
            found.failed(now, class, &self.weather.config);
        }
        if answers {
            return;
        }
        let probe = &self.weather.config.probe;
        match &mut self.members[id].away {
            Some(away) if away.probe == Some(run) => {
                away.probe = None;
                away.probes += 1;
                away.not_before = now + millis(probe.wait(away.probes, 0.0));
            }
            Some(_) => {}
            away => {
                *away = Some(Away {
                    began: now,
                    probe: None,
                    probes: 1,
                    not_before: now + millis(probe.wait(1, 0.0)),
                });
            }
        }
    }

    /// A run has ended. If it was the probe, an `answer` other than unavailable ends the outage.
    pub(crate) fn note_end(&mut self, id: MemberId, run: RunId, answer: bool) {
        let (now, member) = (self.now, &mut self.members[id]);
        let Some(away) = member.away.as_mut().filter(|away| away.probe == Some(run)) else {
            return;
        };
        (away.probe, away.not_before) = (None, 0);
        if !answer {
            return;
        }
        let began = away.began;
        member.away = None;
        // The outage is not part of the time within which a record is retried.
        let tries = member
            .owned
            .values_mut()
            .flat_map(|tenure| tenure.tries.values_mut());
        for found in tries {
            found.since += now - began.max(found.since);
        }
    }

    /// A run is dispatched: may it be, now, and as this attempt?
    pub(crate) fn check_dispatch(
        &mut self,
        id: MemberId,
        run: RunId,
        partition: u32,
        attempt: u32,
        records: &[Record],
    ) -> Checked {
        let (now, config) = (self.now, &self.weather.config);
        let member = &mut self.members[id];
        let Some(tenure) = member.owned.get(&partition) else {
            return Err(format!("dispatches {partition}, which it does not own"));
        };
        let Some(first) = records.first() else {
            return Err("dispatches no record".into());
        };
        let place = format!("member {id} dispatches {partition}/{}", first.offset);
        if member.paused || tenure.drain.is_some() || member.stopping {
            return Err(format!(
                "{place} while it is paused, asked for or told to stop"
            ));
        }
        if records.len() > config.run_records {
            return Err(format!("{place} and too many at once"));
        }
        if let Some(known) = records
            .iter()
            .find(|record| tenure.known.contains(&record.offset))
        {
            return Err(format!("{place} although metadata knows {}", known.offset));
        }
        let found = tenure.tries.get(&first.offset);
        let (failures, not_before, given_up) = found.map_or((0, 0, false), |found| {
            (found.failures, found.not_before, found.given_up)
        });
        if attempt != failures + 1 {
            return Err(format!(
                "{place} as attempt {attempt} after {failures} failures"
            ));
        }
        if now < not_before || given_up {
            return Err(format!(
                "{place} too early (not before {not_before}), or although it was given up"
            ));
        }
        if let Some(away) = &mut member.away {
            if records.len() > 1 || away.probe.is_some() || now < away.not_before {
                return Err(format!("{place} during an outage, and not as its probe"));
            }
            away.probe = Some(run);
            self.seen.probes += 1;
        }
        Ok(())
    }

    /// A record is to be recovered: was it given up?
    pub(crate) fn check_recovery(
        &mut self,
        id: MemberId,
        partition: u32,
        offset: i64,
        attempts: u32,
    ) -> Checked {
        let now = self.now;
        let tenure = self.members[id].owned.get(&partition);
        let found = tenure.and_then(|tenure| tenure.tries.get(&offset));
        match found {
            Some(found)
                if found.given_up && found.failures == attempts && found.not_before <= now =>
            {
                Ok(())
            }
            _ => Err(format!(
                "member {id} recovers {partition}/{offset} at attempt {attempts}, known is {found:?}"
            )),
        }
    }

    pub(crate) fn note_failed_recovery(&mut self, id: MemberId, place: (u32, u64), offset: i64) {
        let now = self.now;
        let recovery = &self.weather.config.recovery;
        let tenure = self.members[id].current(place.0, place.1);
        if let Some(found) = tenure.and_then(|tenure| tenure.tries.get_mut(&offset)) {
            found.failed_recoveries += 1;
            found.not_before = now + millis(recovery.wait(found.failed_recoveries, 0.0));
        }
    }

    /// A commit is sent: does it say everything that the engine knows to be settled?
    pub(crate) fn check_commit(&self, id: MemberId, position: &Position) -> Checked {
        let Some(tenure) = self.members[id].owned.get(&position.partition.0) else {
            return Ok(());
        };
        if let Some(first) = tenure
            .outstanding
            .first()
            .filter(|first| **first < position.offset.0)
        {
            return Err(format!(
                "member {id} commits {position:?} and was not told that {first} is settled"
            ));
        }
        let room = self.weather.config.metadata_bytes;
        if position.metadata.len() > room {
            return Err(format!("metadata of more than {room} bytes"));
        }
        self.check_is_said(
            &tenure.reported,
            position.offset.0,
            &position.metadata,
            position.partition.0,
        )
    }

    fn check_is_said(&self, reported: &BTreeSet<i64>, at: i64, text: &str, p: u32) -> Checked {
        let mut beyond = reported.range(at..).peekable();
        // Near its limit, metadata may say less.
        let full = text.len() + 24 > self.weather.config.metadata_bytes;
        if beyond.peek().is_none() || full {
            return Ok(());
        }
        let claimed = claimed(at, text);
        let forgotten = beyond.find(|offset| !claimed.contains(offset));
        forgotten.map_or(Ok(()), |offset| {
            Err(format!(
                "a commit of {p} at {at} forgets that {offset} is settled"
            ))
        })
    }

    /// Partitions are asked for, or all are: their drain begins.
    pub(crate) fn begin_drain(&mut self, id: MemberId, of: &[u32], limit: Duration) {
        let (now, config) = (self.now, &self.weather.config);
        let (until, rest) = (now + millis(limit), config.cancel_wait + config.commit_wait);
        let member = &mut self.members[id];
        for partition in of {
            if let Some(tenure) = member.owned.get_mut(partition) {
                let drain = tenure.drain.get_or_insert(Drain {
                    since: now,
                    cancel_from: until,
                    cancelled: false,
                });
                drain.cancel_from = drain.cancel_from.min(until);
            }
        }
        let by = until + millis(rest) + SLACK;
        member.hand_over_by = member.hand_over_by.max(by);
    }

    /// The engine was told of a drain: it must have stopped what is behind the work in hand.
    pub(crate) fn check_halted(&self, id: MemberId) -> Checked {
        let member = &self.members[id];
        let goes_on = member.runs.values().find(|run| {
            let tenure = member.owned.get(&run.partition);
            let drains = tenure.is_some_and(|t| t.number == run.tenure && t.drain.is_some());
            drains && !run.halted && run.records.len() > 1
        });
        goes_on.map_or(Ok(()), |run| {
            let p = run.partition;
            Err(format!(
                "member {id} was asked for {p} and begins more of it"
            ))
        })
    }

    /// A run is cancelled: has its partition gone, or its drain reached the limit?
    pub(crate) fn check_cancel(&mut self, id: MemberId, run: RunId) -> Checked {
        let now = self.now;
        let member = &self.members[id];
        let Some(run) = member.runs.get(&run) else {
            return Ok(());
        };
        let tenure = member.owned.get(&run.partition);
        match tenure.filter(|tenure| tenure.number == run.tenure) {
            None => Ok(()),
            Some(tenure) if tenure.drain.is_some_and(|d| d.cancel_from <= now) => {
                self.seen.cancelled_drains += 1;
                Ok(())
            }
            // A seek waits for the work in hand just as long.
            Some(tenure) if tenure.seeks_by.is_some_and(|by| by <= now) => Ok(()),
            Some(_) => Err(format!(
                "member {id} cancels work on {} before its drain's limit",
                run.partition
            )),
        }
    }

    /// Partitions are handed over or left behind by a stop: in time, and with all that is settled?
    pub(crate) fn check_handover(&self, id: MemberId, partition: u32) -> Checked {
        let member = &self.members[id];
        let Some(tenure) = member.owned.get(&partition) else {
            return Ok(());
        };
        if self.now > member.hand_over_by {
            let by = member.hand_over_by;
            return Err(format!(
                "member {id} hands {partition} over at {} instead of {by}",
                self.now
            ));
        }
        let Some(drain) = tenure.drain else {
            return Ok(());
        };
        // An unanswered commit is given up after a while; before that, and without trouble, all
        // that is settled must be committed.
        let in_time = self.now < drain.since + millis(self.weather.config.commit_wait);
        let quiet = drain.since > member.commit_trouble.map_or(0, |at| at + 1_000);
        let known = &self.partitions[partition as usize];
        if known.owner != Some(id) || !(in_time || quiet) {
            return Ok(());
        }
        let (at, text) = match &known.committed {
            Some((at, text)) => (at.0, text.as_str()),
            None => (0, ""),
        };
        self.check_is_said(&tenure.reported, at, text, partition)
            .map_err(|what| format!("member {id} hands over, and {what}"))
    }

    /// After everything that an engine is told.
    pub(crate) fn check_state(&mut self, id: MemberId) -> Checked {
        let (now, config) = (self.now, &self.weather.config);
        let member = &mut self.members[id];
        for drain in member.owned.values_mut().filter_map(|t| t.drain.as_mut()) {
            drain.cancelled |= drain.cancel_from <= now;
        }
        let queued = member.engine.queued_records();
        if queued == 0 && member.runs.is_empty() {
            member.away = None;
        }
        let given = member.owned.values().map(|tenure| tenure.outstanding.len());
        let outstanding: usize = given.sum();
        if queued != outstanding {
            return Err(format!(
                "member {id} counts {queued} records, of which {outstanding} are left"
            ));
        }
        let limit = config.queued_records.min(config.queued_bytes.div_ceil(10)) + POLL_RECORDS;
        if queued > limit * member.owned.len() {
            return Err(format!("member {id} has {queued} records queued"));
        }
        let active = |tenure: &crate::member::Tenure| tenure.drain.is_none();
        if member.paused {
            let delivered = member.owned.iter().find(|(_, t)| active(t) && !t.paused);
            if let Some((partition, _)) = delivered {
                return Err(format!("member {id} is paused and polls {partition}"));
            }
        }
        Ok(())
    }

    pub(crate) fn set_paused(&mut self, id: MemberId, ids: &[PartitionId], paused: bool) {
        for partition in ids {
            if let Some(tenure) = self.members[id].owned.get_mut(&partition.0) {
                tenure.paused = paused;
            }
        }
    }
}
