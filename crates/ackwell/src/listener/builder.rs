use std::borrow::Cow;
use std::error::Error;
use std::time::Duration;

use super::{AckMode, Concurrency, Member, OnUndecodable, Options, Pattern};
use crate::container::{Limits, Notices, Snapshots};
use crate::dead_letters::{self, DeadLetters};
use crate::failure::{Alert, Class, FailureListener, Hook, Raised, Verdicts};
use crate::retry::{Retry, RetryPolicy};
use crate::topic::TopicDeclaration;

/// A listener without its handler yet.
#[must_use = "a listener needs `.handle(f)`"]
pub struct ListenerBuilder {
    pub(super) options: Options,
}

impl ListenerBuilder {
    pub(super) fn new(topics: Vec<TopicDeclaration>, pattern: Option<Pattern>) -> Self {
        let options = Options {
            topics,
            pattern,
            group: None,
            name: None,
            concurrency: Concurrency::default(),
            ack_mode: AckMode::default(),
            strict_commits: false,
            snapshots: Snapshots::default(),
            retry: Retry::default(),
            verdicts: Verdicts::default(),
            hooks: Vec::new(),
            dead_letters: DeadLetters::default(),
            on_undecodable: OnUndecodable::default(),
            on_unknown_event: None,
            filter: None,
            layers: Vec::new(),
            limits: Limits::default(),
            rebalance: None,
            notices: Notices::default(),
            member: Member::default(),
        };
        Self { options }
    }

    /// Another topic for the same handler.
    pub fn and_on(mut self, topic: impl Into<TopicDeclaration>) -> Self {
        self.options.topics.push(topic.into());
        self
    }

    /// The consumer group; default: the app's name, see [`App::named`](crate::App::named). Two
    /// listeners of one group must not share a topic: each would see only some of its records.
    pub fn group(mut self, group: impl Into<Cow<'static, str>>) -> Self {
        self.options.group = Some(group.into());
        self
    }

    /// Its name in health, metrics and logs; default `<group>:<topic>`.
    pub fn name(mut self, name: impl Into<Cow<'static, str>>) -> Self {
        self.options.name = Some(name.into());
        self
    }

    /// How many records may be handled at once: [`by_partition`](super::by_partition) (default)
    /// or [`by_key`](super::by_key).
    pub fn concurrency(mut self, concurrency: Concurrency) -> Self {
        self.options.concurrency = concurrency;
        self
    }

    /// When settled positions are committed; default [`AckMode::Batch`]. The table at [`AckMode`]
    /// says for each mode when, and what happens on a failure, a rebalance and a stop.
    pub fn ack_mode(mut self, mode: AckMode) -> Self {
        self.options.ack_mode = mode;
        self
    }

    /// Where what is settled beyond the committed position is kept when it has no room in the
    /// commit, so that a restart repeats only what is unsettled; default
    /// [`Snapshots::Automatic`].
    pub fn snapshots(mut self, snapshots: Snapshots) -> Self {
        self.options.snapshots = snapshots;
        self
    }

    /// In a manual ack mode: how long a handled record may wait for its
    /// [`Ack`](crate::extract::Ack) before the listener is unhealthy; default 60 s. It recovers when
    /// the record is acknowledged or refused.
    pub fn unacknowledged_limit(mut self, limit: Duration) -> Self {
        self.options.limits.unacknowledged_limit = limit;
        self
    }

    /// Nothing new is handled before the broker has confirmed the commit of what was handled
    /// before: in [`AckMode::Record`] the next record of a lane, in [`AckMode::Batch`] the next poll
    /// of a partition. A crash then repeats at most one record a lane, or one poll a partition.
    ///
    /// Costs a round trip to the broker for each, during which the lane or partition waits.
    /// Default: commits are pipelined. Other ack modes refuse it at the start.
    pub fn strict_commits(mut self) -> Self {
        self.options.strict_commits = true;
        self
    }

    /// When transient failures are repeated; default 10 attempts in place within about a minute.
    /// See [`retry`](crate::retry).
    pub fn retry(mut self, retry: impl Into<Retry>) -> Self {
        self.options.retry = retry.into();
        self
    }

