"""Kafka's own command-line tools, each a Java process as its users start it."""

import json
import os
import subprocess

from . import confluent
from .check import LIST_TRANSACTIONS, WAIT_MAX_SECONDS, WRITE_TXN_MARKERS, eventually, fresh, needs, same, without_login

TOOLS = {
    "kafka-topics": "org.apache.kafka.tools.TopicCommand",
    "kafka-console-producer": "org.apache.kafka.tools.ConsoleProducer",
    "kafka-console-consumer": "org.apache.kafka.tools.consumer.ConsoleConsumer",
    "kafka-consumer-groups": "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand",
    "kafka-configs": "kafka.admin.ConfigCommand",
    "kafka-transactions": "org.apache.kafka.tools.TransactionsCommand",
    "transactional-message-copier": "org.apache.kafka.tools.TransactionalMessageCopier",
    "kafka-producer-perf-test": "org.apache.kafka.tools.ProducerPerformance",
    "kafka-verifiable-producer": "org.apache.kafka.tools.VerifiableProducer",
    "kafka-verifiable-consumer": "org.apache.kafka.tools.VerifiableConsumer",
    "kafka-get-offsets": "org.apache.kafka.tools.GetOffsetShell",
    "kafka-delete-records": "org.apache.kafka.tools.DeleteRecordsCommand",
    "kafka-broker-api-versions": "org.apache.kafka.tools.BrokerApiVersionsCommand",
    "kafka-groups": "org.apache.kafka.tools.GroupsCommand",
}
# Quick to start rather than quick at work.
JAVA = ["java", "-Xmx256m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Dorg.slf4j.simpleLogger.defaultLogLevel=error"]


def command(tool, *arguments):
    return [*JAVA, "-cp", os.environ["KAFKA_TOOLS"] + "/*", TOOLS[tool], *map(str, arguments)]


# How a tool is told of a file with a login.
LOGIN = {
    "kafka-console-producer": "--producer.config", "kafka-console-consumer": "--consumer.config",
    "kafka-producer-perf-test": "--producer.config",
    "kafka-verifiable-producer": "--producer.config", "kafka-verifiable-consumer": "--consumer.config",
}


def login(broker, tool, file=None):
    """The arguments with which a tool logs in, if the broker asks for that."""
    file = file or getattr(broker, "properties", None)
    return [LOGIN.get(tool, "--command-config"), file] if file else []


def run(broker, tool, *arguments, stdin="", properties=None):
    """What a tool prints; it must end well."""
    line = command(tool, "--bootstrap-server", broker.address, *login(broker, tool, properties), *arguments)
    done = subprocess.run(line, input=stdin, capture_output=True, text=True, timeout=4 * WAIT_MAX_SECONDS)
    if done.returncode != 0 or "Exception" in done.stderr:
        told = f"{done.stdout}\n{done.stderr}"
        raise AssertionError(f"{tool} {' '.join(map(str, arguments))} ended with {done.returncode}: {told}")
    return done.stdout


def contains(what, text, *parts):
    missing = [part for part in parts if part not in text]
    if missing:
        raise AssertionError(f"{what}: {missing} are not in\n{text}")


def kafka_topics_creates_describes_grows_lists_and_deletes(broker):
    name = fresh("tools")
    run(broker, "kafka-topics", "--create", "--topic", name, "--partitions", 2, "--config", "retention.ms=3600000")
    described = run(broker, "kafka-topics", "--describe", "--topic", name)
    contains("described", described, "PartitionCount: 2", "ReplicationFactor: 1", "retention.ms=3600000", "Leader: 1", "Isr: 1")
    run(broker, "kafka-topics", "--alter", "--topic", name, "--partitions", 5)
    contains("grown", run(broker, "kafka-topics", "--describe", "--topic", name), "PartitionCount: 5")
    contains("listed", run(broker, "kafka-topics", "--list"), name)
    run(broker, "kafka-topics", "--delete", "--topic", name)
    eventually("it is gone", lambda: name not in run(broker, "kafka-topics", "--list"))


