//! The outline of each request that is served, field by field as in Kafka's message definitions
//! (`clients/src/main/resources/common/message`). Only sizes matter here, so neighbours of fixed
//! size that share their versions are one part.

use super::outline::{Part, bytes, fixed, nullable, plain, structs, text};

/// Transactional id, acks and timeout, topics: name or id, partitions: index, records.
pub(super) const PRODUCE: &[Part] = &[
    text(),
    fixed(2 + 4),
    structs(&[
        text().until(12),
        fixed(16).since(13),
        structs(&[fixed(4), bytes()]),
    ]),
];

/// Replica; max wait, min bytes, max bytes, isolation level; session id and epoch; topics: name or
/// id, partitions: index, leader epoch, offset, last fetched epoch, log start, max bytes; forgotten
/// topics; rack.
pub(super) const FETCH: &[Part] = &[
    fixed(4).until(14),
    fixed(4 + 4 + 4 + 1),
    fixed(4 + 4).since(7),
    structs(&[
        text().until(12),
        fixed(16).since(13),
        structs(&[
            fixed(4),
            fixed(4).since(9),
            fixed(8),
            fixed(4).since(12),
            fixed(8).since(5),
            fixed(4),
        ]),
    ]),
    structs(&[text().until(12), fixed(16).since(13), plain(&fixed(4))]).since(7),
    text().since(11),
];

/// Replica, isolation level, topics: name, partitions: index, leader epoch, timestamp; timeout.
pub(super) const LIST_OFFSETS: &[Part] = &[
    fixed(4),
    fixed(1).since(2),
    structs(&[text(), structs(&[fixed(4), fixed(4).since(4), fixed(8)])]),
    fixed(4).since(10),
];

/// Topics: id, name; auto-creation; authorized operations of the cluster and of topics.
pub(super) const METADATA: &[Part] = &[
    structs(&[fixed(16).since(10), text()]),
    fixed(1).since(4),
    fixed(1).since(8).until(10),
    fixed(1).since(8),
];

/// Replica, topics: name, partitions: index, current and wanted leader epoch.
pub(super) const OFFSET_FOR_LEADER_EPOCH: &[Part] = &[
    fixed(4).since(3),
    structs(&[text(), structs(&[fixed(4 + 4 + 4)])]),
];

/// The client's name and version.
pub(super) const API_VERSIONS: &[Part] = &[text().since(3), text().since(3)];

/// The mechanism.
pub(super) const SASL_HANDSHAKE: &[Part] = &[text()];

/// The token.
pub(super) const SASL_AUTHENTICATE: &[Part] = &[bytes()];

/// Transactional id, timeout; producer id and epoch.
pub(super) const INIT_PRODUCER_ID: &[Part] = &[text(), fixed(4), fixed(8 + 2).since(3)];

/// Key, key type; several keys.
pub(super) const FIND_COORDINATOR: &[Part] =
    &[text().until(3), fixed(1).since(1), plain(&text()).since(4)];

/// Topics: name, partitions and replication factor, assignments: partition, brokers; configs: name
/// and value; timeout and validate only.
pub(super) const CREATE_TOPICS: &[Part] = &[
    structs(&[
        text(),
        fixed(4 + 2),
        structs(&[fixed(4), plain(&fixed(4))]),
        structs(&[text(), text()]),
    ]),
    fixed(4 + 1),
];

/// Topics by name and id; by name only; timeout.
pub(super) const DELETE_TOPICS: &[Part] = &[
    structs(&[text(), fixed(16)]).since(6),
    plain(&text()).until(5),
    fixed(4),
];

/// Topics: name, count, assignments: brokers; timeout and validate only.
pub(super) const CREATE_PARTITIONS: &[Part] = &[
    structs(&[text(), fixed(4), structs(&[plain(&fixed(4))])]),
    fixed(4 + 1),
];

/// Topics: name, partitions: index and offset; timeout.
pub(super) const DELETE_RECORDS: &[Part] =
    &[structs(&[text(), structs(&[fixed(4 + 8)])]), fixed(4)];

/// Resources: type, name, keys; synonyms; documentation.
pub(super) const DESCRIBE_CONFIGS: &[Part] = &[
    structs(&[fixed(1), text(), plain(&text())]),
    fixed(1),
    fixed(1).since(3),
];

/// Resources: type, name, configs: name and value; validate only.
pub(super) const ALTER_CONFIGS: &[Part] = &[
    structs(&[fixed(1), text(), structs(&[text(), text()])]),
    fixed(1),
];

/// Resources: type, name, configs: name, operation, value; validate only.
pub(super) const INCREMENTAL_ALTER_CONFIGS: &[Part] = &[
    structs(&[fixed(1), text(), structs(&[text(), fixed(1), text()])]),
    fixed(1),
];

/// Kinds of resources.
pub(super) const LIST_CONFIG_RESOURCES: &[Part] = &[plain(&fixed(1)).since(1)];

/// Authorized operations; endpoint type; fenced brokers.
pub(super) const DESCRIBE_CLUSTER: &[Part] = &[fixed(1), fixed(1).since(1), fixed(1).since(2)];

/// Topics; partitions at most; where to go on: topic and partition.
pub(super) const DESCRIBE_TOPIC_PARTITIONS: &[Part] =
    &[structs(&[text()]), fixed(4), nullable(&[text(), fixed(4)])];

