//! What the engine says of its health, what the client says of the broker's, and whether any
//! broker, and each that leads a partition, says anything.

use std::borrow::Cow;
use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

use super::End;
use super::denied::Denied;
use super::leaders::Leaders;
use super::lookup::{Looked, Lookup};
use super::notice::Notice;
use super::observation::Observation;
use super::poll::Poller;
use crate::rights::Rights;
use ackwell_core::engine::Event;

/// How often a broker that went away is looked for.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);
/// How often the topics are looked at while all seems well: of one that was deleted, the client may
/// say nothing for minutes (`topic.metadata.refresh.interval.ms`).
const LOOK_QUIET_INTERVAL: Duration = Duration::from_secs(15);

/// How long a member without an assignment may send its coordinator nothing where the broker
/// assigns: longer than a broker may ask it to wait between heartbeats
/// (`group.consumer.max.heartbeat.interval.ms`, 15 s).
const HEARTBEAT_WAIT: Duration = Duration::from_secs(20);

/// To a broker without KIP-848 the client sends nothing, and says nothing.
const OUTSIDE: &str = "the listener does not get into its group although the coordinator answers; \
    where the broker assigns (`Assignment::ByBroker`, `group.protocol = \"consumer\"`) it must be \
    Apache Kafka 4.0 or newer: use one, or another `Assignment`";

/// What the engine says of its health, and what the client says of the broker's.
pub(super) struct Health {
    pub(super) engine: Option<String>,
    client: Option<String>,
    pub(super) topics: Option<String>,
    silence: Option<String>,
    pub(super) leaders: Leaders,
    group: Option<String>,
    by_broker: bool,
    told: Option<String>,
    fatal: Option<String>,
    looked: Instant,
    looking: bool,
    /// When a broker was heard last; `None` if the client does not tell.
    heard: Option<Instant>,
    silence_max: Duration,
    pub(super) rights: Rights,
    pub(super) denied: Denied,
    /// The client was refused its group.
    group_denied: bool,
}

impl Health {
    /// `hears`: whether the client tells when it heard of a broker, by its statistics; `by_broker`:
    /// whether the broker assigns.
    pub(super) fn new(hears: bool, by_broker: bool, silence_max: Duration, rights: Rights) -> Self {
        Health {
            engine: None,
            client: None,
            topics: None,
            silence: None,
            leaders: Leaders::default(),
            group: None,
            by_broker,
            told: None,
            fatal: None,
            looked: Instant::now(),
            looking: false,
            heard: hears.then(Instant::now),
            silence_max,
            rights,
            denied: Denied::default(),
            group_denied: false,
        }
    }
}

impl Poller {
    pub(super) fn client_failed(&mut self, error: &KafkaError) {
        let reason = self.client.context().take_reason();
        let Some(problem) = Problem::of(error) else {
            return;
        };
        self.health.group_denied |= problem.code == Code::GroupAuthorizationFailed;
        let error = match self.mend(problem.code) {
            Some(mend) => format!("{}; {mend}", reason.unwrap_or(error.to_string())),
            None => reason.unwrap_or(error.to_string()),
        };
        self.client_problem(error, problem.fatal);
    }