def the_consoles_write_and_read(broker):
    name, group = confluent.topic(broker), fresh("console")
    run(broker, "kafka-console-producer", "--topic", name, "--property", "parse.key=true", "--property",
        "key.separator=:", "--compression-codec", "zstd", stdin="a:one\nb:two\nc:three\n")
    read = run(broker, "kafka-console-consumer", "--topic", name, "--from-beginning", "--max-messages", 3, "--group", group,
               "--property", "print.key=true", "--property", "print.offset=true")
    same("records", read.split(), ["Offset:0", "a", "one", "Offset:1", "b", "two", "Offset:2", "c", "three"])


def kafka_consumer_groups_describes_resets_and_deletes(broker):
    name, group = confluent.topic(broker, partitions=2), fresh("tools-group")
    confluent.produce(broker, name, [{**record, "partition": 0} for record in confluent.numbered(10)])
    client = confluent.consumer(broker, group)
    parts = [confluent.TopicPartition(name, 0, 4), confluent.TopicPartition(name, 1, 0)]
    client.commit(offsets=parts, asynchronous=False)
    client.close()
    contains("listed", run(broker, "kafka-consumer-groups", "--list"), group)
    described = [line.split() for line in run(broker, "kafka-consumer-groups", "--describe", "--group", group).splitlines()]
    same("position, end and lag", [line[3:6] for line in described if line[1:3] == [name, "0"]], [["4", "10", "6"]])
    contains("its state", run(broker, "kafka-consumer-groups", "--describe", "--state", "--group", group), "Empty")
    run(broker, "kafka-consumer-groups", "--group", group, "--topic", f"{name}:0", "--reset-offsets", "--to-offset", 7, "--execute")
    described = [line.split() for line in run(broker, "kafka-consumer-groups", "--describe", "--group", group).splitlines()]
    same("after the reset", [line[3:6] for line in described if line[1:3] == [name, "0"]], [["7", "10", "3"]])
    told = run(broker, "kafka-consumer-groups", "--group", group, "--topic", f"{name}:1", "--delete-offsets")
    contains("offsets deleted", told, "Successful")
    contains("deleted", run(broker, "kafka-consumer-groups", "--delete", "--group", group), "was successful")


def kafka_configs_describes_and_alters(broker):
    name = confluent.topic(broker)
    who = ["--entity-type", "topics", "--entity-name", name]
    run(broker, "kafka-configs", *who, "--alter", "--add-config", "retention.ms=7200000,cleanup.policy=[delete,compact]")
    eventually("altered", lambda: "retention.ms=7200000" in run(broker, "kafka-configs", *who, "--describe"))
    contains("the list", run(broker, "kafka-configs", *who, "--describe"), "cleanup.policy=delete,compact")
    run(broker, "kafka-configs", *who, "--alter", "--delete-config", "retention.ms")
    eventually("deleted", lambda: "retention.ms" not in run(broker, "kafka-configs", *who, "--describe"))
    contains("all", run(broker, "kafka-configs", *who, "--describe", "--all"), "retention.ms=604800000", "segment.ms=")
    run(broker, "kafka-configs", "--entity-type", "brokers", "--entity-name", 1, "--describe", "--all")


def kafka_configs_alters_groups(broker):
    name = fresh("group")
    who = ["--entity-type", "groups", "--entity-name", name]
    run(broker, "kafka-configs", *who, "--alter", "--add-config", "consumer.session.timeout.ms=50000,consumer.heartbeat.interval.ms=6000")
    eventually("altered", lambda: "consumer.session.timeout.ms=50000" in run(broker, "kafka-configs", *who, "--describe"))
    run(broker, "kafka-configs", *who, "--alter", "--delete-config", "consumer.session.timeout.ms")
    eventually("deleted", lambda: "session.timeout" not in run(broker, "kafka-configs", *who, "--describe"))
    contains("the rest", run(broker, "kafka-configs", *who, "--describe"), "consumer.heartbeat.interval.ms=6000")
    contains("without a name", run(broker, "kafka-configs", "--entity-type", "groups", "--describe"), name)


def kafka_producer_perf_test_is_served(broker):
    name = confluent.topic(broker, partitions=3)
    line = command("kafka-producer-perf-test", "--topic", name, "--num-records", 50_000, "--record-size", 100, "--throughput", -1,
                   *login(broker, "kafka-producer-perf-test"),
                   "--producer-props", f"bootstrap.servers={broker.address}", "acks=all")
    done = subprocess.run(line, capture_output=True, text=True, timeout=4 * WAIT_MAX_SECONDS)
    contains("its report", done.stdout + done.stderr, "50000 records sent")
    offsets = run(broker, "kafka-get-offsets", "--topic", name).split()
    same("records there", sum(int(offset.rsplit(":", 1)[1]) for offset in offsets), 50_000)


