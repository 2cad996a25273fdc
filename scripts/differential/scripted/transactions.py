"""Transactions: begun, committed, aborted, fenced, and read."""

from ..batches import TRANSACTIONAL
from ..calls import LATEST, values

READ_COMMITTED = 1
# EndTxn 5 raises the epoch with each transaction (KIP-890); below, one producer's epoch stays.
OLD_END = 4


class Producer:
    def __init__(self, s, name="payments", **how):
        self.s, self.name = s, name
        s.versions.of("EndTxn")
        self.id = s.producer(name, **how)

    def add(self, topic, *partitions, **more):
        # From version 4 on, brokers speak among themselves; clients stay at 3.
        topics = [{"Name": self.s.named(topic), "Partitions": list(partitions)}]
        return self.s.ask(
            "AddPartitionsToTxn", at_most=3, V3AndBelowTransactionalId=self.s.named(self.name),
            V3AndBelowProducerId=self.id[0], V3AndBelowProducerEpoch=self.id[1], V3AndBelowTopics=topics, **more,
        )

    def send(self, topic, records, sequence, partition=0, **more):
        return self.s.produce(
            topic, records, partition=partition, producer=self.id, sequence=sequence, attributes=TRANSACTIONAL,
            transactional_id=self.name, **more,
        )

    def add_offsets(self, group, **more):
        return self.s.ask(
            "AddOffsetsToTxn", at_most=3, TransactionalId=self.s.named(self.name), ProducerId=self.id[0],
            ProducerEpoch=self.id[1], GroupId=self.s.group(group), **more,
        )

    def commit_offset(self, group, topic, offset, **more):
        spot = {"PartitionIndex": 0, "CommittedOffset": offset, "CommittedMetadata": "in a transaction"}
        return self.s.ask(
            "TxnOffsetCommit", at_most=4, TransactionalId=self.s.named(self.name), GroupId=self.s.group(group),
            ProducerId=self.id[0], ProducerEpoch=self.id[1],
            Topics=[{**self.s.name_and_id(topic), "Partitions": [spot]}], **more,
        )

    def end(self, committed, **more):
        return self.s.ask(
            "EndTxn", at_most=OLD_END, TransactionalId=self.s.named(self.name), ProducerId=self.id[0],
            ProducerEpoch=self.id[1], Committed=committed, **more,
        )

    def settled(self):
        """Waits until the markers of the last transaction are written: a new one cannot begin before."""
        full = self.s.named(self.name)

        def it_is_complete():
            told = self.s.quietly("DescribeTransactions", TransactionalIds=[full])["TransactionStates"][0]
            return told["TransactionState"] not in ("PrepareCommit", "PrepareAbort", "PrepareEpochFence")

        self.s.until(it_is_complete)


class OwnEpochs(Producer):
    """Each transaction has an epoch of its own, and records and offsets take what they reach into it (KIP-890)."""

    def __init__(self, s, name="payments", **how):
        s.versions.of("EndTxn", OLD_END + 1)
        super().__init__(s, name, **how)
        self.before = None

    def send(self, topic, records, sequence, **more):
        return super().send(topic, records, sequence, at_least=12, **more)

    def commit_offset(self, group, topic, offset, **more):
        spot = {"PartitionIndex": 0, "CommittedOffset": offset, "CommittedMetadata": "in a transaction"}
        return self.s.ask(
            "TxnOffsetCommit", at_least=5, TransactionalId=self.s.named(self.name), GroupId=self.s.group(group),
            ProducerId=self.id[0], ProducerEpoch=self.id[1],
            Topics=[{**self.s.name_and_id(topic), "Partitions": [spot]}], **more,
        )

    def end(self, committed, **more):
        told = self.ask_for_end(self.id, committed, **more)
        if told["ErrorCode"] == 0:
            self.before, self.id = self.id, (told["ProducerId"], told["ProducerEpoch"])
        self.settled()

    def ask_for_end(self, producer, committed, **more):
        return self.s.ask(
            "EndTxn", at_least=OLD_END + 1, TransactionalId=self.s.named(self.name), ProducerId=producer[0],
            ProducerEpoch=producer[1], Committed=committed, **more,
        )


def each_has_its_own_epoch(s):
    s.create("orders", 2)
    me = OwnEpochs(s)
    me.send("orders", values(2), 0)
    me.send("orders", values(1), 0, partition=1)
    me.send("orders", values(1), 2)
    me.end(True)
    s.fetch("orders", 0, isolation=READ_COMMITTED, note="committed")
    me.send("orders", values(1, 5), 0)
    me.end(False)
    me.send("orders", values(1, 9), 0, partition=1)
    me.end(True)
    s.fetch("orders", 0, isolation=READ_COMMITTED, note="one aborted")