    /// What to do about an error of the client.
    pub(super) fn mend(&self, code: Code) -> Option<Cow<'static, str>> {
        let rights = &self.health.rights;
        match code {
            Code::TopicAuthorizationFailed => {
                let topics = self.topics.iter().map(String::as_str);
                Some(rights.to_read(topics).into())
            }
            Code::GroupAuthorizationFailed => Some(rights.to_join(&self.dispatcher.group).into()),
            _ => mend(code).map(Cow::Borrowed),
        }
    }

    /// The group's positions can't be read yet.
    pub(super) fn positions_unknown(&mut self, error: &KafkaError) {
        let code = error.rdkafka_error_code();
        let mend = code.and_then(|code| self.mend(code));
        let mend = mend.map_or_else(String::new, |mend| format!("; {mend}"));
        let problem = format!("the group's committed positions can't be read: {error}{mend}");
        self.client_problem(problem, false);
    }

    pub(super) fn client_problem(&mut self, error: String, fatal: bool) {
        if fatal {
            tracing::error!(error, "the kafka client has broken down");
            self.health.fatal = Some(error.clone());
            self.on_event(Event::Stop);
        } else if self.health.client.as_ref() != Some(&error) {
            tracing::warn!(error, "the kafka client reports a problem");
        }
        self.health.client = Some(error);
        self.health.looked = Instant::now();
        self.tell_health();
    }

    /// Sees whether what the client complained about is over, and whether the topics are there.
    pub(super) fn look_for_broker(&mut self) {
        let interval = match self.health.client {
            Some(_) => LOOK_INTERVAL,
            None => LOOK_QUIET_INTERVAL,
        };
        let due = self.health.looked.elapsed() >= interval && self.health.fatal.is_none();
        if due && !self.health.looking {
            self.health.looking = true;
            self.lookups.ask(Lookup::Topics {
                topics: self.topics.clone(),
                group: self.health.group_denied,
            });
        }
    }

    pub(super) fn topics_looked_at(&mut self, looked: &Looked) {
        self.health.looking = false;
        self.health.looked = Instant::now();
        let missing = looked.missing.first();
        if let Some(topic) = missing.filter(|_| self.health.client.is_none()) {
            let mend = mend(Code::UnknownTopicOrPartition).unwrap_or_default();
            self.client_problem(format!("the topic {topic} does not exist; {mend}"), false);
        }
        let fine = looked.missing.is_empty() && !looked.in_doubt;
        // While the group's positions can't be read, topics in order say nothing.
        if fine && self.assigning.is_none() {
            self.client_recovered();
        }
    }

    pub(super) fn client_recovered(&mut self) {
        self.health.group_denied = false;
        if self.health.fatal.is_none() && self.health.client.take().is_some() {
            self.tell_health();
        }
    }

    /// A broker was heard so long ago.
    pub(super) fn told_heard(&mut self, ago: Duration) {
        let heard = Instant::now().checked_sub(ago);
        if let (Some(known), Some(heard)) = (&mut self.health.heard, heard) {
            *known = (*known).max(heard);
        }
    }

    /// This member has no assignment, and for so long it has sent its coordinator nothing.
    pub(super) fn told_outside(&mut self, silent: Option<Duration>) {
        let health = &mut self.health;
        let silent = silent.is_some_and(|silent| silent >= HEARTBEAT_WAIT);
        let outside = silent && health.by_broker;
        if outside == health.group.is_some() {
            return;
        }
        health.group = outside.then(|| OUTSIDE.to_owned());
        if outside {
            tracing::warn!("the listener does not get into its group");
        }
        self.tell_health();
    }

    /// Notices when no broker says anything any more, and when one does again.
    pub(super) fn listen_for_brokers(&mut self) {
        let Some(heard) = self.health.heard else {
            return;
        };
        let silent = heard.elapsed() >= self.health.silence_max;
        if silent == self.health.silence.is_some() {
            return;
        }
        let limit_ms = self.health.silence_max.as_millis();
        self.health.silence = silent.then(|| format!("no broker has answered for {limit_ms} ms; check that the brokers run, and that this machine reaches the addresses that they advertise"));
        self.notify(match self.health.silence.clone() {
            Some(reason) => Notice::NonResponsive { reason },
            None => Notice::Responsive,
        });
        self.tell_health();
    }

    pub(super) fn tell_health(&mut self) {
        let Health {
            engine,
            client,
            topics,
            silence,
            leaders,
            group,
            told,
            denied,
            ..
        } = &mut self.health;
        let problem = engine.as_ref().or(client.as_ref()).or(denied.problem());
        let problem = problem.or(topics.as_ref()).or(group.as_ref());
        let problem = problem.or(silence.as_ref()).or(leaders.problem());
        if problem != told.as_ref() {
            *told = problem.cloned();
            let problem = told.as_deref();
            let observation = Observation::Health { problem };
            self.dispatcher.observer.observe(&observation);
        }
    }

    /// How the container ended, when the engine has stopped with this problem.
    pub(super) fn ended(&self, problem: Option<String>) -> End {
        problem
            .or_else(|| self.health.fatal.clone())
            .map_or(End::Stopped, End::Failed)
    }
}

/// What an error of the client means for the listener.
#[derive(Debug, PartialEq, Eq)]
struct Problem {
    /// It ends the client.
    fatal: bool,
    code: Code,
}

impl Problem {
    /// `None` if it means nothing.
    fn of(error: &KafkaError) -> Option<Problem> {
        let (code, fatal) = match error {
            KafkaError::MessageConsumption(code) | KafkaError::Global(code) => (*code, false),
            KafkaError::MessageConsumptionFatal(code) => (*code, true),
            KafkaError::PartitionEOF(_) => return None,
            _ => (Code::Unknown, false),
        };
        // One connection of several, or an idle one, is no news; the client reconnects.
        let ordinary = code == Code::BrokerTransportFailure;
        (fatal || !ordinary).then_some(Problem { fatal, code })
    }
}

