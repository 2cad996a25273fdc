//! The records of `__transaction_state`, in Kafka's own formats (`TransactionLogKey`, version 0, and
//! `TransactionLogValue`, versions 0 and 1), so that Kafka's tools can read them.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::protocol::StrBytes;

use crate::coordinator::{Malformed, ProducerEpoch, Reader, Record, Verdict, Writer};

const KEY: i16 = 0;
/// Without tagged fields: read, and no longer written.
const PLAIN: i16 = 0;
/// With tagged fields.
const FLEXIBLE: i16 = 1;

const PREVIOUS_ID: u32 = 0;
const NEXT_ID: u32 = 1;
/// Not in Kafka's definition, whose readers pass it over: what tells a repeated request from a
/// fenced one after a restart, too.
const LAST_EPOCH: u32 = 10_000;

/// The partitions of a transaction, by topic.
pub(crate) type Partitions = BTreeMap<StrBytes, BTreeSet<i32>>;

/// Where a transactional id stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// No transaction was begun with this epoch.
    Empty,
    /// A transaction is open.
    Ongoing,
    /// How it ends is decided; not all partitions know yet.
    Preparing(Verdict),
    /// All partitions know.
    Complete(Verdict),
}

impl State {
    /// Kafka's name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::Ongoing => "Ongoing",
            Self::Preparing(Verdict::Commit) => "PrepareCommit",
            Self::Preparing(Verdict::Abort) => "PrepareAbort",
            Self::Complete(Verdict::Commit) => "CompleteCommit",
            Self::Complete(Verdict::Abort) => "CompleteAbort",
        }
    }

    fn number(self) -> i8 {
        match self {
            Self::Empty => 0,
            Self::Ongoing => 1,
            Self::Preparing(Verdict::Commit) => 2,
            Self::Preparing(Verdict::Abort) => 3,
            Self::Complete(Verdict::Commit) => 4,
            Self::Complete(Verdict::Abort) => 5,
        }
    }

    fn from_number(number: i8) -> Option<Self> {
        Some(match number {
            0 => Self::Empty,
            1 => Self::Ongoing,
            2 => Self::Preparing(Verdict::Commit),
            3 => Self::Preparing(Verdict::Abort),
            4 => Self::Complete(Verdict::Commit),
            5 => Self::Complete(Verdict::Abort),
            _ => return None,
        })
    }
}

/// All that is known of a transactional id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Transaction {
    pub(crate) producer: ProducerEpoch,
    /// The producer id before this one, whose epochs were used up; -1: none.
    pub(crate) previous_id: i64,
    /// While its end is being told: the producer id from then on, because the epochs of this one are
    /// used up; -1: it stays.
    pub(crate) next_id: i64,
    /// The epoch before this one, if the same producer has had it; -1: none.
    pub(crate) last_epoch: i16,
    pub(crate) timeout_ms: i32,
    pub(crate) state: State,
    pub(crate) partitions: Partitions,
    /// When it changed last, in milliseconds since the Unix epoch.
    pub(crate) update_ms: i64,
    /// When the transaction began, in milliseconds since the Unix epoch; -1: there is none.
    pub(crate) start_ms: i64,
}

/// One record: how a transactional id stands; `None`: it is forgotten.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) transactional_id: StrBytes,
    pub(crate) value: Option<Transaction>,
}

impl Record for Change {
    fn encode(&self) -> (Bytes, Option<Bytes>) {
        let mut key = BytesMut::with_capacity(4 + self.transactional_id.len());
        key.int16(KEY);
        key.string(&self.transactional_id);
        (key.freeze(), self.value.as_ref().map(Transaction::encode))
    }

    fn decode(
        key: &Bytes,
        value: Option<&Bytes>,
        _producer: Option<ProducerEpoch>,
    ) -> Result<Option<Self>, Malformed> {
        let mut key = Reader::new(key);
        if key.int16()? != KEY {
            return Ok(None);
        }
        Ok(Some(Self {
            transactional_id: key.string()?,
            value: value.map(Transaction::decode).transpose()?,
        }))
    }
}

