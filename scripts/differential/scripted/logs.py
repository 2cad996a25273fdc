"""Records: written, refused, read from anywhere, found by time, and deleted."""

import struct

import crc32c

from ..batches import CODECS, CONTROL, LOG_APPEND_TIME, batch
from ..calls import EARLIEST, LATEST, MAX_TIMESTAMP, values

DAY_MS = 24 * 60 * 60 * 1000


def records_are_written_and_read(s):
    s.create("orders", 2)
    strange = [(None, b"", []), (b"", None, []), (b"k", b"v", [("h", None), ("h", b""), ("", b"x")])]
    s.produce("orders", strange)
    s.produce("orders", values(5), partition=1)
    s.produce("orders", values(5, 5), partition=1, acks=1)
    s.fetch("orders", 0)
    for offset in [0, 3, 5, 7, 9, 10, 11, -1, -2]:
        s.fetch("orders", offset, partition=1, note=f"from {offset}")
    s.fetch("orders", 0, partition=2, note="no such partition")
    s.fetch("never", 0, note="no such topic")


def every_codec_is_kept_as_it_came(s):
    for codec in CODECS:
        s.create(codec)
        s.produce(codec, values(20), compression=codec)
        s.fetch(codec, 7)


def a_topic_has_its_own_codec(s):
    for wanted in ["gzip", "uncompressed", "producer"]:
        s.create(wanted, configs={"compression.type": wanted})
        s.produce(wanted, values(3), note=f"plain into {wanted}")
        s.produce(wanted, values(3), compression="gzip", note=f"gzip into {wanted}")


def acknowledgements(s):
    s.create("orders")
    for acks in [1, -1, 2, -2, 7]:
        s.produce("orders", values(1), acks=acks, note=f"acks {acks}")
    s.produce("orders", values(1), acks=0)
    s.silent(note="acks 0 is not answered")
    s.metadata("orders", note="and the connection goes on")


def what_acks_0_cannot_tell_ends_the_connection(s):
    s.create("orders")
    s.produce("orders", batch(values(2), crc=1), acks=0)
    s.pause(0.3)
    s.silent(note="a damaged batch")
    s.hang_up()
    s.produce("never", values(1), acks=0)
    s.pause(0.3)
    s.silent(note="an unknown topic")
    s.hang_up()


def damaged_batches_are_refused(s):
    s.create("orders")
    whole = batch(values(3), at=s.clock)
    cases = {
        "wrong checksum": batch(values(3), at=s.clock, crc=1),
        "cut off": whole[:-3],
        "more behind it": whole + b"\0\0\0",
        "nothing": b"",
        "only a head": whole[:20],
        "length too small": batch(values(3), at=s.clock, length=10),
        "length negative": batch(values(3), at=s.clock, length=-1),
        "length beyond": batch(values(3), at=s.clock, length=10_000),
        "magic 0": batch(values(3), at=s.clock, magic=0),
        "magic 1": batch(values(3), at=s.clock, magic=1),
        "magic 3": batch(values(3), at=s.clock, magic=3),
        "more records said": batch(values(3), at=s.clock, count=5),
        "fewer records said": batch(values(3), at=s.clock, count=2),
        "no records said": batch(values(3), at=s.clock, count=0),
        "negative count": batch(values(3), at=s.clock, count=-1),
        "last delta too large": batch(values(3), at=s.clock, last_delta=9),
        "last delta negative": batch(values(3), at=s.clock, last_delta=-1),
        "no records": batch([], at=s.clock),
        "two batches": whole + whole,
        "an unknown codec": batch(values(3), at=s.clock, attributes=7),
        "a codec that it is not": batch(values(3), at=s.clock, attributes=1),
        "a base offset": batch(values(3), at=s.clock, base=42),
        "a control batch": batch(values(1), at=s.clock, attributes=CONTROL),
        "append time by the client": batch(values(1), at=s.clock, attributes=LOG_APPEND_TIME),
    }
    for note, data in cases.items():
        s.produce("orders", data, note=note)
    s.produce("orders", None, note="null")


def a_whole_request_of_partitions(s):
    s.create("a", 2)
    s.create("b")
    good, bad = batch(values(2), at=s.clock), batch(values(2), at=s.clock, crc=1)

    def topic(name, *parts):
        return {**s.name_and_id(name), "PartitionData": [{"Index": i, "Records": r} for i, r in parts]}

    def send(note, *topics, **more):
        s.ask("Produce", Acks=-1, TimeoutMs=30_000, TopicData=list(topics), note=note, **more)

    send("good, bad and unknown", topic("a", (0, good), (1, bad), (7, good)), topic("b", (0, good)))
    send("none")
    send("no partitions", topic("a"))
    send("a partition that is negative", topic("a", (-1, good)))


