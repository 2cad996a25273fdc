"""confluent-kafka: librdkafka of today under Python."""

import functools
import time

from confluent_kafka import (
    Consumer,
    ConsumerGroupTopicPartitions,
    KafkaError,
    KafkaException,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    OffsetSpec,
)

from .check import CODECS, RECORDS, WAIT_MAX_SECONDS, eventually, fresh, same


def settings_for(broker):
    """Where the broker is, and how to log in if it asks for that."""
    return {"bootstrap.servers": broker.address, **getattr(broker, "login", {})}


@functools.cache
def admin(broker):
    """One client for all checks: an answer is lost with the client that asked."""
    return AdminClient(settings_for(broker))


def answers(futures):
    """Waits for every answer of an admin call."""
    return {asked: future.result(WAIT_MAX_SECONDS) for asked, future in futures.items()}


def create_topic(broker, name, partitions=1, **configs):
    client = admin(broker)
    answers(client.create_topics([NewTopic(name, partitions, 1, config=configs)]))
    eventually("the topic is listed", lambda: name in client.list_topics(timeout=WAIT_MAX_SECONDS).topics)


def topic(broker, partitions=1, **configs):
    name = fresh("confluent")
    create_topic(broker, name, partitions, **configs)
    return name


def produce(broker, name, records, **settings):
    """Sends records and returns the offsets that the broker gave them."""
    producer = Producer({**settings_for(broker), "linger.ms": 5, **settings})
    offsets, errors = [], []

    def delivered(error, message):
        (errors.append(error) if error else offsets.append(message.offset()))

    for record in records:
        producer.produce(name, on_delivery=delivered, **record)
    if producer.flush(WAIT_MAX_SECONDS) or errors:
        raise AssertionError(f"{len(producer)} records were not acknowledged; errors: {errors}")
    return offsets


def consumer(broker, group, **settings):
    defaults = {
        **settings_for(broker),
        "group.id": group,
        "auto.offset.reset": "earliest",
        "enable.auto.commit": False,
        "session.timeout.ms": 6000,
        "heartbeat.interval.ms": 300,
        "topic.metadata.refresh.interval.ms": 300,
    }
    return Consumer({**defaults, **{name.replace("_", "."): value for name, value in settings.items()}})


def read(client, count):
    """The next `count` messages."""
    messages, until = [], time.monotonic() + WAIT_MAX_SECONDS
    while len(messages) < count and time.monotonic() < until:
        message = client.poll(0.1)
        if message is not None:
            if message.error():
                raise KafkaException(message.error())
            messages.append(message)
    same("records that came", len(messages), count)
    return messages


def read_from(broker, name, count, offset=0):
    client = consumer(broker, fresh("reader"))
    client.assign([TopicPartition(name, 0, offset)])
    messages = read(client, count)
    client.close()
    return messages


def as_record(message):
    return {"key": message.key(), "value": message.value(), "headers": message.headers() or []}


def values(messages):
    return [message.value().decode() for message in messages]


def numbered(count, start=0):
    return [{"key": f"{n}".encode(), "value": f"{n}".encode()} for n in range(start, start + count)]


def it_lists_topics_with_their_partitions(broker):
    name = topic(broker, partitions=4)
    told = admin(broker).list_topics(timeout=WAIT_MAX_SECONDS)
    same("partitions", sorted(told.topics[name].partitions), [0, 1, 2, 3])
    described = admin(broker).describe_cluster().result(WAIT_MAX_SECONDS)
    same("brokers", len(described.nodes), 1)


def records_come_back_byte_for_byte(broker):
    name = topic(broker)
    same("offsets", produce(broker, name, RECORDS, **{"enable.idempotence": True}), list(range(len(RECORDS))))
    same("records", [as_record(message) for message in read_from(broker, name, len(RECORDS))], RECORDS)


def every_compression_codec_survives(broker):
    for codec in CODECS:
        name = topic(broker)
        produce(broker, name, RECORDS * 20, **{"compression.type": codec})
        got = [as_record(message) for message in read_from(broker, name, len(RECORDS) * 20)]
        same(f"records with {codec}", got, RECORDS * 20)


