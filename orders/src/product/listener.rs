//! Requests for stock: of the order service in flow A, of the saga in flow B.

use ackwell::extract::{Event, Header};
use ackwell_sql::Tx;

use super::store::{self, Decision};
use crate::error::Error;
use crate::events::choreography::{StockAnswer, StockRequest, Verdict};
use crate::events::inventory::{
    InventoryEvent, InventoryRefused, InventoryReleased, InventoryReserved, ReleaseInventory,
    ReserveInventory,
};
use crate::events::{EventId, check_saga};

/// The consumer group. All instances of the service share it.
pub(crate) const GROUP: &str = "product-service";

/// Flow A: reserves or releases, and answers, in one transaction.
pub(crate) async fn on_stock_request(
    Event(request): Event<StockRequest>,
    Header(event_id, ..): Header<EventId>,
    mut tx: Tx,
) -> Result<(), Error> {
    match request {
        StockRequest::StockValidRequested(request) => {
            let order_id = request.order_id;
            let decision = store::reserve(&mut tx, order_id, &request.items, event_id).await?;
            let verdict = Verdict {
                order_id,
                status_code: decision.status_code,
                reason: decision.reason,
                request,
            };
            tx.emit(&StockAnswer::StockValidResponded(verdict)).await?;
        }
        StockRequest::StockReleaseRequested(release) => {
            store::release(&mut tx, release.order_id, &release.reason, event_id).await?;
        }
    }
    Ok(())
}

/// Flow B: carries out the saga's commands, and replies, in one transaction.
pub(crate) async fn on_inventory_event(
    Event(event): Event<InventoryEvent>,
    Header(event_id, ..): Header<EventId>,
    mut tx: Tx,
) -> Result<(), Error> {
    let reply = match event {
        InventoryEvent::ReserveInventory(command) => reserve(&mut tx, command, event_id).await?,
        InventoryEvent::ReleaseInventory(command) => {
            let ReleaseInventory {
                saga_id,
                order_id,
                reason,
            } = command;
            check_saga(saga_id, order_id)?;
            store::release(&mut tx, order_id, &reason, event_id).await?;
            InventoryReleased { saga_id, order_id }.into()
        }
        // Our own replies, which are the saga's to handle.
        InventoryEvent::InventoryReserved(_)
        | InventoryEvent::InventoryRefused(_)
        | InventoryEvent::InventoryReleased(_) => return Ok(()),
    };
    Ok(tx.emit(&reply).await?)
}

async fn reserve(
    tx: &mut Tx,
    command: ReserveInventory,
    cause: uuid::Uuid,
) -> Result<InventoryEvent, Error> {
    let ReserveInventory {
        saga_id,
        order_id,
        items,
    } = command;
    check_saga(saga_id, order_id)?;
    Ok(match store::reserve(tx, order_id, &items, cause).await? {
        Decision { reason: None, .. } => InventoryReserved { saga_id, order_id }.into(),
        Decision {
            reason: Some(reason),
            ..
        } => InventoryRefused {
            saga_id,
            order_id,
            reason,
        }
        .into(),
    })
}
