//! `user-events` and `audit-events`: a user, and who may ask later what was done. Both are written in
//! the transaction that creates the user.

use ackwell::Topic;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Of the user service.
pub(crate) const USER_EVENTS: Topic<UserEvent> = Topic::new("user-events").partitions(6);
/// Of every service that keeps an audit trail.
pub(crate) const AUDIT_EVENTS: Topic<AuditEvent> = Topic::new("audit-events").partitions(6);

ackwell::events! {
    /// What is said of users.
    #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
    #[serde(tag = "event_type")]
    pub(crate) enum UserEvent on USER_EVENTS, keyed by user_id {
        /// There is a new one.
        UserCreated(UserCreated),
    }
}

ackwell::events! {
    /// What is kept for those who ask later.
    #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
    #[serde(tag = "event_type")]
    pub(crate) enum AuditEvent on AUDIT_EVENTS, keyed by aggregate_id {
        /// Something was done to something.
        ActionRecorded(ActionRecorded),
    }
}

/// A new user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct UserCreated {
    pub(crate) user_id: Uuid,
    pub(crate) email: String,
    pub(crate) name: String,
}

/// What was done to what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ActionRecorded {
    /// `user`.
    pub(crate) aggregate_type: String,
    pub(crate) aggregate_id: Uuid,
    /// `created`.
    pub(crate) action: String,
}
