//! Forgetting finished sagas, a few at a time.
//!
//! There is no index by end, which every saga would pay for. Those of a status are walked in the order in which
//! they started, up to the first that started too late to be old enough: what is kept is not read again and again.

use std::time::Duration;

use ackwell::core::saga::Status;
use jiff::{SignedDuration, Timestamp};

use super::observe::Counted;
use crate::database::Database;
use crate::error::{Chain, Result};
use crate::params;
use crate::tx::Tx;

/// Sagas looked at in one step and deleted in one transaction, and the pause between steps: they hold up nobody for
/// longer than some milliseconds, and keep up with more sagas than a database can run.
const STEP_SAGAS: i64 = 200;
const STEP_PAUSE: Duration = Duration::from_millis(50);

/// The pause between two walks.
const REST: Duration = Duration::from_secs(600);

/// A finished saga.
struct Finished {
    seq: i64,
    started_at: Timestamp,
    completed_at: Option<Timestamp>,
}

/// Walks the finished sagas called `name` for ever, and deletes those that have been finished for `retention`.
pub(super) async fn prune(database: &Database, name: &str, retention: Duration, counted: &Counted) {
    loop {
        for status in [Status::Completed, Status::Compensated] {
            if let Err(error) = walk(database, name, status, retention, counted).await {
                tracing::warn!(error = %Chain(&error), "pruning finished sagas failed; tried again later");
            }
        }
        tokio::time::sleep(REST.min(retention).max(STEP_PAUSE)).await;
    }
}

async fn walk(
    database: &Database,
    name: &str,
    status: Status,
    retention: Duration,
    counted: &Counted,
) -> Result<()> {
    let retention = SignedDuration::try_from(retention).unwrap_or(SignedDuration::MAX);
    let Ok(cutoff) = Timestamp::now().checked_sub(retention) else {
        return Ok(());
    };
    let mut place = 0;
    loop {
        let page = page(database, name, status, place).await?;
        let Some(last) = page.last() else {
            return Ok(());
        };
        place = last.seq;
        let later = page.iter().any(|saga| saga.started_at >= cutoff);
        let old = |saga: &&Finished| saga.completed_at.is_some_and(|at| at < cutoff);
        counted.pruned(delete(database, page.iter().filter(old), cutoff).await?);
        if later {
            return Ok(());
        }
        tokio::time::sleep(STEP_PAUSE).await;
    }
}

async fn page(
    database: &Database,
    name: &str,
    status: Status,
    place: i64,
) -> Result<Vec<Finished>> {
    let rows = database
        .query(
            "SELECT seq, started_at, completed_at FROM ackwell_sagas \
             WHERE name = $1 AND status = $2 AND seq > $3 ORDER BY seq LIMIT $4",
            params![name, status.name(), place, STEP_SAGAS],
        )
        .await?;
    let finished = |row: &crate::Row| {
        Ok(Finished {
            seq: row.get("seq")?,
            started_at: row.get("started_at")?,
            completed_at: row.get("completed_at")?,
        })
    };
    rows.iter().map(finished).collect()
}

/// Deletes them with their history, those that are still over; answers how many.
async fn delete(
    database: &Database,
    old: impl Iterator<Item = &Finished>,
    cutoff: Timestamp,
) -> Result<u64> {
    let mut deleted = 0;
    let mut tx = database.begin();
    for saga in old {
        if lock(&mut tx, saga.seq, cutoff).await? {
            let history = "DELETE FROM ackwell_saga_history WHERE saga_seq = $1";
            tx.execute(history, params![saga.seq]).await?;
            let row = "DELETE FROM ackwell_sagas WHERE seq = $1";
            tx.execute(row, params![saga.seq]).await?;
            deleted += 1;
        }
    }
    if deleted > 0 {
        tx.commit().await?;
    }
    Ok(deleted)
}

/// A success that came late may have taken it up again meanwhile, and another instance may have deleted it.
async fn lock(tx: &mut Tx, seq: i64, cutoff: Timestamp) -> Result<bool> {
    let touch =
        "UPDATE ackwell_sagas SET completed_at = completed_at WHERE seq = $1 AND completed_at < $2";
    Ok(tx.execute(touch, params![seq, cutoff]).await? == 1)
}
