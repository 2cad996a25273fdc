//! Users over HTTP.

use ackwell_http::{JsonBody, PathParams, Problem};
use ackwell_sql::Database;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::{get, post};
use axum::{Json, Router};
use uuid::Uuid;

use super::request::NewUser;
use super::store::{self, User};
use crate::error::Error;
use crate::web::openapi;

/// The paths of the user service.
pub(crate) fn routes(db: Database) -> Router {
    Router::new()
        .route("/users", post(create))
        .route("/users/{user_id}", get(show))
        .route("/openapi.json", openapi(include_str!("openapi.json")))
        .with_state(db)
}

async fn create(
    State(db): State<Database>,
    JsonBody(body): JsonBody<NewUser>,
) -> Result<impl IntoResponse, Problem> {
    let new = body.check()?;
    let mut tx = db.begin();
    let created = store::create(&mut tx, new).await?;
    tx.commit().await.map_err(Error::from)?;
    let id = created.ok_or_else(|| Problem::conflict("there is a user with this email"))?;
    let location = [(header::LOCATION, format!("/users/{id}"))];
    Ok((StatusCode::CREATED, location, user(&db, id).await?))
}

async fn show(
    State(db): State<Database>,
    PathParams(id): PathParams<Uuid>,
) -> Result<Json<User>, Problem> {
    user(&db, id).await
}

async fn user(db: &Database, id: Uuid) -> Result<Json<User>, Problem> {
    let user = store::user(db, id).await?;
    user.map(Json)
        .ok_or_else(|| Problem::not_found("there is no user with this id"))
}
