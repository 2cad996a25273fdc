//! What the services say to each other.
//!
//! | topic | commands to, and replies of | file |
//! |---|---|---|
//! | `order-events` | order service | [`orders`] |
//! | `inventory-events` | product service | [`inventory`] |
//! | `payment-events` | payment service | [`payment`] |
//! | `notification-events` | notification service | [`notification`] |
//! | `saga-events` | observers of the orchestrator | [`saga`] |
//! | `user-events`, `audit-events` | user service | [`users`] |
//! | `stock-valid-request`, `stock-valid-response` | product service, in flow A | [`choreography`] |
//!
//! Every event of an order has the order's id as its key, so all of them on a topic lie on one
//! partition in the order in which they were committed: a release that was sent after a request
//! is handled after it. What can't be decoded (no items, an amount that is no decimal string, a
//! quantity below one) is dead-lettered with its reason before any of it takes effect.

use ackwell::EVENT_ID;
use ackwell::extract::FromHeader;
use uuid::Uuid;

use crate::error::Error;

pub(crate) mod choreography;
pub(crate) mod inventory;
mod items;
pub(crate) mod notification;
pub(crate) mod orders;
pub(crate) mod payment;
pub(crate) mod saga;
pub(crate) mod users;

pub(crate) use items::{Items, Wanted};

/// The name space of saga ids. Part of every id: never change it.
pub(crate) const SAGA_IDS: Uuid = Uuid::from_u128(0x5c1b_93d4_0e8f_4b6a_8d27_61c0_a9f3_2e75);

/// The id of the saga of this order. It is derived, so an order has one saga whatever is redelivered.
pub(crate) fn saga_id(order_id: Uuid) -> Uuid {
    Uuid::new_v5(&SAGA_IDS, order_id.to_string().as_bytes())
}

/// Refuses a command or reply whose saga is not that of its order: it was never ours.
pub(crate) fn check_saga(saga_id: Uuid, order_id: Uuid) -> Result<(), Error> {
    if saga_id == self::saga_id(order_id) {
        return Ok(());
    }
    Err(Error::Impossible(format!(
        "saga {saga_id} is not that of order {order_id}"
    )))
}

/// The id of the event in hand, as an extractor: `Header<EventId>`.
pub(crate) struct EventId;

impl FromHeader for EventId {
    const NAME: &'static str = EVENT_ID;
    type Value = Uuid;
}

#[cfg(test)]
mod tests {
    use ackwell::Event;
    use serde_json::{Value, json};

    use super::inventory::InventoryEvent;
    use super::notification::NotificationEvent;
    use super::orders::OrderEvent;
    use super::payment::PaymentEvent;
    use super::saga::SagaEvent;
    use super::users::{AuditEvent, UserEvent};
    use super::*;

    /// Every field that an event of flow B may have.
    fn fields() -> Value {
        json!({
            "saga_id": saga_id(Uuid::nil()),
            "order_id": Uuid::nil(),
            "customer_id": "7",
            "items": [{"product_id": "cd-01", "quantity": 2}],
            "amount": "29.33",
            "payment_method": "card",
            "charge_id": Uuid::nil(),
            "reason": "because",
            "kind": "CONFIRMED",
            "step": "charge_payment",
            "status": "COMPLETED",
            "user_id": Uuid::nil(),
            "email": "a@example.org",
            "name": "A",
            "aggregate_type": "user",
            "aggregate_id": Uuid::nil(),
            "action": "created",
        })
    }

    fn of_type(event_type: &str, with: &[(&str, Value)]) -> Value {
        let mut value = fields();
        value["event_type"] = json!(event_type);
        for (name, field) in with {
            value[*name] = field.clone();
        }
        value
    }

    fn speaks_for_itself<E: Event>() {
        for event_type in E::TYPES {
            let event: E = serde_json::from_value(of_type(event_type, &[])).unwrap();
            assert_eq!(event.event_type(), *event_type);
            assert_eq!(event.aggregate_id(), Uuid::nil().to_string());
            let written = serde_json::to_value(&event).unwrap();
            assert_eq!(written["event_type"], *event_type);
            for (name, value) in written.as_object().unwrap() {
                assert_eq!(
                    *value,
                    of_type(event_type, &[])[name],
                    "{event_type}: {name}"
                );
            }
        }
        assert!(serde_json::from_value::<E>(of_type("SomethingElse", &[])).is_err());
    }

    #[test]
    fn every_event_is_plain_json_that_names_its_type_and_is_keyed_by_its_aggregate() {
        speaks_for_itself::<OrderEvent>();
        speaks_for_itself::<InventoryEvent>();
        speaks_for_itself::<PaymentEvent>();
        speaks_for_itself::<NotificationEvent>();
        speaks_for_itself::<SagaEvent>();
        speaks_for_itself::<UserEvent>();
        speaks_for_itself::<AuditEvent>();
    }

    #[test]
    fn a_command_without_items_or_with_less_than_one_unit_cannot_be_decoded() {
        for items in [
            json!([]),
            json!(null),
            json!([{"product_id": "a", "quantity": 0}]),
            json!([{"product_id": "a", "quantity": -1}]),
            json!([{"product_id": "a", "quantity": 1.5}]),
            json!([{"product_id": "a", "quantity": 4_294_967_296_u64}]),
        ] {
            let command = of_type("ReserveInventory", &[("items", items.clone())]);
            assert!(
                serde_json::from_value::<InventoryEvent>(command).is_err(),
                "{items}"
            );
        }
    }

    #[test]
    fn an_amount_that_is_no_decimal_string_cannot_be_decoded() {
        for amount in [
            json!(29.33),
            json!(2933),
            json!("-1.00"),
            json!("1.001"),
            json!("1e3"),
            json!(""),
        ] {
            for event_type in ["ChargePayment", "PaymentCharged"] {
                let event = of_type(event_type, &[("amount", amount.clone())]);
                assert!(
                    serde_json::from_value::<PaymentEvent>(event).is_err(),
                    "{amount}"
                );
            }
        }
    }

    #[test]
    fn a_payment_method_that_nobody_knows_is_not_taken_for_a_card() {
        let charge = of_type("ChargePayment", &[("payment_method", json!("cheque"))]);
        assert!(serde_json::from_value::<PaymentEvent>(charge).is_err());
    }

    #[test]
    fn an_order_has_one_saga() {
        assert_eq!(saga_id(Uuid::nil()), saga_id(Uuid::nil()));
        assert_ne!(saga_id(Uuid::nil()), saga_id(Uuid::max()));
        assert!(check_saga(saga_id(Uuid::nil()), Uuid::nil()).is_ok());
        assert!(check_saga(saga_id(Uuid::max()), Uuid::nil()).is_err());
    }
}
