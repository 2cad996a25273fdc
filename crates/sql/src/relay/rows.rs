//! Reading the outbox in bounded pieces.

use std::borrow::Cow;

use ackwell::Headers;
use ackwell::producer::OutgoingRecord;

use crate::database::Database;
use crate::error::{Error, Kind, Result};
use crate::outbox;
use crate::params;
use crate::row::Row;

/// Rows and bytes of one piece: enough for full batches on the wire, little enough to hold.
const ROWS: i64 = 500;
const BYTES: i64 = 8 * 1024 * 1024;

/// An event that waits.
pub(super) struct Waiting {
    pub(super) id: i64,
    pub(super) bytes: usize,
    pub(super) record: OutgoingRecord,
}

/// The next events after `after`, in the order of their commits, and whether there may be more.
pub(super) async fn read(database: &Database, after: i64) -> Result<(Vec<Waiting>, bool)> {
    let sizes = database
        .query(
            "SELECT id, coalesce(length(value), 0) + coalesce(length(key), 0) + length(headers) AS bytes \
             FROM ackwell_outbox WHERE id > $1 ORDER BY id LIMIT $2",
            params![after, ROWS],
        )
        .await?;
    let Some((last, complete)) = last_that_fits(&sizes)? else {
        return Ok((Vec::new(), false));
    };
    let rows = database
        .query(
            "SELECT id, topic, key, value, headers, created_at FROM ackwell_outbox \
             WHERE id > $1 AND id <= $2 ORDER BY id",
            params![after, last],
        )
        .await?;
    let waiting = rows.iter().map(waiting).collect::<Result<_>>()?;
    Ok((waiting, !complete || sizes.len() as i64 == ROWS))
}

/// The last row within the limit of bytes, at least the first; and whether it is the last of all.
fn last_that_fits(sizes: &[Row]) -> Result<Option<(i64, bool)>> {
    let mut last = None;
    let mut bytes = 0;
    for (place, row) in sizes.iter().enumerate() {
        bytes += row.get::<i64>("bytes")?;
        if bytes > BYTES && last.is_some() {
            break;
        }
        last = Some((row.get("id")?, place + 1 == sizes.len()));
    }
    Ok(last)
}

fn waiting(row: &Row) -> Result<Waiting> {
    let id: i64 = row.get("id")?;
    let topic: String = row.get("topic")?;
    let packed: Vec<u8> = row.get("headers")?;
    let mut headers = Headers::new();
    let unpacked = outbox::decode_headers(&packed).ok_or_else(|| {
        Error::new(
            Kind::Damaged,
            format!("reading outbox row {id}: its headers are damaged"),
        )
    })?;
    for (name, value) in unpacked {
        match value {
            Some(value) => headers.push(name, value.to_vec()),
            None => headers.push_null(name),
        }
    }
    let mut record = OutgoingRecord::to(Cow::<'static, str>::Owned(topic)).headers(headers);
    let mut bytes = packed.len();
    if let Some(key) = row.get::<Option<Vec<u8>>>("key")? {
        bytes += key.len();
        record = record.key(key);
    }
    if let Some(value) = row.get::<Option<Vec<u8>>>("value")? {
        bytes += value.len();
        record = record.value(value);
    }
    Ok(Waiting { id, bytes, record })
}
