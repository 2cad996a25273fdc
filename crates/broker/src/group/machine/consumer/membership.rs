//! Who may speak for a member, and how members come back, leave and are taken for gone.

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::{ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse};
use kafka_protocol::protocol::StrBytes;
use tracing::{info, warn};

use super::super::Context;
use super::heartbeat::{LEAVE, LEAVE_FOR_A_WHILE, Refused, refused};
use super::{Consumer, Member};
use crate::group::record::{ConsumerChange, CurrentAssignment, MemberState, Partitions};

/// Who a heartbeat is from.
pub(super) enum Comer {
    /// A member, and the epoch that it comes with is right.
    Known,
    /// Somebody new.
    New,
    /// A static member that went for a while under this id, and is back under another (KIP-345).
    Returned { old_id: StrBytes },
}

impl Consumer {
    pub(super) fn identify(
        &self,
        request: &ConsumerGroupHeartbeatRequest,
        id: &StrBytes,
        held: Option<&Partitions>,
    ) -> Result<Comer, Refused> {
        let joins = request.member_epoch == 0;
        let known = match &request.instance_id {
            Some(instance_id) if joins => match self.static_ids.get(instance_id) {
                Some(current) if current != id => return self.check_return(instance_id, current),
                current => current.and_then(|current| self.members.get(current)),
            },
            Some(instance_id) => Some(self.static_member(instance_id, id)?),
            None => self.members.get(id),
        };
        match known {
            Some(_) if joins => Ok(Comer::Known),
            Some(member) => {
                check_epoch(member, request.member_epoch, held)?;
                Ok(Comer::Known)
            }
            None if joins => Ok(Comer::New),
            None => Err(self.unknown(id)),
        }
    }

    /// An instance id is free for another member when its owner has said that it goes for a while.
    /// A classic owner cannot say so: it has been restarted with the new protocol.
    fn check_return(&self, instance_id: &StrBytes, owner: &StrBytes) -> Result<Comer, Refused> {
        let away = self
            .members
            .get(owner)
            .is_some_and(|member| member.current.epoch == LEAVE_FOR_A_WHILE || member.is_classic());
        match away {
            true => Ok(Comer::Returned {
                old_id: owner.clone(),
            }),
            false => Err(refused(
                ResponseError::UnreleasedInstanceId,
                format!(
                    "the instance id {} is owned by member {}",
                    &**instance_id, &**owner
                ),
            )),
        }
    }

    fn static_member(&self, instance_id: &StrBytes, id: &StrBytes) -> Result<&Member, Refused> {
        let owner = self
            .static_ids
            .get(instance_id)
            .ok_or_else(|| self.unknown(id))?;
        if owner != id {
            return Err(refused(
                ResponseError::FencedInstanceId,
                format!(
                    "the instance id {} is owned by member {}",
                    &**instance_id, &**owner
                ),
            ));
        }
        self.members.get(id).ok_or_else(|| self.unknown(id))
    }

    fn unknown(&self, id: &StrBytes) -> Refused {
        refused(
            ResponseError::UnknownMemberId,
            format!("Member {} is not a member of group {}.", &**id, &*self.id),
        )
    }

    /// The member to work with, and whom it replaces: one that has returned has taken over what it
    /// had.
    pub(super) fn admit(
        &mut self,
        cx: &mut Context<'_>,
        comer: Comer,
        id: &StrBytes,
        instance_id: Option<&StrBytes>,
    ) -> (Member, Option<StrBytes>) {
        let member = match comer {
            Comer::Returned { old_id } => {
                return (self.replace(cx, &old_id, id), Some(old_id));
            }
            Comer::New => {
                let instance = instance_id.map_or("", |instance_id| &**instance_id);
                info!(group = %self.id, member = %id, instance, "member joined");
                Member::new(id.clone())
            }
            Comer::Known => self
                .members
                .get(id)
                .cloned()
                .unwrap_or_else(|| Member::new(id.clone())),
        };
        (member, None)
    }

    fn replace(&mut self, cx: &mut Context<'_>, old_id: &StrBytes, id: &StrBytes) -> Member {
        info!(group = %self.id, member = %id, replaces = %old_id, "static member returned");
        let old = self.take(old_id);
        if let Some(target) = self.targets.remove(old_id) {
            self.write(cx, ConsumerChange::Target(id.clone(), Some(target.clone())));
            self.targets.insert(id.clone(), target);
        }
        let mut member = Member::new(id.clone());
        if let Some(old) = old {
            member.metadata = old.metadata;
            member.current.assigned = old.current.assigned;
        }
        member
    }

