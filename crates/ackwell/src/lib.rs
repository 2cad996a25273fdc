//! Services on Kafka records that lose none and apply none twice.
//!
//! A service is an [`App`]: [`Listener`]s that hand records to plain async functions, background
//! [`Service`]s, and the state that they share.
//!
//! ```no_run
//! use std::{borrow::Cow, time::Duration};
//! use ackwell::extract::{Attempt, Event, State};
//! use ackwell::{App, Classify, Class, Config, Listener, Topic, by_key, retry::exponential};
//!
//! #[derive(serde::Serialize, serde::Deserialize)]
//! struct OrderPlaced { order_id: String, total: String }
//!
//! impl ackwell::Event for OrderPlaced {
//!     const TOPIC: Topic<Self> = Topic::new("order-events").partitions(12);
//!     fn event_type(&self) -> &'static str { "OrderPlaced" }
//!     fn knows(event_type: &str) -> bool { event_type == "OrderPlaced" }
//!     fn aggregate_id(&self) -> Cow<'_, str> { Cow::Borrowed(&self.order_id) }
//! }
//!
//! #[derive(Clone)]
//! struct Mail;
//! # impl Mail { async fn send(&self, _: &OrderPlaced) -> Result<(), MailError> { Ok(()) } }
//!
//! #[derive(Debug)]
//! enum MailError { Away, NoSuchAddress }
//!
//! impl std::fmt::Display for MailError {
//!     fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { write!(f, "{self:?}") }
//! }
//!
//! impl std::error::Error for MailError {}
//!
//! impl Classify for MailError {
//!     fn class(&self) -> Class {
//!         match self {
//!             Self::Away => Class::Unavailable,            // pause and probe, use up no attempt
//!             Self::NoSuchAddress => Class::Permanent,     // dead-letter at once
//!         }
//!     }
//! }
//!
//! async fn confirm(Event(order): Event<OrderPlaced>, State(mail): State<Mail>, Attempt(n): Attempt) -> Result<(), MailError> {
//!     tracing::info!(attempt = n, "confirming");
//!     mail.send(&order).await
//! }
//!
//! #[tokio::main]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     App::new(Config::load()?)
//!         .named("mailer")
//!         .state(Mail)
//!         .listener(
//!             Listener::on(<OrderPlaced as ackwell::Event>::TOPIC)
//!                 .concurrency(by_key(32))
//!                 .retry(exponential(Duration::from_secs(1), 2.0).max(Duration::from_secs(10)).within(Duration::from_secs(60)))
//!                 .handle(confirm),
//!         )
//!         .run()
//!         .await?;
//!     Ok(())
//! }
//! ```
//!
//! # Contents
//!
//! | to | look at |
//! |---|---|
//! | declare events and topics | [`Event`], [`events!`], [`Topic`] |
//! | write a handler | [`extract`], [`Handler`], [`Classify`] |
//! | handle records as a list | [`batch`](mod@batch) |
//! | give each event type its own handler | [`on_event`](listener::ListenerBuilder::on_event) |
//! | write values otherwise than as JSON | [`codec`](mod@codec) |
//! | stand around handlers: measure, trace, limit | [`layer`](mod@layer) |
//! | decide what happens on failure | [`retry`], [`failure`], [`Class`], [`Listener`] |
//! | choose group, concurrency, acknowledgement, limits | [`listener`] |
//! | read, search and replay what could not be handled | [`dead_letters`] |
//! | send | [`producer`], [`EncodedEvent`] |
//! | send several events as one, or exactly once for each record | [`transaction`] |
//! | configure | [`config`] |
//! | watch | [`observe`] |
//! | follow a trace from a request to its last effect | [`trace`] |
//! | pause, seek, stop and start a running listener | [`ListenerHandle`] |
//! | run something beside the listeners | [`service`] |
//! | write an extractor, or share a transaction between records | [`FromRecord`], [`unit`](mod@unit) |
//! | understand a record's way | [`container`] |
//!
//! # What is promised
//!
//! A record that was polled is handled or dead-lettered before its position is committed; order
//! is kept per key; what can't be done is told by health, metrics and errors with a mend. That
//! nothing takes effect twice needs a transaction: see the crate `ackwell-sql`.

mod app;
pub mod batch;
pub mod codec;
pub mod config;
pub mod container;
mod context;
pub mod dead_letters;
mod encode;
mod events;
pub mod extensions;
pub mod extract;
pub mod failure;
mod handler;
pub mod layer;
pub mod listener;
#[cfg(feature = "mutations")]
pub mod mutation;
#[cfg(not(feature = "mutations"))]
mod mutation;
pub mod observe;
mod origin;
pub mod producer;
pub mod reader;
pub mod record;
pub mod retry;
mod returned;
mod rights;
pub mod service;
mod topic;
pub mod trace;
pub mod transaction;
pub mod unit;

pub use ackwell_core as core;
pub use app::{App, RunningApp, StartError};
pub use batch::{Batch, BatchError, BatchHandler};
pub use codec::Codec;
pub use config::Config;
pub use context::{Context, Setup, SetupError};
pub use encode::{
    AGGREGATE_ID, CONTENT_TYPE, EVENT_ID, EVENT_TYPE, EncodeError, EncodedEvent, JSON, OCCURRED_AT,
    TRACEPARENT,
};
pub use extensions::Extensions;
pub use extract::FromRecord;
pub use failure::{Class, Classify, Failure};
pub use handler::{EventArguments, Handler, Outcome};
pub use listener::{AckMode, Listener, ListenerHandle, OnUndecodable, by_key, by_partition};
pub use origin::{Identity, Origin};
pub use producer::Producer;
pub use record::{Headers, Record};
pub use service::Service;
pub use topic::{DEAD_LETTER_SUFFIX, Event, Topic, TopicDeclaration};
pub use transaction::{Transaction, Transactions};
