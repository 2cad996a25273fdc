//! SyncGroup: who reads what. The leader brings everybody's assignment, the others wait for it.

use bytes::Bytes;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::{SyncGroupRequest, SyncGroupResponse};
use kafka_protocol::protocol::StrBytes;
use tracing::info;

use super::super::group::Membership;
use super::super::{Context, Machine, Now, Response, Token, sync_refused};
use super::member::Wait;
use super::{Classic, Phase, refuse};

impl Machine {
    pub(in super::super) fn sync(&mut self, now: Now, token: Token, request: &SyncGroupRequest) {
        let decided = self.with_group(now, &request.group_id.0, |group, cx| {
            match &mut group.membership {
                Membership::Classic(classic) => classic.sync(cx, token, request),
                Membership::Consumer(consumer) => consumer.classic_sync(cx, token, request),
            }
        });
        if let Err(error) = decided.unwrap_or(Err(ResponseError::UnknownMemberId)) {
            self.reply(token, sync_refused(error));
        }
    }
}

impl Classic {
    fn sync(
        &mut self,
        cx: &mut Context<'_>,
        token: Token,
        request: &SyncGroupRequest,
    ) -> Result<(), ResponseError> {
        self.check_member(&request.member_id, request.group_instance_id.as_ref())?;
        self.check_generation(request.generation_id)?;
        let same = |told: &Option<StrBytes>, is: &Option<StrBytes>| told.is_none() || told == is;
        if !same(&request.protocol_type, &self.protocol_type)
            || !same(&request.protocol_name, &self.protocol)
        {
            return Err(ResponseError::InconsistentGroupProtocol);
        }
        match self.phase {
            Phase::Empty => Err(ResponseError::UnknownMemberId),
            Phase::PreparingRebalance { .. } => Err(ResponseError::RebalanceInProgress),
            Phase::CompletingRebalance { sync_until } => {
                self.await_assignment(cx, token, request, sync_until)
            }
            Phase::Stable { .. } => {
                self.hand_over(cx, token, &request.member_id);
                Ok(())
            }
        }
    }

    fn await_assignment(
        &mut self,
        cx: &mut Context<'_>,
        token: Token,
        request: &SyncGroupRequest,
        sync_until: u64,
    ) -> Result<(), ResponseError> {
        let leads = self.is_leader(&request.member_id);
        let bytes: usize = request.assignments.iter().map(|a| a.assignment.len()).sum();
        if leads && bytes > cx.config.group_bytes_max {
            return Err(ResponseError::InvalidRequest);
        }
        let Some(member) = self.members.get_mut(&request.member_id) else {
            return Ok(());
        };
        member.owes_sync = false;
        let replaced = member.wait(Wait::Sync(token));
        refuse(
            cx,
            replaced,
            &request.member_id,
            ResponseError::RebalanceInProgress,
        );
        if leads {
            self.assign(cx, request, sync_until);
        }
        Ok(())
    }

    /// The generation has its assignments: it is written, and told to those who wait.
    fn assign(&mut self, cx: &mut Context<'_>, request: &SyncGroupRequest, sync_until: u64) {
        for member in self.members.values_mut() {
            let given = request
                .assignments
                .iter()
                .find(|a| a.member_id == member.id);
            member.assignment = given
                .map(|a| Bytes::copy_from_slice(&a.assignment))
                .unwrap_or_default();
        }
        info!(group = %self.id, generation = self.generation, leader = %request.member_id, "assigned");
        self.phase = Phase::Stable { sync_until };
        self.write(cx);
        let waiting: Vec<_> = self
            .members
            .values_mut()
            .filter_map(|member| {
                member
                    .end_sync(cx.now)
                    .map(|token| (token, member.id.clone()))
            })
            .collect();
        for (token, id) in waiting {
            self.hand_over(cx, token, &id);
        }
    }

    fn hand_over(&mut self, cx: &mut Context<'_>, token: Token, id: &StrBytes) {
        let Some(member) = self.members.get_mut(id) else {
            return;
        };
        member.owes_sync = false;
        member.alive(cx.now);
        let response = SyncGroupResponse::default()
            .with_protocol_type(self.protocol_type.clone())
            .with_protocol_name(self.protocol.clone())
            .with_assignment(member.assignment.clone());
        cx.reply(token, Response::Sync(response));
    }
}
