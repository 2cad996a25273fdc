"""Answers without what must differ from broker to broker: ids that it draws, its address, its clock, its words.

What is drawn gets a name by its first appearance, so that two answers with the same id stay recognisable as such.
"""

import time
import uuid

from kafka.errors import kafka_errors

from .batches import LOG_APPEND_TIME, decoded

ERRORS = {number: kind.message for number, kind in kafka_errors.items() if number is not None}
DROPPED = {"ThrottleTimeMs", "Port", "Host", "LogDir", "TotalBytes", "UsableBytes", "Documentation"}
# Whether there is a text matters to a program; which one does not.
TEXTS = {"ErrorMessage"}
DRAWN = {
    "MemberId": "member", "Leader": "member", "TopicId": "topic id", "Id": "id", "ClusterId": "cluster",
    "ProducerId": "producer", "SessionId": "fetch session", "ControllerId": "controller",
}
TIMES = {"Timestamp", "LogAppendTimeMs", "LastTimestamp", "TransactionStartTimeMs"}
DAY_MS = 24 * 60 * 60 * 1000
NO_UUID = uuid.UUID(int=0)


class Plain:
    def __init__(self, session):
        self.session, self.names, self.counts = session, {}, {}

    def __call__(self, answer):
        return self.value(answer, "")

    def value(self, value, name):
        if isinstance(value, dict):
            return {key: self.value(inner, key) for key, inner in self.present(value).items()}
        if name == "Records" and isinstance(value, bytes):
            return [self.batch(batch) for batch in decoded(value)]
        if name == "ApiKeys":
            return {str(self.api(one["ApiKey"])): f"{one['MinVersion']} to {one['MaxVersion']}" for one in value}
        if name == "Configs" and value:
            return {one["Name"]: self.config(one) for one in value}
        if isinstance(value, list):
            return [self.value(inner, name) for inner in value]
        if name in TEXTS:
            return "a text" if value else None
        if name == "ErrorCode":
            return ERRORS.get(value, value) if value else "NONE"
        if name in TIMES:
            return self.time(value)
        if name in DRAWN:
            return self.drawn(value, DRAWN[name])
        return self.scalar(value)

    def present(self, value):
        return {key: inner for key, inner in value.items() if key not in DROPPED}

    def scalar(self, value):
        if isinstance(value, bytes):
            return self.shown(value)
        if isinstance(value, uuid.UUID):
            return self.drawn(value, "id")
        return value.replace(self.session.prefix, "") if isinstance(value, str) else value

    def shown(self, data):
        """Bytes as text, whose ids of members are told like others."""
        text = data.decode("latin-1").replace(self.session.prefix, "")
        for real, name in self.names.items():
            if isinstance(real, str):
                text = text.replace(real, name)
        return text if len(text) <= 200 else f"{text[:200]}… ({len(data)} bytes)"

    def config(self, one):
        """A setting and all that is said of it in one line."""
        more = [f"{key} {one[key]}" for key in ("ConfigSource", "ConfigType", "ReadOnly", "IsSensitive", "IsDefault") if key in one]
        synonyms = [f"{other['Name']}={other['Value']} ({other['Source']})" for other in one.get("Synonyms", ())]
        return f"{one['Value']!r}, {', '.join(more + synonyms)}"

    def batch(self, batch):
        """A batch in one line, so that one difference in a log is told once."""
        given = not batch["Attributes"] & LOG_APPEND_TIME
        times = [self.time(batch["BaseTimestamp"]) if given else "the client's", self.time(batch["MaxTimestamp"])]
        producer = self.drawn(batch["ProducerId"], "producer"), batch["ProducerEpoch"], batch["BaseSequence"]
        intact = "" if batch["Intact"] else " DAMAGED"
        records = [self.record(one) for one in batch["Records"]] if isinstance(batch["Records"], list) else batch["Records"]
        return (
            f"@{batch['BaseOffset']}+{batch['LastOffsetDelta']}{intact} epoch {batch['LeaderEpoch']} "
            f"attributes {batch['Attributes']} times {times} producer {producer}: {records}"
        )

    def record(self, one):
        if isinstance(one, str):
            return one
        key, value = (None if one[name] is None else self.shown(one[name]) for name in ("Key", "Value"))
        return f"+{one['Delta']} T+{one['TimestampDelta']} {key!r}={value!r} {one['Headers'] or ''}".strip()

    def api(self, number):
        names = {api.key: name for name, api in self.session.definitions.apis.items()}
        return names.get(number, number)

    def time(self, value):
        """Times given by the session count from its clock; others are the broker's own."""
        if value < 0:
            return value
        since = value - self.session.clock
        if abs(value - time.time() * 1000) < 10 * 60 * 1000:
            return "about now"
        return f"T{since:+}" if abs(since) < 40 * DAY_MS else value

    def drawn(self, value, kind):
        if value in (None, "", -1, NO_UUID) or (kind in ("fetch session", "controller") and value == 0):
            return None if value is None else str(value)
        if isinstance(value, int) and kind in ("id", "controller"):
            return value
        for topic, topic_id in self.session.topic_ids.items():
            if value == topic_id:
                return f"id of {topic.replace(self.session.prefix, '')}"
        if value not in self.names:
            self.counts[kind] = self.counts.get(kind, 0) + 1
            self.names[value] = f"{kind} {self.counts[kind]}"
        return self.names[value]
