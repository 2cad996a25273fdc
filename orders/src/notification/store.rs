//! What the notification service keeps: whom it told what, and what is to be sent.

use ackwell_sql::{Database, Keyed, Migration, Row, Tx, params};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use crate::error::Error;
use crate::events::notification::CustomerNotified;
use crate::events::orders::OrderConfirmed;

/// The schema of the notification service.
pub(crate) const MIGRATIONS: &[Migration] =
    &[
        Migration::new("notifications and shipments", include_str!("schema.sql"))
            .postgres(include_str!("schema_postgres.sql")),
    ];

static NOTIFICATIONS: Keyed = Keyed::table(
    "notifications",
    &["order_id", "kind"],
    &["customer_id", "at"],
);
static SHIPMENTS: Keyed = Keyed::table("shipments", &["order_id"], &["customer_id", "items", "at"]);

/// What became of an order here.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Told {
    /// Which order.
    pub(crate) order_id: Uuid,
    /// What its customer was told.
    pub(crate) notifications: Vec<Notification>,
    /// What is to be sent.
    pub(crate) shipment: Option<Shipment>,
}

/// What a customer was told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Notification {
    /// How the order ended.
    pub(crate) kind: String,
    /// Who was told.
    pub(crate) customer_id: String,
    /// When.
    pub(crate) at: Timestamp,
}

/// What is to be sent to a customer.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Shipment {
    /// To whom.
    pub(crate) customer_id: String,
    /// What.
    pub(crate) items: Value,
    /// When it was prepared.
    pub(crate) at: Timestamp,
}

/// Notes that a customer is told; answers whether it is for the first time.
pub(crate) async fn note(tx: &mut Tx, told: &CustomerNotified) -> Result<bool, Error> {
    let CustomerNotified {
        order_id,
        customer_id,
        kind,
    } = told;
    let (kind, at) = (kind.name(), Timestamp::now());
    let row = params![order_id, kind, customer_id, at];
    Ok(NOTIFICATIONS.insert(tx, row).await?)
}

/// Has an order's items sent, once.
pub(crate) async fn prepare_shipping(tx: &mut Tx, order: &OrderConfirmed) -> Result<(), Error> {
    let items = serde_json::to_string(&order.items).map_err(Error::damaged)?;
    let at = Timestamp::now();
    let row = params![order.order_id, order.customer_id, items, at];
    SHIPMENTS.insert(tx, row).await?;
    Ok(())
}

/// What became of an order here; `None` if nothing yet. One statement, so that both are of one moment.
pub(crate) async fn told(db: &Database, order_id: Uuid) -> Result<Option<Told>, Error> {
    let sql = "SELECT n.kind, n.customer_id, n.at, s.customer_id AS shipped_to, s.items, s.at AS prepared_at
               FROM notifications n LEFT JOIN shipments s ON s.order_id = n.order_id
               WHERE n.order_id = $1 ORDER BY n.at";
    let rows = db.query(sql, params![order_id]).await?;
    let Some(first) = rows.first() else {
        return Ok(None);
    };
    Ok(Some(Told {
        order_id,
        shipment: shipment(first)?,
        notifications: rows.iter().map(notification).collect::<Result<_, _>>()?,
    }))
}

fn notification(row: &Row) -> Result<Notification, Error> {
    Ok(Notification {
        kind: row.get("kind")?,
        customer_id: row.get("customer_id")?,
        at: row.get("at")?,
    })
}

fn shipment(row: &Row) -> Result<Option<Shipment>, Error> {
    let Some(items) = row.get::<Option<String>>("items")? else {
        return Ok(None);
    };
    Ok(Some(Shipment {
        customer_id: row.get("shipped_to")?,
        items: serde_json::from_str(&items).map_err(Error::damaged)?,
        at: row.get("prepared_at")?,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::notification::Kind;
    use crate::events::{Items, saga_id};

    #[tokio::test]
    async fn a_customer_is_told_once_an_order_and_kind_and_a_shipment_is_prepared_once() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", folder.path().join("notification.db").display());
        let db = Database::open(&url, MIGRATIONS).await.unwrap();
        let order = OrderConfirmed {
            saga_id: saga_id(Uuid::nil()),
            order_id: Uuid::nil(),
            customer_id: "7".to_owned(),
            items: Items::of([("cd-01", 2)]),
            amount: "2.00".parse().unwrap(),
        };
        let telling = async |kind| {
            let notified = CustomerNotified {
                order_id: order.order_id,
                customer_id: order.customer_id.clone(),
                kind,
            };
            let mut tx = db.begin();
            prepare_shipping(&mut tx, &order).await.unwrap();
            let first = note(&mut tx, &notified).await.unwrap();
            tx.commit().await.unwrap();
            first
        };
        assert!(telling(Kind::InReview).await);
        assert!(telling(Kind::Confirmed).await);
        assert!(!telling(Kind::Confirmed).await);
        let told = told(&db, Uuid::nil()).await.unwrap().unwrap();
        assert_eq!(told.notifications.len(), 2);
        assert_eq!(told.shipment.unwrap().items[0]["quantity"], 2);
    }
}
