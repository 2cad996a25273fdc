import java.io.IOException;
import java.io.Reader;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Collection;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.Set;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.function.BooleanSupplier;
import java.util.stream.IntStream;
import org.apache.kafka.clients.admin.AbortTransactionSpec;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.ListOffsetsOptions;
import org.apache.kafka.clients.admin.NewPartitions;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.admin.RecordsToDelete;
import org.apache.kafka.clients.consumer.ConsumerGroupMetadata;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.IsolationLevel;
import org.apache.kafka.common.KafkaException;
import org.apache.kafka.common.KafkaFuture;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.errors.ProducerFencedException;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

/**
 * The Java client, which most others are measured by. One check a run:
 * JavaChecks BOOTSTRAP CHECK TOPIC GROUP, where TOPIC is there, empty, with two partitions.
 */
final class JavaChecks {
    private static final int WAIT_MAX_SECONDS = 180;

    private final String bootstrap;
    private final String topic;
    private final String group;

    private JavaChecks(String bootstrap, String topic, String group) {
        this.bootstrap = bootstrap;
        this.topic = topic;
        this.group = group;
    }

    public static void main(String[] arguments) throws Exception {
        JavaChecks checks = new JavaChecks(arguments[0], arguments[2], arguments[3]);
        JavaChecks.class.getDeclaredMethod(arguments[1]).invoke(checks);
        System.exit(0);
    }

    void records_come_back_in_every_codec() throws Exception {
        List<String> sent = new ArrayList<>();
        for (String codec : List.of("none", "gzip", "snappy", "lz4", "zstd")) {
            try (KafkaProducer<String, String> producer = producer(Map.of("compression.type", codec))) {
                for (int number = 0; number < 50; number++) {
                    String value = codec + number + "ж".repeat(number);
                    sent.add(value);
                    producer.send(new ProducerRecord<>(topic, 0, "key", value));
                }
            }
        }
        same("values", values(readAll(0, sent.size(), Map.of())), sent);
    }

    void an_idempotent_producer_sends_in_order() throws Exception {
        int count = 20_000;
        Map<String, Object> settings = Map.of("enable.idempotence", true, "batch.size", 1000, "linger.ms", 1);
        try (KafkaProducer<String, String> producer = producer(settings)) {
            for (int number = 0; number < count; number++) {
                producer.send(new ProducerRecord<>(topic, 0, "key", "" + number));
            }
        }
        List<ConsumerRecord<String, String>> read = readAll(0, count, Map.of());
        for (int number = 0; number < count; number++) {
            same("value", read.get(number).value(), "" + number);
            same("offset", read.get(number).offset(), (long) number);
        }
    }

    void a_group_commits_and_resumes() throws Exception {
        send("a", "b", "c", "d", "e");
        TopicPartition part = new TopicPartition(topic, 0);
        Map<String, Object> settings = Map.of("max.poll.records", 2);
        try (KafkaConsumer<String, String> consumer = consumer(settings)) {
            consumer.subscribe(List.of(topic));
            same("first", values(read(consumer, 2)), List.of("a", "b"));
            consumer.commitSync(Map.of(part, new OffsetAndMetadata(2, "two")));
        }
        try (KafkaConsumer<String, String> consumer = consumer(settings)) {
            same("metadata", consumer.committed(Set.of(part)).get(part).metadata(), "two");
            consumer.subscribe(List.of(topic));
            same("then", values(read(consumer, 3)), List.of("c", "d", "e"));
            same("end", consumer.endOffsets(Set.of(part)).get(part), 5L);
            same("lag", consumer.currentLag(part).getAsLong(), 0L);
            same("by time", consumer.offsetsForTimes(Map.of(part, 1L)).get(part).offset(), 0L);
        }
    }

