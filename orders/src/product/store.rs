//! What the product service keeps: products, and one reservation an order.
//!
//! Stock only ever changes by guarded updates in a transaction together with the
//! reservation that explains the change, so the books can be proved from the rows.

use ackwell_sql::{Database, Migration, Row, Tx, params};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::error::Error;
use crate::events::Wanted;
use crate::events::choreography::StatusCode;

/// The schema of the product service.
pub(crate) const MIGRATIONS: &[Migration] =
    &[
        Migration::new("products and reservations", include_str!("schema.sql"))
            .postgres(include_str!("schema_postgres.sql")),
    ];

/// A product as its service shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Product {
    /// Its id.
    pub(crate) product_id: String,
    /// Its name.
    pub(crate) name: String,
    /// Units that can still be reserved.
    pub(crate) stock: i64,
    /// Units that orders hold.
    pub(crate) reserved: i64,
}

/// What putting a product did.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Put {
    /// It was new.
    Created,
    /// It existed; name and stock are as put now.
    Replaced,
    /// It existed, and only a new one was wanted.
    Kept,
}

/// Creates a product, or sets its name and stock. With `only_new` an existing one stays.
pub(crate) async fn put(
    tx: &mut Tx,
    id: &str,
    name: &str,
    stock: i64,
    only_new: bool,
) -> Result<Put, Error> {
    let created = tx
        .execute(
            "INSERT INTO products (product_id, name, stock, reserved, stocked) VALUES ($1, $2, $3, 0, $3)
             ON CONFLICT (product_id) DO NOTHING",
            params![id, name, stock],
        )
        .await?;
    if created > 0 {
        return Ok(Put::Created);
    }
    if only_new {
        return Ok(Put::Kept);
    }
    tx.execute(
        "UPDATE products SET name = $2, stocked = stocked + $3 - stock, stock = $3 WHERE product_id = $1",
        params![id, name, stock],
    )
    .await?;
    Ok(Put::Replaced)
}

/// One product.
pub(crate) async fn product(db: &Database, id: &str) -> Result<Option<Product>, Error> {
    let row = db
        .query_opt(
            "SELECT product_id, name, stock, reserved FROM products WHERE product_id = $1",
            params![id],
        )
        .await?;
    row.as_ref().map(Product::from_row).transpose()
}

/// Every product, by id.
pub(crate) async fn products(db: &Database) -> Result<Vec<Product>, Error> {
    let rows = db
        .query(
            "SELECT product_id, name, stock, reserved FROM products ORDER BY product_id",
            params![],
        )
        .await?;
    rows.iter().map(Product::from_row).collect()
}

impl Product {
    fn from_row(row: &Row) -> Result<Self, Error> {
        Ok(Self {
            product_id: row.get("product_id")?,
            name: row.get("name")?,
            stock: row.get("stock")?,
            reserved: row.get("reserved")?,
        })
    }
}

/// What was decided of an order's items, once and for all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Decision {
    /// One of [`StatusCode`].
    pub(crate) status_code: u16,
    /// Why nothing is reserved; `None` when everything is.
    pub(crate) reason: Option<String>,
}

/// Reserves every item or none, once an order: asked again, it decides as before.
pub(crate) async fn reserve(
    tx: &mut Tx,
    order_id: Uuid,
    items: &[Wanted],
    cause: Uuid,
) -> Result<Decision, Error> {
    let opened = tx
        .query_opt(
            "INSERT INTO reservations (order_id, state, status_code, decided_by) VALUES ($1, 'RESERVED', $3, $2)
             ON CONFLICT (order_id) DO NOTHING RETURNING seq",
            params![order_id, cause, u32::from(StatusCode::RESERVED)],
        )
        .await?;
    let Some(opened) = opened else {
        return decided_before(tx, order_id).await;
    };
    let seq: i64 = opened.get("seq")?;
    let Some(shortage) = take_all(tx, items).await? else {
        record_items(tx, seq, items).await?;
        return Ok(Decision {
            status_code: StatusCode::RESERVED,
            reason: None,
        });
    };
    tx.execute(
        "UPDATE reservations SET state = 'REFUSED', status_code = $2, reason = $3 WHERE seq = $1",
        params![seq, u32::from(shortage.status_code), shortage.reason],
    )
    .await?;
    Ok(Decision {
        status_code: shortage.status_code,
        reason: Some(shortage.reason),
    })
}

