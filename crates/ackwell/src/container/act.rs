//! What the engine has decided is carried out.

use std::sync::atomic::Ordering;
use std::time::Duration;

use ackwell_core::engine::{Effect, Event, PartitionId};
use ackwell_core::offset::CommitOffset;
use rdkafka::consumer::Consumer;
use rdkafka::topic_partition_list::Offset;

use super::dead_letter::Letter;
use super::poll::Poller;
use super::spec::Observation;
use crate::record::Record;

/// How long the client may take to note a seek; it does not wait for the broker.
const SEEK_TIMEOUT: Duration = Duration::from_secs(1);

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
                attempt,
                records,
                ..
            } => {
                self.dispatcher.dispatch(run, attempt, records);
            }
            Effect::Halt { run } => self.dispatcher.halt(run),
            Effect::Cancel { run } => self.dispatcher.cancel(run),
            Effect::Recover {
                recovery,
                record,
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
                let sent = self.committer.send(&self.partitions, commit, &positions);
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
        if let Err(error) = self.partitions.unassign(&self.client, partitions) {
            tracing::warn!(%error, "partitions could not be given back");
        }
        self.counters
            .paused
            .store(self.partitions.paused(), Ordering::Relaxed);
    }
}