    void the_admin_describes_what_is_there() throws Exception {
        send("a", "b");
        try (Admin admin = admin()) {
            same("nodes", admin.describeCluster().nodes().get().size(), 1);
            same("partitions", admin.describeTopics(List.of(topic)).allTopicNames().get().get(topic).partitions().size(), 2);
            TopicPartition part = new TopicPartition(topic, 0);
            same("latest", admin.listOffsets(Map.of(part, OffsetSpec.latest())).all().get().get(part).offset(), 2L);
            same("by time", admin.listOffsets(Map.of(part, OffsetSpec.maxTimestamp())).all().get().get(part).offset() < 2, true);
            try (KafkaConsumer<String, String> consumer = consumer(Map.of())) {
                consumer.subscribe(List.of(topic));
                read(consumer, 2);
                consumer.commitSync();
                var described = admin.describeConsumerGroups(List.of(group)).all().get().get(group);
                same("members", described.members().size(), 1);
                same("owned", described.members().iterator().next().assignment().topicPartitions().size(), 2);
            }
            boolean listed = admin.listGroups().all().get().stream().anyMatch(found -> found.groupId().equals(group));
            same("listed", listed, true);
            var kept = admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata().get();
            same("its offset", kept.get(part).offset(), 2L);
            admin.deleteConsumerGroups(List.of(group)).all().get();
            admin.describeLogDirs(List.of(1)).allDescriptions().get();
        }
    }

    void the_admin_changes_settings_and_offsets() throws Exception {
        send("a", "b", "c");
        try (Admin admin = admin()) {
            ConfigResource resource = new ConfigResource(ConfigResource.Type.TOPIC, topic);
            AlterConfigOp change = new AlterConfigOp(new ConfigEntry("retention.ms", "7200000"), AlterConfigOp.OpType.SET);
            admin.incrementalAlterConfigs(Map.of(resource, List.of(change))).all().get();
            eventually("altered", () -> "7200000".equals(setting(admin, resource, "retention.ms")));
            admin.createPartitions(Map.of(topic, NewPartitions.increaseTo(4))).all().get();
            eventually("grown", () -> partitions(admin) == 4);
            TopicPartition part = new TopicPartition(topic, 0);
            same("low", admin.deleteRecords(Map.of(part, RecordsToDelete.beforeOffset(2))).all().get() == null, true);
            same("earliest", admin.listOffsets(Map.of(part, OffsetSpec.earliest())).all().get().get(part).offset(), 2L);
            admin.alterConsumerGroupOffsets(group, Map.of(part, new OffsetAndMetadata(3))).all().get();
            same("set", admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata().get().get(part).offset(), 3L);
            admin.deleteConsumerGroupOffsets(group, Set.of(part)).all().get();
            admin.deleteTopics(List.of(topic)).all().get();
        }
    }

    void a_transaction_counts_as_a_whole() throws Exception {
        TopicPartition other = new TopicPartition(topic, 1);
        try (KafkaProducer<String, String> producer = producer(Map.of("transactional.id", group))) {
            producer.initTransactions();
            transact(producer, "kept", true);
            transact(producer, "given up", false);
            producer.beginTransaction();
            producer.send(new ProducerRecord<>(topic, 0, null, "kept too"));
            producer.sendOffsetsToTransaction(Map.of(other, new OffsetAndMetadata(7)), new ConsumerGroupMetadata(group));
            producer.commitTransaction();
        }
        Map<String, Object> committed = Map.of("isolation.level", "read_committed");
        same("values", values(readAll(0, 2, committed)), List.of("kept", "kept too"));
        try (KafkaConsumer<String, String> consumer = consumer(Map.of())) {
            eventually("the offset", () -> {
                OffsetAndMetadata kept = consumer.committed(Set.of(other)).get(other);
                return kept != null && kept.offset() == 7;
            });
        }
        try (Admin admin = admin()) {
            var described = admin.describeTransactions(List.of(group)).all().get().get(group);
            same("its state", described.state().toString(), "CompleteCommit");
            same("listed", admin.listTransactions().all().get().stream().anyMatch(one -> one.transactionalId().equals(group)), true);
        }
    }

