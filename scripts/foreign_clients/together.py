"""Several clients on one broker, and what is left after it was stopped or killed."""

from confluent_kafka import TopicPartition as ConfluentPartition

from . import confluent, kafka_python, kcat
from .check import RECORDS, WAIT_MAX_SECONDS, fresh, restarts_broker, same


def what_one_client_writes_the_others_read(broker):
    name = confluent.topic(broker)
    confluent.produce(broker, name, RECORDS, **{"compression.type": "zstd"})
    kafka_python.produce(broker, name, kafka_python.SENDABLE, compression_type="lz4")
    kcat.kcat(broker, "-P", "-t", name, "-k", "key", "-z", "gzip", stdin=b"from kcat\n")
    wanted = RECORDS + kafka_python.SENDABLE + [{"key": b"key", "value": b"from kcat", "headers": []}]
    count = len(wanted)
    same("confluent-kafka", [confluent.as_record(m) for m in confluent.read_from(broker, name, count)], wanted)
    same("kafka-python", [kafka_python.as_record(r) for r in kafka_python.read_all(broker, name, count)], wanted)
    offsets = kcat.lines(kcat.kcat(broker, "-C", "-t", name, "-e", "-q", "-f", "%o\\n"))
    same("kcat", offsets, [f"{n}" for n in range(count)])


def kept_over(broker, end):
    """Everything acknowledged is there after an end and a new start."""
    name, group = confluent.topic(broker, partitions=2, **{"retention.ms": "3600000"}), fresh("kept")
    sent = [record for record in RECORDS for _ in range(50)]
    confluent.produce(broker, name, [{**record, "partition": 0} for record in sent])
    client = confluent.consumer(broker, group)
    client.assign([ConfluentPartition(name, 0, 0)])
    client.commit(offsets=[ConfluentPartition(name, 0, 17, "seventeen")], asynchronous=False)
    client.close()
    end()
    broker.start()
    got = [confluent.as_record(message) for message in confluent.read_from(broker, name, len(sent))]
    same("records", got, sent)
    client = confluent.consumer(broker, group)
    kept = client.committed([ConfluentPartition(name, 0)], timeout=WAIT_MAX_SECONDS)[0]
    same("the commit", (kept.offset, kept.metadata), (17, "seventeen"))
    told = confluent.admin(broker).list_topics(timeout=WAIT_MAX_SECONDS).topics[name]
    same("partitions", len(told.partitions), 2)
    same("the next offset", confluent.produce(broker, name, [{"value": b"next", "partition": 0}]), [len(sent)])


@restarts_broker
def records_topics_and_commits_are_kept_over_a_stop(broker):
    kept_over(broker, broker.stop)


@restarts_broker
def records_topics_and_commits_are_kept_over_a_kill(broker):
    kept_over(broker, broker.kill)


@restarts_broker
def a_producer_goes_on_through_a_kill_without_loss_or_repetition(broker):
    name = confluent.topic(broker)
    settings = {**confluent.settings_for(broker), "enable.idempotence": True, "linger.ms": 1}
    producer, errors = confluent.Producer({**settings, "reconnect.backoff.max.ms": 200}), []
    count = 30_000
    for number in range(count):
        if number in (10_000, 20_000):
            producer.flush(0.01)
            broker.kill()
            broker.start()
        producer.produce(name, f"{number}".encode(), on_delivery=lambda error, _: error and errors.append(error))
        producer.poll(0)
    same("not acknowledged", producer.flush(3 * WAIT_MAX_SECONDS), 0)
    same("errors", errors, [])
    got = [int(message.value()) for message in confluent.read_from(broker, name, count)]
    same("each record once and in order", got == list(range(count)), True)
    reader = confluent.consumer(broker, fresh("end"))
    ends = reader.get_watermark_offsets(ConfluentPartition(name, 0), timeout=WAIT_MAX_SECONDS)
    same("the end of the log", ends, (0, count))


CHECKS = [
    what_one_client_writes_the_others_read,
    records_topics_and_commits_are_kept_over_a_stop,
    records_topics_and_commits_are_kept_over_a_kill,
    a_producer_goes_on_through_a_kill_without_loss_or_repetition,
]
