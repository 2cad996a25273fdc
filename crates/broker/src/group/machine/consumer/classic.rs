//! Members of a consumer group that speak the classic protocol, as there are while a service changes
//! from one to the other (KIP-848).
//!
//! They join, sync and heartbeat as ever, and each stands for a step that the coordinator takes with
//! it: the answer to a join carries its epoch as a generation, the answer to a sync what it may read,
//! and a heartbeat tells it to join again when there is more to give up or to get. Nobody of them
//! leads.

use bytes::Bytes;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::{
    HeartbeatRequest, JoinGroupRequest, JoinGroupResponse, SyncGroupRequest, SyncGroupResponse,
};
use kafka_protocol::protocol::StrBytes;
use tracing::info;

use super::super::classic::{Join, MEMBER_ID_REQUIRED};
use super::super::migration::Migrant;
use super::super::topics::Topics;
use super::super::{Client, Context, Response, Token, join_refused, owned};
use super::membership::Comer;
use super::{Consumer, Member};
use crate::coordinator::Malformed;
use crate::group::record::{
    ClassicMember, ClassicProtocol, CurrentAssignment, GroupEpoch, MemberState, Named, Partitions,
    Subscription, decode_assignment, encode_assignment,
};

/// The only kind of classic members that can be in a consumer group.
const CONSUMER: &str = "consumer";

impl Consumer {
    /// A group of consumers that have been a classic group until now.
    pub(in super::super) fn of(
        cx: &Context<'_>,
        id: StrBytes,
        generation: i32,
        migrants: Vec<Migrant>,
    ) -> Result<Self, Malformed> {
        let mut consumer = Self::new(id);
        consumer.epoch = GroupEpoch {
            epoch: generation,
            metadata_hash: 0,
        };
        consumer.target_epoch = generation;
        let mut claims = Vec::new();
        for migrant in migrants {
            let (mut member, claimed) = Member::of(migrant, generation, cx.topics)?;
            member.current.assigned = consumer.free(&member.current.assigned);
            member.alive(cx.now, cx.timeouts.session_ms);
            let target = member.current.assigned.clone();
            consumer.targets.insert(member.id.clone(), target);
            claims.push((member.id.clone(), claimed));
            consumer.put(member);
        }
        for (id, claimed) in claims {
            consumer.await_revocation(cx, &id, &claimed);
        }
        Ok(consumer)
    }

    /// Never two owners, whatever the leader has done.
    fn free(&self, partitions: &Partitions) -> Partitions {
        partitions.filter(|topic, index| !self.owners.contains_key(&(topic, index)))
    }

    /// Between two joins a cooperative member may still read what the last generation has taken from it (KIP-429):
    /// nobody else may have that before it has joined again without.
    fn await_revocation(&mut self, cx: &Context<'_>, id: &StrBytes, claimed: &Partitions) {
        let revoking = self.free(claimed);
        let Some(mut member) = self.members.get(id).cloned() else {
            return;
        };
        if revoking.is_empty() {
            return;
        }
        member.current.state = MemberState::Unrevoked;
        member.current.revoking = revoking;
        member.revoke_by = Some(cx.now.tick_ms + member.rebalance_timeout_ms());
        self.put(member);
    }

    /// All members speak the classic protocol; there is at least one.
    pub(in super::super) fn is_classic(&self) -> bool {
        !self.members.is_empty() && self.members.values().all(Member::is_classic)
    }

    pub(in super::super) fn epoch(&self) -> i32 {
        self.epoch.epoch
    }

    /// The classic members, to make a classic group of them.
    pub(in super::super) fn migrants(&self, cx: &Context<'_>) -> Vec<Migrant> {
        let members = self.members.values();
        members
            .filter_map(|member| member.to_migrant(cx.topics))
            .collect()
    }

    /// Takes back what the log says of the group and its members.
    pub(in super::super) fn dissolve(&mut self, cx: &mut Context<'_>) {
        for id in self.members.keys() {
            self.erase_member(cx, id);
        }
        self.erase(&mut cx.output.changes);
    }

