"""A mixed load on `ackwell broker`, with clients that know nothing of it, and an account of what came of it.

    kill-broker.sh:  the process is killed with SIGKILL again and again; then everything is read back.
    broker-disk-full.sh: its disk becomes full and is freed; then everything is read back.
    soak.sh:         it runs for long; memory and file handles are sampled, and each kind of handle has its bound.

Idempotent producers, transactions over two partitions, a group that commits, and clients that come
and go run side by side. Every acknowledgement is written down.
"""

import argparse
import glob
import os
import random
import re
import sys
import threading
import time

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from foreign_clients.broker import Broker

from .full import fill

# Longer than anything takes on a machine that is busy with other things.
PATIENCE = 120
PARTITIONS = 3
# What the broker may have open, by kind. Segments' files stay open while they exist, so many at most
# (crates/broker/src/log/open_files.rs); one that is removed stays until its last reader is through.
SEGMENTS_MAX, READERS_MAX = 384, 8
# Each client has a connection to the address that it was given, one to the node, and one to its coordinator.
CONNECTIONS_MAX = 5 * 3
# Listener, standard streams, the runtime, the lock of the data folder, and a file that is being written or replaced.
OTHERS_MAX = 16


class Load:
    """What the clients share: where the broker is, when to stop, and what went wrong."""

    def __init__(self, address):
        self.address = address
        self.stopping = threading.Event()
        self.errors = []

    def client(self, **settings):
        return {"bootstrap.servers": self.address, "reconnect.backoff.max.ms": 500, "log_level": 0,
                **{name.replace("_", "."): value for name, value in settings.items()}}

    def fail(self, text):
        self.errors.append(text)
        self.stopping.set()


