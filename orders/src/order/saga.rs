//! Flow B: what becomes of an order is decided by a saga over three services.
//!
//! ```text
//! reserve inventory ──▶ charge payment ──▶ confirm order
//!        ▲ release            ▲ refund          (no way back)
//! ```
//!
//! The saga lives in the order service's database, so that an order and its saga change in one
//! transaction: the order is placed with its saga, it is CANCELLED when the saga begins to take back,
//! and MANUAL_REVIEW when a person must decide. How each reply, timeout and cancel goes on from each
//! state is said once, by [`ackwell_sql::saga`].

use std::time::Duration;

use ackwell_sql::Tx;
use ackwell_sql::saga::{Change, Declaration, Happening, Phase, Saga, Sagas, Status, Step};
use jiff::Timestamp;
use uuid::Uuid;

use super::Input;
use super::store::{self, Advanced};
use crate::config::Orders;
use crate::error::Error;
use crate::events::SAGA_IDS;
use crate::events::inventory::{InventoryEvent, ReleaseInventory, ReserveInventory};
use crate::events::orders::{ConfirmOrder, OrderEvent, OrderPlaced};
use crate::events::payment::{ChargePayment, PaymentEvent, RefundPayment};
use crate::events::saga::{
    SagaCompensating, SagaEvent, SagaFinished, SagaStarted, SagaStepCompleted,
};

pub(crate) mod http;
pub(crate) mod listener;
#[cfg(test)]
mod races;

/// The sagas of orders.
pub(crate) type OrderSagas = Sagas<OrderSaga>;

/// How an order goes through the three services.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OrderSaga {
    reservation: Duration,
    payment: Duration,
    confirmation: Duration,
}

impl OrderSaga {
    /// With the timeouts of the settings.
    pub(crate) fn new(orders: &Orders) -> Self {
        Self {
            reservation: Duration::from_millis(orders.reservation_timeout_ms),
            payment: Duration::from_millis(orders.payment_timeout_ms),
            confirmation: Duration::from_millis(orders.confirmation_timeout_ms),
        }
    }
}

impl Saga for OrderSaga {
    const IDS: Uuid = SAGA_IDS;
    type Data = OrderPlaced;
    type Error = Error;

    fn declare(&self) -> Declaration<OrderPlaced> {
        Declaration::named("order")
            .step(
                Step::named("reserve inventory")
                    .sends("ReserveInventory", reserve)
                    .done_on("InventoryReserved")
                    .refused_on("InventoryRefused")
                    .undone_by("ReleaseInventory", release)
                    .undone_on("InventoryReleased")
                    .within(self.reservation)
                    .or_compensate(),
            )
            .step(
                Step::named("charge payment")
                    .sends("ChargePayment", charge)
                    .done_on("PaymentCharged")
                    .refused_on("PaymentFailed")
                    .undone_by("RefundPayment", refund)
                    .undone_on("PaymentRefunded")
                    .within(self.payment)
                    .or_compensate(),
            )
            .step(
                Step::named("confirm order")
                    .sends("ConfirmOrder", confirm)
                    .done_on("OrderConfirmed")
                    .nothing_to_undo()
                    .point_of_no_return()
                    .within(self.confirmation)
                    .or_review(),
            )
    }

    /// The order follows its saga, and those who watch are told.
    async fn changed(&self, tx: &mut Tx, change: &Change<'_, OrderPlaced>) -> Result<(), Error> {
        if let Some(input) = order_input(change) {
            let id = change.data.order_id;
            let reason = Some(change.reason);
            let advanced = store::advance(tx, id, input, reason, Timestamp::now(), None).await?;
            // An order that was confirmed meanwhile is not taken back: its saga will hear of it.
            if let (Input::SagaFailed, Advanced::TooLate(super::Status::Confirmed)) =
                (input, advanced)
            {
                return Err(Error::Overtaken(id));
            }
        }
        for event in told(change) {
            tx.emit(&event).await?;
        }
        Ok(())
    }
}

/// What becomes of the order; the saga's last step confirms it.
fn order_input(change: &Change<'_, OrderPlaced>) -> Option<Input> {
    if change.is_now(Status::Compensating) || change.is_now(Status::Compensated) {
        return Some(Input::SagaFailed);
    }
    change
        .is_now(Status::ManualReview)
        .then_some(Input::SagaInReview)
}

