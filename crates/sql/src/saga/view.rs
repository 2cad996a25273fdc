//! Sagas for people: lists, and one step by step.

use ackwell::core::saga::{Phase, Plan, Status, StepState};
use jiff::Timestamp;
use uuid::Uuid;

use super::rows;
use super::sagas::{Saga, Sagas};
use crate::database::Database;
use crate::error::{Error, Kind, Result};
use crate::params;
use crate::row::Row;

/// One saga in a line.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Summary {
    /// Its id.
    pub saga_id: Uuid,
    /// The business key.
    pub key: String,
    /// What it does.
    pub phase: Phase,
    /// The name of the step that it is about, if there is one.
    pub step: Option<&'static str>,
    /// Why it takes back or is in review.
    pub reason: Option<String>,
    /// When it started.
    pub started_at: Timestamp,
    /// When it moved last.
    pub changed_at: Timestamp,
    /// When it was over; `None` while it is open.
    pub completed_at: Option<Timestamp>,
    /// When it no longer waits.
    pub deadline: Option<Timestamp>,
}

/// A page of sagas, in the order in which they started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The sagas.
    pub sagas: Vec<Summary>,
    /// What to ask for the next page after; `None` on the last one.
    pub next: Option<Uuid>,
}

/// One step of a saga.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StepView {
    /// Its name.
    pub name: &'static str,
    /// Where it stands.
    pub state: StepState,
    /// When it came there; `None` while it waits.
    pub at: Option<Timestamp>,
}

/// One move of a saga.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Entry {
    /// When.
    pub at: Timestamp,
    /// What happened, in words.
    pub happening: String,
    /// The status that it had then.
    pub status: Status,
    /// Why, where there was a new reason.
    pub reason: Option<String>,
}

/// One saga step by step.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct View<D> {
    /// In a line.
    pub summary: Summary,
    /// What its commands are made from.
    pub data: D,
    /// Its steps, in order.
    pub steps: Vec<StepView>,
    /// Its moves, in order.
    pub history: Vec<Entry>,
}

/// The open sagas of a status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Open {
    /// Which.
    pub status: Status,
    /// How many.
    pub count: u64,
    /// When the oldest of them started.
    pub oldest: Timestamp,
}

const COLUMNS: &str = "seq, saga_id, saga_key, version, status, step, attempt, steps, due_at, reason, \
     started_at, changed_at, completed_at";

impl<S: Saga> Sagas<S> {
    /// At most `limit` sagas with this status, or any, that started after the saga `after`, or from
    /// the first. `None` if there is no saga `after`.
    ///
    /// # Errors
    /// When the database is unavailable, or holds a saga of another declaration.
    pub async fn page(
        &self,
        database: &Database,
        status: Option<Status>,
        after: Option<Uuid>,
        limit: u32,
    ) -> Result<Option<Page>> {
        let Some(after) = place(database, after).await? else {
            return Ok(None);
        };
        let name = self.plan().name();
        let more = limit.saturating_add(1);
        let rows = match status {
            None => {
                let sql = format!(
                    "SELECT {COLUMNS} FROM ackwell_sagas WHERE name = $1 AND seq > $2 ORDER BY seq LIMIT $3"
                );
                database.query(&sql, params![name, after, more]).await?
            }
            Some(status) => {
                let sql = format!(
                    "SELECT {COLUMNS} FROM ackwell_sagas \
                     WHERE name = $1 AND status = $4 AND seq > $2 ORDER BY seq LIMIT $3"
                );
                let status = status.name();
                database
                    .query(&sql, params![name, after, more, status])
                    .await?
            }
        };
        let read = rows.iter().map(|row| summary(row, self.plan()));
        let mut sagas = read.collect::<Result<Vec<_>>>()?;
        let full = sagas.len() > limit as usize;
        sagas.truncate(limit as usize);
        let next = sagas.last().filter(|_| full).map(|last| last.saga_id);
        Ok(Some(Page { sagas, next }))
    }

