//! Sagas: their state, the mark of the reply and the commands that follow, in one transaction.
//!
//! What follows from a reply is decided by [`ackwell::core::saga`]; here it becomes durable. A saga's
//! state, its history and its commands are written by the transaction that marks the reply as handled,
//! so none of them is found without the others, and a reply that is delivered again finds all of it
//! done. Each write is guarded by the version that was read: of two who move a saga at the same time,
//! one does. Deadlines are a column of the saga's row, so a restart forgets none, and what fires one
//! moves the saga in the same transaction: whoever comes second finds nothing due.
//!
//! ```no_run
//! # use std::{borrow::Cow, time::Duration};
//! # use ackwell::{App, Config, Event, Topic};
//! # use ackwell::extract::{Event as Handed, State};
//! # use ackwell_sql::{Database, Error, Relay, Tx};
//! # use serde::{Deserialize, Serialize};
//! # use uuid::{Uuid, uuid};
//! use ackwell_sql::saga::{Declaration, Saga, Sagas, Step};
//!
//! # #[derive(Serialize, Deserialize)]
//! # enum Seats { Book { trip: Uuid }, Free { trip: Uuid }, Booked { trip: Uuid }, SoldOut { trip: Uuid }, Freed { trip: Uuid } }
//! # impl Seats { fn trip(&self) -> Uuid { let (Self::Book { trip } | Self::Free { trip } | Self::Booked { trip } | Self::SoldOut { trip } | Self::Freed { trip }) = self; *trip } }
//! # impl Event for Seats {
//! #     const TOPIC: Topic<Self> = Topic::new("seats");
//! #     const TYPES: &'static [&'static str] = &["Book", "Free", "Booked", "SoldOut", "Freed"];
//! #     fn event_type(&self) -> &'static str { match self { Self::Book { .. } => "Book", Self::Free { .. } => "Free", Self::Booked { .. } => "Booked", Self::SoldOut { .. } => "SoldOut", Self::Freed { .. } => "Freed" } }
//! #     fn aggregate_id(&self) -> Cow<'_, str> { self.trip().to_string().into() }
//! # }
//! struct Trips;
//!
//! /// What the commands of a trip need to know.
//! #[derive(Serialize, Deserialize)]
//! struct Trip { id: Uuid }
//!
//! impl Saga for Trips {
//!     const IDS: Uuid = uuid!("6f8e1f0a-6a9c-4a55-9d5e-0c8f6a1b2c3d");
//!     type Data = Trip;
//!     type Error = Error;
//!
//!     fn declare(&self) -> Declaration<Trip> {
//!         Declaration::named("trip").step(
//!             Step::named("book seat")
//!                 .sends("Book", |trip: &Trip| Seats::Book { trip: trip.id })
//!                 .done_on("Booked")
//!                 .refused_on("SoldOut")
//!                 .undone_by("Free", |trip: &Trip, _reason| Seats::Free { trip: trip.id })
//!                 .undone_on("Freed")
//!                 .within(Duration::from_secs(30))
//!                 .or_compensate(),
//!         )
//!     }
//! }
//!
//! async fn on_reply(Handed(reply): Handed<Seats>, State(trips): State<Sagas<Trips>>, mut tx: Tx) -> Result<(), Error> {
//!     let id = Sagas::<Trips>::id(&reply.trip().to_string());
//!     trips.reply(&mut tx, id, reply.event_type(), None).await?;
//!     Ok(())
//! }
//!
//! # fn f(config: Config, db: Database) -> Result<(), Box<dyn std::error::Error>> {
//! let trips = Sagas::new(Trips)?;
//! let app = App::new(config)
//!     .state(db.clone())
//!     .state(trips.clone())
//!     .service(trips.monitor(db.clone()).replies("trips", &["seats"]))
//!     .service(Relay::new(db));
//! # Ok(()) }
//! ```
//!
//! | file | |
//! |---|---|
//! | `declare.rs` | a plan, with what makes its commands |
//! | `sagas.rs` | starting, replies, cancelling, resolving |
//! | `rows.rs` | a saga's rows |
//! | `monitor.rs`, `alarm.rs` | deadlines |
//! | `handled.rs` | until when replies have been handled |
//! | `prune.rs` | finished sagas, forgotten after a time |
//! | `view.rs` | lists, and one saga step by step |
//! | `observe.rs` | metrics |

mod alarm;
mod declare;
mod handled;
mod monitor;
mod observe;
mod prune;
mod rows;
mod sagas;
mod view;

pub use ackwell::core::saga::{
    Cause, Happening, Nothing, Path, Paths, Phase, Plan, PlanError, Question, Refusal, Resolution,
    Status, StepNo, StepState,
};
pub use declare::{Declaration, Step};
pub use monitor::Monitor;
pub use sagas::{Answer, Change, Saga, Sagas, Started};
pub use view::{Entry, Open, Page, StepView, Summary, View};