/// What observers hear of a move.
fn told(change: &Change<'_, OrderPlaced>) -> Vec<SagaEvent> {
    let (saga_id, order_id) = (change.saga_id, change.data.order_id);
    let name = |step| change.plan.step_name(step).to_owned();
    let mut events = Vec::new();
    match change.happening {
        Happening::Started => events.push(SagaStarted { saga_id, order_id }.into()),
        Happening::Done(step) => {
            let step = name(step);
            let completed = SagaStepCompleted {
                saga_id,
                order_id,
                step,
            };
            events.push(completed.into());
        }
        _ => {}
    }
    if change.is_now(Status::Compensating) {
        let failed = change.before.and_then(Phase::step);
        let compensating = SagaCompensating {
            saga_id,
            order_id,
            step: failed.map(name).unwrap_or_default(),
            reason: change.reason.to_owned(),
        };
        events.push(compensating.into());
    }
    let status = change.now.status();
    let rests = status.is_final() || status == Status::ManualReview;
    if rests && change.is_now(status) {
        let status = status.name().to_owned();
        let finished = SagaFinished {
            saga_id,
            order_id,
            status,
        };
        events.push(finished.into());
    }
    events
}

fn reserve(order: &OrderPlaced) -> InventoryEvent {
    ReserveInventory {
        saga_id: order.saga_id,
        order_id: order.order_id,
        items: order.items.clone(),
    }
    .into()
}

fn release(order: &OrderPlaced, reason: &str) -> InventoryEvent {
    ReleaseInventory {
        saga_id: order.saga_id,
        order_id: order.order_id,
        reason: reason.to_owned(),
    }
    .into()
}

fn charge(order: &OrderPlaced) -> PaymentEvent {
    ChargePayment {
        saga_id: order.saga_id,
        order_id: order.order_id,
        customer_id: order.customer_id.clone(),
        amount: order.amount,
        payment_method: order.payment_method,
    }
    .into()
}

fn refund(order: &OrderPlaced, reason: &str) -> PaymentEvent {
    RefundPayment {
        saga_id: order.saga_id,
        order_id: order.order_id,
        reason: reason.to_owned(),
    }
    .into()
}

fn confirm(order: &OrderPlaced) -> OrderEvent {
    ConfirmOrder {
        saga_id: order.saga_id,
        order_id: order.order_id,
    }
    .into()
}

#[cfg(test)]
mod tests {
    use ackwell::Event;
    use ackwell_sql::saga::Happening;

    use super::*;
    use crate::events::saga_id;

    fn plan() -> ackwell_sql::saga::Plan {
        OrderSaga::new(&Orders::default()).declare().plan().unwrap()
    }

    #[test]
    fn every_path_of_an_order_ends_and_leaves_neither_stock_nor_money_behind() {
        let plan = plan();
        let walked = plan.walk();
        assert!(!walked.truncated && walked.stuck.is_empty());
        for path in &walked.paths {
            let told = path.told(&plan).to_string();
            assert!(path.state.status().is_final(), "{told}");
            assert!(path.is_balanced(&plan), "{told}");
        }
        let mut steps = plan.steps();
        let payment = steps.nth(1).unwrap();
        let refused = Happening::Refused(payment);
        let path = walked.paths.iter().find(|path| path.has(refused)).unwrap();
        let told = path.told(&plan).to_string();
        assert!(
            told.contains("charge payment: refused → reserve inventory"),
            "{told}"
        );
    }

    #[test]
    fn what_is_declared_are_events_of_the_three_topics() {
        let plan = plan();
        let known = |event_type: &str| {
            InventoryEvent::knows(event_type)
                || PaymentEvent::knows(event_type)
                || OrderEvent::knows(event_type)
        };
        for step in plan.steps() {
            assert!(known(plan.command(step)));
            assert!(plan.compensation_of(step).is_none_or(known));
        }
        let topics = [
            InventoryEvent::TYPES,
            PaymentEvent::TYPES,
            OrderEvent::TYPES,
        ];
        let replies = topics
            .concat()
            .into_iter()
            .filter_map(|name| plan.meaning(name));
        assert_eq!(replies.count(), 7, "three done, two refused, two undone");
    }

    #[test]
    fn the_id_of_a_saga_is_derived_from_its_order() {
        let order = Uuid::now_v7();
        assert_eq!(OrderSagas::id(&order.to_string()), saga_id(order));
    }
}