def ends_are_asked_for_again(s):
    s.create("orders")
    me = OwnEpochs(s)
    for committed in (True, False):
        me.send("orders", values(1), 0)
        me.end(committed)
        me.ask_for_end(me.before, committed, note="the same again")
        me.ask_for_end(me.before, not committed, note="the other way")
    oldest = me.before
    me.end(False, note="nothing to abort")
    me.ask_for_end(me.id, True, note="nothing to commit")
    me.ask_for_end(oldest, False, note="long ago")
    me.ask_for_end((me.id[0], me.id[1] + 1), False, note="an epoch that nobody has")
    me.send("orders", values(1), 0)
    me.ask_for_end(me.before, False, note="while the next is open")
    me.end(True)


def nothing_arrives_late(s):
    s.create("orders", 2)
    me = OwnEpochs(s)
    me.ask_for_end(me.id, True, note="none was begun")
    me.end(False, note="none was begun")
    me.send("orders", values(1), 0)
    me.end(True)
    now, me.id = me.id, me.before
    me.send("orders", values(1), 1, note="late, where it was")
    me.send("orders", values(1), 0, partition=1, note="late, where it was not")
    me.id = now
    me.send("orders", values(1), 0)
    me.end(True)


def offsets_take_their_group_along(s):
    s.create("orders")
    me = OwnEpochs(s)
    me.commit_offset("payment", "orders", 5)
    s.committed("payment", "orders", note="while it is open")
    me.end(True)
    s.until(lambda: offset_of(s) == 5)
    me.commit_offset("payment", "orders", 9)
    me.end(False)
    s.committed("payment", "orders", note="aborted")
    me.id = me.before
    me.commit_offset("payment", "orders", 11, note="late")


def who_ran_out_of_time_goes_on(s):
    s.create("orders")
    me = OwnEpochs(s, timeout_ms=1000)
    me.send("orders", values(1), 0)

    def it_is_aborted():
        told = s.quietly("DescribeTransactions", TransactionalIds=[s.named("payments")])["TransactionStates"][0]
        return told["TransactionState"] == "CompleteAbort"

    s.until(it_is_aborted)
    me.send("orders", values(1), 1, note="too late")
    me.ask_for_end(me.id, True, note="too late")
    me.end(False, note="it gives up")
    me.send("orders", values(1), 0, note="the next")
    me.end(True)
    s.fetch("orders", 0, isolation=READ_COMMITTED)


def one_is_committed_and_one_aborted(s):
    s.create("orders", 2)
    me = Producer(s)
    me.add("orders", 0, 1)
    me.send("orders", values(2), 0)
    me.send("orders", values(1), 0, partition=1)
    s.fetch("orders", 0, isolation=READ_COMMITTED, note="while it is open")
    s.fetch("orders", 0, note="while it is open, all")
    s.list_offsets("orders", LATEST, isolation=READ_COMMITTED, at_least=2)
    s.list_offsets("orders", LATEST)
    me.end(True)
    me.settled()
    s.fetch("orders", 0, isolation=READ_COMMITTED, note="committed")
    me.add("orders", 0)
    me.send("orders", values(3, 2), 2)
    me.end(False)
    me.settled()
    s.fetch("orders", 0, isolation=READ_COMMITTED, note="one aborted")
    s.fetch("orders", 4, isolation=READ_COMMITTED, note="from the middle of the aborted one")
    s.list_offsets("orders", LATEST, isolation=READ_COMMITTED, at_least=2)


def others_records_stand_between(s):
    s.create("orders")
    me, other = Producer(s), Producer(s, "other")
    me.add("orders", 0)
    me.send("orders", values(1), 0)
    other.add("orders", 0)
    other.send("orders", values(1, 10), 0)
    s.produce("orders", values(1, 20), note="outside")
    me.end(True)
    me.settled()
    s.fetch("orders", 0, isolation=READ_COMMITTED, note="the other is still open")
    s.list_offsets("orders", LATEST, isolation=READ_COMMITTED, at_least=2)
    other.end(False)
    other.settled()
    s.fetch("orders", 0, isolation=READ_COMMITTED, note="the other is aborted")


def ends_are_checked(s):
    s.create("orders")
    me = Producer(s)
    me.end(True, note="none was begun")
    me.end(False, note="none was begun")
    me.add("orders", 0)
    me.end(True, note="without a record")
    me.settled()
    me.end(True, note="again")
    me.end(False, note="the other way")
    stranger = Producer(s)
    stranger.name = "nobody"
    stranger.end(True, note="an unknown id")
    stranger.add("orders", 0, note="an unknown id")


