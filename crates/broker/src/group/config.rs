//! Settings of the group coordinator, with Kafka's names; where one node wants another value than
//! a cluster, or a limit that Kafka does not have, the reason stands beside it.

use std::time::Duration;

use super::settings::Timeouts;
use crate::Error;
use crate::error::Kind;

/// Settings of consumer groups.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Groups {
    /// `group.initial.rebalance.delay.ms`: how long a group's first member waits for others, so that
    /// services that start together get one generation instead of one each. Default 50 ms: Kafka's
    /// 3 s cover machines of a cluster that start seconds apart; on one machine members start within
    /// milliseconds, and every test and every first run would pay the 3 s.
    pub initial_rebalance_delay: Duration,

    /// `group.min.session.timeout.ms`. Default 1 s instead of Kafka's 6 s: on loopback a missed
    /// heartbeat is a dead client, not a slow network, and tests of a take-over need not wait.
    pub session_timeout_min: Duration,

    /// `group.max.session.timeout.ms`. Default 30 minutes, as Kafka's.
    pub session_timeout_max: Duration,

    /// `group.max.size`: members of one group. Default 1,000 (Kafka: unlimited): the leader of each
    /// generation is told the metadata of all members.
    pub members_max: usize,

    /// `group.consumer.heartbeat.interval.ms`: how often members of KIP-848 groups are heard, and with
    /// that how soon each learns what it is to read. Default 500 ms: Kafka's 5 s keep thousands of
    /// consumers from loading a cluster; here they would only be 5 s of standstill at each change.
    pub consumer_heartbeat_interval: Duration,

    /// `group.consumer.session.timeout.ms`: how long a member of a KIP-848 group may be silent.
    /// Default 45 s, as Kafka's.
    pub consumer_session_timeout: Duration,

    /// `offset.metadata.max.bytes`, which counts characters in Kafka as here. Default 4,096, as Kafka's; at most
    /// 32,767, the bytes that the format holds.
    pub offset_metadata_bytes_max: usize,

    /// `offsets.retention.minutes`: how long an empty group's offsets are kept. Default 7 days, as
    /// Kafka's.
    pub offsets_retention: Duration,

    /// `offsets.topic.num.partitions`: partitions of `__consumer_offsets`, read when it is created.
    /// Default 4 instead of Kafka's 50: they spread groups over brokers there, over cores here.
    pub offsets_partitions: i32,
}

impl Default for Groups {
    fn default() -> Self {
        Self {
            initial_rebalance_delay: Duration::from_millis(50),
            session_timeout_min: Duration::from_secs(1),
            session_timeout_max: Duration::from_secs(30 * 60),
            members_max: 1_000,
            consumer_heartbeat_interval: Duration::from_millis(500),
            consumer_session_timeout: Duration::from_secs(45),
            offset_metadata_bytes_max: 4_096,
            offsets_retention: Duration::from_secs(7 * 24 * 60 * 60),
            offsets_partitions: 4,
        }
    }
}

/// What the coordinator goes by: the settings and its own limits. Times are milliseconds, sizes bytes.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    pub(crate) initial_rebalance_delay_ms: u64,
    pub(crate) session_timeout_min_ms: u64,
    pub(crate) session_timeout_max_ms: u64,
    pub(crate) members_max: usize,
    /// For groups that have none of their own.
    pub(crate) consumer: Timeouts,
    pub(crate) offset_metadata_max: usize,
    pub(crate) offsets_retention_ms: u64,
    pub(crate) offsets_partitions: i32,

    /// How long a member waits in its first join before it is taken for gone: it cannot heartbeat
    /// yet. 5 minutes, as in Kafka.
    pub(crate) new_member_timeout_ms: u64,

    /// Groups of one partition of `__consumer_offsets`. 10,000: a client that invents a group id for
    /// each run is noticed before it has eaten the memory.
    pub(crate) groups_max: usize,

    /// Bytes of all members' metadata in one group, and of all assignments given by its leader.
    /// 4 MiB: both are written to the log as one record.
    pub(crate) group_bytes_max: usize,

    /// How often expired offsets are looked for (`offsets.retention.check.interval.ms`). 10 minutes,
    /// as Kafka's.
    pub(crate) offsets_retention_check_ms: u64,

    /// How many bytes may be appended to a partition of `__consumer_offsets` before its live state
    /// is written anew and what came before is deleted; at least twice as many as the live state
    /// has. 4 MiB: some 40,000 commits, read back at a start in some 50 ms.
    pub(crate) snapshot_bytes: u64,

    /// Requests that wait for one partition's task. 1,024: it takes up hundreds at a time with one
    /// append, and a sender beyond that waits.
    pub(crate) queue_max: usize,
}

impl Config {
    /// # Errors
    /// When settings cannot work.
    pub(crate) fn new(groups: &Groups) -> Result<Self, Error> {
        groups.check()?;
        Ok(Self::from(groups))
    }
}

impl Groups {
    fn check(&self) -> Result<(), Error> {
        let wrong = |what: &str| Err(Error::new(Kind::Config, what));
        if self.session_timeout_min > self.session_timeout_max {
            return wrong("groups.session_timeout_min must not be longer than session_timeout_max");
        }
        if self.consumer_heartbeat_interval.is_zero()
            || self.consumer_heartbeat_interval >= self.consumer_session_timeout
        {
            return wrong(
                "groups.consumer_heartbeat_interval must be shorter than consumer_session_timeout, and not 0",
            );
        }
        if self.members_max == 0 {
            return wrong("groups.members_max must be at least 1");
        }
        if self.offset_metadata_bytes_max > i16::MAX as usize {
            return wrong("groups.offset_metadata_bytes_max must be at most 32767");
        }
        if !(1..=1_000).contains(&self.offsets_partitions) {
            return wrong("groups.offsets_partitions must be from 1 to 1000");
        }
        Ok(())
    }
}

impl From<&Groups> for Config {
    fn from(groups: &Groups) -> Self {
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        // Added to the clock, and requests have an i32: more than this is the same, and cannot overflow.
        let short = |time| ms(time).min(u64::from(u32::MAX));
        Self {
            initial_rebalance_delay_ms: short(groups.initial_rebalance_delay),
            session_timeout_min_ms: short(groups.session_timeout_min),
            session_timeout_max_ms: short(groups.session_timeout_max),
            members_max: groups.members_max,
            consumer: Timeouts {
                session_ms: short(groups.consumer_session_timeout),
                heartbeat_interval_ms: short(groups.consumer_heartbeat_interval).max(1),
            },
            offset_metadata_max: groups.offset_metadata_bytes_max,
            offsets_retention_ms: ms(groups.offsets_retention),
            offsets_partitions: groups.offsets_partitions,
            new_member_timeout_ms: 5 * 60 * 1_000,
            groups_max: 10_000,
            group_bytes_max: 4 * 1024 * 1024,
            offsets_retention_check_ms: 10 * 60 * 1_000,
            snapshot_bytes: 4 * 1024 * 1024,
            queue_max: 1_024,
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self::from(&Groups::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_cannot_work_are_refused() {
        assert!(Config::new(&Groups::default()).is_ok());
        let none = Groups {
            offsets_partitions: 0,
            ..Groups::default()
        };
        assert!(Config::new(&none).unwrap_err().is_config());
        let crossed = Groups {
            session_timeout_min: Duration::MAX,
            ..Groups::default()
        };
        assert!(Config::new(&crossed).unwrap_err().is_config());
    }
}
