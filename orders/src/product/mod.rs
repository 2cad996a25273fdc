//! The product service: products with stock, reserved for orders and given back.
//!
//! One request's way through this folder: [`listener`] takes it, [`store`] reserves
//! every item or none in the same transaction in which the answer is emitted.

use ackwell::Listener;

use crate::events::choreography::{STOCK_VALID_REQUEST, STOCK_VALID_RESPONSE};
use crate::events::inventory::INVENTORY_EVENTS;
use crate::serve::{Declared, Scope};

pub(crate) mod http;
pub(crate) mod listener;
pub(crate) mod store;

/// The product service: requests of both flows come in, answers go out.
pub(crate) async fn declare(scope: &Scope<'_>) -> Result<Declared, ackwell_sql::Error> {
    let db = scope.database("product", store::MIGRATIONS).await?;
    let requests = Listener::on(STOCK_VALID_REQUEST)
        .and_on(INVENTORY_EVENTS)
        .group(listener::GROUP);
    Ok(Declared {
        app: scope
            .app(listener::GROUP, &db)
            .topic(STOCK_VALID_RESPONSE)
            .listener(
                requests
                    .on_event(listener::on_stock_request)
                    .on_event(listener::on_inventory_event),
            ),
        routes: http::routes(db),
    })
}
