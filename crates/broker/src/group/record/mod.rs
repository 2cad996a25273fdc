//! The records of `__consumer_offsets`, in Kafka's own formats.
//!
//! A group's truth is what these records say when they are read from the first to the last: a
//! commit that is not here never happened. They are Kafka's `OffsetCommitKey`/`Value`,
//! `GroupMetadataKey`/`Value` and `ConsumerGroup*Key`/`Value`, so that Kafka's tools (`kafka-dump-log`, a consumer on the topic)
//! can read them. A record without a value (tombstone) takes back what its key said.

mod consumer;
mod flexible;
mod group;
mod offset;
mod subscription;

use bytes::{Bytes, BytesMut};
use kafka_protocol::protocol::StrBytes;

pub(crate) use consumer::{
    ClassicMember, ClassicProtocol, ConsumerChange, ConsumerMember, CurrentAssignment, GroupEpoch,
    MemberState, Partitions,
};
pub(crate) use group::{GroupMetadata, MemberMetadata};
pub(crate) use offset::CommittedOffset;
pub(crate) use subscription::{
    Named, Subscription, decode_assignment, encode_assignment, subscribed_topics,
};

use crate::coordinator::{Framing, Malformed, ProducerEpoch, Reader, Record, Verdict, Writer};

/// Key versions 0 and 1 are offset commits (0 is the older name for the same layout), 2 is a group.
const OFFSET_KEYS: std::ops::RangeInclusive<i16> = 0..=1;
const OFFSET_KEY: i16 = 1;
const GROUP_KEY: i16 = 2;

/// One record: what a group's log says about an offset or about the group itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    /// A group committed, or gave up, its position in a partition.
    Offset {
        /// The group.
        group: StrBytes,
        /// The topic's name.
        topic: StrBytes,
        /// The partition's number.
        partition: i32,
        /// The position; `None`: forgotten.
        value: Option<CommittedOffset>,
    },
    /// As an offset, in a transaction: it counts when that commits.
    Pending {
        /// Whose transaction.
        producer: ProducerEpoch,
        /// The group.
        group: StrBytes,
        /// The topic's name.
        topic: StrBytes,
        /// The partition's number.
        partition: i32,
        /// The position.
        value: CommittedOffset,
    },
    /// The end of a transaction.
    TransactionEnd {
        /// Whose transaction.
        producer: ProducerEpoch,
        /// How it ended.
        verdict: Verdict,
    },
    /// A group's generation with its members and their assignments.
    Group {
        /// The group.
        group: StrBytes,
        /// The generation; `None`: the group was deleted.
        value: Option<GroupMetadata>,
    },
    /// Something about a KIP-848 group.
    Consumer {
        /// The group.
        group: StrBytes,
        /// What.
        change: ConsumerChange,
    },
}

impl Record for Change {
    fn framing(&self) -> Framing {
        match self {
            Self::Offset { .. } | Self::Group { .. } | Self::Consumer { .. } => Framing::Plain,
            Self::Pending { producer, .. } => Framing::Transactional(*producer),
            Self::TransactionEnd { producer, verdict } => Framing::Marker(*producer, *verdict),
        }
    }

    fn marker(producer: ProducerEpoch, verdict: Verdict) -> Option<Self> {
        Some(Self::TransactionEnd { producer, verdict })
    }

    fn encode(&self) -> (Bytes, Option<Bytes>) {
        match self {
            Self::Consumer { group, change } => change.encode(group),
            Self::Offset {
                group,
                topic,
                partition,
                value,
            } => (
                offset_key(group, topic, *partition),
                value.as_ref().map(CommittedOffset::encode),
            ),
            Self::Pending {
                group,
                topic,
                partition,
                value,
                ..
            } => (offset_key(group, topic, *partition), Some(value.encode())),
            // A marker's key and value are the log's.
            Self::TransactionEnd { .. } => (Bytes::new(), None),
            Self::Group { group, value } => {
                let mut key = BytesMut::with_capacity(64);
                key.int16(GROUP_KEY);
                key.string(group);
                (key.freeze(), value.as_ref().map(GroupMetadata::encode))
            }
        }
    }

    /// `None` when its key is of a kind that this version does not know (Kafka has many more for its
    /// newer kinds of groups).
    fn decode(
        key: &Bytes,
        value: Option<&Bytes>,
        producer: Option<ProducerEpoch>,
    ) -> Result<Option<Self>, Malformed> {
        let mut key = Reader::new(key);
        let kind = key.int16()?;
        if OFFSET_KEYS.contains(&kind) {
            let (group, topic, partition) = (key.string()?, key.string()?, key.int32()?);
            let value = value.map(CommittedOffset::decode).transpose()?;
            return Ok(Some(match (producer, value) {
                (Some(producer), Some(value)) => Self::Pending {
                    producer,
                    group,
                    topic,
                    partition,
                    value,
                },
                (_, value) => Self::Offset {
                    group,
                    topic,
                    partition,
                    value,
                },
            }));
        }
        if kind == GROUP_KEY {
            return Ok(Some(Self::Group {
                group: key.string()?,
                value: value.map(GroupMetadata::decode).transpose()?,
            }));
        }
        Ok(ConsumerChange::decode(kind, &mut key, value)?
            .map(|(group, change)| Self::Consumer { group, change }))
    }
}

