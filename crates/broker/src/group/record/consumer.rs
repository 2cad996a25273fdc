//! The records of KIP-848 groups: `ConsumerGroup*Key`/`Value`, each about the group or a member.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{Bytes, BytesMut};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::flexible::{Fields, Message};
use super::{Malformed, Reader, Writer};

/// `CoordinatorRecordType` of each kind; they are the versions of the keys.
const EPOCH: i16 = 3;
const MEMBER: i16 = 5;
const TARGET_EPOCH: i16 = 6;
const TARGET: i16 = 7;
const CURRENT: i16 = 8;

/// The tag of the hash in `ConsumerGroupMetadataValue`.
const METADATA_HASH: u32 = 0;
/// The tag of what is told of a classic member in `ConsumerGroupMemberMetadataValue`.
const CLASSIC_MEMBER: u32 = 0;
/// Before a struct that may be null: it is not.
const PRESENT: i8 = 1;
const VERSION: i16 = 0;

/// What a record says about a KIP-848 group. A record without a value takes back what its key said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ConsumerChange {
    /// The group's epoch; `None`: the group was deleted.
    Epoch(Option<GroupEpoch>),
    /// A member and its subscription.
    Member(StrBytes, Option<ConsumerMember>),
    /// The group epoch that the target assignment was computed for.
    TargetEpoch(Option<i32>),
    /// What a member shall own.
    Target(StrBytes, Option<Partitions>),
    /// What a member owns, and where it stands on its way to the target.
    Current(StrBytes, Option<CurrentAssignment>),
}

/// `ConsumerGroupMetadataValue`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct GroupEpoch {
    /// It grows with every change of members, subscriptions or topics.
    pub(crate) epoch: i32,
    /// Of the topics that the group reads, as they were at that epoch; 0: none.
    pub(crate) metadata_hash: i64,
}

/// `ConsumerGroupMemberMetadataValue`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ConsumerMember {
    pub(crate) instance_id: Option<StrBytes>,
    pub(crate) rack_id: Option<StrBytes>,
    pub(crate) client_id: StrBytes,
    pub(crate) client_host: StrBytes,
    /// Subscribed by name, sorted.
    pub(crate) topics: Vec<StrBytes>,
    /// Subscribed by a regular expression.
    pub(crate) regex: Option<StrBytes>,
    pub(crate) rebalance_timeout_ms: i32,
    /// The assignor that it would like.
    pub(crate) assignor: Option<StrBytes>,
    /// What it said when it joined, if it speaks the classic protocol.
    pub(crate) classic: Option<ClassicMember>,
}

/// `ClassicMemberMetadata`: what a member said that speaks the classic protocol.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ClassicMember {
    pub(crate) session_timeout_ms: i32,
    /// In its order of preference.
    pub(crate) protocols: Vec<ClassicProtocol>,
}

/// An assignor of a classic member, with the member's metadata for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ClassicProtocol {
    pub(crate) name: StrBytes,
    pub(crate) metadata: Bytes,
}

/// `ConsumerGroupCurrentMemberAssignmentValue`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct CurrentAssignment {
    pub(crate) epoch: i32,
    /// A member whose last answer was lost still comes with this one.
    pub(crate) previous_epoch: i32,
    pub(crate) state: MemberState,
    pub(crate) assigned: Partitions,
    /// Not the member's any more, and not yet known to be given up.
    pub(crate) revoking: Partitions,
}

/// Where a member stands on its way to the target assignment. The numbers are Kafka's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum MemberState {
    /// It has what it shall have.
    #[default]
    Stable = 0,
    /// It must give up partitions first.
    Unrevoked = 1,
    /// It waits for partitions that others have not given up yet.
    Unreleased = 2,
}

/// Partitions by topic id. Topics without partitions are not in it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Partitions(BTreeMap<Uuid, BTreeSet<i32>>);

impl Partitions {
    pub(crate) fn insert(&mut self, topic: Uuid, partition: i32) {
        self.0.entry(topic).or_default().insert(partition);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.values().map(BTreeSet::len).sum()
    }

    pub(crate) fn contains(&self, topic: Uuid, partition: i32) -> bool {
        self.0
            .get(&topic)
            .is_some_and(|partitions| partitions.contains(&partition))
    }

