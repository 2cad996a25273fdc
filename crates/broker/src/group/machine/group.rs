//! A group: members, in whichever protocol they speak, and offsets.
//!
//! The two protocols share their ids and their offsets, so a service can change from one to the
//! other and go on where it was. A group without members becomes of the kind of the next to come; one
//! with members becomes a consumer group with the first that speaks the consumer protocol, and a
//! classic one when the last of these has gone (KIP-848, `migration`).

use std::collections::BTreeSet;

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::OffsetCommitRequest;
use kafka_protocol::messages::list_groups_response::ListedGroup;
use kafka_protocol::protocol::StrBytes;

use super::classic::Classic;
use super::consumer::Consumer;
use super::offsets::Offsets;
use super::{Context, Now};
use crate::group::record::Change;

/// A group. Either half may be missing: a consumer that assigns partitions itself has only offsets.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) id: StrBytes,
    pub(super) membership: Membership,
    pub(super) offsets: Offsets,
    /// Its entry in the machine's timers.
    pub(super) timer: Option<u64>,
}

/// Who is in the group, and how they agree on who reads what.
#[derive(Debug)]
pub(super) enum Membership {
    /// Among themselves, through a leader. Also a group that has only offsets.
    Classic(Classic),
    /// The coordinator tells them (KIP-848).
    Consumer(Consumer),
}

impl Group {
    pub(super) fn new(id: StrBytes) -> Self {
        Self {
            membership: Membership::Classic(Classic::new(id.clone())),
            id,
            offsets: Offsets::default(),
            timer: None,
        }
    }

    pub(super) fn classic_mut(&mut self) -> Option<&mut Classic> {
        match &mut self.membership {
            Membership::Classic(classic) => Some(classic),
            Membership::Consumer(_) => None,
        }
    }

    pub(super) fn consumer_mut(&mut self) -> Option<&mut Consumer> {
        match &mut self.membership {
            Membership::Classic(_) => None,
            Membership::Consumer(consumer) => Some(consumer),
        }
    }

    /// The consumer group with members that somebody joins with the classic protocol.
    pub(super) fn mixed(&mut self) -> Option<&mut Consumer> {
        self.consumer_mut().filter(|consumer| !consumer.is_empty())
    }

    /// The group for somebody who wants to join it with the classic protocol, and finds nobody who
    /// speaks the other.
    pub(super) fn as_classic(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Result<&mut Classic, ResponseError> {
        if self.consumer_mut().is_some() {
            if !self.is_empty() {
                return Err(ResponseError::InconsistentGroupProtocol);
            }
            self.erase_membership(&mut cx.output.changes);
        }
        self.classic_mut()
            .ok_or(ResponseError::CoordinatorNotAvailable)
    }

    /// Forgets what the log says about a group without members; its offsets stay.
    pub(super) fn erase_membership(&mut self, changes: &mut Vec<Change>) {
        match &mut self.membership {
            Membership::Classic(classic) => classic.erase(changes),
            Membership::Consumer(consumer) => consumer.erase(changes),
        }
        self.membership = Membership::Classic(Classic::new(self.id.clone()));
    }

    /// It has no members.
    pub(super) fn is_empty(&self) -> bool {
        match &self.membership {
            Membership::Classic(classic) => classic.is_empty(),
            Membership::Consumer(consumer) => consumer.is_empty(),
        }
    }

    /// Somebody was given an id for it, and may be about to come.
    pub(super) fn is_expected(&self) -> bool {
        match &self.membership {
            Membership::Classic(classic) => !classic.pending.is_empty(),
            Membership::Consumer(_) => false,
        }
    }

    /// Nothing is left that anybody could ask for.
    pub(super) fn is_blank(&self) -> bool {
        let blank = match &self.membership {
            Membership::Classic(classic) => classic.is_blank(),
            Membership::Consumer(consumer) => consumer.is_blank(),
        };
        blank && self.offsets.is_empty()
    }

    /// When something is due if nothing happens before.
    pub(super) fn deadline(&self) -> Option<u64> {
        match &self.membership {
            Membership::Classic(classic) => classic.deadline(),
            Membership::Consumer(consumer) => consumer.deadline(),
        }
    }

    pub(super) fn on_tick(&mut self, cx: &mut Context<'_>) {
        match &mut self.membership {
            Membership::Classic(classic) => classic.on_tick(cx),
            Membership::Consumer(consumer) => consumer.on_tick(cx),
        }
    }

    pub(super) fn check_commit(
        &mut self,
        now: Now,
        request: &OffsetCommitRequest,
        version: i16,
    ) -> Result<(), ResponseError> {
        match &mut self.membership {
            Membership::Classic(classic) => classic.check_commit(now, request),
            Membership::Consumer(consumer) => consumer.check_commit(request, version),
        }
    }

    /// The topics that members read; `None` if that cannot be told, or is not settled.
    pub(super) fn subscribed(&self) -> Option<BTreeSet<StrBytes>> {
        match &self.membership {
            Membership::Classic(classic) => classic.subscribed(),
            Membership::Consumer(consumer) => Some(consumer.subscribed()),
        }
    }

    pub(super) fn listed(&self) -> ListedGroup {
        match &self.membership {
            Membership::Classic(classic) => classic.listed(),
            Membership::Consumer(consumer) => consumer.listed(),
        }
    }

    /// The records that a replay would need, besides those of its offsets.
    pub(super) fn live(&self) -> Vec<Change> {
        match &self.membership {
            Membership::Classic(classic) => classic.live().into_iter().collect(),
            Membership::Consumer(consumer) => consumer.live(),
        }
    }

    /// The log is at its end: members begin new sessions, for they could not speak meanwhile.
    pub(super) fn restore(&mut self, now: Now, session_timeout_ms: u64) {
        match &mut self.membership {
            Membership::Classic(classic) => classic.restore(now),
            Membership::Consumer(consumer) => consumer.restore(now, session_timeout_ms),
        }
    }
}
