//! A member's next step towards its target, as in Kafka's `CurrentAssignmentBuilder`.

use super::super::Context;
use super::{Consumer, Member};
use crate::group::record::{ConsumerChange, CurrentAssignment, MemberState, Partitions};

impl Consumer {
    /// Takes the member as far as it can go now. `held` is what it says that it owns; `None`: it has
    /// not said, and may own all that it was ever given.
    pub(super) fn advance(
        &mut self,
        cx: &mut Context<'_>,
        member: &mut Member,
        held: Option<&Partitions>,
    ) {
        let next = self.next_step(member, held);
        if next == member.current {
            return;
        }
        member.revoke_by = (next.state == MemberState::Unrevoked)
            .then(|| cx.now.tick_ms + member.rebalance_timeout_ms());
        member.current = next;
        let change = ConsumerChange::Current(member.id.clone(), Some(member.current.clone()));
        self.write(cx, change);
        self.put(member.clone());
    }

    fn next_step(&self, member: &Member, held: Option<&Partitions>) -> CurrentAssignment {
        let current = &member.current;
        match current.state {
            MemberState::Stable if current.epoch == self.target_epoch => current.clone(),
            MemberState::Stable | MemberState::Unreleased => {
                self.towards_target(member, current.epoch, held)
            }
            MemberState::Unrevoked if may_hold(held, &current.revoking) => current.clone(),
            // It has given up what it had to: that is an epoch of its own.
            MemberState::Unrevoked => {
                self.towards_target(member, current.epoch.saturating_add(1), held)
            }
        }
    }

    fn towards_target(
        &self,
        member: &Member,
        epoch: i32,
        held: Option<&Partitions>,
    ) -> CurrentAssignment {
        let nothing = Partitions::default();
        let target = self.targets.get(&member.id).unwrap_or(&nothing);
        let assigned = &member.current.assigned;
        let kept = assigned.intersection(target);
        let revoking = assigned.difference(target);
        if !revoking.is_empty() && may_hold(held, &revoking) {
            return step(
                &member.current,
                epoch,
                MemberState::Unrevoked,
                kept,
                revoking,
            );
        }
        let free = |topic, partition| {
            let owner = self.owners.get(&(topic, partition));
            owner.is_none_or(|owner| *owner == member.id)
        };
        let wanted = target.difference(&kept);
        let gained = wanted.filter(free);
        let state = match gained.len() == wanted.len() {
            true => MemberState::Stable,
            false => MemberState::Unreleased,
        };
        let all = kept.iter().chain(gained.iter()).collect();
        step(&member.current, self.target_epoch, state, all, nothing)
    }
}

/// Whether some of the partitions may still be read by the member.
fn may_hold(held: Option<&Partitions>, partitions: &Partitions) -> bool {
    held.is_none_or(|held| held.intersects(partitions))
}

fn step(
    from: &CurrentAssignment,
    epoch: i32,
    state: MemberState,
    assigned: Partitions,
    revoking: Partitions,
) -> CurrentAssignment {
    CurrentAssignment {
        epoch,
        previous_epoch: match epoch == from.epoch {
            true => from.previous_epoch,
            false => from.epoch,
        },
        state,
        assigned,
        revoking,
    }
}
