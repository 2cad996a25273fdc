//! The README's handler, whole: orders take stock, once each, and the answer leaves with the change.
//!
//! `KAFKA_BOOTSTRAP_SERVERS` names the broker; `ackwell broker` starts one.

use std::borrow::Cow;
use std::error::Error;
use std::time::Duration;

use ackwell::extract::Event;
use ackwell::retry::exponential;
use ackwell::{App, Config, Listener, by_key};
use ackwell_sql::{Database, Migration, Relay, Tx, params};
use serde::{Deserialize, Serialize};

const ORDER_EVENTS: ackwell::Topic<OrderPlaced> = ackwell::Topic::new("order-events");
const INVENTORY_EVENTS: ackwell::Topic<StockAnswered> = ackwell::Topic::new("inventory-events");

#[derive(Serialize, Deserialize)]
struct OrderPlaced {
    order_id: String,
    product_id: String,
    quantity: i64,
}

impl ackwell::Event for OrderPlaced {
    const TOPIC: ackwell::Topic<Self> = ORDER_EVENTS;

    fn event_type(&self) -> &'static str {
        "OrderPlaced"
    }

    fn knows(event_type: &str) -> bool {
        event_type == "OrderPlaced"
    }

    fn aggregate_id(&self) -> Cow<'_, str> {
        Cow::Borrowed(&self.order_id)
    }
}

#[derive(Serialize, Deserialize)]
struct StockAnswered {
    order_id: String,
    in_stock: bool,
}

impl ackwell::Event for StockAnswered {
    const TOPIC: ackwell::Topic<Self> = INVENTORY_EVENTS;

    fn event_type(&self) -> &'static str {
        "StockAnswered"
    }

    fn knows(event_type: &str) -> bool {
        event_type == "StockAnswered"
    }

    fn aggregate_id(&self) -> Cow<'_, str> {
        Cow::Borrowed(&self.order_id)
    }
}

const SCHEMA: &[Migration] = &[Migration::new(
    "products",
    "CREATE TABLE product (id TEXT PRIMARY KEY, stock INTEGER NOT NULL) STRICT",
)];

async fn reserve_stock(Event(order): Event<OrderPlaced>, mut tx: Tx) -> ackwell_sql::Result<()> {
    let taken = tx
        .execute(
            "UPDATE product SET stock = stock - $1 WHERE id = $2 AND stock >= $1",
            params![order.quantity, order.product_id],
        )
        .await?;
    let (order_id, in_stock) = (order.order_id, taken == 1);
    tx.emit(&StockAnswered { order_id, in_stock }).await
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let stock = Database::open("sqlite:stock.db", SCHEMA).await?;
    let retry = exponential(Duration::from_millis(200), 2.0).max(Duration::from_secs(10));
    App::new(Config::load()?)
        .state(stock.clone())
        .listener(
            Listener::on(ORDER_EVENTS)
                .group("inventory")
                .concurrency(by_key(32))
                .retry(retry.max_attempts(8))
                .handle(reserve_stock),
        )
        .service(Relay::new(stock))
        .run()
        .await?;
    Ok(())
}
