use std::sync::Arc;

use crate::config;
use crate::container;
use crate::context::SetupError;

/// Why an app could not start. Cheap to clone.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// Settings can't be used.
    #[error("the settings can't be used:\n{0}")]
    Config(config::Error),
    /// Two listeners share a group and a topic.
    #[error(
        "listeners `{first}` and `{second}` both read `{topic}` in the group `{group}`: each would see only some of its records; give them different groups, or one handler for all of the topic's events"
    )]
    Clash {
        /// The first one's name.
        first: String,
        /// The other one's name.
        second: String,
        /// The topic that they share.
        topic: String,
        /// The group that they share.
        group: String,
    },
    /// Two components have the same name.
    #[error("two components are called `{name}`; give one of them another name")]
    Name {
        /// The name.
        name: String,
    },
    /// A listener is declared wrongly, or something that its extractors need is missing.
    #[error("listener `{listener}`: {problem}")]
    Listener {
        /// The listener's name.
        listener: String,
        /// What is wrong, and the mend.
        problem: SetupError,
    },
    /// Something that is declared for the whole app is wrong.
    #[error("the app: {problem}")]
    App {
        /// What is wrong, and the mend.
        problem: SetupError,
    },
    /// A topic does not fit its declaration, or can't be created.
    #[error("topic `{topic}`: {problem}")]
    Topic {
        /// The topic.
        topic: String,
        /// What is wrong, and the mend.
        problem: SetupError,
    },
    /// The Kafka client refuses its settings.
    #[error("the Kafka client refuses its settings: {reason}")]
    Client {
        /// What it says.
        reason: String,
    },
    /// The app has stopped; its listeners can't be started again.
    #[error("the app has stopped")]
    Stopped,
    /// A listener's container could not start.
    #[error(transparent)]
    Container(Arc<container::StartError>),
}

impl From<config::Error> for StartError {
    fn from(error: config::Error) -> Self {
        Self::Config(error)
    }
}
