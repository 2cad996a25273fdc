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
    lock_schema: None,
    history: "CREATE TABLE IF NOT EXISTS ackwell_migrations (
        scope TEXT NOT NULL,
        place INTEGER NOT NULL,
        name TEXT NOT NULL,
        checksum BLOB NOT NULL,
        applied_at INTEGER NOT NULL,
        PRIMARY KEY (scope, place)
    ) STRICT, WITHOUT ROWID",
    await_owners: None,
    epoch: "SELECT epoch FROM ackwell_ordered_partitions WHERE id = $1",
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
        Migration::new(
            "sagas",
            "CREATE TABLE ackwell_sagas (
            seq INTEGER PRIMARY KEY,
            saga_id BLOB NOT NULL UNIQUE,
            name TEXT NOT NULL,
            saga_key TEXT NOT NULL,
            version INTEGER NOT NULL,
            status TEXT NOT NULL,
            step INTEGER,
            attempt INTEGER NOT NULL,
            steps TEXT NOT NULL,
            due_at INTEGER,
            started_at INTEGER NOT NULL,
            changed_at INTEGER NOT NULL,
            completed_at INTEGER,
            reason TEXT,
            data TEXT NOT NULL
        ) STRICT;
        CREATE INDEX ackwell_sagas_by_status ON ackwell_sagas (name, status, seq);
        CREATE INDEX ackwell_sagas_by_deadline ON ackwell_sagas (name, due_at, seq) WHERE due_at IS NOT NULL;
        CREATE TABLE ackwell_saga_history (
            saga_seq INTEGER NOT NULL REFERENCES ackwell_sagas (seq),
            version INTEGER NOT NULL,
            at INTEGER NOT NULL,
            happening TEXT NOT NULL,
            status TEXT NOT NULL,
            steps TEXT NOT NULL,
            reason TEXT,
            PRIMARY KEY (saga_seq, version)
        ) STRICT, WITHOUT ROWID;",
        ),
    ],
};

/// PostgreSQL's dialect.
///
/// Here several transactions write at a time, and commit in another order than they began. An
/// outbox row therefore says which transaction wrote it (`written_by`, which is filled in by
/// itself): ids are given before the commit, so a row may appear behind one with a higher id, as long
/// as a transaction runs that is as old as `pg_snapshot_xmin(pg_current_snapshot())`.
///
/// The owner of an ordered partition holds its row by `FOR KEY SHARE`, which lanes share with each
/// other and with the update of `parked_to`; a new owner takes it `FOR UPDATE`, which waits for them.
pub(crate) static POSTGRES: Statements = Statements {
    lock_schema: Some(
        "SELECT pg_advisory_xact_lock(hashtext('ackwell schema'), hashtext(current_schema()))",
    ),
    history: "CREATE TABLE IF NOT EXISTS ackwell_migrations (
        scope TEXT NOT NULL,
        place INTEGER NOT NULL,
        name TEXT NOT NULL,
        checksum UUID NOT NULL,
        applied_at TIMESTAMPTZ NOT NULL,
        PRIMARY KEY (scope, place)
    )",
    await_owners: Some(
        "SELECT 1 FROM ackwell_ordered_partitions \
         WHERE consumer_group = $1 AND topic = $2 AND partition = $3 FOR UPDATE",
    ),
    epoch: "SELECT epoch FROM ackwell_ordered_partitions WHERE id = $1 FOR KEY SHARE",
    schema: &[
        Migration::new(
            "inbox, outbox",
            "CREATE TABLE ackwell_inbox (
            consumer_group TEXT COLLATE \"C\" NOT NULL,
            event BYTEA NOT NULL,
            handled_at TIMESTAMPTZ NOT NULL,
            PRIMARY KEY (consumer_group, event)
        );
        CREATE TABLE ackwell_outbox (
            id BIGINT GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
            written_by xid8 NOT NULL DEFAULT pg_current_xact_id(),
            topic TEXT NOT NULL,
            key BYTEA,
            value BYTEA,
            headers BYTEA NOT NULL,
            created_at TIMESTAMPTZ NOT NULL
        );",
        ),
        Migration::new(
            "ordered retry",
            "CREATE TABLE ackwell_ordered_partitions (
            id BIGINT GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
            consumer_group TEXT NOT NULL,
            topic TEXT NOT NULL,
            partition INTEGER NOT NULL,
            epoch BIGINT NOT NULL,
            parked_to BIGINT NOT NULL,
            UNIQUE (consumer_group, topic, partition)
        );
        CREATE TABLE ackwell_parked (
            id BIGINT GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
            partition_id BIGINT NOT NULL REFERENCES ackwell_ordered_partitions (id),
            slot BYTEA NOT NULL,
            record_offset BIGINT NOT NULL,
            attempts BIGINT NOT NULL,
            in_place BIGINT NOT NULL,
            failed_at TIMESTAMPTZ,
            parked_at TIMESTAMPTZ NOT NULL,
            due_at TIMESTAMPTZ NOT NULL,
            given_up BOOLEAN NOT NULL,
            class TEXT,
            reason TEXT,
            record_timestamp BIGINT,
            headers BYTEA NOT NULL,
            value BYTEA,
            first_failed_at TIMESTAMPTZ,
            first_class TEXT,
            first_reason TEXT,
            UNIQUE (partition_id, slot, record_offset)
        );",
        ),
        Migration::new(
            "snapshots",
            "CREATE TABLE ackwell_snapshots (
            consumer_group TEXT NOT NULL,
            topic TEXT NOT NULL,
            partition INTEGER NOT NULL,
            slot INTEGER NOT NULL,
            written_at TIMESTAMPTZ NOT NULL,
            snapshot BYTEA NOT NULL,
            PRIMARY KEY (consumer_group, topic, partition, slot)
        );",
        ),
        Migration::new(
            "sagas",
            "CREATE TABLE ackwell_sagas (
            seq BIGINT GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
            saga_id UUID NOT NULL UNIQUE,
            name TEXT NOT NULL,
            saga_key TEXT NOT NULL,
            version BIGINT NOT NULL,
            status TEXT NOT NULL,
            step BIGINT,
            attempt BIGINT NOT NULL,
            steps TEXT NOT NULL,
            due_at TIMESTAMPTZ,
            started_at TIMESTAMPTZ NOT NULL,
            changed_at TIMESTAMPTZ NOT NULL,
            completed_at TIMESTAMPTZ,
            reason TEXT,
            data TEXT NOT NULL
        );
        CREATE INDEX ackwell_sagas_by_status ON ackwell_sagas (name, status, seq);
        CREATE INDEX ackwell_sagas_by_deadline ON ackwell_sagas (name, due_at, seq) WHERE due_at IS NOT NULL;
        CREATE TABLE ackwell_saga_history (
            saga_seq BIGINT NOT NULL REFERENCES ackwell_sagas (seq),
            version BIGINT NOT NULL,
            at TIMESTAMPTZ NOT NULL,
            happening TEXT NOT NULL,
            status TEXT NOT NULL,
            steps TEXT NOT NULL,
            reason TEXT,
            PRIMARY KEY (saga_seq, version)
        );",
        ),
    ],
};
