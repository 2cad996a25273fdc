//! The order service: accepts orders and keeps what became of them.
//!
//! One order's way through this folder: [`http`] takes it, [`request`] checks it,
//! [`store`] writes it in one transaction with what sends it on its way. In flow A that is the event
//! that asks for its stock; the product service answers, and [`listener`] moves the order to its final
//! state. In flow B it is the order's [`saga`], which decides what becomes of it.

use std::fmt;

use ackwell::{Listener, by_key};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::events::choreography::{STOCK_VALID_REQUEST, STOCK_VALID_RESPONSE};
use crate::events::inventory::INVENTORY_EVENTS;
use crate::events::orders::ORDER_EVENTS;
use crate::events::payment::PAYMENT_EVENTS;
use crate::events::payment::PaymentMethod;
use crate::events::saga::SAGA_EVENTS;
use crate::money::{Cents, UnitPrice};
use crate::serve::{Declared, Scope, ServeError};

use self::saga::{OrderSaga, OrderSagas};

pub(crate) mod http;
pub(crate) mod listener;
pub(crate) mod request;
pub(crate) mod saga;
pub(crate) mod store;

/// Orders that are worked on at a time, by each listener: about as many as requests that place new ones, or the
/// older orders would wait for the newer ones, who share the database's writer with them.
const LANES: u16 = 64;

/// The order service, and the orchestrator of its sagas. Both flows are always there: orders that are on their
/// way stay on theirs when the setting changes.
pub(crate) async fn declare(scope: &Scope<'_>) -> Result<Declared, ServeError> {
    let orders = &scope.settings.orders;
    let sagas = OrderSagas::new(OrderSaga::new(orders))?;
    let db = scope.database("order", store::MIGRATIONS).await?;
    let ours = Listener::on(STOCK_VALID_RESPONSE)
        .and_on(ORDER_EVENTS)
        .group(listener::GROUP)
        .concurrency(by_key(LANES))
        .on_event(listener::on_stock_answer)
        .on_event(listener::on_order_event);
    let replies = Listener::on(INVENTORY_EVENTS)
        .and_on(PAYMENT_EVENTS)
        .and_on(ORDER_EVENTS)
        .group(saga::listener::GROUP)
        .concurrency(by_key(LANES))
        .on_event(saga::listener::on_inventory_event)
        .on_event(saga::listener::on_payment_event)
        .on_event(saga::listener::on_order_event);
    // An answer that came in time is not too late because many wait to be read.
    let monitor = sagas
        .monitor(db.clone())
        .retention(orders.saga_retention())
        .replies(
            saga::listener::GROUP,
            &[
                INVENTORY_EVENTS.name(),
                PAYMENT_EVENTS.name(),
                ORDER_EVENTS.name(),
            ],
        );
    Ok(Declared {
        app: scope
            .app(listener::GROUP, &db)
            .state(sagas.clone())
            .topic(STOCK_VALID_REQUEST)
            .topic(SAGA_EVENTS)
            .listener(ours)
            .listener(replies)
            .service(monitor),
        routes: http::routes(db.clone(), orders.flow, sagas.clone())
            .merge(saga::http::routes(db, sagas)),
    })
}

/// The name space of order ids. Part of every id: never change it.
const ORDER_IDS: Uuid = Uuid::from_u128(0x1f0c_5a8e_7d1b_4c52_9a36_0b7e_52d4_c1ae);

/// The id of the order with this idempotency key.
///
/// It is derived, so that no order can exist twice: the key decides the id, and
/// the id is unique. A client that lost the answer, and the audit, can work out
/// the id again.
pub(crate) fn order_id(idempotency_key: &str) -> Uuid {
    Uuid::new_v5(&ORDER_IDS, idempotency_key.as_bytes())
}

/// Where an order stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(crate) enum Status {
    /// Accepted; its stock is being reserved.
    Pending,
    /// Its stock is reserved. Final.
    Confirmed,
    /// Refused or withdrawn, with a reason. Final.
    Cancelled,
    /// A person must decide. Final for the machine.
    ManualReview,
}

/// What happens to an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Input {
    /// The product service reserved every item.
    StockReserved,
    /// The product service reserved nothing.
    StockRefused,
    /// The customer withdrew it.
    Withdrawn,
    /// The saga's last command: stock and money are there.
    SagaConfirms,
    /// The saga takes back what was done.
    SagaFailed,
    /// A person must decide about the saga.
    SagaInReview,
}

