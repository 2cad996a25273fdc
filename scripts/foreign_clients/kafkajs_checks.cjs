// kafkajs: the protocol once more, written in JavaScript. One check a run:
// node kafkajs_checks.cjs BOOTSTRAP CHECK TOPIC GROUP, where TOPIC is there, empty, with two partitions.
"use strict";

const assert = require("node:assert/strict");
const fs = require("node:fs");
const { CompressionTypes, Kafka, logLevel } = require("kafkajs");

const [bootstrap, name, topic, group] = process.argv.slice(2);
// KAFKA_LOGIN, if set, is a JSON object: `ca` (a file), and kafkajs's `sasl`.
const login = process.env.KAFKA_LOGIN ? JSON.parse(process.env.KAFKA_LOGIN) : null;
const security = login ? { ssl: { ca: [fs.readFileSync(login.ca, "utf-8")] }, sasl: login.sasl } : {};
const kafka = new Kafka({ clientId: "checks", brokers: [bootstrap], logLevel: logLevel.NOTHING, ...security });
const WAIT_MAX_MS = 60_000;

async function sending(settings, work) {
  const producer = kafka.producer(settings);
  await producer.connect();
  try {
    return await work(producer);
  } finally {
    await producer.disconnect();
  }
}

async function administrating(work) {
  const admin = kafka.admin();
  await admin.connect();
  try {
    return await work(admin);
  } finally {
    await admin.disconnect();
  }
}

// The next `count` messages of a group, which commits what it has read.
async function reading(groupId, count, settings = {}) {
  const consumer = kafka.consumer({ groupId, sessionTimeout: 6000, ...settings });
  await consumer.connect();
  await consumer.subscribe({ topic, fromBeginning: true });
  const messages = [];
  await new Promise((done, failed) => {
    setTimeout(() => failed(new Error(`${messages.length} of ${count} came`)), WAIT_MAX_MS).unref();
    consumer.on(consumer.events.CRASH, ({ payload }) => failed(payload.error));
    const eachMessage = async ({ message, partition }) => {
      messages.push({ partition, key: `${message.key}`, value: `${message.value}`, headers: message.headers });
      if (messages.length === count) done();
    };
    consumer.run({ eachMessage }).catch(failed);
  });
  const last = messages.map(({ partition }) => partition);
  const offsets = [...new Set(last)].map((partition) => ({
    topic, partition, offset: `${last.filter((one) => one === partition).length}`,
  }));
  await consumer.commitOffsets(offsets);
  await consumer.disconnect();
  return messages;
}

const checks = {
  async records_come_back_with_keys_and_headers() {
    const message = { key: "k", value: "значение 🦀", headers: { eventType: "Greeted" }, partition: 0 };
    await sending({ idempotent: true }, async (producer) => {
      await producer.send({ topic, messages: [message] });
      await producer.send({ topic, messages: [message], compression: CompressionTypes.GZIP });
    });
    for (const read of await reading(group, 2)) {
      assert.equal(read.key, "k");
      assert.equal(read.value, message.value);
      assert.equal(`${read.headers.eventType}`, "Greeted");
    }
  },

  async a_group_commits_and_resumes() {
    const numbered = (from) => [0, 1, 2].map((n) => ({ value: `${from + n}`, partition: 0 }));
    await sending({}, (producer) => producer.send({ topic, messages: numbered(0) }));
    assert.deepEqual((await reading(group, 3)).map(({ value }) => value), ["0", "1", "2"]);
    await sending({}, (producer) => producer.send({ topic, messages: numbered(3) }));
    assert.deepEqual((await reading(group, 3)).map(({ value }) => value), ["3", "4", "5"]);
  },

  async the_admin_describes_what_is_there() {
    await administrating(async (admin) => {
      const made = `${topic}-made`;
      await admin.createTopics({ topics: [{ topic: made, numPartitions: 3, configEntries: [{ name: "retention.ms", value: "60000" }] }] });
      assert.ok((await admin.listTopics()).includes(made));
      const { topics } = await admin.fetchTopicMetadata({ topics: [made] });
      assert.equal(topics[0].partitions.length, 3);
      const { resources } = await admin.describeConfigs({ resources: [{ type: 2, name: made, configNames: ["retention.ms"] }] });
      assert.equal(resources[0].configEntries[0].configValue, "60000");
      await admin.setOffsets({ groupId: group, topic, partitions: [{ partition: 0, offset: "5" }] });
      const [kept] = await admin.fetchOffsets({ groupId: group, topics: [topic] });
      assert.equal(kept.partitions.find(({ partition }) => partition === 0).offset, "5");
      const { groups } = await admin.describeGroups([group]);
      assert.equal(groups[0].state, "Empty");
      await admin.deleteGroups([group]);
      await admin.deleteTopics({ topics: [made] });
      assert.equal((await admin.describeCluster()).brokers.length, 1);
    });
  },

  async a_transaction_counts_as_a_whole() {
    const settings = { transactionalId: `${group}-t`, idempotent: true, maxInFlightRequests: 1 };
    await sending(settings, async (producer) => {
      const kept = await producer.transaction();
      await kept.send({ topic, messages: [{ value: "kept", partition: 0 }] });
      await kept.sendOffsets({ consumerGroupId: `${group}-o`, topics: [{ topic, partitions: [{ partition: 1, offset: "7" }] }] });
      await kept.commit();
      const dropped = await producer.transaction();
      await dropped.send({ topic, messages: [{ value: "given up", partition: 0 }] });
      await dropped.abort();
      const last = await producer.transaction();
      await last.send({ topic, messages: [{ value: "kept too", partition: 0 }] });
      await last.commit();
    });
    assert.deepEqual((await reading(group, 2)).map(({ value }) => value), ["kept", "kept too"]);
    await administrating(async (admin) => {
      const [kept] = await admin.fetchOffsets({ groupId: `${group}-o`, topics: [topic] });
      assert.equal(kept.partitions.find(({ partition }) => partition === 1).offset, "7");
    });
  },
};

checks[name]().then(
  () => process.exit(0),
  (error) => {
    console.error(error);
    process.exit(1);
  },
);
