//! What both services do alike over HTTP: bodies within a limit, errors as problem details.

use ackwell_http::Problem;
use axum::body::Bytes;
use axum::extract::{FromRequestParts, Query, Request};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::IntoResponse;
use serde::de::DeserializeOwned;

use crate::error::Error;
use crate::order::request::Refusal;

/// The longest body that is read: a full order of the most lines is a quarter of it.
pub(crate) const MAX_BODY: usize = 64 * 1024;

/// Reads a JSON body.
///
/// # Errors
/// 415 for another content type, 413 for one that is too long, 400 for one that breaks off.
pub(crate) async fn read_body(request: Request) -> Result<Bytes, Problem> {
    if !is_json(request.headers()) {
        return Err(problem(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "Unsupported content type",
            "send JSON, with the header Content-Type: application/json",
        ));
    }
    let (_, body) = request.into_parts();
    axum::body::to_bytes(body, MAX_BODY).await.map_err(|error| {
        let too_long = std::error::Error::source(&error).is_some_and(|cause| cause.to_string().contains("length limit"));
        if too_long {
            let detail = format!("the body must be at most {MAX_BODY} bytes");
            problem(StatusCode::PAYLOAD_TOO_LARGE, "Body too large", detail)
        } else {
            problem(StatusCode::BAD_REQUEST, "Body not readable", "the body broke off")
        }
    })
}

/// A body without a content type is taken for JSON.
fn is_json(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_none_or(|value| {
        let essence = value.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
        essence.eq_ignore_ascii_case(b"application/json") || essence.to_ascii_lowercase().ends_with(b"+json")
    })
}

/// The parameters of a query string, as problem details where they can't be read.
pub(crate) struct Parameters<T>(pub(crate) T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Parameters<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut axum::http::request::Parts, state: &S) -> Result<Self, Problem> {
        let Query(parameters) = Query::from_request_parts(parts, state)
            .await
            .map_err(|rejection| problem(StatusCode::BAD_REQUEST, "Unknown or malformed parameter", rejection.body_text()))?;
        Ok(Self(parameters))
    }
}

/// An answer that says what went wrong.
pub(crate) fn problem(status: StatusCode, title: &'static str, detail: impl Into<String>) -> Problem {
    Problem::new(status, title).detail(detail)
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Malformed(_) => problem(StatusCode::BAD_REQUEST, "Malformed request", refusal.to_string()),
            Refusal::Invalid { .. } => problem(StatusCode::UNPROCESSABLE_ENTITY, "Value not allowed", refusal.to_string()),
        }
    }
}

/// What the caller is told of an error inside: whether to try again, and no more.
impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        match error {
            Error::Database(cause) if cause.is_unavailable() => {
                tracing::warn!(error = %cause, "database is unavailable");
                problem(StatusCode::SERVICE_UNAVAILABLE, "Database unavailable", "nothing was changed; try again")
            }
            error => {
                tracing::error!(%error, "request failed");
                problem(StatusCode::INTERNAL_SERVER_ERROR, "Internal error", "the service's log says more")
            }
        }
    }
}

/// For a path that leads nowhere.
pub(crate) async fn no_such_path() -> impl IntoResponse {
    problem(StatusCode::NOT_FOUND, "No such path", "/openapi.json lists what there is")
}

/// For a method that a path doesn't have.
pub(crate) async fn no_such_method() -> impl IntoResponse {
    problem(StatusCode::METHOD_NOT_ALLOWED, "Method not allowed", "/openapi.json lists what there is")
}