    /// One saga step by step.
    ///
    /// # Errors
    /// Those of [`page`](Self::page).
    pub async fn view(&self, database: &Database, saga_id: Uuid) -> Result<Option<View<S::Data>>> {
        // One statement, so that state and history are of one moment.
        let sql = "SELECT s.*, h.at, h.happening, h.status AS then_status, h.steps AS then_steps, \
                   h.reason AS then_reason \
                   FROM ackwell_sagas s JOIN ackwell_saga_history h ON h.saga_seq = s.seq \
                   WHERE s.saga_id = $1 AND s.name = $2 ORDER BY h.version";
        let name = self.plan().name();
        let rows = database.query(sql, params![saga_id, name]).await?;
        let Some(first) = rows.first() else {
            return Ok(None);
        };
        let data = serde_json::from_str(&first.get::<String>("data")?).map_err(|error| {
            Error::usage(format!("reading the data of saga {saga_id}")).because(error)
        })?;
        Ok(Some(View {
            summary: summary(first, self.plan())?,
            data,
            steps: steps(&rows, self.plan())?,
            history: rows.iter().map(entry).collect::<Result<_>>()?,
        }))
    }

    /// How many sagas are open, by status: of those that are over nothing is counted, so that it is quick
    /// however many there have been.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn open(&self, database: &Database) -> Result<Vec<Open>> {
        let sql = "SELECT o.status, o.count, s.started_at FROM ( \
                   SELECT status, count(*) AS count, min(seq) AS oldest FROM ackwell_sagas \
                   WHERE name = $1 AND status IN ('RUNNING', 'COMPENSATING', 'MANUAL_REVIEW') \
                   GROUP BY status) o JOIN ackwell_sagas s ON s.seq = o.oldest ORDER BY o.status";
        let rows = database.query(sql, params![self.plan().name()]).await?;
        let open = |row: &Row| {
            Ok(Open {
                status: status(row, "status")?,
                count: u64::try_from(row.get::<i64>("count")?).unwrap_or(0),
                oldest: row.get("started_at")?,
            })
        };
        rows.iter().map(open).collect()
    }
}

/// Where a saga stands in the order of starting; 0 for none, before the first.
async fn place(database: &Database, saga: Option<Uuid>) -> Result<Option<i64>> {
    let Some(saga_id) = saga else {
        return Ok(Some(0));
    };
    let sql = "SELECT seq FROM ackwell_sagas WHERE saga_id = $1";
    let row = database.query_opt(sql, params![saga_id]).await?;
    row.map(|row| row.get("seq")).transpose()
}

fn summary(row: &Row, plan: &Plan) -> Result<Summary> {
    let saga_id = row.get("saga_id")?;
    let state = rows::state(row, plan, saga_id)?;
    let step = state.phase().step();
    Ok(Summary {
        saga_id,
        key: row.get("saga_key")?,
        phase: state.phase(),
        step: step.map(|step| plan.step_name(step)),
        reason: row.get("reason")?,
        started_at: row.get("started_at")?,
        changed_at: row.get("changed_at")?,
        completed_at: row.get("completed_at")?,
        deadline: state.deadline().map(rows::from_core),
    })
}

/// Each step, and since when it is as it is.
fn steps(rows: &[Row], plan: &Plan) -> Result<Vec<StepView>> {
    let mut views: Vec<_> = plan
        .steps()
        .map(|step| StepView {
            name: plan.step_name(step),
            state: StepState::Waiting,
            at: None,
        })
        .collect();
    for row in rows {
        let then: String = row.get("then_steps")?;
        for (view, name) in views.iter_mut().zip(then.split(',')) {
            let state = StepState::named(name).ok_or_else(|| damaged(name))?;
            if state != view.state {
                (view.state, view.at) = (state, Some(row.get("at")?));
            }
        }
    }
    Ok(views)
}

fn entry(row: &Row) -> Result<Entry> {
    Ok(Entry {
        at: row.get("at")?,
        happening: row.get("happening")?,
        status: status(row, "then_status")?,
        reason: row.get("then_reason")?,
    })
}

fn status(row: &Row, column: &'static str) -> Result<Status> {
    let name: String = row.get(column)?;
    Status::named(&name).ok_or_else(|| damaged(&name))
}

fn damaged(name: &str) -> Error {
    Error::new(Kind::Schema, format!("reading a saga: it says {name:?}"))
}
