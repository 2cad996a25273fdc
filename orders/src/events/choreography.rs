//! Flow A, choreography: order service and product service, and nobody between them.
//!
//! ```text
//! order service ── stock-valid-request ──▶ product service
//!               ◀── stock-valid-response ──
//! ```

use ackwell::Topic;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Items;

/// To the product service: reserve, or give back.
pub(crate) const STOCK_VALID_REQUEST: Topic<StockRequest> =
    Topic::new("stock-valid-request").partitions(6);
/// From the product service: reserved, or why not.
pub(crate) const STOCK_VALID_RESPONSE: Topic<StockAnswer> =
    Topic::new("stock-valid-response").partitions(6);

ackwell::events! {
    /// What the order service asks of the product service.
    #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
    #[serde(tag = "event_type")]
    pub(crate) enum StockRequest on STOCK_VALID_REQUEST, keyed by order_id {
        /// Reserve every item of an order, or none.
        StockValidRequested(Reserve),
        /// Give back what is or will be reserved for an order that was withdrawn.
        StockReleaseRequested(Release),
    }
}

ackwell::events! {
    /// What the product service answers.
    #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
    #[serde(tag = "event_type")]
    pub(crate) enum StockAnswer on STOCK_VALID_RESPONSE, keyed by order_id {
        /// The outcome of a [`Reserve`].
        StockValidResponded(Verdict),
    }
}

/// The items of an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Reserve {
    /// Whose items.
    pub(crate) order_id: Uuid,
    /// Each product once.
    pub(crate) items: Items,
}

/// An order that needs its stock no longer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Release {
    /// Which order.
    pub(crate) order_id: Uuid,
    /// Why.
    pub(crate) reason: String,
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

#[cfg(test)]
mod tests {
    use ackwell::Event;
    use serde_json::json;

    use super::*;

    fn reserve() -> Reserve {
        Reserve {
            order_id: Uuid::nil(),
            items: Items::of([("cd-02", 4), ("cd-01", 2)]),
        }
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
