"""Frames and versions: what a client gets that says something wrong, and what it is told of the broker."""

import struct

from ..calls import NO_ID


def frame(body):
    return struct.pack(">i", len(body)) + body


def header(key, version, correlation=7, client=b"raw"):
    return struct.pack(">hhih", key, version, correlation, len(client)) + client


def once(session):
    """Versions play no part."""
    session.choices = ("newest",)
    return session


@once
def what_is_served(s):
    s.ask("ApiVersions", ClientSoftwareName="differential", ClientSoftwareVersion="1")


def api_versions_in_each_version(s):
    s.ask("ApiVersions", at_most=2, note="before the client is named")
    s.ask("ApiVersions", at_least=3, ClientSoftwareName="a b", ClientSoftwareVersion="1", note="a name with a space")
    s.ask("ApiVersions", at_least=3, ClientSoftwareName="", ClientSoftwareVersion="", note="no name")


@once
def an_unknown_version_of_api_versions_is_answered_in_version_0(s):
    answer = s.raw(frame(header(18, 99) + b"\0"), "version 99")
    s.record("raw", 0, "its error", int.from_bytes(answer[4:6], "big"))


@once
def versions_nobody_has_end_the_connection(s):
    for key, name in [(0, "Produce"), (1, "Fetch"), (3, "Metadata"), (8, "OffsetCommit"), (11, "JoinGroup")]:
        s.raw(frame(header(key, 99) + bytes(32)), f"{name} 99")
        s.raw(frame(header(key, -1) + bytes(32)), f"{name} -1")
    s.raw(frame(header(0, 2) + bytes(64)), "Produce 2, offered and not served")


@once
def unknown_apis_end_the_connection(s):
    for key in [-1, 4, 5, 6, 7, 58, 99, 999, 32767]:
        s.raw(frame(header(key, 0) + bytes(16)), f"api {key}")


@once
def frames_that_are_no_requests_end_the_connection(s):
    s.raw(frame(b""), "an empty frame")
    s.raw(frame(b"\0"), "one byte")
    s.raw(frame(bytes(7)), "half a header")
    s.raw(struct.pack(">i", -1) + bytes(8), "a negative length")
    s.raw(struct.pack(">i", 2**31 - 1) + bytes(8), "two gigabytes")
    s.raw(b"GET / HTTP/1.1\r\nHost: broker\r\n\r\n", "a browser")
    s.raw(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64), "TLS")


@once
def bodies_that_do_not_fit_end_the_connection(s):
    s.raw(frame(header(3, 1)), "Metadata without a body")
    s.raw(frame(header(3, 1) + struct.pack(">i", 5)), "Metadata of five topics that are not there")
    s.raw(frame(header(3, 1) + struct.pack(">i", 2**31 - 1)), "Metadata of two billion topics")
    s.raw(frame(header(3, 1) + struct.pack(">ih", 1, 300) + b"short"), "a name longer than the frame")
    s.raw(frame(header(3, 1) + struct.pack(">ih", 1, -1)), "a name that is null")
    s.raw(frame(header(3, 1) + struct.pack(">ih", 1, 2) + b"\xff\xfe"), "a name that is no text")
    s.raw(frame(header(12, 0) + struct.pack(">h", 3) + b"abc"), "Heartbeat that ends early")
    s.raw(frame(header(3, 9) + b"\0\xff\xff\xff\xff\x0f"), "a length that does not end")


@once
def bytes_behind_a_request(s):
    s.raw(frame(header(3, 1) + struct.pack(">i", 0) + b"more"), "Metadata with four bytes too many")
    s.raw(frame(header(18, 0) + b"more"), "ApiVersions with four bytes too many")


@once
def a_client_may_have_no_name(s):
    s.raw(frame(struct.pack(">hhih", 18, 0, 7, -1)), "a null client id")
    s.raw(frame(header(18, 0, client=b"")), "an empty client id")
    s.raw(frame(header(18, 0, client="ключ".encode())), "a client id in Cyrillic")
    s.raw(frame(struct.pack(">hhih", 18, 0, 7, 50) + b"short"), "a client id longer than the frame")


def answers_come_in_the_order_of_requests(s):
    s.create("orders")
    pending = [s.send("Metadata", Topics=[{"Name": s.named("orders")}], AllowAutoTopicCreation=False)]
    s.pause(0.05)
    for one in pending:
        one.answer()
    # A fetch that waits, and behind it on the same connection one that need not.
    waits = s.fetch("orders", 0, wait_ms=200, note="waits")
    del waits
    s.metadata("orders")


def the_cluster_describes_itself(s):
    s.ask("DescribeCluster", IncludeClusterAuthorizedOperations=False)
    s.ask("DescribeCluster", IncludeClusterAuthorizedOperations=True, note="with rights")
    s.ask("Metadata", Topics=[], AllowAutoTopicCreation=False, at_least=1, note="no topics")


def coordinators_are_found(s):
    for kind, note in [(0, "group"), (1, "transaction"), (2, "share group"), (9, "unknown kind")]:
        key = s.named("some") if kind != 2 else f"{s.named('some')}:{NO_ID}:0"
        for _ in range(1 if kind == 9 else 200):
            if kind == 0:
                told = s.quietly("FindCoordinator", Key=key, KeyType=kind, CoordinatorKeys=[key])
                if not (told.get("Coordinators") or [told])[0]["ErrorCode"]:
                    break
                s.pause(0.05)
        if kind in (0, 9):
            s.ask("FindCoordinator", Key=key, KeyType=kind, CoordinatorKeys=[key], note=note, at_least=1)
    s.ask("FindCoordinator", CoordinatorKeys=[], KeyType=0, at_least=4, note="of nothing")
    s.ask("FindCoordinator", Key="", CoordinatorKeys=[""], KeyType=0, note="of an empty name")


SESSIONS = [
    what_is_served,
    api_versions_in_each_version,
    an_unknown_version_of_api_versions_is_answered_in_version_0,
    versions_nobody_has_end_the_connection,
    unknown_apis_end_the_connection,
    frames_that_are_no_requests_end_the_connection,
    bodies_that_do_not_fit_end_the_connection,
    bytes_behind_a_request,
    a_client_may_have_no_name,
    answers_come_in_the_order_of_requests,
    the_cluster_describes_itself,
    coordinators_are_found,
]
