//! What a container owes beyond the promise: attempts, waits, pauses, limits, and commits that
//! say all they could.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ackwell_core::Class;
use ackwell_core::commit::AckMode;
use ackwell_core::engine::{Config, Failure, PartitionId, Position, RunId};
use ackwell_core::lane::LaneId;
use ackwell_core::metadata::{Metadata, decode, snapshot};
use ackwell_core::offset::{CommitOffset, Span};
use ackwell_core::settle::Destination;

use crate::checker::{Checked, MemberId};
use crate::handlers::Recovering;
use crate::member::{Drain, Record, Tenure};
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
    given_up: Option<Gone>,
    /// Recoveries that have failed.
    failed_recoveries: u32,
}

/// Where a record goes that is not retried in place.
#[derive(Debug, Clone, Copy)]
enum Gone {
    /// To a retry topic, for this long at least.
    Topic(Duration),
    Parked,
    DeadLetter,
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
pub(crate) fn claimed(
    position: i64,
    metadata: &str,
    snapshots: &BTreeMap<u8, Vec<u8>>,
) -> BTreeSet<i64> {
    let spans = still_settled(CommitOffset(position), metadata, snapshots).unwrap_or_default();
    spans
        .iter()
        .flat_map(|span| span.first.0..span.end())
        .collect()
}

/// What metadata says is settled, as far as it can still be read; nothing if it is not ours. A
/// member that could not learn the position may have overwritten the snapshot; what was settled
/// since that was taken is known still.
pub(crate) fn still_settled(
    position: CommitOffset,
    metadata: &str,
    snapshots: &BTreeMap<u8, Vec<u8>>,
) -> Option<Vec<Span>> {
    let all = all_settled(position, metadata, snapshots);
    all.or_else(|| match decode(position, metadata) {
        Metadata::Referring(_, since) => Some(since),
        _ => None,
    })
}

/// What metadata says is settled, with the snapshot that it refers to; nothing if it is not ours.
pub(crate) fn all_settled(
    position: CommitOffset,
    metadata: &str,
    snapshots: &BTreeMap<u8, Vec<u8>>,
) -> Option<Vec<Span>> {
    match decode(position, metadata) {
        Metadata::Settled(spans) => Some(spans),
        Metadata::Referring(reference, since) => {
            let bytes = snapshots.get(&reference.slot)?;
            let spans = snapshot::read(&reference, bytes)?;
            Some(snapshot::union(position, &spans, &since))
        }
        Metadata::Unreadable | Metadata::Foreign(_) => None,
    }
}

const fn millis(wait: Duration) -> u64 {
    wait.as_millis() as u64
}

impl Try {
    pub(crate) fn failed(&mut self, now: u64, failure: &Failure, record: &Record, config: &Config) {
        if failure.class == Class::Unavailable {
            return;
        }
        if self.failures == 0 {
            self.since = now;
        }
        self.failures += 1;
        let elapsed = Duration::from_millis(now - self.since);
        let by_cause = failure.policy.checked_sub(1);
        let by_cause = by_cause.and_then(|place| config.retry_for.get(place));
        let policy = by_cause.unwrap_or(&config.retry);
        let wait = failure.retry_after;
        let wait = wait.unwrap_or_else(|| policy.wait(self.failures, 0.0));
        let transient = failure.class == Class::Transient;
        if transient && record.retries == 0 && policy.allows(self.failures, elapsed, wait) {
            self.not_before = now + millis(wait);
            return;
        }
        let next = config.retry_topics.get(record.retries as usize);
        self.given_up = Some(match next {
            Some(delay) if transient => Gone::Topic(*delay),
            _ if transient && config.ordered => Gone::Parked,
            _ => Gone::DeadLetter,
        });
    }