    pub(crate) fn topics(&self) -> impl Iterator<Item = (Uuid, &BTreeSet<i32>)> {
        self.0
            .iter()
            .map(|(topic, partitions)| (*topic, partitions))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Uuid, i32)> {
        self.topics()
            .flat_map(|(topic, partitions)| partitions.iter().map(move |index| (topic, *index)))
    }

    /// Those of which `keep` says so.
    pub(crate) fn filter(&self, keep: impl Fn(Uuid, i32) -> bool) -> Self {
        self.iter()
            .filter(|(topic, partition)| keep(*topic, *partition))
            .collect()
    }

    pub(crate) fn intersection(&self, other: &Self) -> Self {
        self.filter(|topic, partition| other.contains(topic, partition))
    }

    pub(crate) fn difference(&self, other: &Self) -> Self {
        self.filter(|topic, partition| !other.contains(topic, partition))
    }

    pub(crate) fn intersects(&self, other: &Self) -> bool {
        self.iter()
            .any(|(topic, partition)| other.contains(topic, partition))
    }

    fn encode(&self, value: &mut Message) {
        value.length(self.0.len());
        for (topic, partitions) in &self.0 {
            value.uuid(*topic);
            value.length(partitions.len());
            partitions.iter().for_each(|index| value.int32(*index));
            value.no_tags();
        }
    }

    fn decode(value: &mut Fields<'_>) -> Result<Self, Malformed> {
        let topics = value.array(|value| {
            let topic = value.uuid()?;
            let partitions = value.array(Fields::int32)?;
            value.tags()?;
            Ok((topic, partitions.into_iter().collect::<BTreeSet<_>>()))
        })?;
        let named = topics.into_iter().filter(|(_, some)| !some.is_empty());
        Ok(Self(named.collect()))
    }
}

impl FromIterator<(Uuid, i32)> for Partitions {
    fn from_iter<I: IntoIterator<Item = (Uuid, i32)>>(partitions: I) -> Self {
        let mut all = Self::default();
        for (topic, partition) in partitions {
            all.insert(topic, partition);
        }
        all
    }
}

impl ConsumerChange {
    pub(super) fn encode(&self, group: &StrBytes) -> (Bytes, Option<Bytes>) {
        match self {
            Self::Epoch(value) => (key(EPOCH, group, None), value.map(GroupEpoch::encode)),
            Self::Member(member, value) => (
                key(MEMBER, group, Some(member)),
                value.as_ref().map(ConsumerMember::encode),
            ),
            Self::TargetEpoch(value) => {
                let encode = |epoch: i32| {
                    let mut message = Message::version(VERSION);
                    message.int32(epoch);
                    message.no_tags();
                    message.finish()
                };
                (key(TARGET_EPOCH, group, None), value.map(encode))
            }
            Self::Target(member, value) => {
                let encode = |partitions: &Partitions| {
                    let mut message = Message::version(VERSION);
                    partitions.encode(&mut message);
                    message.no_tags();
                    message.finish()
                };
                (key(TARGET, group, Some(member)), value.as_ref().map(encode))
            }
            Self::Current(member, value) => (
                key(CURRENT, group, Some(member)),
                value.as_ref().map(CurrentAssignment::encode),
            ),
        }
    }

    /// Reads what is behind a key's kind; `None` when the kind is not of a KIP-848 group.
    pub(super) fn decode(
        kind: i16,
        key: &mut Reader<'_>,
        value: Option<&Bytes>,
    ) -> Result<Option<(StrBytes, Self)>, Malformed> {
        if !matches!(kind, EPOCH | MEMBER | TARGET_EPOCH | TARGET | CURRENT) {
            return Ok(None);
        }
        let group = key.string()?;
        let mut value = value.map(Fields::of).transpose()?;
        let value = value.as_mut();
        let change = match kind {
            EPOCH => Self::Epoch(value.map(GroupEpoch::decode).transpose()?),
            MEMBER => Self::Member(
                key.string()?,
                value.map(ConsumerMember::decode).transpose()?,
            ),
            TARGET_EPOCH => Self::TargetEpoch(value.map(Fields::int32).transpose()?),
            TARGET => Self::Target(key.string()?, value.map(Partitions::decode).transpose()?),
            _ => Self::Current(
                key.string()?,
                value.map(CurrentAssignment::decode).transpose()?,
            ),
        };
        Ok(Some((group, change)))
    }
}