def sizes_are_limited(s):
    s.create("small", configs={"max.message.bytes": "1000"})
    for size in [100, 800, 900, 930, 940, 1000, 5000]:
        s.produce("small", [(None, b"x" * size, [])], note=f"{size} bytes")
    s.produce("small", [(None, b"x" * 5000, [])], compression="gzip", note="5000 that pack to few")


def times_are_the_topics(s):
    s.create("append", configs={"message.timestamp.type": "LogAppendTime"})
    s.produce("append", values(3), at=1000)
    s.list_offsets("append", LATEST, EARLIEST)
    s.create("strict", configs={"message.timestamp.after.max.ms": "1000", "message.timestamp.before.max.ms": str(DAY_MS)})
    for offset_ms in [0, -2 * DAY_MS, 3 * 60 * 60 * 1000]:
        s.produce("strict", values(1), at=s.clock + offset_ms, note=f"{offset_ms:+}")
    s.create("open")
    for offset_ms in [2 * 60 * 60 * 1000, 2 * DAY_MS]:
        s.produce("open", values(1), at=s.clock + offset_ms, note=f"{offset_ms:+}")
    s.produce("open", values(1), at=-1, note="no time")
    s.produce("open", values(1), at=-5, note="a negative time")


def offsets_are_found_by_time(s):
    s.create("orders", 2)
    s.list_offsets("orders", EARLIEST, LATEST, MAX_TIMESTAMP, s.clock, at_least=7)
    s.list_offsets("orders", EARLIEST, LATEST, s.clock)
    for at in [100, 300, 200]:
        s.produce("orders", values(3), at=s.clock + at)
    s.list_offsets("orders", EARLIEST, LATEST)
    s.list_offsets("orders", *(s.clock + at for at in [0, 100, 101, 102, 103, 200, 202, 203, 300, 302, 303, 1000]))
    s.list_offsets("orders", MAX_TIMESTAMP, at_least=7)
    s.list_offsets("orders", -4, -5, at_least=8)
    s.list_offsets("orders", -6, -7, -99, at_most=7)
    s.list_offsets("orders", LATEST, partition=5)
    s.list_offsets("never", LATEST)
    for epoch in [0, 1, 99]:
        s.list_offsets("orders", LATEST, leader_epoch=epoch, at_least=4)
    s.list_offsets("orders", LATEST, isolation=1, at_least=2)
    spots = [{"PartitionIndex": 0, "Timestamp": LATEST}] * 2
    s.ask("ListOffsets", ReplicaId=-1, Topics=[{"Name": s.named("orders"), "Partitions": spots}], note="one twice")


def records_of_a_compressed_batch_are_found_by_time(s):
    s.create("orders")
    s.produce("orders", values(5), at=s.clock, compression="gzip")
    s.produce("orders", values(5), at=s.clock + 100, compression="zstd")
    s.list_offsets("orders", *(s.clock + at for at in [2, 4, 5, 102, 104, 105]))


def leader_epochs(s):
    s.create("orders")
    s.produce("orders", values(4))
    for epoch in [-2, -1, 0, 1, 5]:
        s.epoch_end("orders", epoch, note=f"epoch {epoch}")
    for current in [0, 1, 99]:
        s.epoch_end("orders", 0, current=current, note=f"current {current}")
    s.epoch_end("never", 0)
    s.epoch_end("orders", 0, partition=3)
    for current in [0, 1, 99]:
        s.fetch("orders", 0, leader_epoch=current, at_least=9, note=f"current {current}")
    for last, offset in [(0, 2), (0, 4), (3, 2), (0, 9)]:
        s.fetch("orders", offset, fetched_epoch=last, at_least=12, note=f"last {last} at {offset}")


def a_fetch_is_as_large_as_it_may(s):
    s.create("orders")
    for start in range(0, 40, 10):
        s.produce("orders", values(10, start))
    for limit in [0, 1, 100, 250, 500, 1000, -1]:
        s.fetch("orders", 0, bytes_max=limit, note=f"partition {limit}")
        s.fetch("orders", 0, all_bytes_max=limit, note=f"all {limit}")
    s.fetch("orders", 25, bytes_max=300)


def a_fetch_waits_for_enough(s):
    s.create("orders")
    s.fetch("orders", 0, wait_ms=100, note="nothing comes")
    waits = s.send(
        "Fetch", on="waits", note="woken", ReplicaId=-1, MaxWaitMs=20_000, MinBytes=1, MaxBytes=1 << 20,
        Topics=[s.fetched("orders", [{"Partition": 0, "FetchOffset": 0, "PartitionMaxBytes": 1 << 20}])], SessionEpoch=-1,
    )
    s.pause(0.2)
    s.produce("orders", values(1))
    waits.answer()
    s.fetch("orders", 0, wait_ms=100, min_bytes=100_000, note="less than wanted")
    s.fetch("orders", 5, wait_ms=10_000, note="beyond the end")
    s.fetch("orders", 0, wait_ms=-5, min_bytes=-5, note="negative numbers")


