//! How a listener takes part in its group.

use std::borrow::Cow;

use rdkafka::ClientConfig;

use crate::config::{DECIDED_BY_BROKER, Kafka, is_assigned_by_broker};
use crate::context::SetupError;

/// How partitions are dealt to the members of a group. All members must agree; to change it in a
/// running group, follow the two steps of KIP-429, or stop all members first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Assignment {
    /// Partitions that stay are not interrupted by a rebalance (KIP-429). The default.
    CooperativeSticky,
    /// Each topic's partitions in a row; every rebalance interrupts all. Kafka's old default.
    Range,
    /// All partitions in turn; every rebalance interrupts all.
    RoundRobin,
    /// The broker assigns (KIP-848): no member waits for another. The embedded broker, or Apache Kafka
    /// 4.0 or newer; on an older one the listener reads nothing, and its health says why.
    ByBroker,
}

impl Assignment {
    const fn strategy(self) -> Option<&'static str> {
        match self {
            Self::CooperativeSticky => Some("cooperative-sticky"),
            Self::Range => Some("range"),
            Self::RoundRobin => Some("roundrobin"),
            Self::ByBroker => None,
        }
    }
}

/// A listener's settings of its group membership.
#[derive(Clone, Debug, Default)]
pub(crate) struct Member {
    pub(crate) assignment: Option<Assignment>,
    pub(crate) instance_id: Option<Cow<'static, str>>,
}

impl Member {
    /// The consumer's configuration in `group`.
    pub(crate) fn consumer(&self, kafka: &Kafka, group: &str) -> Result<ClientConfig, SetupError> {
        let mut config = kafka.consumer(group);
        if let Some(id) = &self.instance_id {
            config.set("group.instance.id", id.as_ref());
        }
        let by_property = is_assigned_by_broker(&config).then_some(Assignment::ByBroker);
        match self.assignment.or(by_property) {
            None => {}
            Some(Assignment::ByBroker) => {
                for (name, _) in DECIDED_BY_BROKER {
                    if kafka.given(name).is_some() {
                        return Err(SetupError::new(format!(
                            "`{name}` is set, but where the broker assigns it decides that"
                        ))
                        .mend(format!("remove `{name}` from the settings")));
                    }
                    config.remove(name);
                }
                config.set("group.protocol", "consumer");
            }
            Some(by_members) => {
                if is_assigned_by_broker(&config) {
                    return Err(SetupError::new(
                        "`group.protocol=consumer` is set, with which the broker assigns",
                    )
                    .mend("remove it, or choose `Assignment::ByBroker`"));
                }
                if let Some(strategy) = by_members.strategy() {
                    config.set("partition.assignment.strategy", strategy);
                }
            }
        }
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(assignment: Assignment) -> Member {
        Member {
            assignment: Some(assignment),
            instance_id: Some("a-1".into()),
        }
    }

    #[test]
    fn a_broker_that_assigns_is_sent_nothing_that_it_decides() {
        let config = member(Assignment::ByBroker).consumer(&Kafka::default(), "g");
        let config = config.expect("no contradiction");
        assert_eq!(config.get("group.protocol"), Some("consumer"));
        assert_eq!(config.get("group.instance.id"), Some("a-1"));
        assert_eq!(decided(&config), Vec::<&str>::new());
    }

    /// What the client would refuse.
    fn decided(config: &ClientConfig) -> Vec<&'static str> {
        let names = DECIDED_BY_BROKER.iter().map(|(name, _)| *name);
        names.filter(|name| config.get(name).is_some()).collect()
    }

    #[test]
    fn the_property_alone_has_the_broker_assign() {
        let mut kafka = Kafka::default();
        let (name, value) = ("group.protocol".to_owned(), "consumer".to_owned());
        kafka.consumer.insert(name, value);
        assert_eq!(kafka.check(), Ok(()));
        let config = Member::default().consumer(&kafka, "g").expect("it starts");
        assert_eq!(decided(&config), Vec::<&str>::new());
        config
            .create::<rdkafka::consumer::BaseConsumer>()
            .expect("the client takes it");
    }

    #[test]
    fn what_the_broker_decides_must_not_be_set_as_well() {
        let mut kafka = Kafka::default();
        let (name, value) = ("session.timeout.ms".to_owned(), "9000".to_owned());
        kafka.consumer.insert(name, value);
        let refused = member(Assignment::ByBroker).consumer(&kafka, "g");
        let said = refused.expect_err("a contradiction").to_string();
        assert!(said.contains("remove `session.timeout.ms`"), "{said}");
    }

    #[test]
    fn members_that_assign_need_the_classic_protocol() {
        let mut kafka = Kafka::default();
        let (name, value) = ("group.protocol".to_owned(), "consumer".to_owned());
        kafka.consumer.insert(name, value);
        assert!(member(Assignment::Range).consumer(&kafka, "g").is_err());
        assert!(member(Assignment::ByBroker).consumer(&kafka, "g").is_ok());
    }
}
