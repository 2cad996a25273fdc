//! JoinGroup: who is in the next generation.
//!
//! A join that changes the group, or that must wait for others, stays unanswered until the
//! generation is complete; one that repeats what is known is answered with the generation there is.

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::{JoinGroupRequest, JoinGroupResponse};
use kafka_protocol::protocol::StrBytes;
use tracing::info;
use uuid::Uuid;

use super::super::group::Group;
use super::super::{
    CLIENT_ID_MAX, Client, Context, Machine, NAME_MAX, Now, Response, Token, join_refused, owned,
};
use super::member::{Member, Wait};
use super::{Classic, Phase, refuse};

/// From this version on, a new dynamic member is first told its id (KIP-394).
pub(in super::super) const MEMBER_ID_REQUIRED: i16 = 4;
/// From this version on, a leader can be told to skip the assignment (KIP-814).
const SKIP_ASSIGNMENT: i16 = 9;

/// A join with what the machine needs to decide it.
pub(in super::super) struct Join {
    pub(in super::super) token: Token,
    pub(in super::super) request: JoinGroupRequest,
    pub(in super::super) version: i16,
    pub(in super::super) client: Client,
    pub(in super::super) fresh_id: Uuid,
}

impl Machine {
    pub(in super::super) fn join(&mut self, now: Now, join: Join) {
        let decided = self.check_join(&join.request).and_then(|()| {
            let id = owned(&join.request.group_id);
            self.groups
                .entry(id.clone())
                .or_insert_with(|| Group::new(id.clone()));
            let join = |group: &mut Group, cx: &mut Context<'_>| match group.mixed() {
                Some(consumer) => consumer.classic_join(cx, &join),
                None => group.as_classic(cx)?.join(cx, &join),
            };
            self.with_group(now, &id, join)
                .unwrap_or(Err(ResponseError::CoordinatorNotAvailable))
        });
        if let Err(error) = decided {
            info!(group = %join.request.group_id.0, client = %join.client.id, %error, "join refused");
            self.reply(join.token, join_refused(join.request.member_id, error));
        }
    }

    fn check_join(&self, request: &JoinGroupRequest) -> Result<(), ResponseError> {
        if request.group_id.is_empty() || request.group_id.len() > NAME_MAX {
            return Err(ResponseError::InvalidGroupId);
        }
        let session_timeout = u64::try_from(request.session_timeout_ms).unwrap_or(0);
        if !(self.config.session_timeout_min_ms..=self.config.session_timeout_max_ms)
            .contains(&session_timeout)
        {
            return Err(ResponseError::InvalidSessionTimeout);
        }
        let names = request.protocols.iter().map(|p| p.name.len());
        let instance = request.group_instance_id.as_ref().map_or(0, |id| id.len());
        if names
            .chain([request.protocol_type.len(), instance])
            .any(|length| length > NAME_MAX)
        {
            return Err(ResponseError::InvalidRequest);
        }
        if self.groups.contains_key(&request.group_id.0) {
            Ok(())
        } else if !request.member_id.is_empty() {
            Err(ResponseError::UnknownMemberId)
        } else if self.groups.len() >= self.config.groups_max {
            Err(ResponseError::PolicyViolation)
        } else {
            Ok(())
        }
    }
}

impl Classic {
    fn join(&mut self, cx: &mut Context<'_>, join: &Join) -> Result<(), ResponseError> {
        self.check_room(cx, join)?;
        if !self.supports(&join.request) {
            return Err(ResponseError::InconsistentGroupProtocol);
        }
        if !join.request.member_id.is_empty() {
            return self.rejoin(cx, join);
        }
        let known = join
            .request
            .group_instance_id
            .as_ref()
            .and_then(|id| self.static_ids.get(id))
            .cloned();
        match known {
            Some(old_id) => self.take_over(cx, join, &old_id),
            None if join.version >= MEMBER_ID_REQUIRED
                && join.request.group_instance_id.is_none() =>
            {
                self.hand_out_id(cx, join)?;
            }
            None => self.admit(cx, join, join.new_id()),
        }
        Ok(())
    }