def what_the_verifiable_producer_sends_the_verifiable_consumer_sees(broker):
    name, count = confluent.topic(broker, partitions=2), 2_000
    told = run(broker, "kafka-verifiable-producer", "--topic", name, "--max-messages", count, "--acks", -1)
    events = [json.loads(line) for line in told.splitlines()]
    sent = {(event["partition"], event["offset"]) for event in events if event["name"] == "producer_send_success"}
    same("acknowledged", len(sent), count)
    seen = run(broker, "kafka-verifiable-consumer", "--topic", name, "--group-id", fresh("verifiable"), "--max-messages", count,
               "--reset-policy", "earliest")
    events = [json.loads(line) for line in seen.splitlines()]
    consumed = sum(event["count"] for event in events if event["name"] == "records_consumed")
    same("consumed", consumed, count)


def kafka_delete_records_and_get_offsets(broker):
    name = confluent.topic(broker)
    confluent.produce(broker, name, confluent.numbered(10))
    wanted = f"/tmp/{fresh('ackwell-delete-records')}.json"
    with open(wanted, "w") as file:
        json.dump({"partitions": [{"topic": name, "partition": 0, "offset": 6}], "version": 1}, file)
    try:
        contains("deleted", run(broker, "kafka-delete-records", "--offset-json-file", wanted), "low_watermark: 6")
    finally:
        os.unlink(wanted)
    same("earliest", run(broker, "kafka-get-offsets", "--topic", name, "--time", "earliest").strip(), f"{name}:0:6")
    same("latest", run(broker, "kafka-get-offsets", "--topic", name).strip(), f"{name}:0:10")


def kafka_broker_api_versions_understands_the_answer(broker):
    contains("versions", run(broker, "kafka-broker-api-versions"), "Produce(0)", "Fetch(1)", "JoinGroup(11)")


@needs(LIST_TRANSACTIONS)
def kafka_transactions_lists_and_describes(broker):
    name, transactional_id = confluent.topic(broker), fresh("tools-transaction")
    settings = {**confluent.settings_for(broker), "transactional.id": transactional_id}
    producer = confluent.Producer(settings)
    producer.init_transactions(WAIT_MAX_SECONDS)
    producer.begin_transaction()
    producer.produce(name, b"in it")
    producer.flush(WAIT_MAX_SECONDS)
    listed = run(broker, "kafka-transactions", "list")
    contains("listed", listed, transactional_id, "Ongoing")
    described = run(broker, "kafka-transactions", "describe", "--transactional-id", transactional_id)
    contains("described", described, "Ongoing", f"{name}-0")
    active = run(broker, "kafka-transactions", "describe-producers", "--topic", name, "--partition", 0)
    same("producers", len(active.strip().splitlines()), 2)
    producer.commit_transaction(WAIT_MAX_SECONDS)
    eventually("complete", lambda: "CompleteCommit" in run(broker, "kafka-transactions", "list"))


def with_open_transaction(broker, name):
    """A producer with one record in an open transaction, whose id this returns, too."""
    transactional_id = fresh("tools-open")
    producer = confluent.Producer({**confluent.settings_for(broker), "transactional.id": transactional_id})
    producer.init_transactions(WAIT_MAX_SECONDS)
    producer.begin_transaction()
    producer.produce(name, b"in it", partition=0)
    same("left to send", producer.flush(WAIT_MAX_SECONDS), 0)
    return producer, transactional_id


@needs(WRITE_TXN_MARKERS)
def kafka_transactions_aborts_one_in_its_partition(broker):
    name = confluent.topic(broker)
    confluent.produce(broker, name, confluent.numbered(3))
    producer, _ = with_open_transaction(broker, name)
    confluent.produce(broker, name, confluent.numbered(2))
    same("before", committed(broker, name, 3), 3)
    same("hanging", name in run(broker, "kafka-transactions", "find-hanging", "--topic", name), False)
    run(broker, "kafka-transactions", "abort", "--topic", name, "--partition", 0, "--start-offset", 3)
    same("after", committed(broker, name, 5), 5)
    active = run(broker, "kafka-transactions", "describe-producers", "--topic", name, "--partition", 0)
    open_ones = [line.split()[-1] for line in active.strip().splitlines()[1:]]
    same("open", [start for start in open_ones if start != "None"], [])
    del producer


