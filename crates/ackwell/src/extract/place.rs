use std::sync::Arc;

use super::FromRecord;
use crate::context::Context;
use crate::failure::Failure;

/// The topic that the record was read from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TopicName(
    /// Its name, shared by all of its records.
    pub Arc<str>,
);

/// The partition that the record was read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Partition(
    /// Its number, from 0.
    pub i32,
);

/// The record's offset within its partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Offset(
    /// The offset, from 0.
    pub i64,
);

/// When the record was created or appended (by the topic's `message.timestamp.type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(
    /// Milliseconds since the Unix epoch; `None` if the record has no timestamp.
    pub Option<i64>,
);

/// Which attempt at the record this is, those before it came by a retry topic included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Attempt(
    /// From 1.
    pub u32,
);

impl FromRecord for TopicName {
    const LOOKS_AT_HEADERS: bool = false;

    fn from_record(cx: &mut Context) -> Result<Self, Failure> {
        Ok(Self(cx.record().shared_topic()))
    }
}

impl FromRecord for Partition {
    const LOOKS_AT_HEADERS: bool = false;

    fn from_record(cx: &mut Context) -> Result<Self, Failure> {
        Ok(Self(cx.record().partition()))
    }
}

impl FromRecord for Offset {
    const LOOKS_AT_HEADERS: bool = false;

    fn from_record(cx: &mut Context) -> Result<Self, Failure> {
        Ok(Self(cx.record().offset()))
    }
}

impl FromRecord for Timestamp {
    const LOOKS_AT_HEADERS: bool = false;

    fn from_record(cx: &mut Context) -> Result<Self, Failure> {
        Ok(Self(cx.record().timestamp()))
    }
}

impl FromRecord for Attempt {
    const LOOKS_AT_HEADERS: bool = false;

    fn from_record(cx: &mut Context) -> Result<Self, Failure> {
        Ok(Self(cx.attempt()))
    }
}
