//! What the order service keeps: orders and their history.
//!
//! An order, its first history entry and the event that asks for its stock are one
//! transaction; so are a change of state and its history entry. Neither half can be
//! found without the other.

use ackwell_sql::saga::Started;
use ackwell_sql::{Database, Migration, Row, Tx, params};
use jiff::Timestamp;
use uuid::Uuid;

use super::request::NewOrder;
use super::saga::OrderSagas;
use super::{Change, Input, Item, Order, Status, order_id};
use crate::config::Flow;
use crate::error::Error;
use crate::events::choreography::{Release, Reserve, StockRequest};
use crate::events::orders::{
    OrderCancelled, OrderConfirmed, OrderEvent, OrderPlaced, OrderSentToReview,
};
use crate::events::payment::PaymentMethod;
use crate::events::{Items, saga_id};
use crate::money::Cents;

/// The schema of the order service.
pub(crate) const MIGRATIONS: &[Migration] = &[
    Migration::new("orders and their history", include_str!("schema.sql"))
        .postgres(include_str!("schema_postgres.sql")),
    Migration::new(
        "how an order is paid",
        "ALTER TABLE orders ADD COLUMN payment_method TEXT NOT NULL DEFAULT 'card'",
    ),
    Migration::new(
        "which way an order goes",
        "ALTER TABLE orders ADD COLUMN flow TEXT NOT NULL DEFAULT 'choreography'",
    ),
];

/// What placing an order did.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Placed {
    /// It was new.
    New(Uuid),
    /// The same order had been placed before.
    Before(Uuid),
    /// The key belongs to another order.
    KeyTaken,
}

/// What an input did to an order.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Advanced {
    /// It moved to this state.
    To(Status),
    /// It came too late: the order stays in this state.
    TooLate(Status),
    /// There is no such order.
    Unknown,
}

/// Places an order, and sends it on its way; placed again, it changes nothing.
pub(crate) async fn place(
    tx: &mut Tx,
    key: &str,
    order: &NewOrder,
    flow: Flow,
    sagas: &OrderSagas,
    at: Timestamp,
) -> Result<Placed, Error> {
    let id = order_id(key);
    let items = serde_json::to_string(&order.items).map_err(Error::damaged)?;
    let inserted = tx
        .query_opt(
            "INSERT INTO orders (order_id, idempotency_key, customer_id, items, total_cents, payment_method, flow, status)
             VALUES ($1, $2, $3, $4, $5, $6, $7, 'PENDING') ON CONFLICT (order_id) DO NOTHING RETURNING seq",
            params![
                id,
                key,
                order.customer_id,
                items,
                order.total.get(),
                order.payment_method.name(),
                flow.name()
            ],
        )
        .await?;
    let Some(inserted) = inserted else {
        return placed_before(tx, id, key, order, &items).await;
    };
    record(tx, inserted.get("seq")?, Status::Pending, None, at, None).await?;
    let items = wanted(&order.items);
    match flow {
        Flow::Choreography => {
            let request = Reserve {
                order_id: id,
                items,
            };
            tx.emit(&StockRequest::StockValidRequested(request)).await?;
        }
        Flow::Saga => {
            let placed = OrderPlaced {
                saga_id: saga_id(id),
                order_id: id,
                customer_id: order.customer_id.clone(),
                items,
                amount: order.total,
                payment_method: order.payment_method,
            };
            let begun = sagas.start(tx, &id.to_string(), &placed).await?;
            debug_assert_eq!(begun, Started::New(placed.saga_id));
            tx.emit(&OrderEvent::OrderPlaced(placed)).await?;
        }
    }
    Ok(Placed::New(id))
}

fn wanted(items: &[Item]) -> Items {
    Items::of(
        items
            .iter()
            .map(|item| (item.product_id.as_str(), item.quantity)),
    )
}

async fn placed_before(
    tx: &mut Tx,
    id: Uuid,
    key: &str,
    order: &NewOrder,
    items: &str,
) -> Result<Placed, Error> {
    let row = tx
        .query_opt(
            "SELECT idempotency_key, customer_id, items, payment_method FROM orders WHERE order_id = $1",
            params![id],
        )
        .await?
        .ok_or_else(|| {
            Error::damaged(format_args!(
                "order {id} is in the index and not in the table"
            ))
        })?;
    let same = row.get::<String>("idempotency_key")? == key
        && row.get::<String>("customer_id")? == order.customer_id
        && row.get::<String>("items")? == items
        && row.get::<String>("payment_method")? == order.payment_method.name();
    Ok(if same {
        Placed::Before(id)
    } else {
        Placed::KeyTaken
    })
}