class Plain(threading.Thread):
    """An idempotent producer: each value once, where its acknowledgement says."""

    def __init__(self, load, per_second, keep):
        super().__init__(daemon=True)
        self.load, self.per_second = load, per_second
        self.sent, self.acknowledged, self.keep = 0, {}, keep
        self.told_count = 0

    def run(self):
        producer = Producer(self.load.client(enable_idempotence=True, linger_ms=2, message_timeout_ms=PATIENCE * 1000))
        while not self.load.stopping.is_set():
            for _ in range(max(1, self.per_second // 50)):
                producer.produce("plain", f"{self.sent}".encode(), partition=self.sent % PARTITIONS, callback=self.told)
                self.sent += 1
            producer.poll(0.02)
        if producer.flush(PATIENCE):
            self.load.fail("records were not acknowledged in time")

    def told(self, error, message):
        if error is not None:
            self.load.fail(f"a record was refused: {error}")
            return
        self.told_count += 1
        if self.keep:
            self.acknowledged[(message.partition(), message.offset())] = int(message.value())


class Whole(threading.Thread):
    """Transactions: both partitions have a value, or none has."""

    def __init__(self, load, pause):
        super().__init__(daemon=True)
        self.load, self.pause = load, pause
        self.count, self.committed, self.aborted = 0, set(), set()

    def run(self):
        producer = None
        while not self.load.stopping.is_set():
            value = self.count
            self.count += 1
            try:
                if producer is None:
                    producer = Producer(self.load.client(transactional_id="whole", linger_ms=0))
                    producer.init_transactions(PATIENCE)
                producer.begin_transaction()
                for partition in range(2):
                    producer.produce("whole", f"{value}".encode(), partition=partition)
                if value % 5 == 4:
                    producer.abort_transaction(PATIENCE)
                    self.aborted.add(value)
                else:
                    producer.commit_transaction(PATIENCE)
                    self.committed.add(value)
            except KafkaException as error:
                # Unknown how it ended: a new life of the producer ends it, and the checks take either.
                if error.args[0].code() == KafkaError._FENCED:
                    return self.load.fail(f"fenced by nobody: {error}")
                producer = None
            time.sleep(self.pause)


class Group(threading.Thread):
    """A member that commits what it has read; what was committed is committed."""

    def __init__(self, load):
        super().__init__(daemon=True)
        self.load = load
        self.read, self.committed = 0, {}

    def run(self):
        consumer = Consumer(self.load.client(group_id="readers", enable_auto_commit=False, auto_offset_reset="earliest",
                                             session_timeout_ms=10_000))
        consumer.subscribe(["plain"])
        since = 0
        while not self.load.stopping.is_set():
            message = consumer.poll(0.2)
            if message is not None and message.error() is None:
                self.read, since = self.read + 1, since + 1
            if since < 200:
                continue
            since = 0
            try:
                for place in consumer.commit(asynchronous=False):
                    if place.error is None and place.offset >= 0:
                        known = self.committed.get(place.partition, 0)
                        self.committed[place.partition] = max(known, place.offset)
            except KafkaException:
                pass  # The broker is away, or the group is rebalanced: nothing was promised.
        consumer.close()


class Visitors(threading.Thread):
    """Clients that come and go: connections, groups and transactional ids that are not seen again."""

    def __init__(self, load):
        super().__init__(daemon=True)
        self.load, self.visits = load, 0

    def run(self):
        while not self.load.stopping.is_set():
            try:
                admin = AdminClient(self.load.client())
                admin.list_topics(timeout=5)
                name = f"visitor-{self.visits % 500}"
                consumer = Consumer(self.load.client(group_id=name, auto_offset_reset="earliest"))
                consumer.commit(offsets=[TopicPartition("plain", 0, 1)], asynchronous=False)
                consumer.close()
                for done in admin.delete_consumer_groups([name]).values():
                    done.result()
                self.visits += 1
            except KafkaException:
                pass
            self.load.stopping.wait(0.5)


def create_topics(address, settings):
    admin = AdminClient({"bootstrap.servers": address})
    names = {"plain": PARTITIONS, "whole": 2, "large": 1}
    topics = [NewTopic(name, partitions, 1, config=settings) for name, partitions in names.items()]
    for created in admin.create_topics(topics).values():
        created.result(PATIENCE)


def read_all(load, topic, partition):
    """Everything that a reader of committed records is given: offset and value."""
    consumer = Consumer(load.client(group_id="checker", enable_partition_eof=True, isolation_level="read_committed"))
    consumer.assign([TopicPartition(topic, partition, 0)])
    records, deadline = [], time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        message = consumer.poll(1.0)
        if message is None:
            continue
        if message.error() is None:
            records.append((message.offset(), int(message.value())))
        elif message.error().code() == KafkaError._PARTITION_EOF:
            consumer.close()
            return records
    raise SystemExit(f"{topic}-{partition} could not be read to its end in {PATIENCE} s")


def check(load, plain, whole, group):
    """What was acknowledged against what is there."""
    seen = {}
    for partition in range(PARTITIONS):
        for offset, value in read_all(load, "plain", partition):
            if value in seen:
                load.fail(f"record {value} is there twice: at {seen[value]} and {(partition, offset)}")
            seen[value] = (partition, offset)
    for place, value in plain.acknowledged.items():
        if seen.get(value) != place:
            load.fail(f"record {value} was acknowledged at {place} and is at {seen.get(value)}")
    halves = []
    for partition in range(2):
        values = [value for _, value in read_all(load, "whole", partition)]
        if len(values) != len(set(values)):
            load.fail(f"a transaction's record is twice in partition {partition}")
        halves.append(set(values))
    if halves[0] != halves[1]:
        load.fail(f"half of a transaction: {sorted(halves[0] ^ halves[1])[:10]}")
    if whole.committed - halves[0]:
        load.fail(f"committed and gone: {sorted(whole.committed - halves[0])[:10]}")
    if whole.aborted & halves[0]:
        load.fail(f"aborted and visible: {sorted(whole.aborted & halves[0])[:10]}")
    check_positions(load, group)
    print(f"{len(seen)} records, {len(plain.acknowledged)} of them acknowledged; {len(halves[0])} transactions, "
          f"{len(whole.committed)} of them told to be committed, {len(whole.aborted)} aborted; positions {group.committed}")


def check_positions(load, group):
    places = [TopicPartition("plain", partition) for partition in group.committed]
    consumer = Consumer(load.client(group_id="readers"))
    for place in consumer.committed(places, timeout=PATIENCE):
        if place.offset < group.committed[place.partition]:
            load.fail(f"the group's position went back: {place.partition} to {place.offset} "
                      f"from {group.committed[place.partition]}")
    consumer.close()


def kill(broker, load, kills, seed):
    dice = random.Random(seed)
    for number in range(kills):
        load.stopping.wait(dice.uniform(0.3, 3.0))
        if load.stopping.is_set():
            return
        broker.kill()
        begun = time.monotonic()
        broker.start()
        print(f"kill {number + 1}: ready again after {time.monotonic() - begun:.2f} s", flush=True)
    load.stopping.wait(2.0)


def kind(target):
    """What a handle is for."""
    if target.startswith("socket:"):
        return "connections"
    return "segments" if re.search(r"/\d{20}\.log( \(deleted\))?$", target) else "others"


def handles(pid):
    """How many handles of each kind the process has."""
    counts = dict.fromkeys(("segments", "connections", "others"), 0)
    for handle in os.listdir(f"/proc/{pid}/fd"):
        try:
            counts[kind(os.readlink(f"/proc/{pid}/fd/{handle}"))] += 1
        except FileNotFoundError:
            pass  # Closed meanwhile.
    return counts


def bounds(folder):
    """How many there may be: of segments those that exist."""
    exist = len(glob.glob(f"{folder}/**/*.log", recursive=True))
    return {"segments": min(exist, SEGMENTS_MAX) + READERS_MAX, "connections": CONNECTIONS_MAX, "others": OTHERS_MAX}


def sample(pid):
    with open(f"/proc/{pid}/status") as status:
        rss = next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))
    with open(f"/proc/{pid}/stat") as stat:
        ticks = stat.read().rsplit(") ", 1)[1].split()
    return rss / 1024, (int(ticks[11]) + int(ticks[12])) / 100