    /// JoinGroup of a member, or of somebody who wants to be one.
    pub(in super::super) fn classic_join(
        &mut self,
        cx: &mut Context<'_>,
        join: &Join,
    ) -> Result<(), ResponseError> {
        let request = &join.request;
        let subscription = self.check_classic_join(cx, request)?;
        let instance_id = request.group_instance_id.as_ref();
        let owner = instance_id.and_then(|instance_id| self.static_ids.get(instance_id));
        let id = match (request.member_id.is_empty(), owner) {
            (true, _) if instance_id.is_none() && join.version >= MEMBER_ID_REQUIRED => {
                let refused = join_refused(join.new_id(), ResponseError::MemberIdRequired);
                cx.reply(join.token, refused);
                return Ok(());
            }
            (true, _) => join.new_id(),
            (false, Some(owner)) if *owner != request.member_id => {
                return Err(ResponseError::FencedInstanceId);
            }
            (false, None) if instance_id.is_some() => return Err(ResponseError::UnknownMemberId),
            (false, _) => owned(&request.member_id),
        };
        let comer = match owner {
            Some(owner) if *owner != id => Comer::Returned {
                old_id: owner.clone(),
            },
            _ if self.members.contains_key(&id) => Comer::Known,
            // It was taken for gone, and what it still reads may be somebody else's by now.
            _ if subscription.reads_something() => return Err(ResponseError::UnknownMemberId),
            _ => Comer::New,
        };

        // From here on nothing is refused.
        let held = partitions(&subscription.owned, cx.topics);
        let (mut member, replaced) = self.admit(cx, comer, &id, instance_id);
        let before = member.clone();
        member.update_classic(join, subscription);
        member.alive(cx.now, cx.timeouts.session_ms);
        member.rejoin_by = None;
        member.sync_by = Some(cx.now.tick_ms + member.rebalance_timeout_ms());
        self.take_up(cx, &mut member, &before, Some(&held));
        if let Some(replaced) = replaced {
            self.erase_member(cx, &replaced);
        }
        let response = JoinGroupResponse::default()
            .with_generation_id(member.current.epoch)
            .with_protocol_type(Some(StrBytes::from_static_str(CONSUMER)))
            .with_protocol_name(member.protocol().cloned())
            .with_member_id(id);
        cx.reply(join.token, Response::Join(response));
        Ok(())
    }

    fn check_classic_join(
        &self,
        cx: &Context<'_>,
        request: &JoinGroupRequest,
    ) -> Result<Subscription, ResponseError> {
        let others = || {
            let members = self.members.values();
            members.filter(|member| member.id != request.member_id)
        };
        if !self.members.contains_key(&request.member_id)
            && self.members.len() >= cx.config.members_max
        {
            return Err(ResponseError::GroupMaxSizeReached);
        }
        let sizes = request.protocols.iter();
        let own: usize = sizes.map(|p| p.name.len() + p.metadata.len()).sum();
        if own + others().map(Member::bytes).sum::<usize>() > cx.config.group_bytes_max {
            return Err(ResponseError::GroupMaxSizeReached);
        }
        let shared = request.protocols.iter().any(|protocol| {
            let mut classic = others().filter_map(|member| member.metadata.classic.as_ref());
            classic.all(|other| other.protocols.iter().any(|p| p.name == protocol.name))
        });
        let (Some(preferred), true) = (request.protocols.first(), shared) else {
            return Err(ResponseError::InconsistentGroupProtocol);
        };
        if &*request.protocol_type != CONSUMER {
            return Err(ResponseError::InconsistentGroupProtocol);
        }
        Subscription::decode(&preferred.metadata)
            .map_err(|_| ResponseError::InconsistentGroupProtocol)
    }

    /// SyncGroup of a member: what it may read until it joins again.
    pub(in super::super) fn classic_sync(
        &mut self,
        cx: &mut Context<'_>,
        token: Token,
        request: &SyncGroupRequest,
    ) -> Result<(), ResponseError> {
        let instance_id = request.group_instance_id.as_ref();
        let member = self.classic_member(&request.member_id, instance_id)?;
        check_generation(member, request.generation_id)?;
        let kind = request.protocol_type.as_deref();
        let name = request.protocol_name.as_ref();
        if kind.is_some_and(|kind| kind != CONSUMER)
            || name.is_some_and(|name| Some(name) != member.protocol())
        {
            return Err(ResponseError::InconsistentGroupProtocol);
        }
        // Who has to give something up goes on to do so, and joins again after.
        let behind = member.current.epoch < self.epoch.epoch
            && member.current.state != MemberState::Unrevoked;
        // After a restart the first request that brings the topics is a join.
        if behind || cx.topics.version() == 0 {
            self.expect_join(cx, &request.member_id);
            return Err(ResponseError::RebalanceInProgress);
        }
        let response = SyncGroupResponse::default()
            .with_protocol_type(Some(StrBytes::from_static_str(CONSUMER)))
            .with_protocol_name(member.protocol().cloned())
            .with_assignment(member.assignment(cx.topics));
        if let Some(member) = self.members.get_mut(&request.member_id) {
            member.sync_by = None;
            member.alive(cx.now, cx.timeouts.session_ms);
        }
        cx.reply(token, Response::Sync(response));
        Ok(())
    }

