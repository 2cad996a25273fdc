//! The trace that work belongs to: from a request or record to the events that it emits.
//!
//! A record's header `traceparent` (W3C Trace Context) is at hand while it is handled, and is passed on
//! to what the handler emits. Work that begins elsewhere, such as an HTTP request, says its own by
//! [`within`]; `ackwell-http` does so for every request.

use std::cell::RefCell;
use std::future::Future;
use std::sync::Arc;

use crate::encode::TRACEPARENT;
use crate::record::Record;

tokio::task_local! {
    static CAUSE: Cause;
}

/// What work follows from.
enum Cause {
    Trace(Arc<str>),
    /// The record in work, which is asked for its trace when somebody wants to know.
    Record(RefCell<Option<Record>>),
}

/// Runs `work` as part of the trace `traceparent`: what it emits carries it on. A task that it spawns
/// does not know of it.
pub async fn within<F: Future>(traceparent: Arc<str>, work: F) -> F::Output {
    CAUSE.scope(Cause::Trace(traceparent), work).await
}

/// Runs `work` as part of the trace that the record belongs to, if it names one.
pub(crate) fn following<F: Future>(record: Record, work: F) -> impl Future<Output = F::Output> {
    CAUSE.scope(Cause::Record(RefCell::new(Some(record))), work)
}

/// Runs `work` on records, one after another, each of which it [turns to](turn_to) first.
pub(crate) fn following_records<F: Future>(work: F) -> impl Future<Output = F::Output> {
    CAUSE.scope(Cause::Record(RefCell::new(None)), work)
}

/// What comes is part of the trace that this record belongs to, if it names one.
pub(crate) fn turn_to(record: &Record) {
    let turn = |cause: &Cause| {
        let Cause::Record(current) = cause else {
            return;
        };
        match &mut *current.borrow_mut() {
            Some(current) => current.clone_from(record),
            none => *none = Some(record.clone()),
        }
    };
    // Outside of such work there is nobody to ask.
    let _ = CAUSE.try_with(turn);
}

/// The `traceparent` of what this task handles, if it is known.
pub fn current() -> Option<Arc<str>> {
    let traceparent = |cause: &Cause| match cause {
        Cause::Trace(traceparent) => Some(Arc::clone(traceparent)),
        Cause::Record(current) => {
            let current = current.borrow();
            let headers = current.as_ref()?.headers();
            headers.get_str(TRACEPARENT).map(Arc::from)
        }
    };
    CAUSE.try_with(traceparent).ok().flatten()
}
