//! ConsumerGroupHeartbeat: joining, staying, leaving, and learning what to read.

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::consumer_group_heartbeat_response::{Assignment, TopicPartitions};
use kafka_protocol::messages::{ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse};
use kafka_protocol::protocol::StrBytes;
use tracing::info;
use uuid::Uuid;

use super::super::assignor::Assignor;
use super::super::group::Group;
use super::super::migration::NotUpgraded;
use super::super::{Client, Context, Machine, NAME_MAX, Now, Response, Token, owned};
use super::pattern::Pattern;
use super::{Consumer, Member};
use crate::group::record::{ConsumerChange, Partitions};

/// The epoch that a member comes with when it joins.
const JOIN: i32 = 0;
/// The epochs that it goes with: for good, and as a static member that will be back.
pub(super) const LEAVE: i32 = -1;
pub(super) const LEAVE_FOR_A_WHILE: i32 = -2;

/// From this version on, members bring their own id.
const OWN_MEMBER_ID: i16 = 1;

/// A heartbeat with what the machine needs to decide it.
pub(in super::super) struct Beat {
    pub(in super::super) token: Token,
    pub(in super::super) request: ConsumerGroupHeartbeatRequest,
    pub(in super::super) version: i16,
    pub(in super::super) client: Client,
    pub(in super::super) fresh_id: Uuid,
}

/// Why a heartbeat is refused: the code for the client, the words for whoever reads its log.
#[derive(Debug)]
pub(in super::super) struct Refused {
    error: ResponseError,
    message: String,
}

pub(super) fn refused(error: ResponseError, message: impl Into<String>) -> Refused {
    Refused {
        error,
        message: message.into(),
    }
}

impl Machine {
    pub(in super::super) fn consumer_heartbeat(&mut self, now: Now, beat: Beat) {
        let token = beat.token;
        let response = self.heartbeat_answer(now, &beat).unwrap_or_else(|refused| {
            let group = &*beat.request.group_id.0;
            info!(group, client = %beat.client.id, error = %refused.error, reason = refused.message, "heartbeat refused");
            ConsumerGroupHeartbeatResponse::default()
                .with_error_code(refused.error.code())
                .with_error_message(Some(StrBytes::from_string(refused.message)))
        });
        self.reply(token, Response::ConsumerHeartbeat(response));
    }

    fn heartbeat_answer(
        &mut self,
        now: Now,
        beat: &Beat,
    ) -> Result<ConsumerGroupHeartbeatResponse, Refused> {
        let request = &beat.request;
        let pattern = check(beat)?;
        let id = owned(&request.group_id);
        let joins = request.member_epoch == JOIN;
        if !self.groups.contains_key(&id) {
            if !joins {
                return Err(refused(
                    ResponseError::GroupIdNotFound,
                    format!("Group {} not found.", &*id),
                ));
            }
            if self.groups.len() >= self.config.groups_max {
                return Err(refused(
                    ResponseError::PolicyViolation,
                    "this broker holds as many groups as it may",
                ));
            }
            self.groups.insert(id.clone(), Group::new(id.clone()));
        }
        let decided = self.with_group(now, &id, |group, cx| {
            let foreign = || {
                refused(
                    ResponseError::GroupIdNotFound,
                    format!("Group {} is not a consumer group.", &*id),
                )
            };
            if joins {
                group.upgrade(cx, request).map_err(|why| match why {
                    NotUpgraded::Foreign => foreign(),
                    NotUpgraded::Full => refused(
                        ResponseError::GroupMaxSizeReached,
                        "the group is as large as it may be",
                    ),
                })?;
            }
            let consumer = group.consumer_mut().ok_or_else(foreign)?;
            match request.member_epoch {
                LEAVE | LEAVE_FOR_A_WHILE => consumer.leave(cx, request),
                _ => consumer.heartbeat(cx, beat, pattern),
            }
        });
        decided.unwrap_or_else(|| {
            Err(refused(
                ResponseError::CoordinatorNotAvailable,
                "the group is gone",
            ))
        })
    }
}

