"""The questions of sessions, by the words of the protocol, filled in for every version of it at once.

A field that a version does not have is left out when it is coded, so one call serves topics by name and by id, one
group and a list of them. Names are those of the session; the real ones have its prefix.
"""

import uuid

from .batches import batch, decoded

TIMEOUT_MS = 30_000
EARLIEST, LATEST, MAX_TIMESTAMP = -2, -1, -3
TOPIC, BROKER, GROUP = 2, 4, 32
NO_ID = uuid.UUID(int=0)
PROTOCOL = "consumer"


def values(count, start=0):
    """Records that count up."""
    return [(f"k{n}".encode(), f"v{n}".encode(), []) for n in range(start, start + count)]


class Calls:
    # Topics

    def create(self, name, partitions=1, configs=None, **more):
        """Creates topics and waits until every partition of them can be used."""
        answer = self.create_only(name, partitions, configs, **more)
        if not answer["Topics"][0]["ErrorCode"]:
            self.until_there(name, partitions)
        return answer

    def create_only(self, name, partitions=1, configs=None, *, replicas=1, validate=False, assignments=(), **more):
        return self.create_all([self.creation(name, partitions, configs, replicas, assignments)], validate, **more)

    def creation(self, name, partitions=1, configs=None, replicas=1, assignments=()):
        given = [{"PartitionIndex": index, "BrokerIds": brokers} for index, brokers in assignments]
        entries = [{"Name": key, "Value": value} for key, value in (configs or {}).items()]
        return {
            "Name": self.named(name), "NumPartitions": partitions, "ReplicationFactor": replicas,
            "Assignments": given, "Configs": entries,
        }

    def create_all(self, topics, validate=False, **more):
        return self.ask("CreateTopics", Topics=topics, timeoutMs=TIMEOUT_MS, validateOnly=validate, **more)

    def until_there(self, name, partitions):
        asked = [{"Name": self.named(name)}]

        def every_partition_answers():
            topic = self.quietly("Metadata", Topics=asked, AllowAutoTopicCreation=False)["Topics"][0]
            if topic["ErrorCode"] or len(topic["Partitions"]) < partitions:
                return False
            self.topic_ids[self.named(name)] = topic.get("TopicId", NO_ID)
            spots = [{"PartitionIndex": index, "Timestamp": LATEST} for index in range(partitions)]
            told = self.quietly("ListOffsets", ReplicaId=-1, Topics=[{"Name": self.named(name), "Partitions": spots}])
            return all(not part["ErrorCode"] for part in told["Topics"][0]["Partitions"])

        self.until(every_partition_answers)
        self.partitions[name] = partitions

    def delete(self, *names, **more):
        """Deletes topics and waits until they are gone."""
        answer = self.delete_only(*names, **more)

        def they_are_gone():
            asked = [{"Name": self.named(name)} for name in names]
            told = self.quietly("Metadata", Topics=asked, AllowAutoTopicCreation=False)["Topics"]
            return all(topic["ErrorCode"] for topic in told)

        def their_offsets_are_gone():
            kept = [topic["Name"] for group in self.groups for topic in self.offsets_of(group)]
            return not {self.named(name) for name in names} & set(kept)

        self.until(they_are_gone)
        self.until(their_offsets_are_gone)
        for name in names:
            self.partitions.pop(name, None)
        return answer

    def delete_only(self, *names, **more):
        full = [self.named(name) for name in names]
        return self.ask(
            "DeleteTopics", Topics=[{"Name": name} for name in full], TopicNames=full, TimeoutMs=TIMEOUT_MS, **more
        )

    def grow(self, name, count, *, validate=False, assignments=None, **more):
        given = None if assignments is None else [{"BrokerIds": brokers} for brokers in assignments]
        topics = [{"Name": self.named(name), "Count": count, "Assignments": given}]
        answer = self.ask("CreatePartitions", Topics=topics, TimeoutMs=TIMEOUT_MS, ValidateOnly=validate, **more)
        if not validate and self.partitions.get(name, count) < count and not answer["Results"][0]["ErrorCode"]:
            self.until_there(name, count)
        return answer

    def metadata(self, *names, everything=False, **more):
        asked = None if everything else [{"Name": self.named(name)} for name in names]
        return self.ask("Metadata", Topics=asked, AllowAutoTopicCreation=False, **more)

    # Records

    def produce(self, name, records, *, partition=0, acks=-1, transactional_id=None, at=None, note="", on="main", at_least=0,
                **how):
        """`records` are tuples, or a batch as bytes, or None for none at all."""
        if isinstance(records, list):
            records = batch(records, at=self.clock if at is None else at, **how)
        body = {
            "TransactionalId": self.named(transactional_id) if transactional_id else None,
            "Acks": acks, "TimeoutMs": TIMEOUT_MS,
            "TopicData": [{
                **self.name_and_id(name), "PartitionData": [{"Index": partition, "Records": records}],
            }],
        }
        if acks == 0:
            version = self.versions.of("Produce")
            api = self.definitions.apis["Produce"]
            self.connection(on).send(api, version, api.request.encode(body, version))
            return None
        answer = self.ask("Produce", on=on, note=note, at_least=at_least, **body)
        if acks != -1:
            # Readers see a record when it is durable, and these acknowledgements do not wait for that.
            self.pause(0.1)
        return answer

    def name_and_id(self, name):
        full = self.named(name)
        # An id that no broker has given.
        return {"Name": full, "TopicId": self.topic_ids.get(full, uuid.UUID(int=7))}

    def fetch(self, name, offset, *, partition=0, bytes_max=1 << 20, isolation=0, wait_ms=0, min_bytes=1, **more):
        spot = {
            "Partition": partition, "FetchOffset": offset, "PartitionMaxBytes": bytes_max,
            "CurrentLeaderEpoch": more.pop("leader_epoch", -1), "LastFetchedEpoch": more.pop("fetched_epoch", -1),
        }
        session = {"SessionId": more.pop("session_id", 0), "SessionEpoch": more.pop("session_epoch", -1)}
        return self.ask(
            "Fetch", ReplicaId=-1, MaxWaitMs=wait_ms, MinBytes=min_bytes, MaxBytes=more.pop("all_bytes_max", 1 << 24),
            IsolationLevel=isolation, Topics=[self.fetched(name, [spot])], **session, **more,
        )

    def fetched(self, name, spots):
        both = self.name_and_id(name)
        return {"Topic": both["Name"], "TopicId": both["TopicId"], "Partitions": spots}

    def list_offsets(self, name, *times, partition=0, isolation=0, leader_epoch=-1, **more):
        """One request for each time: an answer names partitions only."""
        for at in times:
            spot = {"PartitionIndex": partition, "Timestamp": at, "CurrentLeaderEpoch": leader_epoch}
            asked = [{"Name": self.named(name), "Partitions": [spot]}]
            note = {EARLIEST: "earliest", LATEST: "latest", MAX_TIMESTAMP: "latest time"}.get(at, f"{at - self.clock:+}")
            self.ask("ListOffsets", note=note, ReplicaId=-1, IsolationLevel=isolation, Topics=asked, **more)

    def delete_records(self, name, offset, *, partition=0, **more):
        spot = {"PartitionIndex": partition, "Offset": offset}
        asked = [{"Name": self.named(name), "Partitions": [spot]}]
        return self.ask("DeleteRecords", Topics=asked, TimeoutMs=TIMEOUT_MS, **more)

    def epoch_end(self, name, epoch, *, partition=0, current=-1, **more):
        spot = {"Partition": partition, "LeaderEpoch": epoch, "CurrentLeaderEpoch": current}
        asked = [{"Topic": self.named(name), "Partitions": [spot]}]
        return self.ask("OffsetForLeaderEpoch", ReplicaId=-1, Topics=asked, **more)

    # Groups

    def group(self, name):
        """Waits until the group's coordinator works, and returns its full name."""
        full = self.named(name)
        if name not in self.groups:
            self.groups.append(name)

            def its_coordinator_works():
                self.quietly("FindCoordinator", Key=full, KeyType=0, CoordinatorKeys=[full])
                told = self.quietly("OffsetFetch", GroupId=full, Groups=[{"GroupId": full, "Topics": []}])
                return not (told["Groups"][0]["ErrorCode"] if "Groups" in told else told["ErrorCode"])

            self.until(its_coordinator_works)
        return full

    def join(self, group, member="", *, on="main", **how):
        return self.start_join(group, member, on=on, **how).answer()

    def start_join(self, group, member="", *, on="main", protocols=(("range", b"metadata"),), instance=None, **how):
        listed = [{"Name": name, "Metadata": metadata} for name, metadata in protocols]
        return self.send(
            "JoinGroup", on=on, note=how.get("note", ""), at_least=how.get("at_least", 5 if instance else 0),
            GroupId=self.group(group), SessionTimeoutMs=how.get("session_ms", 30_000),
            RebalanceTimeoutMs=how.get("rebalance_ms", 30_000), MemberId=member, GroupInstanceId=instance,
            ProtocolType=how.get("type", PROTOCOL), Protocols=listed,
        )

    def joined(self, group, **how):
        """A member: it asks for an id first where the version wants it so."""
        first = self.join(group, **how)
        if first["ErrorCode"] == 79:
            return self.join(group, first["MemberId"], **how)
        return first

    def sync(self, group, member, generation, assignments=(), *, on="main", **how):
        return self.start_sync(group, member, generation, assignments, on=on, **how).answer()

    def start_sync(self, group, member, generation, assignments=(), *, on="main", **how):
        given = [{"MemberId": one, "Assignment": content} for one, content in assignments]
        return self.send(
            "SyncGroup", on=on, note=how.get("note", ""), GroupId=self.group(group), GenerationId=generation,
            MemberId=member, GroupInstanceId=how.get("instance"), ProtocolType=how.get("type", PROTOCOL),
            ProtocolName=how.get("protocol", "range"), Assignments=given,
        )

    def heartbeat(self, group, member, generation, *, instance=None, **more):
        return self.ask(
            "Heartbeat", GroupId=self.group(group), GenerationId=generation, MemberId=member,
            GroupInstanceId=instance, **more,
        )

    def leave(self, group, member, *, instance=None, **more):
        who = [{"MemberId": member, "GroupInstanceId": instance}]
        return self.ask("LeaveGroup", GroupId=self.group(group), MemberId=member, Members=who, **more)

    def commit(self, group, name, offset, member="", generation=-1, *, partition=0, metadata="", instance=None, **more):
        both = self.name_and_id(name)
        spot = {"PartitionIndex": partition, "CommittedOffset": offset, "CommittedMetadata": metadata}
        spot["CommittedLeaderEpoch"] = more.pop("leader_epoch", -1)
        return self.ask(
            "OffsetCommit", GroupId=self.group(group), GenerationIdOrMemberEpoch=generation, MemberId=member,
            GroupInstanceId=instance, Topics=[{**both, "Partitions": [spot]}], **more,
        )

    def committed(self, group, name=None, partitions=(0,), *, stable=False, **more):
        """Of all topics where none is named, which version 2 began."""
        topics = None if name is None else [{**self.name_and_id(name), "PartitionIndexes": list(partitions)}]
        if topics is None:
            more["at_least"] = max(more.get("at_least", 0), 2)
        full = self.group(group)
        who = {"MemberId": more.pop("member", None), "MemberEpoch": more.pop("epoch", -1)}
        return self.ask(
            "OffsetFetch", GroupId=full, Topics=topics, RequireStable=stable,
            Groups=[{"GroupId": full, "Topics": topics, **who}], **more,
        )

    def offsets_of(self, group):
        """The topics of which a group has offsets, without a line in the transcript."""
        full = self.named(group)
        # Version 10 tells topics by their ids, which are gone with them.
        return self.quietly("OffsetFetch", at_most=9, GroupId=full, Groups=[{"GroupId": full, "Topics": None}])["Groups"][0]["Topics"]

    def delete_offsets(self, group, name, *partitions, **more):
        spots = [{"PartitionIndex": partition} for partition in partitions]
        asked = [{"Name": self.named(name), "Partitions": spots}]
        return self.ask("OffsetDelete", GroupId=self.group(group), Topics=asked, **more)

    def describe(self, *groups, **more):
        return self.ask("DescribeGroups", Groups=[self.named(group) for group in groups], **more)

    def delete_groups(self, *groups, **more):
        return self.ask("DeleteGroups", GroupsNames=[self.named(group) for group in groups], **more)

    # Configs

    def configs(self, name, *keys, kind=TOPIC, synonyms=False, **more):
        resource = {
            "ResourceType": kind, "ResourceName": self.resource(kind, name),
            "ConfigurationKeys": list(keys) or None,
        }
        return self.ask("DescribeConfigs", Resources=[resource], IncludeSynonyms=synonyms, **more)

    def resource(self, kind, name):
        return self.named(name) if name and kind in (TOPIC, GROUP) else name

    def alter(self, name, *changes, kind=TOPIC, validate=False, **more):
        """Changes are (key, operation, value); 0 sets, 1 deletes, 2 appends, 3 subtracts."""
        listed = [{"Name": key, "ConfigOperation": what, "Value": value} for key, what, value in changes]
        resource = {"ResourceType": kind, "ResourceName": self.resource(kind, name), "Configs": listed}
        return self.ask("IncrementalAlterConfigs", Resources=[resource], ValidateOnly=validate, **more)

    def replace_configs(self, name, configs, *, validate=False, **more):
        listed = [{"Name": key, "Value": value} for key, value in configs.items()]
        resource = {"ResourceType": TOPIC, "ResourceName": self.named(name), "Configs": listed}
        return self.ask("AlterConfigs", Resources=[resource], ValidateOnly=validate, **more)

    def until_config(self, name, key, value, kind=TOPIC):
        def it_is_told():
            resource = {"ResourceType": kind, "ResourceName": self.named(name), "ConfigurationKeys": [key]}
            told = self.quietly("DescribeConfigs", Resources=[resource])["Results"][0]["Configs"]
            return [config["Value"] for config in told] == [value]

        self.until(it_is_told)

    # Producers

    def producer(self, transactional_id=None, *, timeout_ms=60_000, known=(-1, -1), **more):
        """The id and epoch of a producer."""
        full = self.named(transactional_id) if transactional_id else None
        if full:
            def its_coordinator_works():
                self.quietly("FindCoordinator", Key=full, KeyType=1, CoordinatorKeys=[full])
                probe = self.quietly("InitProducerId", TransactionalId=full + "-probe", TransactionTimeoutMs=60_000)
                return probe["ErrorCode"] not in (14, 15, 16, 51)

            if "AddPartitionsToTxn" in self.versions.shared:
                self.until(its_coordinator_works)
        told = self.ask(
            "InitProducerId", TransactionalId=full, TransactionTimeoutMs=timeout_ms, ProducerId=known[0],
            ProducerEpoch=known[1], **more,
        )
        return told["ProducerId"], told["ProducerEpoch"]

    # What is left

    def final(self):
        """Every log and every committed offset, as the last lines of the transcript."""
        for name, partitions in sorted(self.partitions.items()):
            for partition in range(partitions):
                self.list_offsets(name, EARLIEST, LATEST, partition=partition)
                self.log(name, partition)
        for group in sorted(self.groups):
            self.committed(group, note=f"offsets of {group}")
            self.describe(group, note="at the end")

    def log(self, name, partition):
        """A whole partition, which may take several fetches."""
        start = self.bound(name, partition, EARLIEST)
        end = self.bound(name, partition, LATEST)
        while start < end:
            answer = self.fetch(name, start, partition=partition, note=f"the log of {name}-{partition} from {start}")
            batches = decoded(answer["Responses"][0]["Partitions"][0]["Records"])
            if not batches:
                return answer
            start = batches[-1]["BaseOffset"] + batches[-1]["LastOffsetDelta"] + 1

    def bound(self, name, partition, at):
        spot = [{"PartitionIndex": partition, "Timestamp": at}]
        told = self.quietly("ListOffsets", ReplicaId=-1, Topics=[{"Name": self.named(name), "Partitions": spot}])
        return told["Topics"][0]["Partitions"][0]["Offset"]