def many_partitions_in_one_fetch(s):
    s.create("orders", 3)
    for partition in range(3):
        s.produce("orders", values(3), partition=partition)

    def ask(note, spots, **more):
        listed = [{"Partition": p, "FetchOffset": at, "PartitionMaxBytes": size} for p, at, size in spots]
        s.ask("Fetch", note=note, ReplicaId=-1, MaxWaitMs=0, MinBytes=1, MaxBytes=more.get("all", 1 << 20),
              Topics=[s.fetched("orders", listed)], SessionEpoch=-1)

    ask("all", [(0, 0, 1 << 20), (1, 1, 1 << 20), (2, 3, 1 << 20)])
    ask("one beyond the end", [(0, 0, 1 << 20), (1, 9, 1 << 20)])
    ask("enough for one", [(0, 0, 1 << 20), (1, 0, 1 << 20), (2, 0, 1 << 20)], all=10)
    ask("the last first", [(2, 0, 10), (1, 0, 10), (0, 0, 10)], all=10)
    ask("the same twice", [(0, 0, 1 << 20), (0, 1, 1 << 20)])


def fetch_sessions(s):
    s.create("orders", 2)
    s.produce("orders", values(2))
    s.fetch("orders", 0, session_id=0, session_epoch=0, at_least=7, note="a session is begun")
    s.fetch("orders", 0, session_id=12345, session_epoch=1, at_least=7, note="an unknown session")
    s.fetch("orders", 0, session_id=0, session_epoch=3, at_least=7, note="no id, and an epoch")
    s.fetch("orders", 0, session_id=0, session_epoch=-1, at_least=7, note="none")


def records_are_deleted_before_an_offset(s):
    s.create("orders")
    for start in range(0, 30, 10):
        s.produce("orders", values(10, start))
    for offset in [12, 5, 12, 31, -2, 30, 0]:
        s.delete_records("orders", offset, note=f"before {offset}")
        s.list_offsets("orders", EARLIEST, LATEST)
        for start in [0, 12]:
            s.fetch("orders", start, note=f"from {start}")
    s.delete_records("orders", -1, note="all")
    s.list_offsets("orders", EARLIEST, LATEST, s.clock)
    s.produce("orders", values(2), note="goes on")
    s.fetch("orders", 30)
    s.delete_records("never", 1)
    s.delete_records("orders", 1, partition=4)
    s.create("compacted", configs={"cleanup.policy": "compact"})
    s.produce("compacted", values(2))
    s.delete_records("compacted", 1, note="of a compacted topic")


def a_compacted_topic_wants_keys(s):
    s.create("compacted", configs={"cleanup.policy": "compact"})
    s.produce("compacted", [(b"k", b"1", []), (b"k", None, [])])
    s.produce("compacted", [(None, b"1", [])], note="no key")
    s.produce("compacted", [(b"k", b"1", []), (None, b"2", [])], note="one of two without")
    s.produce("compacted", [(b"", b"1", [])], note="an empty key")


def a_produce_to_a_topic_that_came_back(s):
    s.create("orders")
    s.produce("orders", values(3))
    s.delete("orders")
    s.produce("orders", values(1), note="deleted")
    s.fetch("orders", 0, note="deleted")
    s.list_offsets("orders", LATEST)
    s.create("orders")
    s.produce("orders", values(1), note="again")


def records_whose_inside_is_damaged(s):
    s.create("orders")
    good = batch(values(2), at=s.clock)
    # The first record's length is replaced; the checksum is made right again.
    for note, change in {"length 0": b"\x00", "length negative": b"\x01", "length beyond": b"\x7e"}.items():
        inside = bytearray(good)
        inside[61:62] = change
        inside[17:21] = struct.pack(">I", crc32c.crc32c(bytes(inside[21:])))
        s.produce("orders", bytes(inside), note=note)


SESSIONS = [
    records_are_written_and_read,
    every_codec_is_kept_as_it_came,
    a_topic_has_its_own_codec,
    acknowledgements,
    what_acks_0_cannot_tell_ends_the_connection,
    damaged_batches_are_refused,
    a_whole_request_of_partitions,
    sizes_are_limited,
    times_are_the_topics,
    offsets_are_found_by_time,
    records_of_a_compressed_batch_are_found_by_time,
    leader_epochs,
    a_fetch_is_as_large_as_it_may,
    a_fetch_waits_for_enough,
    many_partitions_in_one_fetch,
    fetch_sessions,
    records_are_deleted_before_an_offset,
    a_compacted_topic_wants_keys,
    a_produce_to_a_topic_that_came_back,
    records_whose_inside_is_damaged,
]
