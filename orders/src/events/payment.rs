//! `payment-events`: commands to the payment service, and its replies. A command that comes again is
//! answered again in the same words.

use ackwell::Topic;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::money::Cents;

/// Between the saga and the payment service.
pub(crate) const PAYMENT_EVENTS: Topic<PaymentEvent> = Topic::new("payment-events").partitions(6);

ackwell::events! {
    /// What is said of the payment of an order.
    #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
    #[serde(tag = "event_type")]
    pub(crate) enum PaymentEvent on PAYMENT_EVENTS, keyed by order_id {
        /// Command: take the money.
        ChargePayment(ChargePayment),
        /// Command: give back what was or will be taken.
        RefundPayment(RefundPayment),
        /// Reply: it is taken.
        PaymentCharged(PaymentCharged),
        /// Reply: nothing is.
        PaymentFailed(PaymentFailed),
        /// Reply: nothing is any more, and nothing will be.
        PaymentRefunded(PaymentRefunded),
    }
}

/// How a customer pays; with the simulated gateway, also how that goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum PaymentMethod {
    /// Approved up to the limit.
    #[default]
    Card,
    /// Never approved.
    Declined,
    /// Answered after the saga's patience is over.
    Slow,
    /// Fails twice for the moment, then goes as `card`.
    Flaky,
}

impl PaymentMethod {
    const ALL: [Self; 4] = [Self::Card, Self::Declined, Self::Slow, Self::Flaky];

    /// The word for users and for the database.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Card => "card",
            Self::Declined => "declined",
            Self::Slow => "slow",
            Self::Flaky => "flaky",
        }
    }

    /// The method with this name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|method| method.name() == name)
    }
}

/// What to take from whom.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ChargePayment {
    pub(crate) saga_id: Uuid,
    pub(crate) order_id: Uuid,
    pub(crate) customer_id: String,
    pub(crate) amount: Cents,
    pub(crate) payment_method: PaymentMethod,
}

/// Whose money to give back. Before the charge it leaves a mark that refuses it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RefundPayment {
    pub(crate) saga_id: Uuid,
    pub(crate) order_id: Uuid,
    /// For people.
    pub(crate) reason: String,
}

/// The money is taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PaymentCharged {
    pub(crate) saga_id: Uuid,
    pub(crate) order_id: Uuid,
    /// The gateway's, for a refund.
    pub(crate) charge_id: Uuid,
    pub(crate) amount: Cents,
}

/// Nothing is taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PaymentFailed {
    pub(crate) saga_id: Uuid,
    pub(crate) order_id: Uuid,
    /// For people.
    pub(crate) reason: String,
}

/// Nothing is held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PaymentRefunded {
    pub(crate) saga_id: Uuid,
    pub(crate) order_id: Uuid,
}
