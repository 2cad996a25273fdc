//! Requests for stock, from the order service.

use ackwell::extract::{Event, Header};
use ackwell_sql::Tx;

use super::store;
use crate::error::Error;
use crate::events::EventId;
use crate::events::choreography::{StockAnswer, StockRequest};

/// The consumer group. All instances of the service share it.
pub(crate) const GROUP: &str = "product-service";

/// Reserves or releases, and answers, in one transaction.
pub(crate) async fn on_stock_request(
    Event(request): Event<StockRequest>,
    Header(event_id, ..): Header<EventId>,
    mut tx: Tx,
) -> Result<(), Error> {
    match request {
        StockRequest::StockValidRequested(request) => {
            let verdict = store::reserve(&mut tx, request, event_id).await?;
            tx.emit(&StockAnswer::StockValidResponded(verdict)).await?;
            Ok(())
        }
        StockRequest::StockReleaseRequested(release) => {
            store::release(&mut tx, &release, event_id).await
        }
    }
}
