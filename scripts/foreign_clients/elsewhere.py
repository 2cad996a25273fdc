"""Clients of other languages: a program of theirs runs one check, and says what was wrong."""

import functools
import os
import pathlib
import subprocess
import tempfile

from . import confluent
from .check import ADD_PARTITIONS_TO_TXN, CONSUMER_GROUP_HEARTBEAT, WAIT_MAX_SECONDS, WRITE_TXN_MARKERS, fresh

HERE = pathlib.Path(__file__).parent


NEEDS = {
    "a_transaction_counts_as_a_whole": ADD_PARTITIONS_TO_TXN,
    "an_older_instance_is_fenced": ADD_PARTITIONS_TO_TXN,
    "what_is_read_is_written_once_while_transactions_are_aborted": ADD_PARTITIONS_TO_TXN,
    "a_transaction_that_takes_too_long_is_aborted": ADD_PARTITIONS_TO_TXN,
    "the_admin_fences_and_aborts": WRITE_TXN_MARKERS,
    "two_members_share_by_the_brokers_assignor": CONSUMER_GROUP_HEARTBEAT,
}


def run(line, **environment):
    done = subprocess.run(line, capture_output=True, text=True, timeout=6 * WAIT_MAX_SECONDS, env={**os.environ, **environment})
    if done.returncode != 0:
        raise AssertionError(f"ended with {done.returncode}: {done.stdout[-3000:]}\n{done.stderr[-3000:]}")


@functools.cache
def compiled():
    """The folder of the Java checks' classes, which lives as long as this run."""
    folder = tempfile.TemporaryDirectory(prefix="ackwell-java-")
    run(["javac", "-nowarn", "-cp", os.environ["JAVA_CLIENT"] + "/*", "-d", folder.name, str(HERE / "JavaChecks.java")])
    return folder


def with_login(broker, attribute, environment):
    """What tells a program how to log in, if the broker asks for that and the check does not say it."""
    login = getattr(broker, attribute, None)
    return {"KAFKA_LOGIN": login, **environment} if login else environment


def java(broker, name, topic, **environment):
    path = f"{compiled().name}:{os.environ['JAVA_CLIENT']}/*"
    options = ["-Xmx256m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Dorg.slf4j.simpleLogger.defaultLogLevel=error"]
    run(["java", *options, "-cp", path, "JavaChecks", broker.address, name, topic, fresh("java")],
        **with_login(broker, "properties", environment))


def node(broker, name, topic, **environment):
    modules = os.environ["NODE_CLIENTS"] + "/node_modules"
    line = ["node", str(HERE / "kafkajs_checks.cjs"), broker.address, name, topic, fresh("kafkajs")]
    run(line, NODE_PATH=modules, **with_login(broker, "javascript", environment))


def rust(broker, name, topic, **environment):
    """Confluent's client, which knows PLAIN alone."""
    line = [os.environ["RUST_CLIENT"], broker.address, name, topic, fresh("rust")]
    run(line, **with_login(broker, "plain_properties", environment))


def checks(program, *names):
    def check(name):
        def one(broker):
            program(broker, name, confluent.topic(broker, partitions=2))

        one.__name__ = name
        one.needs = NEEDS.get(name)
        return one

    return [check(name) for name in names]


class Java:
    CHECKS = checks(
        java,
        "records_come_back_in_every_codec",
        "an_idempotent_producer_sends_in_order",
        "a_group_commits_and_resumes",
        "the_admin_describes_what_is_there",
        "the_admin_changes_settings_and_offsets",
        "a_transaction_counts_as_a_whole",
        "an_older_instance_is_fenced",
        "what_is_read_is_written_once_while_transactions_are_aborted",
        "a_transaction_that_takes_too_long_is_aborted",
        "the_admin_fences_and_aborts",
        "two_members_share_by_the_brokers_assignor",
    )


class KafkaJs:
    CHECKS = checks(
        node,
        "records_come_back_with_keys_and_headers",
        "a_group_commits_and_resumes",
        "the_admin_describes_what_is_there",
        "a_transaction_counts_as_a_whole",
    )


class Rust:
    CHECKS = checks(
        rust,
        "records_come_back_in_every_codec",
        "an_idempotent_producer_sends_in_order",
        "a_group_commits_and_resumes",
        "two_members_share_by_the_brokers_assignor",
        "a_transaction_counts_as_a_whole",
        "an_older_instance_is_fenced",
        "what_is_read_is_written_once_while_transactions_are_aborted",
        "the_admin_describes_what_is_there",
        "the_admin_changes_settings_and_offsets",
    )
