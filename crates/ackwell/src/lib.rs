//! Services on Kafka records that lose none and apply none twice.

mod app;
pub mod config;
pub mod container;
mod context;
mod encode;
pub mod extensions;
pub mod extract;
pub mod failure;
mod handler;
pub mod listener;
pub mod observe;
pub mod producer;
pub mod record;
pub mod retry;
pub mod service;
mod topic;
mod trace;
pub mod unit;

pub use ackwell_core as core;
pub use app::{App, RunningApp, StartError};
pub use config::Config;
pub use context::{Context, Setup, SetupError};
pub use encode::{
    AGGREGATE_ID, CONTENT_TYPE, EVENT_ID, EVENT_TYPE, EncodeError, EncodedEvent, JSON, OCCURRED_AT,
    TRACEPARENT,
};
pub use extensions::Extensions;
pub use extract::FromRecord;
pub use failure::{Class, Classify, Failure};
pub use handler::{Handler, Outcome};
pub use listener::{AckMode, Listener, OnUndecodable, by_key, by_partition};
pub use producer::Producer;
pub use record::{Headers, Record};
pub use service::Service;
pub use topic::{DEAD_LETTER_SUFFIX, Event, Topic, TopicDeclaration};
