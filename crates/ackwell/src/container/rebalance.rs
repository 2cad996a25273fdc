//! Partitions come and go, and whoever wants to know is told at the right moment.
//!
//! | told | when |
//! |---|---|
//! | [`assigned`](RebalanceListener::assigned) | positions are known, nothing is handled yet |
//! | [`revoked_before_commit`](RebalanceListener::revoked_before_commit) | work is finished, the last commit is yet to come |
//! | [`revoked_after_commit`](RebalanceListener::revoked_after_commit) | everything settled is committed, the next owner has nothing yet |
//! | [`lost`](RebalanceListener::lost) | the next owner may be at work already |

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use ackwell_core::engine::{Event, PartitionId};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::runtime::Handle;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio_util::task::TaskTracker;

use super::consumer::{Named, answer_while_closing};
use super::control::{AssignedPartition, TopicPartition};
use super::lookup::{Lookup, Positions};
use super::mailbox::{Mailbox, Message};
use super::notice::Notice;
use super::observation::Observation;
use super::poll::Poller;
use crate::mutation::{self, Fault};

/// Hears of partitions that come and go. Its methods run as tasks of the runtime, one after
/// another, never on the poll thread; each may take as long as
/// [`Limits::rebalance_callback`](super::Limits::rebalance_callback) and is dropped then, and a
/// panic is caught: the rebalance goes on either way.
///
/// In [`assigned`](RebalanceListener::assigned) a seek through the listener's handle takes effect
/// before the first record is handled.
pub trait RebalanceListener: Send + Sync + 'static {
    /// These partitions are owned from now on; records come when this returns.
    fn assigned(&self, partitions: Vec<AssignedPartition>) -> BoxFuture<'_, ()> {
        drop(partitions);
        Box::pin(std::future::ready(()))
    }

    /// The records in work of these partitions are finished, or cancelled by the drain limit.
    /// Their last positions are committed when this returns. Also called when the listener stops.
    fn revoked_before_commit(&self, partitions: Vec<TopicPartition>) -> BoxFuture<'_, ()> {
        drop(partitions);
        Box::pin(std::future::ready(()))
    }

    /// What was settled is committed. The partitions go when this returns.
    fn revoked_after_commit(&self, partitions: Vec<TopicPartition>) -> BoxFuture<'_, ()> {
        drop(partitions);
        Box::pin(std::future::ready(()))
    }

    /// These partitions were lost without a revoke: the group took this member for dead. Nothing
    /// can be committed for them, and another member may already handle their records.
    fn lost(&self, partitions: Vec<TopicPartition>) -> BoxFuture<'_, ()> {
        drop(partitions);
        Box::pin(std::future::ready(()))
    }
}

/// What was announced.
#[derive(Debug)]
pub(super) enum Announced {
    Assigned(Vec<PartitionId>),
    Flush(Vec<PartitionId>),
    Revoked(Vec<PartitionId>),
    Lost,
}

struct Announcement {
    partitions: Vec<AssignedPartition>,
    after: Announced,
}

/// Tells a rebalance listener, one thing after another.
pub(super) struct Announcer(UnboundedSender<Announcement>);

impl Announcer {
    pub(super) fn start(
        listener: Arc<dyn RebalanceListener>,
        limit: Duration,
        mailbox: Mailbox,
        tasks: &TaskTracker,
    ) -> Self {
        // A rebalance is answered before the next one comes, so only few can wait.
        let (sender, inbox) = unbounded_channel();
        tasks.spawn_on(
            announce(inbox, listener, limit, mailbox),
            &Handle::current(),
        );
        Announcer(sender)
    }

    fn tell(&self, partitions: Vec<AssignedPartition>, after: Announced) {
        let told = self.0.send(Announcement { partitions, after });
        if told.is_err() {
            tracing::error!("the task that calls the rebalance listener is gone");
        }
    }
}

async fn announce(
    mut inbox: UnboundedReceiver<Announcement>,
    listener: Arc<dyn RebalanceListener>,
    limit: Duration,
    mailbox: Mailbox,
) {
    while let Some(Announcement { partitions, after }) = inbox.recv().await {
        let told = AssertUnwindSafe(async { tell(&*listener, partitions, &after).await });
        match tokio::time::timeout(limit, told.catch_unwind()).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => tracing::error!("a rebalance listener panicked"),
            Err(_) => {
                let limit_ms = limit.as_millis();
                tracing::warn!(
                    limit_ms,
                    "a rebalance listener took too long and was dropped"
                );
            }
        }
        mailbox.tell(Message::Announced(after));
    }
}

async fn tell(
    listener: &dyn RebalanceListener,
    partitions: Vec<AssignedPartition>,
    what: &Announced,
) {
    let names = |partitions: Vec<AssignedPartition>| {
        let names = partitions.into_iter().map(|found| found.partition);
        names.collect()
    };
    match what {
        Announced::Assigned(_) => listener.assigned(partitions).await,
        Announced::Flush(_) => listener.revoked_before_commit(names(partitions)).await,
        Announced::Revoked(_) => listener.revoked_after_commit(names(partitions)).await,
        Announced::Lost => listener.lost(names(partitions)).await,
    }
}

impl Poller {
    /// Partitions are given to this member: first of all, where does the group stand?
    pub(super) fn told_assign(&mut self, named: Vec<Named>) {
        self.lookups.ask(Lookup::Committed(named.clone()));
        self.assigning = Some(named);
    }