@needs(WRITE_TXN_MARKERS)
def kafka_transactions_ends_one_by_its_id(broker):
    name = confluent.topic(broker)
    producer, transactional_id = with_open_transaction(broker, name)
    confluent.produce(broker, name, confluent.numbered(1))
    run(broker, "kafka-transactions", "forceTerminateTransaction", "--transactionalId", transactional_id)
    same("what is committed", committed(broker, name, 1), 1)
    try:
        producer.commit_transaction(WAIT_MAX_SECONDS)
    except confluent.KafkaException as error:
        same("fatal", error.args[0].fatal(), True)
    else:
        raise AssertionError("a commit went well after the transaction was ended from outside")


def committed(broker, name, count):
    """How many records a reader of committed ones sees; it waits for `count` of them."""
    reader = confluent.consumer(broker, fresh("committed"), **{"isolation.level": "read_committed"})
    reader.assign([confluent.TopicPartition(name, 0, 0)])
    seen = []

    def more():
        message = reader.poll(0.1)
        if message is not None and message.error() is None:
            seen.append(message)
        return len(seen) >= count

    eventually(f"{count} records", more)
    reader.close()
    return len(seen)


@without_login
@needs(LIST_TRANSACTIONS)
def the_message_copier_copies_each_record_once_while_it_aborts_at_random(broker):
    """It takes no file of settings, and so can't log in."""
    source, target, group, count = confluent.topic(broker), confluent.topic(broker), fresh("copier"), 2_000
    confluent.produce(broker, source, confluent.numbered(count))
    copier = ["--broker-list", broker.address, "--input-topic", source, "--input-partition", 0, "--output-topic", target,
              "--consumer-group", group, "--transaction-size", 50, "--enable-random-aborts", "--use-group-metadata"]
    for half in range(2):
        line = command("transactional-message-copier", *copier, "--transactional-id", group, "--max-messages", count // 2)
        done = subprocess.run(line, capture_output=True, text=True, timeout=4 * WAIT_MAX_SECONDS)
        last = json.loads(done.stdout.strip().splitlines()[-1])
        same(f"copied in run {half}", (last["consumed"], last["remaining"]), (count // 2, 0))
    read = run(broker, "kafka-console-consumer", "--topic", target, "--partition", 0, "--offset", "earliest", "--max-messages", count,
               "--isolation-level", "read_committed")
    copied = read.splitlines()
    same("each once and in order", copied, [record["value"].decode() for record in confluent.numbered(count)])


@needs(LIST_TRANSACTIONS)
def kafka_producer_perf_test_commits_its_transactions(broker):
    name, count = confluent.topic(broker, partitions=3), 20_000
    line = command("kafka-producer-perf-test", "--topic", name, "--num-records", count, "--record-size", 100, "--throughput", -1,
                   "--transactional-id", fresh("perf"), "--transaction-duration-ms", 20,
                   *login(broker, "kafka-producer-perf-test"),
                   "--producer-props", f"bootstrap.servers={broker.address}", "acks=all")
    done = subprocess.run(line, capture_output=True, text=True, timeout=4 * WAIT_MAX_SECONDS)
    contains("its report", done.stdout + done.stderr, f"{count} records sent")
    read = run(broker, "kafka-console-consumer", "--topic", name, "--from-beginning", "--max-messages", count, "--isolation-level",
               "read_committed")
    same("records that count", len(read.splitlines()), count)


CHECKS = [
    kafka_broker_api_versions_understands_the_answer,
    kafka_topics_creates_describes_grows_lists_and_deletes,
    the_consoles_write_and_read,
    kafka_consumer_groups_describes_resets_and_deletes,
    kafka_configs_describes_and_alters,
    kafka_configs_alters_groups,
    kafka_producer_perf_test_is_served,
    what_the_verifiable_producer_sends_the_verifiable_consumer_sees,
    kafka_delete_records_and_get_offsets,
    kafka_transactions_lists_and_describes,
    kafka_transactions_aborts_one_in_its_partition,
    kafka_transactions_ends_one_by_its_id,
    the_message_copier_copies_each_record_once_while_it_aborts_at_random,
    kafka_producer_perf_test_commits_its_transactions,
]
