//! Errors as RFC 9457 problem details.

use std::fmt;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value};

/// An error as `application/problem+json` (RFC 9457): what went wrong, where, how to mend it.
///
/// ```
/// use ackwell_http::Problem;
/// use axum::http::StatusCode;
///
/// let problem = Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "Key reused")
///     .kind("/problems/idempotency-key-reused")
///     .detail("this key was used with another body; use a new key for a new order")
///     .with("key", "row-17");
/// assert_eq!(problem.to_value()["status"], 422);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Problem {
    status: StatusCode,
    members: Map<String, Value>,
    retry_after_secs: Option<u32>,
}

impl Problem {
    /// A problem with this status; `title` is the same for every occurrence of its kind.
    pub fn new(status: StatusCode, title: impl Into<String>) -> Self {
        let mut members = Map::new();
        members.insert("type".to_owned(), "about:blank".into());
        members.insert("title".to_owned(), title.into().into());
        members.insert("status".to_owned(), status.as_u16().into());
        Self {
            status,
            members,
            retry_after_secs: None,
        }
    }

    /// 400: the request is malformed.
    pub fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "Malformed request").detail(detail)
    }

    /// 404: there is no such thing.
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "Not found").detail(detail)
    }

    /// 409: it contradicts the state of things.
    pub fn conflict(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, "Conflict").detail(detail)
    }

    /// 422: well-formed, but a value is not acceptable.
    pub fn unprocessable(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "Unacceptable value").detail(detail)
    }

    /// 503: something that is needed is away; the same request may succeed later.
    pub fn unavailable(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "Unavailable")
            .detail(detail)
            .retry_after(1)
    }

    /// 500: a defect or a failure of ours. `detail` is shown to the client, so it must not hold
    /// what only the log may know.
    pub fn internal(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "Internal error").detail(detail)
    }

    /// A URI that names the kind of problem; default `about:blank`.
    #[must_use]
    pub fn kind(self, uri: impl Into<String>) -> Self {
        self.with("type", uri.into())
    }

    /// What is wrong this time, and how to mend it.
    #[must_use]
    pub fn detail(self, detail: impl Into<String>) -> Self {
        self.with("detail", detail.into())
    }

    /// A URI that names this occurrence, for instance the resource.
    #[must_use]
    pub fn instance(self, uri: impl Into<String>) -> Self {
        self.with("instance", uri.into())
    }

    /// A further member; `status` can't be changed by it.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        let name = name.into();
        if name != "status" {
            self.members.insert(name, value.into());
        }
        self
    }

    /// A header `Retry-After`, in seconds.
    #[must_use]
    pub fn retry_after(mut self, seconds: u32) -> Self {
        self.retry_after_secs = Some(seconds);
        self
    }

    /// The status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The body.
    pub fn to_value(&self) -> Value {
        Value::Object(self.members.clone())
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(Value::Object(self.members))).into_response();
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        if let Some(seconds) = self.retry_after_secs {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |name: &str| self.members.get(name).and_then(Value::as_str);
        write!(
            f,
            "{}: {}",
            self.status.as_u16(),
            text("title").unwrap_or_default()
        )?;
        match text("detail") {
            Some(detail) => write!(f, ": {detail}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Problem {}
