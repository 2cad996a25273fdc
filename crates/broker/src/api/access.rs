//! Asking whether a caller may, in the words of the wire.

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::ApiKey;

use super::Context;
use crate::Error;
use crate::access::{Resource, Use};

/// Whether an API's handler asks for what its requests name, or there is nothing to ask.
///
/// What is not here is refused to everybody but super users as soon as there are rules: a new API
/// must not be open because nobody thought of it.
pub(super) fn is_guarded(key: ApiKey) -> bool {
    matches!(
        key,
        ApiKey::Produce
            | ApiKey::Fetch
            | ApiKey::ListOffsets
            | ApiKey::Metadata
            | ApiKey::OffsetCommit
            | ApiKey::OffsetFetch
            | ApiKey::FindCoordinator
            | ApiKey::JoinGroup
            | ApiKey::Heartbeat
            | ApiKey::LeaveGroup
            | ApiKey::SyncGroup
            | ApiKey::DescribeGroups
            | ApiKey::ListGroups
            | ApiKey::SaslHandshake
            | ApiKey::ApiVersions
            | ApiKey::CreateTopics
            | ApiKey::DeleteTopics
            | ApiKey::DeleteRecords
            | ApiKey::InitProducerId
            | ApiKey::OffsetForLeaderEpoch
            | ApiKey::DescribeConfigs
            | ApiKey::AlterConfigs
            | ApiKey::DescribeLogDirs
            | ApiKey::SaslAuthenticate
            | ApiKey::CreatePartitions
            | ApiKey::DeleteGroups
            | ApiKey::IncrementalAlterConfigs
            | ApiKey::OffsetDelete
            | ApiKey::DescribeCluster
            | ApiKey::ListConfigResources
            | ApiKey::DescribeTopicPartitions
            | ApiKey::DescribeUserScramCredentials
            | ApiKey::AlterUserScramCredentials
            | ApiKey::ConsumerGroupDescribe
            | ApiKey::ConsumerGroupHeartbeat
            | ApiKey::AddOffsetsToTxn
            | ApiKey::EndTxn
            | ApiKey::AddPartitionsToTxn
            | ApiKey::TxnOffsetCommit
    )
}

impl Context {
    /// Whether the caller may; a refusal is logged.
    pub(super) fn may(&self, what: Use, resource: Resource<'_>) -> bool {
        let allowed = self.sees(what, resource);
        if !allowed {
            tracing::info!(
                peer = %self.caller.peer,
                listener = %self.caller.entrance.name,
                user = self.caller.user.as_deref(),
                ?what,
                ?resource,
                "refused: no access rule allows it"
            );
        }
        allowed
    }

    /// Whether the caller may, where nobody asked for this one: lists leave out what may not be
    /// seen.
    pub(super) fn sees(&self, what: Use, resource: Resource<'_>) -> bool {
        let user = self.caller.user.as_deref();
        self.node.judge.may(user, what, resource)
    }

    pub(super) fn topic_right(&self, topic: &str, what: Use) -> Result<(), ResponseError> {
        match self.may(what, Resource::Topic(topic)) {
            true => Ok(()),
            false => Err(ResponseError::TopicAuthorizationFailed),
        }
    }

    pub(super) fn group_right(&self, group: &str, what: Use) -> Result<(), ResponseError> {
        match self.may(what, Resource::Group(group)) {
            true => Ok(()),
            false => Err(ResponseError::GroupAuthorizationFailed),
        }
    }

    pub(super) fn transactional_right(&self, id: &str, what: Use) -> Result<(), ResponseError> {
        match self.may(what, Resource::TransactionalId(id)) {
            true => Ok(()),
            false => Err(ResponseError::TransactionalIdAuthorizationFailed),
        }
    }

    /// What an idempotent producer needs (KIP-679).
    pub(super) fn right_to_write_somewhere(&self) -> Result<(), ResponseError> {
        let user = self.caller.user.as_deref();
        match self.node.judge.may_write_somewhere(user) {
            true => Ok(()),
            false => self.cluster_right(Use::Write),
        }
    }

    pub(super) fn cluster_right(&self, what: Use) -> Result<(), ResponseError> {
        match self.may(what, Resource::Cluster) {
            true => Ok(()),
            false => Err(ResponseError::ClusterAuthorizationFailed),
        }
    }
}

/// The refusal as an error with a text, for responses that carry one.
pub(super) fn refused(code: ResponseError) -> Error {
    Error::refused(code, "no access rule of this broker allows it")
}
