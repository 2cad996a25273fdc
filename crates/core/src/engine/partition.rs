//! One owned partition.

use std::collections::VecDeque;

use super::Record;
use super::config::Config;
use super::event::Assigned;
use super::lane::Lane;
use crate::Timestamp;
use crate::commit::Pending;
use crate::lane::LaneId;
use crate::metadata::{self, Metadata};
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
    /// Whether records of it may have to wait until they are due: it is one of a retry topic.
    pub(super) delayed: bool,
    polls: VecDeque<Poll>,
    sent: Mark,
    acked: Mark,
    settled: u64,
    poll_settled: bool,
    settled_since: Timestamp,
    /// Metadata that is not ours and is carried on.
    foreign: Option<String>,
    assigned_at: Option<CommitOffset>,
}

/// The unsettled part of one poll.
#[derive(Debug)]
struct Poll {
    end: i64,
    remaining: u64,
}

/// How far a commit goes: its position, and how many records had settled by then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    position: Option<CommitOffset>,
    settled: u64,
}

impl<R: Record> Partition<R> {
    pub(super) fn new(generation: Generation, assigned: &Assigned, lanes: u16) -> Self {
        let found = assigned
            .position
            .map(|at| metadata::decode(at, &assigned.metadata));
        let (settled, foreign) = match found {
            Some(Metadata::Settled(spans)) => (spans, None),
            Some(Metadata::Foreign(text)) => (Vec::new(), Some(text)),
            Some(Metadata::Unreadable) | None => (Vec::new(), None),
        };
        let mark = Mark {
            position: assigned.position,
            settled: 0,
        };
        Partition {
            phase: Phase::Active,
            tracker: OffsetTracker::new(generation, assigned.position, &settled),
            lanes: (0..lanes).map(|_| Lane::new()).collect(),
            in_work: 0,
            paused: false,
            full: false,
            queued_records: 0,
            queued_bytes: 0,
            delayed: false,
            polls: VecDeque::new(),
            sent: mark,
            acked: mark,
            settled: 0,
            poll_settled: false,
            settled_since: Timestamp::EPOCH,
            foreign,
            assigned_at: assigned.position,
        }
    }

    pub(super) fn generation(&self) -> Generation {
        self.tracker.generation()
    }

    /// Begins anew at `position`: what waits is dropped, what is in work no longer counts.
    pub(super) fn restart(&mut self, generation: Generation, position: CommitOffset) {
        self.tracker = OffsetTracker::new(generation, Some(position), &[]);
        self.drop_waiting();
        self.polls.clear();
        self.in_work = 0;
        self.queued_records = 0;
        self.queued_bytes = 0;
        for lane in &mut self.lanes {
            *lane = Lane::new();
        }
    }

    /// Forgets what waits in lanes; it stays unsettled.
    pub(super) fn drop_waiting(&mut self) {
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
        match (self.tracker.position(), self.tracker.next()) {
            (Some(position), Some(next)) if wanted <= next => wanted.min(position),
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
        if self.tracker.knows_any() {
            records.retain(|record| !self.tracker.knows(Offset(record.offset())));
        }
        if let (None, Some(first)) = (self.sent.position, records.first()) {
            self.sent.position = Some(CommitOffset(first.offset()));
        }
        self.tracker
            .delivered(&Span::of(records.iter().map(Record::offset)), next);
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
            self.spread(config, records, bytes);
        }
    }

    fn spread(&mut self, config: &Config, records: Vec<R>, bytes: usize) {
        let chunk_max = config.run_records.max(1);
        if let [lane] = self.lanes.as_mut_slice() {
            return lane.push_all(records, bytes, chunk_max);
        }
        for record in records {
            let LaneId(lane) = config.concurrency.lane(record.key_hash(), record.offset());
            if let Some(lane) = self.lanes.get_mut(usize::from(lane)) {
                lane.push(record, chunk_max);
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
        self.note_settled(now, settled, poll_settled);
    }

    fn note_settled(&mut self, now: Timestamp, settled: u64, poll_settled: bool) {
        if !self.is_dirty() {
            self.settled_since = now;
        }
        self.settled += settled;
        self.poll_settled |= poll_settled;
    }

    /// The position is committed with the next commit, whatever the schedule waits for.
    pub(super) fn commit_soon(&mut self, now: Timestamp) {
        self.note_settled(now, 0, true);
    }

    /// Whether its position may be sent now: not while the flush before its last commit is awaited.
    pub(super) fn may_commit(&self) -> bool {
        !matches!(self.phase, Phase::Drained | Phase::Flushing(_))
    }

    /// Whether a commit would tell the broker anything new.
    pub(super) fn is_dirty(&self) -> bool {
        let position = self.tracker.position();
        position.is_some()
            && self.sent
                != Mark {
                    position,
                    settled: self.settled,
                }
    }

    /// Whether everything settled is committed.
    pub(super) fn is_clean(&self) -> bool {
        let position = self.tracker.position();
        position.is_none()
            || self.acked
                == Mark {
                    position,
                    settled: self.settled,
                }
            || (position == self.assigned_at && self.settled == 0)
            || (self.acked.position.is_none() && self.settled == 0)
    }

    /// What the commit schedule decides on; `None` if there is nothing to commit.
    pub(super) fn pending(&self) -> Option<Pending> {
        self.is_dirty().then_some(Pending {
            settled: self.settled - self.sent.settled,
            poll_settled: self.poll_settled,
            since: self.settled_since,
        })
    }

    /// The position to send now, and the metadata beside it.
    pub(super) fn send(&mut self, metadata_max: usize) -> Option<(Mark, CommitOffset, String)> {
        let position = self.tracker.position()?;
        self.sent = Mark {
            position: Some(position),
            settled: self.settled,
        };
        self.poll_settled = false;
        let metadata = self.foreign.clone().unwrap_or_else(|| {
            metadata::encode(position, self.tracker.settled_beyond(), metadata_max)
        });
        Some((self.sent, position, metadata))
    }

    /// The broker has stored `mark`.
    pub(super) fn acknowledge(&mut self, mark: Mark) {
        self.acked = mark;
    }

    /// The broker has not stored what was sent last: it is sent again.
    pub(super) fn send_again(&mut self) {
        self.sent = self.acked;
        self.poll_settled = true;
    }
}
