//! What the databases, the ledger and the topics know of one order, and whether they agree.
//!
//! Pure: the places are read elsewhere. An order leaves a trace in each; each trace
//! explains the next one, and a sentence is said for each that does not.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use uuid::Uuid;

use super::ending::{Ending, PerKind};
use super::money::Money;
use crate::config::Flow;
use crate::events::Wanted;
use crate::events::choreography::StatusCode;
use crate::money::Cents;
use crate::order::Status;

/// Everything known of one order; some 700 bytes.
#[derive(Debug, Default, Clone)]
pub(crate) struct Facts {
    /// Its row in `order.db`.
    pub(crate) order: Option<OrderFact>,
    /// It was accepted after the audit had begun; nothing is said of it.
    pub(crate) newer: bool,
    /// Requests on `stock-valid-request`: event id and items.
    pub(crate) request: Once<Fingerprint>,
    /// Releases on `stock-valid-request`.
    pub(crate) release: Once<()>,
    /// Answers on `stock-valid-response`: event id and status code.
    pub(crate) answer: Once<u16>,
    /// Its row in `product.db`.
    pub(crate) reservation: Option<ReservationFact>,
    /// `OrderPlaced` on `order-events`: event id, items and amount.
    pub(crate) placed: Once<(Fingerprint, Cents)>,
    /// `ReserveInventory` on `inventory-events`: event id and items.
    pub(crate) reserve: Once<Fingerprint>,
    /// Its money.
    pub(crate) money: Money,
    /// Its end, and who was told.
    pub(crate) ending: Ending,
}

/// What `order.db` says.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OrderFact {
    /// Where the order stands.
    pub(crate) status: Status,
    /// Which way it goes.
    pub(crate) flow: Flow,
    /// What it costs.
    pub(crate) total: Cents,
    /// The ends in its history.
    pub(crate) ends: PerKind<bool>,
    /// The event that made it final; `None` where a person did, or nothing yet.
    pub(crate) cause: Option<Uuid>,
    /// Its items.
    pub(crate) items: Fingerprint,
}

/// What `product.db` says.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ReservationFact {
    /// What became of the request.
    pub(crate) state: ReservationState,
    /// The event that decided it; `None` where a release came first.
    pub(crate) decided_by: Option<Uuid>,
    /// The event that released it.
    pub(crate) released_by: Option<Uuid>,
    /// What is or was reserved.
    pub(crate) items: Fingerprint,
}

/// The states of a reservation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReservationState {
    /// The order holds its stock.
    Reserved,
    /// It never did.
    Refused,
    /// It does no longer, or never will.
    Released,
}

/// A list of products and quantities, to compare; order does not count.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fingerprint(u64);

impl Fingerprint {
    /// Of these lines; lines of one product count as one.
    pub(crate) fn of<'a>(lines: impl IntoIterator<Item = (&'a str, u32)>) -> Self {
        let mut units = BTreeMap::<&str, u64>::new();
        for (product, quantity) in lines {
            *units.entry(product).or_default() += u64::from(quantity);
        }
        Self::of_units(&units)
    }

    /// Of the items of an event.
    pub(crate) fn of_wanted(items: &[Wanted]) -> Self {
        Self::of(
            items
                .iter()
                .map(|item| (item.product_id.as_str(), item.quantity.get())),
        )
    }

    fn of_units(units: &BTreeMap<&str, u64>) -> Self {
        let mut hasher = DefaultHasher::new();
        units.hash(&mut hasher);
        Self(hasher.finish())
    }
}

/// Events of which an order has one. The same event may lie on a topic twice (it is
/// published at least once); another one may not.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Once<T> {
    first: Option<(Uuid, T)>,
    /// Events with another id.
    others: u32,
}

impl<T: Copy> Once<T> {
    /// Takes note of an event.
    pub(crate) fn see(&mut self, event_id: Uuid, value: T) {
        match self.first {
            None => self.first = Some((event_id, value)),
            Some((first, _)) if first == event_id => {}
            Some(_) => self.others += 1,
        }
    }

    fn id(&self) -> Option<Uuid> {
        self.first.map(|(id, _)| id)
    }

    pub(crate) fn value(&self) -> Option<T> {
        self.first.map(|(_, value)| value)
    }