fn offset_key(group: &str, topic: &str, partition: i32) -> Bytes {
    let mut key = BytesMut::with_capacity(64);
    key.int16(OFFSET_KEY);
    key.string(group);
    key.string(topic);
    key.int32(partition);
    key.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &'static str) -> StrBytes {
        StrBytes::from_static_str(text)
    }

    fn round_trip(change: &Change) -> Change {
        let (key, value) = change.encode();
        Change::decode(&key, value.as_ref(), None).unwrap().unwrap()
    }

    fn commit(value: Option<CommittedOffset>) -> Change {
        Change::Offset {
            group: text("g"),
            topic: text("orders"),
            partition: 3,
            value,
        }
    }

    fn position() -> CommittedOffset {
        CommittedOffset {
            offset: 42,
            leader_epoch: 7,
            metadata: text("m\u{0}ü"),
            commit_ms: 5,
            expire_ms: None,
        }
    }

    #[test]
    fn an_offset_comes_back_byte_for_byte() {
        let change = commit(Some(position()));
        assert_eq!(round_trip(&change), change);
    }

    #[test]
    fn an_offset_with_its_own_retention_is_written_as_version_1() {
        let change = commit(Some(CommittedOffset {
            expire_ms: Some(9),
            leader_epoch: -1,
            ..position()
        }));
        assert_eq!(change.encode().1.unwrap()[..2], [0, 1]);
        assert_eq!(round_trip(&change), change);
    }

    #[test]
    fn the_bytes_are_those_that_kafka_writes() {
        let (key, value) = commit(Some(CommittedOffset {
            metadata: text("x"),
            ..position()
        }))
        .encode();
        assert_eq!(&key[..], b"\x00\x01\x00\x01g\x00\x06orders\x00\x00\x00\x03");
        assert_eq!(
            &value.unwrap()[..],
            b"\x00\x03\x00\x00\x00\x00\x00\x00\x00\x2a\x00\x00\x00\x07\x00\x01x\x00\x00\x00\x00\x00\x00\x00\x05"
        );
    }

    #[test]
    fn a_group_comes_back_as_it_was() {
        let member = MemberMetadata {
            member_id: text("a-1"),
            instance_id: Some(text("a")),
            client_id: text("rdkafka"),
            client_host: text("/127.0.0.1"),
            rebalance_timeout_ms: 300_000,
            session_timeout_ms: 45_000,
            subscription: Bytes::from_static(b"sub"),
            assignment: Bytes::from_static(b"assigned"),
        };
        let change = Change::Group {
            group: text("g"),
            value: Some(GroupMetadata {
                protocol_type: text("consumer"),
                generation: 4,
                protocol: Some(text("range")),
                leader: Some(text("a-1")),
                state_ms: 77,
                members: vec![member],
            }),
        };
        assert_eq!(round_trip(&change), change);
    }

    #[test]
    fn a_tombstone_comes_back_without_a_value() {
        assert_eq!(round_trip(&commit(None)), commit(None));
        let gone = Change::Group {
            group: text("g"),
            value: None,
        };
        assert_eq!(round_trip(&gone), gone);
    }

    #[test]
    fn an_unknown_kind_of_record_is_passed_over() {
        assert_eq!(
            Change::decode(&Bytes::from_static(&[0, 99, 1]), None, None).unwrap(),
            None
        );
    }

    #[test]
    fn cut_records_are_errors_at_every_length() {
        let (key, value) = commit(Some(position())).encode();
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
            key in proptest::collection::vec(proptest::num::u8::ANY, 0..64),
            kind in 0_u8..10,
            value in proptest::collection::vec(proptest::num::u8::ANY, 0..256),
            version in 0_u8..5,
        ) {
            let key = Bytes::from([&[0, kind], &key[..]].concat());
            let value = Bytes::from([&[0, version], &value[..]].concat());
            let _ = Change::decode(&key, Some(&value), None);
            let _ = subscribed_topics(&value);
            let _ = Subscription::decode(&value);
            let _ = decode_assignment(&value);
        }

        #[test]
        fn any_offset_comes_back(
            group in ".{0,40}", topic in ".{0,40}", metadata in ".{0,200}",
            partition in proptest::num::i32::ANY, offset in proptest::num::i64::ANY, epoch in proptest::num::i32::ANY,
        ) {
            let owned = StrBytes::from_string;
            let value = CommittedOffset {
                offset, leader_epoch: epoch, metadata: owned(metadata), commit_ms: offset, expire_ms: None,
            };
            let change = Change::Offset { group: owned(group), topic: owned(topic), partition, value: Some(value) };
            proptest::prop_assert_eq!(round_trip(&change), change);
        }
    }
}
