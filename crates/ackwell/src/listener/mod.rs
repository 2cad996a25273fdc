//! Declaring a listener: which topics, which group, how much at once, what happens on failure.

mod builder;
mod concurrency;
mod events;
mod filter;
mod handle;
mod handling;
mod member;
mod pattern;
mod running;

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

pub use builder::ListenerBuilder;
pub use concurrency::{AckMode, Concurrency, OnUndecodable, by_key, by_partition};
pub use events::EventListener;
pub use filter::Filter;
pub(crate) use filter::Passage;
pub use handle::ListenerHandle;
pub(crate) use handle::WeakHandle;
pub use member::Assignment;
pub(crate) use member::Member;
pub(crate) use pattern::Common;
pub use pattern::{Matcher, Pattern};

use crate::container::{Limits, Notices, RebalanceListener, Snapshots};
use crate::dead_letters::{self, DeadLetters};
use crate::failure::{Hook, Verdicts};
use crate::handler::Erased;
use crate::layer::ErasedLayer;
use crate::retry::Retry;
use crate::topic::{DEAD_LETTER_SUFFIX, TopicDeclaration};

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
    pub(crate) pattern: Option<Pattern>,
    pub(crate) group: Option<Cow<'static, str>>,
    pub(crate) name: Option<Cow<'static, str>>,
    pub(crate) concurrency: Concurrency,
    pub(crate) ack_mode: AckMode,
    pub(crate) strict_commits: bool,
    pub(crate) snapshots: Snapshots,
    pub(crate) retry: Retry,
    pub(crate) verdicts: Verdicts,
    pub(crate) hooks: Vec<Hook>,
    pub(crate) dead_letters: DeadLetters,
    pub(crate) on_undecodable: OnUndecodable,
    /// As `on_undecodable`, if it is not set.
    pub(crate) on_unknown_event: Option<OnUndecodable>,
    pub(crate) filter: Option<Filter>,
    /// The innermost first.
    pub(crate) layers: Vec<ErasedLayer>,
    pub(crate) limits: Limits,
    pub(crate) rebalance: Option<Arc<dyn RebalanceListener>>,
    pub(crate) notices: Notices,
    pub(crate) member: Member,
}

impl Listener {
    /// Starts declaring a listener on a topic: a [`Topic`](crate::Topic) constant, or a name.
    #[must_use = "a listener needs `.handle(f)`"]
    pub fn on(topic: impl Into<TopicDeclaration>) -> ListenerBuilder {
        ListenerBuilder::new(vec![topic.into()], None)
    }

    /// Starts declaring a listener on all topics whose names match a [`Pattern`]; a topic that
    /// appears while it runs is read, too, from its beginning.
    ///
    /// While no topic matches, the listener is not ready and says so. Two listeners of a group
    /// whose patterns can mean the same topic are an error at the start.
    #[must_use = "a listener needs `.handle(f)`"]
    pub fn matching(pattern: impl Into<Pattern>) -> ListenerBuilder {
        ListenerBuilder::new(Vec::new(), Some(pattern.into()))
    }

    /// Starts declaring a listener on the dead letters of a topic, `<topic>.DLQ`: for alerts and
    /// tickets. Its handler asks for a [`DeadLetter`](dead_letters::DeadLetter).
    ///
    /// What it can't handle itself is written to `<topic>.parked`, on which nothing listens, so a
    /// failing handler never meets its own dead letters. That it has handled a dead letter does
    /// not mean that the event in it was: a replay reaches the event's listener all the same, in
    /// the same group too.
    #[must_use = "a listener needs `.handle(f)`"]
    pub fn on_dead_letters(topic: impl Into<TopicDeclaration>) -> ListenerBuilder {
        let TopicDeclaration { name, .. } = topic.into();
        let letters = TopicDeclaration::named(format!("{name}{DEAD_LETTER_SUFFIX}"));
        ListenerBuilder::new(vec![letters], None).dead_letters(dead_letters::parked())
    }
}

impl Options {
    /// The listener's name: given, or `<group>:<topic>`.
    pub(crate) fn listener_name(&self, group: &str) -> String {
        match (&self.name, self.topics.first()) {
            (Some(name), _) => name.to_string(),
            (None, Some(topic)) => format!("{group}:{}", topic.name),
            (None, None) => match &self.pattern {
                Some(pattern) => format!("{group}:{}", pattern.source()),
                None => group.to_owned(),
            },
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
