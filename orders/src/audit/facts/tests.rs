//! What is said of orders, sentence by sentence.

use super::*;
use crate::audit::money::{Ledger, PaymentFact};
use crate::events::notification::Kind;
use crate::payment::store::State;

const WHOLE: Whole = Whole {
    requests: true,
    answers: true,
    order_events: true,
    notifications: true,
};
const REQUEST: Uuid = Uuid::from_u128(1);
const ANSWER: Uuid = Uuid::from_u128(2);
const RELEASE: Uuid = Uuid::from_u128(3);
const CHARGE: Uuid = Uuid::from_u128(4);

fn items() -> Fingerprint {
    Fingerprint::of([("cd-01", 2)])
}

fn decided(status: Status, state: ReservationState, code: u16) -> Facts {
    let history = [Status::Pending, status];
    let mut facts = Facts {
        order: Some(OrderFact {
            status,
            flow: Flow::Choreography,
            total: Cents::from_stored(2933),
            ends: PerKind::ends(&history),
            cause: Some(ANSWER),
            items: items(),
        }),
        ending: Ending::as_it_should_be(&history, items()),
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
        "asked for other items than it has; reserved other items than it has; is to be sent with other items than it has"
    );
}

#[test]
fn an_effect_without_its_order_is_a_difference_unless_it_is_newer() {
    let mut facts = confirmed();
    facts.order = None;
    assert_eq!(facts.differences(WHOLE).len(), 4);
    facts.newer = true;
    assert_eq!(said(&facts), "");
}

#[test]
fn a_pending_order_says_where_it_waits() {
    let mut facts = Facts {
        order: Some(OrderFact {
            status: Status::Pending,
            flow: Flow::Choreography,
            total: Cents::default(),
            ends: PerKind::default(),
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
                answers: false,
                ..WHOLE
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

/// An order that went through a saga to its end.
fn by_saga(status: Status) -> Facts {
    let mut facts = decided(status, ReservationState::Reserved, 200);
    (facts.request, facts.answer) = (Once::default(), Once::default());
    let order = facts.order.as_mut().unwrap();
    order.flow = Flow::Saga;
    facts.placed.see(REQUEST, (order.items, order.total));
    facts.reserve.see(REQUEST, order.items);
    facts.money.charge.see(REQUEST, order.total);
    let payment = PaymentFact {
        state: State::Charged,
        amount: Some(order.total),
        charge_id: Some(CHARGE),
    };
    let refunded = (status == Status::Cancelled).then_some(order.total);
    facts.money.ledger.book(CHARGE, order.total, refunded);
    facts.money.payment = Some(payment);
    if status == Status::Cancelled {
        facts.money.payment = Some(PaymentFact {
            state: State::Refunded,
            ..payment
        });
        facts.reservation.as_mut().unwrap().state = ReservationState::Released;
    }
    facts
}

#[test]
fn orders_of_sagas_that_ended_well_say_nothing() {
    assert_eq!(said(&by_saga(Status::Confirmed)), "");
    assert_eq!(said(&by_saga(Status::Cancelled)), "");
    let mut early = by_saga(Status::Cancelled);
    (early.reservation, early.money) = (None, Money::default());
    assert_eq!(said(&early), "");
}

#[test]
fn a_charge_that_is_doubled_lost_or_kept_is_named() {
    let mut doubled = by_saga(Status::Confirmed);
    doubled
        .money
        .ledger
        .book(CHARGE, Cents::from_stored(2933), None);
    assert!(said(&doubled).starts_with("was charged 2 times, 58.66 in all"));

    let mut lost = by_saga(Status::Confirmed);
    lost.money.ledger = Ledger::default();
    assert!(said(&lost).contains("is CONFIRMED, and the ledger has no charge of it"));
    assert!(said(&lost).contains("is Charged in payment.db, and the ledger says otherwise"));

    let mut kept = by_saga(Status::Cancelled);
    kept.money.ledger = by_saga(Status::Confirmed).money.ledger;
    assert!(said(&kept).contains("is CANCELLED, and was charged 29.33 and refunded 0.00"));

    let mut other = by_saga(Status::Confirmed);
    other.order.as_mut().unwrap().total = Cents::from_stored(100);
    assert!(said(&other).contains("is CONFIRMED for 1.00, and was charged 29.33"));

    let mut unknown = by_saga(Status::Confirmed);
    unknown.money.payment = None;
    assert_eq!(
        said(&unknown),
        "was charged, and payment.db does not know it"
    );
}

#[test]
fn stock_that_a_cancelled_saga_holds_is_named() {
    let mut facts = by_saga(Status::Cancelled);
    facts.reservation.as_mut().unwrap().state = ReservationState::Reserved;
    assert_eq!(
        said(&facts),
        "is CANCELLED, and its reservation is Reserved"
    );
}

#[test]
fn an_event_that_was_dropped_or_doubled_is_named() {
    let mut dropped = by_saga(Status::Confirmed);
    dropped.placed = Once::default();
    assert_eq!(
        said(&dropped),
        "is CONFIRMED, and order-events has no OrderPlaced of it"
    );

    let mut doubled = by_saga(Status::Confirmed);
    doubled.ending.notified.of(Kind::Confirmed).see(RELEASE, ());
    assert_eq!(
        said(&doubled),
        "has 2 events of CONFIRMED on notification-events instead of one"
    );
}

#[test]
fn a_customer_who_was_not_told_or_told_otherwise_is_named() {
    let mut untold = confirmed();
    *untold.ending.told.of(Kind::Confirmed) = false;
    assert_eq!(said(&untold), "is CONFIRMED, and its customer was not told");

    let mut otherwise = confirmed();
    *otherwise.ending.told.of(Kind::Cancelled) = true;
    assert_eq!(
        said(&otherwise),
        "is not CANCELLED, and its customer was told so"
    );

    let mut unsent = confirmed();
    unsent.ending.shipment = None;
    assert_eq!(
        said(&unsent),
        "is CONFIRMED, and its shipping is not prepared"
    );
}

#[test]
fn an_order_that_goes_without_payment_and_was_charged_is_named() {
    let mut facts = confirmed();
    facts
        .money
        .ledger
        .book(CHARGE, Cents::from_stored(100), None);
    assert!(said(&facts).contains("goes without payment, and was charged 1.00"));
}