    /// The record was refused and shall be handled again after this time.
    pub(crate) fn asked(&mut self, now: u64, wait: Duration) {
        self.not_before = now + millis(wait);
    }
}

impl Tenure {
    /// May this record be handled now, and as this attempt?
    fn check_attempt(&self, record: &Record, attempt: u32, now: u64) -> Checked {
        let offset = record.offset;
        if self.known.contains(&offset) {
            return Err(format!("metadata knows {offset}"));
        }
        if let Some(due) = record.due.filter(|due| *due > now) {
            return Err(format!("{offset} is due at {due}"));
        }
        let none = Try::default();
        let found = self.tries.get(&offset).unwrap_or(&none);
        if attempt != found.failures + 1 {
            return Err(format!("{offset} is attempt {attempt} after {found:?}"));
        }
        if now < found.not_before || found.given_up.is_some() {
            return Err(format!("{offset} is too early, or was given up: {found:?}"));
        }
        Ok(())
    }
}

impl World {
    /// An attempt has failed; whether its engine still counts it.
    pub(crate) fn note_failure(
        &mut self,
        id: MemberId,
        run: RunId,
        (partition, tenure): (u32, u64),
        record: &Record,
        failure: &Failure,
    ) {
        let (now, class) = (self.now, failure.class);
        let stopping = self.members[id].stopping;
        if self.members[id].current(partition, tenure).is_some() && class == Class::Stop {
            self.begin_stop(id);
        }
        if self.members[id].current(partition, tenure).is_none() {
            // A probe that lost its partition has answered nothing: another may follow.
            let member = &mut self.members[id];
            member.away_unseen |= member.unseen_probe == Some(run);
            return self.note_end(id, run, false);
        }
        if class != Class::Unavailable {
            // The time of an outage that ends by this does not count for the record.
            self.note_end(id, run, true);
        }
        if let Some(tenure) = self.members[id].current(partition, tenure)
            && tenure.drain.is_none()
        {
            let found = tenure.tries.entry(record.offset).or_default();
            found.failed(now, failure, record, &self.weather.config);
        }
        if class == Class::Unavailable && !stopping {
            self.note_outage(id, run);
        }
    }

    /// A run has found that something is away.
    fn note_outage(&mut self, id: MemberId, run: RunId) {
        if self.members[id].away.is_some() {
            return self.note_away(id, run);
        }
        let now = self.now;
        let wait = millis(self.weather.config.probe.wait(1, 0.0));
        let member = &mut self.members[id];
        // One that nothing was left to wait for may go on, and its probe be due already.
        let goes_on = std::mem::take(&mut member.away_unseen);
        member.away = Some(Away {
            began: now,
            probe: None,
            probes: 1,
            not_before: if goes_on { now } else { now + wait },
        });
    }

