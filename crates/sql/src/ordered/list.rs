//! What an operator sees of parked records.

use jiff::Timestamp;

use super::rows;
use crate::database::Database;
use crate::error::Result;
use crate::params;
use crate::row::Row;

/// A key that waits, with its head: the record that is retried next.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ParkedKey {
    /// The consumer group.
    pub group: String,
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The key; `None` is a record without one.
    pub key: Option<Vec<u8>>,
    /// How many records wait, the head included.
    pub records: u64,
    /// Since when.
    pub since: Timestamp,
    /// The head's offset.
    pub offset: i64,
    /// How often it was tried.
    pub attempts: u32,
    /// When it is tried next.
    pub due: Timestamp,
    /// Whether it is given up and waits for its dead letter to be written.
    pub given_up: bool,
    /// The class of its last failure; `None` if it has not been tried.
    pub class: Option<String>,
    /// What went wrong then.
    pub reason: Option<String>,
}

impl Database {
    /// Keys that wait for a failed record to be retried, those first that have waited longest: at
    /// most `limit` of them, of all groups that use this database. See
    /// [`ordered`](mod@crate::ordered).
    ///
    /// # Errors
    /// Those of [`query`](Self::query).
    pub async fn parked(&self, limit: u32) -> Result<Vec<ParkedKey>> {
        let rows = self
            .query(
                "SELECT p.consumer_group, p.topic, p.partition, line.slot, line.records, line.since, \
                 head.record_offset, head.attempts, head.due_at, head.given_up, head.class, head.reason \
                 FROM (SELECT partition_id, slot, min(record_offset) AS first, count(*) AS records, \
                  min(parked_at) AS since FROM ackwell_parked GROUP BY partition_id, slot \
                  ORDER BY since LIMIT $1) AS line \
                 JOIN ackwell_parked AS head ON head.partition_id = line.partition_id \
                  AND head.slot = line.slot AND head.record_offset = line.first \
                 JOIN ackwell_ordered_partitions AS p ON p.id = line.partition_id \
                 ORDER BY line.since, p.id, line.slot",
                params![limit],
            )
            .await?;
        rows.iter().map(parked_key).collect()
    }
}

fn parked_key(row: &Row) -> Result<ParkedKey> {
    Ok(ParkedKey {
        group: row.get("consumer_group")?,
        topic: row.get("topic")?,
        partition: row.get("partition")?,
        key: rows::key_of(row.get("slot")?)?,
        records: u64::try_from(row.get::<i64>("records")?).unwrap_or(0),
        since: row.get("since")?,
        offset: row.get("record_offset")?,
        attempts: row.get("attempts")?,
        due: row.get("due_at")?,
        given_up: row.get("given_up")?,
        class: row.get("class")?,
        reason: row.get("reason")?,
    })
}
