"""How a check is written, and the records it sends."""

import functools
import socket
import struct
import time
import uuid

# Only what fails takes so long; on a busy machine a Java process takes a minute.
WAIT_MAX_SECONDS = 60
CODECS = ["gzip", "snappy", "lz4", "zstd"]

# What clients are known to mangle: no key, no value, an empty one, bytes that are no text, a
# repeated header, a header without a value, and one that is much larger than a read buffer.
RECORDS = [
    {"key": b"plain", "value": b"hello", "headers": [("eventType", b"Greeted")]},
    {"key": None, "value": b"without a key", "headers": []},
    {"key": b"tombstone", "value": None, "headers": []},
    {"key": b"", "value": b"", "headers": []},
    {"key": bytes(range(256)), "value": bytes(reversed(range(256))), "headers": [("bytes", bytes(range(256)))]},
    {"key": b"headers", "value": b"x", "headers": [("twice", b"1"), ("twice", b"2"), ("none", None), ("empty", b"")]},
    {"key": b"large", "value": bytes(300_000), "headers": []},
    {"key": "ключ".encode(), "value": "значение 🦀".encode(), "headers": [("заголовок", "да".encode())]},
]


def fresh(what):
    """A name that no other check uses."""
    return f"{what}-{uuid.uuid4().hex[:12]}"


def same(what, got, wanted):
    """Fails when two things differ, and shows both."""
    if got != wanted:
        raise AssertionError(f"{what}:\n  got    {shortened(got)}\n  wanted {shortened(wanted)}")


def shortened(value):
    text = repr(value)
    return text if len(text) < 2000 else f"{text[:2000]}… ({len(text)} characters)"


def eventually(what, condition):
    """Waits until a condition holds, and returns what it returned."""
    until = time.monotonic() + WAIT_MAX_SECONDS
    while time.monotonic() < until:
        if result := condition():
            return result
        time.sleep(0.02)
    raise AssertionError(f"within {WAIT_MAX_SECONDS} s this did not happen: {what}")


def restarts_broker(check):
    """Marks a check that needs a broker of our own."""
    check.restarts_broker = True
    return check


def needs(api_key):
    """Marks a check that a broker without this API is spared."""
    def marked(check):
        check.needs = api_key
        return check

    return marked


def without_login(check):
    """Marks a check whose client can't log in."""
    check.without_login = True
    return check


ADD_PARTITIONS_TO_TXN, WRITE_TXN_MARKERS, LIST_TRANSACTIONS, CONSUMER_GROUP_HEARTBEAT = 24, 27, 66, 68


@functools.cache
def served(address):
    """The keys of the APIs that a broker says it has (ApiVersions, version 0)."""
    host, port = address.rsplit(":", 1)
    with socket.create_connection((host, int(port)), timeout=WAIT_MAX_SECONDS) as connection:
        connection.sendall(struct.pack(">ihhih", 10, 18, 0, 1, -1))
        stream = connection.makefile("rb")
        (length,) = struct.unpack(">i", stream.read(4))
        told = stream.read(length)
    (count,) = struct.unpack_from(">i", told, 6)
    return {struct.unpack_from(">h", told, 10 + 6 * index)[0] for index in range(count)}
