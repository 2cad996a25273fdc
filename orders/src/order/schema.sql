-- One row an order, in the order of acceptance. The id is derived from the
-- idempotency key, so its uniqueness is the uniqueness of the order.
CREATE TABLE orders (
    seq INTEGER PRIMARY KEY,
    order_id BLOB NOT NULL UNIQUE,
    idempotency_key TEXT NOT NULL,
    customer_id TEXT NOT NULL,
    -- The lines as JSON: they never change and are only ever read whole.
    items TEXT NOT NULL,
    total_cents INTEGER NOT NULL CHECK (total_cents >= 0),
    status TEXT NOT NULL CHECK (status IN ('PENDING', 'CONFIRMED', 'CANCELLED', 'MANUAL_REVIEW'))
) STRICT;

CREATE INDEX orders_by_status ON orders (status, seq);

-- Every state that an order reached. `cause` is the event that moved it.
CREATE TABLE order_history (
    order_seq INTEGER NOT NULL REFERENCES orders (seq),
    position INTEGER NOT NULL,
    status TEXT NOT NULL,
    reason TEXT,
    at INTEGER NOT NULL,
    cause BLOB,
    PRIMARY KEY (order_seq, position)
) STRICT, WITHOUT ROWID;
