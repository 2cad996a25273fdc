//! Names of the headers that events and dead letters carry (all values are text).
//!
//! They are part of the interface between services, in whatever language: changing one breaks
//! readers.

/// Identifies an event: a UUID. What makes a redelivery recognisable.
pub const EVENT_ID: &str = "eventId";
/// What happened, e.g. `OrderPlaced`.
pub const EVENT_TYPE: &str = "eventType";
/// When it happened: RFC 3339, UTC.
pub const OCCURRED_AT: &str = "occurredAt";
/// What it happened to; also the record's key.
pub const AGGREGATE_ID: &str = "aggregateId";
/// How the value is encoded, e.g. `application/json`.
pub const CONTENT_TYPE: &str = "contentType";
/// The W3C trace context.
pub const TRACEPARENT: &str = "traceparent";

/// The suffix of a dead-letter topic, unless configured otherwise.
pub const DEAD_LETTER_SUFFIX: &str = ".DLQ";
/// Stands between a topic's name and the number of one of its retry topics.
pub const RETRY_INFIX: &str = ".retry.";

/// Where a record was first read, whatever topics it has passed since: on dead letters, on
/// records in retry topics, and on replayed ones. It stays what it is when it is passed on again.
///
/// For a record without an event id, topic, partition and offset are also what makes it
/// recognisable when it comes back at another place.
pub mod original {
    /// The topic that the record was first read from.
    pub const TOPIC: &str = "original.topic";
    /// The partition that it was read from.
    pub const PARTITION: &str = "original.partition";
    /// Its offset there.
    pub const OFFSET: &str = "original.offset";
    /// Its timestamp there, in milliseconds since the Unix epoch; empty if it had none.
    pub const TIMESTAMP: &str = "original.timestamp";
    /// The group in which it could not be handled.
    pub const GROUP: &str = "original.group";

    /// All of them.
    pub const ALL: [&str; 5] = [TOPIC, PARTITION, OFFSET, TIMESTAMP, GROUP];
}

/// Why a dead letter is one.
pub mod failure {
    /// What went wrong at the last attempt.
    pub const REASON: &str = "failure.reason";
    /// The class of that failure: `transient`, `permanent`.
    pub const CLASS: &str = "failure.class";
    /// When it was given up: RFC 3339, UTC.
    pub const TIMESTAMP: &str = "failure.timestamp";
    /// How many attempts were made.
    pub const ATTEMPTS: &str = "failure.attempts";

    /// All of them.
    pub const ALL: [&str; 4] = [REASON, CLASS, TIMESTAMP, ATTEMPTS];

    /// When it failed first: RFC 3339, UTC. This one and the next two are there only if it had
    /// failed before, and they stand behind the `original.*` headers.
    pub const FIRST_TIMESTAMP: &str = "failure.first.timestamp";
    /// The class of its first failure.
    pub const FIRST_CLASS: &str = "failure.first.class";
    /// What went wrong then.
    pub const FIRST_REASON: &str = "failure.first.reason";

    /// All of those.
    pub const FIRST: [&str; 3] = [FIRST_TIMESTAMP, FIRST_CLASS, FIRST_REASON];
}

/// What a replay of a dead letter adds.
pub mod replay {
    /// How often the record has been replayed.
    pub const HOPS: &str = "replay.hops";
}

/// What a record on a retry topic adds to the headers of its origin, behind them and in the order
/// of [`HEADERS`](retry::HEADERS).
pub mod retry {
    use super::{failure, original};

    /// The number of the retry topic, from 1.
    pub const NUMBER: &str = "retry.number";
    /// When the record may be handled again, in milliseconds since the Unix epoch, by the clock
    /// of who wrote it.
    pub const DUE: &str = "retry.due";
    /// How long before that it was written, in milliseconds.
    pub const DELAY: &str = "retry.delay";

    /// All of them. A record carries the whole list or none of it, so that headers of the same
    /// name that a user has sent are told apart.
    pub const HEADERS: [&str; 15] = [
        original::TOPIC,
        original::PARTITION,
        original::OFFSET,
        original::TIMESTAMP,
        original::GROUP,
        failure::REASON,
        failure::CLASS,
        failure::TIMESTAMP,
        failure::ATTEMPTS,
        failure::FIRST_TIMESTAMP,
        failure::FIRST_CLASS,
        failure::FIRST_REASON,
        NUMBER,
        DUE,
        DELAY,
    ];

    /// The name of the `number`th retry topic of `origin`.
    pub fn topic(origin: &str, number: u32) -> String {
        format!("{origin}{}{number}", super::RETRY_INFIX)
    }
}
