//! Replies to the saga's commands, each handled in one transaction with what follows from it.

use ackwell::extract::{Event, State};
use ackwell_sql::Tx;
use ackwell_sql::saga::Answer;
use uuid::Uuid;

use super::{OrderSagas, store};
use crate::error::Error;
use crate::events::inventory::InventoryEvent;
use crate::events::orders::OrderEvent;
use crate::events::payment::{PaymentCharged, PaymentEvent};
use crate::events::saga_id;

/// The consumer group of the orchestrator. All instances of the order service share it.
pub(crate) const GROUP: &str = "order-saga";

/// A reply, of whichever service.
struct Reply<'a> {
    saga_id: Uuid,
    order_id: Uuid,
    event_type: &'static str,
    reason: Option<&'a str>,
}

/// What the product service says.
pub(crate) async fn on_inventory_event(
    Event(event): Event<InventoryEvent>,
    State(sagas): State<OrderSagas>,
    mut tx: Tx,
) -> Result<(), Error> {
    let event_type = ackwell::Event::event_type(&event);
    let (saga_id, order_id, reason) = match &event {
        InventoryEvent::InventoryReserved(reply) => (reply.saga_id, reply.order_id, None),
        InventoryEvent::InventoryReleased(reply) => (reply.saga_id, reply.order_id, None),
        InventoryEvent::InventoryRefused(reply) => {
            (reply.saga_id, reply.order_id, Some(&*reply.reason))
        }
        // Our own commands, which are the product service's to handle.
        InventoryEvent::ReserveInventory(_) | InventoryEvent::ReleaseInventory(_) => return Ok(()),
    };
    let reply = Reply {
        saga_id,
        order_id,
        event_type,
        reason,
    };
    reply.tell(&sagas, &mut tx).await
}

/// What the payment service says.
pub(crate) async fn on_payment_event(
    Event(event): Event<PaymentEvent>,
    State(sagas): State<OrderSagas>,
    mut tx: Tx,
) -> Result<(), Error> {
    let event_type = ackwell::Event::event_type(&event);
    let (saga_id, order_id, reason) = match &event {
        PaymentEvent::PaymentCharged(reply) => {
            right_amount(&sagas, &mut tx, reply).await?;
            (reply.saga_id, reply.order_id, None)
        }
        PaymentEvent::PaymentRefunded(reply) => (reply.saga_id, reply.order_id, None),
        PaymentEvent::PaymentFailed(reply) => (reply.saga_id, reply.order_id, Some(&*reply.reason)),
        // Our own commands, which are the payment service's to handle.
        PaymentEvent::ChargePayment(_) | PaymentEvent::RefundPayment(_) => return Ok(()),
    };
    let reply = Reply {
        saga_id,
        order_id,
        event_type,
        reason,
    };
    reply.tell(&sagas, &mut tx).await
}

/// What the order service says.
pub(crate) async fn on_order_event(
    Event(event): Event<OrderEvent>,
    State(sagas): State<OrderSagas>,
    mut tx: Tx,
) -> Result<(), Error> {
    let event_type = ackwell::Event::event_type(&event);
    // All others are told to the customer, not to the saga; an order of flow A has none.
    let OrderEvent::OrderConfirmed(reply) = &event else {
        return Ok(());
    };
    let reply = Reply {
        saga_id: reply.saga_id,
        order_id: reply.order_id,
        event_type,
        reason: None,
    };
    match reply.tell_any(&sagas, &mut tx).await? {
        Answer::Unknown => {
            tracing::debug!(order_id = %reply.order_id, "an order of flow A, or of a saga that was forgotten, is confirmed");
            Ok(())
        }
        _ => Ok(()),
    }
}

/// A charge of another amount is never taken for the order's: it is dead-lettered, and the saga's
/// timeout has it refunded.
async fn right_amount(
    sagas: &OrderSagas,
    tx: &mut Tx,
    reply: &PaymentCharged,
) -> Result<(), Error> {
    match sagas.data(tx, reply.saga_id).await? {
        Some(order) if order.amount != reply.amount => Err(Error::Impossible(format!(
            "order {} was charged {}, and costs {}",
            reply.order_id, reply.amount, order.amount
        ))),
        _ => Ok(()),
    }
}

impl Reply<'_> {
    /// A saga that was pruned changes nothing any more; one that there never was is somebody's mistake.
    async fn tell(self, sagas: &OrderSagas, tx: &mut Tx) -> Result<(), Error> {
        match self.tell_any(sagas, tx).await? {
            Answer::Unknown if store::exists(tx, self.order_id).await? => {
                tracing::debug!(saga_id = %self.saga_id, reply = self.event_type, "reply to a saga that was over long ago");
                Ok(())
            }
            Answer::Unknown => Err(Error::Impossible(format!(
                "{} is for saga {}, which does not exist",
                self.event_type, self.saga_id
            ))),
            Answer::Nothing(why) => {
                tracing::debug!(saga_id = %self.saga_id, reply = self.event_type, ?why, "reply changes nothing");
                Ok(())
            }
            Answer::Moved(_) | Answer::Refused(_) | Answer::NoReply => Ok(()),
        }
    }

    async fn tell_any(&self, sagas: &OrderSagas, tx: &mut Tx) -> Result<Answer, Error> {
        if self.saga_id != saga_id(self.order_id) {
            return Err(Error::Impossible(format!(
                "{} names saga {} and order {}, which do not belong together",
                self.event_type, self.saga_id, self.order_id
            )));
        }
        sagas
            .reply(tx, self.saga_id, self.event_type, self.reason)
            .await
    }
}