fn key(kind: i16, group: &StrBytes, member: Option<&StrBytes>) -> Bytes {
    let mut key = BytesMut::with_capacity(64);
    key.int16(kind);
    key.string(group);
    if let Some(member) = member {
        key.string(member);
    }
    key.freeze()
}

impl GroupEpoch {
    fn encode(self) -> Bytes {
        let mut value = Message::version(VERSION);
        value.int32(self.epoch);
        match self.metadata_hash {
            0 => value.no_tags(),
            hash => value.tagged_int64(METADATA_HASH, hash),
        }
        value.finish()
    }

    fn decode(value: &mut Fields<'_>) -> Result<Self, Malformed> {
        let epoch = value.int32()?;
        let hash = value
            .tags()?
            .into_iter()
            .find(|(tag, _)| *tag == METADATA_HASH);
        let metadata_hash = match hash {
            None => 0,
            Some((_, bytes)) => bytes
                .try_into()
                .map(i64::from_be_bytes)
                .map_err(|_| Malformed("a hash that is no int64"))?,
        };
        Ok(Self {
            epoch,
            metadata_hash,
        })
    }
}

impl ConsumerMember {
    fn encode(&self) -> Bytes {
        let mut value = Message::version(VERSION);
        value.nullable_string(self.instance_id.as_ref());
        value.nullable_string(self.rack_id.as_ref());
        value.string(&self.client_id);
        value.string(&self.client_host);
        value.length(self.topics.len());
        self.topics.iter().for_each(|topic| value.string(topic));
        value.nullable_string(self.regex.as_ref());
        value.int32(self.rebalance_timeout_ms);
        value.nullable_string(self.assignor.as_ref());
        match &self.classic {
            Some(classic) => value.tagged(CLASSIC_MEMBER, &classic.encode()),
            None => value.no_tags(),
        }
        value.finish()
    }

    fn decode(value: &mut Fields<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            instance_id: value.nullable_string()?,
            rack_id: value.nullable_string()?,
            client_id: value.string()?,
            client_host: value.string()?,
            topics: value.array(Fields::string)?,
            regex: value.nullable_string()?,
            rebalance_timeout_ms: value.int32()?,
            assignor: value.nullable_string()?,
            classic: {
                let tags = value.tags()?.into_iter();
                let mut classic = tags.filter(|(tag, _)| *tag == CLASSIC_MEMBER);
                let classic = classic
                    .next()
                    .map(|(_, bytes)| ClassicMember::decode(bytes));
                classic.transpose()?.flatten()
            },
        })
    }
}

impl ClassicMember {
    fn encode(&self) -> Bytes {
        let mut value = Message::default();
        value.int8(PRESENT);
        value.int32(self.session_timeout_ms);
        value.length(self.protocols.len());
        for protocol in &self.protocols {
            value.string(&protocol.name);
            value.bytes(&protocol.metadata);
            value.no_tags();
        }
        value.no_tags();
        value.finish()
    }

    fn decode(bytes: &[u8]) -> Result<Option<Self>, Malformed> {
        let mut value = Fields::within(bytes);
        if value.int8()? != PRESENT {
            return Ok(None);
        }
        let session_timeout_ms = value.int32()?;
        let protocols = value.array(|value| {
            let protocol = ClassicProtocol {
                name: value.string()?,
                metadata: value.bytes()?,
            };
            value.tags()?;
            Ok(protocol)
        })?;
        Ok(Some(Self {
            session_timeout_ms,
            protocols,
        }))
    }
}

impl CurrentAssignment {
    fn encode(&self) -> Bytes {
        let mut value = Message::version(VERSION);
        value.int32(self.epoch);
        value.int32(self.previous_epoch);
        value.int8(self.state as i8);
        self.assigned.encode(&mut value);
        self.revoking.encode(&mut value);
        value.no_tags();
        value.finish()
    }

