//! What stands between a record and its handler, and the handler itself.

use tower_layer::Layer;
use tower_service::Service;

use super::{EventListener, Filter, Listener, ListenerBuilder, OnUndecodable};
use crate::batch::BatchHandler;
use crate::failure::Failure;
use crate::handler::{EventArguments, Handler, Typed, TypedBatch};
use crate::layer::{ErasedLayer, Next, Request};
use crate::record::Record;

impl ListenerBuilder {
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