def soak(broker, load, seconds, plain, whole, group, visitors):
    """Samples all the while; memory in the second half must be as in the first was, but for its beginning."""
    every = max(1.0, seconds / 40)
    begun, samples = time.monotonic(), []
    print("  seconds   MiB  segments  connections  others  CPU s   records   read  transactions  visits")
    while time.monotonic() - begun < seconds and not load.stopping.is_set():
        load.stopping.wait(every)
        rss, cpu = sample(broker.process.pid)
        samples.append(rss)
        most, open_now = bounds(broker.folder), handles(broker.process.pid)
        print(f"{time.monotonic() - begun:9.0f} {rss:5.1f} {open_now['segments']:9} {open_now['connections']:12} "
              f"{open_now['others']:7} {cpu:6.0f} {plain.told_count:9} {group.read:6} {whole.count:13} {visitors.visits:7}",
              flush=True)
        for what, count in open_now.items():
            if count > most[what]:
                load.fail(f"{count} handles of {what}; {most[what]} are expected at most")
    half = len(samples) // 2
    before, after = max(samples[half // 2:half]), max(samples[half:])
    print(f"MiB: at most {before:.1f} in the second quarter, {after:.1f} in the second half")
    if after > before * 1.15 + 8:
        load.fail(f"memory grows: {before:.1f} MiB, then {after:.1f}")


def main():
    parser = argparse.ArgumentParser(prog="broker_load")
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--fills", type=int, default=0, help="how often the disk becomes full")
    parser.add_argument("--disk", help="where that disk is mounted; the broker's folder is on it")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--per-second", type=int, default=500)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    options = parser.parse_args()
    checked = bool(options.kills or options.fills)
    with Broker() as broker:
        load = Load(broker.address)
        # A soak's disk is bounded, so that retention works too.
        create_topics(load.address, {} if checked else {"retention.bytes": "4000000", "segment.bytes": "1000000"})
        plain, whole = Plain(load, options.per_second, keep=checked), Whole(load, 0.02)
        group, visitors = Group(load), Visitors(load)
        clients = [plain, whole, group, visitors]
        for client in clients:
            client.start()
        if options.kills:
            print(f"{options.kills} kills, seed {options.seed}")
            kill(broker, load, options.kills, options.seed)
        elif options.fills:
            print(f"the disk becomes full {options.fills} times, seed {options.seed}")
            fill(broker, load, options.disk, options.fills, options.seed, plain)
        else:
            soak(broker, load, options.seconds, plain, whole, group, visitors)
        load.stopping.set()
        for client in clients:
            client.join(PATIENCE * 2)
            if client.is_alive():
                load.fail(f"{type(client).__name__} did not end in time")
        if options.fills:
            broker.stop()
            broker.start()
        if checked:
            check(load, plain, whole, group)
        elif not load.errors:
            check_positions(load, group)
        broker.stop()
    for error in load.errors:
        print(error, file=sys.stderr)
    print("nothing was lost, nothing is there twice" if checked and not load.errors else
          "flat" if not load.errors else "FAILED")
    sys.exit(1 if load.errors else 0)


if __name__ == "__main__":
    main()