impl Consumer {
    fn heartbeat(
        &mut self,
        cx: &mut Context<'_>,
        beat: &Beat,
        pattern: Option<Pattern>,
    ) -> Result<ConsumerGroupHeartbeatResponse, Refused> {
        let request = &beat.request;
        let id = match request.member_id.is_empty() {
            true => StrBytes::from_string(beat.fresh_id.to_string()),
            false => owned(&request.member_id),
        };
        self.check_room(cx, &id, request)?;
        let held = request.topic_partitions.as_ref().map(|topics| {
            let topics = topics.iter();
            topics
                .flat_map(|topic| {
                    topic
                        .partitions
                        .iter()
                        .map(|index| (topic.topic_id, *index))
                })
                .collect::<Partitions>()
        });
        let comer = self.identify(request, &id, held.as_ref())?;

        // From here on nothing is refused.
        let (mut member, replaced) = self.admit(cx, comer, &id, request.instance_id.as_ref());
        let before = member.clone();
        member.update(request, &beat.client);
        member.alive(cx.now, cx.timeouts.session_ms);
        if let Some(pattern) = pattern {
            self.patterns.add(pattern, cx.topics);
        }
        self.take_up(cx, &mut member, &before, held.as_ref());
        if let Some(replaced) = replaced {
            self.erase_member(cx, &replaced);
        }

        let told = is_full(request) || member.current.assigned != before.current.assigned;
        let assignment = told.then(|| assignment(&member.current.assigned));
        let interval = i32::try_from(cx.timeouts.heartbeat_interval_ms).unwrap_or(i32::MAX);
        Ok(ConsumerGroupHeartbeatResponse::default()
            .with_member_id(Some(id))
            .with_member_epoch(member.current.epoch)
            .with_heartbeat_interval_ms(interval)
            .with_assignment(assignment))
    }

    /// Takes up what a member says of itself, which was `before` until now, and takes it as far
    /// towards its target as it can go.
    pub(super) fn take_up(
        &mut self,
        cx: &mut Context<'_>,
        member: &mut Member,
        before: &Member,
        held: Option<&Partitions>,
    ) {
        let known = self.members.contains_key(&member.id);
        let subscribed_anew = member.metadata.topics != before.metadata.topics
            || member.metadata.regex != before.metadata.regex;
        self.put(member.clone());
        self.refresh(cx, subscribed_anew);
        if member.metadata != before.metadata || !known {
            let metadata = Some(member.metadata.clone());
            self.write(cx, ConsumerChange::Member(member.id.clone(), metadata));
        }
        self.retarget(cx);
        self.advance(cx, member, held);
    }

    pub(in super::super) fn check_room(
        &self,
        cx: &Context<'_>,
        id: &StrBytes,
        request: &ConsumerGroupHeartbeatRequest,
    ) -> Result<(), Refused> {
        let full = |why: &str| Err(refused(ResponseError::GroupMaxSizeReached, why));
        if !self.members.contains_key(id) && self.members.len() >= cx.config.members_max {
            return full("the group has as many members as it may");
        }
        let Some(topics) = &request.subscribed_topic_names else {
            return Ok(());
        };
        let others = self.members.values().filter(|member| member.id != *id);
        let others: usize = others
            .flat_map(|member| &member.metadata.topics)
            .map(|topic| topic.len())
            .sum();
        let own: usize = topics.iter().map(|topic| topic.len()).sum();
        match others + own <= cx.config.group_bytes_max {
            true => Ok(()),
            false => full("the subscriptions of the group are larger than they may be"),
        }
    }
}

impl Member {
    /// Takes over what a heartbeat says; what it does not say stays.
    fn update(&mut self, request: &ConsumerGroupHeartbeatRequest, client: &Client) {
        let client = client.short();
        let metadata = &mut self.metadata;
        metadata.classic = None;
        metadata.client_id = client.id;
        metadata.client_host = client.host;
        if let Some(instance_id) = &request.instance_id {
            metadata.instance_id = Some(owned(instance_id));
        }
        if let Some(rack_id) = &request.rack_id {
            metadata.rack_id = Some(owned(rack_id));
        }
        if let Some(assignor) = &request.server_assignor {
            metadata.assignor = Some(owned(assignor)).filter(|name| !name.is_empty());
        }
        if request.rebalance_timeout_ms >= 0 {
            metadata.rebalance_timeout_ms = request.rebalance_timeout_ms;
        }
        if let Some(topics) = &request.subscribed_topic_names {
            let mut topics: Vec<_> = topics.iter().map(|topic| owned(&topic.0)).collect();
            topics.sort();
            topics.dedup();
            metadata.topics = topics;
        }
        if let Some(regex) = &request.subscribed_topic_regex {
            metadata.regex = Some(owned(regex)).filter(|regex| !regex.is_empty());
        }
    }
}

