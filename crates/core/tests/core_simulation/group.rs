//! How partitions change hands.

use std::collections::BTreeSet;

use ackwell_core::engine::{Assigned, PartitionId};

use crate::checker::{Checked, MemberId};
use crate::manners::claimed;
use crate::member::Tenure;
use crate::weather::Trouble;
use crate::world::{Event, Happening, World};

impl World {
    /// Members that partitions can be given to.
    pub(crate) fn alive(&self) -> Vec<MemberId> {
        let of = self.members.iter().enumerate();
        of.filter(|(_, member)| member.alive && !member.stopping)
            .map(|(id, _)| id)
            .collect()
    }

    pub(crate) fn next_number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    /// Deals partitions anew; those that change hands are asked back first.
    pub(crate) fn rebalance(&mut self) -> Checked {
        let alive = self.alive();
        if alive.is_empty() {
            return Ok(());
        }
        let mut revokes = vec![Vec::new(); self.members.len()];
        for (id, partition) in self.partitions.iter_mut().enumerate() {
            let target = self.dice.pick(&alive);
            let Some(owner) = partition.owner else {
                continue;
            };
            // One that was asked for before is answered later.
            if partition.next_owner.is_none() && owner != target && self.members[owner].alive {
                partition.next_owner = Some(target);
                revokes[owner].push(id as u32);
            }
        }
        for (owner, partitions) in revokes.into_iter().enumerate() {
            if !partitions.is_empty() {
                self.revoke(owner, partitions)?;
            }
        }
        self.deal()
    }

    fn revoke(&mut self, id: MemberId, partitions: Vec<u32>) -> Checked {
        self.begin_drain(id, &partitions, self.weather.config.revoke_drain);
        let partitions = partitions.into_iter().map(PartitionId).collect();
        self.tell(id, Event::Revoke(partitions))?;
        self.check_halted(id)
    }

    pub(crate) fn revoke_done(&mut self, id: MemberId, partitions: &[PartitionId]) -> Checked {
        for PartitionId(partition) in partitions {
            let known = &self.partitions[*partition as usize];
            if known.owner != Some(id) || known.next_owner.is_none() {
                continue;
            }
            self.check_handover(id, *partition)?;
            self.checker.handed_over(*partition, id)?;
            self.seen.handovers += 1;
            self.members[id].owned.remove(partition);
            let known = &mut self.partitions[*partition as usize];
            known.owner = None;
            known.next_owner = None;
            self.deal_in(1);
        }
        let owned = &self.members[id].owned;
        if owned.values().all(|tenure| tenure.drain.is_none()) {
            self.members[id].hand_over_by = 0;
        }
        Ok(())
    }

    /// Partitions without an owner are given to somebody soon.
    fn deal_in(&mut self, wait: u64) {
        let at = self.now + wait;
        if self
            .deal_at
            .is_none_or(|known| at < known || known < self.now)
        {
            self.deal_at = Some(at);
            self.at(wait, Happening::Deal);
        }
    }

    /// Gives partitions without an owner to somebody.
    pub(crate) fn deal(&mut self) -> Checked {
        if self.deal_at == Some(self.now) {
            self.deal_at = None;
        }
        for id in 0..self.partitions.len() {
            let alive = self.alive();
            if self.partitions[id].owner.is_none() && !alive.is_empty() {
                let target = self.dice.pick(&alive);
                self.assign(id as u32, target)?;
            }
        }
        Ok(())
    }

    fn assign(&mut self, id: u32, target: MemberId) -> Checked {
        if self.members[target].owned.contains_key(&id) {
            // It does not know yet that it has lost the partition.
            self.deal_in(20);
            return Ok(());
        }
        let partition = &mut self.partitions[id as usize];
        partition.owner = Some(target);
        partition.next_owner = None;
        let committed = partition.committed.clone();
        let position = committed.as_ref().map_or(0, |(at, _)| at.0);
        // The container may fail to learn the position; the client finds it all the same.
        let unknown = self.strikes(Trouble::UnknownPosition, 10);
        self.seen.unknown_positions += u64::from(unknown);
        let told = committed.filter(|_| !unknown);
        let known = told.as_ref().map_or(BTreeSet::new(), |(at, text)| {
            claimed(at.0, text, &self.partitions[id as usize].snapshots)
        });
        let number = self.next_number();
        self.partitions[id as usize].assignment = number;
        let tenure = Tenure {
            number,
            assignment: number,
            position,
            next: told.as_ref().map(|(at, _)| at.0),
            informed: !unknown,
            reported: known.iter().map(|offset| (*offset, 0)).collect(),
            known,
            retry_at: Some(0),
            ..Tenure::default()
        };
        self.members[target].owned.insert(id, tenure);
        self.seen.assigned_paused += u64::from(self.members[target].paused);
        let (position, metadata) =
            told.map_or((None, String::new()), |(at, text)| (Some(at), text));
        let snapshot = position.and_then(|at| self.partitions[id as usize].referred(at, &metadata));
        let assigned = Assigned {
            partition: PartitionId(id),
            position,
            metadata,
            snapshot,
        };
        self.tell(target, Event::Assigned(vec![assigned]))?;
        self.announce(target, id, number)
    }

    pub(crate) fn crash(&mut self, id: MemberId) {
        self.seen.crashes += 1;
        self.members[id].alive = false;
        self.members[id].runs.clear();
        self.members[id].retries.clear();
        self.members[id].acks.clear();
        self.checker.crashed(id);
        let wait = self.dice.in_range(50, 300);
        self.at(wait, Happening::SessionEnds(id));
    }

    /// The group notices that a member is gone.
    pub(crate) fn session_ends(&mut self, id: MemberId) -> Checked {
        for partition in &mut self.partitions {
            if partition.owner == Some(id) {
                partition.owner = None;
                partition.next_owner = None;
            }
        }
        self.deal_in(1);
        Ok(())
    }

    /// A container has stopped by itself or was told to.
    pub(crate) fn gone(&mut self, id: MemberId) -> Checked {
        let owned: Vec<_> = self.members[id].owned.keys().copied().collect();
        for partition in owned {
            self.checker.handed_over(partition, id)?;
            if self.members[id].stopping {
                self.check_handover(id, partition)?;
            }
        }
        self.members[id].alive = false;
        self.members[id].runs.clear();
        self.members[id].retries.clear();
        self.members[id].acks.clear();
        self.checker.crashed(id);
        self.session_ends(id)
    }

    /// The group gives a member's partitions away before it hears of it.
    pub(crate) fn take_away(&mut self, id: MemberId) -> Checked {
        let owned: Vec<_> = self.members[id].owned.keys().copied().collect();
        for partition in owned {
            let known = &mut self.partitions[partition as usize];
            if known.owner != Some(id) || known.next_owner.is_some() {
                continue;
            }
            known.owner = None;
            self.seen.losses += 1;
            self.checker.lost(partition, id);
            let wait = self.dice.in_range(1, 200);
            self.at(wait, Happening::ToldLost(id, partition));
        }
        self.deal_in(1);
        Ok(())
    }
}
