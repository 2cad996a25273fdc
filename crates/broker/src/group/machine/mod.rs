//! The coordinator's decisions, without a clock, a disk or a network.
//!
//! Rebalances are made of time: who is late, who is silent, how long the others wait for them.
//! Behind a socket those moments cannot be tested, so they are decided here, where time is an
//! argument. A request yields replies, now or at a later step, and the [`Change`]s that make them
//! true; a caller releases the replies of a step when the changes of that step, and of all steps
//! before it, are durable. Replaying the changes rebuilds the state, as in Apache Kafka's
//! `GroupMetadataManager`.
//!
//! | file | what it decides |
//! |---|---|
//! | `group` | what a group is: members of one protocol or the other, and offsets |
//! | `classic` | groups whose members agree among themselves |
//! | `consumer`, `assignor`, `topics` | groups whose members are told what to read (KIP-848) |
//! | `migration` | from the one kind of group to the other while it has members |
//! | `offsets`, `expiry` | commits and reads of offsets; their deletion and expiry |
//! | `admin` | list, describe, delete |
//! | `transactions` | offsets that count when their transaction does |
//! | `replay` | from changes to state and back |

mod admin;
mod assignor;
mod classic;
mod consumer;
mod expiry;
mod group;
mod migration;
mod offsets;
mod replay;
mod topics;
mod transactions;

#[cfg(test)]
mod consumer_simulation;
#[cfg(test)]
mod mixed_simulation;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::consumer_group_describe_response;
use kafka_protocol::messages::delete_groups_response::DeletableGroupResult;
use kafka_protocol::messages::describe_groups_response::DescribedGroup;
use kafka_protocol::messages::list_groups_response::ListedGroup;
use kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestGroup;
use kafka_protocol::messages::offset_fetch_response::OffsetFetchResponseGroup;
use kafka_protocol::messages::{
    ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse, HeartbeatRequest,
    HeartbeatResponse, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, LeaveGroupResponse,
    OffsetCommitRequest, OffsetCommitResponse, OffsetDeleteRequest, OffsetDeleteResponse,
    SyncGroupRequest, SyncGroupResponse, TxnOffsetCommitRequest, TxnOffsetCommitResponse,
};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::Config;
use super::record::Change;
use super::settings::Timeouts;
use crate::coordinator::{self, ProducerEpoch, Verdict};
pub(crate) use crate::coordinator::{Now, Token};
use classic::Join;
use consumer::Beat;
use group::Group;
pub(crate) use offsets::commit_refused;
pub(crate) use topics::{SharedTopics, Topics};
use transactions::Transactions;
pub(crate) use transactions::pending_refused;

/// Bytes of a group id, instance id or protocol name at most. Kafka's only bound is the 32 KiB of
/// its length field; a longer name than this is a mistake.
const NAME_MAX: usize = 1_024;
/// Bytes of a client id that are kept in a member id and in the log.
const CLIENT_ID_MAX: usize = 255;

/// Who sent a request, as `DescribeGroups` shows it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Client {
    /// The client id of the request header; empty when it sent none.
    pub(crate) id: StrBytes,
    /// The peer's address as Kafka writes it, for instance `/127.0.0.1`.
    pub(crate) host: StrBytes,
}

/// What is asked of the machine, each about one group except [`Request::List`] and
/// [`Request::ForgetTopics`].
#[derive(Debug, Clone)]
pub(crate) enum Request {
    /// Wants to be a member of the next generation.
    Join {
        request: JoinGroupRequest,
        version: i16,
        client: Client,
        /// Randomness for the member's id, should it need one.
        fresh_id: Uuid,
        topics: SharedTopics,
    },
    /// Wants its assignment, and if it is the leader, brings everybody's.
    Sync(SyncGroupRequest),
    /// Is alive.
    Heartbeat(HeartbeatRequest),
    /// Goes; `members` names who (versions below 3 are brought into this form by the caller).
    Leave(LeaveGroupRequest),
    /// All that a KIP-848 member says: that it joins, is alive, what it holds, that it goes.
    ConsumerHeartbeat {
        request: ConsumerGroupHeartbeatRequest,
        version: i16,
        client: Client,
        /// Randomness for the member's id, should it need one.
        fresh_id: Uuid,
        topics: SharedTopics,
    },
    /// Stores positions; topics and partitions were checked by the caller.
    CommitOffsets {
        request: OffsetCommitRequest,
        version: i16,
    },
    /// Reads positions.
    FetchOffsets(OffsetFetchRequestGroup),
    /// Reads positions that no open transaction may change.
    FetchStableOffsets(OffsetFetchRequestGroup),
    /// A producer's transaction may commit offsets.
    Admit(ProducerEpoch),
    /// Stores positions that count when their transaction does.
    CommitPending(TxnOffsetCommitRequest),
    /// A transaction that may have committed offsets ended.
    EndTransaction(ProducerEpoch, Verdict),
    /// Names all groups.
    List,
    /// Shows a classic group.
    Describe(StrBytes),
    /// Shows a KIP-848 group.
    DescribeConsumers {
        group: StrBytes,
        topics: SharedTopics,
    },
    /// Deletes an empty group with its offsets.
    Delete(StrBytes),
    /// Deletes some of a group's offsets.
    DeleteOffsets(OffsetDeleteRequest),
    /// Deletes all groups' offsets of topics that were deleted.
    ForgetTopics(Vec<StrBytes>),
    /// Gives a group times of its own; `None` takes them away.
    SetTimeouts {
        group: StrBytes,
        timeouts: Option<Timeouts>,
    },
}