    fn decode(value: &mut Fields<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            epoch: value.int32()?,
            previous_epoch: value.int32()?,
            state: match value.int8()? {
                0 => MemberState::Stable,
                1 => MemberState::Unrevoked,
                2 => MemberState::Unreleased,
                _ => return Err(Malformed("unknown state of a member")),
            },
            assigned: Partitions::decode(value)?,
            revoking: Partitions::decode(value)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::Change;
    use super::*;
    use crate::coordinator::Record as _;

    fn text(text: &'static str) -> StrBytes {
        StrBytes::from_static_str(text)
    }

    fn topic() -> Uuid {
        Uuid::from_u128(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10)
    }

    fn examples() -> Vec<ConsumerChange> {
        let member = ConsumerMember {
            instance_id: Some(text("i")),
            rack_id: None,
            client_id: text("rdkafka"),
            client_host: text("/127.0.0.1"),
            topics: vec![text("a"), text("b")],
            regex: Some(text("c.*")),
            rebalance_timeout_ms: 300_000,
            assignor: Some(text("uniform")),
            classic: None,
        };
        let classic = ConsumerMember {
            classic: Some(ClassicMember {
                session_timeout_ms: 45_000,
                protocols: vec![ClassicProtocol {
                    name: text("range"),
                    metadata: Bytes::from_static(b"metadata"),
                }],
            }),
            ..member.clone()
        };
        let current = CurrentAssignment {
            epoch: 3,
            previous_epoch: 2,
            state: MemberState::Unreleased,
            assigned: [(topic(), 0), (topic(), 2)].into_iter().collect(),
            revoking: Partitions::default(),
        };
        let epoch = GroupEpoch {
            epoch: 7,
            metadata_hash: -5,
        };
        vec![
            ConsumerChange::Epoch(Some(epoch)),
            ConsumerChange::Epoch(None),
            ConsumerChange::Member(text("m"), Some(member)),
            ConsumerChange::Member(text("m"), Some(classic)),
            ConsumerChange::Member(text("m"), None),
            ConsumerChange::TargetEpoch(Some(7)),
            ConsumerChange::Target(text("m"), Some(current.assigned.clone())),
            ConsumerChange::Target(text("m"), None),
            ConsumerChange::Current(text("m"), Some(current)),
            ConsumerChange::Current(text("m"), None),
        ]
    }

    fn change(change: ConsumerChange) -> Change {
        Change::Consumer {
            group: text("g"),
            change,
        }
    }

    #[test]
    fn every_record_of_a_consumer_group_comes_back_as_it_was() {
        for example in examples().into_iter().map(change) {
            let (key, value) = example.encode();
            assert_eq!(
                Change::decode(&key, value.as_ref(), None).unwrap().unwrap(),
                example
            );
        }
    }

    #[test]
    fn records_of_consumer_groups_that_are_cut_are_errors_at_every_length() {
        for example in examples().into_iter().map(change) {
            let (key, value) = example.encode();
            for end in 0..key.len() {
                assert!(Change::decode(&key.slice(..end), value.as_ref(), None).is_err());
            }
            let Some(value) = value else { continue };
            // The tags at the end are read where something is looked for in them.
            for end in 0..value.len() - 1 {
                assert!(Change::decode(&key, Some(&value.slice(..end)), None).is_err());
            }
        }
    }

    #[test]
    fn the_bytes_of_a_classic_member_are_those_that_kafka_writes() {
        let member = ConsumerMember {
            classic: Some(ClassicMember {
                session_timeout_ms: 5,
                protocols: vec![ClassicProtocol {
                    name: text("r"),
                    metadata: Bytes::from_static(b"m"),
                }],
            }),
            ..ConsumerMember::default()
        };
        assert_eq!(
            &member.encode()[..],
            b"\0\0\0\0\x01\x01\x01\0\0\0\0\0\0\x01\0\x0c\x01\0\0\0\x05\x02\x02r\x02m\0\0"
        );
    }

    #[test]
    fn the_bytes_of_an_assignment_are_those_that_kafka_writes() {
        let current = CurrentAssignment {
            epoch: 3,
            previous_epoch: 2,
            state: MemberState::Unrevoked,
            assigned: [(topic(), 1)].into_iter().collect(),
            revoking: Partitions::default(),
        };
        let (key, value) = change(ConsumerChange::Current(text("m"), Some(current))).encode();
        assert_eq!(&key[..], b"\x00\x08\x00\x01g\x00\x01m");
        assert_eq!(
            &value.unwrap()[..],
            b"\x00\x00\x00\x00\x00\x03\x00\x00\x00\x02\x01\
              \x02\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f\x10\x02\x00\x00\x00\x01\x00\
              \x01\x00"
        );
    }
}
