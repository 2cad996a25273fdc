use std::fmt;

use super::{Listener, Options};
use crate::handler::{EventArguments, Handler, Routes, Typed};

/// A listener with handlers by event type; made by
/// [`ListenerBuilder::on_event`](super::ListenerBuilder::on_event), given to
/// [`App::listener`](crate::App::listener).
#[must_use = "a listener does nothing until it is given to an app"]
pub struct EventListener {
    options: Options,
    routes: Routes,
}

impl EventListener {
    pub(super) fn new(options: Options) -> Self {
        let routes = Routes::default();
        Self { options, routes }
    }

    /// Another handler, for events of other types.
    pub fn on_event<H, A>(mut self, handler: H) -> Self
    where
        H: Handler<A>,
        A: EventArguments + 'static,
    {
        self.routes.add::<A>(Box::new(Typed::new(handler)));
        self
    }
}

impl From<EventListener> for Listener {
    fn from(listener: EventListener) -> Self {
        let EventListener { options, routes } = listener;
        Self {
            options,
            handler: Box::new(routes),
        }
    }
}

impl fmt::Debug for EventListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventListener")
            .field("topics", &self.options.topics)
            .finish_non_exhaustive()
    }
}