    /// The group's positions are known: the partitions are taken over.
    pub(super) fn committed_found(&mut self, named: &[Named], positions: &Positions) {
        // Unless they were taken away meanwhile.
        if self.assigning.as_deref() != Some(named) {
            return;
        }
        self.assigning = None;
        let client = Arc::clone(&self.client);
        let waker = self.mailbox.waker().clone();
        let partitions = named.len();
        let assigned = match self.partitions.assign(&client, &waker, named, positions) {
            Ok(assigned) => assigned,
            Err(error) => {
                return self.client_problem(format!("taking over partitions: {error}"), true);
            }
        };
        let group = &*self.dispatcher.group;
        tracing::info!(group, partitions, "partitions assigned");
        self.tell_parking(named, true);
        let observation = Observation::Assigned { partitions };
        self.dispatcher.observer.observe(&observation);
        let ids: Vec<_> = assigned.iter().map(|found| found.partition).collect();
        self.on_event(Event::Assigned(assigned));
        self.doubt_positions(&ids);
        self.client_recovered();
        self.watch_partitions(&ids);
        if self.announcer.is_some() {
            self.on_event(Event::Hold(ids.clone()));
            self.announce(Announced::Assigned(ids));
        }
    }

    pub(super) fn told_revoke(&mut self, named: &[Named], lost: bool) {
        self.assigning = None;
        let ids = named.iter().map(|named| self.partitions.id(named));
        let ids: Vec<_> = ids.collect();
        let (group, partitions) = (&*self.dispatcher.group, ids.len());
        tracing::info!(group, partitions, lost, "partitions revoked");
        let observation = Observation::Revoked { partitions, lost };
        self.dispatcher.observer.observe(&observation);
        self.forget_watches(&ids);
        if lost || mutation::is(Fault::DrainSkipped) {
            self.losing = true;
            self.on_event(Event::Lost(ids));
            self.losing = false;
        } else {
            self.on_event(Event::Revoke(ids));
        }
    }

    /// Work of these partitions is finished, their last commit is yet to come.
    pub(super) fn flush(&mut self, ids: Vec<PartitionId>) {
        self.announce(Announced::Flush(ids));
    }

    /// The engine is done with partitions.
    pub(super) fn revoke_done(&mut self, ids: Vec<PartitionId>) {
        if self.announcer.is_none() || ids.is_empty() {
            return self.give_back(&ids);
        }
        if self.losing {
            self.announce_of(&ids, Announced::Lost);
            self.give_back(&ids);
        } else {
            self.announce(Announced::Revoked(ids));
        }
    }

    /// The engine has stopped: nothing is in work, everything settled is committed.
    pub(super) fn stopped(&mut self, problem: Option<String>) {
        let end = self.ended(problem);
        let owned: Vec<_> = self.partitions.owned().collect();
        if self.announcer.is_none() || owned.is_empty() {
            self.end = Some(end);
        } else {
            self.ending = Some(end);
            self.announce(Announced::Revoked(owned));
        }
    }

    pub(super) fn announced(&mut self, what: Announced) {
        match what {
            Announced::Assigned(ids) => self.on_event(Event::Release(ids)),
            Announced::Flush(ids) => self.on_event(Event::Flushed(ids)),
            Announced::Revoked(_) if self.ending.is_some() => self.end = self.ending.take(),
            Announced::Revoked(ids) => self.give_back(&ids),
            Announced::Lost => {}
        }
    }

    fn announce(&self, what: Announced) {
        let ids = match &what {
            Announced::Assigned(ids) | Announced::Flush(ids) | Announced::Revoked(ids) => {
                ids.clone()
            }
            Announced::Lost => Vec::new(),
        };
        self.announce_of(&ids, what);
    }

    fn announce_of(&self, ids: &[PartitionId], what: Announced) {
        let partitions = ids.iter().filter_map(|id| {
            let (topic, partition) = self.partitions.name(*id)?.clone();
            Some(AssignedPartition {
                partition: TopicPartition { topic, partition },
                position: self.engine.position(*id).map(|at| at.0),
                paused: self.engine.is_paused(*id),
            })
        });
        if let Some(announcer) = &self.announcer {
            announcer.tell(partitions.collect(), what);
        }
    }

    fn give_back(&mut self, ids: &[PartitionId]) {
        let names = ids.iter().filter_map(|id| self.partitions.name(*id));
        let names = names.map(|(topic, partition)| (topic.to_string(), *partition));
        let names: Vec<_> = names.collect();
        self.tell_parking(&names, false);
        if let Err(error) = self.partitions.unassign(&self.client, ids) {
            tracing::warn!(%error, "partitions could not be given back");
        }
        self.count_paused();
    }

    /// A rebalance that is not answered yet would hold the client's end.
    pub(super) fn answer_open_rebalance(&mut self) {
        if let Some(named) = self.assigning.take() {
            answer_while_closing(&self.client, true, &super::consumer::list(&named));
        }
    }

    /// The broker has moved a position by itself: records were passed over, or come again.
    pub(super) fn told_reset(&mut self, reason: String) {
        self.doubt_reset(&reason);
        let notice = Notice::OffsetReset { reason };
        self.notify(notice);
    }
}
