//! A JSON body, or a problem that says what is wrong with it and where.

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, StatusCode, header};
use serde::de::DeserializeOwned;
use serde_json::error::Category;

use crate::problem::Problem;

/// The request's body as JSON. Derive `Deserialize` with `#[serde(deny_unknown_fields)]`, so that
/// a misspelt field is an answer and not a default.
///
/// | what | answer |
/// |---|---|
/// | no `content-type`, or one that is not JSON | 415 |
/// | larger than [`Limits::body_bytes`](crate::Limits::body_bytes) | 413 |
/// | not JSON | 400 with line and column |
/// | JSON of another shape: unknown, missing or mistyped fields | 422 with line and column |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JsonBody<T>(
    /// The decoded body.
    pub T,
);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for JsonBody<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        if !is_json(request.headers()) {
            let problem = Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "Not JSON");
            return Err(problem.detail(
                "send the body as JSON, with the header `content-type: application/json`",
            ));
        }
        let body = Bytes::from_request(request, state)
            .await
            .map_err(|rejection| unread(rejection.status()))?;
        decode(&body).map(Self)
    }
}

impl<T: DeserializeOwned> JsonBody<T> {
    /// Decodes bytes that were read by other means, with the same answers: for handlers that need
    /// the raw body too, to compare or to sign it.
    ///
    /// # Errors
    /// With the problem to answer.
    pub fn from_bytes(body: &[u8]) -> Result<Self, Problem> {
        decode(body).map(Self)
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let value = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    let essence = value
        .and_then(|value| value.split(';').next())
        .map(|e| e.trim().to_ascii_lowercase());
    essence.is_some_and(|e| {
        e == "application/json" || (e.starts_with("application/") && e.ends_with("+json"))
    })
}

fn unread(status: StatusCode) -> Problem {
    if status == StatusCode::PAYLOAD_TOO_LARGE {
        Problem::new(status, "Body too large")
            .detail("the body is larger than this server takes; send less at once")
    } else {
        Problem::bad_request("the body could not be read to its end; send it again")
    }
}

fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    serde_json::from_slice(body).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        let text = error.to_string();
        let what = text
            .rsplit_once(" at line ")
            .map_or(text.as_str(), |(what, _)| what);
        let problem = match error.classify() {
            Category::Data => Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "Unexpected JSON"),
            Category::Eof if body.is_empty() => {
                return Problem::bad_request("the body is empty; send a JSON value");
            }
            Category::Syntax | Category::Eof | Category::Io => {
                Problem::new(StatusCode::BAD_REQUEST, "Malformed JSON")
            }
        };
        let problem = problem.detail(format!("{what}, at line {line}, column {column}"));
        problem.with("line", line).with("column", column)
    })
}
