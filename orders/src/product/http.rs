//! Products over HTTP.

use ackwell_http::{JsonBody, Problem};
use ackwell_sql::Database;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};

use super::store::{self, Product, Put};
use crate::error::Error;
use crate::order::request::product_id_problem;
use crate::web::{Invalid, openapi};

/// The longest name, in characters.
const MAX_NAME: usize = 200;
/// The most units of a product: sums of many stay far below what 64 bits hold.
const MAX_STOCK: i64 = 1_000_000_000_000;

/// The paths of the product service.
pub(crate) fn routes(db: Database) -> Router {
    Router::new()
        .route("/products", get(list))
        .route("/products/{id}", get(show).put(put))
        .route("/openapi.json", openapi(include_str!("openapi.json")))
        .with_state(db)
}

#[derive(Serialize)]
struct List {
    products: Vec<Product>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    name: String,
    stock: i64,
}

async fn list(State(db): State<Database>) -> Result<Json<List>, Problem> {
    Ok(Json(List {
        products: store::products(&db).await?,
    }))
}

async fn show(
    State(db): State<Database>,
    Path(id): Path<String>,
) -> Result<Json<Product>, Problem> {
    product(&db, &id).await
}

/// Creates a product, or sets its name and stock. With `If-None-Match: *` one that exists
/// stays as it is.
async fn put(
    State(db): State<Database>,
    Path(id): Path<String>,
    headers: HeaderMap,
    JsonBody(body): JsonBody<Body>,
) -> Result<Response, Problem> {
    let only_new = wants_only_new(&headers)?;
    if let Some(what) = product_id_problem(&id) {
        return Err(Invalid::new("product_id", what).into());
    }
    body.check()?;
    let mut tx = db.begin();
    let put = store::put(&mut tx, &id, &body.name, body.stock, only_new).await?;
    tx.commit().await.map_err(Error::from)?;
    let status = match put {
        Put::Created => StatusCode::CREATED,
        Put::Replaced => StatusCode::OK,
        Put::Kept => {
            let problem = Problem::new(StatusCode::PRECONDITION_FAILED, "Product exists");
            return Err(problem.detail("the header If-None-Match: * asked for a new one"));
        }
    };
    Ok((status, product(&db, &id).await?).into_response())
}

impl Body {
    fn check(&self) -> Result<(), Invalid> {
        let length = self.name.chars().count();
        if !(1..=MAX_NAME).contains(&length) || self.name.chars().any(char::is_control) {
            let what =
                format!("must have 1 to {MAX_NAME} characters, none of them a control character");
            return Err(Invalid::new("name", what));
        }
        if !(0..=MAX_STOCK).contains(&self.stock) {
            return Err(Invalid::new(
                "stock",
                format!("must be from 0 to {MAX_STOCK}, not {}", self.stock),
            ));
        }
        Ok(())
    }
}

fn wants_only_new(headers: &HeaderMap) -> Result<bool, Problem> {
    match headers
        .get(header::IF_NONE_MATCH)
        .map(|value| value.as_bytes())
    {
        None => Ok(false),
        Some(b"*") => Ok(true),
        Some(_) => Err(Problem::bad_request("the header If-None-Match must be *")),
    }
}

async fn product(db: &Database, id: &str) -> Result<Json<Product>, Problem> {
    let product = store::product(db, id).await?;
    product
        .map(Json)
        .ok_or_else(|| Problem::not_found("there is no product with this id"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(body: &str) -> String {
        let checked = JsonBody::<Body>::from_bytes(body.as_bytes())
            .and_then(|JsonBody(body)| Ok(body.check()?));
        checked.err().map_or(String::new(), |problem| {
            problem.to_value()["detail"].to_string()
        })
    }

    #[test]
    fn a_product_has_a_name_and_a_stock_that_makes_sense() {
        assert_eq!(refusal(r#"{"name":"CD 01","stock":0}"#), "");
        assert!(refusal(r#"{"name":"","stock":1}"#).contains("name must"));
        assert!(refusal(r#"{"name":"x","stock":-1}"#).contains("stock must be from 0"));
        assert!(refusal(r#"{"name":"x","stock":1000000000001}"#).contains("stock must be from 0"));
        assert!(refusal(r#"{"name":"x","stock":1.5}"#).contains("line 1"));
        assert!(
            refusal(r#"{"name":"x","stock":1,"reserved":5}"#).contains("unknown field `reserved`")
        );
        assert!(refusal(r#"{"name":"x"}"#).contains("missing field `stock`"));
    }
}
