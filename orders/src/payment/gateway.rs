//! What the payment service asks of the outside world.

use ackwell::{Class, Classify};
use futures_util::future::BoxFuture;
use uuid::Uuid;

use crate::events::payment::PaymentMethod;
use crate::money::Cents;

/// Where money is taken and given back.
///
/// It knows nothing of our transactions, so every request has a key: asked again with it, the
/// gateway answers as before and books nothing.
pub(crate) trait Gateway: Send + Sync {
    /// Takes an amount, once for each key.
    fn charge<'a>(&'a self, charge: &'a Charge) -> BoxFuture<'a, Result<Answer, GatewayError>>;

    /// Gives back what was charged with this key, if anything; once.
    fn refund(&self, key: Uuid) -> BoxFuture<'_, Result<(), GatewayError>>;
}

/// What to take from whom.
#[derive(Debug, Clone)]
pub(crate) struct Charge {
    /// The idempotency key: the order's id, since an order is paid once.
    pub(crate) key: Uuid,
    /// What it is for, as the gateway's books name it.
    pub(crate) order_id: Uuid,
    pub(crate) amount: Cents,
    pub(crate) method: PaymentMethod,
}

/// What the gateway says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It has taken the amount.
    Approved { charge_id: Uuid },
    /// It has taken nothing, and will not.
    Declined { reason: String },
}

/// Why there is no answer; whether something was taken is not known.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GatewayError {
    /// Ask again.
    #[error("the payment gateway does not answer")]
    NoAnswer,
    /// Ours is the mistake.
    #[error("the key was used for a charge of {0} before")]
    OtherAmount(Cents),
    /// The simulated gateway's own books can't be reached.
    #[error("the payment gateway's ledger")]
    Ledger(#[from] ackwell_sql::Error),
}

impl Classify for GatewayError {
    fn class(&self) -> Class {
        match self {
            Self::NoAnswer => Class::Transient,
            Self::OtherAmount(_) => Class::Permanent,
            Self::Ledger(error) => error.class(),
        }
    }
}
