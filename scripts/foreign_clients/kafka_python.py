"""kafka-python: the protocol once more, written in Python from the protocol's description."""

import threading

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, OffsetAndMetadata, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType

from .check import CODECS, RECORDS, WAIT_MAX_SECONDS, eventually, fresh, same

WAIT_MAX_MS = WAIT_MAX_SECONDS * 1000
# A poll that ends while kafka-python 3.0 joins its group drops the join: the member joins anew for ever, or falls
# silent. So a poll takes longer than a join does, and two members are never polled in turns by one thread.
POLL_MAX_MS = 3000
# It refuses to send a header without a value.
SENDABLE = [record for record in RECORDS if all(value is not None for _, value in record["headers"])]
SENDABLE += [{"key": b"headers", "value": b"x", "headers": [("twice", b"1"), ("twice", b"2"), ("empty", b"")]}]


def settings_for(broker):
    """Where the broker is, and how to log in if it asks for that."""
    return {"bootstrap_servers": broker.address, **getattr(broker, "words", {})}


def admin(broker):
    return KafkaAdminClient(**settings_for(broker), request_timeout_ms=WAIT_MAX_MS)


def topic(broker, partitions=1, **configs):
    name = fresh("kafka-python")
    client = admin(broker)
    wanted = {name: {"num_partitions": partitions, "replication_factor": 1, "configs": configs}}
    client.create_topics(wanted, timeout_ms=WAIT_MAX_MS, wait_for_metadata=True)
    client.close()
    return name


def produce(broker, name, records, **settings):
    """Sends records and returns the offsets that the broker gave them."""
    producer = KafkaProducer(**{**settings_for(broker), "acks": "all", **settings})
    sent = [producer.send(name, **record) for record in records]
    producer.flush(WAIT_MAX_SECONDS)
    offsets = [future.get(WAIT_MAX_SECONDS).offset for future in sent]
    producer.close(WAIT_MAX_SECONDS)
    return offsets


def consumer(broker, group=None, **settings):
    defaults = {"auto_offset_reset": "earliest", "enable_auto_commit": False}
    if group:
        defaults |= {"group_id": group, "session_timeout_ms": 6000, "heartbeat_interval_ms": 300}
    return KafkaConsumer(**{**settings_for(broker), **defaults, **settings})


def read(client, count):
    """The next `count` records."""
    records = []

    def enough():
        for polled in client.poll(timeout_ms=POLL_MAX_MS, max_records=count - len(records)).values():
            records.extend(polled)
        return len(records) >= count

    eventually(f"{count} records come", enough)
    return records


def member(broker, group, name):
    client = consumer(broker, group)
    client.subscribe([name])
    return client


def read_all(broker, name, count):
    client = consumer(broker)
    client.assign([TopicPartition(name, 0)])
    records = read(client, count)
    client.close()
    return records


def as_record(record):
    return {"key": record.key, "value": record.value, "headers": [tuple(header) for header in record.headers]}


def numbered(count):
    return [{"key": f"{n}".encode(), "value": f"{n}".encode()} for n in range(count)]


def it_lists_topics_with_their_partitions(broker):
    name = topic(broker, partitions=3)
    client = admin(broker)
    same("listed", name in client.list_topics(), True)
    described = client.describe_topics([name])[0]
    same("partitions", sorted(part["partition_index"] for part in described["partitions"]), [0, 1, 2])
    same("brokers", len(client.describe_cluster()["brokers"]), 1)
    client.close()


def records_come_back_byte_for_byte(broker):
    name = topic(broker)
    same("offsets", produce(broker, name, SENDABLE), list(range(len(SENDABLE))))
    same("records", [as_record(record) for record in read_all(broker, name, len(SENDABLE))], SENDABLE)


def every_compression_codec_survives(broker):
    for codec in CODECS:
        name = topic(broker)
        produce(broker, name, SENDABLE * 3, compression_type=codec, linger_ms=50)
        got = [as_record(record) for record in read_all(broker, name, len(SENDABLE) * 3)]
        same(f"records with {codec}", got, SENDABLE * 3)


def offsets_are_found_by_time(broker):
    name = topic(broker)
    stamps = [1000, 2000, 3000]
    produce(broker, name, [{"value": b"x", "timestamp_ms": at} for at in stamps])
    client, part = consumer(broker), TopicPartition(name, 0)
    found = [client.offsets_for_times({part: at})[part] for at in [1, 2000, 2001]]
    same("before the first, on one, between two", [(at.offset, at.timestamp) for at in found], list(enumerate(stamps)))
    same("after the last", client.offsets_for_times({part: 9_000_000_000_000})[part], None)
    ends = (client.beginning_offsets([part])[part], client.end_offsets([part])[part])
    same("beginning and end", ends, (0, 3))
    client.close()


