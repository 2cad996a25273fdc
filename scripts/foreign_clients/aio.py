"""aiokafka: the client of asyncio, with a protocol and a group machine of its own."""

import asyncio

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.structs import OffsetAndMetadata

from . import confluent
from .check import ADD_PARTITIONS_TO_TXN, CODECS, RECORDS, WAIT_MAX_SECONDS, fresh, needs, same


def awaited(check):
    """A check that is a coroutine."""
    def run(broker):
        asyncio.run(asyncio.wait_for(check(broker), 3 * WAIT_MAX_SECONDS))

    run.__name__ = check.__name__
    return run


def settings_for(broker):
    """Where the broker is, and how to log in if it asks for that."""
    return {"bootstrap_servers": broker.address, **getattr(broker, "asyncio_words", {})}


def consumer(broker, *topics, **settings):
    defaults = {"auto_offset_reset": "earliest", "enable_auto_commit": False, "session_timeout_ms": 6000}
    return AIOKafkaConsumer(*topics, **{**settings_for(broker), **defaults, **settings})


async def read(client, count):
    return [await asyncio.wait_for(client.getone(), WAIT_MAX_SECONDS) for _ in range(count)]


def as_record(record):
    return {"key": record.key, "value": record.value, "headers": [tuple(header) for header in record.headers]}


@awaited
async def records_come_back_byte_for_byte_in_every_codec(broker):
    sendable = [record for record in RECORDS if all(value is not None for _, value in record["headers"])]
    for codec in [None, *CODECS]:
        name = confluent.topic(broker)
        settings = {"compression_type": codec, "enable_idempotence": True, "max_request_size": 2_000_000}
        async with AIOKafkaProducer(**{**settings_for(broker), **settings}) as producer:
            sent = [await producer.send(name, **record) for record in sendable]
            offsets = [(await one).offset for one in sent]
        same(f"offsets with {codec}", offsets, list(range(len(sendable))))
        async with consumer(broker, name) as client:
            same(f"records with {codec}", [as_record(one) for one in await read(client, len(sendable))], sendable)


@awaited
async def a_group_commits_and_resumes(broker):
    name, group = confluent.topic(broker), fresh("aiokafka")
    confluent.produce(broker, name, confluent.numbered(10))
    part = TopicPartition(name, 0)
    async with consumer(broker, name, group_id=group) as client:
        await read(client, 4)
        await client.commit({part: OffsetAndMetadata(4, "four")})
    async with consumer(broker, name, group_id=group) as client:
        same("committed", await client.committed(part), 4)
        same("what follows", [int(one.value) for one in await read(client, 6)], [4, 5, 6, 7, 8, 9])


@awaited
async def two_members_share_and_one_leaves(broker):
    name, group = confluent.topic(broker, partitions=4), fresh("aiokafka-members")
    stays, leaves = (consumer(broker, name, group_id=group, heartbeat_interval_ms=300) for _ in range(2))
    await stays.start()
    await leaves.start()

    async def until(shares):
        while sorted(len(client.assignment()) for client in (stays, leaves)) != shares:
            await asyncio.sleep(0.05)

    await until([2, 2])
    await leaves.stop()
    while len(stays.assignment()) != 4:
        await asyncio.sleep(0.05)
    await stays.stop()


@awaited
async def offsets_are_found_by_time(broker):
    name = confluent.topic(broker)
    confluent.produce(broker, name, [{"value": b"x", "timestamp": at} for at in (1000, 2000, 3000)], **{"linger.ms": 50})
    part = TopicPartition(name, 0)
    async with consumer(broker) as client:
        found = await client.offsets_for_times({part: 1500})
        same("between two", (found[part].offset, found[part].timestamp), (1, 2000))
        ends = (await client.beginning_offsets([part]))[part], (await client.end_offsets([part]))[part]
        same("beginning and end", ends, (0, 3))


@needs(ADD_PARTITIONS_TO_TXN)
@awaited
async def a_transaction_counts_as_a_whole(broker):
    name, group = confluent.topic(broker, partitions=2), fresh("aiokafka-transactions")
    settings = {**settings_for(broker), "transactional_id": fresh("aiokafka")}
    async with AIOKafkaProducer(**settings) as producer:
        async with producer.transaction():
            await producer.send_and_wait(name, b"kept", partition=0)
            await producer.send_offsets_to_transaction({TopicPartition(name, 1): 7}, group)
        try:
            async with producer.transaction():
                await producer.send_and_wait(name, b"given up", partition=0)
                raise KeyError
        except KeyError:
            pass
        async with producer.transaction():
            await producer.send_and_wait(name, b"kept too", partition=0)
    async with consumer(broker, name, isolation_level="read_committed") as client:
        same("records", [one.value for one in await read(client, 2)], [b"kept", b"kept too"])
    async with consumer(broker, group_id=group) as client:
        same("the offset", await client.committed(TopicPartition(name, 1)), 7)


CHECKS = [
    records_come_back_byte_for_byte_in_every_codec,
    a_group_commits_and_resumes,
    two_members_share_and_one_leaves,
    offsets_are_found_by_time,
    a_transaction_counts_as_a_whole,
]
