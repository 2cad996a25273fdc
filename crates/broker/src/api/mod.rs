//! One file per Kafka API, and the one table of what is served.
//!
//! A client believes what ApiVersions says, so that answer is made from the same table that
//! dispatches: what is not served cannot be advertised. Versions stop where the next one asks for
//! semantics that the broker does not have (the partitions that TxnOffsetCommit 5 adds to a
//! transaction by itself, and the epoch that EndTxn 5 moves on, KIP-890). Produce 12 would add
//! partitions, too; but clients write so only where the feature `transaction.version` is 2, and
//! Produce 13 is how they write by topic id.

mod access;
mod alter_configs;
mod api_versions;
mod configs;
mod context;
mod create_partitions;
mod create_topics;
mod delete_records;
mod delete_topics;
mod describe_cluster;
mod describe_configs;
mod describe_log_dirs;
mod describe_producers;
mod describe_topic_partitions;
mod fetch;
mod fetched;
mod find_coordinator;
#[cfg(test)]
mod fuzz;
mod group_rights;
mod groups;
mod incremental_alter_configs;
mod init_producer_id;
mod list_config_resources;
mod list_offsets;
mod login;
mod metadata;
mod offset_for_leader_epoch;
mod outline;
mod outlines;
mod partition;
mod produce;
mod repeated;
mod reply;
mod scram_credentials;
mod transactions;
mod whole_rights;

use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Buf, Bytes};
use kafka_protocol::messages::{ApiKey, RequestHeader};
use kafka_protocol::protocol::Decodable;

use crate::server::Held;
pub(crate) use context::{Caller, Context, Entrance, Node, now_ms};
pub(crate) use fetched::Piece;
pub(crate) use login::{Login, LoginRefused, Progress};
use outline::Part;
pub(crate) use reply::{Refusal, Reply};
use reply::{later, now, pieces};

/// One served API.
#[derive(Debug)]
pub(crate) struct Api {
    key: ApiKey,
    versions: RangeInclusive<i16>,
    outline: &'static [Part],
}

impl Api {
    /// Its name in Kafka's protocol.
    pub(crate) fn name(&self) -> String {
        format!("{:?}", self.key)
    }
}

macro_rules! apis {
    ($($key:ident $versions:expr, $outline:ident => $when:ident($handler:path);)*) => {
        /// What is served, and what ApiVersions answers.
        pub(crate) const TABLE: &[Api] = &[$(Api {
            key: ApiKey::$key,
            versions: $versions,
            outline: outlines::$outline,
        }),*];

        async fn call(cx: &Context, key: ApiKey, body: Bytes) -> Result<Reply, Refusal> {
            match key {
                $(ApiKey::$key => $when(cx, $handler(cx, decode(cx, key, body)?).await),)*
                _ => Err(Refusal::unserved(key as i16, cx.version)),
            }
        }
    };
}

// `now`: answered when the handler returns, before the next request is begun. `later`: the handler
// returns what is still awaited, and the connection's next request is begun meanwhile. `pieces`: as
// `now`, by a handler that puts its response together itself.
apis! {
    Produce                 3..=13, PRODUCE                   => later(produce::handle);
    Fetch                   4..=18, FETCH                     => pieces(fetch::handle);
    ListOffsets             1..=10, LIST_OFFSETS              => now(list_offsets::handle);
    Metadata                0..=13, METADATA                  => now(metadata::handle);
    OffsetCommit            2..=9,  OFFSET_COMMIT             => now(groups::offset_commit);
    OffsetFetch             1..=9,  OFFSET_FETCH              => now(groups::offset_fetch);
    FindCoordinator         0..=6,  FIND_COORDINATOR          => now(find_coordinator::handle);
    JoinGroup               0..=9,  JOIN_GROUP                => now(groups::join);
    Heartbeat               0..=4,  HEARTBEAT                 => now(groups::heartbeat);
    LeaveGroup              0..=5,  LEAVE_GROUP               => now(groups::leave);
    SyncGroup               0..=5,  SYNC_GROUP                => now(groups::sync);
    DescribeGroups          0..=6,  DESCRIBE_GROUPS           => now(groups::describe);
    ListGroups              0..=5,  LIST_GROUPS               => now(groups::list);
    SaslHandshake           0..=1,  SASL_HANDSHAKE            => now(login::handshake_again);
    ApiVersions             0..=4,  API_VERSIONS              => now(api_versions::handle);
    CreateTopics            2..=7,  CREATE_TOPICS             => now(create_topics::handle);
    DeleteTopics            1..=6,  DELETE_TOPICS             => now(delete_topics::handle);
    DeleteRecords           0..=2,  DELETE_RECORDS            => now(delete_records::handle);
    InitProducerId          0..=5,  INIT_PRODUCER_ID          => now(init_producer_id::handle);
    AddPartitionsToTxn      0..=3,  ADD_PARTITIONS_TO_TXN     => now(transactions::add_partitions);
    AddOffsetsToTxn         0..=4,  ADD_OFFSETS_TO_TXN        => now(transactions::add_offsets);
    EndTxn                  0..=5,  END_TXN                   => now(transactions::end);
    WriteTxnMarkers         1..=1,  WRITE_TXN_MARKERS         => now(transactions::write_markers);
    TxnOffsetCommit         0..=5,  TXN_OFFSET_COMMIT         => now(transactions::offset_commit);
    DescribeProducers       0..=0,  DESCRIBE_PRODUCERS        => now(describe_producers::handle);
    DescribeTransactions    0..=0,  DESCRIBE_TRANSACTIONS     => now(transactions::describe);
    ListTransactions        0..=1,  LIST_TRANSACTIONS         => now(transactions::list);
    OffsetForLeaderEpoch    2..=4,  OFFSET_FOR_LEADER_EPOCH   => now(offset_for_leader_epoch::handle);
    DescribeConfigs         1..=4,  DESCRIBE_CONFIGS          => now(describe_configs::handle);
    AlterConfigs            0..=2,  ALTER_CONFIGS             => now(alter_configs::handle);
    DescribeLogDirs         1..=4,  DESCRIBE_LOG_DIRS         => now(describe_log_dirs::handle);
    SaslAuthenticate        0..=2,  SASL_AUTHENTICATE         => now(login::authenticate_again);
    CreatePartitions        0..=3,  CREATE_PARTITIONS         => now(create_partitions::handle);
    DeleteGroups            0..=2,  DELETE_GROUPS             => now(groups::delete);
    IncrementalAlterConfigs 0..=1,  INCREMENTAL_ALTER_CONFIGS => now(incremental_alter_configs::handle);
    OffsetDelete            0..=0,  OFFSET_DELETE             => now(groups::offset_delete);
    ConsumerGroupHeartbeat  0..=1,  CONSUMER_GROUP_HEARTBEAT  => now(groups::consumer_heartbeat);
    ConsumerGroupDescribe   0..=1,  CONSUMER_GROUP_DESCRIBE   => now(groups::describe_consumers);
    DescribeCluster         0..=2,  DESCRIBE_CLUSTER          => now(describe_cluster::handle);
    ListConfigResources     0..=1,  LIST_CONFIG_RESOURCES     => now(list_config_resources::handle);
    DescribeTopicPartitions 0..=0,  DESCRIBE_TOPIC_PARTITIONS => now(describe_topic_partitions::handle);
    DescribeUserScramCredentials 0..=0, DESCRIBE_SCRAM        => now(scram_credentials::describe);
    AlterUserScramCredentials    0..=0, ALTER_SCRAM           => now(scram_credentials::alter);
}

