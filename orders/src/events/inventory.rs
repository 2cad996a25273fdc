//! `inventory-events`: commands to the product service, and its replies. A command that comes again
//! is answered again in the same words.

use ackwell::Topic;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Items;

/// Between the saga and the product service.
pub(crate) const INVENTORY_EVENTS: Topic<InventoryEvent> =
    Topic::new("inventory-events").partitions(6);

ackwell::events! {
    /// What is said of the stock of an order.
    #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
    #[serde(tag = "event_type")]
    pub(crate) enum InventoryEvent on INVENTORY_EVENTS, keyed by order_id {
        /// Command: reserve every item, or none.
        ReserveInventory(ReserveInventory),
        /// Command: give back what is or will be reserved.
        ReleaseInventory(ReleaseInventory),
        /// Reply: every item is reserved.
        InventoryReserved(InventoryReserved),
        /// Reply: none is.
        InventoryRefused(InventoryRefused),
        /// Reply: none is any more, and none will be.
        InventoryReleased(InventoryReleased),
    }
}

/// What to reserve.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ReserveInventory {
    pub(crate) saga_id: Uuid,
    pub(crate) order_id: Uuid,
    pub(crate) items: Items,
}

/// Whose items to give back. Before the reservation it leaves a mark that refuses it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ReleaseInventory {
    pub(crate) saga_id: Uuid,
    pub(crate) order_id: Uuid,
    /// For people.
    pub(crate) reason: String,
}

/// Every item is reserved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct InventoryReserved {
    pub(crate) saga_id: Uuid,
    pub(crate) order_id: Uuid,
}

/// Nothing is reserved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct InventoryRefused {
    pub(crate) saga_id: Uuid,
    pub(crate) order_id: Uuid,
    /// For people.
    pub(crate) reason: String,
}

/// Nothing is held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct InventoryReleased {
    pub(crate) saga_id: Uuid,
    pub(crate) order_id: Uuid,
}
