"""A disk that becomes full under the load, and is freed again."""

import os
import random
import time

from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition

# Longer than anything takes on a machine that is busy with other things.
PATIENCE = 120
BALLAST = "ballast"
# No page that is begun has room for it.
LARGE = b"x" * 20_000


def fill(broker, load, disk, fills, seed, plain):
    dice = random.Random(seed)
    ballast = os.path.join(disk, BALLAST)
    for number in range(fills):
        load.stopping.wait(dice.uniform(0.5, 2.0))
        fill_up(ballast)
        refused = until_refused(broker, load)
        readable(load)
        # Long enough for retries of every kind to fail some times.
        load.stopping.wait(dice.uniform(1.0, 4.0))
        os.remove(ballast)
        begun, told = time.monotonic(), plain.told_count
        while plain.told_count < told + 100 and not load.stopping.is_set():
            if time.monotonic() > begun + PATIENCE:
                return load.fail("there is room again, and records are not acknowledged")
            time.sleep(0.05)
        print(f"full {number + 1}: refused with {refused}; acknowledged again {time.monotonic() - begun:.2f} s after there was room",
              flush=True)
        if broker.process.poll() is not None:
            return load.fail("the broker has ended")


def fill_up(ballast):
    """To the last byte."""
    with open(ballast, "wb", buffering=0) as file:
        size = 1 << 20
        while size:
            try:
                file.write(b"\0" * size)
            except OSError:
                size //= 2


def until_refused(broker, load):
    """A producer that does not try again is told why."""
    producer = Producer(load.client(retries=0, acks="all", linger_ms=0))
    outcomes, deadline = [], time.monotonic() + PATIENCE
    while time.monotonic() < deadline and broker.process.poll() is None:
        producer.produce("large", LARGE, partition=0, callback=lambda error, _: outcomes.append(error))
        producer.flush(PATIENCE)
        error = outcomes[-1]
        if error is not None:
            if error.code() != KafkaError.KAFKA_STORAGE_ERROR:
                load.fail(f"a full disk is told as {error}")
            return error.name()
    load.fail("the disk is full, and nothing is refused")
    return "nothing"


def readable(load):
    """What is there can be read while nothing can be written."""
    consumer = Consumer(load.client(group_id="reader-of-a-full-disk", enable_auto_commit=False))
    consumer.assign([TopicPartition("plain", 0, 0)])
    message = consumer.poll(PATIENCE)
    if message is None or message.error() is not None:
        load.fail("records cannot be read while the disk is full")
    consumer.close()