fn mend(code: Code) -> Option<&'static str> {
    Some(match code {
        Code::UnknownTopicOrPartition | Code::UnknownTopic => {
            "create the topic, or correct its name in the listener's declaration"
        }
        Code::ClusterAuthorizationFailed => "grant this client the right that the broker misses",
        Code::Resolve => "correct the host name in `kafka.bootstrap_servers`",
        Code::AllBrokersDown => {
            "check that the brokers run, and the addresses in `kafka.bootstrap_servers`"
        }
        Code::Authentication | Code::SaslAuthenticationFailed => {
            "correct `sasl.username`, `sasl.password` and `sasl.mechanism` in `[kafka.extra]`"
        }
        Code::SSL => {
            "let `ssl.ca.location` in `[kafka.extra]` name the authority that signed the brokers' certificates"
        }
        Code::FencedInstanceId => "give each member of the group a `group.instance.id` of its own",
        Code::InvalidSessionTimeout => {
            "set `session.timeout.ms` within the broker's `group.min.session.timeout.ms` and `group.max.session.timeout.ms`"
        }
        Code::InconsistentGroupProtocol => {
            "let all members of the group share a `partition.assignment.strategy`"
        }
        Code::UnsupportedFeature | Code::UnsupportedVersion => {
            "this broker can't do what is asked for; for `group.protocol = \"consumer\"` it must be Apache Kafka 4.0 or newer"
        }
        _ => return None,
    })
}

/// What can't be read of a partition is behind this error.
pub(super) struct Damage {
    /// Whether reading again may help.
    pub(super) again: bool,
    /// What to do about it.
    pub(super) mend: &'static str,
}

/// Whether an error on a partition's queue means that records are passed over or can't come, and
/// what to do then. The client goes on behind a damaged batch as if nothing had been there.
pub(super) fn damage(error: &KafkaError) -> Option<Damage> {
    let KafkaError::MessageConsumption(code) = error else {
        return None;
    };
    let (again, mend) = match code {
        Code::BadMessage | Code::BadCompression | Code::InvalidMessage => (
            true,
            "restore the log from a replica or a backup, or pass over the damage with a seek",
        ),
        Code::NotImplemented => (
            true,
            "it is written in a format that this client does not know: use a newer one, or pass over it with a seek",
        ),
        Code::MessageSizeTooLarge => (
            true,
            "raise `receive.message.max.bytes` in `[kafka.consumer]` above the record's size, or pass over it with a seek",
        ),
        Code::AutoOffsetReset => (
            false,
            "the log does not hold the group's position and `auto.offset.reset` is `error`: set the group's position or another reset policy, then stop and start the listener",
        ),
        _ => return None,
    };
    Some(Damage { again, mend })
}

/// Where the client says that something is wrong. It tells the offset in its text alone.
pub(super) fn offset_in(said: &str) -> Option<i64> {
    let (_, behind) = said.split_once("at offset ")?;
    let end = behind.find(|c: char| !c.is_ascii_digit());
    behind[..end.unwrap_or(behind.len())].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_offset_of_what_is_damaged_is_found_in_what_the_client_says() {
        let said = "MessageSet at offset 17 (80 bytes) failed CRC32C check (original 0xcd)";
        assert_eq!(offset_in(said), Some(17));
        assert_eq!(offset_in("at offset 3"), Some(3));
        assert_eq!(offset_in("at offset INVALID"), None);
        assert_eq!(offset_in("at offset 99999999999999999999"), None);
        assert_eq!(offset_in("it is broken"), None);
    }

    fn consuming(code: Code) -> KafkaError {
        KafkaError::MessageConsumption(code)
    }

    #[test]
    fn a_connection_that_breaks_is_no_news() {
        assert_eq!(Problem::of(&consuming(Code::BrokerTransportFailure)), None);
        assert_eq!(Problem::of(&KafkaError::PartitionEOF(3)), None);
    }

    #[test]
    fn what_is_missing_says_what_to_do() {
        for (code, wanted) in [
            (Code::UnknownTopicOrPartition, "create the topic"),
            (Code::Resolve, "host name"),
            (Code::AllBrokersDown, "brokers run"),
            (Code::SaslAuthenticationFailed, "sasl.password"),
            (Code::SSL, "ssl.ca.location"),
        ] {
            let problem = Problem::of(&consuming(code)).expect("it is told");
            assert!(!problem.fatal, "{code:?}");
            assert!(
                mend(problem.code).is_some_and(|mend| mend.contains(wanted)),
                "{code:?}"
            );
        }
    }

    #[test]
    fn a_fenced_member_is_fatal() {
        let error = KafkaError::MessageConsumptionFatal(Code::FencedInstanceId);
        let problem = Problem::of(&error).expect("it is told");
        assert!(problem.fatal && mend(problem.code).is_some());
    }

    #[test]
    fn a_damaged_batch_stops_its_partition_and_a_missing_right_does_not() {
        assert!(damage(&consuming(Code::BadMessage)).is_some_and(|found| found.again));
        assert!(damage(&consuming(Code::AutoOffsetReset)).is_some_and(|found| !found.again));
        assert!(damage(&consuming(Code::TopicAuthorizationFailed)).is_none());
    }
}
