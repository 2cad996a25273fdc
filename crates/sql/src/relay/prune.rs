//! Forgetting handled records, a few at a time.
//!
//! The inbox has no index by age, which would be paid for by every record. Instead it is
//! walked in the order of its keys, slowly enough to disturb nobody.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::database::Database;
use crate::error::{Chain, Result};
use crate::params;

/// Rows looked at in one step, and the pause between steps: ten million rows take 17 minutes.
const STEP_ROWS: i64 = 1_000;
const STEP_PAUSE: Duration = Duration::from_millis(100);

/// The pause between two walks.
const REST: Duration = Duration::from_secs(600);

/// Where a walk stands.
#[derive(Default)]
struct Place {
    group: String,
    event: Vec<u8>,
}

/// Walks the inbox for ever and deletes rows older than `retention`.
pub(super) async fn prune(database: &Database, retention: Duration) {
    let mut place = Place::default();
    loop {
        let pause = match step(database, &place, retention).await {
            Ok(Some(next)) => {
                place = next;
                STEP_PAUSE
            }
            Ok(None) => {
                place = Place::default();
                REST.min(retention)
            }
            Err(error) => {
                tracing::warn!(error = %Chain(&error), "pruning the inbox failed; tried again later");
                REST.min(retention)
            }
        };
        tokio::time::sleep(pause.max(STEP_PAUSE)).await;
    }
}

/// Deletes the old ones among the next rows; `None` at the end of the inbox.
async fn step(database: &Database, place: &Place, retention: Duration) -> Result<Option<Place>> {
    let rows = database
        .query(
            "SELECT consumer_group, event, handled_at FROM ackwell_inbox \
             WHERE (consumer_group, event) > ($1, $2) ORDER BY consumer_group, event LIMIT $3",
            params![place.group, place.event, STEP_ROWS],
        )
        .await?;
    let Some(last) = rows.last() else {
        return Ok(None);
    };
    let next = Place {
        group: last.get("consumer_group")?,
        event: last.get("event")?,
    };
    let retention = SignedDuration::try_from(retention).unwrap_or(SignedDuration::MAX);
    let Ok(cutoff) = Timestamp::now().checked_sub(retention) else {
        return Ok(Some(next));
    };
    let mut tx = database.begin();
    for row in &rows {
        if row.get::<Timestamp>("handled_at")? < cutoff {
            let (group, event) = (row.get::<String>(0)?, row.get::<Vec<u8>>(1)?);
            let delete = "DELETE FROM ackwell_inbox WHERE consumer_group = $1 AND event = $2";
            tx.execute(delete, params![group, event]).await?;
        }
    }
    tx.commit().await?;
    Ok(Some(next))
}
