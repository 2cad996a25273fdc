"""One session on one broker, and the transcript of its answers.

A session is a function that asks and goes on from the answers, so it is written once and played on both brokers.
What it asks must not depend on an answer other than through ids that the broker chose.
"""

import random
import threading
import time
from dataclasses import dataclass, field

from .calls import Calls
from .connection import SILENCE_SECONDS, Closed, Connection
from .definitions import Malformed
from .plain import Plain

# How long a broker may take until what it has said holds, for instance that a topic is there.
SETTLE_MAX_SECONDS = 30
CLOSED, SILENT = "the connection is closed", "no answer"


class NotServed(Exception):
    """An API that not both brokers have, in no version that both know; ApiVersions has told so."""


@dataclass
class Step:
    """One question of a session, and the answer without what must differ."""

    number: int
    api: str
    version: int
    note: str
    answer: object


@dataclass
class Versions:
    """Which version of each API a session speaks: the `oldest` or `newest` that both brokers have, or `drawn` ones."""

    shared: dict
    choice: str
    draws: random.Random = field(default_factory=random.Random)

    def of(self, api, at_least=0, at_most=32767):
        versions = [v for v in self.shared.get(api, ()) if at_least <= v <= at_most]
        if not versions:
            raise NotServed(api)
        if self.choice == "drawn":
            return self.draws.choice(versions)
        return versions[0 if self.choice == "oldest" else -1]


class Session(Calls):
    def __init__(self, address, definitions, versions, prefix, clock):
        self.address, self.definitions, self.versions, self.prefix = address, definitions, versions, prefix
        # Times in records count from here, the same on both brokers.
        self.clock = clock
        self.connections, self.steps = {}, []
        self.topic_ids, self.partitions, self.groups = {}, {}, []
        self.plain = Plain(self)

    def named(self, name):
        """A name of this session alone; transcripts show it without the prefix."""
        return self.prefix + name

    def connection(self, name="main"):
        if name not in self.connections:
            self.connections[name] = Connection(self.address)
        return self.connections[name]

    def hang_up(self, name="main"):
        if name in self.connections:
            self.connections.pop(name).close()

    def close(self):
        for name in list(self.connections):
            self.hang_up(name)

    def ask(self, api, *, on="main", note="", at_least=0, at_most=32767, **body):
        """Asks, and puts the answer into the transcript."""
        return self.send(api, on=on, note=note, at_least=at_least, at_most=at_most, **body).answer()

    def quietly(self, api, *, on="aside", at_most=32767, **body):
        """Asks in the newest version without a line in the transcript."""
        newest = Versions(self.versions.shared, "newest").of(api, 0, at_most)
        return self.exchange(api, newest, on, body)()

    def send(self, api, *, on="main", note="", at_least=0, at_most=32767, **body):
        """Asks without waiting; `answer()` on what is returned does."""
        version = self.versions.of(api, at_least, at_most)
        return Pending(self, api, version, note, self.exchange(api, version, on, body))

    def exchange(self, api, version, on, body):
        known = self.definitions.apis[api]
        sent = known.request.encode(body, version)
        try:
            connection = self.connection(on)
            correlation = connection.send(known, version, sent)
        except Closed:
            self.hang_up(on)
            return lambda: CLOSED
        return lambda: self.receive(known, version, on, connection, correlation)

    def receive(self, known, version, on, connection, correlation):
        try:
            data = connection.receive()
        except Closed:
            self.hang_up(on)
            return CLOSED
        except TimeoutError:
            self.hang_up(on)
            return SILENT
        if int.from_bytes(data[:4], "big", signed=True) != correlation:
            raise Malformed(f"correlation id {data[:4].hex()} for request {correlation}")
        head = 5 if known.response_header_version(version) else 4
        if head == 5 and data[4] != 0:
            raise Malformed("tags in the header of an answer")
        return known.response.decode(data[head:], version)

    def raw(self, data, note, on="raw"):
        """Sends bytes as they are, and says what came back: nothing, the end, or how many bytes."""
        connection = self.connection(on)
        try:
            connection.raw(data)
            connection.socket.settimeout(5)
            answer = connection.receive()
        except Closed:
            answer = CLOSED
        except TimeoutError:
            answer = SILENT
        self.hang_up(on)
        self.record("raw", 0, note, "an answer" if isinstance(answer, bytes) else answer)
        return answer

    def silent(self, on="main", note=""):
        """Notes whether nothing comes on a connection."""
        came = self.connection(on).answers_within(SILENCE_SECONDS)
        self.record("silence", 0, note, "something came" if came else SILENT)

    def record(self, api, version, note, answer):
        self.steps.append(Step(len(self.steps) + 1, api, version, note, self.plain(answer)))

    def until(self, holds):
        """Waits until something holds on this broker, which it may say before it is so."""
        end = time.monotonic() + SETTLE_MAX_SECONDS
        while not holds():
            if time.monotonic() > end:
                raise TimeoutError(f"did not come true: {holds.__qualname__}")
            time.sleep(0.02)

    def pause(self, seconds):
        """Lets requests on other connections arrive before the next one."""
        time.sleep(seconds)


class Pending:
    """A request whose answer is awaited later, in the background, so that a blocked join blocks nobody else."""

    def __init__(self, session, api, version, note, receive):
        self.session, self.api, self.version, self.note = session, api, version, note
        self.outcome = None
        self.thread = threading.Thread(target=self.run, args=(receive,), daemon=True)
        self.thread.start()

    def run(self, receive):
        try:
            self.outcome = receive()
        except Exception as error:  # noqa: BLE001: told to who waits
            self.outcome = error

    def answer(self):
        self.thread.join()
        if isinstance(self.outcome, Exception):
            raise self.outcome
        self.session.record(self.api, self.version, self.note, self.outcome)
        return self.outcome
