"""Two transcripts side by side, and the list of known differences."""

import functools
import json
import re
import tomllib
from dataclasses import dataclass

# What tells the elements of an array apart; their order means nothing to a client.
IDENTITIES = (
    "Name", "Topic", "TopicName", "GroupId", "TransactionalId", "ResourceName", "Key", "ApiKey", "MemberId",
    "PartitionIndex", "Partition", "PartitionId", "NodeId", "BrokerId", "GroupInstanceId",
)
IN_ORDER = {"Records"}
NOTHING = "(nothing)"


@dataclass(frozen=True)
class Difference:
    session: str
    step: int
    api: str
    version: int
    note: str
    field: str
    kafka: str
    ackwell: str

    def __str__(self):
        where = f"{self.session}, step {self.step}: {self.api} v{self.version}"
        note = f" ({self.note})" if self.note else ""
        return f"{where}{note}\n      {self.field}: Kafka {self.kafka}, Ackwell {self.ackwell}"


def differences(session, kafka, ackwell):
    """What differs between two transcripts of a session."""
    found = []
    for ours, theirs in zip(ackwell, kafka):
        asked = [f"{step.api} v{step.version} ({step.note})" for step in (theirs, ours)]
        if asked[0] != asked[1]:
            # From here on they are two sessions.
            return [*found, Difference(session, ours.number, ours.api, ours.version, "", "the question", *asked)]
        for path, told in unlike(fields(theirs.answer), fields(ours.answer)).items():
            found.append(Difference(session, ours.number, ours.api, ours.version, ours.note, path, *told))
    if len(kafka) != len(ackwell):
        shorter = min(kafka, ackwell, key=len)
        told = f"{len(kafka)} steps", f"{len(ackwell)} steps"
        found.append(Difference(session, len(shorter) + 1, "end", 0, "", "the session's length", *told))
    return found


def unlike(left, right):
    """The paths where two answers differ. Where one has an error and the other not, all else follows from that."""
    paths = sorted(left.keys() | right.keys())
    told = {path: (left.get(path, NOTHING), right.get(path, NOTHING)) for path in paths}
    found = {path: both for path, both in told.items() if both[0] != both[1]}
    for path in list(found):
        if path.endswith("ErrorCode"):
            above = path.removesuffix("ErrorCode")
            found = {other: both for other, both in found.items() if other == path or not other.startswith(above)}
    return found


def fields(answer):
    """Every scalar of an answer by its path."""
    found = {}

    def walk(value, path):
        if isinstance(value, dict):
            for name, inner in value.items():
                walk(inner, f"{path}.{name}" if path else name)
        elif isinstance(value, list) and value and all(isinstance(inner, dict) for inner in value):
            for place, inner in placed(value, path.rsplit(".", 1)[-1] in IN_ORDER):
                walk(inner, f"{path}[{place}]")
        else:
            found[path or "answer"] = json.dumps(value, ensure_ascii=False) if not isinstance(value, str) else value

    walk(answer, "")
    return found


def placed(elements, in_order):
    """Elements with what tells them apart, or their number."""
    if not in_order:
        keys = [identity(element) for element in elements]
        if all(keys) and len(set(keys)) == len(keys):
            return zip(keys, elements)
        elements = sorted(elements, key=functools.partial(json.dumps, sort_keys=True, default=str))
    return enumerate(elements)


def identity(element):
    """An id of a topic counts only where its name is not told."""
    told = [str(element[name]) for name in IDENTITIES if element.get(name) is not None]
    unnamed = "TopicId" in element and not any(element.get(name) for name in ("Name", "Topic"))
    return " ".join([str(element["TopicId"]), *told] if unnamed else told)


class Known:
    """The listed differences; one that is met nowhere is no longer true."""

    def __init__(self, path):
        entries = tomllib.loads(path.read_text())["difference"]
        self.entries = [Entry(entry) for entry in entries]

    def lists(self, difference):
        return any(entry.means(difference) for entry in self.entries)

    def take(self, difference):
        """Whether a difference is listed; the entries that list it are met."""
        found = [entry for entry in self.entries if entry.means(difference)]
        for entry in found:
            entry.met += 1
        return bool(found)

    def not_met(self):
        return [entry for entry in self.entries if not entry.met]


class Entry:
    PATTERNS = ("session", "api", "field", "kafka", "ackwell")

    def __init__(self, entry):
        if not entry.get("reason") or entry.keys() - {*self.PATTERNS, "reason"}:
            raise ValueError(f"a known difference has a reason and of {', '.join(self.PATTERNS)} what it needs: {entry}")
        if "field" not in entry:
            raise ValueError(f"a known difference names its field, or it would silence whole answers: {entry}")
        self.entry, self.met = entry, 0
        self.patterns = {name: glob(entry[name]) for name in self.PATTERNS if name in entry}

    def means(self, difference):
        return all(pattern.fullmatch(str(getattr(difference, name))) for name, pattern in self.patterns.items())

    def __str__(self):
        return ", ".join(f"{name} = {value!r}" for name, value in self.entry.items() if name != "reason")


def glob(text):
    """`*` is anything; everything else, brackets too, is itself. `|` separates alternatives."""
    alternatives = (".*".join(re.escape(part) for part in one.split("*")) for one in text.split("|"))
    return re.compile("|".join(f"(?:{one})" for one in alternatives), re.DOTALL)
