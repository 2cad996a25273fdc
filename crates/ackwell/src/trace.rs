//! Passing a record's trace context along to the events that its handler emits.

use std::future::Future;
use std::sync::Arc;

tokio::task_local! {
    static TRACEPARENT: Arc<str>;
}

/// Runs `handling` with the record's `traceparent` at hand.
pub(crate) async fn within<F: Future>(traceparent: Arc<str>, handling: F) -> F::Output {
    TRACEPARENT.scope(traceparent, handling).await
}

/// The `traceparent` of the record that this task handles.
pub(crate) fn current() -> Option<Arc<str>> {
    TRACEPARENT.try_with(Arc::clone).ok()
}
