//! The log of a coordinator, damaged in ways that a checksum does not see: written by another version, or
//! by another program.

use std::fmt::Debug;

use std::fs;
use std::sync::Arc;

use bytes::Bytes;

use super::journal::Journal;
use super::{Framing, Machine, Malformed, Now, ProducerEpoch, Record, journal};
use crate::Flush;
use crate::fuzz::{Random, corpus, mutate};
use crate::log::{Flusher, Partition, each_record, memory_folder};

pub(crate) const NOW: Now = Now {
    tick_ms: 1_000,
    unix_ms: 1_700_000_000_000,
};

/// A record as it stands in a log: key and value.
type Raw = (Bytes, Option<Bytes>);

/// The records in the logs of a real Apache Kafka that are kept in the corpus; each must be understood.
fn of_apache_kafka<C: Record>(target: &str) -> Vec<Raw> {
    let mut all = Vec::new();
    for (name, log) in corpus(target) {
        let taken = each_record(&log, |record| {
            let read: Result<Option<C>, Malformed> = journal::read(&record);
            assert!(read.is_ok(), "{name} at {}", record.offset);
            if !record.is_control {
                all.push((record.key, record.value));
            }
        });
        assert_eq!(taken, Ok(()), "{name}");
    }
    assert!(!all.is_empty());
    all
}

/// What a machine's log is made of in these tests: `own` records and Apache Kafka's.
pub(crate) fn records<C: Record>(target: &str, own: &[C]) -> Vec<Raw> {
    let own = own.iter().map(Record::encode);
    own.chain(of_apache_kafka::<C>(target)).collect()
}

/// Feeds a machine with records that are nearly those of `whole`, and gives it back as it is after its
/// log: it must not panic, and what it would write anew must bring another one to the same state.
pub(crate) fn read_back<M>(random: &mut Random, whole: &[Raw], make: impl Fn() -> M) -> M
where
    M: Machine,
    M::Change: Debug + PartialEq,
{
    let mut machine = make();
    for _ in 0..random.below(30) {
        if let Some(change) = nearly(random, whole) {
            machine.replay(change);
        }
    }
    let live: Vec<_> = machine.live().collect();
    let mut again = make();
    for change in &live {
        let producer = match change.framing() {
            Framing::Transactional(producer) => Some(producer),
            Framing::Plain | Framing::Marker(..) => None,
        };
        let (key, value) = change.encode();
        let read = M::Change::decode(&key, value.as_ref(), producer);
        assert_eq!(
            read,
            Ok(Some(change.clone())),
            "what is written can be read"
        );
        again.replay(change.clone());
    }
    assert_eq!(again.live().collect::<Vec<_>>(), live);
    machine.replay_done(NOW);
    machine.take_output();
    machine
}

/// Feeds a machine with what is left of a log on a disk that was damaged, and gives it back if the log could be read; an
/// error names the log.
pub(crate) fn read_damaged<M>(
    random: &mut Random,
    changes: &[M::Change],
    make: impl Fn() -> M,
) -> Option<M>
where
    M: Machine,
    M::Change: Debug + PartialEq,
{
    let folder = memory_folder();
    let mut machine = make();
    let mut journal = Journal::replay(partition(folder.path()), &mut machine, NOW).unwrap();
    for _ in 0..random.below(20) {
        let some = random.below(changes.len());
        let written: Vec<_> = changes[some..]
            .iter()
            .take(random.below(5))
            .cloned()
            .collect();
        if !written.is_empty() {
            journal.append(&written, NOW.unix_ms).unwrap();
        }
    }
    journal.partition().abandon();
    drop(journal);
    for file in fs::read_dir(folder.path()).unwrap() {
        let path = file.unwrap().path();
        let mut bytes = fs::read(&path).unwrap();
        for _ in 0..random.below(3) {
            mutate(random, &mut bytes);
        }
        if random.one_in(2) {
            seal_first(&mut bytes);
        }
        fs::write(path, bytes).unwrap();
    }
    let mut machine = make();
    match Journal::replay(partition(folder.path()), &mut machine, NOW) {
        Ok(mut journal) => {
            let live: Vec<_> = machine.live().collect();
            journal.snapshot(&machine, NOW.unix_ms).unwrap();
            let mut again = make();
            live.iter().for_each(|change| again.replay(change.clone()));
            assert_eq!(again.live().collect::<Vec<_>>(), live);
            Some(machine)
        }
        Err(error) => {
            assert!(error.to_string().contains("__coordinator-0"), "{error}");
            None
        }
    }
}

/// Makes the checksum of the first batch right.
fn seal_first(batches: &mut [u8]) {
    const CRC_FROM: usize = 21;
    let length = batches.get(8..12).and_then(|length| length.try_into().ok());
    let end = length.map_or(0, |length| i32::from_be_bytes(length).max(0) as usize + 12);
    if let Some(batch) = batches
        .get_mut(..end)
        .filter(|batch| batch.len() > CRC_FROM)
    {
        let crc = crc32c::crc32c(&batch[CRC_FROM..]);
        batch[17..CRC_FROM].copy_from_slice(&crc.to_be_bytes());
    }
}

fn partition(folder: &std::path::Path) -> Arc<Partition> {
    super::world::disk::open(folder, Flusher::by_hand(Flush::Never), NOW)
}

/// One of the records, perhaps with another's value, perhaps changed; `None` if nothing can be read of it.
fn nearly<C: Record>(random: &mut Random, whole: &[Raw]) -> Option<C> {
    let (mut key, mut value) = random.pick(whole).clone();
    if random.one_in(10) {
        value = random.pick(whole).1.clone();
    }
    if random.one_in(5) {
        key = changed(random, &key);
    }
    if random.one_in(3) {
        value = value.map(|value| changed(random, &value));
    }
    let producer = ProducerEpoch {
        id: random.below(3) as i64,
        epoch: random.below(2) as i16,
    };
    if random.one_in(15) {
        let verdict = *random.pick(&[super::Verdict::Commit, super::Verdict::Abort]);
        return C::marker(producer, verdict);
    }
    let producer = random.one_in(4).then_some(producer);
    C::decode(&key, value.as_ref(), producer).ok().flatten()
}

fn changed(random: &mut Random, bytes: &Bytes) -> Bytes {
    let mut bytes = bytes.to_vec();
    mutate(random, &mut bytes);
    bytes.into()
}
