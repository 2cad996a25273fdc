//! Whether the brokers that lead this listener's partitions can be reached from here.
//!
//! A cluster may be well and the group's coordinator answer, and yet the connection to one leader be
//! broken: by a firewall, or an address that only others can reach. The client tries again for ever
//! and says nothing, and the partition's records wait. Its statistics tell.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::statistics::{Broker, Partition, Statistics};

/// How long a leader may be out of reach before health tells; after its end another is chosen in less.
const REACH_WAIT: Duration = Duration::from_secs(10);

/// How much longer than a fetch may wait at the broker its answer may take.
const ANSWER_WAIT: Duration = Duration::from_secs(5);

/// How long a fetch waits at the broker unless `fetch.wait.max.ms` says otherwise.
const FETCH_WAIT: Duration = Duration::from_millis(500);

/// Leaders that are out of reach, by address, and a partition that waits for each.
pub(super) type Unreached = BTreeMap<String, String>;

/// After which silence a leader counts as out of reach although it is connected.
pub(super) fn silence_max(consumer: &ClientConfig) -> Duration {
    let set = consumer.get("fetch.wait.max.ms");
    let wait = set.and_then(|text| text.parse().ok());
    wait.map_or(FETCH_WAIT, Duration::from_millis) + ANSWER_WAIT
}

/// The leaders of partitions in work that are not connected, or owe an answer for longer than this.
pub(super) fn unreached(statistics: &Statistics, silence_max: Duration) -> Unreached {
    let mut unreached = Unreached::new();
    for (topic, found) in &statistics.topics {
        for (number, partition) in found.partitions.iter().filter(|(_, it)| is_in_work(it)) {
            let leader = leader(statistics, partition);
            if let Some(broker) = leader.filter(|broker| !answers(broker, silence_max)) {
                let name = format!("{topic}-{number}");
                let address = broker.nodename.clone();
                let waits = unreached.entry(address).or_insert_with(|| name.clone());
                // Always the same of several, whatever their order in the map.
                *waits = name.min(std::mem::take(waits));
            }
        }
    }
    unreached
}

fn is_in_work(partition: &Partition) -> bool {
    !matches!(
        partition.fetch_state.as_str(),
        "none" | "stopping" | "stopped"
    )
}

/// From whom the partition is fetched. The connection to a coordinator has the broker's number, too.
fn leader<'a>(statistics: &'a Statistics, partition: &Partition) -> Option<&'a Broker> {
    let id = match partition.broker {
        id if id >= 0 => id,
        _ => partition.leader,
    };
    let mut brokers = statistics.brokers.values();
    brokers.find(|broker| id >= 0 && broker.nodeid == id && broker.source != "logical")
}

fn answers(broker: &Broker, silence_max: Duration) -> bool {
    let silence = u64::try_from(broker.rxidle).unwrap_or(0);
    // It may owe what it was asked just now, after an idle time: then that is over by the next look.
    let owes = broker.waitresp_cnt > 0 && Duration::from_micros(silence) > silence_max;
    matches!(broker.state.as_str(), "UP" | "UPDATE" | "REAUTH") && !owes
}

/// Since when which leaders are out of reach.
#[derive(Debug, Default)]
pub(super) struct Leaders {
    since: BTreeMap<String, Instant>,
    problem: Option<String>,
}

impl Leaders {
    /// The client's statistics say so.
    pub(super) fn told(&mut self, now: Instant, unreached: &Unreached) {
        self.since
            .retain(|address, _| unreached.contains_key(address));
        for address in unreached.keys() {
            self.since.entry(address.clone()).or_insert(now);
        }
        let lasting = |address: &String| {
            let since = self.since.get(address);
            since.is_some_and(|since| now.duration_since(*since) >= REACH_WAIT)
        };
        let found = unreached.iter().find(|(address, _)| lasting(address));
        self.problem = found.map(|(address, partition)| {
            format!(
                "the broker at {address}, which leads {partition}, does not answer here, and its records wait; \
                 check the way to this address"
            )
        });
    }

