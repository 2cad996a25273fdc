//! What consumers of classic groups send each other through the coordinator: subscriptions in their
//! joins, assignments in the leader's sync (Kafka's `ConsumerProtocolSubscription` and
//! `ConsumerProtocolAssignment`).
//!
//! The coordinator looks at them to know which offsets are still in use, and speaks them itself to
//! members that are in a group with members of the consumer protocol (KIP-848).

use bytes::{Bytes, BytesMut};
use kafka_protocol::protocol::StrBytes;

use crate::coordinator::{Malformed, Reader, Writer};

/// Partitions by topic name.
pub(crate) type Named = Vec<(StrBytes, Vec<i32>)>;

/// The newest version of an assignment.
const ASSIGNMENT_VERSION_MAX: i16 = 3;

/// A consumer's join metadata.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Subscription {
    /// The version that the consumer speaks; assignments for it are in the same.
    pub(crate) version: i16,
    pub(crate) topics: Vec<StrBytes>,
    /// What it reads until it is told otherwise; eager consumers have given up everything.
    pub(crate) owned: Named,
    pub(crate) rack_id: Option<StrBytes>,
}

impl Subscription {
    /// A newer version than is known begins as the newest that is.
    pub(crate) fn decode(metadata: &[u8]) -> Result<Self, Malformed> {
        let mut metadata = Reader::new(metadata);
        let (version, topics) = head(&mut metadata)?;
        let mut subscription = Self {
            version,
            topics,
            ..Self::default()
        };
        metadata.nullable_bytes()?;
        if version >= 1 {
            subscription.owned = named(&mut metadata)?;
        }
        if version >= 2 {
            metadata.int32()?;
        }
        if version >= 3 {
            subscription.rack_id = metadata.nullable_string()?;
        }
        Ok(subscription)
    }
}

impl Subscription {
    /// Whether the consumer has partitions that it has not given up.
    pub(crate) fn reads_something(&self) -> bool {
        self.owned.iter().any(|(_, owned)| !owned.is_empty())
    }
}

/// The topics that a consumer's join metadata names; they come first in every version.
pub(crate) fn subscribed_topics(metadata: &[u8]) -> Result<Vec<StrBytes>, Malformed> {
    head(&mut Reader::new(metadata)).map(|(_, topics)| topics)
}

fn head(metadata: &mut Reader<'_>) -> Result<(i16, Vec<StrBytes>), Malformed> {
    let version = metadata.int16()?;
    if version < 0 {
        return Err(Malformed(
            "negative version of ConsumerProtocolSubscription",
        ));
    }
    let count = metadata.count()?;
    let topics = (0..count).map(|_| metadata.string());
    Ok((version, topics.collect::<Result<_, _>>()?))
}

fn named(bytes: &mut Reader<'_>) -> Result<Named, Malformed> {
    let count = bytes.count()?;
    let topic = |_| {
        let topic = bytes.string()?;
        let count = bytes.count()?;
        let partitions = (0..count).map(|_| bytes.int32());
        Ok((topic, partitions.collect::<Result<_, _>>()?))
    };
    (0..count).map(topic).collect()
}

/// What a leader gave a member. With data that an assignor added for itself it is an error: who
/// takes the leader's place would not know it.
pub(crate) fn decode_assignment(assignment: &[u8]) -> Result<Named, Malformed> {
    // A leader that says nothing about a member gives it nothing.
    if assignment.is_empty() {
        return Ok(Vec::new());
    }
    let mut assignment = Reader::new(assignment);
    if assignment.int16()? < 0 {
        return Err(Malformed("negative version of ConsumerProtocolAssignment"));
    }
    let partitions = named(&mut assignment)?;
    match assignment.nullable_bytes()?.is_empty() {
        true => Ok(partitions),
        false => Err(Malformed("an assignment with data of its assignor")),
    }
}

/// An assignment for a consumer that speaks `version`.
pub(crate) fn encode_assignment(version: i16, partitions: &Named) -> Bytes {
    let mut assignment = BytesMut::with_capacity(64);
    assignment.int16(version.clamp(0, ASSIGNMENT_VERSION_MAX));
    assignment.int32(partitions.len() as i32);
    for (topic, partitions) in partitions {
        assignment.string(topic);
        assignment.int32(partitions.len() as i32);
        partitions.iter().for_each(|index| assignment.int32(*index));
    }
    assignment.int32(-1);
    assignment.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &'static str) -> StrBytes {
        StrBytes::from_static_str(text)
    }

    #[test]
    fn topics_are_read_whatever_follows() {
        let topics = subscribed_topics(b"\0\x01\0\0\0\x02\0\x01a\0\x02bc\xff\xff\xff\xff").unwrap();
        assert_eq!(topics, [text("a"), text("bc")]);
    }

    #[test]
    fn metadata_of_another_kind_is_an_error() {
        assert!(subscribed_topics(b"").is_err());
        assert!(subscribed_topics(b"\0\x01\x7f\xff\xff\xff").is_err());
    }

    #[test]
    fn a_subscription_is_read_in_each_of_its_versions() {
        let v0 = b"\0\0\0\0\0\x01\0\x01a\xff\xff\xff\xff";
        let read = Subscription::decode(v0).unwrap();
        assert_eq!((read.version, read.topics), (0, vec![text("a")]));
        let v3 = b"\0\x03\0\0\0\x01\0\x01a\0\0\0\x02xy\0\0\0\x01\0\x01a\0\0\0\x01\0\0\0\x07\0\0\0\x05\0\x01r";
        let read = Subscription::decode(v3).unwrap();
        assert_eq!(read.owned, [(text("a"), vec![7])]);
        assert_eq!(read.rack_id, Some(text("r")));
        for end in 0..v3.len() {
            assert!(Subscription::decode(&v3[..end]).is_err(), "cut at {end}");
        }
    }

    #[test]
    fn an_assignment_comes_back_as_it_was() {
        let given = vec![(text("a"), vec![0, 2]), (text("b"), vec![1])];
        let bytes = encode_assignment(1, &given);
        assert_eq!(decode_assignment(&bytes), Ok(given));
        for end in 1..bytes.len() {
            assert!(decode_assignment(&bytes[..end]).is_err(), "cut at {end}");
        }
        assert_eq!(decode_assignment(b""), Ok(Vec::new()));
        assert!(decode_assignment(b"\0\x01\0\0\0\0\0\0\0\x01x").is_err());
    }
}
