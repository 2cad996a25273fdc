"""Groups whose partitions the broker assigns (KIP-848)."""

import uuid

API = "ConsumerGroupHeartbeat"


class Member:
    def __init__(self, s, group, *topics, **more):
        self.s, self.full = s, s.group(group)
        self.id, self.epoch, self.owned = str(uuid.uuid5(uuid.NAMESPACE_OID, s.prefix + more.pop("named", "one"))), 0, []
        self.subscribed = [s.named(topic) for topic in topics]
        self.beat(SubscribedTopicNames=self.subscribed, RebalanceTimeoutMs=30_000, TopicPartitions=[], **more)

    def beat(self, note="", epoch=None, **fields):
        asked = self.epoch if epoch is None else epoch
        answer = self.s.ask(API, note=note, GroupId=self.full, MemberId=self.id, MemberEpoch=asked, **fields)
        if isinstance(answer, dict) and not answer["ErrorCode"]:
            self.id, self.epoch = answer["MemberId"] or self.id, answer["MemberEpoch"]
            if answer["Assignment"] is not None:
                self.owned = answer["Assignment"]["TopicPartitions"]
        return answer

    def settle(self, partitions):
        settle(self.s, {self: partitions})

    def beat_quietly(self):
        """Takes what it is given, and gives up what it must, as a client does in the background."""
        answer = self.s.quietly(
            API, GroupId=self.full, MemberId=self.id, MemberEpoch=self.epoch, TopicPartitions=self.owned,
        )
        if answer["ErrorCode"]:
            raise AssertionError(answer)
        self.epoch = answer["MemberEpoch"]
        if answer["Assignment"] is not None:
            self.owned = answer["Assignment"]["TopicPartitions"]
        return sum(len(topic["Partitions"]) for topic in self.owned)

    def name(self, topic_id):
        return next((name for name, known in self.s.topic_ids.items() if known == topic_id), str(topic_id))


def one_member_from_join_to_leave(s):
    s.create("orders", 3)
    me = Member(s, "payment", "orders")
    me.settle(3)
    s.ask("ConsumerGroupDescribe", GroupIds=[me.full])
    s.commit("payment", "orders", 5, me.id, me.epoch, at_least=9)
    s.commit("payment", "orders", 6, me.id, me.epoch + 3, at_least=9, note="another epoch")
    s.commit("payment", "orders", 6, "nobody", me.epoch, at_least=9, note="nobody")
    s.committed("payment", "orders", at_least=9, member=me.id, epoch=me.epoch)
    s.committed("payment", "orders", at_least=9, member=me.id, epoch=me.epoch + 1, note="another epoch")
    s.describe("payment", note="the old question")
    me.beat("leaves", epoch=-1)
    s.ask("ConsumerGroupDescribe", GroupIds=[me.full, s.named("unheard-of")], note="empty")
    s.delete_groups("payment")


def beats_are_checked(s):
    s.create("orders")
    full = s.group("payment")
    me, new = str(uuid.UUID(int=5)), {"RebalanceTimeoutMs": 30_000, "TopicPartitions": []}
    s.ask(API, note="no group", GroupId="", MemberId=me, MemberEpoch=0, SubscribedTopicNames=["a"], **new)
    s.ask(API, note="no subscription", GroupId=full, MemberId=me, MemberEpoch=0, **new)
    s.ask(API, note="no time", GroupId=full, MemberId=me, MemberEpoch=0, SubscribedTopicNames=["a"], TopicPartitions=[])
    s.ask(API, note="an unknown assignor", GroupId=full, MemberId=me, MemberEpoch=0, SubscribedTopicNames=["a"],
          ServerAssignor="mine", **new)
    s.ask(API, note="an unknown member", GroupId=full, MemberId=me, MemberEpoch=4)
    s.ask(API, note="an unknown member leaves", GroupId=full, MemberId=me, MemberEpoch=-1)
    s.ask(API, note="epoch -5", GroupId=full, MemberId=me, MemberEpoch=-5)
    s.ask(API, note="owns something at first", GroupId=full, MemberId=me, MemberEpoch=0, SubscribedTopicNames=["a"],
          RebalanceTimeoutMs=1000, TopicPartitions=[{"TopicId": uuid.UUID(int=3), "Partitions": [0]}])
    one = Member(s, "payment", "orders")
    one.settle(1)
    one.beat("a newer epoch", epoch=one.epoch + 5)
    s.ask("ConsumerGroupDescribe", GroupIds=[s.named("unheard-of")])


def two_members_share(s):
    s.create("orders", 4)
    one = Member(s, "payment", "orders")
    one.settle(4)
    two = Member(s, "payment", "orders", named="two")
    settle(s, {one: 2, two: 2})
    one.beat("leaves", epoch=-1)
    two.settle(4)


def by_range(s):
    s.create("a", 3)
    s.create("b", 3)
    one = Member(s, "payment", "a", "b", ServerAssignor="range")
    one.settle(6)
    two = Member(s, "payment", "a", "b", ServerAssignor="range", named="two")
    settle(s, {one: 4, two: 2} if one.id < two.id else {one: 2, two: 4})


def topics_come_later(s):
    one = Member(s, "payment", "orders")
    one.beat("nothing yet")
    s.create("orders", 2)
    one.settle(2)
    s.grow("orders", 3)
    one.settle(3)


def old_members_meet_new_ones(s):
    s.create("orders", 2)
    first = s.joined("classic")
    s.sync("classic", first["MemberId"], first["GenerationId"], [(first["MemberId"], b"no assignment")])
    s.ask(API, GroupId=s.named("classic"), MemberId=str(uuid.UUID(int=9)), MemberEpoch=0, SubscribedTopicNames=["a"],
          RebalanceTimeoutMs=1000, TopicPartitions=[], note="into a group whose members' bytes mean nothing")
    me = Member(s, "new", "orders")
    me.settle(2)
    s.join("new", type="connect", note="another type into a new group")
    s.heartbeat("new", me.id, 1, note="an old heartbeat")


def settle(s, wanted):
    """Members beat in turns until each owns so many partitions; which ones stands in the transcript."""
    s.until(lambda: [member.beat_quietly() for member in wanted] == list(wanted.values()))
    for member in wanted:
        owned = {member.name(topic["TopicId"]): sorted(topic["Partitions"]) for topic in member.owned}
        told = [f"{name}: {parts}".replace(s.prefix, "") for name, parts in sorted(owned.items())]
        s.record("note", 0, "what it owns", told)


SESSIONS = [
    one_member_from_join_to_leave,
    beats_are_checked,
    two_members_share,
    by_range,
    topics_come_later,
    old_members_meet_new_ones,
]
