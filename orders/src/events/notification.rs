//! `notification-events`: what customers were told.

use ackwell::Topic;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Of the notification service.
pub(crate) const NOTIFICATION_EVENTS: Topic<NotificationEvent> =
    Topic::new("notification-events").partitions(6);

ackwell::events! {
    /// What is said of notifications.
    #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
    #[serde(tag = "event_type")]
    pub(crate) enum NotificationEvent on NOTIFICATION_EVENTS, keyed by order_id {
        /// A customer was told how an order ended; once an order and kind.
        CustomerNotified(CustomerNotified),
    }
}

/// What a customer is told of an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(crate) enum Kind {
    /// It will be sent.
    Confirmed,
    /// It will not.
    Cancelled,
    /// Somebody looks at it.
    InReview,
}

impl Kind {
    /// Every kind.
    pub(crate) const ALL: [Self; 3] = [Self::Confirmed, Self::Cancelled, Self::InReview];

    /// The kind with this name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// The word for the database.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Confirmed => "CONFIRMED",
            Self::Cancelled => "CANCELLED",
            Self::InReview => "IN_REVIEW",
        }
    }
}

/// Who was told what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CustomerNotified {
    pub(crate) order_id: Uuid,
    pub(crate) customer_id: String,
    pub(crate) kind: Kind,
}