    /// `group.max.size` and the bytes of a group. A member that loses its place to others who were
    /// faster to rejoin a group that is too large is taken out.
    fn check_room(&mut self, cx: &mut Context<'_>, join: &Join) -> Result<(), ResponseError> {
        let member = self.members.get(&join.request.member_id);
        let joined = self.members.values().filter(|m| m.waits_for_join()).count();
        let max = cx.config.members_max;
        let room = match self.phase {
            Phase::Empty => true,
            Phase::PreparingRebalance { .. } => {
                member.is_some_and(Member::waits_for_join) || joined < max
            }
            Phase::CompletingRebalance { .. } | Phase::Stable { .. } => {
                member.is_some() || self.members.len() < max
            }
        };
        let others = self
            .members
            .values()
            .filter(|m| m.id != join.request.member_id)
            .map(Member::metadata_bytes);
        let own = join
            .request
            .protocols
            .iter()
            .map(|p| p.name.len() + p.metadata.len());
        if room && others.chain(own).sum::<usize>() <= cx.config.group_bytes_max {
            return Ok(());
        }
        if member.is_some() {
            self.remove(cx, &join.request.member_id);
            self.rebalance(cx, "a member found no room");
        }
        Err(ResponseError::GroupMaxSizeReached)
    }

    /// Gives a new dynamic member its id and lets it come again, so that a client that repeats its
    /// first join (it timed out, say) does not become two members.
    fn hand_out_id(&mut self, cx: &mut Context<'_>, join: &Join) -> Result<(), ResponseError> {
        if self.pending.len() >= cx.config.members_max {
            return Err(ResponseError::GroupMaxSizeReached);
        }
        let id = join.new_id();
        let lapses = cx.now.tick_ms + u64::try_from(join.request.session_timeout_ms).unwrap_or(0);
        self.pending.insert(id.clone(), lapses);
        cx.reply(
            join.token,
            join_refused(id, ResponseError::MemberIdRequired),
        );
        Ok(())
    }

    /// A new member: the next generation is with it.
    fn admit(&mut self, cx: &mut Context<'_>, join: &Join, id: StrBytes) {
        let mut member = Member::new(
            id,
            &join.request,
            &join.client,
            cx.now,
            cx.config.new_member_timeout_ms,
        );
        let _ = member.wait(Wait::Join(join.token));
        info!(group = %self.id, member = %member.id, client = %member.client.id, host = %member.client.host, "member joined");
        if let Phase::PreparingRebalance {
            initial: Some(initial),
            ..
        } = &mut self.phase
        {
            initial.newcomer = true;
        }
        self.add(member, owned(&join.request.protocol_type));
        self.rebalance(cx, "a member joined");
    }

    /// A join of somebody who has an id.
    fn rejoin(&mut self, cx: &mut Context<'_>, join: &Join) -> Result<(), ResponseError> {
        let id = &join.request.member_id;
        let instance_id = join.request.group_instance_id.as_ref();
        if instance_id.is_none() && self.pending.contains_key(id) {
            self.admit(cx, join, owned(id));
            return Ok(());
        }
        self.check_member(id, instance_id)?;
        let Some(member) = self.members.get(id) else {
            return Err(ResponseError::UnknownMemberId);
        };
        let repeats = member.offers(&join.request);
        let leads = self.is_leader(id);
        match self.phase {
            Phase::CompletingRebalance { .. } if repeats => {
                self.answer_generation(cx, join, id.clone())
            }
            Phase::Stable { .. } if repeats && !leads => {
                self.answer_generation(cx, join, id.clone())
            }
            Phase::Empty => return Err(ResponseError::UnknownMemberId),
            _ => {
                self.gather(cx, join, id);
                // A leader that joins again with nothing new has seen the topics change.
                self.rebalance(
                    cx,
                    if repeats {
                        "the leader rejoined"
                    } else {
                        "a member changed its metadata"
                    },
                );
            }
        }
        Ok(())
    }