    /// How many events there are, each once.
    pub(crate) fn count(&self) -> u32 {
        u32::from(self.first.is_some()) + self.others
    }

    pub(crate) fn is_known(&self) -> bool {
        self.first.is_some()
    }
}

/// Which topics still have every record; what retention took proves nothing.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Whole {
    /// `stock-valid-request`.
    pub(crate) requests: bool,
    /// `stock-valid-response`.
    pub(crate) answers: bool,
    /// `order-events`.
    pub(crate) order_events: bool,
    /// `notification-events`.
    pub(crate) notifications: bool,
}

impl Facts {
    /// What does not fit together, a clause each; the order's id goes before it.
    pub(crate) fn differences(&self, whole: Whole) -> Vec<String> {
        let mut said = Vec::new();
        match &self.order {
            _ if self.newer => {}
            Some(order) => self.check_order(order, whole, &mut said),
            None => self.check_stray(&mut said),
        }
        said
    }

    fn check_stray(&self, said: &mut Vec<String>) {
        if self.request.first.is_some() || self.release.first.is_some() {
            said.push("is on stock-valid-request, and order.db does not know it".to_owned());
        }
        if self.answer.first.is_some() {
            said.push("is on stock-valid-response, and order.db does not know it".to_owned());
        }
        if self.reservation.is_some() {
            said.push("has a reservation in product.db, and order.db does not know it".to_owned());
        }
        if self.placed.is_known() || self.ending.is_known() {
            said.push("is on order-events, and order.db does not know it".to_owned());
        }
        if self.money.is_known() {
            said.push("was to be paid, and order.db does not know it".to_owned());
        }
    }

    fn check_order(&self, order: &OrderFact, whole: Whole, said: &mut Vec<String>) {
        if order.status == Status::Pending {
            said.push(format!(
                "is still PENDING: {}",
                self.where_it_waits(order.flow)
            ));
            return;
        }
        match order.flow {
            Flow::Choreography => {
                self.check_request(order, whole, said);
                self.check_answer(order, whole, said);
                self.check_reservation(order, said);
                self.check_release(order, whole, said);
            }
            Flow::Saga => {
                self.check_placed(order, whole, said);
                self.check_reserved(order, said);
            }
        }
        self.money.check(order, said);
        self.ending.check(order, whole, said);
    }

    fn check_placed(&self, order: &OrderFact, whole: Whole, said: &mut Vec<String>) {
        match self.placed.value() {
            None if whole.order_events => said.push(format!(
                "is {}, and order-events has no OrderPlaced of it",
                order.status
            )),
            Some(placed) if placed != (order.items, order.total) => {
                said.push("was placed with other items or another amount than it has".to_owned());
            }
            _ => {}
        }
        if self.placed.count() > 1 {
            let count = self.placed.count();
            said.push(format!("has {count} OrderPlaced events instead of one"));
        }
        if self
            .reserve
            .value()
            .is_some_and(|items| items != order.items)
        {
            said.push("was to reserve other items than it has".to_owned());
        }
    }

    /// A cancelled order holds nothing; what it never asked for, it need not have been refused.
    fn check_reserved(&self, order: &OrderFact, said: &mut Vec<String>) {
        let status = order.status;
        match (status, &self.reservation) {
            (Status::Confirmed, None) => {
                said.push(format!(
                    "is {status}, and product.db has no reservation of it"
                ));
            }
            (Status::Confirmed, Some(held)) if held.state != ReservationState::Reserved => {
                said.push(format!(
                    "is {status}, and its reservation is {:?}",
                    held.state
                ));
            }
            (Status::Cancelled, Some(held)) if held.state == ReservationState::Reserved => {
                said.push(format!(
                    "is {status}, and its reservation is {:?}",
                    held.state
                ));
            }
            _ => {}
        }
        let Some(held) = &self.reservation else {
            return;
        };
        if held.state == ReservationState::Reserved && held.items != order.items {
            said.push("reserved other items than it has".to_owned());
        }
        let by_its_command = held.decided_by == self.reserve.id();
        if held.decided_by.is_some() && self.reserve.count() == 1 && !by_its_command {
            said.push("was reserved by an event that is not its command".to_owned());
        }
    }