    /// A run has found an outage that is known; if it was the probe, the next one is due later.
    pub(crate) fn note_away(&mut self, id: MemberId, run: RunId) {
        let (now, probe) = (self.now, &self.weather.config.probe);
        let away = self.members[id].away.as_mut();
        if let Some(away) = away.filter(|away| away.probe == Some(run)) {
            away.probe = None;
            away.probes += 1;
            away.not_before = now + millis(probe.wait(away.probes, 0.0));
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
        lane: LaneId,
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
        let paused = member.paused || member.paused_partitions.contains(&partition);
        if paused || tenure.withheld || tenure.drain.is_some() || member.stopping {
            return Err(format!(
                "{place} while it is paused, held, asked for or told to stop"
            ));
        }
        let most = if config.strict_commits && config.commit == AckMode::Record {
            1
        } else {
            config.run_records
        };
        if records.len() > most {
            return Err(format!("{place} and too many at once"));
        }
        for (number, record) in records.iter().enumerate() {
            let attempt = if number == 0 { attempt } else { 1 };
            tenure
                .check_attempt(record, attempt, now)
                .map_err(|what| format!("{place}: {what}"))?;
            self.seen.due_records += u64::from(record.due.is_some());
        }
        if member.away.is_some() && records.len() > 1 {
            return Err(format!("{place} and others during an outage"));
        }
        self.check_filled(id, partition, records)
            .and_then(|()| self.note_probe(id, run))
            .map_err(|what| format!("{place} {what}"))?;
        self.check_order(id, partition, lane, first)
            .map_err(|what| format!("{place}: {what}"))
    }

    /// Something begins to be handled: during an outage, only as its probe.
    pub(crate) fn note_probe(&mut self, id: MemberId, run: RunId) -> Checked {
        let now = self.now;
        if let Some(away) = &mut self.members[id].away {
            if away.probe.is_some() || now < away.not_before {
                return Err("during an outage, and not as its probe".into());
            }
            away.probe = Some(run);
            self.seen.probes += 1;
        }
        Ok(())
    }

    /// A retry of parked records has ended, with a failure of this class.
    pub(crate) fn note_retried(
        &mut self,
        id: MemberId,
        run: RunId,
        (partition, tenure): (u32, u64),
        class: Option<Class>,
    ) {
        if self.members[id].current(partition, tenure).is_none() {
            // A probe that lost its partition has answered nothing: another may follow.
            let member = &mut self.members[id];
            member.away_unseen |= member.unseen_probe == Some(run);
            return self.note_end(id, run, false);
        }
        match class {
            Some(Class::Unavailable) if self.members[id].stopping => {}
            Some(Class::Unavailable) => self.note_outage(id, run),
            Some(_) => self.begin_stop(id),
            None => self.note_end(id, run, true),
        }
    }

    /// What is before a record in its lane must have been handled; with strict commits, the
    /// broker must know of it.
    fn check_order(&self, id: MemberId, p: u32, lane: LaneId, first: &Record) -> Checked {
        let config = &self.weather.config;
        let Some(tenure) = self.members[id].owned.get(&p) else {
            return Ok(());
        };
        let lane_of = |offset: &i64| {
            let record = self.partitions[p as usize].at(*offset);
            config.concurrency.lane(
                record.and_then(|record| record.key),
                record.map_or(0, |record| record.offset),
            )
        };
        if config.commit.is_manual() {
            let earlier = tenure.outstanding.range(..first.offset);
            let mut earlier = earlier.filter(|offset| !tenure.open.contains(offset));
            if let Some(offset) = earlier.find(|offset| lane_of(offset) == lane) {
                return Err(format!("{offset} is before it in its lane"));
            }
        }
        if !config.strict_commits {
            return Ok(());
        }
        let begin = tenure.polls.range(..=first.offset).next_back();
        let mut unconfirmed = tenure
            .reported
            .iter()
            .filter(|(_, number)| **number > tenure.confirmed)
            .map(|(offset, _)| offset);
        let missing = match config.commit {
            AckMode::Record => unconfirmed.find(|offset| lane_of(offset) == lane),
            _ => unconfirmed.find(|offset| begin.is_some_and(|begin| *offset < begin)),
        };
        missing.map_or(Ok(()), |offset| {
            Err(format!("the commit of {offset} is not confirmed"))
        })
    }

    /// A record is to be recovered: was it given up, and for where?
    pub(crate) fn check_recovery(&mut self, id: MemberId, recovering: &Recovering) -> Checked {
        let now = self.now;
        let record = &recovering.record;
        let tenure = self.members[id].owned.get(&recovering.partition);
        let found = tenure.and_then(|tenure| tenure.tries.get(&record.offset));
        let fits = found.is_some_and(|found| {
            let to = match (found.given_up, recovering.destination) {
                (Some(Gone::DeadLetter), Destination::DeadLetter)
                | (Some(Gone::Parked), Destination::Parked) => true,
                (Some(Gone::Topic(least)), Destination::RetryTopic { number, delay }) => {
                    number == record.retries + 1 && delay >= least
                }
                _ => false,
            };
            to && record.earlier + found.failures == recovering.attempts && found.not_before <= now
        });
        if fits {
            return Ok(());
        }
        Err(format!(
            "member {id} recovers {recovering:?}, known is {found:?}"
        ))
    }

    /// No more acknowledgements of a run are taken: is it time for that?
    pub(crate) fn check_close(&self, id: MemberId, run: RunId) -> Checked {
        let Some(acks) = self.members[id].acks.get(&run) else {
            return Ok(());
        };
        let tenure = self.members[id].owned.get(&acks.partition);
        let tenure = tenure.filter(|tenure| tenure.number == acks.tenure);
        let early = |drain: Option<Drain>| drain.is_none_or(|d| self.now < d.cancel_from);
        // A seek waits for acknowledgements as long as a drain.
        let sought = |tenure: &Tenure| tenure.seeks_by.is_some_and(|by| by <= self.now);
        if tenure.is_some_and(|tenure| early(tenure.drain) && !sought(tenure)) {
            return Err(format!(
                "member {id} takes no more acknowledgements of {} before its drain's limit",
                acks.partition
            ));
        }
        Ok(())
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
            tenure,
            position.offset.0,
            &position.metadata,
            position.partition.0,
        )
    }

