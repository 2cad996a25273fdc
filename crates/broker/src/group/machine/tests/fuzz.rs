//! A log that is not what this coordinator would have written, and requests behind it.

use kafka_protocol::messages::GroupId;

use super::super::*;
use super::world::{subscription, text};
use crate::coordinator::fuzz::{NOW, read_back, read_damaged, records};
use crate::coordinator::{ProducerEpoch, Verdict};
use crate::fuzz::inputs;
use crate::group::record::{
    Change, CommittedOffset, ConsumerChange, ConsumerMember, CurrentAssignment, GroupEpoch,
    GroupMetadata, MemberMetadata, Partitions,
};
use uuid::Uuid;

fn position() -> CommittedOffset {
    CommittedOffset {
        offset: 42,
        leader_epoch: 0,
        metadata: text("m"),
        commit_ms: NOW.unix_ms,
        expire_ms: None,
    }
}

/// A record of each kind.
fn each_kind() -> Vec<Change> {
    let producer = ProducerEpoch { id: 1, epoch: 0 };
    let topic = Uuid::from_u128(7);
    let mut partitions = Partitions::default();
    (0..3).for_each(|index| partitions.insert(topic, index));
    let offset = |partition, value| Change::Offset {
        group: text("g"),
        topic: text("orders"),
        partition,
        value,
    };
    let consumer = |change| Change::Consumer {
        group: text("h"),
        change,
    };
    let member = |id| MemberMetadata {
        member_id: text(id),
        instance_id: None,
        client_id: text("c"),
        client_host: text("/127.0.0.1"),
        rebalance_timeout_ms: 1_000,
        session_timeout_ms: 1_000,
        subscription: subscription("orders"),
        assignment: Bytes::from_static(
            b"\0\0\0\0\0\x01\0\x06orders\0\0\0\x01\0\0\0\0\xff\xff\xff\xff",
        ),
    };
    let group = |value| Change::Group {
        group: text("g"),
        value,
    };
    vec![
        offset(0, Some(position())),
        offset(
            1,
            Some(CommittedOffset {
                expire_ms: Some(5),
                leader_epoch: -1,
                ..position()
            }),
        ),
        offset(0, None),
        Change::Pending {
            producer,
            group: text("g"),
            topic: text("orders"),
            partition: 0,
            value: position(),
        },
        Change::TransactionEnd {
            producer,
            verdict: Verdict::Commit,
        },
        group(Some(GroupMetadata {
            protocol_type: text("consumer"),
            generation: 3,
            protocol: Some(text("range")),
            leader: Some(text("m-1")),
            state_ms: NOW.unix_ms,
            members: vec![member("m-1"), member("m-2")],
        })),
        group(None),
        consumer(ConsumerChange::Epoch(Some(GroupEpoch {
            epoch: 4,
            metadata_hash: 9,
        }))),
        consumer(ConsumerChange::Epoch(None)),
        consumer(ConsumerChange::Member(
            text("m-1"),
            Some(ConsumerMember {
                topics: vec![text("orders")],
                regex: Some(text("ord.*")),
                instance_id: Some(text("i")),
                rebalance_timeout_ms: 1_000,
                ..ConsumerMember::default()
            }),
        )),
        consumer(ConsumerChange::Member(text("m-1"), None)),
        consumer(ConsumerChange::TargetEpoch(Some(4))),
        consumer(ConsumerChange::Target(
            text("m-1"),
            Some(partitions.clone()),
        )),
        consumer(ConsumerChange::Current(
            text("m-1"),
            Some(CurrentAssignment {
                epoch: 4,
                previous_epoch: 3,
                assigned: partitions,
                ..CurrentAssignment::default()
            }),
        )),
    ]
}

#[test]
fn a_strange_log_of_groups_is_taken_up_and_served() {
    let records = records("groups", &each_kind());
    inputs(|random| {
        let mut machine = read_back(random, &records, || Machine::new(Config::default(), NOW));
        let mut now = NOW;
        for number in 0..12 {
            let token = Token(number);
            now.tick_ms += random.below(100_000) as u64;
            now.unix_ms = now.unix_ms.saturating_add(random.number());
            let group = text(["g", "h", ""][random.below(3)]);
            match random.below(5) {
                0 => machine.on_request(now, token, Request::List),
                1 => machine.on_request(now, token, Request::Describe(group)),
                2 => machine.on_request(now, token, Request::Delete(group)),
                3 => {
                    let heartbeat = HeartbeatRequest::default()
                        .with_group_id(GroupId(group))
                        .with_member_id(text("m-1"))
                        .with_generation_id(3);
                    machine.on_request(now, token, Request::Heartbeat(heartbeat));
                }
                _ => machine.on_tick(now),
            }
            machine.take_output();
            machine.deadline();
        }
    });
}

#[test]
fn a_damaged_log_of_groups_is_taken_up_or_refused_by_name() {
    let changes = each_kind();
    inputs(|random| {
        let make = || Machine::new(Config::default(), NOW);
        if let Some(mut machine) = read_damaged(random, &changes, make) {
            machine.replay_done(NOW);
            machine.on_tick(NOW);
            machine.take_output();
        }
    });
}
