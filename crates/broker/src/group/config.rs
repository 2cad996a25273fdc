//! Settings of the group coordinator, with Kafka's names; where one node wants another value than
//! a cluster, or a limit that Kafka does not have, the reason stands beside it.

/// Settings and limits of the group coordinator. Times are milliseconds, sizes bytes.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    /// `group.initial.rebalance.delay.ms`: how long a group's first member waits for others, so that
    /// services that start together get one generation instead of one each. Default 50: Kafka's
    /// 3 s cover machines of a cluster that start seconds apart; on one machine members start within
    /// milliseconds, and every test and every first run would pay the 3 s.
    pub(crate) initial_rebalance_delay_ms: u64,

    /// `group.min.session.timeout.ms`. Default 1 s instead of Kafka's 6 s: on loopback a missed
    /// heartbeat is a dead client, not a slow network, and tests of a take-over need not wait.
    pub(crate) session_timeout_min_ms: u64,

    /// `group.max.session.timeout.ms`. Default 30 minutes, as Kafka's.
    pub(crate) session_timeout_max_ms: u64,

    /// How long a member waits in its first join before it is taken for gone: it cannot heartbeat
    /// yet. Default 5 minutes, as in Kafka.
    pub(crate) new_member_timeout_ms: u64,

    /// `group.max.size`: members of one group. Default 1,000 (Kafka: unlimited): every join is
    /// answered with the metadata of all members, so a group costs the square of its size.
    pub(crate) members_max: usize,

    /// Groups of one partition of `__consumer_offsets`. Default 10,000: a client that invents a
    /// group id for each run is noticed before it has eaten the memory.
    pub(crate) groups_max: usize,

    /// Bytes of all members' metadata in one group, and of all assignments given by its leader.
    /// Default 8 MiB: both are written to the log as one record.
    pub(crate) group_bytes_max: usize,

    /// `offset.metadata.max.bytes`. Default 4096, as Kafka's.
    pub(crate) offset_metadata_max: usize,

    /// `offsets.retention.minutes`, in milliseconds: how long an empty group's offsets are kept.
    /// Default 7 days, as Kafka's.
    pub(crate) offsets_retention_ms: u64,

    /// `offsets.retention.check.interval.ms`. Default 10 minutes, as Kafka's.
    pub(crate) offsets_retention_check_ms: u64,

    /// `offsets.topic.num.partitions`: partitions of `__consumer_offsets`, read when it is created.
    /// Default 4 instead of Kafka's 50: they spread groups over brokers there, over cores here.
    pub(crate) offsets_partitions: i32,

    /// How many bytes may be appended to a partition of `__consumer_offsets` before its live state
    /// is written anew and what came before is deleted; at least as many as the live state has.
    /// Default 4 MiB: some 40,000 commits, replayed in some 50 ms at start.
    pub(crate) snapshot_bytes: u64,

    /// Requests that wait for one partition's task. Default 1,024: it takes up hundreds at a time
    /// with one append, and a sender beyond that waits.
    pub(crate) queue_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            initial_rebalance_delay_ms: 50,
            session_timeout_min_ms: 1_000,
            session_timeout_max_ms: 30 * 60 * 1_000,
            new_member_timeout_ms: 5 * 60 * 1_000,
            members_max: 1_000,
            groups_max: 10_000,
            group_bytes_max: 8 * 1024 * 1024,
            offset_metadata_max: 4_096,
            offsets_retention_ms: 7 * 24 * 60 * 60 * 1_000,
            offsets_retention_check_ms: 10 * 60 * 1_000,
            offsets_partitions: 4,
            snapshot_bytes: 4 * 1024 * 1024,
            queue_max: 1_024,
        }
    }
}
