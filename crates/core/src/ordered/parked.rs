//! What the owner of a partition knows of its parked records.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::Hash;

use super::terms::{Limit, Limits};
use crate::Timestamp;

/// The parked keys of one partition. See the [module](super).
///
/// A key is compared by its bytes, never by a hash: two keys that share a lane do not share a
/// fate. A record without a key gets a `K` of its own, so nothing waits behind it.
#[derive(Debug, Clone)]
pub struct Parked<K> {
    limits: Limits,
    lines: BTreeMap<K, Line>,
    due: BTreeSet<(Timestamp, K)>,
    records: usize,
    changes: u64,
}

/// The records of one key.
#[derive(Debug, Clone)]
struct Line {
    records: usize,
    /// When its head is tried next.
    at: Timestamp,
    in_work: bool,
    /// Since when the key waits.
    since: Timestamp,
    /// How often putting its head away has failed, in a row.
    tries: u32,
    /// The last addition, see [`Seen`].
    changed: u64,
}

/// A key as it is found in the durable place by a new owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    /// Its records.
    pub records: usize,
    /// When the first of them is due.
    pub at: Timestamp,
    /// When the first of them was parked.
    pub since: Timestamp,
}

/// Where a polled record belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Its key is free: it is handled.
    Free,
    /// Its key waits: it is parked behind.
    Behind,
    /// It can't be taken now; it stays where it is until there is room.
    Full(Limit),
}

/// Where a record stands among those of its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rank {
    /// It is the one to be retried next.
    Head,
    /// It waits behind another one.
    Behind,
}

/// A key whose head is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due<K> {
    /// Which key.
    pub key: K,
    /// What was known of it, to tell whether something was added since.
    pub seen: Seen,
    /// How often putting its head away has failed, in a row.
    pub tries: u32,
}

/// The state of a key at some moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen(u64);

impl<K: Clone + Eq + Hash + Ord> Parked<K> {
    /// Nothing is parked.
    pub fn new(limits: Limits) -> Self {
        Parked {
            limits,
            lines: BTreeMap::new(),
            due: BTreeSet::new(),
            records: 0,
            changes: 0,
        }
    }

    /// A key was found in the durable place when the partition was taken over.
    pub fn restore(&mut self, key: K, stored: Stored) {
        let Stored { records, at, since } = stored;
        let line = self.line(key.clone(), at, since);
        line.records = records;
        line.at = at;
        self.records += records;
        self.due.insert((at, key));
    }

    /// Whether nothing is parked: then no record needs to ask for its [`place`](Parked::place).
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Where the next record belongs; `None` is a record without a key.
    pub fn place(&self, key: Option<&K>) -> Place {
        let line = key.and_then(|key| self.lines.get(key));
        if self.records >= self.limits.records_max {
            return Place::Full(Limit::Records);
        }
        match line {
            Some(line) if line.records >= self.limits.records_per_key_max => {
                Place::Full(Limit::RecordsPerKey)
            }
            Some(_) => Place::Behind,
            // It may fail, and would then have to be parked.
            None if self.lines.len() >= self.limits.keys_max => Place::Full(Limit::Keys),
            None => Place::Free,
        }
    }

    /// A record is being parked: at the end of its key, or as its head, due at `at`. To be called
    /// before the write can be seen by anybody, and not taken back if it fails: a key that is
    /// parked in vain is found out by [`vanished`](Parked::vanished).
    pub fn park(&mut self, now: Timestamp, key: K, at: Timestamp) -> Rank {
        let known = self.lines.contains_key(&key);
        let line = self.line(key.clone(), at, now);
        line.records += 1;
        self.records += 1;
        if known {
            return Rank::Behind;
        }
        self.due.insert((at, key));
        Rank::Head
    }

    fn line(&mut self, key: K, at: Timestamp, since: Timestamp) -> &mut Line {
        self.changes += 1;
        let changed = self.changes;
        let line = self.lines.entry(key).or_insert(Line {
            records: 0,
            at,
            in_work: false,
            since,
            tries: 0,
            changed,
        });
        line.changed = changed;
        line
    }

    /// When the next head is due.
    pub fn due_at(&self) -> Option<Timestamp> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Takes up to `keys_max` keys whose heads are due at `now` into work, the longest due first.
    /// Each is given back by [`settled`](Parked::settled), [`again`](Parked::again),
    /// [`untouched`](Parked::untouched) or [`vanished`](Parked::vanished).
    pub fn take_due(&mut self, now: Timestamp, keys_max: usize) -> Vec<Due<K>> {
        let mut taken = Vec::new();
        while taken.len() < keys_max {
            let Some((_, key)) = self.due.first().filter(|(at, _)| *at <= now).cloned() else {
                break;
            };
            self.due.pop_first();
            if let Some(line) = self.lines.get_mut(&key) {
                line.in_work = true;
                let (seen, tries) = (Seen(line.changed), line.tries);
                taken.push(Due { key, seen, tries });
            }
        }
        taken
    }

    /// The first `records` records of a key in work have left the durable place, durably: the
    /// next one is due at once, and without a next one the key is free.
    pub fn settled(&mut self, now: Timestamp, key: &K, records: usize) {
        let Some(line) = self.lines.get_mut(key) else {
            return;
        };
        let left = line.records.min(records);
        line.records -= left;
        line.tries = 0;
        self.records -= left;
        if line.records == 0 {
            self.lines.remove(key);
        } else {
            self.again(key, now);
        }
    }

    /// A key waits again, until `at`.
    pub fn again(&mut self, key: &K, at: Timestamp) {
        if let Some(line) = self.lines.get_mut(key) {
            if !line.in_work {
                self.due.remove(&(line.at, key.clone()));
            }
            line.at = at;
            line.in_work = false;
            self.due.insert((at, key.clone()));
        }
    }

    /// The state of a key, to be compared with a later one by [`vanished`](Parked::vanished).
    pub fn seen(&self, key: &K) -> Option<Seen> {
        self.lines.get(key).map(|line| Seen(line.changed))
    }

    /// Putting away the head of a key in work has failed; it is tried again at `at`.
    pub fn not_put_away(&mut self, key: &K, at: Timestamp) {
        if let Some(line) = self.lines.get_mut(key) {
            line.tries = line.tries.saturating_add(1);
        }
        self.again(key, at);
    }

    /// Nothing has happened to a key in work: it waits as before.
    pub fn untouched(&mut self, key: &K) {
        if let Some(line) = self.lines.get(key).filter(|line| line.in_work) {
            let at = line.at;
            self.again(key, at);
        }
    }

    /// The durable place held nothing of a key when it was `seen`, durably: its records have left,
    /// or what was parked was rolled back. Unless something was added since, the key is free.
    pub fn vanished(&mut self, now: Timestamp, key: &K, seen: Seen) {
        let Some(line) = self.lines.get(key) else {
            return;
        };
        if Seen(line.changed) != seen {
            return self.again(key, now);
        }
        self.due.remove(&(line.at, key.clone()));
        self.records -= line.records;
        self.lines.remove(key);
    }

    /// Parked keys.
    pub fn keys(&self) -> usize {
        self.lines.len()
    }

    /// Parked records.
    pub fn records(&self) -> usize {
        self.records
    }

    /// Since when the key waits that waits longest.
    pub fn oldest(&self) -> Option<Timestamp> {
        self.lines.values().map(|line| line.since).min()
    }
}
