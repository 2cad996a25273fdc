"""Topics: created, looked at, grown, deleted, and refused."""

import uuid

from ..calls import NO_ID


def topics_are_created_listed_and_deleted(s):
    s.create("orders", 3)
    s.create("stock", configs={"retention.ms": "3600000", "cleanup.policy": "compact"})
    s.metadata("orders", "stock", "never")
    s.create_only("orders", note="again")
    s.delete("orders")
    s.metadata("orders")
    s.delete_only("orders", note="again")
    s.create("orders", 1)
    s.metadata("orders")


def names_are_checked(s):
    names = ["", ".", "..", "a/b", "a b", "ключ", "x" * 250, "a:b", "a*"]
    for name in names:
        topic = {"Name": name, "NumPartitions": 1, "ReplicationFactor": 1, "Assignments": [], "Configs": []}
        s.ask("CreateTopics", Topics=[topic], timeoutMs=1000, validateOnly=True, note=repr(name[:20]))
        s.ask("Metadata", Topics=[{"Name": name}], AllowAutoTopicCreation=False, note=repr(name[:20]))
    s.create("under_score")
    s.create_only("under.score", note="differs from another by a dot for an underscore")
    s.create_only("x" * (249 - len(s.prefix)), validate=True, note="249 characters")


def numbers_are_checked(s):
    for partitions, replicas in [(0, 1), (-2, 1), (-1, -1), (1, 0), (1, -2), (1, 2), (1, 32767)]:
        s.create_only("orders", partitions, replicas=replicas, validate=True, note=f"{partitions}, {replicas}")
    s.create_only("orders", -1, replicas=-1, note="the broker's own numbers")
    s.until_there("orders", 1)
    s.metadata("orders")


def assignments_are_checked(s):
    given = {
        "good": [(0, [1]), (1, [1])], "a gap": [(0, [1]), (2, [1])], "unknown node": [(0, [9])],
        "twice the node": [(0, [1, 1])], "none": [(0, [])], "partition twice": [(0, [1]), (0, [1])],
        "does not begin at 0": [(1, [1])],
    }
    for note, assignments in given.items():
        s.create_only("orders", -1, replicas=-1, assignments=assignments, validate=True, note=note)
        s.create_only("orders", 2, assignments=assignments, validate=True, note=f"{note}, with numbers")


def configs_of_new_topics_are_checked(s):
    cases = {
        "unknown": {"no.such.config": "1"}, "no number": {"retention.ms": "soon"}, "negative": {"segment.bytes": "-5"},
        "too small": {"segment.bytes": "1"}, "policy": {"cleanup.policy": "keep"}, "codec": {"compression.type": "rar"},
        "null": {"retention.ms": None}, "empty": {"retention.ms": ""}, "time type": {"message.timestamp.type": "Now"},
        "space": {"retention.ms": " 1000 "}, "forever": {"retention.ms": "-1"}, "two": {"cleanup.policy": "compact,delete"},
        "huge": {"retention.ms": "99999999999999999999"}, "bool": {"preallocate": "maybe"}, "ratio": {"min.cleanable.dirty.ratio": "1.5"},
        "replicas": {"min.insync.replicas": "0"}, "upper case": {"cleanup.policy": "DELETE"}, "float": {"retention.ms": "1.5"},
    }
    for note, configs in cases.items():
        s.create_only("orders", configs=configs, validate=True, note=note)


def several_topics_in_one_request(s):
    s.create_all([s.creation("a"), s.creation("b", 0), s.creation("c", configs={"no.such": "1"})], note="one good, two bad")
    s.until_there("a", 1)
    s.create_all([s.creation("d"), s.creation("d")], note="one name twice")
    s.create_all([], note="none")
    s.metadata("a", "b", "c", "d")
    s.delete_only("a", "b", note="one good, one unknown")
    s.delete_only("x", "x", note="an unknown one twice")
    s.delete_only(note="none")


def validation_creates_nothing(s):
    s.create_only("orders", 3, validate=True)
    s.metadata("orders")
    s.create("stock")
    s.create_only("stock", validate=True, note="exists")


