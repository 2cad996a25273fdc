"""Kafka's message definitions, and coding by them.

The client jar carries the definition of every message as JSON. Coding by those makes a third party of this
runner: neither broker's code decides what is a well-formed answer. A decoder that is left with bytes fails.
"""

import functools
import json
import re
import struct
import uuid
import zipfile

NUMBERS = {
    "int8": ">b", "int16": ">h", "uint16": ">H", "int32": ">i", "uint32": ">I", "int64": ">q", "float64": ">d",
}
COMMENT = re.compile(r"^\s*//.*$", re.MULTILINE)
# Its answers have the old header in every version, so that a client too new for the broker can read them (KIP-511).
API_VERSIONS = 18


class Malformed(Exception):
    """Bytes that are not the message that they should be."""


class Definitions:
    """Every request and response, by the name of its API."""

    def __init__(self, jar):
        self.jar = zipfile.ZipFile(jar)
        names = re.findall(r"common/message/(\w+)Request\.json", "\n".join(self.jar.namelist()))
        self.apis = {name: Api(self.load(f"{name}Request"), self.load(f"{name}Response")) for name in names}

    def load(self, name):
        text = self.jar.read(f"common/message/{name}.json").decode()
        return Message(json.loads(COMMENT.sub("", text)))

    def message(self, name):
        """A message that is neither a request nor a response, such as a consumer's assignment."""
        return self.load(name)


class Api:
    def __init__(self, request, response):
        self.key, self.request, self.response = request.key, request, response

    def request_header_version(self, version):
        return 2 if self.request.flexible(version) else 1

    def response_header_version(self, version):
        return 1 if self.key != API_VERSIONS and self.response.flexible(version) else 0


def span(text):
    """The versions that a definition means by `3+`, `1-7`, `4` or `none`."""
    if not text or text == "none":
        return range(0)
    first, _, last = text.partition("-")
    if text.endswith("+"):
        return range(int(text[:-1]), 32768)
    return range(int(first), int(last or first) + 1)


class Message:
    def __init__(self, definition):
        self.key = definition.get("apiKey")
        self.versions = span(definition["validVersions"])
        self.flexible_versions = span(definition.get("flexibleVersions"))
        common = {struct["name"]: struct["fields"] for struct in definition.get("commonStructs", [])}
        self.fields = [Field(field, common) for field in definition.get("fields", [])]

    def flexible(self, version):
        return version in self.flexible_versions

    def encode(self, value, version):
        out = bytearray()
        put_struct(out, self.fields, value, version, self.flexible(version))
        return bytes(out)

    def decode(self, data, version):
        reader = Reader(data)
        value = get_struct(reader, self.fields, version, self.flexible(version))
        if reader.left():
            raise Malformed(f"{reader.left()} bytes behind the message")
        return value


class Field:
    def __init__(self, field, common):
        self.name, self.type = field["name"], field["type"]
        self.array = self.type.startswith("[]")
        self.element = self.type.removeprefix("[]")
        self.versions, self.nullable = span(field.get("versions")), span(field.get("nullableVersions"))
        self.tagged, self.tag = span(field.get("taggedVersions")), field.get("tag")
        own = field.get("fields") or common.get(self.element)
        self.fields = [Field(inner, common) for inner in own] if own else None
        self.default = self.parsed_default(field.get("default"))

    def parsed_default(self, text):
        if text == "null":
            return None
        if self.array:
            return []
        if self.fields is not None:
            return {}
        if self.element in NUMBERS:
            number = text or 0
            return number if not isinstance(number, str) else float(number) if self.element == "float64" else int(number, 0)
        if self.element == "bool":
            return text in (True, "true")
        return {"string": text or "", "uuid": uuid.UUID(int=0), "bytes": b"", "records": None}[self.element]


@functools.cache
def known_names(fields):
    return frozenset(field.name for field in fields)


