use std::borrow::Cow;
use std::error::Error;
use std::time::Duration;

use tower_layer::Layer;
use tower_service::Service;

use super::{AckMode, Concurrency, EventListener, Filter, Listener, OnUndecodable, Options};
use crate::batch::BatchHandler;
use crate::container::{DeadLetters, Limits};
use crate::failure::{Alert, Class, Failure, FailureListener, Hook, Raised, Verdicts};
use crate::handler::{EventArguments, Handler, Typed, TypedBatch};
use crate::layer::{ErasedLayer, Next, Request};
use crate::record::Record;
use crate::retry::{Retry, RetryPolicy};
use crate::topic::TopicDeclaration;

/// A listener without its handler yet.
#[must_use = "a listener needs `.handle(f)`"]
pub struct ListenerBuilder {
    options: Options,
}

impl ListenerBuilder {
    pub(super) fn new(topic: TopicDeclaration) -> Self {
        let options = Options {
            topics: vec![topic],
            group: None,
            name: None,
            concurrency: Concurrency::default(),
            ack_mode: AckMode::default(),
            strict_commits: false,
            retry: Retry::default(),
            verdicts: Verdicts::default(),
            hooks: Vec::new(),
            dead_letters: DeadLetters::default(),
            on_undecodable: OnUndecodable::default(),
            on_unknown_event: None,
            filter: None,
            layers: Vec::new(),
            limits: Limits::default(),
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

    /// Dead letters go to `<topic><suffix>`; default `.DLQ`. Spring's is `-dlt`.
    pub fn dead_letter_suffix(mut self, suffix: impl Into<String>) -> Self {
        self.options.dead_letters = DeadLetters::Suffix(suffix.into());
        self
    }

    /// No dead letters: a record that can't be handled stops the listener, unsettled, so that
    /// nothing is passed over.
    pub fn without_dead_letters(mut self) -> Self {
        self.options.dead_letters = DeadLetters::Stop;
        self
    }

    /// What happens to a record that does not decode; default: a dead letter.
    pub fn on_undecodable(mut self, policy: OnUndecodable) -> Self {
        self.options.on_undecodable = policy;
        self
    }

    /// What happens to a record whose `eventType` no handler of this listener knows; default: as
    /// [`on_undecodable`](Self::on_undecodable). [`OnUndecodable::Skip`] where others' events on the
    /// topic are none of ours.
    pub fn on_unknown_event(mut self, policy: OnUndecodable) -> Self {
        self.options.on_unknown_event = Some(policy);
        self
    }

    /// Handles only the records for which `predicate` is true. The others are settled without a
    /// call of the handler or a transaction, and counted (`ackwell_filtered_records_total`): they
    /// are acknowledged, as are records that a handler ignores. (Spring leaves them unacknowledged
    /// by default, and hands them out again after a restart.)
    ///
    /// The predicate is asked where the handler would be called, in order; it should be quick, and
    /// answer the same each time. If it panics, its record has failed for good. Several filters
    /// must all let a record through.
    ///
    /// ```
    /// # use ackwell::Listener;
    /// let listener = Listener::on("order-events")
    ///     .filter(|record| record.headers().get("tenant") == Some(b"acme"))
    ///     .handle(async || {});
    /// # let _ = listener;
    /// ```
    pub fn filter(mut self, predicate: impl Fn(&Record) -> bool + Send + Sync + 'static) -> Self {
        let filter = Filter::new(predicate);
        self.options.filter = Some(match self.options.filter.take() {
            Some(before) => before.and(filter),
            None => filter,
        });
        self
    }

    /// Stands around the handler, and around the layers added before: see [`layer`](crate::layer).
    pub fn layer<L>(mut self, layer: L) -> Self
    where
        L: Layer<Next> + Send + Sync + 'static,
        L::Service: Service<Request, Response = ()> + Clone + Send + Sync + 'static,
        <L::Service as Service<Request>>::Error: Into<Failure>,
        <L::Service as Service<Request>>::Future: Send,
    {
        self.options.layers.push(ErasedLayer::new(layer));
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

    /// How long a revoked partition's work may take to finish before it is cancelled and handed
    /// over; default 10 s. For a stop, see [`config::Stop`](crate::config::Stop).
    pub fn revoke_drain(mut self, limit: Duration) -> Self {
        self.options.limits.revoke_drain = limit;
        self
    }

    /// The handler: an async function with up to eight extractors.
    pub fn handle<H: Handler<A>, A: 'static>(self, handler: H) -> Listener {
        Listener {
            options: self.options,
            handler: Box::new(Typed::new(handler)),
        }
    }

    /// A handler that takes a list of records: see [`batch`](crate::batch).
    pub fn handle_batch<H: BatchHandler<A>, A: 'static>(self, handler: H) -> Listener {
        Listener {
            options: self.options,
            handler: Box::new(TypedBatch::new(handler)),
        }
    }

    /// A handler for the events of some types, beside others: each is an async function whose first
    /// argument is [`Event<E>`](struct@crate::extract::Event), and takes the events of
    /// [`E::TYPES`](crate::Event::TYPES). They share topics, group, lanes and settings, so the order
    /// of a key holds across types.
    ///
    /// Two handlers of one type, or a handler whose event lists no types, are an error at the start.
    /// A record of a type that none of them knows is undecodable, see
    /// [`on_unknown_event`](Self::on_unknown_event).
    ///
    /// ```
    /// # use std::borrow::Cow;
    /// # use ackwell::{Listener, Topic, extract::Event};
    /// # #[derive(serde::Serialize, serde::Deserialize)]
    /// # struct Placed { order_id: String }
    /// # #[derive(serde::Serialize, serde::Deserialize)]
    /// # struct Cancelled { order_id: String }
    /// # impl ackwell::Event for Cancelled {
    /// #     const TOPIC: Topic<Self> = Topic::new("order-events");
    /// #     const TYPES: &'static [&'static str] = &["OrderCancelled"];
    /// #     fn event_type(&self) -> &'static str { "OrderCancelled" }
    /// #     fn aggregate_id(&self) -> Cow<'_, str> { Cow::Borrowed(&self.order_id) }
    /// # }
    /// impl ackwell::Event for Placed {
    ///     const TOPIC: Topic<Self> = Topic::new("order-events");
    ///     const TYPES: &'static [&'static str] = &["OrderPlaced"];
    /// #     fn event_type(&self) -> &'static str { "OrderPlaced" }
    /// #     fn aggregate_id(&self) -> Cow<'_, str> { Cow::Borrowed(&self.order_id) }
    ///     // ..
    /// }
    ///
    /// async fn ship(Event(order): Event<Placed>) { /* .. */ }
    /// async fn stop(Event(order): Event<Cancelled>) { /* .. */ }
    ///
    /// let listener = Listener::on("order-events").on_event(ship).on_event(stop);
    /// # let _ = listener;
    /// ```
    pub fn on_event<H, A>(self, handler: H) -> EventListener
    where
        H: Handler<A>,
        A: EventArguments + 'static,
    {
        EventListener::new(self.options).on_event(handler)
    }
}

impl std::fmt::Debug for ListenerBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ListenerBuilder")
            .field("topics", &self.options.topics)
            .finish_non_exhaustive()
    }
}
