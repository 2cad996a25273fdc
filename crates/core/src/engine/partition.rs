//! One owned partition.

use std::collections::VecDeque;

use super::Record;
use super::beyond::{Beyond, SettledBeyond};
use super::config::Config;
use super::event::{Assigned, RunId};
use super::lane::Lane;
use super::manual::Waiter;
use crate::Timestamp;
use crate::commit::{AckMode, Pending};
use crate::lane::LaneId;
use crate::mutation::{self, Fault};
use crate::offset::{CommitOffset, Generation, Offset, Span};
use crate::tracker::OffsetTracker;

/// How far a partition is on its way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// It is worked on.
    Active,
    /// Records in work are awaited until then.
    Draining(Timestamp),
    /// They were cancelled, which is awaited until then.
    Cancelling(Timestamp),
    /// Nothing is in work; its last commit waits for the flush.
    Drained,
    /// The flush is awaited until then.
    Flushing(Timestamp),
    /// The last commit is awaited until then.
    Committing(Timestamp),
    /// It may be handed over.
    Done,
}

#[derive(Debug)]
pub(super) struct Partition<R> {
    pub(super) phase: Phase,
    pub(super) tracker: OffsetTracker,
    pub(super) lanes: Vec<Lane<R>>,
    /// Runs and recoveries of this generation that have not ended.
    pub(super) in_work: usize,
    /// Whether the shell was told to deliver nothing.
    pub(super) paused: bool,
    /// Whether its queues are over their limit and not yet drained to half.
    pub(super) full: bool,
    pub(super) queued_records: usize,
    pub(super) queued_bytes: usize,
    /// Records of runs that have ended that wait for their acknowledgement.
    pub(super) unacknowledged: usize,
    /// Who waits until the broker knows that a record is settled.
    pub(super) waiters: Vec<Waiter>,
    /// Whether records of it may have to wait until they are due: it is one of a retry topic.
    pub(super) delayed: bool,
    /// When its next parked record is due.
    pub(super) retry_at: Option<Timestamp>,
    pub(super) retrying: Option<RunId>,
    polls: VecDeque<Poll>,
    /// Polls that wait until those before them are settled and committed.
    held: VecDeque<Vec<R>>,
    /// Where records count as settled when they are given to a handler: which were not yet.
    undispatched: Option<OffsetTracker>,
    sent: Mark,
    acked: Mark,
    /// What the broker is told of what is settled beyond the position.
    pub(super) beyond: SettledBeyond,
    settled: u64,
    poll_settled: bool,
    /// When the first record settled that was not sent since.
    settled_since: Option<Timestamp>,
    settled_last: Timestamp,
    /// How often it became unknown which position the broker holds: a commit that failed may be
    /// stored all the same, and so may one whose answer a seek has made void.
    doubts: u32,
    /// It reads from elsewhere since the last commit was sent: that is worth one of its own.
    moved: bool,
    /// How far it was read since the assignment, in whichever generation.
    reached: Option<CommitOffset>,
}

/// The unsettled part of one poll.
#[derive(Debug)]
struct Poll {
    end: i64,
    remaining: u64,
}

/// How far a commit goes: its position, and how many records had settled by then. Two that go
/// equally far differ if the broker may have stored another position between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    position: Option<CommitOffset>,
    settled: u64,
    doubts: u32,
}

impl<R: Record> Partition<R> {
    pub(super) fn new(generation: Generation, assigned: &Assigned, config: &Config) -> Self {
        let (beyond, settled) = SettledBeyond::found(assigned);
        let mark = Mark {
            position: assigned.position,
            settled: 0,
            doubts: 0,
        };
        let tracker = OffsetTracker::new(generation, assigned.position, &settled);
        let by_dispatch = config.commit.settles_at_dispatch();
        Partition {
            phase: Phase::Active,
            undispatched: by_dispatch.then(|| tracker.clone()),
            tracker,
            lanes: (0..config.concurrency.lanes())
                .map(|_| Lane::new())
                .collect(),
            in_work: 0,
            paused: false,
            full: false,
            queued_records: 0,
            queued_bytes: 0,
            unacknowledged: 0,
            waiters: Vec::new(),
            delayed: false,
            retry_at: None,
            retrying: None,
            polls: VecDeque::new(),
            held: VecDeque::new(),
            sent: mark,
            acked: mark,
            beyond,
            settled: 0,
            poll_settled: false,
            settled_since: None,
            settled_last: Timestamp::EPOCH,
            doubts: 0,
            moved: false,
            reached: None,
        }
    }

    pub(super) fn generation(&self) -> Generation {
        self.tracker.generation()
    }

    /// Begins anew at `position`: what waits is dropped, what is in work no longer counts.
    pub(super) fn restart(&mut self, generation: Generation, position: CommitOffset) {
        // A commit in flight is of the generation that ends: its answer will not count.
        self.doubt();
        self.moved = true;
        self.reached = self.reached.max(self.tracker.next());
        self.tracker = OffsetTracker::new(generation, Some(position), &[]);
        if let Some(undispatched) = &mut self.undispatched {
            *undispatched = self.tracker.clone();
        }
        self.drop_waiting();
        self.polls.clear();
        self.in_work = 0;
        self.retrying = None;
        self.queued_records = 0;
        self.queued_bytes = 0;
        for lane in &mut self.lanes {
            *lane = Lane::new();
        }
    }