    /// Failures caused by an `E` are of this class, whatever they say themselves: `E` is the
    /// handler's error or any [`source`](Error::source) beneath it. The outermost error for which
    /// there is a rule decides.
    ///
    /// ```
    /// # use ackwell::{Class, Listener};
    /// # async fn charge() {}
    /// Listener::on("order-events")
    ///     .group("payment")
    ///     .classify::<std::net::AddrParseError>(Class::Permanent)
    ///     .classify::<std::io::Error>(Class::Unavailable)
    ///     .handle(charge);
    /// ```
    pub fn classify<E: Error + 'static>(mut self, class: Class) -> Self {
        self.options.verdicts.classify::<E>(class);
        self
    }

    /// Transient failures for whose causes there is no rule are of this class instead. With
    /// [`Class::Permanent`], only what [`classify`](Self::classify) or
    /// [`retry_for`](Self::retry_for) names is retried.
    pub fn classify_others(mut self, class: Class) -> Self {
        self.options.verdicts.classify_others(class);
        self
    }

    /// Failures caused by an `E` are transient and repeated in place by this policy instead of
    /// the listener's; what follows when it gives up is the same. Attempts count on if a record's
    /// failures have different causes.
    pub fn retry_for<E: Error + 'static>(mut self, policy: RetryPolicy) -> Self {
        self.options.verdicts.retry_for::<E>(policy);
        self
    }

    /// Who hears of failed attempts and of what becomes of their records; may be called more than
    /// once. For all listeners of an app, see [`App::on_failure`](crate::App::on_failure).
    pub fn on_failure(mut self, listener: impl FailureListener) -> Self {
        self.options.hooks.push(Hook::new(listener));
        self
    }

    /// Calls when failures become too many.
    ///
    /// ```
    /// # use ackwell::{Listener, failure::Alert};
    /// # async fn charge() {}
    /// # fn page(_: &str) {}
    /// Listener::on("order-events")
    ///     .group("payment")
    ///     .alert(Alert::dead_letters(5), |raised| page(&raised.topic))
    ///     .handle(charge);
    /// ```
    pub fn alert(mut self, alert: Alert, call: impl Fn(&Raised) + Send + Sync + 'static) -> Self {
        self.options.hooks.push(Hook::alert(alert, call));
        self
    }

    /// The waits between two probes while something that all records need is away
    /// ([`Class::Unavailable`]); default from 250 ms doubling to 5 s. An outage is never given up,
    /// so limits on attempts and time don't apply.
    pub fn probe(mut self, waits: RetryPolicy) -> Self {
        self.options.limits.probe = waits;
        self
    }

    /// Where records go that can't be handled; default `<topic>.DLQ`. See
    /// [`dead_letters`](mod@crate::dead_letters) for other names, Spring's, and topics by class.
    pub fn dead_letters(mut self, to: impl Into<DeadLetters>) -> Self {
        self.options.dead_letters = to.into();
        self
    }

    /// Dead letters go to `<topic><suffix>`; short for
    /// [`dead_letters(suffix(..))`](Self::dead_letters).
    pub fn dead_letter_suffix(self, suffix: impl Into<Cow<'static, str>>) -> Self {
        self.dead_letters(dead_letters::suffix(suffix))
    }

    /// No dead letters: a record that can't be handled stops the listener, unsettled, so that
    /// nothing is passed over.
    pub fn without_dead_letters(mut self) -> Self {
        self.options.dead_letters = DeadLetters::Stop;
        self
    }

    /// How many of a partition's records may wait or be in work before its fetching is paused;
    /// default 5,000, or 50 a lane if that is more.
    pub fn queued_records(mut self, records: usize) -> Self {
        self.options.limits.queued_records = Some(records);
        self
    }

    /// How many bytes of a partition's records may wait; default 16 MiB.
    pub fn queued_bytes(mut self, bytes: usize) -> Self {
        self.options.limits.queued_bytes = bytes;
        self
    }

    /// How many records a lane is handed at once; default 500. With a transaction, the most that
    /// one transaction holds; for a [batch handler](Self::handle_batch), the most that one batch
    /// holds.
    pub fn run_limit(mut self, records: usize) -> Self {
        self.options.limits.run_records = records;
        self
    }

    /// How long a [batch](Self::handle_batch) that is smaller than [`run_limit`](Self::run_limit) waits
    /// for more records, from when its first one came; default 0: a lane gets what waits, and while
    /// that is handled, the next batch gathers.
    ///
    /// Worth it where a call costs much more than a record (a bulk request, a file), and records
    /// trickle in. It is a latency for each record that comes alone, and nothing more: a batch that
    /// is full does not wait, nor do records that were in a batch before, that come by a retry
    /// topic, or whose partition has reached [`queued_records`](Self::queued_records). From 1 ms to
    /// 1 hour. (`fetch.min.bytes` and `fetch.wait.max.ms` are no substitute: they have the broker
    /// wait, for all partitions together, and say nothing of a lane.)
    pub fn batch_wait(mut self, limit: Duration) -> Self {
        self.options.limits.batch_wait = limit;
        self
    }

    /// How long a revoked partition's work may take to finish before it is cancelled and handed
    /// over; default 10 s. For a stop, see [`config::Stop`](crate::config::Stop).
    pub fn revoke_drain(mut self, limit: Duration) -> Self {
        self.options.limits.revoke_drain = limit;
        self
    }
}

impl std::fmt::Debug for ListenerBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ListenerBuilder")
            .field("topics", &self.options.topics)
            .finish_non_exhaustive()
    }
}