/// Withdraws an order that is not final, and gives its stock back.
///
/// The release is sent at once, without waiting for the answer to the request: both
/// lie on one partition in this order, so the release finds what the request
/// reserved. An answer that comes after it is too late and changes nothing.
pub(crate) async fn withdraw(
    tx: &mut Tx,
    order_id: Uuid,
    reason: &str,
    at: Timestamp,
) -> Result<Advanced, Error> {
    let advanced = advance(tx, order_id, Input::Withdrawn, Some(reason), at, None).await?;
    if let Advanced::To(_) = advanced {
        let release = Release {
            order_id,
            reason: reason.to_owned(),
        };
        tx.emit(&StockRequest::StockReleaseRequested(release))
            .await?;
    }
    Ok(advanced)
}

/// Moves an order as [`Status::on`] says; `cause` is the event that brought the input.
pub(crate) async fn advance(
    tx: &mut Tx,
    order_id: Uuid,
    input: Input,
    reason: Option<&str>,
    at: Timestamp,
    cause: Option<Uuid>,
) -> Result<Advanced, Error> {
    let row = tx
        .query_opt(
            "SELECT seq, status, customer_id, items, total_cents FROM orders WHERE order_id = $1",
            params![order_id],
        )
        .await?;
    let Some(row) = row else {
        return Ok(Advanced::Unknown);
    };
    let (seq, current): (i64, _) = (row.get("seq")?, status(&row)?);
    let Some(next) = current.on(input) else {
        return Ok(Advanced::TooLate(current));
    };
    let moved = tx
        .execute(
            "UPDATE orders SET status = $2 WHERE seq = $1 AND status = $3",
            params![seq, next.name(), current.name()],
        )
        .await?;
    if moved == 0 {
        return Ok(Advanced::TooLate(current));
    }
    record(tx, seq, next, reason, at, cause).await?;
    if let Some(event) = ended(order_id, next, reason, &row)? {
        tx.emit(&event).await?;
    }
    Ok(Advanced::To(next))
}

/// Says once more that an order is confirmed, to whoever asks for it once more.
pub(crate) async fn confirm_again(tx: &mut Tx, order_id: Uuid) -> Result<(), Error> {
    let row = tx
        .query_opt(
            "SELECT customer_id, items, total_cents FROM orders WHERE order_id = $1 AND status = 'CONFIRMED'",
            params![order_id],
        )
        .await?;
    let Some(row) = row else { return Ok(()) };
    if let Some(event) = ended(order_id, Status::Confirmed, None, &row)? {
        tx.emit(&event).await?;
    }
    Ok(())
}

/// What the others are told of an order that has come to its end.
fn ended(
    order_id: Uuid,
    status: Status,
    reason: Option<&str>,
    row: &Row,
) -> Result<Option<OrderEvent>, Error> {
    let saga_id = saga_id(order_id);
    let customer_id = row.get("customer_id")?;
    let reason = reason.unwrap_or_default().to_owned();
    Ok(match status {
        Status::Pending => None,
        Status::Confirmed => {
            let confirmed = OrderConfirmed {
                saga_id,
                order_id,
                customer_id,
                items: wanted(&items(row)?),
                amount: Cents::from_stored(row.get("total_cents")?),
            };
            Some(confirmed.into())
        }
        Status::Cancelled => {
            let cancelled = OrderCancelled {
                saga_id,
                order_id,
                customer_id,
                reason,
            };
            Some(cancelled.into())
        }
        Status::ManualReview => {
            let review = OrderSentToReview {
                saga_id,
                order_id,
                customer_id,
                reason,
            };
            Some(review.into())
        }
    })
}

async fn record(
    tx: &mut Tx,
    seq: i64,
    status: Status,
    reason: Option<&str>,
    at: Timestamp,
    cause: Option<Uuid>,
) -> Result<(), Error> {
    tx.execute(
        "INSERT INTO order_history (order_seq, position, status, reason, at, cause)
         SELECT $1, COALESCE(MAX(position), 0) + 1, $2, $3, $4, $5 FROM order_history WHERE order_seq = $1",
        params![seq, status.name(), reason, at, cause],
    )
    .await?;
    Ok(())
}

/// One order.
pub(crate) async fn order(db: &Database, order_id: Uuid) -> Result<Option<Order>, Error> {
    let sql = joined("SELECT * FROM orders WHERE order_id = $1");
    let rows = db.query(&sql, params![order_id]).await?;
    Ok(assemble(&rows)?.pop())
}

/// Whether there is such an order.
pub(crate) async fn exists(tx: &mut Tx, order_id: Uuid) -> Result<bool, Error> {
    let sql = "SELECT 1 FROM orders WHERE order_id = $1";
    Ok(tx.query_opt(sql, params![order_id]).await?.is_some())
}