def a_new_instance_fences_the_old(s):
    s.create("orders")
    old = Producer(s)
    old.add("orders", 0)
    old.send("orders", values(2), 0)
    new_id = retried(s, lambda: s.quietly("InitProducerId", TransactionalId=s.named("payments"), TransactionTimeoutMs=60_000))
    s.record("note", 0, "the epochs raised", new_id["ProducerEpoch"] - old.id[1])
    s.fetch("orders", 0, isolation=READ_COMMITTED, note="the old one's is aborted")
    old.send("orders", values(1), 2, note="the old one writes")
    old.add("orders", 0, note="the old one goes on")
    old.end(True, note="the old one commits")


def retried(s, ask):
    answer = {}

    def it_is_not_busy():
        answer.update(ask())
        return answer["ErrorCode"] not in (51, 14, 15)

    s.until(it_is_not_busy)
    return answer


def offsets_are_part_of_it(s):
    s.create("orders")
    me = Producer(s)
    s.commit("payment", "orders", 1)
    me.add_offsets("payment")
    me.commit_offset("payment", "orders", 5)
    s.committed("payment", "orders", note="while it is open")
    s.committed("payment", "orders", stable=True, at_least=7, note="while it is open, only stable")
    me.end(True)
    me.settled()
    s.until(lambda: offset_of(s) == 5)
    s.committed("payment", "orders", note="committed")
    me.add_offsets("payment")
    me.commit_offset("payment", "orders", 9)
    me.end(False)
    me.settled()
    s.committed("payment", "orders", note="aborted")


def offset_of(s):
    full, both = s.named("payment"), s.name_and_id("orders")
    topics = [{**both, "PartitionIndexes": [0]}]
    told = s.quietly("OffsetFetch", GroupId=full, Topics=topics, Groups=[{"GroupId": full, "Topics": topics}])
    return told["Groups"][0]["Topics"][0]["Partitions"][0]["CommittedOffset"]


def offsets_of_strangers(s):
    s.create("orders")
    me = Producer(s)
    me.commit_offset("payment", "never", 5, note="an unknown topic")
    me.add_offsets("payment")
    spot = {"PartitionIndex": 0, "CommittedOffset": 1, "CommittedMetadata": ""}
    s.ask("TxnOffsetCommit", at_least=3, at_most=4, TransactionalId=s.named("payments"), GroupId=s.named("payment"),
          ProducerId=me.id[0], ProducerEpoch=me.id[1], MemberId="nobody", GenerationIdOrMemberEpoch=3,
          Topics=[{**s.name_and_id("orders"), "Partitions": [spot]}], note="nobody")
    me.end(False)


def what_is_not_in_it_is_refused(s):
    s.create("orders", 2)
    me = Producer(s)
    me.add("orders", 0)
    me.send("orders", values(1), 0)
    me.send("orders", values(1), 0, partition=1, note="a partition that was not added", on="old")
    s.produce("orders", values(1), producer=me.id, sequence=1, note="not transactional, by the same producer")
    me.add("never", 0, note="an unknown topic")
    me.add("orders", 7, note="an unknown partition")
    me.end(True)
    me.settled()


def time_runs_out(s):
    s.create("orders")
    me = Producer(s, timeout_ms=1000)
    me.add("orders", 0)
    me.send("orders", values(1), 0)

    def it_is_aborted():
        told = s.quietly("DescribeTransactions", TransactionalIds=[s.named("payments")])["TransactionStates"][0]
        return told["TransactionState"] == "CompleteAbort"

    s.until(it_is_aborted)
    s.fetch("orders", 0, isolation=READ_COMMITTED, note="aborted by the broker")
    me.end(True, note="too late")
    s.producer("payments", timeout_ms=0, note="no time")
    s.producer("payments", timeout_ms=1_000_000_000, note="more than allowed")


def transactions_are_described(s):
    s.create("orders")
    me = Producer(s)
    me.add("orders", 0)
    me.send("orders", values(1), 0)
    s.ask("DescribeTransactions", TransactionalIds=[s.named("payments"), s.named("nobody")])
    asked = [{"Name": s.named("orders"), "PartitionIndexes": [0]}]
    s.ask("DescribeProducers", Topics=asked, note="open")
    me.end(True)
    me.settled()
    s.ask("DescribeTransactions", TransactionalIds=[s.named("payments")], note="complete")
    s.ask("DescribeProducers", Topics=asked, note="complete")


def an_empty_transactional_id(s):
    s.versions.of("EndTxn")
    s.ask("InitProducerId", TransactionalId="", TransactionTimeoutMs=60_000)


SESSIONS = [
    one_is_committed_and_one_aborted,
    others_records_stand_between,
    ends_are_checked,
    a_new_instance_fences_the_old,
    offsets_are_part_of_it,
    offsets_of_strangers,
    what_is_not_in_it_is_refused,
    time_runs_out,
    transactions_are_described,
    an_empty_transactional_id,
    each_has_its_own_epoch,
    ends_are_asked_for_again,
    nothing_arrives_late,
    offsets_take_their_group_along,
    who_ran_out_of_time_goes_on,
]
