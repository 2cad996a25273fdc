"""Idempotent producers: numbers without gaps, nothing twice, nobody stale."""

from ..batches import batch
from ..calls import values


def sequences(s):
    s.create("orders", 2)
    me = s.producer()
    s.produce("orders", values(3), producer=me, sequence=0)
    s.produce("orders", values(3), producer=me, sequence=0, note="the same again")
    s.produce("orders", values(2, 3), producer=me, sequence=3)
    s.produce("orders", values(2, 3), producer=me, sequence=3, note="the same again")
    s.produce("orders", values(1), producer=me, sequence=9, note="a gap")
    s.produce("orders", values(3), producer=me, sequence=0, note="an older one")
    s.produce("orders", values(2), producer=me, sequence=0, note="an older one, shorter")
    s.produce("orders", values(4), producer=me, sequence=3, note="begins with what is there")
    s.produce("orders", values(1), producer=me, sequence=0, partition=1, note="another partition counts by itself")
    s.produce("orders", values(1), producer=me, sequence=5, note="the next")


def only_the_last_five_are_remembered(s):
    s.create("orders")
    me = s.producer()
    for number in range(8):
        s.produce("orders", values(1, number), producer=me, sequence=number)
    for number in range(8):
        s.produce("orders", values(1, number), producer=me, sequence=number, note=f"{number} again")


def epochs(s):
    s.create("orders")
    pid, epoch = s.producer()
    s.produce("orders", values(1), producer=(pid, epoch), sequence=0)
    s.produce("orders", values(1), producer=(pid, epoch + 1), sequence=5, note="a new epoch begins at 0")
    s.produce("orders", values(1), producer=(pid, epoch + 1), sequence=0, note="a new epoch")
    s.produce("orders", values(1), producer=(pid, epoch), sequence=1, note="the old epoch")
    s.produce("orders", values(1), producer=(pid, epoch + 7), sequence=0, note="a much newer epoch")


def strangers(s):
    s.create("orders")
    s.produce("orders", values(1), producer=(987_654_321, 0), sequence=0, note="an id that nobody gave")
    s.produce("orders", values(1), producer=(987_654_322, 0), sequence=7, note="one that begins at 7")
    s.produce("orders", values(1), producer=(987_654_323, -1), sequence=0, note="no epoch")
    s.produce("orders", values(1), producer=(987_654_324, 0), sequence=-1, note="no sequence")
    s.produce("orders", values(1), producer=(-5, 0), sequence=0, note="a negative id")


def sequences_wrap_around(s):
    s.create("orders")
    me, last = s.producer(), 2**31 - 1
    s.produce("orders", values(1), producer=me, sequence=last - 1, note="begins near the end")
    s.produce("orders", values(2), producer=me, sequence=last, note="the last number and 0")
    s.produce("orders", values(1), producer=me, sequence=1, note="goes on")


def one_request_with_two_batches(s):


    s.create("orders")
    me = s.producer()
    two = batch(values(1), at=s.clock, producer=me, sequence=0) + batch(values(1), at=s.clock, producer=me, sequence=1)
    s.produce("orders", two, note="two batches of a producer")


def ids_are_given_and_raised(s):
    pid, epoch = s.producer()
    s.producer(known=(pid, epoch), note="its own again")
    s.producer(known=(pid, epoch + 4), note="with another epoch")
    s.producer(known=(pid, -1), note="an id and no epoch", at_least=3)
    s.producer(timeout_ms=0, note="no time")
    s.producer(timeout_ms=2**31 - 1, note="for ever")


def producers_after_records_are_deleted(s):
    s.create("orders")
    me = s.producer()
    s.produce("orders", values(3), producer=me, sequence=0)
    s.delete_records("orders", 3)
    s.produce("orders", values(3), producer=me, sequence=0, note="again")
    s.produce("orders", values(1), producer=me, sequence=3, note="next")


def producers_are_described(s):
    s.create("orders")
    me = s.producer()
    s.produce("orders", values(3), producer=me, sequence=0)
    asked = [{"Name": s.named("orders"), "PartitionIndexes": [0, 5]}, {"Name": s.named("never"), "PartitionIndexes": [0]}]
    s.ask("DescribeProducers", Topics=asked)


SESSIONS = [
    sequences,
    only_the_last_five_are_remembered,
    epochs,
    strangers,
    sequences_wrap_around,
    one_request_with_two_batches,
    ids_are_given_and_raised,
    producers_after_records_are_deleted,
    producers_are_described,
]