/// Where an order stands in the order of acceptance.
pub(crate) async fn place_of(db: &Database, order_id: Uuid) -> Result<Option<i64>, Error> {
    let row = db
        .query_opt(
            "SELECT seq FROM orders WHERE order_id = $1",
            params![order_id],
        )
        .await?;
    Ok(row.map(|row| row.get("seq")).transpose()?)
}

/// At most `limit` orders accepted after place `after`, in the order of acceptance.
pub(crate) async fn page(
    db: &Database,
    status: Option<Status>,
    after: i64,
    limit: u32,
) -> Result<Vec<Order>, Error> {
    let rows = match status {
        None => {
            let sql = joined("SELECT * FROM orders WHERE seq > $1 ORDER BY seq LIMIT $2");
            db.query(&sql, params![after, limit]).await?
        }
        Some(status) => {
            let sql =
                joined("SELECT * FROM orders WHERE status = $3 AND seq > $1 ORDER BY seq LIMIT $2");
            db.query(&sql, params![after, limit, status.name()]).await?
        }
    };
    assemble(&rows)
}

/// Orders with their history, a row an entry: one statement, so that both are of one moment.
fn joined(orders: &str) -> String {
    format!(
        "SELECT o.order_id, o.customer_id, o.items, o.total_cents, o.payment_method, h.status, h.reason, h.at
         FROM ({orders}) o JOIN order_history h ON h.order_seq = o.seq ORDER BY o.seq, h.position"
    )
}

fn assemble(rows: &[Row]) -> Result<Vec<Order>, Error> {
    let mut orders: Vec<Order> = Vec::new();
    for row in rows {
        let order_id: Uuid = row.get("order_id")?;
        if orders.last().is_none_or(|last| last.order_id != order_id) {
            orders.push(order_of(row, order_id)?);
        }
        let change = Change {
            status: status(row)?,
            at: row.get("at")?,
            reason: row.get("reason")?,
        };
        if let Some(order) = orders.last_mut() {
            order.status = change.status;
            order.reason.clone_from(&change.reason);
            order.history.push(change);
        }
    }
    Ok(orders)
}

fn order_of(row: &Row, order_id: Uuid) -> Result<Order, Error> {
    Ok(Order {
        order_id,
        customer_id: row.get("customer_id")?,
        items: items(row)?,
        total_amount: Cents::from_stored(row.get("total_cents")?),
        payment_method: payment_method(row)?,
        status: Status::Pending,
        reason: None,
        history: Vec::with_capacity(2),
    })
}

fn items(row: &Row) -> Result<Vec<Item>, Error> {
    serde_json::from_str(&row.get::<String>("items")?).map_err(Error::damaged)
}

fn payment_method(row: &Row) -> Result<PaymentMethod, Error> {
    let name: String = row.get("payment_method")?;
    PaymentMethod::named(&name)
        .ok_or_else(|| Error::damaged(format_args!("an order is paid by {name:?}")))
}

