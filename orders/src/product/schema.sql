-- `stock` is what can still be reserved, `reserved` what orders hold, `stocked`
-- what was ever put in. The books: stocked = stock + reserved.
CREATE TABLE products (
    product_id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    stock INTEGER NOT NULL CHECK (stock >= 0),
    reserved INTEGER NOT NULL CHECK (reserved >= 0),
    stocked INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- One row an order, decided once. A withdrawn order that asked for nothing yet has
-- a row too, so that its request finds it when it comes late.
CREATE TABLE reservations (
    seq INTEGER PRIMARY KEY,
    order_id BLOB NOT NULL UNIQUE,
    state TEXT NOT NULL CHECK (state IN ('RESERVED', 'REFUSED', 'RELEASED')),
    status_code INTEGER NOT NULL,
    reason TEXT,
    -- The events that decided and released it.
    decided_by BLOB,
    released_by BLOB
) STRICT;

CREATE TABLE reservation_items (
    reservation_seq INTEGER NOT NULL REFERENCES reservations (seq),
    product_id TEXT NOT NULL REFERENCES products (product_id),
    quantity INTEGER NOT NULL CHECK (quantity > 0),
    PRIMARY KEY (reservation_seq, product_id)
) STRICT, WITHOUT ROWID;
