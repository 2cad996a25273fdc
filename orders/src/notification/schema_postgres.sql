-- The same tables in PostgreSQL's words; what they mean is said in schema.sql.
CREATE TABLE notifications (
    order_id UUID NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('CONFIRMED', 'CANCELLED', 'IN_REVIEW')),
    customer_id TEXT NOT NULL,
    at TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (order_id, kind)
);

CREATE TABLE shipments (
    order_id UUID PRIMARY KEY,
    customer_id TEXT NOT NULL,
    items TEXT NOT NULL,
    at TIMESTAMPTZ NOT NULL
);