/// What the machine answers.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Response {
    Join(JoinGroupResponse),
    Sync(SyncGroupResponse),
    Heartbeat(HeartbeatResponse),
    Leave(LeaveGroupResponse),
    ConsumerHeartbeat(ConsumerGroupHeartbeatResponse),
    CommitOffsets(OffsetCommitResponse),
    FetchOffsets(OffsetFetchResponseGroup),
    Admit,
    CommitPending(TxnOffsetCommitResponse),
    EndTransaction,
    List(Vec<ListedGroup>),
    Describe(DescribedGroup),
    DescribeConsumers(consumer_group_describe_response::DescribedGroup),
    Delete(DeletableGroupResult),
    DeleteOffsets(OffsetDeleteResponse),
    ForgetTopics,
    SetTimeouts,
}

/// What a step yielded; groups ask for nothing to be done outside.
pub(crate) type Output = coordinator::Output<Response, Change, Infallible>;

/// All groups of one partition of `__consumer_offsets`.
#[derive(Debug)]
pub(crate) struct Machine {
    config: Config,
    /// Of groups that have their own, whether they exist or not.
    own_timeouts: BTreeMap<StrBytes, Timeouts>,
    groups: BTreeMap<StrBytes, Group>,
    transactions: Transactions,
    /// When each group wants to be looked at; may be too early, since a heartbeat does not touch it.
    timers: BTreeSet<(u64, StrBytes)>,
    /// The newest snapshot of topics that came with a request.
    topics: SharedTopics,
    /// When offsets are looked through for expired ones.
    expiry_ms: u64,
    output: Output,
}

/// What a decision about one group has at hand.
struct Context<'a> {
    now: Now,
    config: &'a Config,
    /// Of this group.
    timeouts: Timeouts,
    topics: &'a Topics,
    output: &'a mut Output,
}

impl Machine {
    /// A machine without groups; feed it with [`Machine::replay`] before the first request.
    pub(crate) fn new(config: Config, now: Now) -> Self {
        let expiry_ms = now.tick_ms + config.offsets_retention_check_ms;
        Self {
            config,
            own_timeouts: BTreeMap::new(),
            groups: BTreeMap::new(),
            transactions: Transactions::default(),
            timers: BTreeSet::new(),
            topics: Arc::default(),
            expiry_ms,
            output: Output::default(),
        }
    }

    /// Decides on a request. Its reply is in the output of this step or of a later one.
    pub(crate) fn on_request(&mut self, now: Now, token: Token, request: Request) {
        match request {
            Request::Heartbeat(request) => self.heartbeat(now, token, &request),
            Request::FetchOffsets(request) => self.fetch_offsets(token, request, false),
            Request::FetchStableOffsets(request) => self.fetch_offsets(token, request, true),
            Request::Admit(producer) => self.admit(token, producer),
            Request::CommitPending(request) => self.commit_pending(now, token, &request),
            Request::EndTransaction(producer, verdict) => {
                self.end_transaction(token, producer, verdict);
            }
            Request::CommitOffsets { request, version } => {
                self.commit_offsets(now, token, &request, version);
            }
            Request::ConsumerHeartbeat {
                request,
                version,
                client,
                fresh_id,
                topics,
            } => {
                self.see(topics);
                self.consumer_heartbeat(
                    now,
                    Beat {
                        token,
                        request,
                        version,
                        client,
                        fresh_id,
                    },
                );
            }
            Request::Join {
                request,
                version,
                client,
                fresh_id,
                topics,
            } => {
                self.see(topics);
                self.join(
                    now,
                    Join {
                        token,
                        request,
                        version,
                        client,
                        fresh_id,
                    },
                );
            }
            Request::Sync(request) => self.sync(now, token, &request),
            Request::Leave(request) => self.leave(now, token, &request),
            Request::List => self.list(token),
            Request::Describe(group) => self.describe(token, group),
            Request::DescribeConsumers { group, topics } => {
                self.see(topics);
                self.describe_consumers(token, group);
            }
            Request::Delete(group) => self.delete(token, group),
            Request::DeleteOffsets(request) => self.delete_offsets(token, request),
            Request::ForgetTopics(topics) => self.forget_topics(token, &topics),
            Request::SetTimeouts { group, timeouts } => {
                self.set_timeouts(owned(&group), timeouts);
                self.reply(token, Response::SetTimeouts);
            }
        }
    }

    /// When [`Machine::on_tick`] is wanted, on the clock of [`Now::tick_ms`].
    pub(crate) fn deadline(&self) -> u64 {
        self.timers
            .first()
            .map_or(self.expiry_ms, |(at, _)| self.expiry_ms.min(*at))
    }