def every_acks_setting_is_answered(broker):
    for acks in ["0", "1", "all"]:
        name = topic(broker)
        produce(broker, name, numbered(100), acks=acks)
        same(f"records with acks={acks}", values(read_from(broker, name, 100)), [f"{n}" for n in range(100)])


def a_fetch_from_the_middle_begins_there(broker):
    name = topic(broker)
    produce(broker, name, numbered(1000), **{"linger.ms": 100})
    same("offset", read_from(broker, name, 1, offset=637)[0].offset(), 637)


def an_offset_beyond_the_end_follows_the_reset_policy(broker):
    name = topic(broker)
    produce(broker, name, numbered(3))
    client = consumer(broker, fresh("reset"))
    client.assign([TopicPartition(name, 0, 1000)])
    same("offset", read(client, 1)[0].offset(), 0)
    client.close()


def offsets_are_found_by_time(broker):
    name = topic(broker)
    for at in [1000, 2000, 3000]:
        produce(broker, name, [{"value": b"x", "timestamp": at}])
    client = consumer(broker, fresh("times"))

    def at(time_ms):
        return client.offsets_for_times([TopicPartition(name, 0, time_ms)], timeout=WAIT_MAX_SECONDS)[0].offset

    same("before the first, on one, between two", [at(1), at(2000), at(2001)], [0, 1, 2])
    same("watermarks", client.get_watermark_offsets(TopicPartition(name, 0), timeout=WAIT_MAX_SECONDS), (0, 3))
    same("after the last", at(9_000_000_000_000) in (-1, 3), True)
    client.close()
    asked = {TopicPartition(name, 0): OffsetSpec.max_timestamp()}
    same("the latest time", [found.offset for found in answers(admin(broker).list_offsets(asked)).values()], [2])


def a_commit_is_kept_with_its_metadata_and_resumed_after(broker):
    name, group = topic(broker), fresh("commit")
    produce(broker, name, numbered(10))
    client = consumer(broker, group)
    client.subscribe([name])
    read(client, 4)
    metadata = "ackwell/1 ключ " + "m" * 1000
    client.commit(offsets=[TopicPartition(name, 0, 4, metadata)], asynchronous=False)
    client.close()

    client = consumer(broker, group)
    kept = client.committed([TopicPartition(name, 0)], timeout=WAIT_MAX_SECONDS)[0]
    same("offset and metadata", (kept.offset, kept.metadata), (4, metadata))
    client.subscribe([name])
    same("what follows", values(read(client, 6)), ["4", "5", "6", "7", "8", "9"])
    client.close()


def share(broker, strategy):
    """Two members share four partitions; when one leaves, the other has them all."""
    name, group = topic(broker, partitions=4), fresh(f"members-{strategy}")
    members = [consumer(broker, group, partition_assignment_strategy=strategy) for _ in range(2)]
    for member in members:
        member.subscribe([name])

    def owned():
        for member in members:
            member.poll(0.05)
        return [sorted(part.partition for part in member.assignment()) for member in members]

    eventually("each of two members has two partitions", lambda: [len(parts) for parts in owned()] == [2, 2])
    same("every partition has one owner", sorted(sum(owned(), [])), [0, 1, 2, 3])
    described = answers(admin(broker).describe_consumer_groups([group]))[group]
    same("members described", (described.state.name, len(described.members)), ("STABLE", 2))
    members.pop().close()
    eventually("the one that stays has all", lambda: owned() == [[0, 1, 2, 3]])
    members.pop().close()


def two_members_share_by_range_and_one_leaves(broker):
    share(broker, "range")


def two_members_share_by_roundrobin_and_one_leaves(broker):
    share(broker, "roundrobin")


def two_members_share_cooperatively_and_one_leaves(broker):
    share(broker, "cooperative-sticky")