fn status(row: &Row) -> Result<Status, Error> {
    let name: String = row.get("status")?;
    Status::named(&name)
        .ok_or_else(|| Error::damaged(format_args!("an order has the status {name:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Orders;
    use crate::order::saga::OrderSaga;

    async fn database(folder: &tempfile::TempDir) -> Database {
        let url = format!("sqlite:{}", folder.path().join("order.db").display());
        Database::open(&url, MIGRATIONS).await.unwrap()
    }

    fn sagas() -> OrderSagas {
        let saga = OrderSaga::new(&Orders::default());
        OrderSagas::new(saga).unwrap()
    }

    fn new_order(quantity: u32) -> NewOrder {
        let unit_price = "1.50".parse().unwrap();
        let items = vec![Item {
            product_id: "cd-01".to_owned(),
            quantity,
            unit_price,
        }];
        let total = Cents::total([(quantity, unit_price)]).unwrap();
        NewOrder {
            customer_id: "7".to_owned(),
            items,
            total,
            payment_method: PaymentMethod::Card,
        }
    }

    async fn placed(db: &Database, key: &str, quantity: u32) -> Placed {
        let mut tx = db.begin();
        let placed = place(
            &mut tx,
            key,
            &new_order(quantity),
            Flow::Choreography,
            &sagas(),
            Timestamp::now(),
        )
        .await
        .unwrap();
        tx.commit().await.unwrap();
        placed
    }

    async fn advanced(db: &Database, id: Uuid, input: Input) -> Advanced {
        let mut tx = db.begin();
        let cause = (input != Input::Withdrawn).then(Uuid::now_v7);
        let advanced = match input {
            Input::Withdrawn => withdraw(&mut tx, id, "withdrawn", Timestamp::now())
                .await
                .unwrap(),
            _ => advance(&mut tx, id, input, None, Timestamp::now(), cause)
                .await
                .unwrap(),
        };
        tx.commit().await.unwrap();
        advanced
    }

    async fn emitted(db: &Database) -> usize {
        db.query("SELECT id FROM ackwell_outbox", params![])
            .await
            .unwrap()
            .len()
    }

    #[tokio::test]
    async fn an_order_placed_again_is_one_order_with_one_event() {
        let folder = tempfile::tempdir().unwrap();
        let db = database(&folder).await;
        let id = order_id("k-1");
        assert_eq!(placed(&db, "k-1", 2).await, Placed::New(id));
        assert_eq!(placed(&db, "k-1", 2).await, Placed::Before(id));
        assert_eq!(placed(&db, "k-1", 3).await, Placed::KeyTaken);
        assert_eq!(emitted(&db).await, 1);
        let order = order(&db, id).await.unwrap().unwrap();
        assert_eq!(
            (order.status, order.total_amount.to_string()),
            (Status::Pending, "3.00".to_owned())
        );
    }

    #[tokio::test]
    async fn a_transaction_that_is_dropped_leaves_neither_order_nor_event() {
        let folder = tempfile::tempdir().unwrap();
        let db = database(&folder).await;
        let mut tx = db.begin();
        place(
            &mut tx,
            "k-1",
            &new_order(1),
            Flow::Choreography,
            &sagas(),
            Timestamp::now(),
        )
        .await
        .unwrap();
        drop(tx);
        assert!(order(&db, order_id("k-1")).await.unwrap().is_none());
        assert_eq!(emitted(&db).await, 0);
    }

    #[tokio::test]
    async fn the_first_input_wins_and_later_ones_leave_no_trace() {
        let folder = tempfile::tempdir().unwrap();
        let db = database(&folder).await;
        placed(&db, "k-1", 1).await;
        let id = order_id("k-1");
        assert_eq!(
            advanced(&db, id, Input::StockReserved).await,
            Advanced::To(Status::Confirmed)
        );
        for late in [Input::StockReserved, Input::StockRefused, Input::Withdrawn] {
            assert_eq!(
                advanced(&db, id, late).await,
                Advanced::TooLate(Status::Confirmed)
            );
        }
        assert_eq!(order(&db, id).await.unwrap().unwrap().history.len(), 2);
        assert_eq!(
            emitted(&db).await,
            2,
            "the request and the end: a late withdrawal releases nothing"
        );
        assert_eq!(
            advanced(&db, Uuid::nil(), Input::StockReserved).await,
            Advanced::Unknown
        );
    }

    #[tokio::test]
    async fn a_withdrawal_asks_for_the_release_in_the_same_transaction() {
        let folder = tempfile::tempdir().unwrap();
        let db = database(&folder).await;
        placed(&db, "k-1", 1).await;
        let id = order_id("k-1");
        assert_eq!(
            advanced(&db, id, Input::Withdrawn).await,
            Advanced::To(Status::Cancelled)
        );
        assert_eq!(
            advanced(&db, id, Input::Withdrawn).await,
            Advanced::TooLate(Status::Cancelled)
        );
        assert_eq!(emitted(&db).await, 3, "request, end and release");
        let order = order(&db, id).await.unwrap().unwrap();
        assert_eq!(order.reason.as_deref(), Some("withdrawn"));
    }

    #[tokio::test]
    async fn pages_follow_the_order_of_acceptance() {
        let folder = tempfile::tempdir().unwrap();
        let db = database(&folder).await;
        for key in ["a", "b", "c"] {
            placed(&db, key, 1).await;
        }
        advanced(&db, order_id("b"), Input::StockReserved).await;
        let ids = |orders: Vec<Order>| {
            orders
                .into_iter()
                .map(|order| order.order_id)
                .collect::<Vec<_>>()
        };
        let first = place_of(&db, order_id("a")).await.unwrap().unwrap();
        assert_eq!(
            ids(page(&db, None, 0, 2).await.unwrap()),
            [order_id("a"), order_id("b")]
        );
        assert_eq!(
            ids(page(&db, None, first, 9).await.unwrap()),
            [order_id("b"), order_id("c")]
        );
        assert_eq!(
            ids(page(&db, Some(Status::Pending), first, 9).await.unwrap()),
            [order_id("c")]
        );
        assert_eq!(
            ids(page(&db, Some(Status::Confirmed), 0, 9).await.unwrap()),
            [order_id("b")]
        );
    }
}
