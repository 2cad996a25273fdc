//! The trace that work belongs to: from a request or record to the events that it emits.
//!
//! A record's header `traceparent` (W3C Trace Context) is at hand while it is handled, and is passed on
//! to what the handler emits. Work that begins elsewhere, such as an HTTP request, says its own by
//! [`within`]; `ackwell-http` does so for every request.

use std::future::Future;
use std::sync::Arc;

tokio::task_local! {
    static TRACEPARENT: Arc<str>;
}

/// Runs `work` as part of the trace `traceparent`: what it emits carries it on. A task that it spawns
/// does not know of it.
pub async fn within<F: Future>(traceparent: Arc<str>, work: F) -> F::Output {
    TRACEPARENT.scope(traceparent, work).await
}

/// The `traceparent` of what this task handles, if it is known.
pub fn current() -> Option<Arc<str>> {
    TRACEPARENT.try_with(Arc::clone).ok()
}