impl Status {
    /// Every status, as shown to users.
    pub(crate) const NAMES: [&'static str; 4] =
        ["PENDING", "CONFIRMED", "CANCELLED", "MANUAL_REVIEW"];
    const ALL: [Self; 4] = [
        Self::Pending,
        Self::Confirmed,
        Self::Cancelled,
        Self::ManualReview,
    ];

    /// The sequence guard: the state that follows, or `None` where the input came
    /// too late and changes nothing. CONFIRMED and CANCELLED are never left.
    pub(crate) fn on(self, input: Input) -> Option<Self> {
        match (self, input) {
            (Self::Pending, Input::StockReserved | Input::SagaConfirms) => Some(Self::Confirmed),
            (Self::Pending, Input::StockRefused | Input::Withdrawn | Input::SagaFailed) => {
                Some(Self::Cancelled)
            }
            (Self::Pending, Input::SagaInReview) => Some(Self::ManualReview),
            // Resolved: by a person, or by an answer that came after all.
            (Self::ManualReview, Input::SagaConfirms) => Some(Self::Confirmed),
            (Self::ManualReview, Input::SagaFailed) => Some(Self::Cancelled),
            (Self::Confirmed | Self::Cancelled | Self::ManualReview, _) => None,
        }
    }

    /// Whether nothing more happens to the order by itself.
    pub(crate) fn is_final(self) -> bool {
        self != Self::Pending
    }

    /// Whether `history` is one that an order can have: accepted, then at most one
    /// final state, which a review may come before.
    pub(crate) fn is_legal_history(history: &[Self]) -> bool {
        match history {
            [Self::Pending] => true,
            [Self::Pending, last] => last.is_final(),
            [Self::Pending, Self::ManualReview, last] => {
                matches!(last, Self::Confirmed | Self::Cancelled)
            }
            _ => false,
        }
    }

    /// The word for users and for the database.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Pending => "PENDING",
            Self::Confirmed => "CONFIRMED",
            Self::Cancelled => "CANCELLED",
            Self::ManualReview => "MANUAL_REVIEW",
        }
    }

    /// The status with this name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.name() == name)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One line of an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Item {
    /// Which product.
    pub(crate) product_id: String,
    /// How many units; at least one.
    pub(crate) quantity: u32,
    /// The price of one unit.
    pub(crate) unit_price: UnitPrice,
}

/// One entry of an order's history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Change {
    /// The state that was reached.
    pub(crate) status: Status,
    /// When.
    pub(crate) at: Timestamp,
    /// Why, where it is not plain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
}

/// An order as its service shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Order {
    /// See [`order_id`].
    pub(crate) order_id: Uuid,
    /// Whose it is.
    pub(crate) customer_id: String,
    /// Its lines.
    pub(crate) items: Vec<Item>,
    /// Quantity times unit price of every line, rounded half-even to cents.
    pub(crate) total_amount: Cents,
    /// How it is paid.
    pub(crate) payment_method: PaymentMethod,
    /// Where it stands.
    pub(crate) status: Status,
    /// Why it was cancelled.
    pub(crate) reason: Option<String>,
    /// Each state it reached, in order.
    pub(crate) history: Vec<Change>,
}

#[cfg(test)]
mod tests {
    use super::*;

    const INPUTS: [Input; 6] = [
        Input::StockReserved,
        Input::StockRefused,
        Input::Withdrawn,
        Input::SagaConfirms,
        Input::SagaFailed,
        Input::SagaInReview,
    ];

    #[test]
    fn the_first_input_decides() {
        assert_eq!(
            Status::Pending.on(Input::StockReserved),
            Some(Status::Confirmed)
        );
        assert_eq!(
            Status::Pending.on(Input::StockRefused),
            Some(Status::Cancelled)
        );
        assert_eq!(
            Status::Pending.on(Input::Withdrawn),
            Some(Status::Cancelled)
        );
    }

    #[test]
    fn a_late_or_repeated_input_never_leaves_a_final_state() {
        for last in [Status::Confirmed, Status::Cancelled] {
            for input in INPUTS {
                assert_eq!(last.on(input), None, "{last} on {input:?}");
            }
        }
    }

    #[test]
    fn every_run_of_inputs_makes_a_legal_history() {
        for first in INPUTS {
            for second in INPUTS {
                let mut history = vec![Status::Pending];
                for input in [first, second] {
                    history.extend(history.last().and_then(|last| last.on(input)));
                }
                assert!(Status::is_legal_history(&history), "{history:?}");
            }
        }
        assert!(!Status::is_legal_history(&[]));
        assert!(!Status::is_legal_history(&[Status::Confirmed]));
        assert!(!Status::is_legal_history(&[
            Status::Pending,
            Status::Pending
        ]));
        assert!(!Status::is_legal_history(&[
            Status::Pending,
            Status::Cancelled,
            Status::Confirmed
        ]));
    }

    #[test]
    fn one_key_has_one_id() {
        assert_eq!(order_id("sample-row-1"), order_id("sample-row-1"));
        assert_ne!(order_id("sample-row-1"), order_id("sample-row-2"));
        assert_eq!(order_id("sample-row-1").get_version_num(), 5);
    }

    #[test]
    fn names_read_back() {
        for (status, name) in Status::ALL.into_iter().zip(Status::NAMES) {
            assert_eq!(status.name(), name);
            assert_eq!(Status::named(name), Some(status));
        }
        assert_eq!(Status::named("pending"), None);
    }
}
