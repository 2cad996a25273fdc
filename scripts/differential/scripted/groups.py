"""Groups whose members assign partitions among themselves."""


def one_member_from_join_to_leave(s):
    s.create("orders")
    first = s.joined("payment")
    me, generation = first["MemberId"], first["GenerationId"]
    s.describe("payment", note="before the assignment")
    s.commit("payment", "orders", 1, me, generation, note="before the assignment")
    s.heartbeat("payment", me, generation, note="before the assignment")
    s.sync("payment", me, generation, [(me, b"everything")])
    s.sync("payment", me, generation, note="again")
    s.heartbeat("payment", me, generation)
    s.heartbeat("payment", me, generation + 1, note="another generation")
    s.heartbeat("payment", me, generation - 1, note="an old generation")
    s.heartbeat("payment", "nobody", generation, note="nobody")
    s.heartbeat("payment", "", generation, note="no member")
    s.describe("payment")
    s.commit("payment", "orders", 1, me, generation)
    s.commit("payment", "orders", 2, me, generation + 1, note="another generation")
    s.commit("payment", "orders", 3, "nobody", generation, note="nobody")
    s.commit("payment", "orders", 4, note="from outside")
    s.delete_groups("payment", note="with a member")
    s.leave("payment", me)
    s.heartbeat("payment", me, generation, note="after leaving")
    s.leave("payment", me, note="again")
    s.describe("payment", note="empty")
    s.commit("payment", "orders", 5, me, generation, note="after leaving")
    s.commit("payment", "orders", 6, note="from outside, empty")
    s.delete_groups("payment")
    s.describe("payment", note="deleted")
    s.committed("payment", note="deleted")


def two_members(s, **how):
    """Two members of a stable group: their ids and the generation."""
    one = s.joined("payment", on="one", **how)
    s.sync("payment", one["MemberId"], one["GenerationId"], [(one["MemberId"], b"all")], on="one")
    two = s.join("payment", on="two", at_least=4, note="wants an id", **how)
    second = s.start_join("payment", two["MemberId"], on="two", **how)
    s.pause(0.3)
    s.heartbeat("payment", one["MemberId"], one["GenerationId"], on="one", note="is told of the rebalance")
    again = s.join("payment", one["MemberId"], on="one", **how)
    two = second.answer()
    follower = s.start_sync("payment", two["MemberId"], two["GenerationId"], on="two")
    s.pause(0.2)
    given = [(one["MemberId"], b"half"), (two["MemberId"], b"other half")]
    s.sync("payment", one["MemberId"], again["GenerationId"], given, on="one")
    follower.answer()
    return one["MemberId"], two["MemberId"], again["GenerationId"]


def two_members_share(s):
    one, two, generation = two_members(s)
    s.describe("payment")
    s.leave("payment", two, on="two")
    s.heartbeat("payment", one, generation, on="one", note="the other has left")
    last = s.join("payment", one, on="one")
    s.sync("payment", one, last["GenerationId"], [(one, b"all again")], on="one")
    s.describe("payment")
    s.leave("payment", one, on="one")


def the_leader_leaves(s):
    one, two, generation = two_members(s)
    s.leave("payment", one, on="one")
    s.heartbeat("payment", two, generation, on="two")
    s.join("payment", two, on="two", note="leads now")
    s.describe("payment")


def a_follower_joins_again_and_nothing_happens(s):
    one, two, generation = two_members(s)
    s.join("payment", two, on="two", note="the same as before")
    s.heartbeat("payment", one, generation, on="one", note="still stable")
    changed = s.start_join("payment", two, on="two", protocols=(("range", b"other"),), note="with other metadata")
    s.pause(0.3)
    s.heartbeat("payment", one, generation, on="one", note="a rebalance")
    s.join("payment", one, on="one")
    changed.answer()


def a_silent_member_is_put_out(s):
    how = {"session_ms": 6000, "rebalance_ms": 6000}
    one, two, generation = two_members(s, **how)
    s.pause(3)
    s.heartbeat("payment", one, generation, on="one")
    s.pause(4.5)
    s.heartbeat("payment", two, generation, on="two", note="too late")
    s.heartbeat("payment", one, generation, on="one", note="a rebalance")
    s.join("payment", one, on="one", **how)
    s.describe("payment")


def a_member_that_does_not_join_again_is_put_out(s):
    one, two, generation = two_members(s, session_ms=30_000, rebalance_ms=1500)
    changed = s.start_join("payment", two, on="two", protocols=(("range", b"other"),), rebalance_ms=1500)
    s.pause(0.3)
    s.heartbeat("payment", one, generation, on="one", note="told, and does nothing")
    changed.answer()
    s.heartbeat("payment", one, generation, on="one", note="put out")
    s.describe("payment")