    pub(super) fn problem(&self) -> Option<&String> {
        self.problem.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: Duration = Duration::from_secs(5);

    /// Partition 3 of `orders`, led by broker 2, whose connection is in this state, and the
    /// coordinator's on the same broker, which is well.
    fn statistics(fetch_state: &str, leader: Broker) -> Statistics {
        let partition = Partition {
            broker: 2,
            leader: 2,
            fetch_state: fetch_state.into(),
            ..Partition::default()
        };
        let coordinator = Broker {
            source: "logical".into(),
            ..broker("UP")
        };
        let mut statistics = Statistics::default();
        let topic = statistics.topics.entry("orders".into()).or_default();
        topic.partitions.insert(3, partition);
        for (name, broker) in [("two", leader), ("coordinator", coordinator)] {
            statistics.brokers.insert(name.into(), broker);
        }
        statistics
    }

    fn broker(state: &str) -> Broker {
        Broker {
            nodeid: 2,
            nodename: "two:9092".into(),
            source: "learned".into(),
            state: state.into(),
            ..Broker::default()
        }
    }

    fn silent(silence: Duration, owed: i64) -> Broker {
        Broker {
            waitresp_cnt: owed,
            rxidle: silence.as_micros() as i64,
            ..broker("UP")
        }
    }

    fn is_unreached(fetch_state: &str, leader: Broker) -> bool {
        !unreached(&statistics(fetch_state, leader), MAX).is_empty()
    }

    #[test]
    fn a_leader_without_a_connection_is_out_of_reach_although_the_coordinator_is_well() {
        let found = unreached(&statistics("active", broker("CONNECT")), MAX);
        assert_eq!(
            found,
            Unreached::from([("two:9092".into(), "orders-3".into())])
        );
        assert!(!is_unreached("active", broker("UP")));
    }

    #[test]
    fn a_partition_that_is_not_fetched_needs_no_leader() {
        for state in ["none", "stopping", "stopped"] {
            assert!(!is_unreached(state, broker("DOWN")), "{state}");
        }
        assert!(is_unreached("offset-query", broker("DOWN")));
    }

    #[test]
    fn a_leader_that_owes_an_answer_for_long_is_out_of_reach() {
        let (short, long) = (Duration::from_secs(1), Duration::from_secs(6));
        assert!(is_unreached("active", silent(long, 1)));
        assert!(!is_unreached("active", silent(long, 0)), "it is idle");
        assert!(!is_unreached("active", silent(short, 1)));
    }

    #[test]
    fn a_moment_out_of_reach_is_no_news_and_an_end_is_noticed_at_once() {
        let (mut leaders, start) = (Leaders::default(), Instant::now());
        let gone = Unreached::from([("two:9092".into(), "orders-3".into())]);
        leaders.told(start, &gone);
        assert_eq!(leaders.problem(), None);
        leaders.told(start + REACH_WAIT, &gone);
        let problem = leaders.problem().cloned().unwrap_or_default();
        assert!(
            problem.contains("two:9092") && problem.contains("leads orders-3"),
            "{problem}"
        );
        leaders.told(start + REACH_WAIT, &Unreached::new());
        assert_eq!(leaders.problem(), None);
        leaders.told(start + REACH_WAIT * 2, &gone);
        assert_eq!(leaders.problem(), None, "it begins anew");
    }

    #[test]
    fn a_fetch_may_wait_as_long_as_it_is_told_to() {
        let mut config = ClientConfig::new();
        assert_eq!(silence_max(&config), FETCH_WAIT + ANSWER_WAIT);
        config.set("fetch.wait.max.ms", "30000");
        assert_eq!(silence_max(&config), Duration::from_secs(30) + ANSWER_WAIT);
    }
}
