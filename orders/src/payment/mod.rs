//! The payment service: takes an order's money once, and gives it back.
//!
//! One command's way through this folder: [`listener`] takes it and asks the [`gateway`], which is
//! the outside world and knows nothing of our transaction; [`store`] keeps the answer, together with
//! the reply to the saga. A crash between the two asks the gateway again, and its idempotency key (the
//! order's id) makes the second charge the first.

use std::sync::Arc;
use std::time::Duration;

use ackwell::retry::exponential;
use ackwell::{Listener, by_key};

use self::gateway::Gateway;
use self::simulated::Simulated;
use crate::events::payment::PAYMENT_EVENTS;
use crate::serve::{Declared, Scope};

pub(crate) mod gateway;
pub(crate) mod http;
pub(crate) mod listener;
pub(crate) mod simulated;
pub(crate) mod store;

/// Customers who are charged at a time: a slow answer holds up those that share its lane, no others.
const LANES: u16 = 128;
/// How often a gateway that does not answer is asked before the command is dead-lettered; the saga's
/// timeout then decides, and refunds what may have been charged.
const ATTEMPTS: u32 = 6;

/// The payment service: commands come in from `payment-events`, replies go out there.
pub(crate) async fn declare(scope: &Scope<'_>) -> Result<Declared, ackwell_sql::Error> {
    let orders = &scope.settings.orders;
    if orders.slow_payment_is_in_time() {
        tracing::warn!(
            slow_payment_ms = orders.slow_payment_ms,
            payment_timeout_ms = orders.payment_timeout_ms,
            "payments by the method slow come before their timeout, and are not refunded: to see that, set \
             ORDERS_SLOW_PAYMENT_MS above ORDERS_PAYMENT_TIMEOUT_MS"
        );
    }
    let db = scope.database("payment", store::MIGRATIONS).await?;
    let ledger = scope.database("gateway", simulated::MIGRATIONS).await?;
    let gateway: Arc<dyn Gateway> = Arc::new(Simulated::new(ledger, orders));
    let commands = Listener::on(PAYMENT_EVENTS)
        .group(listener::GROUP)
        .concurrency(by_key(LANES))
        .retry(exponential(Duration::from_millis(100), 2.0).max_attempts(ATTEMPTS));
    Ok(Declared {
        app: scope
            .app(listener::GROUP, &db)
            .state(gateway)
            .listener(commands.handle(listener::on_payment_event)),
        routes: http::routes(db),
    })
}