    fn check_is_said(&self, tenure: &Tenure, at: i64, text: &str, p: u32) -> Checked {
        let beyond = tenure.reported.range(at..);
        let mut beyond = beyond.map(|(offset, _)| offset).peekable();
        // Near its limit, metadata may say less.
        let full = text.len() + 24 > self.weather.config.metadata_bytes;
        if beyond.peek().is_none() || full {
            return Ok(());
        }
        let claimed = claimed(at, text, &self.partitions[p as usize].snapshots);
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
            drains && !run.halted && run.records.len() > run.in_work.max(1)
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
        let of = member.runs.get(&run).map(|run| (run.partition, run.tenure));
        let retry = member.retries.get(&run);
        let retry = retry.map(|retry| (retry.partition, retry.tenure));
        let Some((partition, number)) = of.or(retry) else {
            return Ok(());
        };
        let tenure = member.owned.get(&partition);
        match tenure.filter(|tenure| tenure.number == number) {
            None => Ok(()),
            Some(tenure) if tenure.drain.is_some_and(|d| d.cancel_from <= now) => {
                self.seen.cancelled_drains += 1;
                Ok(())
            }
            // A seek waits for the work in hand just as long.
            Some(tenure) if tenure.seeks_by.is_some_and(|by| by <= now) => Ok(()),
            Some(_) => Err(format!(
                "member {id} cancels work on {partition} before its drain's limit"
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
        if let Some(open) = tenure.open.first().filter(|_| self.now < drain.cancel_from) {
            return Err(format!(
                "member {id} hands {partition} over and does not wait for the acknowledgement of {open}"
            ));
        }
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
        self.check_is_said(tenure, at, text, partition)
            .map_err(|what| format!("member {id} hands over, and {what}"))
    }

    /// After everything that an engine is told.
    pub(crate) fn check_state(&mut self, id: MemberId) -> Checked {
        let (now, config) = (self.now, &self.weather.config);
        let member = &mut self.members[id];
        for drain in member.owned.values_mut().filter_map(|t| t.drain.as_mut()) {
            drain.cancelled |= drain.cancel_from <= now;
        }
        member.check_early()?;
        let queued = member.engine.queued_records();
        if queued == 0 && member.runs.is_empty() {
            member.away_unseen |= member.away.take().is_some();
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
        let active = |tenure: &Tenure| tenure.drain.is_none();
        let paused = |p: &u32| member.paused || member.paused_partitions.contains(p);
        let mut owned = member.owned.iter();
        let delivered = owned.find(|(p, t)| (paused(p) || t.withheld) && active(t) && !t.paused);
        delivered.map_or(Ok(()), |(partition, _)| {
            Err(format!("member {id} is paused and polls {partition}"))
        })
    }

    pub(crate) fn set_paused(&mut self, id: MemberId, ids: &[PartitionId], paused: bool) {
        for partition in ids {
            if let Some(tenure) = self.members[id].owned.get_mut(&partition.0) {
                tenure.paused = paused;
            }
        }
    }
}
