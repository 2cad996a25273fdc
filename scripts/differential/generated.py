"""Sessions drawn from a seed: what nobody thought of writing down.

What is drawn never depends on an answer, so both brokers are asked the same. A member of a group goes on with the id
and the generation that it was given, as clients do.
"""

import random

from .batches import CODECS, batch
from .calls import EARLIEST, LATEST, values

STEPS = 60
TOPICS, GROUPS = ["a", "b", "c"], ["g", "h"]


class Play:
    def __init__(self, s, seed):
        self.s, self.draw = s, random.Random(seed)
        # Of partitions, the number of the next record that an idempotent producer sends; of groups, the one member.
        self.sequences, self.members, self.producer = {}, {}, None

    def run(self):
        self.create()
        for _ in range(STEPS):
            steps, weights = zip(*self.STEPS)
            self.draw.choices(steps, weights)[0](self)

    def topic(self):
        """Mostly one that is there."""
        there = sorted(self.s.partitions)
        return self.draw.choice(there if there and self.draw.random() < 0.9 else TOPICS)

    def partition(self, name):
        count = self.s.partitions.get(name, 1)
        return self.draw.randrange(count) if self.draw.random() < 0.95 else count + 2

    def create(self):
        name, partitions = self.draw.choice(TOPICS), self.draw.choice([1, 1, 2, 3])
        configs = self.draw.choice([{}, {}, {"retention.ms": "3600000000"}, {"message.timestamp.type": "LogAppendTime"}])
        if name in self.s.partitions:
            self.s.create_only(name, partitions, configs)
        else:
            self.s.create(name, partitions, configs)

    def delete(self):
        name = self.topic()
        if name in self.s.partitions:
            self.s.delete(name)
            self.sequences = {spot: number for spot, number in self.sequences.items() if spot[0] != name}
        else:
            self.s.delete_only(name)

    def grow(self):
        name = self.topic()
        self.s.grow(name, self.s.partitions.get(name, 1) + self.draw.choice([-1, 0, 1]))

    def metadata(self):
        self.s.metadata(*self.draw.sample(TOPICS, self.draw.randrange(1, 3)))

    def records(self):
        return values(self.draw.randrange(1, 12), self.draw.randrange(1000))

    def produce(self):
        name = self.topic()
        # zstd has versions of its own; a scripted session asks for them.
        how = {"compression": self.draw.choice(CODECS[:4]), "at": self.s.clock + self.draw.randrange(100_000)}
        self.s.produce(name, self.records(), partition=self.partition(name), acks=self.draw.choice([-1, -1, -1, 1, 3]), **how)

    def produce_in_sequence(self):
        """The next number, one again, or one too far."""
        if self.producer is None:
            self.producer = self.s.producer()
        name, records = self.topic(), self.records()
        spot = name, self.partition(name)
        following = self.sequences.get(spot, 0)
        off = self.draw.choice([0, 0, 0, 0, -1, 3])
        self.s.produce(name, records, partition=spot[1], producer=self.producer, sequence=max(following + off, 0))
        if off == 0 and spot[1] < self.s.partitions.get(name, 0):
            self.sequences[spot] = following + len(records)

    def produce_damaged(self):
        name = self.topic()
        self.s.produce(name, batch(self.records(), at=self.s.clock, crc=self.draw.randrange(2**32)), partition=self.partition(name))

    def fetch(self):
        name = self.topic()
        size = self.draw.choice([1, 200, 1 << 20])
        self.s.fetch(name, self.draw.randrange(-1, 40), partition=self.partition(name), bytes_max=size)

    def list_offsets(self):
        name = self.topic()
        at = self.draw.choice([EARLIEST, LATEST, self.s.clock + self.draw.randrange(110_000)])
        self.s.list_offsets(name, at, partition=self.partition(name))

    def delete_records(self):
        name = self.topic()
        self.s.delete_records(name, self.draw.randrange(-1, 20), partition=self.partition(name))

    def commit(self):
        """From outside, by the member, or by one that is not."""
        group, name = self.draw.choice(GROUPS), self.topic()
        who = self.draw.choice([("", -1), self.members.get(group, ("", -1)), self.members.get(group, ("", -1))])
        self.s.commit(group, name, self.draw.randrange(100), *who, partition=self.partition(name), metadata=self.draw.choice(["", "m"]))

    def committed(self):
        group = self.draw.choice(GROUPS)
        if self.draw.random() < 0.5:
            self.s.committed(group)
        else:
            self.s.committed(group, self.topic(), [0, 1])

    def join(self):
        """The one member joins, or joins anew, and gives itself everything."""
        group = self.draw.choice(GROUPS)
        if group in self.members:
            told = self.s.join(group, self.members[group][0])
        else:
            told = self.s.joined(group)
        if not told["ErrorCode"]:
            self.members[group] = told["MemberId"], told["GenerationId"]
            self.s.sync(group, *self.members[group], [(told["MemberId"], b"everything")])

    def heartbeat(self):
        group = self.draw.choice(GROUPS)
        member, generation = self.members.get(group, ("nobody", 1))
        self.s.heartbeat(group, member, generation + self.draw.choice([0, 0, 0, 1, -1]))

    def leave(self):
        group = self.draw.choice(GROUPS)
        self.s.leave(group, self.members.pop(group, ("nobody", 0))[0])

    def describe(self):
        self.s.describe(*self.draw.sample(GROUPS, self.draw.randrange(1, 3)))

    def delete_group(self):
        self.s.delete_groups(self.draw.choice(GROUPS))

    def alter(self):
        name, ms = self.topic(), str(self.draw.randrange(10**9, 10**10))
        answer = self.s.alter(name, ("retention.ms", 0, ms))
        if not answer["Responses"][0]["ErrorCode"]:
            self.s.until_config(name, "retention.ms", ms)
        self.s.configs(name, "retention.ms")

    STEPS = [
        (create, 3), (delete, 1), (grow, 1), (metadata, 2), (produce, 10), (produce_in_sequence, 8), (produce_damaged, 1),
        (fetch, 10), (list_offsets, 6), (delete_records, 1), (commit, 6), (committed, 4), (join, 3), (heartbeat, 3),
        (leave, 1), (describe, 2), (delete_group, 1), (alter, 1),
    ]


def session(seed):
    return lambda s: Play(s, seed).run()
