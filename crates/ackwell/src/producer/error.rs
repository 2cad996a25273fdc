use std::time::Duration;

use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

use crate::encode::EncodeError;
use crate::failure::{Class, Classify};

/// Why a record was not sent.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub struct SendError {
    what: String,
    class: Class,
    source: Option<Source>,
}

#[derive(Debug, thiserror::Error)]
enum Source {
    #[error(transparent)]
    Client(#[from] KafkaError),
    #[error(transparent)]
    Encode(#[from] EncodeError),
}

impl SendError {
    /// Whether the brokers could not be reached, or did not answer in time: the same record may
    /// be sent later. It may also have been written, with its acknowledgement lost.
    pub fn is_unavailable(&self) -> bool {
        self.class == Class::Unavailable
    }

    /// Whether the record itself is refused, today and tomorrow: it is too large, or not encodable.
    pub fn is_permanent(&self) -> bool {
        self.class == Class::Permanent
    }

    /// Whether the broker takes no record of this size on its topic.
    pub(crate) fn is_too_large(&self) -> bool {
        let Some(Source::Client(error)) = &self.source else {
            return false;
        };
        matches!(
            error.rdkafka_error_code(),
            Some(Code::MessageSizeTooLarge | Code::InvalidMessageSize)
        )
    }

    pub(super) fn settings(error: KafkaError) -> Self {
        let what = "starting a producer: the client refuses its settings".to_owned();
        Self {
            what,
            class: Class::Stop,
            source: Some(error.into()),
        }
    }

    pub(super) fn closed(topic: &str) -> Self {
        let what = if topic.is_empty() {
            "sending: the producer is closed".to_owned()
        } else {
            format!("sending to {topic}: the producer is closed")
        };
        Self {
            what,
            class: Class::Unavailable,
            source: None,
        }
    }

    pub(super) fn unflushed(records: i32, waited: Duration) -> Self {
        let what = format!(
            "flushing: {records} records are not acknowledged after {} ms",
            waited.as_millis()
        );
        Self {
            what,
            class: Class::Unavailable,
            source: None,
        }
    }

    pub(super) fn client(topic: &str, error: KafkaError) -> Self {
        let class = error
            .rdkafka_error_code()
            .map_or(Class::Transient, class_of);
        Self {
            what: format!("sending to {topic}"),
            class,
            source: Some(error.into()),
        }
    }

    pub(super) fn is_queue_full(error: &KafkaError) -> bool {
        error.rdkafka_error_code() == Some(Code::QueueFull)
    }

    /// The cause as text, for logs.
    pub(super) fn cause(&self) -> Option<String> {
        self.source.as_ref().map(ToString::to_string)
    }
}

/// What is wrong with the record is permanent; what is wrong with the producer stops the
/// listener; everything else is somebody away, and must not use up attempts.
fn class_of(code: Code) -> Class {
    match code {
        Code::MessageSizeTooLarge
        | Code::MessageBatchTooLarge
        | Code::InvalidMessage
        | Code::InvalidMessageSize
        | Code::InvalidRecord
        | Code::InvalidTimestamp
        | Code::InvalidTopic
        | Code::InvalidArgument
        | Code::PolicyViolation
        | Code::UnknownPartition => Class::Permanent,
        Code::Fatal | Code::ProducerFenced | Code::InvalidProducerEpoch => Class::Stop,
        _ => Class::Unavailable,
    }
}

impl From<EncodeError> for SendError {
    fn from(error: EncodeError) -> Self {
        Self {
            what: "sending an event".to_owned(),
            class: Class::Permanent,
            source: Some(error.into()),
        }
    }
}

impl Classify for SendError {
    fn class(&self) -> Class {
        self.class
    }
}
