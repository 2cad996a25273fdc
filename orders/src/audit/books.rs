//! The databases, a page at a time.

use ackwell_sql::{Database, Row, params};
use serde::Serialize;
use uuid::Uuid;

use super::ending::PerKind;
use super::facts::{Fingerprint, OrderFact, ReservationFact, ReservationState};
use crate::config::Flow;
use crate::error::Error;
use crate::money::Cents;
use crate::order::{Item, Status, order_id};

/// Rows read at a time.
pub(super) const PAGE: i64 = 1000;

/// An order as `order.db` has it, with what is wrong in itself.
pub(crate) struct AuditedOrder {
    /// Its id.
    pub(crate) order_id: Uuid,
    /// Its place in the order of acceptance.
    pub(crate) seq: i64,
    /// What is compared with the other places.
    pub(crate) fact: OrderFact,
    /// What it costs.
    pub(crate) total: Cents,
    /// How many units it is of.
    pub(crate) units: i64,
    /// What does not fit within its own rows.
    pub(crate) differences: Vec<String>,
}

/// A product's books.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shelf {
    /// Which product.
    pub(crate) product_id: String,
    /// What can still be reserved.
    pub(crate) stock: i64,
    /// What orders hold, as the product's row says.
    pub(crate) reserved: i64,
    /// What was ever put in.
    pub(crate) stocked: i64,
    /// What orders hold, as their reservations say.
    pub(crate) held: i64,
}

/// Sums over all products.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Units {
    /// Put in.
    pub(crate) stocked: i64,
    /// Left.
    pub(crate) stock: i64,
    /// Held by orders.
    pub(crate) reserved: i64,
}

impl Shelf {
    /// What does not add up, a sentence each.
    pub(crate) fn differences(&self) -> Vec<String> {
        let Self {
            product_id,
            stock,
            reserved,
            stocked,
            held,
        } = self;
        let mut said = Vec::new();
        if *stock < 0 || *reserved < 0 {
            said.push(format!(
                "product {product_id} is below zero: stock {stock}, reserved {reserved}"
            ));
        }
        if *stocked != stock + reserved {
            let sum = stock + reserved;
            said.push(format!(
                "product {product_id} had {stocked} at start, and has {sum} now: stock {stock} and reserved {reserved}"
            ));
        }
        if reserved != held {
            said.push(format!(
                "product {product_id} has {reserved} reserved, and its reservations hold {held}"
            ));
        }
        said
    }
}

/// The place of the last order.
pub(crate) async fn last_order(db: &Database) -> Result<i64, Error> {
    let row = db
        .query_opt(
            "SELECT COALESCE(MAX(seq), 0) AS last FROM orders",
            params![],
        )
        .await?;
    Ok(row.map_or(Ok(0), |row| row.get("last"))?)
}

/// How many orders up to `cutoff` are not final.
pub(crate) async fn pending(db: &Database, cutoff: i64) -> Result<i64, Error> {
    let sql = "SELECT COUNT(*) AS open FROM orders WHERE status = 'PENDING' AND seq <= $1";
    let row = db.query_opt(sql, params![cutoff]).await?;
    Ok(row.map_or(Ok(0), |row| row.get("open"))?)
}

/// Every order, in the order of acceptance.
pub(crate) async fn orders(db: &Database, mut each: impl FnMut(AuditedOrder)) -> Result<(), Error> {
    let sql =
        "SELECT o.seq, o.order_id, o.idempotency_key, o.items, o.total_cents, o.flow, o.status AS standing,
                      h.status, h.cause, h.position
               FROM (SELECT * FROM orders WHERE seq > $1 ORDER BY seq LIMIT $2) o
               LEFT JOIN order_history h ON h.order_seq = o.seq ORDER BY o.seq, h.position";
    let mut after = 0;
    loop {
        let rows = db.query(sql, params![after, PAGE]).await?;
        let Some(last) = rows.last() else {
            return Ok(());
        };
        after = last.get("seq")?;
        for rows in rows.chunk_by(|one, next| same(one, next, "seq")) {
            each(audited(rows)?);
        }
    }
}

pub(super) fn same(one: &Row, next: &Row, column: &str) -> bool {
    let value = |row: &Row| row.get::<i64>(column).ok();
    value(one) == value(next)
}

/// One order from its rows, one a history entry.
fn audited(rows: &[Row]) -> Result<AuditedOrder, Error> {
    let row = rows
        .first()
        .ok_or_else(|| Error::damaged("an order without rows"))?;
    let id: Uuid = row.get("order_id")?;
    let items: Vec<Item> =
        serde_json::from_str(&row.get::<String>("items")?).map_err(Error::damaged)?;
    let total = Cents::from_stored(row.get("total_cents")?);
    let standing: String = row.get("standing")?;
    let status = Status::named(&standing)
        .ok_or_else(|| Error::damaged(format_args!("order {id} is {standing:?}")))?;
    let flow: String = row.get("flow")?;
    let flow = Flow::named(&flow)
        .ok_or_else(|| Error::damaged(format_args!("order {id} goes by {flow:?}")))?;
    let mut history = Vec::with_capacity(rows.len());
    let mut cause = None;
    for row in rows {
        if let Some(name) = row.get::<Option<String>>("status")? {
            history.push(
                Status::named(&name)
                    .ok_or_else(|| Error::damaged(format_args!("order {id} was {name:?}")))?,
            );
            cause = row.get("cause")?;
        }
    }
    let mut differences = Vec::new();
    if !Status::is_legal_history(&history) || history.last() != Some(&status) {
        differences.push(format!("is {status}, and its history is {history:?}"));
    }
    if id != order_id(&row.get::<String>("idempotency_key")?) {
        differences.push("does not have the id of its idempotency key".to_owned());
    }
    if Cents::total(items.iter().map(|item| (item.quantity, item.unit_price))) != Some(total) {
        differences.push(format!(
            "has the total {total}, and its items add up to another"
        ));
    }
    let items_fact = Fingerprint::of(
        items
            .iter()
            .map(|item| (item.product_id.as_str(), item.quantity)),
    );
    Ok(AuditedOrder {
        order_id: id,
        seq: row.get("seq")?,
        fact: OrderFact {
            status,
            flow,
            total,
            ends: PerKind::ends(&history),
            cause,
            items: items_fact,
        },
        total,
        units: items.iter().map(|item| i64::from(item.quantity)).sum(),
        differences,
    })
}

