//! A request is walked along its outline before it is decoded.
//!
//! The decoder takes memory for as many array elements as the bytes claim, and sixteen hostile
//! bytes can claim four billion: the allocation fails and the process is gone, which no handler
//! can catch. So every length is first checked against the bytes that are really there, and the
//! elements are counted against a limit. A walk touches only lengths; records are skipped.

use std::fmt::{self, Display};

/// One field of a request: what it is, and in which versions it is there.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Part {
    pub(super) field: Field,
    pub(super) since: i16,
    pub(super) until: i16,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Field {
    /// As many bytes, whatever they mean.
    Fixed(usize),
    /// A string, nullable or not.
    Text,
    /// Bytes or records, nullable or not.
    Bytes,
    /// An array of structs.
    Structs(&'static [Part]),
    /// A struct, or null: a byte says which.
    Nullable(&'static [Part]),
    /// An array of one plain field: no tagged fields after each element.
    Plain(&'static Part),
}

/// Before a struct that may be null: it is not.
const PRESENT: u8 = 1;

pub(super) const fn fixed(bytes: usize) -> Part {
    part(Field::Fixed(bytes))
}

pub(super) const fn text() -> Part {
    part(Field::Text)
}

pub(super) const fn bytes() -> Part {
    part(Field::Bytes)
}

pub(super) const fn structs(parts: &'static [Part]) -> Part {
    part(Field::Structs(parts))
}

pub(super) const fn nullable(parts: &'static [Part]) -> Part {
    part(Field::Nullable(parts))
}

pub(super) const fn plain(element: &'static Part) -> Part {
    part(Field::Plain(element))
}

const fn part(field: Field) -> Part {
    Part {
        field,
        since: 0,
        until: i16::MAX,
    }
}

impl Part {
    /// The field is there from this version on.
    pub(super) const fn since(mut self, version: i16) -> Self {
        self.since = version;
        self
    }

    /// The field is there up to and with this version.
    pub(super) const fn until(mut self, version: i16) -> Self {
        self.until = version;
        self
    }
}

/// Why a request is not worth decoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Malformed {
    /// A field or an element goes beyond the end.
    CutShort,
    /// A length below what its type allows.
    NegativeLength,
    /// A variable-length number of more than five bytes.
    OverlongNumber,
    /// More array elements than the limit.
    TooManyElements,
}

impl Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CutShort => "the request ends in the middle of a field",
            Self::NegativeLength => "a length is negative",
            Self::OverlongNumber => "a variable-length number does not end",
            Self::TooManyElements => "more array elements than the limit",
        })
    }
}

/// Walks `body` along `parts`; what is left behind the last part is ignored, as Kafka does.
pub(crate) fn check(
    parts: &[Part],
    body: &[u8],
    version: i16,
    flexible: bool,
    elements_max: usize,
) -> Result<(), Malformed> {
    walk(parts, body, version, flexible, elements_max).map(|_rest| ())
}

fn walk<'a>(
    parts: &[Part],
    body: &'a [u8],
    version: i16,
    flexible: bool,
    elements_max: usize,
) -> Result<&'a [u8], Malformed> {
    let mut walker = Walker {
        rest: body,
        version,
        flexible,
        elements_left: elements_max,
    };
    walker.record(parts)?;
    Ok(walker.rest)
}

struct Walker<'a> {
    rest: &'a [u8],
    version: i16,
    flexible: bool,
    elements_left: usize,
}

