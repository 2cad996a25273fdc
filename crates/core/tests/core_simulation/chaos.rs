//! What goes wrong, and when it ends.

use ackwell_core::Class;
use ackwell_core::engine::PartitionId;
use ackwell_core::offset::CommitOffset;

use crate::checker::{Checked, MemberId};
use crate::weather::Trouble;
use crate::world::{Event, Happening, Plan, World};

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
        if self.dice.percent(25) {
            self.produce();
            return Ok(());
        }
        let trouble = self.dice.pick(Trouble::BY_CHANCE);
        if self.weather.has(trouble) {
            self.strike(trouble, victim, alive.len())?;
        }
        Ok(())
    }

    fn strike(&mut self, trouble: Trouble, victim: MemberId, alive: usize) -> Checked {
        match trouble {
            Trouble::Rebalance => {
                if alive < 4 && self.dice.percent(50) {
                    self.join();
                }
                self.at(5, Happening::Rebalance);
            }
            Trouble::Crash => self.crash(victim),
            Trouble::Loss => return self.take_away(victim),
            Trouble::Stop => return self.stop(victim),
            Trouble::Outage => {
                self.outage = !self.outage;
                self.seen.outages += u64::from(self.outage);
            }
            Trouble::Rewind => self.rewind(victim),
            Trouble::Seek => return self.seek(victim, false),
            Trouble::Skip => return self.seek(victim, true),
            Trouble::PausePartition => {
                let partition = self.dice.in_range(0, self.partitions.len() as u64 - 1);
                return self.pause_partition(victim, partition as u32);
            }
            Trouble::Damage => self.damage(),
            Trouble::Pause => return self.pause(victim, !self.members[victim].paused),
            _ => {}
        }
        Ok(())
    }

    /// The faults are over: from here on everything must come to its end by itself.
    fn calm_down(&mut self) -> Checked {
        self.outage = false;
        self.mend()?;
        for id in self.alive() {
            self.pause(id, false)?;
            for partition in self.members[id].paused_partitions.clone() {
                self.pause_partition(id, partition)?;
            }
        }
        self.join();
        self.at(10, Happening::Rebalance);
        Ok(())
    }

    /// Records are written; some of them will fail.
    pub(crate) fn produce(&mut self) {
        let gaps = self.weather.has(Trouble::Gaps);
        for id in 0..self.weather.partitions as usize {
            let count = self.dice.in_range(0, self.weather.produced);
            let added = self.partitions[id].append(&mut self.dice, id as u32, count, gaps);
            for record in added {
                let id = id as u32;
                self.checker.produced(id, record);
                let (plan, trouble) = match self.dice.in_range(0, 99) {
                    0..8 => {
                        let times = self.dice.in_range(1, 6) as u32;
                        (Plan::Transient(times), Trouble::Transient)
                    }
                    8..11 => (Plan::Always(Class::Permanent), Trouble::Permanent),
                    11..14 => (Plan::Always(Class::Skip), Trouble::Permanent),
                    14..15 if self.dice.percent(20) => {
                        (Plan::Always(Class::Stop), Trouble::StopClass)
                    }
                    _ => continue,
                };
                if self.weather.has(trouble) {
                    self.plans.insert((id, record.offset), plan);
                }
            }
        }
    }

    /// One of a member's partitions that it reads.
    fn a_partition_of(&mut self, id: MemberId) -> Option<u32> {
        let owned: Vec<_> = self.members[id].owned.keys().copied().collect();
        (!owned.is_empty()).then(|| self.dice.pick(&owned))
    }

    /// The log was cut: the client falls back without a word.
    fn rewind(&mut self, id: MemberId) {
        let back = self.dice.in_range(1, 30) as i64;
        let Some(partition) = self.a_partition_of(id) else {
            return;
        };
        if let Some(tenure) = self.members[id].owned.get_mut(&partition) {
            tenure.position = (tenure.position - back).max(0);
            self.seen.rewinds += 1;
        }
    }

    /// Somebody seeks: backwards, or forwards over what is then passed over on purpose.
    fn seek(&mut self, id: MemberId, on: bool) -> Checked {
        let way = self.dice.in_range(1, 30) as i64;
        let Some(partition) = self.a_partition_of(id) else {
            return Ok(());
        };
        let end = self.partitions[partition as usize].end;
        let earliest = self.checker.earliest(partition);
        let drain = self.weather.config.revoke_drain.as_millis();
        let by = self.now + u64::try_from(drain).unwrap_or(0);
        let owner = self.partitions[partition as usize].owner == Some(id);
        let Some(tenure) = self.members[id].owned.get_mut(&partition) else {
            return Ok(());
        };
        let reached = tenure.reached.max(tenure.next);
        let reached = reached.unwrap_or(tenure.position);
        let forwards = on && reached < end && owner;
        let to = if forwards {
            (reached + way).min(end)
        } else {
            // A seek is carried out to the letter; this one passes over nothing.
            let back = (reached - way).max(0);
            earliest.map_or(back, |earliest| back.min(earliest))
        };
        if tenure.drain.is_none() {
            tenure.seeks_on = forwards.then_some(to);
            tenure.seeks_by = Some(by);
            if forwards {
                self.seen.seeks_on += 1;
            } else {
                self.seen.seeks_back += 1;
            }
        }
        self.tell_seek(id, partition, to)
    }

    /// An operator has a partition read on from here; nothing is passed over.
    pub(crate) fn seek_to(&mut self, id: MemberId, partition: u32, to: i64) -> Checked {
        let by = self.now + self.weather.config.revoke_drain.as_millis() as u64;
        if let Some(tenure) = self.members[id].owned.get_mut(&partition) {
            (tenure.seeks_on, tenure.seeks_by) = (None, Some(by));
        }
        self.tell_seek(id, partition, to)
    }

    fn tell_seek(&mut self, id: MemberId, partition: u32, to: i64) -> Checked {
        let (partition, to) = (PartitionId(partition), CommitOffset(to));
        self.tell(id, Event::Seek { partition, to })
    }
}
