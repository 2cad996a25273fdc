//! What became of an order here, over HTTP.

use ackwell_http::{PathParams, Problem};
use ackwell_sql::Database;
use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use uuid::Uuid;

use super::store::{self, Told};
use crate::web::openapi;

/// The paths of the notification service.
pub(crate) fn routes(db: Database) -> Router {
    Router::new()
        .route("/notifications/{order_id}", get(show))
        .route("/openapi.json", openapi(include_str!("openapi.json")))
        .with_state(db)
}

async fn show(
    State(db): State<Database>,
    PathParams(order_id): PathParams<Uuid>,
) -> Result<Json<Told>, Problem> {
    let told = store::told(&db, order_id).await?;
    told.map(Json)
        .ok_or_else(|| Problem::not_found("nobody was told of an end of this order"))
}
