//! `GroupMetadataValue`: a generation of a group, with its members and their assignments.

use bytes::{Bytes, BytesMut};
use kafka_protocol::protocol::StrBytes;

use crate::coordinator::{Malformed, Reader, Writer};

/// A generation of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GroupMetadata {
    /// `consumer` for consumers; others have their own (`connect`).
    pub(crate) protocol_type: StrBytes,
    /// The generation's number.
    pub(crate) generation: i32,
    /// The assignor that was chosen; `None` when the group is empty.
    pub(crate) protocol: Option<StrBytes>,
    /// The member id of the leader; `None` when the group is empty.
    pub(crate) leader: Option<StrBytes>,
    /// When the group became empty or stable, in milliseconds since the Unix epoch; -1: not told.
    pub(crate) state_ms: i64,
    /// The members, in no particular order.
    pub(crate) members: Vec<MemberMetadata>,
}

/// A member of a generation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MemberMetadata {
    /// The id that the coordinator gave it.
    pub(crate) member_id: StrBytes,
    /// Its `group.instance.id`, for a static member.
    pub(crate) instance_id: Option<StrBytes>,
    /// Its `client.id`.
    pub(crate) client_id: StrBytes,
    /// Its address.
    pub(crate) client_host: StrBytes,
    /// How long it may take to rejoin.
    pub(crate) rebalance_timeout_ms: i32,
    /// How long it may be silent.
    pub(crate) session_timeout_ms: i32,
    /// Its metadata for the protocol that was chosen.
    pub(crate) subscription: Bytes,
    /// What the leader gave it.
    pub(crate) assignment: Bytes,
}

/// The version that Kafka writes: with instance ids.
const VERSION: i16 = 3;

impl GroupMetadata {
    pub(super) fn encode(&self) -> Bytes {
        let mut value = BytesMut::with_capacity(64 + self.members.len() * 256);
        value.int16(VERSION);
        value.string(&self.protocol_type);
        value.int32(self.generation);
        value.nullable_string(self.protocol.as_ref());
        value.nullable_string(self.leader.as_ref());
        value.int64(self.state_ms);
        value.int32(self.members.len() as i32);
        for member in &self.members {
            member.encode(&mut value);
        }
        value.freeze()
    }

    pub(super) fn decode(value: &Bytes) -> Result<Self, Malformed> {
        let mut value = Reader::new(value);
        let version = value.int16()?;
        if !(0..=VERSION).contains(&version) {
            return Err(Malformed("unknown version of GroupMetadataValue"));
        }
        Ok(Self {
            protocol_type: value.string()?,
            generation: value.int32()?,
            protocol: value.nullable_string()?,
            leader: value.nullable_string()?,
            state_ms: if version >= 2 { value.int64()? } else { -1 },
            members: {
                let count = value.count()?;
                (0..count)
                    .map(|_| MemberMetadata::decode(&mut value, version))
                    .collect::<Result<_, _>>()?
            },
        })
    }
}

impl MemberMetadata {
    fn encode(&self, value: &mut BytesMut) {
        value.string(&self.member_id);
        value.nullable_string(self.instance_id.as_ref());
        value.string(&self.client_id);
        value.string(&self.client_host);
        value.int32(self.rebalance_timeout_ms);
        value.int32(self.session_timeout_ms);
        value.bytes(&self.subscription);
        value.bytes(&self.assignment);
    }

    fn decode(value: &mut Reader<'_>, version: i16) -> Result<Self, Malformed> {
        let member_id = value.string()?;
        let instance_id = if version >= 3 {
            value.nullable_string()?
        } else {
            None
        };
        let client_id = value.string()?;
        let client_host = value.string()?;
        // Before version 1 a member had its session timeout to rejoin.
        let first = value.int32()?;
        let session_timeout_ms = if version >= 1 { value.int32()? } else { first };
        Ok(Self {
            member_id,
            instance_id,
            client_id,
            client_host,
            rebalance_timeout_ms: first,
            session_timeout_ms,
            subscription: value.bytes()?,
            assignment: value.bytes()?,
        })
    }
}
