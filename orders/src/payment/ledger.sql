-- The books of the simulated gateway: not ours, and never in our transactions.
CREATE TABLE charges (
    seq INTEGER PRIMARY KEY,
    idempotency_key BLOB NOT NULL UNIQUE,
    -- What the merchant calls it: the order.
    reference BLOB NOT NULL,
    charge_id BLOB NOT NULL UNIQUE,
    amount_cents INTEGER NOT NULL CHECK (amount_cents >= 0),
    -- NULL as long as the merchant was not answered.
    outcome TEXT CHECK (outcome IN ('APPROVED', 'DECLINED')),
    reason TEXT,
    asked INTEGER NOT NULL,
    at INTEGER NOT NULL
) STRICT;

CREATE TABLE refunds (
    charge_id BLOB PRIMARY KEY REFERENCES charges (charge_id),
    amount_cents INTEGER NOT NULL CHECK (amount_cents >= 0),
    at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
