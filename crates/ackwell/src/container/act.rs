//! What the engine has decided is carried out.

use std::sync::atomic::Ordering;

use ackwell_core::engine::{Effect, Event, Failure, FirstFailure, PartitionId};
use ackwell_core::settle::Destination;

use super::dead_letter::Letter;
use super::forward::Postponed;
use super::observation::Observation;
use super::poll::Poller;
use crate::mutation::{self, Fault};
use crate::record::Record;

/// A record that is to be parked, and why.
pub(super) struct Waits {
    pub(super) record: Record,
    pub(super) failure: Failure,
    pub(super) attempts: u32,
    pub(super) first: Option<FirstFailure>,
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
                let settled = records.len();
                self.dispatcher.dispatch(run, partition, attempt, records);
                if mutation::is(Fault::SettledBeforeHandled) {
                    self.mailbox.send(Event::Progress { run, settled });
                }
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
                first,
            } => {
                let waits = Waits {
                    record,
                    failure,
                    attempts,
                    first,
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
                first,
                ..
            } => {
                let letter = Letter {
                    record,
                    failure,
                    attempts,
                    first,
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
                first,
                ..
            } => {
                let postponed = Postponed {
                    record,
                    failure,
                    attempts,
                    first,
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
            Effect::Flush(partitions) => self.flush(partitions),
            Effect::RevokeDone(partitions) => self.revoke_done(partitions),
            Effect::Stopped { problem } => self.stopped(problem),
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

    fn set_paused(&mut self, partitions: &[PartitionId], paused: bool) {
        self.partitions.set_paused(partitions, paused);
        self.count_paused();
    }

    pub(super) fn count_paused(&self) {
        self.counters
            .paused
            .store(self.partitions.paused(), Ordering::Relaxed);
    }
}
