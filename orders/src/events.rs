//! What the services say to each other: flow A, choreography.
//!
//! ```text
//! order service ── stock-valid-request ──▶ product service
//!               ◀── stock-valid-response ──
//! ```
//!
//! Every event of an order has the order's id as its key, so all of them lie on one
//! partition in the order in which the order service committed them. A release sent
//! after a request is therefore handled after it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::num::NonZeroU32;

use ackwell::extract::FromHeader;
use ackwell::{EVENT_ID, Event, Topic};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// To the product service: reserve, or give back.
pub(crate) const STOCK_VALID_REQUEST: Topic<StockRequest> =
    Topic::new("stock-valid-request").partitions(6);
/// From the product service: reserved, or why not.
pub(crate) const STOCK_VALID_RESPONSE: Topic<StockAnswer> =
    Topic::new("stock-valid-response").partitions(6);

/// The id of the event in hand, as an extractor: `Header<EventId>`.
pub(crate) struct EventId;

impl FromHeader for EventId {
    const NAME: &'static str = EVENT_ID;
    type Value = Uuid;
}

/// What the order service asks of the product service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event_type")]
pub(crate) enum StockRequest {
    /// Reserve every item of an order, or none.
    StockValidRequested(Reserve),
    /// Give back what is or will be reserved for an order that was withdrawn.
    StockReleaseRequested(Release),
}

/// The items of an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Reserve {
    /// Whose items.
    pub(crate) order_id: Uuid,
    /// Each product once.
    pub(crate) items: Vec<Wanted>,
}

/// An order that needs its stock no longer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Release {
    /// Which order.
    pub(crate) order_id: Uuid,
    /// Why.
    pub(crate) reason: String,
}

/// Units of a product.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Wanted {
    /// Which product.
    pub(crate) product_id: String,
    /// How many; an event with zero or fewer can't be decoded.
    pub(crate) quantity: NonZeroU32,
}

/// What the product service answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event_type")]
pub(crate) enum StockAnswer {
    /// The outcome of a [`Reserve`].
    StockValidResponded(Verdict),
}

/// The outcome of a [`Reserve`], with the request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Verdict {
    /// Whose items.
    pub(crate) order_id: Uuid,
    /// As HTTP's: see [`StatusCode`].
    pub(crate) status_code: u16,
    /// Why not, for people; `null` when reserved.
    pub(crate) reason: Option<String>,
    /// What was asked.
    pub(crate) request: Reserve,
}

/// The status codes of a [`Verdict`].
pub(crate) struct StatusCode;

impl StatusCode {
    /// Every item is reserved.
    pub(crate) const RESERVED: u16 = 200;
    /// A product is unknown; nothing is reserved.
    pub(crate) const UNKNOWN_PRODUCT: u16 = 404;
    /// A product has too little stock; nothing is reserved.
    pub(crate) const NOT_ENOUGH: u16 = 409;
    /// The order was withdrawn before; nothing is reserved.
    pub(crate) const WITHDRAWN: u16 = 410;
}

impl Reserve {
    /// The request for an order's lines; lines of one product become one.
    pub(crate) fn of<'a>(order_id: Uuid, lines: impl IntoIterator<Item = (&'a str, u32)>) -> Self {
        let mut units = BTreeMap::<&str, u32>::new();
        for (product, quantity) in lines {
            let sum = units.entry(product).or_default();
            *sum = sum.saturating_add(quantity);
        }
        let wanted = |(product, quantity): (&str, u32)| {
            Some(Wanted {
                product_id: product.to_owned(),
                quantity: NonZeroU32::new(quantity)?,
            })
        };
        Self {
            order_id,
            items: units.into_iter().filter_map(wanted).collect(),
        }
    }
}

impl StockRequest {
    /// The type of a [`Reserve`].
    pub(crate) const RESERVE: &str = "StockValidRequested";
    /// The type of a [`Release`].
    pub(crate) const RELEASE: &str = "StockReleaseRequested";
}