def partitions_are_added(s):
    s.create("orders", 2)
    s.grow("orders", 4)
    s.metadata("orders")
    s.grow("orders", 4, note="the same")
    s.grow("orders", 3, note="fewer")
    s.grow("orders", 0, note="none")
    s.grow("orders", -1, note="negative")
    s.grow("never", 3, note="unknown")
    s.grow("orders", 6, validate=True, note="only asked")
    s.grow("orders", 5, assignments=[[1]], note="with a node")
    s.grow("orders", 7, assignments=[[1]], note="two more and one node list")
    s.grow("orders", 6, assignments=[[9]], note="an unknown node")
    s.grow("orders", 6, assignments=[[]], note="no node")
    s.metadata("orders")
    topic = {"Name": s.named("orders"), "Count": 8, "Assignments": None}
    s.ask("CreatePartitions", Topics=[topic, topic], TimeoutMs=1000, ValidateOnly=True, note="one name twice")


def topics_are_known_by_id(s):
    s.create("orders", 2)
    known = s.topic_ids[s.named("orders")]
    s.ask("Metadata", at_least=12, Topics=[{"TopicId": known, "Name": None}], AllowAutoTopicCreation=False)
    stranger = [{"TopicId": uuid.UUID(int=77), "Name": None}]
    s.ask("Metadata", at_least=12, Topics=stranger, AllowAutoTopicCreation=False, note="an unknown id")
    s.ask("Metadata", at_least=12, Topics=[{"TopicId": NO_ID, "Name": None}], AllowAutoTopicCreation=False, note="neither")
    s.ask("DeleteTopics", at_least=6, Topics=[{"TopicId": uuid.UUID(int=77), "Name": None}], TimeoutMs=1000, note="an unknown id")
    both = [{"TopicId": known, "Name": s.named("orders")}]
    s.ask("DeleteTopics", at_least=6, Topics=both, TimeoutMs=1000, note="by both")
    s.ask("DeleteTopics", at_least=6, Topics=[{"TopicId": NO_ID, "Name": None}], TimeoutMs=1000, note="neither")
    s.ask("DeleteTopics", at_least=6, Topics=[{"TopicId": known, "Name": None}], TimeoutMs=30_000, note="by id")
    s.partitions.clear()


def metadata_of_many(s):
    s.create("a")
    s.create("b", 2)
    s.ask("Metadata", Topics=[{"Name": s.named("a")}, {"Name": s.named("a")}], AllowAutoTopicCreation=False, note="twice")
    s.ask("Metadata", at_least=8, at_most=10, Topics=[{"Name": s.named("b")}], AllowAutoTopicCreation=False,
          IncludeClusterAuthorizedOperations=True, IncludeTopicAuthorizedOperations=True, note="with rights")
    s.ask("Metadata", at_least=4, Topics=[{"Name": s.named("new")}], AllowAutoTopicCreation=True, note="may be created")


def topics_are_described_in_pages(s):
    s.create("a", 3)
    s.create("b", 2)
    asked = [{"Name": s.named(name)} for name in ("a", "b", "never")]
    s.ask("DescribeTopicPartitions", Topics=asked, ResponsePartitionLimit=100)
    s.ask("DescribeTopicPartitions", Topics=asked, ResponsePartitionLimit=2, note="two at most")
    cursor = {"TopicName": s.named("a"), "PartitionIndex": 2}
    s.ask("DescribeTopicPartitions", Topics=asked, ResponsePartitionLimit=2, Cursor=cursor, note="two more")


def log_folders_are_described(s):
    s.create("orders", 2)
    asked = [{"Topic": s.named("orders"), "Partitions": [0, 1]}, {"Topic": s.named("never"), "Partitions": [0]}]
    s.ask("DescribeLogDirs", Topics=asked)


SESSIONS = [
    topics_are_created_listed_and_deleted,
    names_are_checked,
    numbers_are_checked,
    assignments_are_checked,
    configs_of_new_topics_are_checked,
    several_topics_in_one_request,
    validation_creates_nothing,
    partitions_are_added,
    topics_are_known_by_id,
    metadata_of_many,
    topics_are_described_in_pages,
    log_folders_are_described,
]
