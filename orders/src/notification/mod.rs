//! The notification service: tells customers how their orders ended, and has the shipping prepared.
//!
//! It hears of an order's end from `order-events`, whichever way the order went. Each customer is told
//! once an order and kind, and each shipment is prepared once: their rows are keyed so, beside the inbox,
//! which only knows events that come again and not two events that say the same.

use ackwell::Listener;

use crate::events::notification::NOTIFICATION_EVENTS;
use crate::events::orders::ORDER_EVENTS;
use crate::serve::{Declared, Scope};

pub(crate) mod http;
pub(crate) mod listener;
pub(crate) mod store;

/// The notification service: ends of orders come in, `CustomerNotified` goes out.
pub(crate) async fn declare(scope: &Scope<'_>) -> Result<Declared, ackwell_sql::Error> {
    let db = scope.database("notification", store::MIGRATIONS).await?;
    let orders = Listener::on(ORDER_EVENTS).group(listener::GROUP);
    Ok(Declared {
        app: scope
            .app(listener::GROUP, &db)
            .topic(NOTIFICATION_EVENTS)
            .listener(orders.handle(listener::on_order_event)),
        routes: http::routes(db),
    })
}