/// Answers one request frame (without its length).
///
/// # Errors
/// A frame that cannot be understood: the caller closes the connection, as nothing behind it can
/// be trusted.
pub(crate) async fn answer(
    node: &Arc<Node>,
    caller: &Caller,
    frame: Bytes,
) -> Result<(Reply, Held), Refusal> {
    match open(node, caller, frame)? {
        Opened::Request(cx, key, _)
            if !access::is_guarded(key) && !node.judge.is_super(caller.user.as_deref()) =>
        {
            let why = "with access rules, this API is for super users";
            Err(Refusal::new(key, cx.version, why))
        }
        Opened::Request(cx, key, body) => {
            if node.judge.is_ruled()
                && let Some(refused) = whole_rights::refused(&cx, key, &body)
            {
                return refused.map(|reply| (reply, Held::default()));
            }
            let reply = call(&cx, key, body).await?;
            let held = cx.held.into_inner().unwrap_or_else(PoisonError::into_inner);
            Ok((reply, held))
        }
        Opened::Answered(reply) => Ok((reply, Held::default())),
    }
}

/// What the head of a frame says.
enum Opened {
    /// A request that is served, whose lengths hold; its body is not decoded yet.
    Request(Context, ApiKey, Bytes),
    /// A version of ApiVersions that is not known.
    Answered(Reply),
}

fn open(node: &Arc<Node>, caller: &Caller, mut frame: Bytes) -> Result<Opened, Refusal> {
    let Some(start) = frame.first_chunk::<4>() else {
        return Err(Refusal::headless());
    };
    let key_number = i16::from_be_bytes([start[0], start[1]]);
    let version = i16::from_be_bytes([start[2], start[3]]);
    let unserved = || Refusal::unserved(key_number, version);

    let key = ApiKey::try_from(key_number).map_err(|()| unserved())?;
    let (place, api) = TABLE
        .iter()
        .enumerate()
        .find(|(_, api)| api.key == key)
        .ok_or_else(unserved)?;
    node.counters.request(place);
    if !api.versions.contains(&version) {
        return match key {
            ApiKey::ApiVersions => {
                api_versions::unsupported(frame.slice(4..)).map(Opened::Answered)
            }
            _ => Err(unserved()),
        };
    }
    let header_version = key.request_header_version(version);
    let header = RequestHeader::decode(&mut frame, header_version)
        .map_err(|error| Refusal::new(key, version, format!("header: {error:#}")))?;
    let cx = Context {
        node: Arc::clone(node),
        caller: caller.clone(),
        version,
        correlation_id: header.correlation_id,
        client_id: header.client_id.unwrap_or_default(),
        held: Mutex::default(),
    };
    outline::check(
        api.outline,
        frame.chunk(),
        version,
        header_version >= 2,
        node.config.limits.request_elements_max,
    )
    .map_err(|malformed| Refusal::new(key, version, malformed.to_string()))?;
    Ok(Opened::Request(cx, key, frame))
}

fn decode<T: Decodable>(cx: &Context, key: ApiKey, mut body: Bytes) -> Result<T, Refusal> {
    T::decode(&mut body, cx.version)
        .map_err(|error| Refusal::new(key, cx.version, format!("body: {error:#}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_api_stands_in_the_table_once_with_versions_that_the_codec_knows() {
        for (index, api) in TABLE.iter().enumerate() {
            assert!(TABLE[..index].iter().all(|other| other.key != api.key));
            let known = api.key.valid_versions();
            assert!(known.max >= *api.versions.end(), "{:?}", api.key);
            assert!(known.min <= *api.versions.start(), "{:?}", api.key);
        }
    }
}