    fn where_it_waits(&self, flow: Flow) -> &'static str {
        if flow == Flow::Saga {
            return match (&self.placed.first, &self.reserve.first, &self.reservation) {
                (None, ..) => "its OrderPlaced has not come to order-events",
                (Some(_), None, _) => "its saga has not asked for its stock",
                (Some(_), Some(_), None) => {
                    "its ReserveInventory is on inventory-events, and the product service has not handled it"
                }
                (Some(_), Some(_), Some(_)) => "its saga goes on; see its history",
            };
        }
        match (self.request.first, self.reservation, self.answer.first) {
            (None, ..) => "its request has not come to stock-valid-request",
            (Some(_), None, _) => {
                "its request is on stock-valid-request, and the product service has not handled it"
            }
            (Some(_), Some(_), None) => {
                "its reservation is decided, and no answer has come to stock-valid-response"
            }
            (Some(_), Some(_), Some(_)) => {
                "its answer is on stock-valid-response, and the order service has not handled it"
            }
        }
    }

    fn check_request(&self, order: &OrderFact, whole: Whole, said: &mut Vec<String>) {
        match self.request.value() {
            None if whole.requests => said.push(format!(
                "is {}, and stock-valid-request has no request of it",
                order.status
            )),
            None => {}
            Some(items) if items != order.items => {
                said.push("asked for other items than it has".to_owned())
            }
            Some(_) => {}
        }
        if self.request.others > 0 {
            said.push(format!(
                "has {} request events instead of one",
                self.request.others + 1
            ));
        }
    }

    fn check_answer(&self, order: &OrderFact, whole: Whole, said: &mut Vec<String>) {
        if self.answer.others > 0 {
            said.push(format!(
                "has {} answers instead of one",
                self.answer.others + 1
            ));
        }
        let Some(code) = self.answer.value() else {
            if whole.answers {
                said.push(format!(
                    "is {}, and stock-valid-response has no answer to it",
                    order.status
                ));
            }
            return;
        };
        if order.cause.is_some() && order.cause != self.answer.id() {
            said.push(format!(
                "is {} by an event that is not its answer",
                order.status
            ));
        }
        let reserved = code == StatusCode::RESERVED;
        if order.cause.is_some() && reserved != (order.status == Status::Confirmed) {
            said.push(format!(
                "is {}, and its answer has the status code {code}",
                order.status
            ));
        }
    }

    fn check_reservation(&self, order: &OrderFact, said: &mut Vec<String>) {
        let Some(reservation) = &self.reservation else {
            said.push(format!(
                "is {}, and product.db has no reservation of it",
                order.status
            ));
            return;
        };
        let withdrawn = order.cause.is_none();
        let fits = match (order.status, reservation.state) {
            (Status::Confirmed, state) => state == ReservationState::Reserved,
            (Status::Cancelled, ReservationState::Reserved) => false,
            (Status::Cancelled, ReservationState::Refused) => true,
            (Status::Cancelled, ReservationState::Released) => withdrawn,
            (Status::Pending | Status::ManualReview, _) => true,
        };
        if !fits {
            said.push(format!(
                "is {}, and its reservation is {:?}",
                order.status, reservation.state
            ));
        }
        let holds_items =
            reservation.state != ReservationState::Refused && reservation.decided_by.is_some();
        if holds_items && reservation.items != order.items {
            said.push("reserved other items than it has".to_owned());
        }
        if self.request.first.is_some()
            && reservation.decided_by.is_some()
            && reservation.decided_by != self.request.id()
        {
            said.push("was reserved by an event that is not its request".to_owned());
        }
    }

    fn check_release(&self, order: &OrderFact, whole: Whole, said: &mut Vec<String>) {
        let withdrawn = order.status == Status::Cancelled && order.cause.is_none();
        if self.release.others > 0 {
            said.push(format!(
                "has {} release events instead of one",
                self.release.others + 1
            ));
        }
        match self.release.first {
            None if withdrawn && whole.requests => {
                said.push("was withdrawn, and stock-valid-request has no release of it".to_owned());
            }
            Some(_) if !withdrawn => {
                said.push(format!("is {}, and its stock was released", order.status))
            }
            _ => {}
        }
        let released_by = self
            .reservation
            .and_then(|reservation| reservation.released_by);
        if self.release.first.is_some() && released_by.is_some() && released_by != self.release.id()
        {
            said.push("was released by an event that is not its release".to_owned());
        }
    }
}

#[cfg(test)]
mod tests;
