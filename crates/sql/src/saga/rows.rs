//! A saga's rows: one with its state, one for each move in the history.

use ackwell::core;
use ackwell::core::saga::{Move, Plan, Restored, State, Status, StepNo, StepState};
use jiff::Timestamp;
use uuid::Uuid;

use crate::error::{Error, Kind, Result};
use crate::params;
use crate::row::Row;
use crate::tx::Tx;

/// A saga as it was read, in the transaction that may move it.
pub(super) struct Loaded {
    pub(super) seq: i64,
    pub(super) saga_id: Uuid,
    pub(super) key: String,
    pub(super) state: State,
    pub(super) reason: Option<String>,
    pub(super) data: String,
}

/// How to wait for others who move the same saga. A SQLite file has one writer anyway.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Wait {
    /// Until they are done.
    ForThem,
    /// Not at all: they have it.
    Not,
}

/// Reads a saga in order to move it.
pub(super) async fn load(
    tx: &mut Tx,
    plan: &Plan,
    saga_id: Uuid,
    wait: Wait,
) -> Result<Option<Loaded>> {
    // Not also by name: PostgreSQL, which plans this once while the table is empty, would as soon take
    // the index of a name's sagas by status, and read all of them from then on.
    const READ: &str = "SELECT seq, name, saga_key, version, status, step, attempt, steps, due_at, reason, data \
         FROM ackwell_sagas WHERE saga_id = $1";
    const LOCK: &str = "SELECT seq, name, saga_key, version, status, step, attempt, steps, due_at, reason, data \
         FROM ackwell_sagas WHERE saga_id = $1 FOR UPDATE";
    const LOCK_FREE: &str = "SELECT seq, name, saga_key, version, status, step, attempt, steps, due_at, reason, data \
         FROM ackwell_sagas WHERE saga_id = $1 FOR UPDATE SKIP LOCKED";
    let sql = match (tx.database().location().server(), wait) {
        (None, _) => READ,
        (Some(_), Wait::ForThem) => LOCK,
        (Some(_), Wait::Not) => LOCK_FREE,
    };
    let row = tx.query_opt(sql, params![saga_id]).await?;
    let Some(row) = row else { return Ok(None) };
    if row.get::<String>("name")? != plan.name() {
        return Ok(None);
    }
    Ok(Some(Loaded {
        seq: row.get("seq")?,
        saga_id,
        key: row.get("saga_key")?,
        state: state(&row, plan, saga_id)?,
        reason: row.get("reason")?,
        data: row.get("data")?,
    }))
}

/// The state in a row.
pub(super) fn state(row: &Row, plan: &Plan, saga_id: Uuid) -> Result<State> {
    let foreign = || {
        let text = format!(
            "reading saga {saga_id}: it does not fit the declaration of {:?}; while sagas of an older \
             declaration are open, declare the newer one under another name",
            plan.name()
        );
        Error::new(Kind::Schema, text)
    };
    let status: String = row.get("status")?;
    let steps: String = row.get("steps")?;
    let steps: Option<Vec<_>> = steps.split(',').map(StepState::named).collect();
    let step: Option<u32> = row.get("step")?;
    let deadline: Option<Timestamp> = row.get("due_at")?;
    let restored = Restored {
        version: u64::try_from(row.get::<i64>("version")?).map_err(|_| foreign())?,
        status: Status::named(&status).ok_or_else(foreign)?,
        step: step.and_then(|step| usize::try_from(step).ok()),
        attempt: row.get("attempt")?,
        steps: steps.ok_or_else(foreign)?,
        deadline: deadline.map(to_core),
    };
    State::restore(plan, restored).ok_or_else(foreign)
}

/// Writes a saga that begins; `None` if it has begun before.
pub(super) async fn insert(
    tx: &mut Tx,
    plan: &Plan,
    saga_id: Uuid,
    key: &str,
    data: String,
    first: &Move,
    at: Timestamp,
) -> Result<Option<Loaded>> {
    let state = &first.state;
    let inserted = tx
        .query_opt(
            "INSERT INTO ackwell_sagas (saga_id, name, saga_key, version, status, step, attempt, steps, \
             due_at, started_at, changed_at, data) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $10, $11) \
             ON CONFLICT (saga_id) DO NOTHING RETURNING seq",
            params![
                saga_id,
                plan.name(),
                key,
                version(state),
                state.status().name(),
                step(state),
                state.phase().attempt(),
                steps(state),
                state.deadline().map(from_core),
                at,
                data
            ],
        )
        .await?;
    let Some(inserted) = inserted else {
        return Ok(None);
    };
    let loaded = Loaded {
        seq: inserted.get("seq")?,
        saga_id,
        key: key.to_owned(),
        state: state.clone(),
        reason: None,
        data,
    };
    note(tx, plan, loaded.seq, first, None, at).await?;
    Ok(Some(loaded))
}

/// Writes a move onto the state that it was decided for, or fails.
pub(super) async fn update(
    tx: &mut Tx,
    plan: &Plan,
    before: &Loaded,
    next: &Move,
    reason: Option<&str>,
    at: Timestamp,
) -> Result<()> {
    let state = &next.state;
    let over = state.status().is_final().then_some(at);
    let updated = tx
        .execute(
            "UPDATE ackwell_sagas SET version = $2, status = $3, step = $4, attempt = $5, steps = $6, \
             due_at = $7, changed_at = $8, completed_at = $9, reason = $10 \
             WHERE seq = $1 AND version = $11",
            params![
                before.seq,
                version(state),
                state.status().name(),
                step(state),
                state.phase().attempt(),
                steps(state),
                state.deadline().map(from_core),
                at,
                over,
                reason,
                version(&before.state)
            ],
        )
        .await?;
    if updated != 1 {
        let text = format!("moving saga {}: somebody else has moved it", before.saga_id);
        return Err(Error::new(Kind::Conflict, text));
    }
    let new = next.cause.is_some();
    note(tx, plan, before.seq, next, reason.filter(|_| new), at).await
}

async fn note(
    tx: &mut Tx,
    plan: &Plan,
    seq: i64,
    next: &Move,
    reason: Option<&str>,
    at: Timestamp,
) -> Result<()> {
    tx.execute(
        "INSERT INTO ackwell_saga_history (saga_seq, version, at, happening, status, steps, reason) \
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
        params![
            seq,
            version(&next.state),
            at,
            next.happening.told(plan),
            next.state.status().name(),
            steps(&next.state),
            reason
        ],
    )
    .await?;
    Ok(())
}

fn version(state: &State) -> i64 {
    i64::try_from(state.version()).unwrap_or(i64::MAX)
}

fn step(state: &State) -> Option<i64> {
    let step = state.phase().step().map(StepNo::get)?;
    i64::try_from(step).ok()
}

fn steps(state: &State) -> String {
    let names: Vec<_> = state.steps().iter().map(|step| step.name()).collect();
    names.join(",")
}

/// To the millisecond, rounded down, as the deadline was.
pub(super) fn to_core(at: Timestamp) -> core::Timestamp {
    core::Timestamp::from_millis(at.as_millisecond())
}

pub(super) fn from_core(at: core::Timestamp) -> Timestamp {
    Timestamp::from_millisecond(at.as_millis()).unwrap_or(Timestamp::MAX)
}