def a_commit_is_kept_with_its_metadata_and_resumed_after(broker):
    name, group = topic(broker), fresh("commit")
    part = TopicPartition(name, 0)
    produce(broker, name, numbered(10))
    client = member(broker, group, name)
    read(client, 4)
    client.commit({part: OffsetAndMetadata(4, "up to four", -1)})
    client.close()

    client = member(broker, group, name)
    records = read(client, 6)
    kept = client.committed(part, metadata=True)
    same("offset and metadata", (kept.offset, kept.metadata), (4, "up to four"))
    same("what follows", [int(record.value) for record in records], [4, 5, 6, 7, 8, 9])
    client.close()


class Polled:
    """A member that a thread of its own polls until it leaves."""

    def __init__(self, client):
        self.client, self.leaving = client, threading.Event()
        self.thread = threading.Thread(target=self.poll, daemon=True)
        self.thread.start()

    def poll(self):
        while not self.leaving.is_set():
            self.client.poll(timeout_ms=POLL_MAX_MS)

    def owned(self):
        return sorted(part.partition for part in self.client.assignment())

    def leave(self):
        self.leaving.set()
        self.thread.join(WAIT_MAX_SECONDS)
        self.client.close()


def two_members_share_and_one_leaves(broker):
    name, group = topic(broker, partitions=4), fresh("members")
    stays, leaves = (Polled(member(broker, group, name)) for _ in range(2))
    shared = lambda: sorted([len(stays.owned()), len(leaves.owned())])  # noqa: E731
    eventually("each of two members has two partitions", lambda: shared() == [2, 2])
    same("every partition has one owner", sorted(stays.owned() + leaves.owned()), [0, 1, 2, 3])
    leaves.leave()
    eventually("the one that stays has all", lambda: stays.owned() == [0, 1, 2, 3])
    stays.leave()


def groups_are_listed_described_and_deleted(broker):
    name, group = topic(broker), fresh("listed")
    produce(broker, name, numbered(2))
    client, administrator = member(broker, group, name), admin(broker)
    read(client, 2)
    client.commit()
    listed = [found for found in administrator.list_groups() if found["group_id"] == group]
    same("listed", [found["protocol_type"] for found in listed], ["consumer"])
    described = administrator.describe_groups([group])[group]
    same("described", (described["group_state"], len(described["members"])), ("Stable", 1))
    same("deleting it with a member", administrator.delete_groups([group])[group], "NonEmptyGroupError")
    client.close()
    kept = administrator.list_group_offsets([group])[group]
    same("offsets", {part: at.offset for part, at in kept.items()}, {TopicPartition(name, 0): 2})
    same("deleting it", administrator.delete_groups([group])[group], "OK")
    same("it is gone", [found for found in administrator.list_groups() if found["group_id"] == group], [])
    administrator.close()


def a_groups_offsets_are_deleted(broker):
    name, group = topic(broker), fresh("offsets")
    part = TopicPartition(name, 0)
    client = consumer(broker, group)
    client.assign([part])
    client.commit({part: OffsetAndMetadata(1, "", -1)})
    client.close()
    administrator = admin(broker)
    answer = administrator.delete_group_offsets(group, [part])
    same("the answer", answer[part].__name__, "NoError")
    same("offsets", administrator.list_group_offsets([group])[group], {})
    administrator.close()


def topics_are_created_grown_and_deleted(broker):
    name, administrator = topic(broker, partitions=2), admin(broker)
    administrator.create_partitions({name: 5})

    def partitions():
        return len(administrator.describe_topics([name])[0]["partitions"])

    eventually("five partitions", lambda: partitions() == 5)
    administrator.delete_topics([name])
    eventually("it is gone", lambda: name not in administrator.list_topics())
    administrator.close()


def configs_are_described_and_altered(broker):
    name, administrator = topic(broker, **{"retention.ms": "3600000"}), admin(broker)

    def retention():
        asked = [ConfigResource(ConfigResourceType.TOPIC, name)]
        told = administrator.describe_configs(asked, config_filter="all")["topic"][name]
        return told["retention.ms"]["value"]

    same("as created", str(retention()), "3600000")
    administrator.alter_configs([ConfigResource(ConfigResourceType.TOPIC, name, {"retention.ms": "7200000"})])
    same("as altered", str(retention()), "7200000")
    administrator.close()


def records_are_deleted_before_an_offset(broker):
    name = topic(broker)
    part = TopicPartition(name, 0)
    produce(broker, name, numbered(10))
    administrator = admin(broker)
    administrator.delete_records({part: 6})
    administrator.close()
    client = consumer(broker)
    same("beginning", client.beginning_offsets([part])[part], 6)
    client.close()


CHECKS = [
    it_lists_topics_with_their_partitions,
    records_come_back_byte_for_byte,
    every_compression_codec_survives,
    offsets_are_found_by_time,
    a_commit_is_kept_with_its_metadata_and_resumed_after,
    two_members_share_and_one_leaves,
    groups_are_listed_described_and_deleted,
    a_groups_offsets_are_deleted,
    topics_are_created_grown_and_deleted,
    configs_are_described_and_altered,
    records_are_deleted_before_an_offset,
]
