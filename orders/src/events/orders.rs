//! `order-events`: what became of an order, and the saga's last command.
//!
//! `OrderPlaced` begins flow B. How an order ends is said in both flows, once, in the transaction in
//! which it ends: notification and shipping live on it.

use ackwell::Topic;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Items;
use super::payment::PaymentMethod;
use crate::money::Cents;

/// Of the order service.
pub(crate) const ORDER_EVENTS: Topic<OrderEvent> = Topic::new("order-events").partitions(6);

ackwell::events! {
    /// What is said of an order.
    #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
    #[serde(tag = "event_type")]
    pub(crate) enum OrderEvent on ORDER_EVENTS, keyed by order_id {
        /// It was accepted.
        OrderPlaced(OrderPlaced),
        /// Command of the saga: stock and money are there.
        ConfirmOrder(ConfirmOrder),
        /// It is final: prepare its shipping.
        OrderConfirmed(OrderConfirmed),
        /// It is final: refused or withdrawn.
        OrderCancelled(OrderCancelled),
        /// It is final for the machine; a person must decide.
        OrderSentToReview(OrderSentToReview),
    }
}

/// Everything that its saga needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct OrderPlaced {
    /// See [`saga_id`](super::saga_id).
    pub(crate) saga_id: Uuid,
    pub(crate) order_id: Uuid,
    pub(crate) customer_id: String,
    pub(crate) items: Items,
    /// What they cost.
    pub(crate) amount: Cents,
    pub(crate) payment_method: PaymentMethod,
}

/// The saga's last command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ConfirmOrder {
    pub(crate) saga_id: Uuid,
    pub(crate) order_id: Uuid,
}

/// What is to be sent, and to whom.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct OrderConfirmed {
    pub(crate) saga_id: Uuid,
    pub(crate) order_id: Uuid,
    pub(crate) customer_id: String,
    pub(crate) items: Items,
    pub(crate) amount: Cents,
}

/// Why there will be nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct OrderCancelled {
    pub(crate) saga_id: Uuid,
    pub(crate) order_id: Uuid,
    pub(crate) customer_id: String,
    /// For people.
    pub(crate) reason: String,
}

/// Why a person must look at it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct OrderSentToReview {
    pub(crate) saga_id: Uuid,
    pub(crate) order_id: Uuid,
    pub(crate) customer_id: String,
    /// For people.
    pub(crate) reason: String,
}