def a_static_member_returns_without_a_rebalance(broker):
    name, group = topic(broker, partitions=2), fresh("static")
    produce(broker, name, numbered(5))
    moved = []
    stays = consumer(broker, group, group_instance_id="one")
    stays.subscribe([name], on_assign=lambda _, parts: moved.append(len(parts)))
    returns = consumer(broker, group, group_instance_id="two")
    returns.subscribe([name])
    both = [stays, returns]

    def settled():
        for member in both:
            member.poll(0.05)
        return [len(member.assignment()) for member in both] == [1, 1]

    eventually("each has a partition", settled)
    before = len(moved)
    returns.close()
    both[1] = consumer(broker, group, group_instance_id="two")
    both[1].subscribe([name])
    eventually("the member that returned has its partition again", settled)
    same("assignments seen by the member that stayed", len(moved), before)
    for member in both:
        member.close()


def a_silent_member_is_evicted(broker):
    name, group = topic(broker, partitions=2), fresh("silent")
    settings = {"max_poll_interval_ms": 6000, "session_timeout_ms": 6000}
    silent = consumer(broker, group, **settings)
    silent.subscribe([name])
    eventually("the first member has both", lambda: silent.poll(0.05) or len(silent.assignment()) == 2)
    speaks = consumer(broker, group, **settings)
    speaks.subscribe([name])
    eventually("the second member has both", lambda: speaks.poll(0.05) or len(speaks.assignment()) == 2)
    speaks.close()
    silent.close()


def groups_are_listed_described_and_deleted(broker):
    name, group = topic(broker), fresh("listed")
    produce(broker, name, numbered(2))
    client, administrator = consumer(broker, group, group_instance_id="fixed"), admin(broker)
    client.subscribe([name])
    read(client, 2)
    client.commit(asynchronous=False)
    listed = administrator.list_consumer_groups().result(WAIT_MAX_SECONDS)
    same("state", [found.state.name for found in listed.valid if found.group_id == group], ["STABLE"])
    described = answers(administrator.describe_consumer_groups([group]))[group]
    member = described.members[0]
    assigned = [(part.topic, part.partition) for part in member.assignment.topic_partitions]
    same("the member", (member.group_instance_id, assigned), ("fixed", [(name, 0)]))
    refused(lambda: answers(administrator.delete_consumer_groups([group])), KafkaError.NON_EMPTY_GROUP)
    client.unsubscribe()
    client.close()
    # A static member does not leave by closing; its session ends.
    eventually("the group is empty", lambda: state(administrator, group) == "EMPTY")
    offsets = administrator.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)])
    kept = answers(offsets)[group].topic_partitions
    same("offsets", [(part.topic, part.partition, part.offset) for part in kept], [(name, 0, 2)])
    answers(administrator.delete_consumer_groups([group]))
    same("the group is gone", group in names(administrator), False)


def state(administrator, group):
    return answers(administrator.describe_consumer_groups([group]))[group].state.name


def names(administrator):
    return [found.group_id for found in administrator.list_consumer_groups().result(WAIT_MAX_SECONDS).valid]


def a_groups_offsets_can_be_set_from_outside(broker):
    name, group = topic(broker), fresh("set")
    wanted = ConsumerGroupTopicPartitions(group, [TopicPartition(name, 0, 7)])
    answers(admin(broker).alter_consumer_group_offsets([wanted]))
    kept = consumer(broker, group).committed([TopicPartition(name, 0)], timeout=WAIT_MAX_SECONDS)
    same("offset", kept[0].offset, 7)


def refused(call, code):
    """Expects that the broker refuses a call with this error code."""
    try:
        call()
    except KafkaException as error:
        same("error code", error.args[0].name(), KafkaError(code).name())
    else:
        raise AssertionError(f"was not refused with {KafkaError(code).name()}")


def topics_are_created_grown_and_deleted(broker):
    name, administrator = fresh("admin"), admin(broker)
    create_topic(broker, name, 2)
    again = [NewTopic(name, 2, 1)]
    refused(lambda: answers(administrator.create_topics(again)), KafkaError.TOPIC_ALREADY_EXISTS)
    bad = [NewTopic("no/slashes", 1, 1)]
    refused(lambda: answers(administrator.create_topics(bad)), KafkaError.TOPIC_EXCEPTION)
    answers(administrator.create_partitions([NewPartitions(name, 5)]))
    eventually("five partitions", lambda: len(administrator.list_topics(timeout=5).topics[name].partitions) == 5)
    refused(lambda: answers(administrator.create_partitions([NewPartitions(name, 3)])), KafkaError.INVALID_PARTITIONS)
    answers(administrator.delete_topics([name]))
    eventually("it is gone", lambda: name not in administrator.list_topics(timeout=5).topics)
    refused(lambda: answers(administrator.delete_topics([name])), KafkaError.UNKNOWN_TOPIC_OR_PART)


