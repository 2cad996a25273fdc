//! Orders over HTTP.

use ackwell_http::{JsonBody, Problem, QueryParams};
use ackwell_sql::Database;
use ackwell_sql::saga::Answer;
use axum::extract::{FromRef, FromRequestParts, Path, State};
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::request::{Body, NewOrder, key_problem};
use super::saga::OrderSagas;
use super::store::{self, Advanced, Placed};
use super::{Order, Status};
use crate::config::Flow;
use crate::error::Error;
use crate::events::saga_id;
use crate::web::openapi;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const IDEMPOTENCY_REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
/// Orders of a page, unless asked otherwise.
pub(super) const PAGE_DEFAULT: u32 = 50;
/// Orders of a page at most: some 300 KiB.
const PAGE_MAX: u32 = 1000;
const WITHDRAWN: &str = "withdrawn by the customer";

/// The paths of the order service.
pub(crate) fn routes(db: Database, flow: Flow, sagas: OrderSagas) -> Router {
    Router::new()
        .route("/orders", post(place).get(list))
        .route("/orders/{id}", get(show))
        .route("/orders/{id}/cancel", post(cancel))
        .route("/openapi.json", openapi(include_str!("openapi.json")))
        .with_state(Shop { db, flow, sagas })
}

/// Where orders are kept, and which way new ones go.
#[derive(Clone)]
struct Shop {
    db: Database,
    flow: Flow,
    sagas: OrderSagas,
}

impl FromRef<Shop> for Database {
    fn from_ref(shop: &Shop) -> Self {
        shop.db.clone()
    }
}

#[derive(Serialize)]
struct Accepted {
    order_id: Uuid,
    status: Status,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ListParameters {
    status: Option<String>,
    limit: Option<String>,
    after: Option<String>,
}

#[derive(Serialize)]
struct Page {
    orders: Vec<Order>,
    next: Option<Uuid>,
}

/// Accepts an order. It is durable, and its event is on its way, when this answers.
async fn place(
    State(Shop { db, flow, sagas }): State<Shop>,
    IdempotencyKey(key): IdempotencyKey,
    JsonBody(body): JsonBody<Body>,
) -> Result<Response, Problem> {
    let at = Timestamp::now();
    let order = NewOrder::check(body)?;
    let mut tx = db.begin();
    let placed = store::place(&mut tx, &key, &order, flow, &sagas, at).await?;
    tx.commit().await.map_err(Error::from)?;
    match placed {
        Placed::New(order_id) => Ok(accepted(order_id)),
        Placed::Before(order_id) => {
            let replayed = [(IDEMPOTENCY_REPLAYED, HeaderValue::from_static("true"))];
            Ok((replayed, accepted(order_id)).into_response())
        }
        Placed::KeyTaken => {
            let title = "Idempotency key belongs to another order";
            let problem = Problem::new(StatusCode::UNPROCESSABLE_ENTITY, title);
            Err(problem.detail("the key was used with another body; use a new key for a new order"))
        }
    }
}

fn accepted(order_id: Uuid) -> Response {
    let location = [(header::LOCATION, format!("/orders/{order_id}"))];
    let body = Json(Accepted {
        order_id,
        status: Status::Pending,
    });
    (StatusCode::ACCEPTED, location, body).into_response()
}

/// The header `Idempotency-Key`, which every order needs.
struct IdempotencyKey(String);

impl<S: Send + Sync> FromRequestParts<S> for IdempotencyKey {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let wrong =
            |detail| Problem::new(StatusCode::BAD_REQUEST, "Idempotency key needed").detail(detail);
        let mut keys = parts.headers.get_all(&IDEMPOTENCY_KEY).iter();
        let (Some(key), None) = (keys.next(), keys.next()) else {
            return Err(wrong(
                "send the header Idempotency-Key once, with a key of your own for each order"
                    .to_owned(),
            ));
        };
        match key_problem(key.as_bytes()) {
            Some(what) => Err(wrong(format!("the header Idempotency-Key {what}"))),
            None => Ok(Self(String::from_utf8_lossy(key.as_bytes()).into_owned())),
        }
    }
}

