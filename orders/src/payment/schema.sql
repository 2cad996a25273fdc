-- One row an order. A refund that came before its charge has a row too, so that the charge finds it.
CREATE TABLE payments (
    seq INTEGER PRIMARY KEY,
    order_id BLOB NOT NULL UNIQUE,
    state TEXT NOT NULL CHECK (state IN ('CHARGED', 'FAILED', 'REFUNDED')),
    customer_id TEXT,
    amount_cents INTEGER CHECK (amount_cents >= 0),
    -- The gateway's, where it has taken the amount.
    charge_id BLOB,
    reason TEXT,
    -- The events that charged and refunded it.
    charged_by BLOB,
    refunded_by BLOB,
    at INTEGER NOT NULL
) STRICT;