    /// Forgets what waits in lanes; it stays unsettled.
    pub(super) fn drop_waiting(&mut self) {
        self.held.clear();
        for lane in &mut self.lanes {
            for chunk in lane.chunks.drain(..) {
                self.queued_bytes = self.queued_bytes.saturating_sub(chunk.bytes);
            }
        }
    }

    /// Whether `first` lies before what was delivered: the log was cut and the client fell back.
    pub(super) fn is_rewound_by(&self, first: i64) -> bool {
        self.tracker.next().is_some_and(|next| first < next.0)
    }

    /// Where to read on so that `wanted` comes and nothing unsettled is passed over. Only a seek
    /// beyond everything delivered passes unsettled records over: it was asked for.
    pub(super) fn safe_start(&self, wanted: CommitOffset) -> CommitOffset {
        match (
            self.tracker.position(),
            self.reached.max(self.tracker.next()),
        ) {
            _ if mutation::is(Fault::SeekForgetsUnsettled) => wanted,
            (Some(position), Some(reached)) if wanted <= reached => wanted.min(position),
            _ => wanted,
        }
    }

    /// Takes in a poll. Records that an earlier owner has settled are left out.
    pub(super) fn deliver(
        &mut self,
        now: Timestamp,
        config: &Config,
        mut records: Vec<R>,
        next: CommitOffset,
    ) {
        if self.tracker.knows_any() && !mutation::is(Fault::KnownHandledAgain) {
            records.retain(|record| !self.tracker.knows(Offset(record.offset())));
        }
        if let (None, Some(first)) = (self.sent.position, records.first()) {
            self.sent.position = Some(CommitOffset(first.offset()));
        }
        let spans = Span::of(records.iter().map(Record::offset));
        self.tracker.delivered(&spans, next);
        if let Some(undispatched) = &mut self.undispatched {
            undispatched.delivered(&spans, next);
        }
        self.queued_records += records.len();
        let bytes = records.iter().map(Record::size).sum();
        self.queued_bytes += bytes;
        self.delayed = self.delayed || records.iter().any(|record| record.due().is_some());
        if records.is_empty() {
            self.note_settled(now, 0, true);
        } else {
            self.polls.push_back(Poll {
                end: next.0,
                remaining: records.len() as u64,
            });
            if config.strict_commits && config.commit == AckMode::Batch {
                self.held.push_back(records);
                self.release_polls(now, config);
            } else {
                self.spread(now, config, records, bytes);
            }
        }
    }

    /// Forgets polls that wait; they stay unsettled.
    pub(super) fn drop_held(&mut self) {
        self.held.clear();
    }

    /// Spreads the next poll that waits, if those before it are settled and committed.
    pub(super) fn release_polls(&mut self, now: Timestamp, config: &Config) {
        let open = self.polls.len() > self.held.len();
        let waits = open || self.confirmed() < self.settled;
        if waits && !mutation::is(Fault::StrictDoesNotWait) {
            return;
        }
        if let Some(records) = self.held.pop_front() {
            let bytes = records.iter().map(Record::size).sum();
            self.spread(now, config, records, bytes);
        }
    }

    /// How many records had settled when the last position was sent that the broker has stored.
    pub(super) fn confirmed(&self) -> u64 {
        self.acked.settled
    }

    /// How many records have settled.
    pub(super) fn settled(&self) -> u64 {
        self.settled
    }

    /// Records are given to a handler.
    pub(super) fn dispatched(&mut self, now: Timestamp, spans: &VecDeque<Span>) {
        let Some(undispatched) = &mut self.undispatched else {
            return;
        };
        let generation = undispatched.generation();
        let given = spans
            .iter()
            .map(|span| undispatched.settle(generation, *span));
        let given = given.sum();
        self.note_settled(now, given, false);
    }

    /// What commits go by.
    fn committable(&self) -> &OffsetTracker {
        self.undispatched.as_ref().unwrap_or(&self.tracker)
    }

    fn spread(&mut self, now: Timestamp, config: &Config, records: Vec<R>, bytes: usize) {
        let chunk_max = config.run_records.max(1);
        if let [lane] = self.lanes.as_mut_slice()
            && config.fill_wait.is_zero()
        {
            return lane.push_all(now, records, bytes, chunk_max);
        }
        for record in records {
            let LaneId(lane) = config.concurrency.lane(record.key_hash(), record.offset());
            if let Some(lane) = self.lanes.get_mut(usize::from(lane)) {
                lane.push(now, record, chunk_max);
            }
        }
    }

