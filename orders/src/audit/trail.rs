//! What the topics say of the orders of one pass.

use std::collections::HashMap;

use ackwell::config::Kafka;
use ackwell::reader::ReadError;
use uuid::Uuid;

use super::Share;
use super::facts::{Facts, Fingerprint, Whole};
use super::report::Report;
use super::topics::{self, Reading};
use crate::events::choreography::{StockAnswer, StockRequest};
use crate::events::inventory::InventoryEvent;
use crate::events::notification::{Kind, NotificationEvent};
use crate::events::orders::OrderEvent;
use crate::events::payment::PaymentEvent;

/// How each topic was read.
pub(crate) struct Trail {
    notifications: Reading,
    order_events: Reading,
    payments: Reading,
    inventory: Reading,
    answers: Reading,
    requests: Reading,
}

/// What is known of each order.
type Known = HashMap<Uuid, Facts>;

/// Reads what follows before what it follows from: that lies before it on its topic. Blocks.
pub(crate) fn read(
    kafka: &Kafka,
    share: Share,
    mut facts: Known,
) -> Result<(Known, Trail), ReadError> {
    let mut of = |order: Uuid, note: &mut dyn FnMut(&mut Facts)| {
        if share.has(order) {
            note(facts.entry(order).or_default());
        }
    };
    let notifications = topics::read(kafka, |id, NotificationEvent::CustomerNotified(told)| {
        of(told.order_id, &mut |facts| {
            facts.ending.notified.of(told.kind).see(id, ())
        });
    })?;
    let order_events = topics::read(kafka, |id, event| match event {
        OrderEvent::OrderPlaced(placed) => of(placed.order_id, &mut |facts| {
            facts
                .placed
                .see(id, (Fingerprint::of_wanted(&placed.items), placed.amount));
        }),
        OrderEvent::OrderConfirmed(order) => of(order.order_id, &mut ended(id, Kind::Confirmed)),
        OrderEvent::OrderCancelled(order) => of(order.order_id, &mut ended(id, Kind::Cancelled)),
        OrderEvent::OrderSentToReview(order) => of(order.order_id, &mut ended(id, Kind::InReview)),
        OrderEvent::ConfirmOrder(_) => {}
    })?;
    let payments = topics::read(kafka, |id, event| {
        if let PaymentEvent::ChargePayment(charge) = event {
            of(charge.order_id, &mut |facts| {
                facts.money.charge.see(id, charge.amount)
            });
        }
    })?;
    let inventory = topics::read(kafka, |id, event| {
        if let InventoryEvent::ReserveInventory(command) = event {
            let items = Fingerprint::of_wanted(&command.items);
            of(command.order_id, &mut |facts| facts.reserve.see(id, items));
        }
    })?;
    let answers = topics::read(kafka, |id, StockAnswer::StockValidResponded(verdict)| {
        of(verdict.order_id, &mut |facts| {
            facts.answer.see(id, verdict.status_code)
        });
    })?;
    let requests = topics::read(kafka, |id, request| match request {
        StockRequest::StockValidRequested(request) => {
            let items = Fingerprint::of_wanted(&request.items);
            of(request.order_id, &mut |facts| facts.request.see(id, items));
        }
        StockRequest::StockReleaseRequested(release) => {
            of(release.order_id, &mut |facts| facts.release.see(id, ()));
        }
    })?;
    let trail = Trail {
        notifications,
        order_events,
        payments,
        inventory,
        answers,
        requests,
    };
    Ok((facts, trail))
}

fn ended(event_id: Uuid, kind: Kind) -> impl FnMut(&mut Facts) {
    move |facts| facts.ending.said.of(kind).see(event_id, ())
}

impl Trail {
    /// Which topics still have every record.
    pub(crate) fn whole(&self) -> Whole {
        Whole {
            requests: !self.requests.shortened,
            answers: !self.answers.shortened,
            order_events: !self.order_events.shortened,
            notifications: !self.notifications.shortened,
        }
    }

    /// Notes what there was.
    pub(crate) fn note(&self, report: &mut Report) {
        let topics = [
            ("stock-valid-request", self.requests),
            ("stock-valid-response", self.answers),
            ("order-events", self.order_events),
            ("inventory-events", self.inventory),
            ("payment-events", self.payments),
            ("notification-events", self.notifications),
        ];
        let mut strange = 0;
        for (topic, reading) in topics {
            report.events.insert(topic, reading.records);
            strange += reading.strange;
            if reading.shortened {
                report.notes.push(format!(
                    "{topic} has lost records to its retention; events missing there prove nothing"
                ));
            }
        }
        if strange > 0 {
            report.notes.push(format!(
                "{strange} records on the topics are no events of theirs; see their .DLQ topics"
            ));
        }
    }
}