impl StockAnswer {
    /// The type of a [`Verdict`].
    pub(crate) const VERDICT: &str = "StockValidResponded";
}

impl Event for StockRequest {
    const TOPIC: Topic<Self> = STOCK_VALID_REQUEST;

    fn event_type(&self) -> &'static str {
        match self {
            Self::StockValidRequested(_) => Self::RESERVE,
            Self::StockReleaseRequested(_) => Self::RELEASE,
        }
    }

    fn knows(event_type: &str) -> bool {
        [Self::RESERVE, Self::RELEASE].contains(&event_type)
    }

    fn aggregate_id(&self) -> Cow<'_, str> {
        let (Self::StockValidRequested(Reserve { order_id, .. })
        | Self::StockReleaseRequested(Release { order_id, .. })) = self;
        order_id.to_string().into()
    }
}

impl Event for StockAnswer {
    const TOPIC: Topic<Self> = STOCK_VALID_RESPONSE;

    fn event_type(&self) -> &'static str {
        Self::VERDICT
    }

    fn knows(event_type: &str) -> bool {
        event_type == Self::VERDICT
    }

    fn aggregate_id(&self) -> Cow<'_, str> {
        let Self::StockValidResponded(verdict) = self;
        verdict.order_id.to_string().into()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn reserve() -> Reserve {
        Reserve::of(Uuid::nil(), [("cd-02", 1), ("cd-01", 2), ("cd-02", 3)])
    }

    #[test]
    fn lines_of_one_product_are_asked_for_once() {
        let units: Vec<_> = reserve()
            .items
            .into_iter()
            .map(|item| (item.product_id, item.quantity.get()))
            .collect();
        assert_eq!(units, [("cd-01".to_owned(), 2), ("cd-02".to_owned(), 4)]);
    }

    #[test]
    fn events_are_plain_json_that_names_its_type() {
        let request = StockRequest::StockValidRequested(reserve());
        let value = serde_json::to_value(&request).unwrap();
        assert_eq!(
            value,
            json!({
                "event_type": "StockValidRequested",
                "order_id": "00000000-0000-0000-0000-000000000000",
                "items": [{"product_id": "cd-01", "quantity": 2}, {"product_id": "cd-02", "quantity": 4}],
            })
        );
        assert_eq!(
            serde_json::from_value::<StockRequest>(value).unwrap(),
            request
        );
        assert_eq!(request.aggregate_id(), Uuid::nil().to_string());
    }

    #[test]
    fn an_answer_carries_the_request() {
        let verdict = Verdict {
            order_id: Uuid::nil(),
            status_code: 409,
            reason: Some("x".into()),
            request: reserve(),
        };
        let answer = StockAnswer::StockValidResponded(verdict);
        let value = serde_json::to_value(&answer).unwrap();
        assert_eq!(value["request"]["items"][1]["quantity"], 4);
        assert_eq!(
            serde_json::from_value::<StockAnswer>(value).unwrap(),
            answer
        );
    }

    #[test]
    fn the_type_in_the_header_is_the_type_in_the_value() {
        let release = StockRequest::StockReleaseRequested(Release {
            order_id: Uuid::nil(),
            reason: "x".into(),
        });
        for request in [StockRequest::StockValidRequested(reserve()), release] {
            assert!(StockRequest::knows(request.event_type()));
            assert_eq!(
                serde_json::to_value(&request).unwrap()["event_type"],
                request.event_type()
            );
        }
        assert!(!StockRequest::knows("StockValidResponded"));
    }

    #[test]
    fn a_quantity_of_zero_or_less_cannot_be_decoded() {
        for quantity in ["0", "-1", "4294967296", "1.5"] {
            let text = format!(
                r#"{{"event_type":"StockValidRequested","order_id":"{}","items":[{{"product_id":"a","quantity":{quantity}}}]}}"#,
                Uuid::nil()
            );
            assert!(
                serde_json::from_str::<StockRequest>(&text).is_err(),
                "{quantity}"
            );
        }
    }
}
