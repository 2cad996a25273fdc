//! The log of a coordinator, damaged in ways that a checksum does not see: written by another version, or
//! by another program.

use std::fmt::Debug;

use bytes::Bytes;
use kafka_protocol::records::RecordBatchDecoder;

use super::{Framing, Machine, Malformed, Now, ProducerEpoch, Record, journal};
use crate::fuzz::{Random, corpus, mutate};

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
        let mut log = Bytes::from(log);
        while !log.is_empty() {
            for record in RecordBatchDecoder::decode(&mut log).unwrap().records {
                let read: Result<Option<C>, Malformed> = journal::read(&record);
                assert!(read.is_ok(), "{name} at {}", record.offset);
                if !record.control {
                    all.push((record.key.unwrap_or_default(), record.value));
                }
            }
        }
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
