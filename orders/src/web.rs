//! Errors of the services as problem details, and the limits of their servers.

use ackwell_http::{Limits, Problem};
use axum::http::header::CONTENT_TYPE;
use axum::routing::{MethodRouter, get};

use crate::error::Error;

/// The longest body that is read: a full order of the most lines is a quarter of it.
pub(crate) const MAX_BODY: usize = 64 * 1024;

/// What each service's server takes on.
pub(crate) fn limits() -> Limits {
    Limits {
        body_bytes: MAX_BODY,
        ..Limits::default()
    }
}

/// A service's description of itself; the tests hold it against what it does.
pub(crate) fn openapi<S: Clone + Send + Sync + 'static>(text: &'static str) -> MethodRouter<S> {
    get(async move || ([(CONTENT_TYPE, "application/json")], text))
}

/// A value that is not allowed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} {what}")]
pub(crate) struct Invalid {
    /// Which field, e.g. `items[0].quantity`.
    field: String,
    /// What is wrong with it.
    what: String,
}

impl Invalid {
    /// `field` is not as it must be.
    pub(crate) fn new(field: impl Into<String>, what: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            what: what.into(),
        }
    }
}

impl From<Invalid> for Problem {
    fn from(invalid: Invalid) -> Self {
        Self::unprocessable(invalid.to_string()).with("field", invalid.field)
    }
}

/// What the caller is told of an error inside: whether to try again, and no more.
impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        match error {
            Error::Database(cause) if cause.is_full() => {
                tracing::warn!(error = %cause, "the disk is full");
                Self::unavailable(
                    "the disk of this service is full, nothing was changed; try again when there is room",
                )
            }
            Error::Database(cause) if cause.is_unavailable() => {
                tracing::warn!(error = %cause, "database is unavailable");
                Self::unavailable("the database is away, nothing was changed; try again")
            }
            error => {
                tracing::error!(%error, "request failed");
                Self::internal("the service's log says more")
            }
        }
    }
}
