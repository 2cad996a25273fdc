//! The framework's own tables, `ackwell_*`, and the statements on them.

use crate::backend::Statements;
use crate::migration::Migration;

/// SQLite's dialect.
///
/// The inbox has one tree and no further index, because its insert is paid for each
/// record; UUIDv7 ids arrive in order, so it grows at its end. Pruning walks it slowly
/// instead. The outbox's ids only ever grow (AUTOINCREMENT), also when the table was
/// emptied: the relay's position stays valid. A parked record's slot holds its key (a byte of 1
/// and its bytes) or, without one, its offset (a byte of 0 and eight more); what is large stands
/// at the end of the row, so that looking through keys does not read it.
pub(crate) static SQLITE: Statements = Statements {
    schema: &[
        Migration::new(
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
        ),
        Migration::new(
            "ordered retry",
            "CREATE TABLE ackwell_ordered_partitions (
            id INTEGER PRIMARY KEY,
            consumer_group TEXT NOT NULL,
            topic TEXT NOT NULL,
            partition INTEGER NOT NULL,
            epoch INTEGER NOT NULL,
            parked_to INTEGER NOT NULL,
            UNIQUE (consumer_group, topic, partition)
        ) STRICT;
        CREATE TABLE ackwell_parked (
            id INTEGER PRIMARY KEY,
            partition_id INTEGER NOT NULL REFERENCES ackwell_ordered_partitions (id),
            slot BLOB NOT NULL,
            record_offset INTEGER NOT NULL,
            attempts INTEGER NOT NULL,
            in_place INTEGER NOT NULL,
            failed_at INTEGER,
            parked_at INTEGER NOT NULL,
            due_at INTEGER NOT NULL,
            given_up INTEGER NOT NULL,
            class TEXT,
            reason TEXT,
            record_timestamp INTEGER,
            headers BLOB NOT NULL,
            value BLOB,
            UNIQUE (partition_id, slot, record_offset)
        ) STRICT;",
        ),
        Migration::new(
            "snapshots",
            "CREATE TABLE ackwell_snapshots (
            consumer_group TEXT NOT NULL,
            topic TEXT NOT NULL,
            partition INTEGER NOT NULL,
            slot INTEGER NOT NULL,
            written_at INTEGER NOT NULL,
            snapshot BLOB NOT NULL,
            PRIMARY KEY (consumer_group, topic, partition, slot)
        ) STRICT;",
        ),
        Migration::new(
            "first failures of parked records",
            "ALTER TABLE ackwell_parked ADD COLUMN first_failed_at INTEGER;
        ALTER TABLE ackwell_parked ADD COLUMN first_class TEXT;
        ALTER TABLE ackwell_parked ADD COLUMN first_reason TEXT;",
        ),
    ],
};