impl Transaction {
    fn encode(&self) -> Bytes {
        let mut value = BytesMut::with_capacity(64 + 32 * self.partitions.len());
        value.int16(FLEXIBLE);
        value.int64(self.producer.id);
        value.int16(self.producer.epoch);
        value.int32(self.timeout_ms);
        value.put_i8(self.state.number());
        match self.state {
            State::Empty => value.unsigned_varint(0),
            _ => encode_partitions(&self.partitions, &mut value),
        }
        value.int64(self.update_ms);
        value.int64(self.start_ms);
        let previous = self.previous_id >= 0;
        let next = self.next_id >= 0;
        let last = self.last_epoch >= 0;
        value.unsigned_varint(u32::from(previous) + u32::from(next) + u32::from(last));
        if previous {
            value.unsigned_varint(PREVIOUS_ID);
            value.unsigned_varint(8);
            value.int64(self.previous_id);
        }
        if next {
            value.unsigned_varint(NEXT_ID);
            value.unsigned_varint(8);
            value.int64(self.next_id);
        }
        if last {
            value.unsigned_varint(LAST_EPOCH);
            value.unsigned_varint(2);
            value.int16(self.last_epoch);
        }
        value.freeze()
    }

    fn decode(value: &Bytes) -> Result<Self, Malformed> {
        let mut value = Reader::new(value);
        let version = value.int16()?;
        let producer = ProducerEpoch {
            id: value.int64()?,
            epoch: value.int16()?,
        };
        let timeout_ms = value.int32()?;
        let state =
            State::from_number(value.int8()?).ok_or(Malformed("unknown state of a transaction"))?;
        let partitions = match version {
            PLAIN => plain_partitions(&mut value)?,
            FLEXIBLE => flexible_partitions(&mut value)?,
            _ => return Err(Malformed("unknown version of TransactionLogValue")),
        };
        // Kafka's reader, too, takes no partitions of a transaction that never began.
        let partitions = match state {
            State::Empty => Partitions::new(),
            _ => partitions,
        };
        let mut transaction = Self {
            producer,
            previous_id: -1,
            next_id: -1,
            last_epoch: -1,
            timeout_ms,
            state,
            partitions,
            update_ms: value.int64()?,
            start_ms: value.int64()?,
        };
        if version == FLEXIBLE {
            value.tagged(|tag, field| {
                match tag {
                    PREVIOUS_ID => transaction.previous_id = field.int64()?.max(-1),
                    NEXT_ID if matches!(state, State::Preparing(_)) => {
                        transaction.next_id = field.int64()?.max(-1);
                    }
                    LAST_EPOCH => transaction.last_epoch = field.int16()?.max(-1),
                    _ => {}
                }
                Ok(())
            })?;
        }
        Ok(transaction)
    }
}

fn encode_partitions(partitions: &Partitions, value: &mut BytesMut) {
    value.unsigned_varint(partitions.len() as u32 + 1);
    for (topic, indexes) in partitions {
        value.compact_string(topic);
        value.unsigned_varint(indexes.len() as u32 + 1);
        indexes.iter().for_each(|index| value.int32(*index));
        // No tagged fields.
        value.unsigned_varint(0);
    }
}

fn flexible_partitions(value: &mut Reader<'_>) -> Result<Partitions, Malformed> {
    let mut partitions = Partitions::new();
    for _ in 0..value.compact_count()?.unwrap_or(0) {
        let topic = value.compact_string()?;
        let indexes = partitions.entry(topic).or_default();
        for _ in 0..value.compact_count()?.unwrap_or(0) {
            indexes.insert(value.int32()?);
        }
        value.tagged(|_, _| Ok(()))?;
    }
    Ok(partitions)
}

