//! Payments over HTTP.

use ackwell_http::{PathParams, Problem};
use ackwell_sql::Database;
use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use uuid::Uuid;

use super::store::{self, Payment};
use crate::web::openapi;

/// The paths of the payment service.
pub(crate) fn routes(db: Database) -> Router {
    Router::new()
        .route("/payments/{order_id}", get(show))
        .route("/openapi.json", openapi(include_str!("openapi.json")))
        .with_state(db)
}

async fn show(
    State(db): State<Database>,
    PathParams(order_id): PathParams<Uuid>,
) -> Result<Json<Payment>, Problem> {
    let payment = store::payment(&db, order_id).await?;
    payment
        .map(Json)
        .ok_or_else(|| Problem::not_found("nothing is known of a payment of this order"))
}
