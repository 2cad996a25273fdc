//! `saga-events`: each step of a saga, for those who watch. Nothing depends on them.

use ackwell::Topic;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Of the orchestrator.
pub(crate) const SAGA_EVENTS: Topic<SagaEvent> = Topic::new("saga-events").partitions(6);

ackwell::events! {
    /// What is said of a saga.
    #[expect(clippy::enum_variant_names, reason = "an event type names what it is of")]
    #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
    #[serde(tag = "event_type")]
    pub(crate) enum SagaEvent on SAGA_EVENTS, keyed by order_id {
        /// Its first command is on its way.
        SagaStarted(SagaStarted),
        /// A step succeeded.
        SagaStepCompleted(SagaStepCompleted),
        /// A step failed, and what was done before is undone.
        SagaCompensating(SagaCompensating),
        /// Nothing more happens by itself.
        SagaFinished(SagaFinished),
    }
}

/// It began.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SagaStarted {
    pub(crate) saga_id: Uuid,
    pub(crate) order_id: Uuid,
}

/// It went on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SagaStepCompleted {
    pub(crate) saga_id: Uuid,
    pub(crate) order_id: Uuid,
    pub(crate) step: String,
}

/// It turned back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SagaCompensating {
    pub(crate) saga_id: Uuid,
    pub(crate) order_id: Uuid,
    /// The step that failed.
    pub(crate) step: String,
    /// For people.
    pub(crate) reason: String,
}

/// It ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SagaFinished {
    pub(crate) saga_id: Uuid,
    pub(crate) order_id: Uuid,
    pub(crate) status: String,
}
