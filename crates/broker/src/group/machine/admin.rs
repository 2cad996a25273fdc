//! What operators ask: which groups there are, how they stand, and to delete one.

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::GroupId;
use kafka_protocol::messages::delete_groups_response::DeletableGroupResult;
use kafka_protocol::messages::describe_groups_response::{DescribedGroup, DescribedGroupMember};
use kafka_protocol::messages::list_groups_response::ListedGroup;
use kafka_protocol::protocol::StrBytes;
use tracing::info;

use super::group::{Group, Phase};
use super::member::Member;
use super::{Machine, Response, Token, code};
use crate::group::record::Change;

impl Machine {
    pub(super) fn list(&mut self, token: Token) {
        let groups = self.groups.values().map(|group| {
            ListedGroup::default()
                .with_group_id(GroupId(group.id.clone()))
                .with_protocol_type(group.protocol_type.clone().unwrap_or_default())
                .with_group_state(StrBytes::from_static_str(group.state_name()))
                .with_group_type(StrBytes::from_static_str("classic"))
        });
        let groups = groups.collect();
        self.reply(token, Response::List(groups));
    }

    /// A group that does not exist is `Dead`, with `GROUP_ID_NOT_FOUND` (KIP-1043).
    pub(super) fn describe(&mut self, token: Token, id: StrBytes) {
        let described = match self.groups.get(&id) {
            Some(group) => group.describe(),
            None => DescribedGroup::default()
                .with_group_state(StrBytes::from_static_str("Dead"))
                .with_error_code(ResponseError::GroupIdNotFound.code())
                .with_error_message(Some(StrBytes::from_string(format!(
                    "Group {} not found.",
                    &*id
                )))),
        };
        self.reply(
            token,
            Response::Describe(described.with_group_id(GroupId(id))),
        );
    }

    pub(super) fn delete(&mut self, token: Token, id: StrBytes) {
        let outcome = match self.groups.get_mut(&id) {
            None => Err(ResponseError::GroupIdNotFound),
            Some(group) if group.phase != Phase::Empty => Err(ResponseError::NonEmptyGroup),
            Some(group) => {
                info!(group = %id, "group deleted");
                group.erase(&mut self.output.changes);
                self.forget_pending(|of, _| *of == id);
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

impl Group {
    fn describe(&self) -> DescribedGroup {
        let stable = matches!(self.phase, Phase::Stable { .. });
        let protocol = self.protocol.clone().filter(|_| stable).unwrap_or_default();
        let member = |member: &Member| {
            let described = DescribedGroupMember::default()
                .with_member_id(member.id.clone())
                .with_group_instance_id(member.instance_id.clone())
                .with_client_id(member.client.id.clone())
                .with_client_host(member.client.host.clone());
            // Between generations the two do not belong together.
            if !stable {
                return described;
            }
            described
                .with_member_metadata(member.metadata(&protocol))
                .with_member_assignment(member.assignment.clone())
        };
        DescribedGroup::default()
            .with_group_state(StrBytes::from_static_str(self.state_name()))
            .with_protocol_type(self.protocol_type.clone().unwrap_or_default())
            .with_members(self.members.values().map(member).collect())
            .with_protocol_data(protocol)
    }

    fn erase(&mut self, changes: &mut Vec<Change>) {
        self.pending.clear();
        self.forget(changes, |_, _| true);
        if self.written.take().is_some() {
            changes.push(Change::Group {
                group: self.id.clone(),
                value: None,
            });
        }
    }
}
