//! Commands of handles are carried out and answered.
//!
//! A seek passes four hands: the handle asks, the lookup thread asks the broker what the log
//! holds, the engine lets the records in work finish, the client moves. Whatever happens on the
//! way, its asker gets an answer.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::time::{Duration, Instant};

use ackwell_core::engine::{Event, PartitionId};
use ackwell_core::offset::CommitOffset;
use ackwell_core::seek::SeekTo;
use rdkafka::consumer::Consumer;
use rdkafka::topic_partition_list::Offset;
use tokio::sync::oneshot;

use super::control::{AssignedPartition, ControlError, TopicPartition};
use super::lookup::{Lookup, Range};
use super::poll::Poller;

/// How long the client may take to note a seek; it does not wait for the broker.
const SEEK_TIMEOUT: Duration = Duration::from_secs(1);
/// Between attempts at a seek that the client can't carry out yet, as just after an assignment.
const SEEK_RETRY: Duration = Duration::from_millis(50);

/// The offset that a partition is read from now, or why it is not.
pub(super) type Sought = Result<i64, ControlError>;

/// What a handle asks for.
#[derive(Debug)]
pub(super) enum Command {
    Pause(TopicPartition),
    Resume(TopicPartition),
    Seek(SeekRequest),
    Assignment(oneshot::Sender<Vec<AssignedPartition>>),
}

/// A seek and who waits for it.
#[derive(Debug)]
pub(super) struct SeekRequest {
    pub(super) partition: TopicPartition,
    pub(super) to: SeekTo,
    /// `None`: nobody waits, so a refusal is logged.
    pub(super) answer: Option<oneshot::Sender<Sought>>,
}

impl SeekRequest {
    pub(super) fn answer(self, sought: Sought) {
        let SeekRequest {
            partition,
            to,
            answer,
        } = self;
        match (&sought, &answer) {
            (Ok(offset), _) => tracing::info!(%partition, ?to, offset, "partition sought"),
            (Err(problem), None) => tracing::warn!(%partition, ?to, %problem, "a seek was refused"),
            (Err(_), Some(_)) => {}
        }
        if let Some(answer) = answer {
            // Whoever asked may have gone.
            let _ = answer.send(sought);
        }
    }
}

/// Seeks under way.
#[derive(Debug, Default)]
pub(super) struct Seeks {
    /// The broker is asked what the log holds; the newest seek behind that one waits, and no other.
    asked: BTreeMap<TopicPartition, Option<SeekRequest>>,
    /// Resolved, and carried out once the records in work are finished.
    waiting: BTreeMap<PartitionId, (CommitOffset, SeekRequest)>,
    /// Decided by the engine; the client can't carry them out yet.
    late: BTreeMap<PartitionId, (CommitOffset, Instant)>,
}

impl Seeks {
    /// The seek to ask the broker about now; `None` while it is asked about the partition. Handlers
    /// seek without waiting, so what is behind must not grow with each.
    fn ask(&mut self, request: SeekRequest) -> Option<SeekRequest> {
        let partition = request.partition.clone();
        match self.asked.entry(partition.clone()) {
            Entry::Vacant(free) => {
                free.insert(None);
                Some(request)
            }
            Entry::Occupied(mut behind) => {
                if let Some(earlier) = behind.get_mut().replace(request) {
                    earlier.answer(Err(ControlError::Superseded { partition }));
                }
                None
            }
        }
    }

    /// The broker has answered; the seek that came meanwhile.
    fn answered(&mut self, partition: &TopicPartition) -> Option<SeekRequest> {
        self.asked.remove(partition).flatten()
    }

    /// Whether the client still reads from elsewhere: nothing may be taken.
    pub(super) fn is_late(&self, id: PartitionId) -> bool {
        !self.late.is_empty() && self.late.contains_key(&id)
    }
}

impl Poller {
    pub(super) fn command(&mut self, command: Command) {
        match command {
            Command::Pause(partition) => {
                let id = self.partitions.id_of(&partition);
                self.on_event(Event::PausePartitions(vec![id]));
            }
            Command::Resume(partition) => {
                let id = self.partitions.id_of(&partition);
                self.on_event(Event::ResumePartitions(vec![id]));
            }
            Command::Seek(request) => self.look_up(request),
            Command::Assignment(answer) => {
                let _ = answer.send(self.assignment());
            }
        }
    }

    /// What is owned now.
    pub(super) fn assignment(&self) -> Vec<AssignedPartition> {
        let owned = self.partitions.owned();
        let assigned = owned.filter_map(|id| {
            let (topic, partition) = self.partitions.name(id)?.clone();
            Some(AssignedPartition {
                partition: TopicPartition { topic, partition },
                position: self.engine.position(id).map(|at| at.0),
                paused: self.engine.is_paused(id),
            })
        });
        assigned.collect()
    }

