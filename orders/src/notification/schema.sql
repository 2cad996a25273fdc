-- Whom we told what: once an order and kind.
CREATE TABLE notifications (
    order_id BLOB NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('CONFIRMED', 'CANCELLED', 'IN_REVIEW')),
    customer_id TEXT NOT NULL,
    at INTEGER NOT NULL,
    PRIMARY KEY (order_id, kind)
) STRICT, WITHOUT ROWID;

-- What is to be sent: once an order.
CREATE TABLE shipments (
    order_id BLOB PRIMARY KEY,
    customer_id TEXT NOT NULL,
    -- Products and quantities as JSON.
    items TEXT NOT NULL,
    at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
