//! The routes for whoever runs the service.

use ackwell::RunningApp;
use ackwell::observe::{Component, Health, Metrics, Verdict};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// `/healthz`, `/readyz` and `/metrics` of an app.
///
/// - `/healthz`: 200 unless a listener or service has stopped by itself; then 503 with the
///   reason, and only a restart helps.
/// - `/readyz`: 200 if everything is at work, else 503 with the reasons: starting, broker away,
///   paused, stopped.
/// - `/metrics`: OpenMetrics text.
pub fn ops<S: Clone + Send + Sync + 'static>(app: &RunningApp) -> Router<S> {
    ops_of(app.health().clone(), app.metrics().clone())
}

/// The same from its parts, for what is not an app.
pub fn ops_of<S: Clone + Send + Sync + 'static>(health: Health, metrics: Metrics) -> Router<S> {
    let ready = health.clone();
    Router::new()
        .route(
            "/healthz",
            get(async move || answer(&health.live(), &health)),
        )
        .route("/readyz", get(async move || answer(&ready.ready(), &ready)))
        .route(
            "/metrics",
            get(async move || ([(header::CONTENT_TYPE, OPENMETRICS)], metrics.render())),
        )
}

fn answer(verdict: &Verdict, health: &Health) -> Response {
    let (code, status) = match verdict.ok {
        true => (StatusCode::OK, "ok"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "failing"),
    };
    let reasons: Vec<_> = verdict
        .against
        .iter()
        .map(|c| format!("{} `{}` is {}", c.kind.as_str(), c.name, c.status))
        .collect();
    let components: Vec<_> = health.components().iter().map(component).collect();
    (
        code,
        Json(json!({ "status": status, "reasons": reasons, "components": components })),
    )
        .into_response()
}

fn component(component: &Component) -> Value {
    json!({
        "name": component.name,
        "kind": component.kind.as_str(),
        "status": component.status.as_str(),
        "reason": component.status.reason(),
        "for_seconds": component.for_.as_secs(),
    })
}
