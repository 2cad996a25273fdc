//! What operators ask: which groups there are, how they stand, and to delete one.

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::delete_groups_response::DeletableGroupResult;
use kafka_protocol::messages::describe_groups_response::DescribedGroup;
use kafka_protocol::messages::{GroupId, consumer_group_describe_response};
use kafka_protocol::protocol::StrBytes;
use tracing::info;

use super::group::{Group, Membership};
use super::{Machine, Response, Token, code};

impl Machine {
    pub(super) fn list(&mut self, token: Token) {
        let groups = self.groups.values().map(Group::listed).collect();
        self.reply(token, Response::List(groups));
    }

    /// A group that does not exist is `Dead`, with `GROUP_ID_NOT_FOUND` (KIP-1043).
    pub(super) fn describe(&mut self, token: Token, id: StrBytes) {
        let described = match self.groups.get(&id).map(|group| &group.membership) {
            Some(Membership::Classic(classic)) => classic.describe(),
            other => DescribedGroup::default()
                .with_group_state(StrBytes::from_static_str("Dead"))
                .with_error_code(ResponseError::GroupIdNotFound.code())
                .with_error_message(Some(not_found(&id, other.is_some(), "classic"))),
        };
        self.reply(
            token,
            Response::Describe(described.with_group_id(GroupId(id))),
        );
    }

    pub(super) fn describe_consumers(&mut self, token: Token, id: StrBytes) {
        let described = match self.groups.get(&id).map(|group| &group.membership) {
            Some(Membership::Consumer(consumer)) => consumer.describe(&self.topics),
            other => consumer_group_describe_response::DescribedGroup::default()
                .with_error_code(ResponseError::GroupIdNotFound.code())
                .with_error_message(Some(not_found(&id, other.is_some(), "consumer"))),
        };
        self.reply(
            token,
            Response::DescribeConsumers(described.with_group_id(GroupId(id))),
        );
    }

    pub(super) fn delete(&mut self, token: Token, id: StrBytes) {
        let outcome = match self.groups.get_mut(&id) {
            None => Err(ResponseError::GroupIdNotFound),
            Some(group) if !group.is_empty() => Err(ResponseError::NonEmptyGroup),
            Some(group) => {
                info!(group = %id, "group deleted");
                group.forget(&mut self.output.changes, |_, _| true);
                group.erase_membership(&mut self.output.changes);
                self.forget_pending(|of, _, _| *of == id);
                Ok(())
            }
        };
        self.settle(&id);
        let result = DeletableGroupResult::default()
            .with_group_id(GroupId(id))
            .with_error_code(code(outcome));
        self.reply(token, Response::Delete(result));
    }
}

fn not_found(id: &StrBytes, exists: bool, kind: &str) -> StrBytes {
    StrBytes::from_string(match exists {
        true => format!("Group {} is not a {kind} group.", &**id),
        false => format!("Group {} not found.", &**id),
    })
}