    /// Heartbeat of a member: whether it has to join again.
    pub(in super::super) fn classic_heartbeat(
        &mut self,
        cx: &mut Context<'_>,
        request: &HeartbeatRequest,
    ) -> Result<(), ResponseError> {
        let instance_id = request.group_instance_id.as_ref();
        let member = self.classic_member(&request.member_id, instance_id)?;
        check_generation(member, request.generation_id)?;
        let must_join = match member.current.state {
            _ if member.current.epoch < self.epoch.epoch => true,
            MemberState::Stable => false,
            MemberState::Unrevoked => true,
            MemberState::Unreleased => !self.awaits_others(member),
        };
        if let Some(member) = self.members.get_mut(&request.member_id) {
            member.alive(cx.now, cx.timeouts.session_ms);
        }
        if !must_join {
            return Ok(());
        }
        self.expect_join(cx, &request.member_id);
        Err(ResponseError::RebalanceInProgress)
    }

    /// LeaveGroup: who goes, or whom an operator takes out by the instance id alone.
    pub(in super::super) fn classic_leave(
        &mut self,
        cx: &mut Context<'_>,
        leavers: &[MemberIdentity],
    ) -> Vec<Result<(), ResponseError>> {
        let mut ids = Vec::new();
        let mut take = |leaver: &MemberIdentity| {
            let instance_id = leaver.group_instance_id.as_ref();
            let id = match leaver.member_id.is_empty() {
                true => instance_id
                    .and_then(|id| self.static_ids.get(id))
                    .ok_or(ResponseError::UnknownMemberId)?,
                false => &leaver.member_id,
            };
            let member = self.classic_member(id, instance_id)?;
            info!(group = %self.id, member = %id, reason = leaver.reason.as_deref().unwrap_or_default(), "member left");
            ids.push(member.id.clone());
            Ok(())
        };
        let outcomes = leavers.iter().map(&mut take).collect();
        // One may be named twice, and goes once.
        ids.sort();
        ids.dedup();
        if !ids.is_empty() {
            self.remove(cx, &ids);
        }
        outcomes
    }

    fn classic_member(
        &self,
        id: &StrBytes,
        instance_id: Option<&StrBytes>,
    ) -> Result<&Member, ResponseError> {
        if let Some(instance_id) = instance_id {
            let owner = self.static_ids.get(instance_id);
            if owner.ok_or(ResponseError::UnknownMemberId)? != id {
                return Err(ResponseError::FencedInstanceId);
            }
        }
        let member = self.members.get(id).filter(|member| member.is_classic());
        member.ok_or(ResponseError::UnknownMemberId)
    }

    /// The member was told to join again: for so long it has time.
    fn expect_join(&mut self, cx: &Context<'_>, id: &StrBytes) {
        if let Some(member) = self.members.get_mut(id) {
            let until = cx.now.tick_ms + member.rebalance_timeout_ms();
            member.rejoin_by.get_or_insert(until);
        }
    }

    /// Some of what the member is to get is still somebody else's.
    fn awaits_others(&self, member: &Member) -> bool {
        let target = self.targets.get(&member.id);
        let mut wanted = target.into_iter().flat_map(Partitions::iter);
        wanted.any(|partition| {
            let owner = self.owners.get(&partition);
            owner.is_some_and(|owner| *owner != member.id)
        })
    }
}

fn check_generation(member: &Member, generation: i32) -> Result<(), ResponseError> {
    match generation == member.current.epoch {
        true => Ok(()),
        false => Err(ResponseError::IllegalGeneration),
    }
}

/// Partitions of topics that exist, by their ids.
fn partitions(named: &Named, topics: &Topics) -> Partitions {
    let topics = named.iter().filter_map(|(topic, indexes)| {
        let (id, count) = topics.get(topic)?;
        let exist = indexes
            .iter()
            .filter(move |index| (0..count).contains(*index));
        Some(exist.map(move |index| (id, *index)))
    });
    topics.flatten().collect()
}

impl Member {
    pub(super) fn is_classic(&self) -> bool {
        self.metadata.classic.is_some()
    }