/// Every reservation.
pub(crate) async fn reservations(
    db: &Database,
    mut each: impl FnMut(Uuid, ReservationFact),
) -> Result<(), Error> {
    let sql =
        "SELECT r.seq, r.order_id, r.state, r.decided_by, r.released_by, i.product_id, i.quantity
               FROM (SELECT * FROM reservations WHERE seq > $1 ORDER BY seq LIMIT $2) r
               LEFT JOIN reservation_items i ON i.reservation_seq = r.seq ORDER BY r.seq";
    let mut after = 0;
    loop {
        let rows = db.query(sql, params![after, PAGE]).await?;
        let Some(last) = rows.last() else {
            return Ok(());
        };
        after = last.get("seq")?;
        for rows in rows.chunk_by(|one, next| same(one, next, "seq")) {
            let (order_id, fact) = reservation(rows)?;
            each(order_id, fact);
        }
    }
}

fn reservation(rows: &[Row]) -> Result<(Uuid, ReservationFact), Error> {
    let row = rows
        .first()
        .ok_or_else(|| Error::damaged("a reservation without rows"))?;
    let state = match row.get::<String>("state")?.as_str() {
        "RESERVED" => ReservationState::Reserved,
        "REFUSED" => ReservationState::Refused,
        "RELEASED" => ReservationState::Released,
        other => return Err(Error::damaged(format_args!("a reservation is {other:?}"))),
    };
    let mut items = Vec::with_capacity(rows.len());
    for row in rows {
        if let Some(product) = row.get::<Option<String>>("product_id")? {
            items.push((product, row.get("quantity")?));
        }
    }
    let fact = ReservationFact {
        state,
        decided_by: row.get("decided_by")?,
        released_by: row.get("released_by")?,
        items: Fingerprint::of(
            items
                .iter()
                .map(|(product, quantity)| (product.as_str(), *quantity)),
        ),
    };
    Ok((row.get("order_id")?, fact))
}

/// Every product's books, all of one moment.
pub(crate) async fn shelves(db: &Database) -> Result<Vec<Shelf>, Error> {
    let sql = "SELECT p.product_id, p.stock, p.reserved, p.stocked, COALESCE(SUM(i.quantity), 0) AS held
               FROM products p
               LEFT JOIN (SELECT i.product_id, i.quantity FROM reservation_items i
                          JOIN reservations r ON r.seq = i.reservation_seq AND r.state = 'RESERVED') i
                 ON i.product_id = p.product_id
               GROUP BY p.product_id, p.stock, p.reserved, p.stocked ORDER BY p.product_id";
    let rows = db.query(sql, params![]).await?;
    let shelf = |row: &Row| {
        Ok(Shelf {
            product_id: row.get("product_id")?,
            stock: row.get("stock")?,
            reserved: row.get("reserved")?,
            stocked: row.get("stocked")?,
            held: row.get("held")?,
        })
    };
    rows.iter().map(shelf).collect()
}

/// Event ids that took effect on more than one order.
pub(crate) async fn applied_twice(
    orders: &Database,
    products: &Database,
) -> Result<Vec<String>, Error> {
    let by_answer = "SELECT cause AS event FROM order_history WHERE cause IS NOT NULL GROUP BY cause HAVING COUNT(*) > 1";
    let by_request = "SELECT decided_by AS event FROM reservations WHERE decided_by IS NOT NULL GROUP BY decided_by HAVING COUNT(*) > 1";
    let mut said = Vec::new();
    for (db, sql, name) in [
        (orders, by_answer, "order.db"),
        (products, by_request, "product.db"),
    ] {
        for row in db.query(sql, params![]).await? {
            said.push(format!(
                "event {} took effect twice in {name}",
                row.get::<Uuid>("event")?
            ));
        }
    }
    Ok(said)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shelf(stock: i64, reserved: i64, stocked: i64, held: i64) -> Shelf {
        Shelf {
            product_id: "cd-01".to_owned(),
            stock,
            reserved,
            stocked,
            held,
        }
    }

    #[test]
    fn books_that_add_up_say_nothing() {
        assert!(shelf(7, 3, 10, 3).differences().is_empty());
        assert!(shelf(0, 0, 0, 0).differences().is_empty());
    }

    #[test]
    fn every_way_not_to_add_up_has_a_sentence() {
        assert_eq!(
            shelf(8, 3, 10, 3).differences(),
            ["product cd-01 had 10 at start, and has 11 now: stock 8 and reserved 3"]
        );
        assert_eq!(
            shelf(7, 3, 10, 4).differences(),
            ["product cd-01 has 3 reserved, and its reservations hold 4"]
        );
        assert_eq!(
            shelf(-1, 11, 10, 11).differences(),
            ["product cd-01 is below zero: stock -1, reserved 11"]
        );
    }
}