    /// Decides on what is due: late joins, silent members, expired offsets.
    pub(crate) fn on_tick(&mut self, now: Now) {
        while let Some((at, id)) = self.timers.first().cloned() {
            if at > now.tick_ms {
                break;
            }
            self.timers.pop_first();
            self.with_group(now, &id, |group, cx| {
                group.timer = None;
                group.on_tick(cx);
            });
        }
        if self.expiry_ms <= now.tick_ms {
            self.expiry_ms = now.tick_ms + self.config.offsets_retention_check_ms;
            self.expire_offsets(now);
        }
    }

    /// What the steps since the last call yielded.
    pub(crate) fn take_output(&mut self) -> Output {
        std::mem::take(&mut self.output)
    }

    /// Gives a group times of its own, or takes them away. Its members keep what they were told until they speak
    /// again.
    pub(crate) fn set_timeouts(&mut self, group: StrBytes, timeouts: Option<Timeouts>) {
        match timeouts {
            Some(timeouts) => self.own_timeouts.insert(group, timeouts),
            None => self.own_timeouts.remove(&group),
        };
    }

    fn timeouts(&self, group: &StrBytes) -> Timeouts {
        let own = self.own_timeouts.get(group);
        own.copied().unwrap_or(self.config.consumer)
    }

    fn see(&mut self, topics: SharedTopics) {
        if topics.version() > self.topics.version() {
            self.topics = topics;
        }
    }

    fn reply(&mut self, token: Token, response: Response) {
        self.output.replies.push((token, response));
    }

    /// Decides about one group, if it exists, and sees to its next deadline.
    fn with_group<R>(
        &mut self,
        now: Now,
        id: &StrBytes,
        decide: impl FnOnce(&mut Group, &mut Context<'_>) -> R,
    ) -> Option<R> {
        let timeouts = self.timeouts(id);
        let group = self.groups.get_mut(id)?;
        let mut cx = Context {
            now,
            config: &self.config,
            timeouts,
            topics: &self.topics,
            output: &mut self.output,
        };
        let decided = decide(group, &mut cx);
        group.downgrade(&mut cx);
        self.settle(id);
        Some(decided)
    }

    /// Brings the group's timer up to date, and forgets it when nothing is left of it.
    fn settle(&mut self, id: &StrBytes) {
        let Some(group) = self.groups.get_mut(id) else {
            return;
        };
        let blank = group.is_blank();
        let deadline = if blank { None } else { group.deadline() };
        if group.timer != deadline {
            if let Some(at) = group.timer.take() {
                self.timers.remove(&(at, group.id.clone()));
            }
            if let Some(at) = deadline {
                self.timers.insert((at, group.id.clone()));
            }
            group.timer = deadline;
        }
        if blank {
            self.groups.remove(id);
        }
    }
}

impl coordinator::Machine for Machine {
    type Request = Request;
    type Response = Response;
    type Change = Change;
    type Action = Infallible;

    fn on_request(&mut self, now: Now, token: Token, request: Request) {
        self.on_request(now, token, request);
    }

    fn on_tick(&mut self, now: Now) {
        self.on_tick(now);
    }

    fn deadline(&self) -> u64 {
        self.deadline()
    }

    fn take_output(&mut self) -> Output {
        self.take_output()
    }

    fn replay(&mut self, change: Change) {
        self.replay(change);
    }

    fn replay_done(&mut self, now: Now) {
        self.replay_done(now);
    }

    fn live(&self) -> impl Iterator<Item = Change> {
        self.live()
    }

    fn is_promise(response: &Response) -> bool {
        !matches!(response, Response::Heartbeat(_))
    }
}

impl Client {
    /// As much as is kept.
    fn short(&self) -> Self {
        let id = &self.id[..self.id.floor_char_boundary(CLIENT_ID_MAX)];
        Self {
            id: StrBytes::from_string(id.to_owned()),
            host: owned(&self.host),
        }
    }
}

impl Context<'_> {
    fn reply(&mut self, token: Token, response: Response) {
        self.output.replies.push((token, response));
    }

    fn write(&mut self, change: Change) {
        self.output.changes.push(change);
    }
}

/// A copy that does not hold on to the request it came in.
fn owned(text: &StrBytes) -> StrBytes {
    if text.is_empty() {
        StrBytes::new()
    } else {
        StrBytes::from_string(text.to_string())
    }
}

fn join_refused(member_id: StrBytes, error: ResponseError) -> Response {
    Response::Join(
        JoinGroupResponse::default()
            .with_error_code(error.code())
            .with_generation_id(-1)
            .with_protocol_name(Some(StrBytes::new()))
            .with_member_id(member_id),
    )
}

fn sync_refused(error: ResponseError) -> Response {
    Response::Sync(
        SyncGroupResponse::default()
            .with_error_code(error.code())
            .with_assignment(Bytes::new()),
    )
}

fn code(outcome: Result<(), ResponseError>) -> i16 {
    outcome.err().map_or(0, |error| error.code())
}
