//! Being there: heartbeats, leaving, and silence.

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::leave_group_response::MemberResponse;
use kafka_protocol::messages::{
    HeartbeatRequest, HeartbeatResponse, LeaveGroupRequest, LeaveGroupResponse,
};
use tracing::{info, warn};

use super::super::group::Membership;
use super::super::{Context, Machine, Now, Response, Token, code};
use super::{Classic, Phase};

impl Machine {
    /// The most frequent request: it only puts the member's deadline off, and leaves the group's
    /// timer to find that out when it is due.
    pub(in super::super) fn heartbeat(
        &mut self,
        now: Now,
        token: Token,
        request: &HeartbeatRequest,
    ) {
        let id = &request.group_id.0;
        let outcome = match self.groups.get_mut(id).map(|group| &mut group.membership) {
            // A tool may have committed offsets under the empty name; members cannot have it.
            _ if id.is_empty() => Err(ResponseError::InvalidGroupId),
            None => Err(ResponseError::UnknownMemberId),
            Some(Membership::Classic(classic)) => classic.heartbeat(now, request),
            Some(Membership::Consumer(_)) => self.heartbeat_in_consumers(now, request),
        };
        self.reply(
            token,
            Response::Heartbeat(HeartbeatResponse::default().with_error_code(code(outcome))),
        );
    }

    /// Such a heartbeat may be the one that gives its member a deadline.
    fn heartbeat_in_consumers(
        &mut self,
        now: Now,
        request: &HeartbeatRequest,
    ) -> Result<(), ResponseError> {
        let decided = self.with_group(now, &request.group_id.0, |group, cx| {
            let consumer = group.consumer_mut();
            consumer.map(|consumer| consumer.classic_heartbeat(cx, request))
        });
        let decided = decided.flatten();
        decided.unwrap_or(Err(ResponseError::UnknownMemberId))
    }

    pub(in super::super) fn leave(&mut self, now: Now, token: Token, request: &LeaveGroupRequest) {
        let outcomes = self
            .with_group(now, &request.group_id.0, |group, cx| {
                match &mut group.membership {
                    Membership::Classic(classic) => classic.leave(cx, &request.members),
                    Membership::Consumer(consumer) => consumer.classic_leave(cx, &request.members),
                }
            })
            .unwrap_or_else(|| vec![Err(ResponseError::UnknownMemberId); request.members.len()]);
        let answer = |(member, outcome): (&MemberIdentity, _)| {
            MemberResponse::default()
                .with_member_id(member.member_id.clone())
                .with_group_instance_id(member.group_instance_id.clone())
                .with_error_code(code(outcome))
        };
        let members = request.members.iter().zip(outcomes).map(answer).collect();
        self.reply(
            token,
            Response::Leave(LeaveGroupResponse::default().with_members(members)),
        );
    }
}

impl Classic {
    fn heartbeat(&mut self, now: Now, request: &HeartbeatRequest) -> Result<(), ResponseError> {
        self.check_member(&request.member_id, request.group_instance_id.as_ref())?;
        self.check_generation(request.generation_id)?;
        if let Some(member) = self.members.get_mut(&request.member_id) {
            member.alive(now);
        }
        match self.phase {
            Phase::Empty => Err(ResponseError::UnknownMemberId),
            Phase::PreparingRebalance { .. } => Err(ResponseError::RebalanceInProgress),
            // The members' next step is their sync, not another join.
            Phase::CompletingRebalance { .. } | Phase::Stable { .. } => Ok(()),
        }
    }

    fn leave(
        &mut self,
        cx: &mut Context<'_>,
        leavers: &[MemberIdentity],
    ) -> Vec<Result<(), ResponseError>> {
        let before = self.members.len();
        let outcomes = leavers
            .iter()
            .map(|leaver| self.let_go(cx, leaver))
            .collect();
        if self.members.len() < before {
            self.rebalance(cx, "a member left");
        } else {
            self.complete_if_joined(cx);
        }
        outcomes
    }

    fn let_go(
        &mut self,
        cx: &mut Context<'_>,
        leaver: &MemberIdentity,
    ) -> Result<(), ResponseError> {
        let instance_id = leaver.group_instance_id.as_ref();
        let id = if leaver.member_id.is_empty() {
            // An operator removes a static member by its instance id alone (KIP-345).
            instance_id
                .and_then(|id| self.static_ids.get(id))
                .ok_or(ResponseError::UnknownMemberId)?
                .clone()
        } else if instance_id.is_none() && self.pending.remove(&leaver.member_id).is_some() {
            return Ok(());
        } else {
            self.check_member(&leaver.member_id, instance_id)?;
            leaver.member_id.clone()
        };
        info!(group = %self.id, member = %id, reason = leaver.reason.as_deref().unwrap_or_default(), "member left");
        self.remove(cx, &id);
        Ok(())
    }

    /// Something may be due: ids that were never used, silent members, the phase itself.
    pub(in super::super) fn on_tick(&mut self, cx: &mut Context<'_>) {
        let now = cx.now.tick_ms;
        let pending = self.pending.len();
        self.pending.retain(|_, lapses| *lapses > now);
        let silent: Vec<_> = self
            .members
            .values()
            .filter(|member| member.deadline().is_some_and(|at| at <= now))
            .map(|member| member.id.clone())
            .collect();
        for id in &silent {
            warn!(group = %self.id, member = %id, "member evicted: its session timed out");
            self.remove(cx, id);
        }
        if !silent.is_empty() {
            self.rebalance(cx, "sessions timed out");
        } else if self.pending.len() < pending {
            self.complete_if_joined(cx);
        }
        self.on_phase_deadline(cx);
    }
}