    /// The member, and what it said that it reads when it joined.
    fn of(
        migrant: Migrant,
        generation: i32,
        topics: &Topics,
    ) -> Result<(Self, Partitions), Malformed> {
        let preferred = migrant.protocols.first();
        let preferred = preferred.ok_or(Malformed("a consumer without a protocol"))?;
        let subscription = Subscription::decode(&preferred.metadata)?;
        let assigned = partitions(&decode_assignment(&migrant.assignment)?, topics);
        let claimed = partitions(&subscription.owned, topics);
        let mut member = Self::new(migrant.id);
        member.current = CurrentAssignment {
            epoch: generation,
            previous_epoch: generation,
            assigned,
            ..CurrentAssignment::default()
        };
        let metadata = &mut member.metadata;
        metadata.instance_id = migrant.instance_id;
        metadata.client_id = migrant.client.id;
        metadata.client_host = migrant.client.host;
        metadata.rebalance_timeout_ms = short(migrant.rebalance_timeout_ms);
        metadata.classic = Some(ClassicMember {
            session_timeout_ms: short(migrant.session_timeout_ms),
            protocols: migrant.protocols,
        });
        member.subscribe(subscription);
        Ok((member, claimed))
    }

    fn to_migrant(&self, topics: &Topics) -> Option<Migrant> {
        let classic = self.metadata.classic.as_ref()?;
        Some(Migrant {
            id: self.id.clone(),
            instance_id: self.metadata.instance_id.clone(),
            client: Client {
                id: self.metadata.client_id.clone(),
                host: self.metadata.client_host.clone(),
            },
            rebalance_timeout_ms: self.rebalance_timeout_ms(),
            session_timeout_ms: u64::try_from(classic.session_timeout_ms).unwrap_or(0),
            protocols: classic.protocols.clone(),
            assignment: self.assignment(topics),
        })
    }

    fn subscribe(&mut self, subscription: Subscription) {
        let mut topics = subscription.topics;
        topics.sort();
        topics.dedup();
        self.metadata.topics = topics;
        self.metadata.regex = None;
        self.metadata.rack_id = subscription.rack_id.filter(|rack_id| !rack_id.is_empty());
    }

    fn update_classic(&mut self, join: &Join, subscription: Subscription) {
        let request = &join.request;
        let client = join.client.short();
        let protocols = request.protocols.iter().map(|protocol| ClassicProtocol {
            name: owned(&protocol.name),
            metadata: Bytes::copy_from_slice(&protocol.metadata),
        });
        let metadata = &mut self.metadata;
        metadata.client_id = client.id;
        metadata.client_host = client.host;
        metadata.assignor = None;
        // Version 0 has no rebalance timeout; the session timeout stood for both (KIP-62).
        metadata.rebalance_timeout_ms = match request.rebalance_timeout_ms {
            ..0 => request.session_timeout_ms,
            timeout => timeout,
        };
        metadata.classic = Some(ClassicMember {
            session_timeout_ms: request.session_timeout_ms,
            protocols: protocols.collect(),
        });
        if let Some(instance_id) = &request.group_instance_id {
            metadata.instance_id = Some(owned(instance_id));
        }
        self.subscribe(subscription);
    }

    /// The protocol of a classic member: as nobody leads, each has the one that it likes best.
    fn protocol(&self) -> Option<&StrBytes> {
        let classic = self.metadata.classic.as_ref()?;
        classic.protocols.first().map(|protocol| &protocol.name)
    }

    /// What it may read, as a leader would have written it.
    fn assignment(&self, topics: &Topics) -> Bytes {
        let preferred = self.metadata.classic.as_ref();
        let preferred = preferred.and_then(|classic| classic.protocols.first());
        let version = preferred
            .and_then(|protocol| Subscription::decode(&protocol.metadata).ok())
            .map_or(0, |subscription| subscription.version);
        let assigned = self.current.assigned.topics();
        let named = assigned.filter_map(|(id, indexes)| {
            let name = topics.name(id)?;
            Some((name.clone(), indexes.iter().copied().collect()))
        });
        encode_assignment(version, &named.collect())
    }

    /// What its subscription takes, for the limit of a group's size.
    fn bytes(&self) -> usize {
        let names = self.metadata.topics.iter().map(|topic| topic.len());
        let classic = self.metadata.classic.iter();
        let protocols = classic.flat_map(|classic| &classic.protocols);
        names.sum::<usize>()
            + protocols
                .map(|p| p.name.len() + p.metadata.len())
                .sum::<usize>()
    }
}

fn short(ms: u64) -> i32 {
    i32::try_from(ms).unwrap_or(i32::MAX)
}
