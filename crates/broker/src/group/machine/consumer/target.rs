//! What the group reads, and who shall read it.

use std::collections::{BTreeMap, BTreeSet};

use kafka_protocol::protocol::StrBytes;
use tracing::info;
use uuid::Uuid;

use super::super::Context;
use super::super::assignor::{Assignor, Subscriber};
use super::super::topics::Topics;
use super::{Consumer, Member};
use crate::group::record::{ConsumerChange, GroupEpoch};

impl Consumer {
    /// Begins a new epoch if a subscription or the topics behind them have changed.
    pub(super) fn refresh(&mut self, cx: &mut Context<'_>, subscribed_anew: bool) {
        let torn = std::mem::take(&mut self.torn);
        let subscribed_anew = subscribed_anew || torn;
        let seen = self.seen.replace(cx.topics.version());
        if !subscribed_anew && seen == self.seen {
            return;
        }
        if subscribed_anew {
            let used = self
                .members
                .values()
                .filter_map(|member| member.metadata.regex.as_ref());
            self.patterns.keep(used);
        }
        self.patterns.resolve(
            self.members
                .values()
                .filter_map(|member| member.metadata.regex.as_ref()),
            cx.topics,
        );
        let hash = cx.topics.hash(&self.subscribed());
        if subscribed_anew || hash != self.epoch.metadata_hash {
            self.bump(cx, hash);
        }
    }

    pub(super) fn bump(&mut self, cx: &mut Context<'_>, metadata_hash: i64) {
        self.epoch = GroupEpoch {
            // Only a log that somebody else wrote ends here: members then begin anew.
            epoch: self.epoch.epoch.checked_add(1).unwrap_or(1),
            metadata_hash,
        };
        info!(group = %self.id, epoch = self.epoch.epoch, members = self.members.len(), "group epoch");
        self.write(cx, ConsumerChange::Epoch(Some(self.epoch)));
    }

    /// Computes the target assignment, if it is of an earlier epoch.
    pub(super) fn retarget(&mut self, cx: &mut Context<'_>) {
        if self.target_epoch == self.epoch.epoch {
            return;
        }
        let assignor = self.preferred_assignor();
        let members: Vec<_> = self
            .members
            .values()
            .map(|member| self.subscriber(member, cx.topics))
            .collect();
        let topics: BTreeMap<Uuid, i32> = self
            .subscribed()
            .iter()
            .filter_map(|topic| cx.topics.get(topic))
            .collect();
        let targets = assignor.assign(&members, &topics);
        for (member, target) in members.into_iter().zip(targets) {
            if member.had != target {
                let change = ConsumerChange::Target(member.id.clone(), Some(target.clone()));
                self.write(cx, change);
                self.targets.insert(member.id, target);
            }
        }
        self.target_epoch = self.epoch.epoch;
        let change = ConsumerChange::TargetEpoch(Some(self.target_epoch));
        self.write(cx, change);
        info!(group = %self.id, epoch = self.target_epoch, assignor = assignor.name(), "assigned");
    }

    /// The assignor that most members would like; the default if nobody says, or for a tie.
    pub(super) fn preferred_assignor(&self) -> Assignor {
        let mut votes: BTreeMap<Assignor, usize> = BTreeMap::new();
        let wishes = self
            .members
            .values()
            .filter_map(|member| Assignor::named(member.metadata.assignor.as_ref()?));
        for wish in wishes {
            *votes.entry(wish).or_default() += 1;
        }
        votes
            .into_iter()
            .rev()
            .max_by_key(|(_, votes)| *votes)
            .map(|(assignor, _)| assignor)
            .unwrap_or_default()
    }

    /// All topics that members have subscribed to, whether they exist or not.
    pub(in super::super) fn subscribed(&self) -> BTreeSet<StrBytes> {
        let members = self.members.values();
        members
            .flat_map(|member| self.subscription(member))
            .cloned()
            .collect()
    }

    fn subscription<'a>(&'a self, member: &'a Member) -> impl Iterator<Item = &'a StrBytes> {
        let matched = member.metadata.regex.as_ref();
        let matched = matched.and_then(|regex| self.patterns.topics(regex));
        member
            .metadata
            .topics
            .iter()
            .chain(matched.into_iter().flatten())
    }

    fn subscriber(&self, member: &Member, topics: &Topics) -> Subscriber {
        let mut ids: Vec<_> = self
            .subscription(member)
            .filter_map(|topic| topics.get(topic))
            .map(|(id, _)| id)
            .collect();
        ids.sort_unstable();
        ids.dedup();
        Subscriber {
            id: member.id.clone(),
            instance_id: member.metadata.instance_id.clone(),
            topics: ids,
            had: self.targets.get(&member.id).cloned().unwrap_or_default(),
        }
    }
}
