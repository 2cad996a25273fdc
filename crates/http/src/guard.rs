//! What stands before every handler: limits, and an answer whatever happens behind.

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{Method, StatusCode, Uri};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use tokio::sync::Semaphore;

use crate::limits::Limits;
use crate::problem::Problem;
use crate::trace;

#[derive(Clone)]
struct Guard {
    requests: Arc<Semaphore>,
    limits: Limits,
}

/// `router` behind its limits, with problems for unknown routes and methods.
pub(crate) fn guarded(router: Router, limits: &Limits) -> Router {
    let guard = Guard {
        requests: Arc::new(Semaphore::new(limits.requests)),
        limits: limits.clone(),
    };
    router
        .fallback(unknown_route)
        .method_not_allowed_fallback(unknown_method)
        .layer(DefaultBodyLimit::max(limits.body_bytes))
        .layer(from_fn_with_state(guard, watch))
}

async fn watch(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    let Ok(_permit) = guard.requests.try_acquire() else {
        return Problem::unavailable("too many requests are in work; try again shortly")
            .into_response();
    };
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let traceparent = trace::of(request.headers());
    let handling = caught(ackwell::trace::within(traceparent, next.run(request)));
    match tokio::time::timeout(guard.limits.request_wait, handling).await {
        Ok(Ok(response)) => response,
        Ok(Err(Panicked)) => {
            tracing::error!(%method, path, "a request handler panicked");
            Problem::internal("the request met a defect of this service; it is logged")
                .instance(path)
                .into_response()
        }
        Err(_) => {
            tracing::warn!(%method, path, limit_ms = guard.limits.request_wait.as_millis(), "a request took too long");
            Problem::unavailable("the request took too long; it may be sent again")
                .instance(path)
                .into_response()
        }
    }
}

struct Panicked;

/// Awaits `future`; a panic in it is an answer, not a closed connection.
async fn caught<F: Future>(future: F) -> Result<F::Output, Panicked> {
    let mut future = pin!(future);
    poll_fn(
        |cx| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
            Ok(poll) => poll.map(Ok),
            Err(_) => Poll::Ready(Err(Panicked)),
        },
    )
    .await
}

async fn unknown_route(uri: Uri) -> Problem {
    Problem::not_found("there is no such route").instance(uri.path())
}

async fn unknown_method(method: Method, uri: Uri) -> Problem {
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "Method not allowed")
        .detail(format!("this route does not answer {method}"))
        .instance(uri.path())
}