/// The rules that a heartbeat must keep whatever its group is, in Kafka's words where clients may
/// show them; and its pattern, if it brings one.
fn check(beat: &Beat) -> Result<Option<Pattern>, Refused> {
    let request = &beat.request;
    let invalid = |why: &str| Err(refused(ResponseError::InvalidRequest, why));
    let optional = [
        ("InstanceId", &request.instance_id),
        ("RackId", &request.rack_id),
    ];
    if let Some((name, _)) = optional
        .iter()
        .find(|(_, value)| value.as_ref().is_some_and(|value| value.is_empty()))
    {
        return invalid(&format!("{name} can't be empty."));
    }
    if request.group_id.is_empty() || request.group_id.len() > NAME_MAX {
        return invalid("GroupId can't be empty, or longer than 1024 bytes.");
    }
    let lengths = optional.iter().filter_map(|(_, value)| value.as_ref());
    if lengths
        .chain([&request.member_id])
        .any(|value| value.len() > NAME_MAX)
    {
        return invalid("an id is longer than 1024 bytes");
    }
    let joins = request.member_epoch == JOIN;
    if request.member_id.is_empty() && (beat.version >= OWN_MEMBER_ID || !joins) {
        return invalid("MemberId can't be empty.");
    }
    match request.member_epoch {
        JOIN => check_join(request)?,
        LEAVE_FOR_A_WHILE if request.instance_id.is_none() => {
            return invalid("InstanceId can't be null.");
        }
        ..LEAVE_FOR_A_WHILE => return invalid("MemberEpoch is invalid."),
        _ => {}
    }
    if let Some(name) = &request.server_assignor
        && !name.is_empty()
        && Assignor::named(name).is_none()
    {
        let known = Assignor::names();
        return Err(refused(
            ResponseError::UnsupportedAssignor,
            format!(
                "ServerAssignor {} is not supported. Supported assignors: {known}.",
                &**name
            ),
        ));
    }
    match &request.subscribed_topic_regex {
        Some(regex) if !regex.is_empty() => Pattern::new(regex).map(Some).map_err(|why| {
            refused(
                ResponseError::InvalidRegularExpression,
                format!("SubscribedTopicRegex `{}` is not valid: {why}", &**regex),
            )
        }),
        _ => Ok(None),
    }
}

fn check_join(request: &ConsumerGroupHeartbeatRequest) -> Result<(), Refused> {
    let invalid = |why: &str| Err(refused(ResponseError::InvalidRequest, why));
    if request.rebalance_timeout_ms < 0 {
        return invalid("RebalanceTimeoutMs must be provided in first request.");
    }
    if request
        .topic_partitions
        .as_ref()
        .is_none_or(|topics| !topics.is_empty())
    {
        return invalid("TopicPartitions must be empty when (re-)joining.");
    }
    if request.subscribed_topic_names.is_none() && request.subscribed_topic_regex.is_none() {
        return invalid(
            "Either SubscribedTopicNames or SubscribedTopicRegex must be provided in first request.",
        );
    }
    Ok(())
}

/// A member that tells everything about itself has lost track, and is told everything.
fn is_full(request: &ConsumerGroupHeartbeatRequest) -> bool {
    let subscribes =
        request.subscribed_topic_names.is_some() || request.subscribed_topic_regex.is_some();
    let full =
        request.rebalance_timeout_ms >= 0 && subscribes && request.topic_partitions.is_some();
    full || request.member_epoch == JOIN
}

fn assignment(partitions: &Partitions) -> Assignment {
    let topic = |(id, indexes): (Uuid, &std::collections::BTreeSet<i32>)| {
        TopicPartitions::default()
            .with_topic_id(id)
            .with_partitions(indexes.iter().copied().collect())
    };
    Assignment::default().with_topic_partitions(partitions.topics().map(topic).collect())
}
