//! From one protocol to the other while members are in the group (KIP-848), so that a service can
//! change protocols by a rolling restart.
//!
//! The first member of the consumer protocol turns a group of classic consumers into a consumer
//! group: each keeps what it reads as its current assignment, and speaks its own protocol on (see
//! [`consumer::classic`](super::consumer)). When the last member of the consumer protocol goes, the
//! classic ones are turned back, with what they read as the generation's assignment.

use bytes::Bytes;
use kafka_protocol::messages::ConsumerGroupHeartbeatRequest;
use kafka_protocol::protocol::StrBytes;
use tracing::{info, warn};

use super::classic::Classic;
use super::consumer::Consumer;
use super::group::{Group, Membership};
use super::{Client, Context};
use crate::group::record::ClassicProtocol;

/// A classic member on its way from one kind of group to the other.
#[derive(Debug, Clone)]
pub(super) struct Migrant {
    pub(super) id: StrBytes,
    pub(super) instance_id: Option<StrBytes>,
    pub(super) client: Client,
    pub(super) rebalance_timeout_ms: u64,
    pub(super) session_timeout_ms: u64,
    /// In its order of preference.
    pub(super) protocols: Vec<ClassicProtocol>,
    /// What it reads, as a leader would have written it.
    pub(super) assignment: Bytes,
}

/// Why the group stays as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotUpgraded {
    /// Its members are not consumers, or their assignor keeps data that nobody else understands.
    Foreign,
    /// It would be larger than a group may be.
    Full,
}

impl Group {
    /// Makes a group of classic consumers one that a member of the consumer protocol can join; a
    /// group without members simply becomes one.
    pub(super) fn upgrade(
        &mut self,
        cx: &mut Context<'_>,
        request: &ConsumerGroupHeartbeatRequest,
    ) -> Result<(), NotUpgraded> {
        let Membership::Classic(classic) = &mut self.membership else {
            return Ok(());
        };
        if classic.is_empty() {
            classic.erase(&mut cx.output.changes);
            self.membership = Membership::Consumer(Consumer::new(self.id.clone()));
            return Ok(());
        }
        if !classic.is_consumers() {
            return Err(NotUpgraded::Foreign);
        }
        let upgraded = Consumer::of(
            cx,
            self.id.clone(),
            classic.generation(),
            classic.migrants(),
        );
        let consumer = upgraded.map_err(|malformed| {
            warn!(group = %self.id, reason = malformed.0, "a classic group is not upgraded");
            NotUpgraded::Foreign
        })?;
        consumer
            .check_room(cx, &request.member_id, request)
            .map_err(|_full| NotUpgraded::Full)?;
        info!(group = %self.id, generation = classic.generation(), "upgraded to a consumer group");
        classic.erase(&mut cx.output.changes);
        classic.turn_away(cx);
        cx.output.changes.extend(consumer.live());
        self.membership = Membership::Consumer(consumer);
        Ok(())
    }

    /// Turns a consumer group back of which only classic members are left. Not before the topics are
    /// known whose names stand in the assignments.
    pub(super) fn downgrade(&mut self, cx: &mut Context<'_>) {
        let Membership::Consumer(consumer) = &mut self.membership else {
            return;
        };
        if !consumer.is_classic() || cx.topics.version() == 0 {
            return;
        }
        info!(group = %self.id, epoch = consumer.epoch(), "downgraded to a classic group");
        let mut classic = Classic::of(
            cx.now,
            self.id.clone(),
            consumer.epoch(),
            consumer.migrants(cx),
        );
        consumer.dissolve(cx);
        classic.begin(cx);
        self.membership = Membership::Classic(classic);
    }
}