fn plain_partitions(value: &mut Reader<'_>) -> Result<Partitions, Malformed> {
    let mut partitions = Partitions::new();
    let Some(topics) = value.nullable_count()? else {
        return Ok(partitions);
    };
    for _ in 0..topics {
        let topic = value.string()?;
        let indexes = partitions.entry(topic).or_default();
        for _ in 0..value.count()? {
            indexes.insert(value.int32()?);
        }
    }
    Ok(partitions)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &'static str) -> StrBytes {
        StrBytes::from_static_str(text)
    }

    fn ongoing() -> Change {
        Change {
            transactional_id: text("t"),
            value: Some(Transaction {
                producer: ProducerEpoch { id: 7, epoch: 3 },
                previous_id: -1,
                next_id: -1,
                last_epoch: -1,
                timeout_ms: 60_000,
                state: State::Ongoing,
                partitions: Partitions::from([(text("a"), BTreeSet::from([0, 2]))]),
                update_ms: 5,
                start_ms: 4,
            }),
        }
    }

    fn round_trip(change: &Change) -> Change {
        let (key, value) = change.encode();
        Change::decode(&key, value.as_ref(), None).unwrap().unwrap()
    }

    #[test]
    fn a_transaction_comes_back_as_it_was() {
        let mut change = ongoing();
        assert_eq!(round_trip(&change), change);
        if let Some(value) = &mut change.value {
            value.next_id = 8;
            value.last_epoch = 2;
            value.state = State::Preparing(Verdict::Abort);
        }
        assert_eq!(round_trip(&change), change);
        if let Some(value) = &mut change.value {
            value.previous_id = 7;
            value.next_id = -1;
            value.state = State::Complete(Verdict::Abort);
            value.partitions.clear();
        }
        assert_eq!(round_trip(&change), change);
        change.value = None;
        assert_eq!(round_trip(&change), change);
    }

    #[test]
    fn the_bytes_are_those_that_kafka_writes() {
        let (key, value) = ongoing().encode();
        assert_eq!(&key[..], b"\x00\x00\x00\x01t");
        let expected: &[u8] = b"\x00\x01\0\0\0\0\0\0\0\x07\x00\x03\x00\x00\xea\x60\x01\
            \x02\x02a\x03\0\0\0\x00\0\0\0\x02\x00\
            \0\0\0\0\0\0\0\x05\0\0\0\0\0\0\0\x04\x00";
        assert_eq!(&value.unwrap()[..], expected);
    }

    #[test]
    fn the_version_before_tagged_fields_is_read() {
        let value: &[u8] = b"\x00\x00\0\0\0\0\0\0\0\x07\x00\x03\x00\x00\xea\x60\x01\
            \0\0\0\x01\x00\x01a\0\0\0\x02\0\0\0\x00\0\0\0\x02\
            \0\0\0\0\0\0\0\x05\0\0\0\0\0\0\0\x04";
        let (key, _) = ongoing().encode();
        let read = Change::decode(&key, Some(&Bytes::from_static(value)), None);
        assert_eq!(read.unwrap().unwrap(), ongoing());
        let empty: &[u8] = b"\x00\x00\0\0\0\0\0\0\0\x07\x00\x03\x00\x00\xea\x60\x00\
            \xff\xff\xff\xff\0\0\0\0\0\0\0\x05\xff\xff\xff\xff\xff\xff\xff\xff";
        let read = Change::decode(&key, Some(&Bytes::from_static(empty)), None);
        assert!(read.unwrap().unwrap().value.unwrap().partitions.is_empty());
    }

    #[test]
    fn cut_records_are_errors_at_every_length() {
        let (key, value) = ongoing().encode();
        let value = value.unwrap();
        for end in 0..key.len() {
            assert!(Change::decode(&key.slice(..end), Some(&value), None).is_err());
        }
        for end in 0..value.len() {
            assert!(Change::decode(&key, Some(&value.slice(..end)), None).is_err());
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(
            version in 0_u8..3,
            value in proptest::collection::vec(proptest::num::u8::ANY, 0..256),
        ) {
            let (key, _) = ongoing().encode();
            let value = Bytes::from([&[0, version], &value[..]].concat());
            let _ = Change::decode(&key, Some(&value), None);
        }
    }
}
