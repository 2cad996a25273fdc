//! How an order ended.

use ackwell::extract::Event;
use ackwell_sql::Tx;

use super::store;
use crate::error::Error;
use crate::events::notification::{CustomerNotified, Kind, NotificationEvent};
use crate::events::orders::OrderEvent;

/// The consumer group. All instances of the service share it.
pub(crate) const GROUP: &str = "notification-service";

/// Notifies the customer, and prepares the shipping of what is confirmed, in one transaction.
pub(crate) async fn on_order_event(
    Event(event): Event<OrderEvent>,
    mut tx: Tx,
) -> Result<(), Error> {
    let (order_id, customer_id, kind) = match event {
        OrderEvent::OrderConfirmed(order) => {
            store::prepare_shipping(&mut tx, &order).await?;
            (order.order_id, order.customer_id, Kind::Confirmed)
        }
        OrderEvent::OrderCancelled(order) => (order.order_id, order.customer_id, Kind::Cancelled),
        OrderEvent::OrderSentToReview(order) => (order.order_id, order.customer_id, Kind::InReview),
        // No end: nobody is told.
        OrderEvent::OrderPlaced(_) | OrderEvent::ConfirmOrder(_) => return Ok(()),
    };
    let notified = CustomerNotified {
        order_id,
        customer_id,
        kind,
    };
    if store::note(&mut tx, &notified).await? {
        tracing::info!(%order_id, ?kind, "customer notified");
        tx.emit(&NotificationEvent::from(notified)).await?;
    }
    Ok(())
}