def put_struct(out, fields, value, version, flexible):
    # Who asks by name gives the id too, and not every structure has a version with it.
    if unknown := set(value) - known_names(tuple(fields)) - {"TopicId"}:
        raise KeyError(f"no version has {', '.join(sorted(unknown))}")
    tagged = []
    for field in fields:
        if version not in field.versions:
            continue
        given = value.get(field.name, field.default)
        if version in field.tagged:
            if given != field.default:
                part = bytearray()
                put(part, field, given, version, flexible)
                tagged.append((field.tag, part))
        else:
            put(out, field, given, version, flexible)
    if flexible:
        put_uvarint(out, len(tagged))
        for tag, part in sorted(tagged):
            put_uvarint(out, tag)
            put_uvarint(out, len(part))
            out += part


def put(out, field, value, version, flexible):
    if not field.array:
        return put_one(out, field, value, version, flexible)
    put_length(out, None if value is None else len(value), flexible, ">i")
    for element in value or []:
        put_one(out, field, element, version, flexible)


def put_one(out, field, value, version, flexible):
    kind = field.element
    if kind in NUMBERS:
        out += struct.pack(NUMBERS[kind], value)
    elif kind == "bool":
        out.append(1 if value else 0)
    elif kind == "uuid":
        out += value.bytes
    elif kind in ("string", "bytes", "records"):
        data = value.encode() if isinstance(value, str) else value
        put_length(out, None if data is None else len(data), flexible, ">h" if kind == "string" else ">i")
        out += data or b""
    else:
        if version in field.nullable and not field.array:
            out += struct.pack(">b", -1 if value is None else 1)
            if value is None:
                return
        put_struct(out, field.fields, value, version, flexible)


def put_length(out, length, flexible, form):
    if flexible:
        put_uvarint(out, 0 if length is None else length + 1)
    else:
        out += struct.pack(form, -1 if length is None else length)


def put_uvarint(out, value):
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)


class Reader:
    """A place in bytes."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def left(self):
        return len(self.data) - self.at

    def take(self, count):
        if count < 0 or count > self.left():
            raise Malformed(f"{count} bytes at {self.at}, where {self.left()} are left")
        self.at += count
        return self.data[self.at - count : self.at]

    def number(self, form):
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def uvarint(self):
        value = shift = 0
        while True:
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7

    def varint(self):
        value = self.uvarint()
        return (value >> 1) ^ -(value & 1)

    def length(self, flexible, form):
        length = self.uvarint() - 1 if flexible else self.number(form)
        return None if length == -1 else length


def get_struct(reader, fields, version, flexible):
    value = {}
    for field in fields:
        if version in field.versions and version not in field.tagged:
            value[field.name] = get(reader, field, version, flexible)
    if flexible:
        tagged = {field.tag: field for field in fields if version in field.tagged and version in field.versions}
        for _ in range(reader.uvarint()):
            tag, data = reader.uvarint(), Reader(reader.take(reader.uvarint()))
            if tag in tagged:
                value[tagged[tag].name] = get(data, tagged[tag], version, flexible)
            else:
                value[f"tag {tag}"] = bytes(data.data)
    return value


def get(reader, field, version, flexible):
    if not field.array:
        return get_one(reader, field, version, flexible)
    length = reader.length(flexible, ">i")
    return None if length is None else [get_one(reader, field, version, flexible) for _ in range(length)]


def get_one(reader, field, version, flexible):
    kind = field.element
    if kind in NUMBERS:
        return reader.number(NUMBERS[kind])
    if kind == "bool":
        return reader.take(1) != b"\0"
    if kind == "uuid":
        return uuid.UUID(bytes=bytes(reader.take(16)))
    if kind in ("string", "bytes", "records"):
        length = reader.length(flexible, ">h" if kind == "string" else ">i")
        data = None if length is None else bytes(reader.take(length))
        return data.decode() if data is not None and kind == "string" else data
    if version in field.nullable and not field.array and reader.number(">b") < 0:
        return None
    return get_struct(reader, field.fields, version, flexible)
