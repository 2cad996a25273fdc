//! What goes wrong, and how partitions change hands.

use std::time::Duration;

use ackwell_core::commit::Schedule;
use ackwell_core::engine::{Assigned, Config, PartitionId};
use ackwell_core::offset::CommitOffset;
use ackwell_core::{Concurrency, RetryPolicy};

use crate::brain::Event;
use crate::checker::{Checked, MemberId};
use crate::dice::Dice;
use crate::member::Fetching;
use crate::world::{Happening, World};

/// How a listener is set up in this world.
pub(crate) fn config(dice: &mut Dice) -> Config {
    let ms = Duration::from_millis;
    let lanes = dice.in_range(1, 8) as u16;
    Config {
        concurrency: if dice.percent(40) {
            Concurrency::ByPartition
        } else {
            Concurrency::ByKey(lanes)
        },
        retry: RetryPolicy::exponential(ms(dice.in_range(0, 40)), 2.0)
            .max(ms(200))
            .max_attempts(dice.in_range(1, 4) as u32)
            .jitter(0.2),
        retry_for: Vec::new(),
        retry_topics: Vec::new(),
        commit: dice.pick(&[
            Schedule::Batch,
            Schedule::Batch,
            Schedule::Record,
            Schedule::Record,
            Schedule::Time(ms(50)),
            Schedule::CountOrTime(7, ms(80)),
        ]),
        recover: true,
        queued_records: dice.in_range(5, 100) as usize,
        queued_bytes: dice.in_range(50, 2_000) as usize,
        run_records: dice.in_range(1, 40) as usize,
        revoke_drain: ms(dice.in_range(0, 500)),
        stop_drain: ms(dice.in_range(0, 500)),
        cancel_wait: ms(100),
        commit_wait: ms(200),
        commit_gap: ms(dice.in_range(0, 5)),
        metadata_bytes: dice.in_range(0, 200) as usize,
        probe: RetryPolicy::exponential(ms(20), 2.0).max(ms(200)),
        recovery: RetryPolicy::exponential(ms(20), 2.0).max(ms(200)),
        seed: 0,
    }
}

impl World {
    pub(crate) fn chaos(&mut self) -> Checked {
        if self.calm() {
            return self.calm_down();
        }
        let wait = self.dice.in_range(5, 120);
        self.at(wait, Happening::Chaos);
        let alive = self.alive();
        let Some(victim) = (!alive.is_empty()).then(|| self.dice.pick(&alive)) else {
            self.join();
            self.at(5, Happening::Rebalance);
            return Ok(());
        };
        match self.dice.in_range(0, 99) {
            0..25 => self.produce(30),
            25..40 => self.at(0, Happening::Rebalance),
            40..50 if alive.len() < 4 => {
                self.join();
                self.at(5, Happening::Rebalance);
            }
            50..56 => self.crash(victim),
            56..64 => return self.take_away(victim),
            64..72 => {
                self.outage = !self.outage;
                self.seen.outages += 1;
            }
            72..78 => return self.rewind(victim),
            78..82 => return self.tell(victim, Event::Pause),
            82..92 => return self.tell(victim, Event::Resume),
            92..95 => {
                self.members[victim].stopping = true;
                return self.tell(victim, Event::Stop);
            }
            _ => {}
        }
        Ok(())
    }

    /// The faults are over: from here on everything must come to its end.
    fn calm_down(&mut self) -> Checked {
        self.outage = false;
        for id in self.alive() {
            self.tell(id, Event::Resume)?;
        }
        self.join();
        self.at(10, Happening::Rebalance);
        self.at(2_000, Happening::Chaos);
        Ok(())
    }

    fn alive(&self) -> Vec<MemberId> {
        let of = self.members.iter().enumerate();
        of.filter(|(_, member)| member.alive && !member.stopping)
            .map(|(id, _)| id)
            .collect()
    }

