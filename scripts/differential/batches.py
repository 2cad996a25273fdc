"""Record batches (magic 2): whole ones, and ones with a chosen fault."""

import struct

import crc32c
from kafka import codec

from .definitions import Reader

CODECS = ["none", "gzip", "snappy", "lz4", "zstd"]
PACK = [bytes, codec.gzip_encode, codec.snappy_encode, codec.lz4_encode, codec.zstd_encode]
UNPACK = [bytes, codec.gzip_decode, codec.snappy_decode, codec.lz4_decode, codec.zstd_decode]
HEAD = struct.Struct(">qiib")
# Behind the checksum: attributes, last offset delta, two times, producer id and epoch, first sequence, count.
BODY = struct.Struct(">hiqqqhii")
TRANSACTIONAL, CONTROL, LOG_APPEND_TIME = 0x10, 0x20, 0x08


def put_varint(out, value):
    value = (value << 1) ^ (value >> 63)
    while value & ~0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)


def put_bytes(out, data):
    put_varint(out, -1 if data is None else len(data))
    out += data or b""


def record(delta, time_delta, key, value, headers):
    body = bytearray(b"\0")
    put_varint(body, time_delta)
    put_varint(body, delta)
    put_bytes(body, key)
    put_bytes(body, value)
    put_varint(body, len(headers))
    for name, content in headers:
        put_bytes(body, name.encode())
        put_bytes(body, content)
    out = bytearray()
    put_varint(out, len(body))
    return bytes(out + body)


def batch(records, *, at=0, compression="none", attributes=0, producer=(-1, -1), sequence=-1, base=0, **faults):
    """`records` are (key, value, headers); the times are `at`, `at` + 1, and so on.

    Faults: `magic`, `crc` and `length` replace what is right, `count` and `last_delta` say a wrong number.
    """
    body = b"".join(record(n, n, key, value, headers) for n, (key, value, headers) in enumerate(records))
    number = CODECS.index(compression)
    last = faults.get("last_delta", len(records) - 1)
    times = (at, at + max(len(records) - 1, 0))
    checked = BODY.pack(
        attributes | number, last, *times, *producer, sequence, faults.get("count", len(records))
    ) + PACK[number](body)
    crc = faults.get("crc", crc32c.crc32c(checked))
    length = faults.get("length", 9 + len(checked))
    return HEAD.pack(base, length, -1, faults.get("magic", 2)) + struct.pack(">I", crc) + checked


def decoded(data):
    """The whole batches in fetched bytes; a fetch may end in the middle of one."""
    batches, reader = [], Reader(data or b"")
    while reader.left() >= HEAD.size:
        base, length, epoch, magic = HEAD.unpack(reader.take(HEAD.size))
        if reader.left() < length - 5:
            break
        body = Reader(reader.take(length - 5))
        crc = body.number(">I")
        intact = crc32c.crc32c(body.data[4:]) == crc
        attributes, last, first_time, last_time, producer, producer_epoch, sequence, count = BODY.unpack(
            body.take(BODY.size)
        )
        inside = body.take(body.left())
        batches.append({
            "BaseOffset": base, "LeaderEpoch": epoch, "Magic": magic, "Intact": intact, "Attributes": attributes,
            "LastOffsetDelta": last, "BaseTimestamp": first_time, "MaxTimestamp": last_time, "ProducerId": producer,
            "ProducerEpoch": producer_epoch, "BaseSequence": sequence,
            "Records": decoded_records(inside, attributes & 7, count),
        })
    return batches


def decoded_records(inside, compression, count):
    """The records, or what is there instead: a broker may have kept what nobody can read."""
    try:
        reader = Reader(UNPACK[compression](inside))
        records = [decoded_record(reader) for _ in range(count)]
        return records + [f"and {reader.left()} bytes"] * (reader.left() > 0)
    except Exception:  # noqa: BLE001: the codecs have errors of their own
        return f"{len(inside)} bytes that are no {count} records"


def decoded_record(reader):
    reader = Reader(reader.take(reader.varint()))
    reader.take(1)
    time_delta, delta = reader.varint(), reader.varint()
    key, value = (nullable(reader) for _ in range(2))
    headers = [[nullable(reader).decode(), nullable(reader)] for _ in range(reader.varint())]
    return {"Delta": delta, "TimestampDelta": time_delta, "Key": key, "Value": value, "Headers": headers}


def nullable(reader):
    length = reader.varint()
    return None if length < 0 else bytes(reader.take(length))
