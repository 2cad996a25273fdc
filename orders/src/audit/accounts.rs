//! The databases of payment and notification, and the gateway's ledger, a page at a time.

use ackwell_sql::{Database, Row, params};
use uuid::Uuid;

use super::books::PAGE;
use super::facts::Fingerprint;
use super::money::PaymentFact;
use crate::error::Error;
use crate::events::Wanted;
use crate::events::notification::Kind;
use crate::money::Cents;
use crate::payment::store::State;

/// A charge that the gateway approved.
pub(crate) struct Booked {
    pub(crate) order_id: Uuid,
    pub(crate) charge_id: Uuid,
    pub(crate) amount: Cents,
    /// What was given back of it.
    pub(crate) refunded: Option<Cents>,
}

/// Every payment.
pub(crate) async fn payments(
    db: &Database,
    mut each: impl FnMut(Uuid, PaymentFact),
) -> Result<(), Error> {
    let sql = "SELECT seq, order_id, state, amount_cents, charge_id FROM payments WHERE seq > $1 ORDER BY seq LIMIT $2";
    in_sequence(db, sql, |row| {
        let name: String = row.get("state")?;
        let state = State::named(&name)
            .ok_or_else(|| Error::damaged(format_args!("a payment is {name:?}")))?;
        let fact = PaymentFact {
            state,
            amount: row
                .get::<Option<i64>>("amount_cents")?
                .map(Cents::from_stored),
            charge_id: row.get("charge_id")?,
        };
        each(row.get("order_id")?, fact);
        Ok(())
    })
    .await
}

/// Every charge that the gateway approved.
pub(crate) async fn ledger(db: &Database, mut each: impl FnMut(Booked)) -> Result<(), Error> {
    let sql = "SELECT c.seq, c.reference, c.charge_id, c.amount_cents, r.amount_cents AS refunded
               FROM charges c LEFT JOIN refunds r ON r.charge_id = c.charge_id
               WHERE c.outcome = 'APPROVED' AND c.seq > $1 ORDER BY c.seq LIMIT $2";
    in_sequence(db, sql, |row| {
        each(Booked {
            order_id: row.get("reference")?,
            charge_id: row.get("charge_id")?,
            amount: Cents::from_stored(row.get("amount_cents")?),
            refunded: row.get::<Option<i64>>("refunded")?.map(Cents::from_stored),
        });
        Ok(())
    })
    .await
}

async fn in_sequence(
    db: &Database,
    sql: &str,
    mut each: impl FnMut(&Row) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut after: i64 = 0;
    loop {
        let rows = db.query(sql, params![after, PAGE]).await?;
        let Some(last) = rows.last() else {
            return Ok(());
        };
        after = last.get("seq")?;
        rows.iter().try_for_each(&mut each)?;
    }
}

/// Every notification.
pub(crate) async fn notifications(
    db: &Database,
    mut each: impl FnMut(Uuid, Kind),
) -> Result<(), Error> {
    let sql = "SELECT order_id, kind FROM notifications WHERE (order_id, kind) > ($1, $2) ORDER BY order_id, kind LIMIT $3";
    let mut after = (Uuid::nil(), String::new());
    loop {
        let rows = db.query(sql, params![after.0, after.1, PAGE]).await?;
        let Some(last) = rows.last() else {
            return Ok(());
        };
        after = (last.get("order_id")?, last.get("kind")?);
        for row in rows {
            let name: String = row.get("kind")?;
            let kind = Kind::named(&name)
                .ok_or_else(|| Error::damaged(format_args!("a notification is {name:?}")))?;
            each(row.get("order_id")?, kind);
        }
    }
}

/// Every shipment.
pub(crate) async fn shipments(
    db: &Database,
    mut each: impl FnMut(Uuid, Fingerprint),
) -> Result<(), Error> {
    let sql =
        "SELECT order_id, items FROM shipments WHERE order_id > $1 ORDER BY order_id LIMIT $2";
    let mut after = Uuid::nil();
    loop {
        let rows = db.query(sql, params![after, PAGE]).await?;
        let Some(last) = rows.last() else {
            return Ok(());
        };
        after = last.get("order_id")?;
        for row in rows {
            let items: Vec<Wanted> =
                serde_json::from_str(&row.get::<String>("items")?).map_err(Error::damaged)?;
            each(row.get("order_id")?, Fingerprint::of_wanted(&items));
        }
    }
}