    pub(super) fn leave(
        &mut self,
        cx: &mut Context<'_>,
        request: &ConsumerGroupHeartbeatRequest,
    ) -> Result<ConsumerGroupHeartbeatResponse, Refused> {
        let id = &request.member_id;
        let member = match &request.instance_id {
            Some(instance_id) => self.static_member(instance_id, id)?,
            None => self.members.get(id).ok_or_else(|| self.unknown(id))?,
        };
        let for_a_while = request.member_epoch == LEAVE_FOR_A_WHILE;
        info!(group = %self.id, member = %id, for_a_while, "member left");
        let (id, mut member) = (member.id.clone(), member.clone());
        if for_a_while {
            // It keeps its partitions, and its session goes on: it may come back until then.
            member.current = CurrentAssignment {
                epoch: LEAVE_FOR_A_WHILE,
                previous_epoch: member.current.epoch,
                state: MemberState::Stable,
                assigned: member.current.assigned,
                revoking: Partitions::default(),
            };
            member.revoke_by = None;
            let current = Some(member.current.clone());
            self.write(cx, ConsumerChange::Current(id.clone(), current));
            self.put(member);
        } else {
            self.remove(cx, std::slice::from_ref(&id));
        }
        Ok(ConsumerGroupHeartbeatResponse::default()
            .with_member_id(Some(id))
            .with_member_epoch(match for_a_while {
                true => LEAVE_FOR_A_WHILE,
                false => LEAVE,
            }))
    }

    /// Members that fell silent, or did not give up in time what they had to.
    pub(in super::super) fn on_tick(&mut self, cx: &mut Context<'_>) {
        let now = cx.now.tick_ms;
        let evicted: Vec<_> = self
            .members
            .values()
            .filter(|member| member.deadline() <= now)
            .map(|member| (member.id.clone(), late(member, now)))
            .collect();
        for (id, reason) in &evicted {
            warn!(group = %self.id, member = %id, reason, "member evicted");
        }
        let ids: Vec<_> = evicted.into_iter().map(|(id, _)| id).collect();
        if !ids.is_empty() {
            self.remove(cx, &ids);
        }
    }

    pub(super) fn remove(&mut self, cx: &mut Context<'_>, ids: &[StrBytes]) {
        let mut others = self.members.values().filter(|m| !ids.contains(&m.id));
        let downgraded = others.clone().next().is_some() && others.all(Member::is_classic);
        // What the others are to have now is computed when the first of them asks. A group that
        // becomes a classic one goes on from the epoch that its members know.
        if !downgraded {
            self.bump(cx, self.epoch.metadata_hash);
        }
        for id in ids {
            self.take(id);
            self.targets.remove(id);
            self.erase_member(cx, id);
        }
        let patterns = self
            .members
            .values()
            .filter_map(|m| m.metadata.regex.as_ref());
        self.patterns.keep(patterns);
    }

    /// The member first: what else the log says of somebody who is no member counts for nothing.
    pub(super) fn erase_member(&self, cx: &mut Context<'_>, id: &StrBytes) {
        self.write(cx, ConsumerChange::Member(id.clone(), None));
        self.write(cx, ConsumerChange::Target(id.clone(), None));
        self.write(cx, ConsumerChange::Current(id.clone(), None));
    }
}

/// Why a member's time is up.
fn late(member: &Member, now: u64) -> &'static str {
    let due = |at: Option<u64>| at.is_some_and(|at| at <= now);
    match member {
        member if member.silent_at <= now => "its session timed out",
        member if due(member.rejoin_by) => "it did not rejoin in time",
        member if due(member.sync_by) => "it did not sync in time",
        _ => "it did not give up partitions in time",
    }
}

/// A member must come with its epoch. With the one before only if it cannot have seen the answer
/// that raised it, and holds nothing that it should not: then it is given that answer again.
fn check_epoch(member: &Member, received: i32, held: Option<&Partitions>) -> Result<(), Refused> {
    let current = &member.current;
    let fenced = |how: &str| {
        let message = format!(
            "The consumer group member has a {how} member epoch ({received}) than the one known by the \
             group coordinator ({}). The member must abandon all its partitions and rejoin.",
            current.epoch
        );
        Err(refused(ResponseError::FencedMemberEpoch, message))
    };
    if received > current.epoch {
        return fenced("greater");
    }
    let repeats = received == current.previous_epoch
        && held.is_some_and(|held| held.difference(&current.assigned).is_empty());
    if received < current.epoch && !repeats {
        return fenced("smaller");
    }
    Ok(())
}
