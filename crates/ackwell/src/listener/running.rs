//! Settings of how a listener runs: its bounds, its place in the group, and who is told what.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use super::{Assignment, ListenerBuilder};
use crate::container::{Notice, RebalanceListener};

impl ListenerBuilder {
    /// How many records of all partitions together may wait or be in work before all fetching is
    /// paused; default: no limit but [`queued_records`](ListenerBuilder::queued_records) of each
    /// partition.
    pub fn total_records(mut self, records: usize) -> Self {
        self.options.limits.total_records = records;
        self
    }

    /// How many bytes of all partitions together may wait; default 256 MiB, so that memory is
    /// bounded however many partitions the listener owns.
    pub fn total_bytes(mut self, bytes: usize) -> Self {
        self.options.limits.total_bytes = bytes;
        self
    }

    /// How the group's partitions are dealt to its members; default
    /// [`Assignment::CooperativeSticky`].
    pub fn assignment(mut self, assignment: Assignment) -> Self {
        self.options.member.assignment = Some(assignment);
        self
    }

    /// Makes it a static member of its group (KIP-345) with this `group.instance.id`: when it is
    /// restarted within `session.timeout.ms`, nothing is rebalanced. Each process needs its own
    /// id; of two with the same, one is fenced and its listener fails.
    pub fn instance_id(mut self, id: impl Into<Cow<'static, str>>) -> Self {
        self.options.member.instance_id = Some(id.into());
        self
    }

    /// Who hears of partitions that come and go.
    pub fn on_rebalance(mut self, listener: impl RebalanceListener) -> Self {
        self.options.rebalance = Some(Arc::new(listener));
        self
    }

    /// How long each call of [`on_rebalance`](ListenerBuilder::on_rebalance) may take; default
    /// 5 s.
    pub fn rebalance_callback(mut self, limit: Duration) -> Self {
        self.options.limits.rebalance_callback = limit;
        self
    }

    /// After which silence [`Notice::Idle`] is told; default: never. Before the first record five
    /// times as long is allowed, as with Spring's `idleEventInterval`.
    pub fn idle_after(mut self, silence: Duration) -> Self {
        self.options.notices.idle_after = Some(silence);
        self
    }

    /// After which silence of a partition [`Notice::PartitionIdle`] is told; default: never.
    pub fn partition_idle_after(mut self, silence: Duration) -> Self {
        self.options.notices.partition_idle_after = Some(silence);
        self
    }

    /// After which silence of all brokers, or standstill of the poll thread,
    /// [`Notice::NonResponsive`] is told and health is bad; default 60 s.
    pub fn non_responsive_after(mut self, silence: Duration) -> Self {
        self.options.notices.non_responsive_after = silence;
        self
    }

    /// Who hears of [notices](Notice), beside the metric `ackwell_notices`. Called by a task of its
    /// own, one notice after another.
    pub fn on_notice(mut self, listener: impl Fn(&Notice) + Send + Sync + 'static) -> Self {
        self.options.notices.listener = Some(Arc::new(listener));
        self
    }
}