def configs_are_described_and_altered(broker):
    name, administrator = topic(broker, **{"retention.ms": "3600000"}), admin(broker)
    resource = ConfigResource(ConfigResource.Type.TOPIC, name)

    def configs():
        return next(iter(answers(administrator.describe_configs([resource])).values()))

    same("as created", configs()["retention.ms"].value, "3600000")
    same("what nobody set is a default", configs()["cleanup.policy"].is_default, True)
    entry = ConfigEntry("retention.ms", "7200000", incremental_operation=AlterConfigOpType.SET)
    change = ConfigResource(ConfigResource.Type.TOPIC, name, incremental_configs=[entry])
    answers(administrator.incremental_alter_configs([change]))
    same("as altered", configs()["retention.ms"].value, "7200000")
    entry = ConfigEntry("retention.ms", None, incremental_operation=AlterConfigOpType.DELETE)
    change = ConfigResource(ConfigResource.Type.TOPIC, name, incremental_configs=[entry])
    answers(administrator.incremental_alter_configs([change]))
    same("as deleted", configs()["retention.ms"].is_default, True)
    entry = ConfigEntry("retention.ms", "soon", incremental_operation=AlterConfigOpType.SET)
    change = ConfigResource(ConfigResource.Type.TOPIC, name, incremental_configs=[entry])
    refused(lambda: answers(administrator.incremental_alter_configs([change])), KafkaError.INVALID_CONFIG)


def records_are_deleted_before_an_offset(broker):
    name = topic(broker)
    produce(broker, name, numbered(10))
    answers(admin(broker).delete_records([TopicPartition(name, 0, 6)]))
    client = consumer(broker, fresh("deleted"))
    same("watermarks", client.get_watermark_offsets(TopicPartition(name, 0), timeout=WAIT_MAX_SECONDS), (6, 10))
    client.assign([TopicPartition(name, 0, 0)])
    same("what is left", values(read(client, 4)), ["6", "7", "8", "9"])
    client.close()


def an_unknown_topic_is_an_error_and_not_a_hang(broker):
    settings = {**settings_for(broker), "message.timeout.ms": 5000, "allow.auto.create.topics": False}
    producer, errors = Producer({**settings, "topic.metadata.propagation.max.ms": 500}), []
    producer.produce(fresh("unknown"), b"x", on_delivery=lambda error, _: errors.append(error))
    producer.flush(WAIT_MAX_SECONDS)
    same("it failed", [error is not None for error in errors], [True])


def a_record_that_is_too_large_is_refused(broker):
    name = topic(broker, **{"max.message.bytes": "2000"})
    try:
        produce(broker, name, [{"value": bytes(5000)}])
    except AssertionError as error:
        same("the reason", "MSG_SIZE_TOO_LARGE" in str(error), True)
    else:
        raise AssertionError("a record beyond max.message.bytes was accepted")


CHECKS = [
    it_lists_topics_with_their_partitions,
    records_come_back_byte_for_byte,
    every_compression_codec_survives,
    every_acks_setting_is_answered,
    a_fetch_from_the_middle_begins_there,
    an_offset_beyond_the_end_follows_the_reset_policy,
    offsets_are_found_by_time,
    a_commit_is_kept_with_its_metadata_and_resumed_after,
    two_members_share_by_range_and_one_leaves,
    two_members_share_by_roundrobin_and_one_leaves,
    two_members_share_cooperatively_and_one_leaves,
    a_static_member_returns_without_a_rebalance,
    a_silent_member_is_evicted,
    groups_are_listed_described_and_deleted,
    a_groups_offsets_can_be_set_from_outside,
    topics_are_created_grown_and_deleted,
    configs_are_described_and_altered,
    records_are_deleted_before_an_offset,
    an_unknown_topic_is_an_error_and_not_a_hang,
    a_record_that_is_too_large_is_refused,
]