/// Gives back what an order holds. Where it holds nothing yet, its request is refused
/// when it comes.
pub(crate) async fn release(
    tx: &mut Tx,
    order_id: Uuid,
    reason: &str,
    cause: Uuid,
) -> Result<(), Error> {
    let held = tx
        .query_opt(
            "UPDATE reservations SET state = 'RELEASED', status_code = $4, reason = $2, released_by = $3
             WHERE order_id = $1 AND state = 'RESERVED' RETURNING seq",
            params![order_id, reason, cause, u32::from(StatusCode::WITHDRAWN)],
        )
        .await?;
    let Some(held) = held else {
        tx.execute(
            "INSERT INTO reservations (order_id, state, status_code, reason, released_by)
             VALUES ($1, 'RELEASED', $4, $2, $3) ON CONFLICT (order_id) DO NOTHING",
            params![order_id, reason, cause, u32::from(StatusCode::WITHDRAWN)],
        )
        .await?;
        return Ok(());
    };
    let seq: i64 = held.get("seq")?;
    let items = tx
        .query(
            "SELECT product_id, quantity FROM reservation_items WHERE reservation_seq = $1",
            params![seq],
        )
        .await?;
    for item in items {
        put_back(
            tx,
            &item.get::<String>("product_id")?,
            item.get("quantity")?,
        )
        .await?;
    }
    Ok(())
}

/// Why an order's items can't be reserved.
struct Shortage {
    status_code: u16,
    reason: String,
}

/// Takes every item from the stock; on the first that is short, puts back those before it.
async fn take_all(tx: &mut Tx, items: &[Wanted]) -> Result<Option<Shortage>, Error> {
    for (at, item) in items.iter().enumerate() {
        let taken = tx
            .execute(
                "UPDATE products SET stock = stock - $2, reserved = reserved + $2
                 WHERE product_id = $1 AND stock >= $2",
                params![item.product_id, item.quantity.get()],
            )
            .await?;
        if taken == 0 {
            for earlier in items.iter().take(at) {
                put_back(tx, &earlier.product_id, earlier.quantity.get().into()).await?;
            }
            return shortage(tx, item).await.map(Some);
        }
    }
    Ok(None)
}

async fn put_back(tx: &mut Tx, product_id: &str, quantity: i64) -> Result<(), Error> {
    tx.execute(
        "UPDATE products SET stock = stock + $2, reserved = reserved - $2 WHERE product_id = $1",
        params![product_id, quantity],
    )
    .await?;
    Ok(())
}

async fn shortage(tx: &mut Tx, item: &Wanted) -> Result<Shortage, Error> {
    let Wanted {
        product_id,
        quantity,
    } = item;
    let row = tx
        .query_opt(
            "SELECT stock FROM products WHERE product_id = $1",
            params![product_id],
        )
        .await?;
    Ok(match row {
        None => Shortage {
            status_code: StatusCode::UNKNOWN_PRODUCT,
            reason: format!("there is no product {product_id}"),
        },
        Some(row) => Shortage {
            status_code: StatusCode::NOT_ENOUGH,
            reason: format!(
                "not enough stock of {product_id}: {quantity} wanted, {} left",
                row.get::<i64>("stock")?
            ),
        },
    })
}

async fn record_items(tx: &mut Tx, seq: i64, items: &[Wanted]) -> Result<(), Error> {
    for item in items {
        tx.execute(
            "INSERT INTO reservation_items (reservation_seq, product_id, quantity) VALUES ($1, $2, $3)
             ON CONFLICT (reservation_seq, product_id) DO UPDATE SET quantity = reservation_items.quantity + excluded.quantity",
            params![seq, item.product_id, item.quantity.get()],
        )
        .await?;
    }
    Ok(())
}

