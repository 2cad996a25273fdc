//! A classic group as it comes from a consumer group and goes into one.

use bytes::Bytes;
use kafka_protocol::error::ResponseError;
use kafka_protocol::protocol::StrBytes;

use super::super::migration::Migrant;
use super::super::{Context, Now};
use super::member::{Member, Protocol};
use super::{Classic, Phase, refuse};
use crate::group::record::{ClassicProtocol, MemberMetadata};

impl Classic {
    /// A generation of members that have been in a consumer group; [`Classic::begin`] comes next.
    pub(in super::super) fn of(
        now: Now,
        id: StrBytes,
        generation: i32,
        migrants: Vec<Migrant>,
    ) -> Self {
        let mut classic = Self::new(id);
        classic.generation = generation;
        for migrant in migrants {
            let protocol_type = StrBytes::from_static_str("consumer");
            classic.add(Member::of(migrant, now), protocol_type);
        }
        classic.protocol = classic.elect_protocol();
        classic.phase = Phase::Stable {
            sync_until: now.tick_ms,
        };
        classic
    }

    /// Writes the generation, and lets its members find a leader who assigns.
    pub(in super::super) fn begin(&mut self, cx: &mut Context<'_>) {
        self.write(cx);
        self.rebalance(cx, "downgraded from a consumer group");
    }

    pub(in super::super) fn generation(&self) -> i32 {
        self.generation
    }

    /// The members, to make a consumer group of them.
    pub(in super::super) fn migrants(&self) -> Vec<Migrant> {
        self.members.values().map(Member::to_migrant).collect()
    }

    /// Lets everybody join again who waits: the answer is another group's.
    pub(in super::super) fn turn_away(&mut self, cx: &mut Context<'_>) {
        for member in self.members.values_mut() {
            let wait = member.end_any();
            refuse(cx, wait, &member.id, ResponseError::RebalanceInProgress);
        }
    }
}

impl Member {
    fn of(migrant: Migrant, now: Now) -> Self {
        let metadata = MemberMetadata {
            member_id: migrant.id,
            instance_id: migrant.instance_id,
            client_id: migrant.client.id,
            client_host: migrant.client.host,
            rebalance_timeout_ms: i32::try_from(migrant.rebalance_timeout_ms).unwrap_or(i32::MAX),
            session_timeout_ms: i32::try_from(migrant.session_timeout_ms).unwrap_or(i32::MAX),
            subscription: Bytes::new(),
            assignment: migrant.assignment,
        };
        let mut member = Self::replayed(&metadata, &StrBytes::new(), now);
        let protocols = migrant.protocols.into_iter().map(|protocol| Protocol {
            name: protocol.name,
            metadata: protocol.metadata,
        });
        member.protocols = protocols.collect();
        member
    }

    fn to_migrant(&self) -> Migrant {
        let protocols = self.protocols.iter().map(|protocol| ClassicProtocol {
            name: protocol.name.clone(),
            metadata: protocol.metadata.clone(),
        });
        Migrant {
            id: self.id.clone(),
            instance_id: self.instance_id.clone(),
            client: self.client.clone(),
            rebalance_timeout_ms: self.rebalance_timeout_ms,
            session_timeout_ms: self.session_timeout_ms,
            protocols: protocols.collect(),
            assignment: self.assignment.clone(),
        }
    }
}