    void an_older_instance_is_fenced() throws Exception {
        Map<String, Object> settings = Map.of("transactional.id", group);
        try (KafkaProducer<String, String> older = producer(settings); KafkaProducer<String, String> newer = producer(settings)) {
            older.initTransactions();
            older.beginTransaction();
            older.send(new ProducerRecord<>(topic, 0, null, "older")).get();
            newer.initTransactions();
            boolean fenced = false;
            try {
                older.send(new ProducerRecord<>(topic, 0, null, "too late")).get();
                older.commitTransaction();
            } catch (ProducerFencedException error) {
                fenced = true;
            } catch (ExecutionException error) {
                fenced = error.getCause() instanceof ProducerFencedException
                    || error.getCause() instanceof org.apache.kafka.common.errors.InvalidProducerEpochException;
            }
            same("the older one is fenced", fenced, true);
            transact(newer, "newer", true);
        }
        same("values", values(readAll(0, 1, Map.of("isolation.level", "read_committed"))), List.of("newer"));
    }

    /** Partition 0 is read, partition 1 is written; three lives of the process, the last record of each transaction open to abort. */
    void what_is_read_is_written_once_while_transactions_are_aborted() throws Exception {
        int count = 600;
        send(IntStream.range(0, count).mapToObj(number -> "" + number).toArray(String[]::new));
        for (int life = 0; life < 3; life++) {
            copy(count, life);
        }
        try (KafkaProducer<String, String> producer = producer(Map.of("transactional.id", group))) {
            producer.initTransactions(); // ends what the last life left open
        }
        List<String> copies = values(readAll(1, count, Map.of("isolation.level", "read_committed")));
        same("copies", copies, IntStream.range(0, count).mapToObj(number -> "" + number).toList());
        try (KafkaConsumer<String, String> consumer = consumer(Map.of())) {
            TopicPartition part = new TopicPartition(topic, 0);
            same("position", consumer.committed(Set.of(part)).get(part).offset(), (long) count);
        }
    }

    /** One life: copies up to its share of the records, and leaves its last transaction open. */
    private void copy(int count, int life) throws Exception {
        Map<String, Object> settings = Map.of("isolation.level", "read_committed", "max.poll.records", 20);
        TopicPartition part = new TopicPartition(topic, 0);
        KafkaProducer<String, String> producer = producer(Map.of("transactional.id", group));
        try (KafkaConsumer<String, String> consumer = consumer(settings)) {
            producer.initTransactions();
            consumer.subscribe(List.of(topic));
            long done = 0;
            int turn = 0;
            while (done < (life + 1L) * count / 3) {
                var records = consumer.poll(Duration.ofMillis(200)).records(part);
                if (records.isEmpty()) {
                    continue;
                }
                producer.beginTransaction();
                for (ConsumerRecord<String, String> record : records) {
                    producer.send(new ProducerRecord<>(topic, 1, null, record.value()));
                }
                long next = records.get(records.size() - 1).offset() + 1;
                producer.sendOffsetsToTransaction(Map.of(part, new OffsetAndMetadata(next)), consumer.groupMetadata());
                if (turn++ % 3 == 1) {
                    producer.abortTransaction();
                    consumer.seek(part, records.get(0).offset());
                } else {
                    producer.commitTransaction();
                    done = next;
                }
            }
            producer.beginTransaction();
            producer.send(new ProducerRecord<>(topic, 1, null, "of a life that ended")).get();
            producer.sendOffsetsToTransaction(Map.of(part, new OffsetAndMetadata(count)), consumer.groupMetadata());
        } finally {
            producer.close(Duration.ZERO);
        }
    }

    void a_transaction_that_takes_too_long_is_aborted() throws Exception {
        Map<String, Object> settings = Map.of("transactional.id", group, "transaction.timeout.ms", 1000);
        try (KafkaProducer<String, String> producer = producer(settings); Admin admin = admin()) {
            producer.initTransactions();
            producer.beginTransaction();
            producer.send(new ProducerRecord<>(topic, 0, null, "too slow")).get();
            eventually("aborted", () -> "CompleteAbort".equals(state(admin, group)));
            boolean refused = false;
            try {
                producer.commitTransaction();
            } catch (KafkaException error) {
                refused = true;
            }
            same("the commit is refused", refused, true);
        }
        try (KafkaProducer<String, String> next = producer(settings)) {
            next.initTransactions();
            transact(next, "in time", true);
        }
        same("values", values(readAll(0, 1, Map.of("isolation.level", "read_committed"))), List.of("in time"));
    }