async fn decided_before(tx: &mut Tx, order_id: Uuid) -> Result<Decision, Error> {
    let row = tx
        .query_opt(
            "SELECT status_code, reason FROM reservations WHERE order_id = $1",
            params![order_id],
        )
        .await?
        .ok_or_else(|| Error::damaged("a reservation is in the index and not in the table"))?;
    let status_code =
        u16::try_from(row.get::<u32>("status_code")?).unwrap_or(StatusCode::NOT_ENOUGH);
    let reason = row.get("reason")?;
    Ok(Decision {
        status_code,
        reason,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::Items;

    async fn database(folder: &tempfile::TempDir, stock: &[(&str, i64)]) -> Database {
        let url = format!("sqlite:{}", folder.path().join("product.db").display());
        let db = Database::open(&url, MIGRATIONS).await.unwrap();
        for (id, stock) in stock {
            putting(&db, id, *stock, false).await;
        }
        db
    }

    async fn putting(db: &Database, id: &str, stock: i64, only_new: bool) -> Put {
        let mut tx = db.begin();
        let put = put(&mut tx, id, id, stock, only_new).await.unwrap();
        tx.commit().await.unwrap();
        put
    }

    async fn reserving(db: &Database, order: u128, items: &[(&str, u32)]) -> (u16, Option<String>) {
        let mut tx = db.begin();
        let (order, items) = (Uuid::from_u128(order), Items::of(items.iter().copied()));
        let decision = reserve(&mut tx, order, &items, Uuid::now_v7())
            .await
            .unwrap();
        tx.commit().await.unwrap();
        (decision.status_code, decision.reason)
    }

    async fn releasing(db: &Database, order: u128) {
        let mut tx = db.begin();
        let order = Uuid::from_u128(order);
        release(&mut tx, order, "withdrawn", Uuid::now_v7())
            .await
            .unwrap();
        tx.commit().await.unwrap();
    }

    async fn shelf(db: &Database, id: &str) -> (i64, i64) {
        let product = product(db, id).await.unwrap().unwrap();
        (product.stock, product.reserved)
    }

    #[tokio::test]
    async fn all_items_are_reserved_or_none() {
        let folder = tempfile::tempdir().unwrap();
        let db = database(&folder, &[("a", 5), ("b", 1)]).await;
        assert_eq!(
            reserving(&db, 1, &[("a", 2), ("b", 1)]).await.0,
            StatusCode::RESERVED
        );
        let (code, reason) = reserving(&db, 2, &[("a", 2), ("b", 1)]).await;
        assert_eq!(
            (code, reason.as_deref()),
            (
                StatusCode::NOT_ENOUGH,
                Some("not enough stock of b: 1 wanted, 0 left")
            )
        );
        let (code, reason) = reserving(&db, 3, &[("a", 2), ("nope", 1)]).await;
        assert_eq!(
            (code, reason.as_deref()),
            (
                StatusCode::UNKNOWN_PRODUCT,
                Some("there is no product nope")
            )
        );
        assert_eq!(
            (shelf(&db, "a").await, shelf(&db, "b").await),
            ((3, 2), (0, 1))
        );
    }

    #[tokio::test]
    async fn asked_again_it_answers_as_before_and_takes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let db = database(&folder, &[("a", 3)]).await;
        assert_eq!(reserving(&db, 1, &[("a", 2)]).await.0, StatusCode::RESERVED);
        assert_eq!(reserving(&db, 1, &[("a", 2)]).await.0, StatusCode::RESERVED);
        let refused = reserving(&db, 2, &[("a", 2)]).await;
        putting(&db, "a", 100, false).await;
        assert_eq!(reserving(&db, 2, &[("a", 2)]).await, refused);
        assert_eq!(shelf(&db, "a").await, (100, 2));
    }

    #[tokio::test]
    async fn a_release_gives_back_once() {
        let folder = tempfile::tempdir().unwrap();
        let db = database(&folder, &[("a", 5), ("b", 5)]).await;
        reserving(&db, 1, &[("a", 2), ("b", 3)]).await;
        releasing(&db, 1).await;
        releasing(&db, 1).await;
        assert_eq!(
            (shelf(&db, "a").await, shelf(&db, "b").await),
            ((5, 0), (5, 0))
        );
    }

    #[tokio::test]
    async fn a_release_that_comes_first_leaves_nothing_to_reserve() {
        let folder = tempfile::tempdir().unwrap();
        let db = database(&folder, &[("a", 5)]).await;
        releasing(&db, 1).await;
        assert_eq!(
            reserving(&db, 1, &[("a", 2)]).await,
            (StatusCode::WITHDRAWN, Some("withdrawn".to_owned()))
        );
        assert_eq!(shelf(&db, "a").await, (5, 0));
    }

    #[tokio::test]
    async fn putting_a_product_sets_its_stock_and_keeps_the_books() {
        let folder = tempfile::tempdir().unwrap();
        let db = database(&folder, &[]).await;
        assert_eq!(putting(&db, "a", 5, true).await, Put::Created);
        reserving(&db, 1, &[("a", 2)]).await;
        assert_eq!(putting(&db, "a", 9, true).await, Put::Kept);
        assert_eq!(shelf(&db, "a").await, (3, 2));
        assert_eq!(putting(&db, "a", 9, false).await, Put::Replaced);
        assert_eq!(putting(&db, "a", 9, false).await, Put::Replaced);
        assert_eq!(shelf(&db, "a").await, (9, 2));
        let stocked = db
            .query("SELECT stocked FROM products", params![])
            .await
            .unwrap();
        assert_eq!(stocked[0].get::<i64>(0).unwrap(), 11);
    }
}
