//! An order's money: what the gateway's ledger has booked, what the payment service knows of it, and
//! what the order says.

use uuid::Uuid;

use super::facts::{Once, OrderFact};
use crate::config::Flow;
use crate::money::Cents;
use crate::order::Status;
use crate::payment::store::State;

/// What is known of an order's money.
#[derive(Debug, Default, Clone)]
pub(crate) struct Money {
    /// `ChargePayment` on `payment-events`: event id and amount.
    pub(crate) charge: Once<Cents>,
    /// Its row in `payment.db`.
    pub(crate) payment: Option<PaymentFact>,
    /// What the gateway has booked.
    pub(crate) ledger: Ledger,
}

/// What `payment.db` says.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PaymentFact {
    /// Where the payment stands.
    pub(crate) state: State,
    /// How much; `None` where a refund came before the charge.
    pub(crate) amount: Option<Cents>,
    /// The gateway's id, where it took the amount.
    pub(crate) charge_id: Option<Uuid>,
}

/// Charges that the gateway approved, and what it gave back of them.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Ledger {
    charges: u32,
    charged: Cents,
    refunded: Cents,
    charge_id: Option<Uuid>,
}

impl Ledger {
    /// Takes note of a charge, and of its refund.
    pub(crate) fn book(&mut self, charge_id: Uuid, amount: Cents, refunded: Option<Cents>) {
        self.charges += 1;
        self.charged = self.charged.plus(amount);
        self.refunded = self.refunded.plus(refunded.unwrap_or_default());
        self.charge_id = Some(charge_id);
    }

    fn holds(&self) -> bool {
        self.charged != self.refunded || (self.charges > 0 && self.charged == Cents::default())
    }
}

impl Money {
    /// What does not fit the order, and what does not fit among ledger and payment service.
    pub(crate) fn check(&self, order: &OrderFact, said: &mut Vec<String>) {
        self.check_ledger(order, said);
        if self
            .charge
            .value()
            .is_some_and(|amount| amount != order.total)
        {
            said.push("was to be charged another amount than its total".to_owned());
        }
        if let Some(payment) = &self.payment {
            self.check_payment(payment, order, said);
        } else if self.ledger.holds() {
            said.push("was charged, and payment.db does not know it".to_owned());
        }
    }

    fn check_ledger(&self, order: &OrderFact, said: &mut Vec<String>) {
        let Ledger {
            charges,
            charged,
            refunded,
            ..
        } = self.ledger;
        let (status, total) = (order.status, order.total);
        if charges > 1 {
            said.push(format!("was charged {charges} times, {charged} in all"));
        }
        match (order.flow, status) {
            (Flow::Choreography, _) if charges > 0 => {
                said.push(format!("goes without payment, and was charged {charged}"));
            }
            (Flow::Saga, Status::Confirmed) if charges == 0 => {
                said.push(format!("is {status}, and the ledger has no charge of it"));
            }
            (Flow::Saga, Status::Confirmed) if charged != total.plus(refunded) => {
                said.push(format!(
                    "is {status} for {total}, and was charged {charged} and refunded {refunded}"
                ));
            }
            (Flow::Saga, Status::Cancelled) if charged != refunded => {
                said.push(format!(
                    "is {status}, and was charged {charged} and refunded {refunded}"
                ));
            }
            _ => {}
        }
    }

    fn check_payment(&self, payment: &PaymentFact, order: &OrderFact, said: &mut Vec<String>) {
        let fits = match payment.state {
            State::Charged => self.ledger.holds(),
            State::Failed => self.ledger.charges == 0,
            State::Refunded => self.ledger.charged == self.ledger.refunded,
        };
        if !fits {
            let state = payment.state;
            said.push(format!(
                "is {state:?} in payment.db, and the ledger says otherwise"
            ));
        }
        if payment.charge_id.is_some() && payment.charge_id != self.ledger.charge_id {
            said.push("has a charge in payment.db that is not the ledger's".to_owned());
        }
        if payment.amount.is_some_and(|amount| amount != order.total) {
            said.push("has another amount in payment.db than its total".to_owned());
        }
    }

    /// Whether anything is known of money.
    pub(crate) fn is_known(&self) -> bool {
        self.payment.is_some() || self.ledger.charges > 0 || self.charge.is_known()
    }
}
