//! Several handlers of one topic and group, each for events of its own types.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::future::BoxFuture;

use super::Erased;
use crate::container::RecordHandler;
use crate::context::{KnownEvents, Setup, SetupError, Shared, short_name};
use crate::extensions::Extensions;
use crate::extract::{self, FromRecord, event_type, unknown_event};
use crate::failure::Failure;
use crate::record::Record;
use crate::topic::Event;

/// The arguments of a handler of [`on_event`](crate::listener::ListenerBuilder::on_event): the first
/// one is `Event<E>`.
#[diagnostic::on_unimplemented(
    message = "this handler does not say which events it takes",
    label = "its first argument is no `Event<E>`",
    note = "a handler that is joined with others by `.on_event(..)` takes `Event<E>` first; its types are those of `E`"
)]
pub trait EventArguments {
    #[doc(hidden)]
    fn event() -> (&'static str, &'static [&'static str]);
}

macro_rules! event_arguments {
    ($($argument:ident),*) => {
        impl<Known: Event, $($argument: FromRecord,)*> EventArguments for (extract::Event<Known>, $($argument,)*) {
            fn event() -> (&'static str, &'static [&'static str]) {
                (short_name::<Known>(), Known::TYPES)
            }
        }
    };
}

event_arguments!();
event_arguments!(A);
event_arguments!(A, B);
event_arguments!(A, B, C);
event_arguments!(A, B, C, D);
event_arguments!(A, B, C, D, E);
event_arguments!(A, B, C, D, E, F);
event_arguments!(A, B, C, D, E, F, G);

/// Handlers by the event types that they know.
#[derive(Default)]
pub(crate) struct Routes {
    routes: Vec<(KnownEvents, Box<dyn Erased>)>,
}

impl Routes {
    pub(crate) fn add<A: EventArguments>(&mut self, handler: Box<dyn Erased>) {
        let (name, types) = A::event();
        self.routes.push((KnownEvents { name, types }, handler));
    }

    /// Each type has one handler, and each handler lists its types.
    fn check(&self) -> Result<(), SetupError> {
        let mut owners = BTreeMap::new();
        for (known, _) in &self.routes {
            let name = known.name;
            if known.types.is_empty() {
                return Err(SetupError::new(format!(
                    "`{name}` does not list its event types, so nobody can say which records are its own"
                ))
                .mend(format!("write `const TYPES` in `impl Event for {name}`")));
            }
            for event_type in known.types {
                if let Some(first) = owners.insert(*event_type, name) {
                    return Err(SetupError::new(format!(
                        "the event type `{event_type}` has two handlers, of `{first}` and of `{name}`"
                    ))
                    .mend("let one of them handle it"));
                }
            }
        }
        Ok(())
    }
}

impl Erased for Routes {
    fn prepare(&self, setup: &mut Setup<'_>) -> Result<(), SetupError> {
        self.check()?;
        self.routes
            .iter()
            .try_for_each(|(_, handler)| handler.prepare(setup))
    }

    fn bind(&self, shared: Arc<Shared>) -> Arc<dyn RecordHandler> {
        let mut handlers = Vec::new();
        for (known, handler) in &self.routes {
            let handler = handler.bind(Arc::clone(&shared));
            let of_type = |event_type: &&'static str| (*event_type, Arc::clone(&handler));
            handlers.extend(known.types.iter().map(of_type));
        }
        Arc::new(Dispatch { handlers, shared })
    }
}

struct Dispatch {
    /// A listener knows a handful of types, so a scan beats a hash.
    handlers: Vec<(&'static str, Arc<dyn RecordHandler>)>,
    shared: Arc<Shared>,
}

impl Dispatch {
    fn handler(&self, record: &Record) -> Result<&Arc<dyn RecordHandler>, Failure> {
        let found = event_type(record)?;
        let mut handlers = self.handlers.iter();
        match handlers.find(|(event_type, _)| *event_type == found) {
            Some((_, handler)) => Ok(handler),
            None => Err(unknown_event(found)),
        }
    }
}

impl RecordHandler for Dispatch {
    fn call(
        &self,
        record: Record,
        attempt: u32,
        extensions: Extensions,
    ) -> BoxFuture<'static, Result<(), Failure>> {
        match self.handler(&record) {
            Ok(handler) => handler.call(record, attempt, extensions),
            Err(failure) => Box::pin(std::future::ready(Err(self.shared.refused(failure)))),
        }
    }
}