    /// Takes up a known member's join for the next generation.
    fn gather(&mut self, cx: &mut Context<'_>, join: &Join, id: &StrBytes) {
        let Some(member) = self.members.get_mut(id) else {
            return;
        };
        member.update(&join.request, &join.client);
        let replaced = member.wait(Wait::Join(join.token));
        refuse(cx, replaced, id, ResponseError::RebalanceInProgress);
    }

    /// A static member is back under a new id: a restarted process (KIP-345). In a stable group it
    /// takes its assignment over without a rebalance, and whoever still uses the old id is fenced.
    fn take_over(&mut self, cx: &mut Context<'_>, join: &Join, old_id: &StrBytes) {
        let old_leader = self.leader.clone();
        let new_id = join.new_id();
        self.rename(cx, old_id, &new_id);
        let Some(member) = self.members.get_mut(&new_id) else {
            return;
        };
        member.update(&join.request, &join.client);
        member.alive(cx.now);
        info!(group = %self.id, member = %new_id, replaces = %old_id, "static member returned");
        if matches!(self.phase, Phase::Stable { .. }) && self.elect_protocol() == self.protocol {
            self.write(cx);
            return self.answer_return(cx, join, new_id, old_leader);
        }
        let replaced = self
            .members
            .get_mut(&new_id)
            .and_then(|member| member.wait(Wait::Join(join.token)));
        refuse(cx, replaced, &new_id, ResponseError::RebalanceInProgress);
        self.rebalance(cx, "a static member returned");
    }

    fn rename(&mut self, cx: &mut Context<'_>, old_id: &StrBytes, new_id: &StrBytes) {
        let Some(mut member) = self.members.remove(old_id) else {
            return;
        };
        refuse(
            cx,
            member.end_any(),
            old_id,
            ResponseError::FencedInstanceId,
        );
        if let Some(instance_id) = &member.instance_id {
            self.static_ids.insert(instance_id.clone(), new_id.clone());
        }
        if self.is_leader(old_id) {
            self.leader = Some(new_id.clone());
        }
        member.id = new_id.clone();
        self.members.insert(new_id.clone(), member);
    }

    /// The answer to a static member that takes over. A leader is told to skip the assignment if
    /// its version knows how; otherwise it is told the old leader's id, so that it does not think
    /// of itself as one and assign.
    fn answer_return(
        &self,
        cx: &mut Context<'_>,
        join: &Join,
        id: StrBytes,
        old_leader: Option<StrBytes>,
    ) {
        let leads = self.is_leader(&id);
        let mut response = self.generation_response(id);
        if join.version >= SKIP_ASSIGNMENT {
            response.skip_assignment = leads;
        } else {
            response.leader = old_leader.unwrap_or_default();
            response.members = Vec::new();
        }
        cx.reply(join.token, Response::Join(response));
    }

    fn answer_generation(&self, cx: &mut Context<'_>, join: &Join, id: StrBytes) {
        cx.reply(join.token, Response::Join(self.generation_response(id)));
    }

    /// What a member of the generation is told; the leader gets the roll.
    pub(super) fn generation_response(&self, id: StrBytes) -> JoinGroupResponse {
        JoinGroupResponse::default()
            .with_generation_id(self.generation)
            .with_protocol_type(self.protocol_type.clone())
            .with_protocol_name(self.protocol.clone())
            .with_leader(self.leader.clone().unwrap_or_default())
            .with_members(if self.is_leader(&id) {
                self.roll()
            } else {
                Vec::new()
            })
            .with_member_id(id)
    }
}

impl Join {
    /// A new member id, as Kafka makes it: instance or client id, and a UUID.
    pub(in super::super) fn new_id(&self) -> StrBytes {
        let prefix = self
            .request
            .group_instance_id
            .as_ref()
            .unwrap_or(&self.client.id);
        let prefix = &prefix[..prefix.floor_char_boundary(CLIENT_ID_MAX)];
        StrBytes::from_string(format!("{prefix}-{}", self.fresh_id))
    }
}
