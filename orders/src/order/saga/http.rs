//! Sagas over HTTP: lists, one step by step, and deciding by hand.

use ackwell_http::{JsonBody, Problem, QueryParams};
use ackwell_sql::Database;
use ackwell_sql::saga::{Answer, Resolution, Status, Summary, View};
use axum::extract::{Path, State};
use axum::routing::{get, post};
use axum::{Json, Router};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::super::http::{PAGE_DEFAULT, page_limit};
use super::OrderSagas;
use crate::error::Error;
use crate::events::orders::OrderPlaced;

/// Characters of a note at most.
const NOTE_MAX: usize = 500;

/// The paths of the orchestrator.
pub(crate) fn routes(db: Database, sagas: OrderSagas) -> Router {
    Router::new()
        .route("/sagas", get(list))
        .route("/sagas/{id}", get(show))
        .route("/sagas/{id}/resolve", post(resolve))
        .with_state(Desk { db, sagas })
}

#[derive(Clone)]
struct Desk {
    db: Database,
    sagas: OrderSagas,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ListParameters {
    status: Option<String>,
    limit: Option<String>,
    after: Option<String>,
}

/// One saga in a line.
#[derive(Serialize)]
struct SagaLine {
    saga_id: Uuid,
    order_id: String,
    status: &'static str,
    step: Option<&'static str>,
    reason: Option<String>,
    started_at: Timestamp,
    changed_at: Timestamp,
    completed_at: Option<Timestamp>,
    deadline: Option<Timestamp>,
}

#[derive(Serialize)]
struct SagaPage {
    sagas: Vec<SagaLine>,
    next: Option<Uuid>,
}

#[derive(Serialize)]
struct SagaView {
    #[serde(flatten)]
    line: SagaLine,
    steps: Vec<StepLine>,
    history: Vec<HistoryLine>,
}

#[derive(Serialize)]
struct StepLine {
    name: &'static str,
    status: &'static str,
    at: Option<Timestamp>,
}

#[derive(Serialize)]
struct HistoryLine {
    at: Timestamp,
    what: String,
    status: &'static str,
    reason: Option<String>,
}

/// What a person decides.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Decided {
    decision: Decision,
    #[serde(default)]
    note: String,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Decision {
    /// Confirm the order after all.
    Confirm,
    /// Cancel it, and take back what was done.
    Cancel,
}

impl From<Summary> for SagaLine {
    fn from(saga: Summary) -> Self {
        Self {
            saga_id: saga.saga_id,
            order_id: saga.key,
            status: saga.phase.status().name(),
            step: saga.step,
            reason: saga.reason,
            started_at: saga.started_at,
            changed_at: saga.changed_at,
            completed_at: saga.completed_at,
            deadline: saga.deadline,
        }
    }
}

impl From<View<OrderPlaced>> for SagaView {
    fn from(saga: View<OrderPlaced>) -> Self {
        let steps = saga.steps.into_iter().map(|step| StepLine {
            name: step.name,
            status: step.state.name(),
            at: step.at,
        });
        let history = saga.history.into_iter().map(|entry| HistoryLine {
            at: entry.at,
            what: entry.happening,
            status: entry.status.name(),
            reason: entry.reason,
        });
        Self {
            line: saga.summary.into(),
            steps: steps.collect(),
            history: history.collect(),
        }
    }
}

/// Sagas in the order in which they started, a page at a time.
async fn list(
    State(Desk { db, sagas }): State<Desk>,
    QueryParams(parameters): QueryParams<ListParameters>,
) -> Result<Json<SagaPage>, Problem> {
    let given = |value: Option<String>| value.filter(|value| !value.is_empty());
    let status = given(parameters.status)
        .map(|name| status_named(&name))
        .transpose()?;
    let limit = given(parameters.limit).map_or(Ok(PAGE_DEFAULT), |limit| page_limit(&limit))?;
    let no_cursor =
        |_| Problem::bad_request("after must be the `next` of an earlier page, or a saga's id");
    let after = given(parameters.after)
        .map(|cursor| cursor.parse().map_err(no_cursor))
        .transpose()?;
    let page = sagas
        .page(&db, status, after, limit)
        .await
        .map_err(Error::from)?;
    let page = page.ok_or_else(no_such_saga)?;
    Ok(Json(SagaPage {
        sagas: page.sagas.into_iter().map(SagaLine::from).collect(),
        next: page.next,
    }))
}

fn status_named(name: &str) -> Result<Status, Problem> {
    Status::named(name).ok_or_else(|| {
        let names = Status::ALL.map(Status::name).join(", ");
        Problem::bad_request(format!("status must be one of {names}"))
    })
}

async fn show(
    State(Desk { db, sagas }): State<Desk>,
    Path(id): Path<String>,
) -> Result<Json<SagaView>, Problem> {
    view(&db, &sagas, parsed(&id)?).await
}

/// Decides about a saga in review. Whose order was confirmed meanwhile needs no decision any more.
async fn resolve(
    State(Desk { db, sagas }): State<Desk>,
    Path(id): Path<String>,
    JsonBody(body): JsonBody<Decided>,
) -> Result<Json<SagaView>, Problem> {
    let id = parsed(&id)?;
    if body.note.chars().count() > NOTE_MAX {
        let text = format!("note must have at most {NOTE_MAX} characters");
        return Err(Problem::unprocessable(text).with("field", "note"));
    }
    let resolution = match body.decision {
        Decision::Confirm => Resolution::Confirm,
        Decision::Cancel => Resolution::Cancel,
    };
    let mut tx = db.begin();
    let answer = match sagas.resolve(&mut tx, id, resolution, &body.note).await {
        Err(Error::Overtaken(_)) => {
            let text = "the order was confirmed meanwhile; its saga completes by itself";
            return Err(Problem::conflict(text));
        }
        answer => answer?,
    };
    match answer {
        Answer::Moved(_) | Answer::Nothing(_) | Answer::NoReply => {
            tx.commit().await.map_err(Error::from)?;
            view(&db, &sagas, id).await
        }
        Answer::Refused(why) => Err(Problem::conflict(format!(
            "the saga can't be resolved so: {}",
            why.text()
        ))),
        Answer::Unknown => Err(no_such_saga()),
    }
}

async fn view(db: &Database, sagas: &OrderSagas, id: Uuid) -> Result<Json<SagaView>, Problem> {
    let view = sagas.view(db, id).await.map_err(Error::from)?;
    let view = view.ok_or_else(no_such_saga)?;
    Ok(Json(SagaView::from(view)))
}

fn parsed(id: &str) -> Result<Uuid, Problem> {
    id.parse().map_err(|_| no_such_saga())
}

fn no_such_saga() -> Problem {
    Problem::not_found("there is no saga with this id")
}