/// Orders in the order of acceptance, a page at a time.
async fn list(
    State(db): State<Database>,
    QueryParams(parameters): QueryParams<ListParameters>,
) -> Result<Json<Page>, Problem> {
    let given = |value: Option<String>| value.filter(|value| !value.is_empty());
    let status = given(parameters.status)
        .map(|name| status_named(&name))
        .transpose()?;
    let limit = given(parameters.limit).map_or(Ok(PAGE_DEFAULT), |limit| page_limit(&limit))?;
    let after = match given(parameters.after) {
        Some(cursor) => place_of(&db, &cursor).await?,
        None => 0,
    };
    let mut orders = store::page(&db, status, after, limit + 1).await?;
    let more = orders.len() > limit as usize;
    orders.truncate(limit as usize);
    let next = orders.last().filter(|_| more).map(|last| last.order_id);
    Ok(Json(Page { orders, next }))
}

fn status_named(name: &str) -> Result<Status, Problem> {
    Status::named(name).ok_or_else(|| {
        Problem::bad_request(format!(
            "status must be one of {}",
            Status::NAMES.join(", ")
        ))
    })
}

pub(super) fn page_limit(limit: &str) -> Result<u32, Problem> {
    let number = limit
        .parse()
        .ok()
        .filter(|limit| (1..=PAGE_MAX).contains(limit));
    number.ok_or_else(|| Problem::bad_request(format!("limit must be from 1 to {PAGE_MAX}")))
}

/// A cursor is the id of the last order seen, so that a client can start at any order it knows.
async fn place_of(db: &Database, cursor: &str) -> Result<i64, Problem> {
    let order_id = cursor.parse().map_err(|_| {
        Problem::bad_request("after must be the `next` of an earlier page, or an order's id")
    })?;
    let place = store::place_of(db, order_id).await?;
    place.ok_or_else(no_such_order)
}

async fn show(State(db): State<Database>, Path(id): Path<String>) -> Result<Json<Order>, Problem> {
    order(&db, parsed(&id)?).await
}

/// Withdraws an order; one that is cancelled already stays so. Of flow B the saga says whether it can be, and
/// takes back what was done.
async fn cancel(
    State(Shop { db, sagas, .. }): State<Shop>,
    Path(id): Path<String>,
) -> Result<Json<Order>, Problem> {
    let id = parsed(&id)?;
    let mut tx = db.begin();
    let refused = match sagas.cancel(&mut tx, saga_id(id), WITHDRAWN).await? {
        Answer::Moved(_) | Answer::Nothing(_) => None,
        Answer::Refused(why) => Some(why.text().to_owned()),
        // Of flow A; or its saga was over long ago, and so is the order.
        Answer::Unknown | Answer::NoReply => {
            match store::withdraw(&mut tx, id, WITHDRAWN, Timestamp::now()).await? {
                Advanced::To(_) | Advanced::TooLate(Status::Cancelled) => None,
                Advanced::TooLate(status) => Some(format!("it is {status}")),
                Advanced::Unknown => return Err(no_such_order()),
            }
        }
    };
    tx.commit().await.map_err(Error::from)?;
    match refused {
        None => order(&db, id).await,
        Some(why) => Err(Problem::conflict(format!(
            "the order can't be cancelled any more: {why}"
        ))),
    }
}

async fn order(db: &Database, id: Uuid) -> Result<Json<Order>, Problem> {
    store::order(db, id)
        .await?
        .map(Json)
        .ok_or_else(no_such_order)
}

fn parsed(id: &str) -> Result<Uuid, Problem> {
    id.parse().map_err(|_| no_such_order())
}

fn no_such_order() -> Problem {
    Problem::not_found("there is no order with this id")
}
