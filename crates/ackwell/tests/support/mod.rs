//! A broker of one's own, and events to send.

#![allow(dead_code, reason = "each test binary uses its part")]

mod kafka;

use std::borrow::Cow;
use std::time::Duration;

use ackwell::{Event, Topic};
use serde::{Deserialize, Serialize};

#[allow(unused_imports, reason = "each test binary uses its part")]
pub(crate) use kafka::{Kafka, LIMIT, within};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct OrderPlaced {
    pub(crate) order: String,
    pub(crate) number: u32,
}

pub(crate) const ORDERS: Topic<OrderPlaced> = Topic::new("order-events")
    .partitions(3)
    .retention(Duration::from_secs(3_600));

impl Event for OrderPlaced {
    const TOPIC: Topic<Self> = ORDERS;

    fn event_type(&self) -> &'static str {
        "OrderPlaced"
    }

    fn knows(event_type: &str) -> bool {
        event_type == "OrderPlaced"
    }

    fn aggregate_id(&self) -> Cow<'_, str> {
        Cow::Borrowed(&self.order)
    }
}

pub(crate) fn order(number: u32) -> OrderPlaced {
    OrderPlaced {
        order: format!("o-{number}"),
        number,
    }
}