    void the_admin_fences_and_aborts() throws Exception {
        TopicPartition part = new TopicPartition(topic, 0);
        String other = group + "-other";
        try (KafkaProducer<String, String> one = producer(Map.of("transactional.id", group));
                KafkaProducer<String, String> two = producer(Map.of("transactional.id", other));
                Admin admin = admin()) {
            for (KafkaProducer<String, String> producer : List.of(one, two)) {
                producer.initTransactions();
                producer.beginTransaction();
                producer.send(new ProducerRecord<>(topic, 0, null, "given up")).get();
            }
            send("kept");
            same("stable", stable(admin, part), 0L);
            admin.fenceProducers(List.of(group)).all().get();
            eventually("the first has ended", () -> stable(admin, part) == 1L);
            var active = admin.describeProducers(List.of(part)).partitionResult(part).get().activeProducers();
            var open = active.stream().filter(producer -> producer.currentTransactionStartOffset().isPresent()).findFirst().get();
            var spec = new AbortTransactionSpec(part, open.producerId(), (short) open.producerEpoch(), open.coordinatorEpoch().orElse(0));
            admin.abortTransaction(spec).all().get();
            eventually("both have ended", () -> stable(admin, part) == 5L);
            boolean fenced = false;
            try {
                one.commitTransaction();
            } catch (KafkaException error) {
                fenced = true;
            }
            same("fenced", fenced, true);
        }
        same("values", values(readAll(0, 1, Map.of("isolation.level", "read_committed"))), List.of("kept"));
    }

    private static String state(Admin admin, String transactionalId) {
        return got(admin.describeTransactions(List.of(transactionalId)).description(transactionalId)).state().toString();
    }

    /** The end of what readers of committed records may see. */
    private static long stable(Admin admin, TopicPartition part) {
        var options = new ListOffsetsOptions(IsolationLevel.READ_COMMITTED);
        return got(admin.listOffsets(Map.of(part, OffsetSpec.latest()), options).partitionResult(part)).offset();
    }

    private static <T> T got(KafkaFuture<T> future) {
        try {
            return future.get();
        } catch (InterruptedException | ExecutionException error) {
            throw new IllegalStateException(error);
        }
    }

    void two_members_share_by_the_brokers_assignor() throws Exception {
        Map<String, Object> settings = Map.of("group.protocol", "consumer");
        try (KafkaConsumer<String, String> one = consumer(settings); KafkaConsumer<String, String> two = consumer(settings)) {
            one.subscribe(List.of(topic));
            two.subscribe(List.of(topic));
            eventually("each has one", () -> {
                one.poll(Duration.ofMillis(100));
                two.poll(Duration.ofMillis(100));
                return one.assignment().size() == 1 && two.assignment().size() == 1;
            });
            send("a");
            List<ConsumerRecord<String, String>> read = new ArrayList<>();
            eventually("the record", () -> {
                one.poll(Duration.ofMillis(100)).forEach(read::add);
                two.poll(Duration.ofMillis(100)).forEach(read::add);
                return read.size() == 1;
            });
            KafkaConsumer<String, String> reader = one.assignment().contains(new TopicPartition(topic, 0)) ? one : two;
            reader.commitSync();
            KafkaConsumer<String, String> other = reader == one ? two : one;
            reader.close();
            eventually("the other has both", () -> {
                other.poll(Duration.ofMillis(100));
                return other.assignment().size() == 2;
            });
            same("the position", other.position(new TopicPartition(topic, 0)), 1L);
        }
        try (Admin admin = admin()) {
            same("its type", admin.describeConsumerGroups(List.of(group)).all().get().get(group).type().toString(), "Consumer");
        }
    }

