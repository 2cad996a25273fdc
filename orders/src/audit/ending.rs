//! How an order ended, and who was told: `order-events`, the notification service, and what it says.
//!
//! The same in both flows: each end that an order's history has is said once, its customer is told once,
//! and what is confirmed is sent once.

use super::facts::{Fingerprint, Once, OrderFact, Whole};
use crate::events::notification::Kind;
use crate::order::Status;

/// What is known of an order's end.
#[derive(Debug, Default, Clone)]
pub(crate) struct Ending {
    /// On `order-events`.
    pub(crate) said: PerKind<Once<()>>,
    /// In `notification.db`.
    pub(crate) told: PerKind<bool>,
    /// On `notification-events`.
    pub(crate) notified: PerKind<Once<()>>,
    /// What is to be sent.
    pub(crate) shipment: Option<Fingerprint>,
}

/// Something for each kind of end.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PerKind<T> {
    confirmed: T,
    cancelled: T,
    in_review: T,
}

impl<T> PerKind<T> {
    /// That of one kind.
    pub(crate) fn of(&mut self, kind: Kind) -> &mut T {
        match kind {
            Kind::Confirmed => &mut self.confirmed,
            Kind::Cancelled => &mut self.cancelled,
            Kind::InReview => &mut self.in_review,
        }
    }
}

impl<T: Copy> PerKind<T> {
    fn get(mut self, kind: Kind) -> T {
        *self.of(kind)
    }
}

impl PerKind<bool> {
    /// The ends of a history.
    pub(crate) fn ends(history: &[Status]) -> Self {
        let mut ends = Self::default();
        for status in history {
            match status {
                Status::Pending => {}
                Status::Confirmed => ends.confirmed = true,
                Status::Cancelled => ends.cancelled = true,
                Status::ManualReview => ends.in_review = true,
            }
        }
        ends
    }
}

impl Ending {
    /// What does not fit an order whose history has these ends.
    pub(crate) fn check(&self, order: &OrderFact, whole: Whole, said: &mut Vec<String>) {
        for kind in Kind::ALL {
            let (is, name) = (order.ends.get(kind), kind.name());
            let end = self.said.get(kind);
            let notified = self.notified.get(kind);
            match (is, end.is_known()) {
                (true, false) if whole.order_events => {
                    said.push(format!("is {name}, and order-events does not say so"));
                }
                (false, true) => said.push(format!("is not {name}, and order-events says so")),
                _ => {}
            }
            match (is, self.told.get(kind)) {
                (true, false) => said.push(format!("is {name}, and its customer was not told")),
                (false, true) => said.push(format!("is not {name}, and its customer was told so")),
                _ => {}
            }
            if is && !notified.is_known() && whole.notifications {
                said.push(format!(
                    "is {name}, and notification-events does not say that its customer was told"
                ));
            }
            for (events, topic) in [(end, "order-events"), (notified, "notification-events")] {
                if events.count() > 1 {
                    let count = events.count();
                    said.push(format!(
                        "has {count} events of {name} on {topic} instead of one"
                    ));
                }
            }
        }
        match (order.ends.confirmed, self.shipment) {
            (true, None) => said.push("is CONFIRMED, and its shipping is not prepared".to_owned()),
            (false, Some(_)) => said.push("is not CONFIRMED, and is to be sent".to_owned()),
            (true, Some(items)) if items != order.items => {
                said.push("is to be sent with other items than it has".to_owned());
            }
            _ => {}
        }
    }

    /// Whether anything is known of an end.
    pub(crate) fn is_known(&self) -> bool {
        Kind::ALL.into_iter().any(|kind| {
            self.said.get(kind).is_known()
                || self.told.get(kind)
                || self.notified.get(kind).is_known()
        })
    }
}

#[cfg(test)]
impl Ending {
    /// Of an order of which everything was said once.
    pub(crate) fn as_it_should_be(history: &[Status], items: Fingerprint) -> Self {
        let mut ending = Self::default();
        let ends = PerKind::ends(history);
        for (at, kind) in Kind::ALL.into_iter().enumerate() {
            if ends.get(kind) {
                *ending.told.of(kind) = true;
                ending
                    .said
                    .of(kind)
                    .see(uuid::Uuid::from_u128(at as u128), ());
                ending
                    .notified
                    .of(kind)
                    .see(uuid::Uuid::from_u128(at as u128), ());
            }
        }
        ending.shipment = ends.confirmed.then_some(items);
        ending
    }
}