/// Users.
pub(super) const DESCRIBE_SCRAM: &[Part] = &[structs(&[text()])];

/// Deletions: name, mechanism; upsertions: name, mechanism and iterations, salt, salted password.
pub(super) const ALTER_SCRAM: &[Part] = &[
    structs(&[text(), fixed(1)]),
    structs(&[text(), fixed(1 + 4), bytes(), bytes()]),
];

/// Topics: name, partitions.
pub(super) const DESCRIBE_LOG_DIRS: &[Part] = &[structs(&[text(), plain(&fixed(4))])];

/// Group, session timeout, rebalance timeout, member, instance, protocol type, protocols: name and
/// metadata; reason.
pub(super) const JOIN_GROUP: &[Part] = &[
    text(),
    fixed(4),
    fixed(4).since(1),
    text(),
    text().since(5),
    text(),
    structs(&[text(), bytes()]),
    text().since(8),
];

/// Group, generation, member, instance, protocol type and name, assignments: member and bytes.
pub(super) const SYNC_GROUP: &[Part] = &[
    text(),
    fixed(4),
    text(),
    text().since(3),
    text().since(5),
    text().since(5),
    structs(&[text(), bytes()]),
];

/// Group, generation, member, instance.
pub(super) const HEARTBEAT: &[Part] = &[text(), fixed(4), text(), text().since(3)];

/// Group, member; members: id, instance, reason.
pub(super) const LEAVE_GROUP: &[Part] = &[
    text(),
    text().until(2),
    structs(&[text(), text(), text().since(5)]).since(3),
];

/// Group, generation, member, instance, retention, topics: name, partitions: index and offset,
/// leader epoch, metadata.
pub(super) const OFFSET_COMMIT: &[Part] = &[
    text(),
    fixed(4),
    text(),
    text().since(7),
    fixed(8).until(4),
    structs(&[text(), structs(&[fixed(4 + 8), fixed(4).since(6), text()])]),
];

/// Group, topics: name, partitions; groups: id, member, epoch, topics: name, partitions; stable.
pub(super) const OFFSET_FETCH: &[Part] = &[
    text().until(7),
    structs(&[text(), plain(&fixed(4))]).until(7),
    structs(&[
        text(),
        text().since(9),
        fixed(4).since(9),
        structs(&[text(), plain(&fixed(4))]),
    ])
    .since(8),
    fixed(1).since(7),
];

/// Group, member, epoch, instance, rack, rebalance timeout, topics, expression, assignor; partitions
/// held: topic id, partitions.
pub(super) const CONSUMER_GROUP_HEARTBEAT: &[Part] = &[
    text(),
    text(),
    fixed(4),
    text(),
    text(),
    fixed(4),
    plain(&text()),
    text().since(1),
    text(),
    structs(&[fixed(16), plain(&fixed(4))]),
];

/// Groups; authorized operations.
pub(super) const CONSUMER_GROUP_DESCRIBE: &[Part] = &[plain(&text()), fixed(1)];

/// Groups; authorized operations.
pub(super) const DESCRIBE_GROUPS: &[Part] = &[plain(&text()), fixed(1).since(3)];

/// States; types.
pub(super) const LIST_GROUPS: &[Part] = &[plain(&text()).since(4), plain(&text()).since(5)];

/// Groups.
pub(super) const DELETE_GROUPS: &[Part] = &[plain(&text())];

/// Group, topics: name, partitions: index.
pub(super) const OFFSET_DELETE: &[Part] = &[text(), structs(&[text(), structs(&[fixed(4)])])];

/// Transactional id, producer id and epoch, topics: name, partitions.
pub(super) const ADD_PARTITIONS_TO_TXN: &[Part] =
    &[text(), fixed(8 + 2), structs(&[text(), plain(&fixed(4))])];

/// Transactional id, producer id and epoch, group.
pub(super) const ADD_OFFSETS_TO_TXN: &[Part] = &[text(), fixed(8 + 2), text()];

/// Transactional id, producer id and epoch, committed or not.
pub(super) const END_TXN: &[Part] = &[text(), fixed(8 + 2 + 1)];

/// Markers: producer id and epoch, committed or not, topics: name, partitions; coordinator's epoch.
pub(super) const WRITE_TXN_MARKERS: &[Part] = &[structs(&[
    fixed(8 + 2 + 1),
    structs(&[text(), plain(&fixed(4))]),
    fixed(4),
])];

/// Transactional id, group, producer id and epoch, generation, member, instance, topics: name,
/// partitions: index and offset, leader epoch, metadata.
pub(super) const TXN_OFFSET_COMMIT: &[Part] = &[
    text(),
    text(),
    fixed(8 + 2),
    fixed(4).since(3),
    text().since(3),
    text().since(3),
    structs(&[text(), structs(&[fixed(4 + 8), fixed(4).since(2), text()])]),
];

/// Topics: name, partitions.
pub(super) const DESCRIBE_PRODUCERS: &[Part] = &[structs(&[text(), plain(&fixed(4))])];

/// Transactional ids.
pub(super) const DESCRIBE_TRANSACTIONS: &[Part] = &[plain(&text())];

/// States, producer ids, duration.
pub(super) const LIST_TRANSACTIONS: &[Part] =
    &[plain(&text()), plain(&fixed(8)), fixed(8).since(1)];