    fn crash(&mut self, id: MemberId) {
        self.seen.crashes += 1;
        self.members[id].alive = false;
        self.members[id].runs.clear();
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
        self.at(1, Happening::Deal);
        Ok(())
    }

    /// A container has stopped by itself or was told to.
    pub(crate) fn gone(&mut self, id: MemberId) -> Checked {
        for partition in self.members[id].owned.keys() {
            self.checker.handed_over(*partition, id)?;
        }
        self.members[id].alive = false;
        self.members[id].runs.clear();
        self.checker.crashed(id);
        self.session_ends(id)
    }

    /// The group gives a member's partitions away before it hears of it.
    fn take_away(&mut self, id: MemberId) -> Checked {
        let owned: Vec<_> = self.members[id].owned.keys().copied().collect();
        for partition in owned {
            let known = &mut self.partitions[partition as usize];
            if known.owner != Some(id) || known.next_owner.is_some() {
                continue;
            }
            known.owner = None;
            self.seen.losses += 1;
            self.members[id].lost.push(partition);
            self.checker.lost(partition, id);
            let wait = self.dice.in_range(1, 200);
            self.at(wait, Happening::ToldLost(id, partition));
        }
        self.at(1, Happening::Deal);
        Ok(())
    }

    /// The log was cut, or somebody seeks: the client falls back.
    fn rewind(&mut self, id: MemberId) -> Checked {
        let owned: Vec<_> = self.members[id].owned.keys().copied().collect();
        let Some(partition) = (!owned.is_empty()).then(|| self.dice.pick(&owned)) else {
            return Ok(());
        };
        let back = self.dice.in_range(1, 30) as i64;
        let Some(fetching) = self.members[id].owned.get_mut(&partition) else {
            return Ok(());
        };
        let to = (fetching.position - back).max(0);
        self.seen.rewinds += 1;
        if self.dice.percent(50) {
            fetching.position = to;
            return Ok(());
        }
        // A seek is carried out to the letter: one that passes over nothing unsettled.
        let earliest = self.checker.earliest(partition);
        let to = earliest.map_or(to, |earliest| to.min(earliest));
        self.tell(
            id,
            Event::Seek {
                partition: PartitionId(partition),
                to: CommitOffset(to),
            },
        )
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
                revokes[owner].push(PartitionId(id as u32));
            }
        }
        for (owner, partitions) in revokes.into_iter().enumerate() {
            if !partitions.is_empty() {
                self.tell(owner, Event::Revoke(partitions))?;
            }
        }
        self.deal()
    }

    /// Gives partitions without an owner to somebody.
    pub(crate) fn deal(&mut self) -> Checked {
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
            self.at(20, Happening::Deal);
            return Ok(());
        }
        let partition = &mut self.partitions[id as usize];
        partition.owner = Some(target);
        partition.next_owner = None;
        let committed = partition.committed.clone();
        let position = committed.as_ref().map_or(0, |(at, _)| at.0);
        self.members[target].owned.insert(
            id,
            Fetching {
                position,
                paused: false,
            },
        );
        // The container may fail to learn the position; the client finds it all the same.
        let told = committed.filter(|_| self.dice.percent(95));
        let (position, metadata) =
            told.map_or((None, String::new()), |(at, text)| (Some(at), text));
        let assigned = Assigned {
            partition: PartitionId(id),
            position,
            metadata,
        };
        self.tell(target, Event::Assigned(vec![assigned]))
    }

    pub(crate) fn revoke_done(&mut self, id: MemberId, partitions: &[PartitionId]) -> Checked {
        for PartitionId(partition) in partitions {
            let known = &self.partitions[*partition as usize];
            if known.owner != Some(id) || known.next_owner.is_none() {
                continue;
            }
            self.checker.handed_over(*partition, id)?;
            self.seen.handovers += 1;
            self.members[id].owned.remove(partition);
            let known = &mut self.partitions[*partition as usize];
            known.owner = None;
            known.next_owner = None;
            self.at(1, Happening::Deal);
        }
        Ok(())
    }
}