impl Walker<'_> {
    fn record(&mut self, parts: &[Part]) -> Result<(), Malformed> {
        for part in parts {
            self.part(part)?;
        }
        self.tagged_fields()
    }

    fn part(&mut self, part: &Part) -> Result<(), Malformed> {
        if self.version < part.since || self.version > part.until {
            return Ok(());
        }
        match part.field {
            Field::Fixed(bytes) => self.skip(bytes),
            Field::Text => {
                let length = self.length(2)?;
                self.skip(length)
            }
            Field::Bytes => {
                let length = self.length(4)?;
                self.skip(length)
            }
            Field::Structs(parts) => {
                for _ in 0..self.count()? {
                    self.record(parts)?;
                }
                Ok(())
            }
            Field::Nullable(parts) => match self.take()? {
                [PRESENT] => self.record(parts),
                [_] => Ok(()),
            },
            Field::Plain(element) => {
                for _ in 0..self.count()? {
                    self.part(element)?;
                }
                Ok(())
            }
        }
    }

    fn count(&mut self) -> Result<usize, Malformed> {
        let count = self.length(4)?;
        if count > self.rest.len() {
            return Err(Malformed::CutShort);
        }
        self.elements_left = self
            .elements_left
            .checked_sub(count)
            .ok_or(Malformed::TooManyElements)?;
        Ok(count)
    }

    /// A length as the version writes it: one more than it is as a varint, or `width` bytes, with
    /// -1 for null.
    fn length(&mut self, width: usize) -> Result<usize, Malformed> {
        if self.flexible {
            return Ok((self.varint()? as usize).saturating_sub(1));
        }
        let length = match width {
            2 => i32::from(i16::from_be_bytes(self.take()?)),
            _ => i32::from_be_bytes(self.take()?),
        };
        match length {
            -1 => Ok(0),
            length => usize::try_from(length).map_err(|_| Malformed::NegativeLength),
        }
    }

    fn tagged_fields(&mut self) -> Result<(), Malformed> {
        if !self.flexible {
            return Ok(());
        }
        for _ in 0..self.varint()? {
            self.varint()?;
            let size = self.varint()? as usize;
            self.skip(size)?;
        }
        Ok(())
    }

    fn varint(&mut self) -> Result<u32, Malformed> {
        let mut value = 0u32;
        for shift in (0..35).step_by(7) {
            let [byte] = self.take()?;
            value |= u32::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Malformed::OverlongNumber)
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(Malformed::CutShort)?;
        self.rest = rest;
        Ok(*taken)
    }

    fn skip(&mut self, bytes: usize) -> Result<(), Malformed> {
        self.rest = self.rest.get(bytes..).ok_or(Malformed::CutShort)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use kafka_protocol::messages::*;
    use kafka_protocol::protocol::{HeaderVersion, Message, Request, StrBytes};

    use super::super::{TABLE, outlines};
    use super::*;

    /// Every field filled in once, encoded by the crate in each served version, must be walked to
    /// the last byte: an outline that differs from the protocol would refuse honest requests.
    fn walks_to_the_end<R: Request + Message + HeaderVersion>(
        parts: &[Part],
        fill: impl Fn(i16) -> R,
    ) {
        let api = TABLE
            .iter()
            .find(|api| api.key as i16 == R::KEY)
            .expect("served");
        for version in api.versions.clone() {
            if version < R::VERSIONS.min {
                continue;
            }
            let mut body = BytesMut::new();
            fill(version).encode(&mut body, version).expect("encodes");
            let flexible = R::header_version(version) >= 2;
            let rest = walk(parts, &body, version, flexible, 100);
            assert_eq!(rest, Ok(&[][..]), "{:?} v{version}", api.key);
        }
    }

    fn text(value: &'static str) -> StrBytes {
        StrBytes::from_static_str(value)
    }

    #[test]
    fn outlines_of_records_and_offsets_are_the_protocols() {
        walks_to_the_end(outlines::PRODUCE, |_| {
            ProduceRequest::default().with_topic_data(vec![
                produce_request::TopicProduceData::default()
                    .with_name(text("t").into())
                    .with_partition_data(vec![
                        produce_request::PartitionProduceData::default()
                            .with_records(Some("records".into())),
                    ]),
            ])
        });
        walks_to_the_end(outlines::FETCH, |version| {
            let request = FetchRequest::default().with_topics(vec![
                fetch_request::FetchTopic::default()
                    .with_topic(text("t").into())
                    .with_partitions(vec![fetch_request::FetchPartition::default()]),
            ]);
            match version {
                7.. => request.with_forgotten_topics_data(vec![
                    fetch_request::ForgottenTopic::default()
                        .with_topic(text("t").into())
                        .with_partitions(vec![1, 2]),
                ]),
                _ => request,
            }
        });
        walks_to_the_end(outlines::LIST_OFFSETS, |_| {
            ListOffsetsRequest::default().with_topics(vec![
                list_offsets_request::ListOffsetsTopic::default()
                    .with_name(text("t").into())
                    .with_partitions(vec![list_offsets_request::ListOffsetsPartition::default()]),
            ])
        });
        walks_to_the_end(outlines::OFFSET_FOR_LEADER_EPOCH, |_| {
            OffsetForLeaderEpochRequest::default().with_topics(vec![
                offset_for_leader_epoch_request::OffsetForLeaderTopic::default().with_partitions(
                    vec![offset_for_leader_epoch_request::OffsetForLeaderPartition::default()],
                ),
            ])
        });
        walks_to_the_end(outlines::DELETE_RECORDS, |_| {
            DeleteRecordsRequest::default().with_topics(vec![
                delete_records_request::DeleteRecordsTopic::default().with_partitions(vec![
                    delete_records_request::DeleteRecordsPartition::default(),
                ]),
            ])
        });
    }

    #[test]
    fn outlines_of_the_cluster_are_the_protocols() {
        walks_to_the_end(outlines::API_VERSIONS, |version| match version {
            3.. => ApiVersionsRequest::default().with_client_software_name(text("kcat")),
            _ => ApiVersionsRequest::default(),
        });
        walks_to_the_end(outlines::METADATA, |_| {
            MetadataRequest::default().with_topics(Some(vec![
                metadata_request::MetadataRequestTopic::default().with_name(Some(text("t").into())),
            ]))
        });
        walks_to_the_end(outlines::FIND_COORDINATOR, |version| match version {
            4.. => FindCoordinatorRequest::default().with_coordinator_keys(vec![text("g")]),
            _ => FindCoordinatorRequest::default().with_key(text("g")),
        });
        walks_to_the_end(outlines::INIT_PRODUCER_ID, |_| {
            InitProducerIdRequest::default()
        });
        walks_to_the_end(outlines::DESCRIBE_CLUSTER, |_| {
            DescribeClusterRequest::default()
        });
        walks_to_the_end(outlines::DESCRIBE_LOG_DIRS, |_| {
            DescribeLogDirsRequest::default().with_topics(Some(vec![
                describe_log_dirs_request::DescribableLogDirTopic::default()
                    .with_partitions(vec![0, 1]),
            ]))
        });
    }

    #[test]
    fn outlines_of_topics_and_configs_are_the_protocols() {
        walks_to_the_end(outlines::CREATE_TOPICS, |_| {
            CreateTopicsRequest::default().with_topics(vec![
                create_topics_request::CreatableTopic::default()
                    .with_name(text("t").into())
                    .with_assignments(vec![
                        create_topics_request::CreatableReplicaAssignment::default()
                            .with_broker_ids(vec![BrokerId(1)]),
                    ])
                    .with_configs(vec![
                        create_topics_request::CreatableTopicConfig::default()
                            .with_value(Some(text("v"))),
                    ]),
            ])
        });
        walks_to_the_end(outlines::DELETE_TOPICS, |version| match version {
            6.. => DeleteTopicsRequest::default().with_topics(vec![
                delete_topics_request::DeleteTopicState::default()
                    .with_name(Some(text("t").into())),
            ]),
            _ => DeleteTopicsRequest::default().with_topic_names(vec![text("t").into()]),
        });
        walks_to_the_end(outlines::CREATE_PARTITIONS, |_| {
            CreatePartitionsRequest::default().with_topics(vec![
                create_partitions_request::CreatePartitionsTopic::default().with_assignments(Some(
                    vec![
                        create_partitions_request::CreatePartitionsAssignment::default()
                            .with_broker_ids(vec![BrokerId(1)]),
                    ],
                )),
            ])
        });
        walks_to_the_end(outlines::DESCRIBE_CONFIGS, |_| {
            DescribeConfigsRequest::default().with_resources(vec![
                describe_configs_request::DescribeConfigsResource::default()
                    .with_configuration_keys(Some(vec![text("k")])),
            ])
        });
        walks_to_the_end(outlines::ALTER_CONFIGS, |_| {
            AlterConfigsRequest::default().with_resources(vec![
                alter_configs_request::AlterConfigsResource::default()
                    .with_configs(vec![alter_configs_request::AlterableConfig::default()]),
            ])
        });
        walks_to_the_end(outlines::INCREMENTAL_ALTER_CONFIGS, |_| {
            IncrementalAlterConfigsRequest::default().with_resources(vec![
                incremental_alter_configs_request::AlterConfigsResource::default().with_configs(
                    vec![incremental_alter_configs_request::AlterableConfig::default()],
                ),
            ])
        });
    }

    #[test]
    fn outlines_of_membership_are_the_protocols() {
        walks_to_the_end(outlines::JOIN_GROUP, |_| {
            JoinGroupRequest::default().with_protocols(vec![
                join_group_request::JoinGroupRequestProtocol::default()
                    .with_name(text("range"))
                    .with_metadata("m".into()),
            ])
        });
        walks_to_the_end(outlines::SYNC_GROUP, |_| {
            SyncGroupRequest::default().with_assignments(vec![
                sync_group_request::SyncGroupRequestAssignment::default()
                    .with_assignment("a".into()),
            ])
        });
        walks_to_the_end(outlines::HEARTBEAT, |_| HeartbeatRequest::default());
        walks_to_the_end(outlines::LEAVE_GROUP, |version| match version {
            3.. => LeaveGroupRequest::default()
                .with_members(vec![leave_group_request::MemberIdentity::default()]),
            _ => LeaveGroupRequest::default().with_member_id(text("m")),
        });
        walks_to_the_end(outlines::DESCRIBE_GROUPS, |_| {
            DescribeGroupsRequest::default().with_groups(vec![text("g").into()])
        });
        walks_to_the_end(outlines::LIST_GROUPS, |version| match version {
            4.. => ListGroupsRequest::default().with_states_filter(vec![text("Stable")]),
            _ => ListGroupsRequest::default(),
        });
        walks_to_the_end(outlines::CONSUMER_GROUP_HEARTBEAT, |_| {
            ConsumerGroupHeartbeatRequest::default()
                .with_instance_id(Some(text("i")))
                .with_subscribed_topic_names(Some(vec![text("t").into(), text("u").into()]))
                .with_server_assignor(Some(text("uniform")))
                .with_topic_partitions(Some(vec![
                    consumer_group_heartbeat_request::TopicPartitions::default()
                        .with_partitions(vec![0, 1]),
                ]))
        });
        walks_to_the_end(outlines::CONSUMER_GROUP_DESCRIBE, |_| {
            ConsumerGroupDescribeRequest::default().with_group_ids(vec![text("g").into()])
        });
        walks_to_the_end(outlines::DELETE_GROUPS, |_| {
            DeleteGroupsRequest::default().with_groups_names(vec![text("g").into()])
        });
    }

    #[test]
    fn outlines_of_committed_offsets_are_the_protocols() {
        walks_to_the_end(outlines::OFFSET_COMMIT, |_| {
            OffsetCommitRequest::default().with_topics(vec![
                offset_commit_request::OffsetCommitRequestTopic::default().with_partitions(vec![
                    offset_commit_request::OffsetCommitRequestPartition::default()
                        .with_committed_metadata(Some(text("m"))),
                ]),
            ])
        });
        walks_to_the_end(outlines::OFFSET_FETCH, |version| match version {
            8.. => OffsetFetchRequest::default().with_groups(vec![
                offset_fetch_request::OffsetFetchRequestGroup::default().with_topics(Some(vec![
                    offset_fetch_request::OffsetFetchRequestTopics::default()
                        .with_partition_indexes(vec![0, 1]),
                ])),
            ]),
            _ => OffsetFetchRequest::default().with_topics(Some(vec![
                offset_fetch_request::OffsetFetchRequestTopic::default()
                    .with_partition_indexes(vec![0, 1]),
            ])),
        });
        walks_to_the_end(outlines::OFFSET_DELETE, |_| {
            OffsetDeleteRequest::default().with_topics(vec![
                offset_delete_request::OffsetDeleteRequestTopic::default().with_partitions(vec![
                    offset_delete_request::OffsetDeleteRequestPartition::default(),
                ]),
            ])
        });
    }

    #[test]
    fn outlines_of_pages_and_of_credentials_are_the_protocols() {
        let cursor =
            describe_topic_partitions_request::Cursor::default().with_topic_name(text("t").into());
        for cursor in [None, Some(cursor)] {
            walks_to_the_end(outlines::DESCRIBE_TOPIC_PARTITIONS, |_| {
                DescribeTopicPartitionsRequest::default()
                    .with_topics(vec![
                        describe_topic_partitions_request::TopicRequest::default()
                            .with_name(text("t").into()),
                    ])
                    .with_cursor(cursor.clone())
            });
        }
        walks_to_the_end(outlines::DESCRIBE_SCRAM, |_| {
            DescribeUserScramCredentialsRequest::default().with_users(Some(vec![
                describe_user_scram_credentials_request::UserName::default().with_name(text("u")),
            ]))
        });
        walks_to_the_end(outlines::ALTER_SCRAM, |_| {
            AlterUserScramCredentialsRequest::default()
                .with_deletions(vec![
                    alter_user_scram_credentials_request::ScramCredentialDeletion::default()
                        .with_name(text("u")),
                ])
                .with_upsertions(vec![
                    alter_user_scram_credentials_request::ScramCredentialUpsertion::default()
                        .with_name(text("u"))
                        .with_salt("salt".into()),
                ])
        });
    }

    #[test]
    fn a_claim_of_more_elements_than_bytes_is_refused() {
        const NUMBERS: &[Part] = &[structs(&[fixed(4)])];
        let claim = [0x7f, 0xff, 0xff, 0xff, 0, 0];
        let refused = check(NUMBERS, &claim, 0, false, usize::MAX);
        assert_eq!(refused, Err(Malformed::CutShort));
    }

    #[test]
    fn more_elements_than_the_limit_are_refused() {
        const FLAGS: &[Part] = &[plain(&fixed(1))];
        let body = [0, 0, 0, 3, 0, 0, 0];
        let refused = check(FLAGS, &body, 0, false, 2);
        assert_eq!(refused, Err(Malformed::TooManyElements));
    }
}
