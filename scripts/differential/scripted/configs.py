"""Settings of topics and of the broker."""

from ..calls import BROKER, GROUP
from .server_groups import Member

KEYS = [
    "cleanup.policy", "retention.ms", "retention.bytes", "segment.bytes", "segment.ms", "max.message.bytes",
    "message.timestamp.type", "compression.type", "min.insync.replicas", "delete.retention.ms",
    "min.compaction.lag.ms", "max.compaction.lag.ms", "min.cleanable.dirty.ratio", "flush.ms", "flush.messages",
    "message.timestamp.after.max.ms", "message.timestamp.before.max.ms", "file.delete.delay.ms",
    "index.interval.bytes", "preallocate", "unclean.leader.election.enable", "segment.index.bytes", "segment.jitter.ms",
    "leader.replication.throttled.replicas", "follower.replication.throttled.replicas",
]
SET, DELETE, APPEND, SUBTRACT = range(4)


def every_topic_setting_has_kafkas_default(s):
    s.create("orders")
    for key in KEYS:
        s.configs("orders", key, note=key)
    s.configs("orders", "no.such.config", note="unknown")
    s.configs("never", note="an unknown topic")


def all_settings_of_a_topic(s):
    s.create("orders", configs={"retention.ms": "60000"})
    s.configs("orders", note="all")


def settings_with_their_synonyms(s):
    s.create("orders", configs={"retention.ms": "60000"})
    s.configs("orders", "retention.ms", synonyms=True)
    s.configs("orders", "cleanup.policy", synonyms=True)


def settings_are_changed_one_by_one(s):
    s.create("orders", configs={"retention.ms": "60000"})
    s.alter("orders", ("retention.ms", SET, "70000"), ("segment.ms", SET, "80000"))
    s.until_config("orders", "segment.ms", "80000")
    s.configs("orders", "retention.ms", "segment.ms")
    s.alter("orders", ("retention.ms", DELETE, None))
    s.until_config("orders", "retention.ms", "604800000")
    s.configs("orders", "retention.ms")
    s.alter("orders", ("cleanup.policy", APPEND, "compact"))
    s.until_config("orders", "cleanup.policy", "delete,compact")
    s.configs("orders", "cleanup.policy")
    s.alter("orders", ("cleanup.policy", SUBTRACT, "delete"))
    s.until_config("orders", "cleanup.policy", "compact")
    s.configs("orders", "cleanup.policy")


def changes_are_checked(s):
    s.create("orders")
    s.create("orders2")
    cases = {
        "unknown key": [("no.such", SET, "1")], "no number": [("retention.ms", SET, "soon")],
        "null": [("retention.ms", SET, None)], "append to a number": [("retention.ms", APPEND, "1")],
        "key twice": [("retention.ms", SET, "1000"), ("retention.ms", SET, "2000")],
        "unknown operation": [("retention.ms", 9, "1")], "nothing": [],
        "delete what is not set": [("segment.ms", DELETE, None)], "one good, one bad": [("retention.ms", SET, "5000"), ("no.such", SET, "1")],
        "subtract what is not there": [("cleanup.policy", SUBTRACT, "compact")],
        "delete an unknown key": [("no.such", DELETE, None)],
    }
    for note, changes in cases.items():
        s.alter("orders", *changes, validate=True, note=f"{note}, only asked")
        s.alter("orders", *changes, note=note)
    s.alter("never", ("retention.ms", SET, "1"), note="unknown topic")
    s.alter("", ("retention.ms", SET, "1"), kind=99, note="unknown kind")
    s.alter("orders", ("retention.ms", SET, "99000"), validate=True, note="only asked")
    s.configs("orders", "retention.ms")
    one = {"ResourceType": 2, "ResourceName": s.named("orders"), "Configs": []}
    s.ask("IncrementalAlterConfigs", Resources=[one, one], ValidateOnly=True, note="one topic twice")
    s.ask("IncrementalAlterConfigs", Resources=[], ValidateOnly=True, note="none")


def settings_are_replaced_as_a_whole(s):
    s.create("orders", configs={"retention.ms": "60000", "segment.ms": "90000"})
    s.replace_configs("orders", {"retention.ms": "70000"})
    s.until_config("orders", "segment.ms", "604800000")
    s.configs("orders", "retention.ms", "segment.ms")
    for note, configs in {"bad": {"retention.ms": "soon"}, "unknown": {"no.such": "1"}, "null": {"retention.ms": None}}.items():
        s.replace_configs("orders", configs, note=note)
    s.replace_configs("orders", {}, validate=True, note="only asked")
    s.replace_configs("never", {}, note="unknown")
    s.configs("orders", "retention.ms")


def the_brokers_settings(s):
    s.configs("1", "log.retention.ms", "num.partitions", "auto.create.topics.enable", kind=BROKER)
    s.configs("9", "num.partitions", kind=BROKER, note="another node")
    s.configs("x", "num.partitions", kind=BROKER, note="no number")
    s.configs("x", kind=99, note="unknown kind")
    s.ask("DescribeConfigs", Resources=[], note="none")


def groups_have_settings(s):
    session, heartbeat = "consumer.session.timeout.ms", "consumer.heartbeat.interval.ms"
    s.configs("payment", session, heartbeat, kind=GROUP, note="of the broker")
    s.alter("payment", (session, SET, "50000"), (heartbeat, SET, "6000"), kind=GROUP)
    s.until_config("payment", session, "50000", kind=GROUP)
    s.configs("payment", session, heartbeat, kind=GROUP)
    s.create("orders")
    Member(s, "payment", "orders", note="its members are told")
    cases = {
        "too short": [(session, SET, "1")], "too long": [(session, SET, "60001")], "no number": [(heartbeat, SET, "soon")],
        "a long interval": [(heartbeat, SET, "15001")], "unknown": [("no.such", SET, "1")], "null": [(session, SET, None)],
        "twice": [(session, SET, "50000"), (session, SET, "51000")], "appended": [(session, APPEND, "1")],
    }
    for note, changes in cases.items():
        s.alter("payment", *changes, kind=GROUP, validate=True, note=f"{note}, only asked")
        s.alter("payment", *changes, kind=GROUP, note=note)
    s.alter("", (session, SET, "50000"), kind=GROUP, note="no name")
    s.configs("", kind=GROUP, note="no name")
    s.alter("payment", (session, DELETE, None), kind=GROUP)
    s.until_config("payment", session, "45000", kind=GROUP)
    s.configs("payment", session, kind=GROUP, note="deleted again")


def resources_are_listed(s):
    s.ask("ListConfigResources", at_least=1, ResourceTypes=[99], note="an unknown kind")
    s.ask("ListConfigResources", at_most=0, note="client metrics")
    s.ask("ListConfigResources", at_least=1, ResourceTypes=[BROKER], note="brokers")


SESSIONS = [
    every_topic_setting_has_kafkas_default,
    all_settings_of_a_topic,
    settings_with_their_synonyms,
    settings_are_changed_one_by_one,
    changes_are_checked,
    settings_are_replaced_as_a_whole,
    the_brokers_settings,
    groups_have_settings,
    resources_are_listed,
]