    private void transact(KafkaProducer<String, String> producer, String value, boolean commit) {
        producer.beginTransaction();
        producer.send(new ProducerRecord<>(topic, 0, null, value));
        if (commit) {
            producer.commitTransaction();
        } else {
            producer.flush();
            producer.abortTransaction();
        }
    }

    private void send(String... values) {
        try (KafkaProducer<String, String> producer = producer(Map.of())) {
            for (String value : values) {
                producer.send(new ProducerRecord<>(topic, 0, null, value));
            }
        }
    }

    private KafkaProducer<String, String> producer(Map<String, Object> more) {
        return new KafkaProducer<>(settings(more), new StringSerializer(), new StringSerializer());
    }

    private KafkaConsumer<String, String> consumer(Map<String, Object> more) {
        Map<String, Object> settings = settings(Map.of("group.id", group, "auto.offset.reset", "earliest", "enable.auto.commit", false));
        settings.putAll(more);
        return new KafkaConsumer<>(settings, new StringDeserializer(), new StringDeserializer());
    }

    private Admin admin() {
        return Admin.create(settings(Map.of()));
    }

    /** Those of a check over those of the file that KAFKA_LOGIN names, if it is set. */
    private Map<String, Object> settings(Map<String, Object> more) {
        Map<String, Object> settings = new HashMap<>(Map.of("bootstrap.servers", bootstrap, "metadata.max.age.ms", 500));
        settings.putAll(Map.of("max.block.ms", WAIT_MAX_SECONDS * 1000, "default.api.timeout.ms", WAIT_MAX_SECONDS * 1000));
        String login = System.getenv("KAFKA_LOGIN");
        if (login != null) {
            try (Reader file = Files.newBufferedReader(Path.of(login))) {
                Properties properties = new Properties();
                properties.load(file);
                properties.forEach((name, value) -> settings.put((String) name, value));
            } catch (IOException error) {
                throw new UncheckedIOException(error);
            }
        }
        settings.putAll(more);
        return settings;
    }

    private List<ConsumerRecord<String, String>> readAll(int partition, int count, Map<String, Object> more) {
        try (KafkaConsumer<String, String> consumer = consumer(more)) {
            TopicPartition part = new TopicPartition(topic, partition);
            consumer.assign(List.of(part));
            consumer.seekToBeginning(List.of(part));
            return read(consumer, count);
        }
    }

    private static List<ConsumerRecord<String, String>> read(KafkaConsumer<String, String> consumer, int count) {
        List<ConsumerRecord<String, String>> read = new ArrayList<>();
        eventually(count + " records", () -> {
            consumer.poll(Duration.ofMillis(200)).forEach(read::add);
            return read.size() >= count;
        });
        return read;
    }

    private static List<String> values(Collection<ConsumerRecord<String, String>> records) {
        return records.stream().map(ConsumerRecord::value).toList();
    }

    private static String setting(Admin admin, ConfigResource resource, String name) {
        try {
            return admin.describeConfigs(List.of(resource)).all().get().get(resource).get(name).value();
        } catch (InterruptedException | ExecutionException error) {
            throw new IllegalStateException(error);
        }
    }

    private int partitions(Admin admin) {
        try {
            return admin.describeTopics(List.of(topic)).allTopicNames().get().get(topic).partitions().size();
        } catch (InterruptedException | ExecutionException error) {
            throw new IllegalStateException(error);
        }
    }

    private static void eventually(String what, BooleanSupplier holds) {
        long until = System.nanoTime() + TimeUnit.SECONDS.toNanos(WAIT_MAX_SECONDS);
        while (!holds.getAsBoolean()) {
            if (System.nanoTime() > until) {
                throw new AssertionError("did not come: " + what);
            }
        }
    }

    private static void same(String what, Object got, Object wanted) {
        if (!got.equals(wanted)) {
            throw new AssertionError(what + ": got " + got + ", wanted " + wanted);
        }
    }
}
