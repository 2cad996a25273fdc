use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

use crate::encode::EncodeError;
use crate::failure::{Class, Classify};

/// Why a transaction did not come to its end, or could not be sent to.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct TransactionError(Box<Inner>);

#[derive(Debug, thiserror::Error)]
#[error("{what}")]
struct Inner {
    what: String,
    kind: Kind,
    class: Class,
    /// Told in the text: where there is no room for causes, it must be said what to mend.
    client: Option<KafkaError>,
    source: Option<EncodeError>,
}

/// What is known of the transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It was aborted, or not even begun.
    Aborted,
    /// Somebody else has its transactional id.
    Fenced,
    /// Its offsets are those of a member that the group has replaced.
    Outdated,
    /// It may have been committed.
    Unknown,
}

impl Kind {
    /// For metrics.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Kind::Aborted => "aborted",
            Kind::Fenced => "fenced",
            Kind::Outdated => "outdated",
            Kind::Unknown => "unknown",
        }
    }
}

impl TransactionError {
    /// Whether another instance has taken over the transactional id: nothing that this one sent
    /// in the transaction will be seen, and nothing that it sends later.
    pub fn is_fenced(&self) -> bool {
        self.0.kind == Kind::Fenced
    }

    /// Whether the transaction may have been committed after all: the broker did not answer in
    /// time. Everywhere else an error means that none of it will be seen.
    pub fn is_unknown(&self) -> bool {
        self.0.kind == Kind::Unknown
    }

    /// Whether the brokers could not be reached, or did not answer in time.
    pub fn is_unavailable(&self) -> bool {
        self.0.class == Class::Unavailable
    }

    /// Whether what was sent is refused, today and tomorrow.
    pub fn is_permanent(&self) -> bool {
        self.0.class == Class::Permanent
    }

    pub(crate) fn kind(&self) -> Kind {
        self.0.kind
    }

    /// What the client says, as far as it is about the record that was sent.
    pub(crate) fn client_error(&self) -> Option<&KafkaError> {
        self.0.client.as_ref()
    }

    pub(super) fn new(class: Class, what: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            what: what.into(),
            kind: Kind::Aborted,
            class,
            client: None,
            source: None,
        }))
    }

    pub(super) fn ended() -> Self {
        Self::new(
            Class::Permanent,
            "sending in a transaction that has ended: send before the handler or closure returns",
        )
    }

    /// Another instance has this id, and keeps it.
    pub(super) fn fenced(id: &str) -> Self {
        let code = KafkaError::Global(Code::ProducerFenced);
        Self::client("going on", id, code)
    }

    pub(super) fn unknown(mut self) -> Self {
        self.0.kind = Kind::Unknown;
        self.0.class = Class::Unavailable;
        self
    }

    /// What whoever goes on after `refused` is told.
    pub(super) fn refused_before(refused: &Self) -> Self {
        let what = format!("a record was refused before: {refused}");
        let mut error = Self::new(Class::Permanent, what);
        error.0.kind = refused.kind();
        error
    }

    pub(crate) fn outdated(what: impl Into<String>) -> Self {
        let mut error = Self::new(Class::Unavailable, what);
        error.0.kind = Kind::Outdated;
        error
    }

    pub(crate) fn unavailable(what: impl Into<String>) -> Self {
        Self::new(Class::Unavailable, what)
    }

    /// What the client says about `id`, while doing something.
    pub(super) fn client(doing: &str, id: &str, error: KafkaError) -> Self {
        let code = error.rdkafka_error_code().unwrap_or(Code::Unknown);
        let (kind, class) = meaning(code);
        let mend = mend(code).map_or_else(String::new, |mend| format!("; {mend}"));
        Self(Box::new(Inner {
            what: format!("{doing} in a transaction of {id}: {error}{mend}"),
            kind,
            class,
            client: Some(error),
            source: None,
        }))
    }
}

fn meaning(code: Code) -> (Kind, Class) {
    match code {
        Code::Fenced
        | Code::ProducerFenced
        | Code::InvalidProducerEpoch
        | Code::TransactionCoordinatorFenced => (Kind::Fenced, Class::Stop),
        Code::IllegalGeneration
        | Code::UnknownMemberId
        | Code::RebalanceInProgress
        | Code::FencedMemberEpoch
        | Code::StaleMemberEpoch => (Kind::Outdated, Class::Unavailable),
        Code::TransactionalIdAuthorizationFailed
        | Code::GroupAuthorizationFailed
        | Code::ClusterAuthorizationFailed
        | Code::InvalidTransactionTimeout
        | Code::UnsupportedFeature
        | Code::UnsupportedVersion
        | Code::FencedInstanceId => (Kind::Aborted, Class::Stop),
        Code::MessageSizeTooLarge
        | Code::MessageBatchTooLarge
        | Code::InvalidMessage
        | Code::InvalidMessageSize
        | Code::InvalidRecord
        | Code::InvalidTimestamp
        | Code::InvalidTopic
        | Code::InvalidArgument
        | Code::PolicyViolation
        | Code::UnknownPartition => (Kind::Aborted, Class::Permanent),
        _ => (Kind::Aborted, Class::Unavailable),
    }
}

fn mend(code: Code) -> Option<&'static str> {
    Some(match code {
        Code::Fenced | Code::ProducerFenced | Code::InvalidProducerEpoch => {
            "another instance uses the same transactional id: give each one a `transactions.instance` or a data folder of its own, and start this one again"
        }
        Code::TransactionalIdAuthorizationFailed => {
            "grant this client the right to write and describe the transactional ids that begin with `transactions.prefix`"
        }
        Code::InvalidTransactionTimeout => {
            "lower `transactions.timeout` below the broker's `transaction.max.timeout.ms`"
        }
        Code::UnsupportedFeature | Code::UnsupportedVersion => {
            "this broker has no transactions, or older ones than the client needs; use a newer broker"
        }
        Code::UnknownTopicOrPartition | Code::UnknownTopic => {
            "create the topic, or declare it with `App::topic`"
        }
        Code::TopicAuthorizationFailed => "grant this client the right to write the topic",
        _ => return None,
    })
}

impl From<EncodeError> for TransactionError {
    fn from(error: EncodeError) -> Self {
        let mut failed = Self::new(Class::Permanent, "sending an event in a transaction");
        failed.0.source = Some(error);
        failed
    }
}

impl Classify for TransactionError {
    fn class(&self) -> Class {
        self.0.class
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fenced_producer_stops_and_an_outdated_member_waits() {
        assert_eq!(meaning(Code::ProducerFenced), (Kind::Fenced, Class::Stop));
        let (kind, class) = meaning(Code::IllegalGeneration);
        assert_eq!((kind, class), (Kind::Outdated, Class::Unavailable));
    }

    #[test]
    fn a_record_that_is_too_large_is_refused_for_good() {
        let error = KafkaError::MessageProduction(Code::MessageSizeTooLarge);
        let error = TransactionError::client("sending to orders", "a-1", error);
        assert!(error.is_permanent() && !error.is_unknown());
    }
}
