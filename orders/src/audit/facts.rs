//! What the three places know of one order, and whether they agree.
//!
//! Pure: the places are read elsewhere. An order leaves a trace in `order.db`, on both
//! topics and in `product.db`; each trace explains the next one, and a sentence is
//! said for each that does not.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use uuid::Uuid;

use crate::events::choreography::StatusCode;
use crate::order::Status;

/// Everything known of one order; some 250 bytes.
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
}

/// What `order.db` says.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OrderFact {
    /// Where the order stands.
    pub(crate) status: Status,
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

    fn value(&self) -> Option<T> {
        self.first.map(|(_, value)| value)
    }
}

/// Which topics still have every record; what retention took proves nothing.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Whole {
    /// `stock-valid-request`.
    pub(crate) requests: bool,
    /// `stock-valid-response`.
    pub(crate) answers: bool,
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
    }

    fn check_order(&self, order: &OrderFact, whole: Whole, said: &mut Vec<String>) {
        if order.status == Status::Pending {
            said.push(format!("is still PENDING: {}", self.where_it_waits()));
            return;
        }
        self.check_request(order, whole, said);
        self.check_answer(order, whole, said);
        self.check_reservation(order, said);
        self.check_release(order, whole, said);
    }

    fn where_it_waits(&self) -> &'static str {
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
mod tests {
    use super::*;

    const WHOLE: Whole = Whole {
        requests: true,
        answers: true,
    };
    const REQUEST: Uuid = Uuid::from_u128(1);
    const ANSWER: Uuid = Uuid::from_u128(2);
    const RELEASE: Uuid = Uuid::from_u128(3);

    fn items() -> Fingerprint {
        Fingerprint::of([("cd-01", 2)])
    }

    fn decided(status: Status, state: ReservationState, code: u16) -> Facts {
        let mut facts = Facts {
            order: Some(OrderFact {
                status,
                cause: Some(ANSWER),
                items: items(),
            }),
            reservation: Some(ReservationFact {
                state,
                decided_by: Some(REQUEST),
                released_by: None,
                items: items(),
            }),
            ..Facts::default()
        };
        facts.request.see(REQUEST, items());
        facts.answer.see(ANSWER, code);
        facts
    }

    fn confirmed() -> Facts {
        decided(Status::Confirmed, ReservationState::Reserved, 200)
    }

    fn withdrawn() -> Facts {
        let mut facts = decided(Status::Cancelled, ReservationState::Released, 200);
        facts.release.see(RELEASE, ());
        let order = facts.order.as_mut().unwrap();
        order.cause = None;
        facts.reservation.as_mut().unwrap().released_by = Some(RELEASE);
        facts
    }

    fn said(facts: &Facts) -> String {
        facts.differences(WHOLE).join("; ")
    }

    #[test]
    fn orders_that_went_their_way_say_nothing() {
        assert_eq!(said(&confirmed()), "");
        assert_eq!(
            said(&decided(Status::Cancelled, ReservationState::Refused, 409)),
            ""
        );
        assert_eq!(said(&withdrawn()), "");
    }

    #[test]
    fn an_order_withdrawn_before_its_request_came_says_nothing() {
        let mut facts = withdrawn();
        facts.answer = Once::default();
        facts.answer.see(ANSWER, 410);
        facts.reservation.as_mut().unwrap().decided_by = None;
        facts.reservation.as_mut().unwrap().items = Fingerprint::of([]);
        assert_eq!(said(&facts), "");
    }

    #[test]
    fn an_event_published_twice_is_still_one_event() {
        let mut facts = confirmed();
        facts.request.see(REQUEST, items());
        facts.answer.see(ANSWER, 200);
        assert_eq!(said(&facts), "");
        facts.answer.see(RELEASE, 200);
        assert_eq!(said(&facts), "has 2 answers instead of one");
    }

    #[test]
    fn a_confirmed_order_without_its_stock_is_a_difference() {
        let mut facts = confirmed();
        facts.reservation = None;
        assert_eq!(
            said(&facts),
            "is CONFIRMED, and product.db has no reservation of it"
        );
        let facts = decided(Status::Confirmed, ReservationState::Refused, 409);
        assert!(said(&facts).contains("its answer has the status code 409"));
        assert!(said(&facts).contains("its reservation is Refused"));
    }

    #[test]
    fn a_cancelled_order_that_holds_stock_is_a_difference() {
        let mut facts = withdrawn();
        facts.reservation.as_mut().unwrap().state = ReservationState::Reserved;
        assert_eq!(
            said(&facts),
            "is CANCELLED, and its reservation is Reserved"
        );
        let mut facts = withdrawn();
        facts.release = Once::default();
        assert!(said(&facts).contains("has no release of it"));
    }

    #[test]
    fn other_items_on_the_way_are_a_difference() {
        let mut facts = confirmed();
        facts.order.as_mut().unwrap().items = Fingerprint::of([("cd-01", 3)]);
        assert_eq!(
            said(&facts),
            "asked for other items than it has; reserved other items than it has"
        );
    }

    #[test]
    fn an_effect_without_its_order_is_a_difference_unless_it_is_newer() {
        let mut facts = confirmed();
        facts.order = None;
        assert_eq!(facts.differences(WHOLE).len(), 3);
        facts.newer = true;
        assert_eq!(said(&facts), "");
    }

    #[test]
    fn a_pending_order_says_where_it_waits() {
        let mut facts = Facts {
            order: Some(OrderFact {
                status: Status::Pending,
                cause: None,
                items: items(),
            }),
            ..Facts::default()
        };
        assert!(said(&facts).contains("has not come to stock-valid-request"));
        facts.request.see(REQUEST, items());
        assert!(said(&facts).contains("the product service has not handled it"));
    }

    #[test]
    fn what_retention_took_proves_nothing() {
        let mut facts = confirmed();
        facts.request = Once::default();
        facts.answer = Once::default();
        assert!(
            facts
                .differences(Whole {
                    requests: false,
                    answers: false
                })
                .is_empty()
        );
        assert_eq!(facts.differences(WHOLE).len(), 2);
    }

    #[test]
    fn fingerprints_compare_products_and_sums() {
        let one = Fingerprint::of([("a", 1), ("b", 2), ("a", 3)]);
        assert_eq!(one, Fingerprint::of([("b", 2), ("a", 4)]));
        assert_ne!(one, Fingerprint::of([("b", 4), ("a", 2)]));
    }
}
