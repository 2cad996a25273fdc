//! Sagas: work in several services that ends whole, or is taken back whole.
//!
//! No transaction spans services, so a saga does one step after the other, each by a command and
//! its reply, and takes back what was done when a later step fails. What makes that hard is not
//! the plain way but everything beside it: replies that are late, repeated or out of order,
//! steps of which nobody knows whether they were done, compensations that fail, a customer who
//! withdraws in the midst of it. All of that is decided here, in `decide.rs`, without I/O; a store
//! keeps the state and sends the commands, both in one transaction.
//!
//! A saga is declared as a [`Plan`] of [`Step`]s, which is checked before anything runs:
//!
//! ```
//! use std::time::Duration;
//! use ackwell_core::saga::{Plan, Step};
//!
//! let seconds = Duration::from_secs;
//! let plan = Plan::named("order")
//!     .step(
//!         Step::named("reserve inventory")
//!             .sends("ReserveInventory")
//!             .done_on("InventoryReserved")
//!             .refused_on("InventoryRefused")
//!             .undone_by("ReleaseInventory")
//!             .undone_on("InventoryReleased")
//!             .within(seconds(30))
//!             .or_compensate(),
//!     )
//!     .step(
//!         Step::named("confirm order")
//!             .sends("ConfirmOrder")
//!             .done_on("OrderConfirmed")
//!             .nothing_to_undo()
//!             .point_of_no_return()
//!             .within(seconds(30))
//!             .or_review(),
//!     )
//!     .checked()?;
//! assert!(plan.to_mermaid().starts_with("stateDiagram-v2"));
//! # Ok::<(), ackwell_core::saga::PlanError>(())
//! ```
//!
//! # What a reply does
//!
//! | the step is | done | refused | undone |
//! |---|---|---|---|
//! | waiting | noted: it may have been done | nothing | nothing |
//! | waiting, and the saga takes back | its compensation is sent | nothing | nothing |
//! | sent | the next step begins | the saga takes back | nothing |
//! | sent, in review | the next step begins: the question is answered | the saga takes back | nothing |
//! | noted | nothing | no longer noted | nothing |
//! | done | nothing | nothing | nothing |
//! | refused | its compensation is sent | nothing | nothing |
//! | being undone | its compensation is sent again | nothing | the next one is undone |
//! | being undone, in review | its compensation is sent again | nothing | the next one is undone: the question is answered |
//! | undone | its compensation is sent again, also when the saga was over | nothing | nothing |
//!
//! # What else happens
//!
//! | the saga | deadline passed | cancel asked | resolved: confirm | resolved: cancel |
//! |---|---|---|---|---|
//! | runs | takes back, this step included, or review | takes back, this step included | refused | refused |
//! | runs, past the point of no return | review | refused | refused | refused |
//! | takes back | the compensation is sent again, in the end review | nothing | refused | refused |
//! | review: was the step done? | nothing | refused | its command is sent again | takes back, this step included |
//! | review: was the step undone? | nothing | nothing | refused | its compensation is sent again |
//! | is completed | nothing | refused | refused | refused |
//! | is compensated | nothing | nothing | refused | refused |
//!
//! It takes back the latest step first, one at a time. A step whose outcome is unknown is taken
//! back like one that was done, so a participant must answer a compensation also when it has done
//! nothing yet, and must then refuse the command if it comes after all.
//!
//! | file | |
//! |---|---|
//! | `plan.rs`, `check.rs` | the declaration, and what is wrong with it |
//! | `state.rs` | where one saga stands |
//! | `decide.rs` | what follows, the tables above |
//! | `watermark.rs` | until when replies have been handled, and deadlines may pass |
//! | `walk.rs` | every path through a plan, for tests |
//! | `draw.rs` | a plan as Mermaid and as SVG |

mod check;
mod decide;
mod draw;
mod plan;
mod state;
#[cfg(test)]
mod tests;
mod walk;
mod watermark;

pub use check::{PlanError, Problem};
pub use decide::{
    Cause, Command, Decision, Happening, Input, Move, Nothing, Refusal, Resolution, Which,
};
pub use plan::{Draft, OnTimeout, Plan, Reply, Step, StepNo};
pub use state::{Phase, Question, Restored, State, Status, StepState};
pub use walk::{Path, Paths};
pub use watermark::{Ask, Watermark};
