//! The framework's own tables, `ackwell_*`, and the statements on them.

use crate::backend::Statements;
use crate::migration::Migration;

/// SQLite's dialect.
///
/// The inbox has one tree and no further index, because its insert is paid for each
/// record; UUIDv7 ids arrive in order, so it grows at its end. Pruning walks it slowly
/// instead. The outbox's ids only ever grow (AUTOINCREMENT), also when the table was
/// emptied: the relay's position stays valid.
pub(crate) static SQLITE: Statements = Statements {
    schema: &[Migration::new(
        "inbox, outbox",
        "CREATE TABLE ackwell_inbox (
            consumer_group TEXT NOT NULL,
            event BLOB NOT NULL,
            handled_at INTEGER NOT NULL,
            PRIMARY KEY (consumer_group, event)
        ) STRICT, WITHOUT ROWID;
        CREATE TABLE ackwell_outbox (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            topic TEXT NOT NULL,
            key BLOB,
            value BLOB,
            headers BLOB NOT NULL,
            created_at INTEGER NOT NULL
        ) STRICT;",
    )],
};
