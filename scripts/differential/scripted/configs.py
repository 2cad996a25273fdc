"""Settings of topics and of the broker."""

from ..calls import BROKER

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


def resources_are_listed(s):
    s.ask("ListConfigResources", at_least=1, ResourceTypes=[99], note="an unknown kind")


SESSIONS = [
    every_topic_setting_has_kafkas_default,
    all_settings_of_a_topic,
    settings_with_their_synonyms,
    settings_are_changed_one_by_one,
    changes_are_checked,
    settings_are_replaced_as_a_whole,
    the_brokers_settings,
    resources_are_listed,
]
