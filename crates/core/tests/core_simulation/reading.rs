//! Partitions that are held until their assignment has been announced, and those that can't be
//! read for a while.

use ackwell_core::engine::PartitionId;
use ackwell_core::offset::CommitOffset;

use crate::checker::{Checked, MemberId};
use crate::weather::Trouble;
use crate::world::{Event, Happening, World};

/// A partition whose next record can't be read, as its container knows it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Unreadable {
    /// Where reading goes on.
    from: Option<i64>,
    not_before: u64,
    tries: u32,
    again: bool,
}

impl World {
    /// An assignment is announced, if somebody wants to hear of it; until then nothing is handled.
    pub(crate) fn announce(&mut self, id: MemberId, partition: u32, assignment: u64) -> Checked {
        if !self.weather.has(Trouble::Announce) || self.dice.percent(30) {
            return Ok(());
        }
        if let Some(tenure) = self.members[id].owned.get_mut(&partition) {
            tenure.withheld = true;
        }
        let wait = self.dice.in_range(0, 80);
        self.at(wait, Happening::Announced(id, partition, assignment));
        self.tell(id, Event::Hold(vec![PartitionId(partition)]))
    }

    pub(crate) fn announced(&mut self, id: MemberId, partition: u32, assignment: u64) -> Checked {
        let tenure = self.members[id].owned.get_mut(&partition);
        let Some(tenure) = tenure.filter(|tenure| tenure.assignment == assignment) else {
            return Ok(());
        };
        tenure.withheld = false;
        self.seen.announced += 1;
        self.tell(id, Event::Release(vec![PartitionId(partition)]))
    }

    /// A record can't be read for a while.
    pub(crate) fn damage(&mut self) {
        let id = self.dice.in_range(0, self.partitions.len() as u64 - 1) as usize;
        let mended = self.now + self.dice.in_range(50, 1_500);
        let log = &self.partitions[id].log;
        if log.is_empty() {
            return;
        }
        // Mostly one that was not read yet.
        let from = if self.dice.percent(80) {
            log.len() * 3 / 4
        } else {
            0
        };
        let place = self.dice.in_range(from as u64, log.len() as u64 - 1) as usize;
        let offset = log[place].offset;
        self.partitions[id].damaged.insert(offset, mended);
    }

    /// Everything can be read again; an operator has those read on that do not try by themselves.
    pub(crate) fn mend(&mut self) -> Checked {
        for partition in &mut self.partitions {
            partition.damaged.clear();
        }
        for id in self.alive() {
            let stuck = self.members[id].owned.iter().filter(|(_, tenure)| {
                let waits = |found: &Unreadable| !found.again || found.from.is_none();
                tenure.drain.is_none() && tenure.unreadable.as_ref().is_some_and(waits)
            });
            let stuck: Vec<_> = stuck.map(|(id, _)| *id).collect();
            for partition in stuck {
                let end = self.partitions[partition as usize].end;
                let to = self.checker.earliest(partition).unwrap_or(end);
                self.seek_to(id, partition, to)?;
            }
        }
        Ok(())
    }

    /// The client meets a record that it can't read; left to itself, it goes on behind it.
    pub(crate) fn unreadable(&mut self, id: MemberId, partition: u32, offset: i64) -> Checked {
        let (again, tells) = (self.dice.percent(80), self.dice.percent(80));
        let (now, recovery) = (self.now, &self.weather.config.recovery);
        let member = &mut self.members[id];
        let Some(tenure) = member.owned.get_mut(&partition) else {
            return Ok(());
        };
        tenure.position = offset + 1;
        if tenure.drain.is_some() || member.stopping {
            return Ok(());
        }
        let tries = tenure.unreadable.map_or(0, |found| found.tries) + 1;
        let at = tells.then_some(offset);
        tenure.unreadable = Some(Unreadable {
            from: tenure.next.or(at),
            not_before: now + recovery.wait(tries, 0.0).as_millis() as u64,
            tries,
            again,
        });
        self.seen.unreadable += 1;
        let event = Event::Unreadable {
            partition: PartitionId(partition),
            at: at.map(CommitOffset),
            reason: "a bad checksum".into(),
            again,
        };
        self.tell(id, event)?;
        let member = &self.members[id];
        let waits = member.owned.get(&partition).and_then(|t| t.unreadable);
        if waits.is_some() && member.alive && member.problem.is_none() {
            return Err(format!(
                "member {id} can't read {partition} and does not say so"
            ));
        }
        Ok(())
    }

    /// Whether a seek only has the client read once more what it could not read.
    pub(crate) fn reads_again(
        &mut self,
        id: MemberId,
        partition: u32,
        to: i64,
    ) -> Result<bool, String> {
        let now = self.now;
        let member = &mut self.members[id];
        let seeking = member.engine.is_seeking(PartitionId(partition));
        let Some(tenure) = member.owned.get_mut(&partition) else {
            return Ok(false);
        };
        let Some(found) = tenure.unreadable else {
            return Ok(false);
        };
        if !seeking && (tenure.seeks_by.is_some() || found.from != Some(to)) {
            return Ok(false);
        }
        if now < found.not_before || !found.again {
            return Err(format!(
                "member {id} reads {partition} again at {now}, known is {found:?}"
            ));
        }
        tenure.position = to;
        self.seen.read_again += 1;
        Ok(true)
    }
}
