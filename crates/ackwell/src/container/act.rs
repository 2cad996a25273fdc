//! What the engine has decided is carried out.

use std::sync::atomic::Ordering;
use std::time::Duration;

use ackwell_core::engine::{Effect, Event, Failure, PartitionId};
use ackwell_core::offset::CommitOffset;
use ackwell_core::settle::Destination;
use rdkafka::consumer::Consumer;
use rdkafka::topic_partition_list::Offset;

use super::dead_letter::Letter;
use super::forward::Postponed;
use super::poll::Poller;
use super::spec::Observation;
use crate::record::Record;

/// How long the client may take to note a seek; it does not wait for the broker.
const SEEK_TIMEOUT: Duration = Duration::from_secs(1);

/// A record that is to be parked, and why.
pub(super) struct Waits {
    pub(super) record: Record,
    pub(super) failure: Failure,
    pub(super) attempts: u32,
}

impl Poller {
    /// Carries out everything that the engine asks for.
    pub(super) fn act(&mut self) {
        while let Some(effect) = self.engine.poll_effect() {
            self.act_on(effect);
        }
    }

    fn act_on(&mut self, effect: Effect<Record>) {
        match effect {
            Effect::Dispatch {
                run,
                partition,
                attempt,
                records,
                ..
            } => {
                self.dispatcher.dispatch(run, partition, attempt, records);
            }
            Effect::Halt { run } => self.dispatcher.halt(run),
            Effect::Cancel { run } => self.dispatcher.cancel(run),
            Effect::Recover {
                recovery,
                partition,
                record,
                destination: Destination::Parked,
                failure,
                attempts,
            } => {
                let waits = Waits {
                    record,
                    failure,
                    attempts,
                };
                self.postponed.insert(recovery);
                self.park(recovery, partition, waits);
            }
            Effect::Retry { run, partition } => self.retry(run, partition),
            Effect::Recover {
                recovery,
                record,
                destination: Destination::DeadLetter,
                failure,
                attempts,
                ..
            } => {
                let letter = Letter {
                    record,
                    failure,
                    attempts,
                };
                if let Some(writer) = &self.dead_letters {
                    let Self {
                        mailbox,
                        dispatcher,
                        ..
                    } = &*self;
                    let (tasks, runtime) = (&dispatcher.tasks, &dispatcher.runtime);
                    writer.write(recovery, letter, mailbox.clone(), tasks, runtime);
                }
            }
            Effect::Recover {
                recovery,
                record,
                destination: Destination::RetryTopic { number, delay },
                failure,
                attempts,
                ..
            } => {
                let postponed = Postponed {
                    record,
                    failure,
                    attempts,
                    number,
                    delay,
                };
                if let Some(topics) = &self.retry_topics {
                    self.postponed.insert(recovery);
                    let on = (&self.dispatcher.tasks, &self.dispatcher.runtime);
                    topics.write(recovery, postponed, self.mailbox.clone(), on);
                }
            }
            Effect::Failed {
                partition,
                offset,
                failure,
                attempt,
                settlement,
            } => {
                self.counters.failures.fetch_add(1, Ordering::Relaxed);
                if let Some((topic, number)) = self.partitions.name(partition) {
                    let (partition, class) = (*number, failure.class);
                    let failed = Observation::Failed {
                        topic,
                        partition,
                        offset,
                        class,
                        reason: &failure.summary,
                        attempt,
                        settlement,
                    };
                    self.dispatcher.observer.observe(&failed);
                }
            }
            Effect::Commit { commit, positions } => {
                let sent = self.committer.send(&self.partitions, commit, positions);
                if let Err(error) = sent {
                    let event = Event::CommitDone {
                        commit,
                        result: Err(error),
                    };
                    self.engine.on_event(self.clock.now(), event);
                }
            }
            Effect::Pause(partitions) => self.set_paused(&partitions, true),
            Effect::Resume(partitions) => self.set_paused(&partitions, false),
            Effect::Seek { partition, to } => self.seek(partition, to),
            Effect::RevokeDone(partitions) => self.give_back(&partitions),
            Effect::Stopped { problem } => self.end = Some(self.ended(problem)),
            Effect::Close { run } => self.close_acks(run),
            Effect::Answer { waiter, committed } => self.answer_commit(waiter, committed),
            Effect::Nacked {
                partition,
                offset,
                nack,
            } => self.nacked(partition, offset, nack),
            Effect::Unacknowledged {
                partition,
                offset,
                since,
            } => {
                let waits = self.clock.now().since(since);
                self.unacknowledged(partition, offset, waits);
            }
            Effect::Health { problem } => {
                self.health.engine = problem;
                self.tell_health();
            }
        }
    }

    fn seek(&mut self, partition: PartitionId, to: CommitOffset) {
        let Some((topic, number)) = self.partitions.name(partition) else {
            return;
        };
        let sought = self
            .client
            .seek(topic, *number, Offset::Offset(to.0), SEEK_TIMEOUT);
        if let Err(error) = sought {
            tracing::warn!(%error, topic = &**topic, partition = *number, "a seek failed");
        }
    }

    fn set_paused(&mut self, partitions: &[PartitionId], paused: bool) {
        self.partitions.set_paused(partitions, paused);
        self.counters
            .paused
            .store(self.partitions.paused(), Ordering::Relaxed);
    }

    fn give_back(&mut self, partitions: &[PartitionId]) {
        let names = partitions.iter().filter_map(|id| self.partitions.name(*id));
        let names: Vec<_> = names
            .map(|(topic, number)| (topic.to_string(), *number))
            .collect();
        self.tell_parking(&names, false);
        if let Err(error) = self.partitions.unassign(&self.client, partitions) {
            tracing::warn!(%error, "partitions could not be given back");
        }
        self.counters
            .paused
            .store(self.partitions.paused(), Ordering::Relaxed);
    }
}
