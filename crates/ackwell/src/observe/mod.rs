//! What an app says about itself: metrics and health.
//!
//! A consumer that died while its process still answers "healthy" is how lag is found by
//! customers. So each listener and service has a status with a reason, readiness is the sum of
//! them, and a listener that stopped by itself makes the process not alive.

mod health;
mod histogram;
mod listener;
mod metrics;

pub use health::{Component, Health, Kind, Reporter, Status, Verdict};
pub use histogram::{Histogram, Tally};
pub(crate) use listener::{ListenerObserver, watch_parked, watch_queues};
pub use metrics::Metrics;
pub(crate) use metrics::{ProducerMetrics, TransactionMetrics};
/// For metrics of one's own: [`Metrics::register`] takes its types.
pub use prometheus_client;
