//! Declaring a listener: which topics, which group, how much at once, what happens on failure.

mod builder;
mod concurrency;
mod handle;
mod member;
mod running;

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

pub use builder::ListenerBuilder;
pub use concurrency::{AckMode, Concurrency, OnUndecodable, by_key, by_partition};
pub use handle::ListenerHandle;
pub(crate) use handle::WeakHandle;
pub use member::Assignment;
pub(crate) use member::Member;

use crate::container::{DeadLetters, Limits, Notices, RebalanceListener};
use crate::failure::Verdicts;
use crate::handler::Erased;
use crate::retry::Retry;
use crate::topic::TopicDeclaration;

/// A handler with its container: made by [`Listener::on`], given to
/// [`App::listener`](crate::App::listener).
///
/// ```
/// use std::time::Duration;
/// use ackwell::{Listener, by_key, extract::{Key, Text}, retry::exponential};
///
/// async fn audit(Key(key): Key, Text(text): Text) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
///     println!("{key:?}: {text}");
///     Ok(())
/// }
///
/// let listener = Listener::on("audit-events")
///     .group("audit")
///     .concurrency(by_key(32))
///     .retry(exponential(Duration::from_secs(1), 2.0).max_attempts(5))
///     .handle(audit);
/// # let _ = listener;
/// ```
pub struct Listener {
    pub(crate) options: Options,
    pub(crate) handler: Box<dyn Erased>,
}

/// What a builder collects.
pub(crate) struct Options {
    pub(crate) topics: Vec<TopicDeclaration>,
    pub(crate) group: Option<Cow<'static, str>>,
    pub(crate) name: Option<Cow<'static, str>>,
    pub(crate) concurrency: Concurrency,
    pub(crate) ack_mode: AckMode,
    pub(crate) retry: Retry,
    pub(crate) verdicts: Verdicts,
    pub(crate) dead_letters: DeadLetters,
    pub(crate) on_undecodable: OnUndecodable,
    pub(crate) limits: Limits,
    pub(crate) rebalance: Option<Arc<dyn RebalanceListener>>,
    pub(crate) notices: Notices,
    pub(crate) member: Member,
}

impl Listener {
    /// Starts declaring a listener on a topic: a [`Topic`](crate::Topic) constant, or a name.
    #[must_use = "a listener needs `.handle(f)`"]
    pub fn on(topic: impl Into<TopicDeclaration>) -> ListenerBuilder {
        ListenerBuilder::new(topic.into())
    }
}

impl Options {
    /// The listener's name: given, or `<group>:<topic>`.
    pub(crate) fn listener_name(&self, group: &str) -> String {
        match (&self.name, self.topics.first()) {
            (Some(name), _) => name.to_string(),
            (None, Some(topic)) => format!("{group}:{}", topic.name),
            (None, None) => group.to_owned(),
        }
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener")
            .field("topics", &self.options.topics)
            .field("group", &self.options.group)
            .field("concurrency", &self.options.concurrency)
            .finish_non_exhaustive()
    }
}