    /// Settles records of the current generation.
    pub(super) fn settle(&mut self, now: Timestamp, span: Span) {
        let settled = self.tracker.settle(self.generation(), span);
        let mut poll_settled = false;
        let mut at = span.first.0;
        while at < span.end() {
            let place = self.polls.partition_point(|poll| poll.end <= at);
            let Some(poll) = self.polls.get_mut(place) else {
                break;
            };
            let part = span.end().min(poll.end) - at;
            poll.remaining = poll.remaining.saturating_sub(part.unsigned_abs());
            poll_settled |= poll.remaining == 0;
            at += part;
        }
        while self.polls.front().is_some_and(|poll| poll.remaining == 0) {
            self.polls.pop_front();
        }
        self.queued_records = self
            .queued_records
            .saturating_sub(usize::try_from(settled).unwrap_or(0));
        if self.undispatched.is_none() {
            self.note_settled(now, settled, poll_settled);
        }
    }

    /// A failure ends a poll early: what is settled before it need not wait for what is behind it.
    pub(super) fn end_poll(&mut self) {
        self.poll_settled |= self.is_dirty();
    }

    fn note_settled(&mut self, now: Timestamp, settled: u64, poll_settled: bool) {
        self.settled_since.get_or_insert(now);
        self.settled_last = now;
        self.settled += settled;
        self.poll_settled |= poll_settled;
    }

    /// Whether it holds as much as it may: nothing more comes until some of it is done.
    pub(super) fn holds_its_limit(&self, config: &Config) -> bool {
        self.queued_records >= config.queued_records || self.queued_bytes >= config.queued_bytes
    }

    /// Whether its position may be sent now: not while the flush before its last commit is awaited.
    pub(super) fn may_commit(&self) -> bool {
        !matches!(self.phase, Phase::Drained | Phase::Flushing(_))
    }

    /// How far a commit would go now.
    fn mark(&self) -> Mark {
        Mark {
            position: self.committable().position(),
            settled: self.settled,
            doubts: self.doubts,
        }
    }

    /// Whether a commit would tell the broker anything new.
    pub(super) fn is_dirty(&self) -> bool {
        let mark = self.mark();
        mark.position.is_some() && self.sent != mark
    }

    /// Whether everything settled is committed.
    pub(super) fn is_clean(&self) -> bool {
        let mark = self.mark();
        let untouched = self.settled == 0 && self.doubts == 0;
        mark.position.is_none()
            || self.acked == mark
            || (self.acked.position.is_none() && untouched)
    }

    /// Whether a commit does not wait for its schedule: the partition goes away, or a seek has
    /// moved its position, which must outlive a restart even if no record follows.
    pub(super) fn commits_at_once(&self) -> bool {
        self.phase != Phase::Active || self.moved
    }

    /// Whether somebody waits until the broker has stored its position: the next owner, or the
    /// caller of an acknowledgement.
    pub(super) fn awaits_commit(&self) -> bool {
        self.phase != Phase::Active || !self.waiters.is_empty()
    }

    /// What the commit schedule decides on; `None` if there is nothing to commit.
    pub(super) fn pending(&self) -> Option<Pending> {
        self.is_dirty().then_some(Pending {
            settled: self.settled - self.sent.settled,
            poll_settled: self.poll_settled,
            since: self.settled_since.unwrap_or(self.settled_last),
            last: self.settled_last,
        })
    }

    /// The position to send now, and what to tell of what is settled beyond it.
    pub(super) fn send(&mut self, config: &Config) -> Option<(Mark, CommitOffset, Beyond)> {
        let position = self.committable().position()?;
        self.sent = self.mark();
        self.poll_settled = false;
        self.moved = false;
        if mutation::is(Fault::CommitOneTooFar) {
            let beyond = self.beyond.send(config, position, std::iter::empty());
            return Some((self.sent, CommitOffset(position.0 + 1), beyond));
        }
        self.settled_since = None;
        let by_dispatch = self.undispatched.is_some();
        let spans = self.tracker.settled_beyond().filter(|_| !by_dispatch);
        let beyond = self.beyond.send(config, position, spans);
        Some((self.sent, position, beyond))
    }

    /// The broker has stored `mark`.
    pub(super) fn acknowledge(&mut self, mark: Mark) {
        self.acked = mark;
        self.beyond.acknowledge();
    }

    /// Who waited for what the broker knows now.
    pub(super) fn take_answered(&mut self) -> Vec<Waiter> {
        let Mark {
            position, settled, ..
        } = self.acked;
        let whole = self.beyond.is_whole();
        let answered = |waiter: &mut Waiter| {
            let passed = position.is_some_and(|position| waiter.offset < position.0);
            let known = waiter.settled <= settled && (whole || passed);
            known || mutation::is(Fault::AnsweredByAnyCommit)
        };
        self.waiters.extract_if(.., answered).collect()
    }

    /// Whether the broker has stored what was sent last is unknown. Even if the position goes back
    /// to the one before, that is no longer known to be the stored one: a commit is worth it.
    fn doubt(&mut self) {
        self.beyond.failed();
        self.sent = self.acked;
        self.doubts = self.doubts.saturating_add(1);
    }

    /// The broker may not have stored what was sent last: it is sent again.
    pub(super) fn send_again(&mut self) {
        self.doubt();
        self.poll_settled = true;
        self.settled_since = Some(Timestamp::EPOCH);
    }
}