    fn look_up(&mut self, request: SeekRequest) {
        let known = self.partitions.known(&request.partition);
        match known.filter(|id| self.engine.is_active(*id)) {
            Some(_) => {
                if let Some(request) = self.seeks.ask(request) {
                    self.lookups.ask(Lookup::Range(request));
                }
            }
            None => {
                let partition = request.partition.clone();
                request.answer(Err(ControlError::NotAssigned { partition }));
            }
        }
    }

    /// The broker has said what the log holds.
    pub(super) fn range_found(&mut self, request: SeekRequest, range: Result<Range, String>) {
        let partition = request.partition.clone();
        if let Some(next) = self.seeks.answered(&partition) {
            self.look_up(next);
        }
        let id = self.partitions.known(&partition);
        let Some(id) = id.filter(|id| self.engine.is_active(*id)) else {
            return request.answer(Err(ControlError::NotAssigned { partition }));
        };
        let resolved = range
            .map_err(|reason| ControlError::Lookup {
                partition: partition.clone(),
                reason,
            })
            .and_then(|Range { log, at_time }| {
                let position = self.engine.position(id);
                let resolved = request.to.resolve(log, position, at_time);
                resolved.map_err(|problem| ControlError::OutOfRange {
                    partition: partition.clone(),
                    problem,
                })
            });
        match resolved {
            Ok(_) if self.partitions.has_stopped(id) => {
                request.answer(Err(ControlError::ReadingStopped { partition }));
            }
            Ok(to) => {
                if let Some((_, earlier)) = self.seeks.waiting.insert(id, (to, request)) {
                    earlier.answer(Err(ControlError::Superseded { partition }));
                }
                self.on_event(Event::Seek { partition: id, to });
            }
            Err(problem) => request.answer(Err(problem)),
        }
    }

    /// Moves the client, as the engine has decided.
    pub(super) fn seek(&mut self, id: PartitionId, to: CommitOffset) {
        self.seeks.late.remove(&id);
        let Some((topic, number)) = self.partitions.name(id) else {
            return;
        };
        let (client, at) = (&self.client, Offset::Offset(to.0));
        match client.seek(topic, *number, at, SEEK_TIMEOUT) {
            Ok(()) => {
                self.partitions.wake(id);
                let asked = self.seeks.waiting.get(&id);
                if asked.is_some_and(|(wanted, _)| *wanted == to)
                    && let Some((_, request)) = self.seeks.waiting.remove(&id)
                {
                    self.partitions.sought(id);
                    request.answer(Ok(to.0));
                }
            }
            Err(error) => {
                tracing::debug!(%error, topic = &**topic, partition = *number, "a seek comes later");
                let again = Instant::now() + SEEK_RETRY;
                self.seeks.late.insert(id, (to, again));
            }
        }
    }

    /// Tries late seeks again, and answers those that can't be carried out any more.
    pub(super) fn follow_seeks(&mut self) {
        if self.seeks.waiting.is_empty() && self.seeks.late.is_empty() {
            return;
        }
        let now = Instant::now();
        let late = self.seeks.late.iter();
        let due = late.filter(|(_, (_, again))| *again <= now);
        let due: Vec<_> = due.map(|(id, (to, _))| (*id, *to)).collect();
        for (id, to) in due {
            if self.partitions.is_owned(id) {
                self.seek(id, to);
            } else {
                self.seeks.late.remove(&id);
            }
        }
        let lost = |id: &PartitionId| !self.engine.is_seeking(*id) && !self.seeks.is_late(*id);
        let ids = self.seeks.waiting.keys().copied();
        let lost: Vec<_> = ids.filter(lost).collect();
        for id in lost {
            if let Some((_, request)) = self.seeks.waiting.remove(&id) {
                let partition = request.partition.clone();
                request.answer(Err(ControlError::Revoked { partition }));
            }
        }
    }

    /// When a late seek is tried again.
    pub(super) fn seek_rest(&self) -> Option<Duration> {
        (!self.seeks.late.is_empty()).then_some(SEEK_RETRY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to(offset: i64) -> (SeekRequest, oneshot::Receiver<Sought>) {
        let (answer, sought) = oneshot::channel();
        let request = SeekRequest {
            partition: TopicPartition::new("orders", 3),
            to: SeekTo::Offset(offset),
            answer: Some(answer),
        };
        (request, sought)
    }

    #[test]
    fn of_the_seeks_behind_a_question_the_newest_is_next_and_the_others_are_answered() {
        let mut seeks = Seeks::default();
        let (first, _asked) = to(1);
        let first = seeks.ask(first).expect("asked at once");
        let (second, mut superseded) = to(2);
        let (third, mut waits) = to(3);
        assert!(seeks.ask(second).is_none() && seeks.ask(third).is_none());
        let answer = superseded.try_recv().expect("an answer");
        assert!(matches!(answer, Err(ControlError::Superseded { .. })));
        let next = seeks.answered(&first.partition).expect("the third");
        assert_eq!(next.to, SeekTo::Offset(3));
        assert!(waits.try_recv().is_err(), "not answered yet");
        assert!(seeks.ask(next).is_some(), "asked now");
        assert!(seeks.answered(&first.partition).is_none());
    }
}