def numbers_of_a_join_are_checked(s):
    s.create("orders")
    for session_ms in [0, -1, 1, 5_000_000, 2**31 - 1]:
        s.join("payment", session_ms=session_ms, note=f"session {session_ms}")
    s.join("payment", "stranger", note="an id that nobody gave")
    s.join("payment", protocols=(), note="no protocols")
    s.join("payment", type="", note="no type")
    s.ask("JoinGroup", GroupId="", SessionTimeoutMs=10_000, MemberId="", ProtocolType="consumer",
          Protocols=[{"Name": "range", "Metadata": b""}], note="no group")
    s.joined("payment")
    s.join("payment", type="connect", note="another type")
    s.join("payment", protocols=(("roundrobin", b""),), note="no common protocol")
    s.sync("payment", "nobody", 1, note="nobody")


def syncs_are_checked(s):
    first = s.joined("payment")
    me, generation = first["MemberId"], first["GenerationId"]
    s.sync("payment", me, generation + 1, [(me, b"x")], note="another generation")
    s.sync("payment", me, generation, [(me, b"x")], type="connect", note="another type")
    s.sync("payment", me, generation, [(me, b"x")], protocol="sticky", note="another protocol")
    s.sync("payment", me, generation, [], note="the leader forgets itself")
    s.sync("payment", me, generation, [(me, b"x")], note="late")
    s.describe("payment")


def an_unknown_group(s):
    s.heartbeat("unheard-of", "m", 1)
    s.leave("unheard-of", "m")
    s.sync("unheard-of", "m", 1)
    s.describe("unheard-of")
    s.delete_groups("unheard-of")
    s.join("unheard-of", "m")


def several_leave_in_one_request(s):
    one, two, _ = two_members(s)
    who = [{"MemberId": one}, {"MemberId": "nobody"}, {"MemberId": "", "GroupInstanceId": "nobody"}, {"MemberId": two}]
    s.ask("LeaveGroup", at_least=3, GroupId=s.named("payment"), Members=who)
    s.ask("LeaveGroup", at_least=3, GroupId=s.named("payment"), Members=[], note="nobody")
    s.describe("payment")


def the_protocol_that_all_have_is_chosen(s):
    how = {"on": "one", "protocols": (("sticky", b"s"), ("range", b"r"), ("roundrobin", b"o"))}
    one = s.joined("payment", **how)
    s.sync("payment", one["MemberId"], one["GenerationId"], [(one["MemberId"], b"all")], on="one", protocol="sticky")
    theirs = (("roundrobin", b"o2"), ("range", b"r2"))
    two = s.join("payment", on="two", at_least=4, protocols=theirs)
    second = s.start_join("payment", two["MemberId"], on="two", protocols=theirs)
    s.pause(0.3)
    s.join("payment", one["MemberId"], **how)
    second.answer()


def a_static_member_returns(s):
    def joins(name, member="", **more):
        return s.join("payment", member, on=name, instance=name, **more)

    one = joins("one")
    s.sync("payment", one["MemberId"], one["GenerationId"], [(one["MemberId"], b"all")], on="one", instance="one")
    back = joins("one", note="came back")
    s.heartbeat("payment", one["MemberId"], one["GenerationId"], instance="one", at_least=3, note="the one before")
    s.commit("payment", "never", 1, one["MemberId"], 1, instance="one", at_least=7, note="the one before")
    s.heartbeat("payment", back["MemberId"], back["GenerationId"], instance="one", at_least=3)
    s.sync("payment", back["MemberId"], back["GenerationId"], [(back["MemberId"], b"all")], on="one", instance="one")
    s.describe("payment")
    joins("one", one["MemberId"], note="the one before joins")
    s.heartbeat("payment", back["MemberId"], back["GenerationId"], instance="two", at_least=3, note="another's instance")
    s.leave("payment", "", instance="one", at_least=3, note="by its instance")
    s.describe("payment")


def groups_are_listed(s):
    s.create("orders")
    s.commit("payment", "orders", 1)
    first = s.joined("stock")

    def own(note, **filters):
        pending = s.send("ListGroups", on="aside", note=note, **filters)
        pending.thread.join()
        answer = pending.outcome
        answer["Groups"] = [group for group in answer["Groups"] if group["GroupId"].startswith(s.prefix)]
        pending.answer()

    own("all")
    own("stable", StatesFilter=["Stable"], at_least=4)
    s.sync("stock", first["MemberId"], first["GenerationId"], [(first["MemberId"], b"all")])
    own("stable, with one", StatesFilter=["Stable", "Nonsense"], at_least=4)
    own("in lower case", StatesFilter=["stable"], at_least=4)
    own("classic", TypesFilter=["classic"], at_least=5)
    s.describe("payment", "stock", "unheard-of", note="three")
    s.ask("DescribeGroups", at_least=3, Groups=[s.named("stock")], IncludeAuthorizedOperations=True, note="with rights")
    s.delete_groups("payment", "stock", "unheard-of", note="three")
    own("afterwards")


SESSIONS = [
    one_member_from_join_to_leave,
    two_members_share,
    the_leader_leaves,
    a_follower_joins_again_and_nothing_happens,
    a_silent_member_is_put_out,
    a_member_that_does_not_join_again_is_put_out,
    numbers_of_a_join_are_checked,
    syncs_are_checked,
    an_unknown_group,
    several_leave_in_one_request,
    the_protocol_that_all_have_is_chosen,
    a_static_member_returns,
    groups_are_listed,
]
