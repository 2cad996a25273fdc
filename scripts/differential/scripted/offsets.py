"""Committed offsets: kept, refused, told, deleted."""


def offsets_are_kept_without_members(s):
    s.create("orders", 3)
    s.committed("payment", "orders", [0, 1], note="before")
    s.commit("payment", "orders", 7, metadata="seven ключ")
    s.commit("payment", "orders", 9, partition=1, metadata=None, note="no metadata")
    s.committed("payment", "orders", [0, 1, 2, 9])
    s.committed("payment", note="all")
    s.commit("payment", "orders", 3, note="backwards")
    s.commit("payment", "orders", -1, note="negative")
    s.commit("payment", "orders", -5, note="more negative")
    s.commit("payment", "orders", 1 << 40, note="far beyond the end")
    s.committed("payment", "orders")
    s.describe("payment")


def epochs_are_kept_with_offsets(s):
    s.create("orders")
    for epoch in [0, 5, -1]:
        s.commit("payment", "orders", 4, leader_epoch=epoch, at_least=6, note=f"epoch {epoch}")
        s.committed("payment", "orders", at_least=5)


def metadata_has_a_limit(s):
    s.create("orders")
    for size in [0, 4095, 4096, 4097, 20_000]:
        s.commit("payment", "orders", 1, metadata="m" * size, note=f"{size} bytes")
    s.commit("payment", "orders", 1, metadata="я" * 2049, note="4098 bytes in 2049 characters")
    s.committed("payment", "orders")


def what_is_unknown(s):
    s.create("orders")
    s.commit("payment", "never", 1, note="no such topic")
    s.commit("payment", "orders", 1, partition=7, note="no such partition")
    s.commit("payment", "orders", 1, "nobody", 1, note="no such member")
    s.commit("payment", "orders", 1, "nobody", -1, note="a member without generation")
    s.commit("payment", "orders", 1, "", 5, note="a generation without member")
    s.commit("payment", "orders", 1, "", -2, note="generation -2")
    s.commit("payment", "orders", 1, "", 1, instance="static", at_least=7, note="an unknown instance")
    s.committed("payment", "never")
    s.committed("unheard-of", "orders")
    s.committed("unheard-of", note="all of an unheard-of group")


def an_empty_group_name(s):
    s.create("orders")
    both, spot = s.name_and_id("orders"), {"PartitionIndex": 0, "CommittedOffset": 1, "CommittedMetadata": ""}
    s.ask("OffsetCommit", GroupId="", Topics=[{**both, "Partitions": [spot]}])
    s.ask("OffsetFetch", GroupId="", Topics=[{**both, "PartitionIndexes": [0]}],
          Groups=[{"GroupId": "", "Topics": [{**both, "PartitionIndexes": [0]}]}])
    s.ask("Heartbeat", GroupId="", GenerationId=1, MemberId="m")
    s.ask("DescribeGroups", Groups=[""])
    s.ask("DeleteGroups", GroupsNames=[""])


def several_at_once(s):
    s.create("a")
    s.create("b", 2)
    s.group("payment")

    def topic(name, *spots):
        listed = [{"PartitionIndex": p, "CommittedOffset": at, "CommittedMetadata": ""} for p, at in spots]
        return {**s.name_and_id(name), "Partitions": listed}

    topics = [topic("a", (0, 1)), topic("b", (0, 2), (1, 3), (9, 4)), topic("never", (0, 5))]
    s.ask("OffsetCommit", GroupId=s.named("payment"), Topics=topics, note="with unknown ones")
    s.ask("OffsetCommit", GroupId=s.named("payment"), Topics=[], note="none")
    s.committed("payment", note="all")
    s.group("stock")
    s.commit("stock", "a", 11)
    wanted = [{"GroupId": s.named(group), "Topics": None} for group in ("payment", "stock", "unheard-of")]
    s.ask("OffsetFetch", at_least=8, Groups=wanted, note="three groups")
    s.ask("OffsetFetch", at_least=8, Groups=[], note="no group")


def offsets_are_deleted(s):
    s.create("orders", 2)
    s.commit("payment", "orders", 1)
    s.commit("payment", "orders", 2, partition=1)
    s.delete_offsets("payment", "orders", 0, 9)
    s.delete_offsets("payment", "never", 0)
    s.committed("payment")
    s.delete_offsets("unheard-of", "orders", 0)
    member = s.joined("busy")
    s.sync("busy", member["MemberId"], member["GenerationId"], [(member["MemberId"], b"all")])
    s.commit("busy", "orders", 5, member["MemberId"], member["GenerationId"])
    s.delete_offsets("busy", "orders", 0, note="of a group with members")
    s.leave("busy", member["MemberId"])
    s.delete_offsets("busy", "orders", 0, note="when they have left")


def offsets_go_with_their_topic(s):
    s.create("orders")
    s.commit("payment", "orders", 5)
    s.delete("orders")

    def nothing_is_kept():
        told = s.quietly("OffsetFetch", GroupId=s.named("payment"), Groups=[{"GroupId": s.named("payment"), "Topics": None}])
        return not told["Groups"][0]["Topics"]

    s.until(nothing_is_kept)
    s.create("orders")
    s.committed("payment", "orders")
    s.describe("payment")


def stable_offsets(s):
    s.create("orders")
    s.commit("payment", "orders", 5)
    s.committed("payment", "orders", stable=True, at_least=7)


SESSIONS = [
    offsets_are_kept_without_members,
    epochs_are_kept_with_offsets,
    metadata_has_a_limit,
    what_is_unknown,
    an_empty_group_name,
    several_at_once,
    offsets_are_deleted,
    offsets_go_with_their_topic,
    stable_offsets,
]
