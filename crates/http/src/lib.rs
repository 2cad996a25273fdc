//! What a service shows over HTTP: health, readiness, metrics, and errors that say how to mend.
//!
//! ```no_run
//! # async fn example(app: ackwell::RunningApp) -> std::io::Result<()> {
//! use ackwell_http::{JsonBody, Problem, bind, ops, serve};
//! use axum::{Router, http::StatusCode, routing::post};
//!
//! #[derive(serde::Deserialize)]
//! #[serde(deny_unknown_fields)]
//! struct NewUser { email: String }
//!
//! async fn create(JsonBody(user): JsonBody<NewUser>) -> Result<StatusCode, Problem> {
//!     if !user.email.contains('@') {
//!         return Err(Problem::unprocessable("`email` is not an address").with("field", "email"));
//!     }
//!     Ok(StatusCode::CREATED)
//! }
//!
//! let router = Router::new().route("/users", post(create)).merge(ops(&app));
//! let listener = bind("127.0.0.1:8083").await?;
//! serve(listener, router, async move { let _ = app.wait().await; }).await
//! # }
//! ```

mod body;
mod guard;
mod limits;
mod ops;
mod parameters;
mod problem;
mod server;
mod trace;

pub use body::JsonBody;
pub use limits::Limits;
pub use ops::{ops, ops_of};
pub use parameters::{PathParams, QueryParams};
pub use problem::Problem;
pub use server::{Server, bind, serve};
