"""TLS with a login, by every client: each brings its own TLS and its own SCRAM."""

import json
import pathlib
import ssl
import subprocess

from aiokafka import AIOKafkaProducer
from confluent_kafka import Consumer, KafkaError, Producer
from confluent_kafka.admin import AdminClient, NewTopic

from . import aio, broker, confluent, elsewhere, kafka_python, kcat, tools
from .check import WAIT_MAX_SECONDS, eventually, fresh, same

MECHANISMS = ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]
USER, PASSWORD = "orders", "orders-secret"
# SCRAM writes a comma and an equals sign in a name in another way, and leaves those of a password alone.
ODD_USER, ODD_PASSWORD = "o=r,ders", "orders, =secret"
SETTINGS = """
[[listeners]]
name = "secured"
listen = "{listen}"
tls = {{ certificate = "broker.pem", key = "broker.key" }}
sasl = {mechanisms}

[[users]]
name = "{user}"
password = {{ file = "password" }}

[[users]]
name = "{odd_user}"
password = {{ file = "odd-password" }}
"""


class Broker(broker.Broker):
    """One whose only listener speaks TLS, under an authority of its own, and asks who is there."""

    def prepare(self):
        secrets = pathlib.Path(self.folder) / "secrets"
        secrets.mkdir(mode=0o700)
        certify(secrets)
        (secrets / "password").write_text(PASSWORD)
        (secrets / "odd-password").write_text(ODD_PASSWORD)
        self.secrets, self.authority = secrets, str(secrets / "authority.pem")
        # For checks that were written for a broker without logins.
        self.login = librdkafka(self, "SCRAM-SHA-512")
        self.kcat_login = librdkafka(self, "PLAIN")
        self.words = {**python_login("SCRAM-SHA-256"), "ssl_cafile": self.authority}
        self.asyncio_words = asyncio_login(self, "SCRAM-SHA-512")
        self.properties = java_properties(self, "SCRAM-SHA-512")
        self.plain_properties = java_properties(self, "PLAIN")
        self.javascript = javascript_login(self, "SCRAM-SHA-256")

    def arguments(self):
        wanted = {"listen": self.address or "127.0.0.1:0", "mechanisms": json.dumps(MECHANISMS)}
        file = self.secrets / "broker.toml"
        file.write_text(SETTINGS.format(user=USER, odd_user=ODD_USER, **wanted))
        return ["--config", str(file)]


def certify(folder):
    """An authority, and a certificate for 127.0.0.1 that it signed."""
    def openssl(*arguments):
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    openssl("req", "-x509", *key, "-keyout", "authority.key", "-out", "authority.pem", "-days", "2", "-subj", "/CN=authority")
    openssl("req", *key, "-keyout", "broker.key", "-out", "broker.csr", "-subj", "/CN=broker")
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
    openssl("x509", "-req", "-in", "broker.csr", "-CA", "authority.pem", "-CAkey", "authority.key", "-CAcreateserial",
            "-days", "2", "-extfile", "names", "-out", "broker.pem")


def librdkafka(broker, mechanism, user=USER, password=PASSWORD):
    return {
        "security.protocol": "SASL_SSL", "ssl.ca.location": broker.authority, "sasl.mechanism": mechanism,
        "sasl.username": user, "sasl.password": password,
    }


def java_properties(broker, mechanism, user=USER, password=PASSWORD):
    """A file of settings for the Java client and its tools."""
    login = "plain.PlainLoginModule" if mechanism == "PLAIN" else "scram.ScramLoginModule"
    settings = {
        "security.protocol": "SASL_SSL", "ssl.truststore.type": "PEM", "ssl.truststore.location": broker.authority,
        "sasl.mechanism": mechanism,
        "sasl.jaas.config": f'org.apache.kafka.common.security.{login} required username="{user}" password="{password}";',
    }
    file = broker.secrets / f"{fresh('client')}.properties"
    file.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
    return str(file)


def topic(broker, partitions=1):
    name = fresh("secured")
    administrator = AdminClient({"bootstrap.servers": broker.address, **librdkafka(broker, "SCRAM-SHA-512")})
    confluent.answers(administrator.create_topics([NewTopic(name, partitions, 1)]))
    eventually("the topic is listed", lambda: name in administrator.list_topics(timeout=WAIT_MAX_SECONDS).topics)
    return name


def confluent_kafka_logs_in_by_every_mechanism(broker):
    for mechanism in MECHANISMS:
        name, login = topic(broker), librdkafka(broker, mechanism)
        confluent.produce(broker, name, confluent.numbered(100), **login, **{"enable.idempotence": True})
        client = confluent.consumer(broker, fresh("secured"), **login)
        client.subscribe([name])
        same(f"records with {mechanism}", confluent.values(confluent.read(client, 100)), [f"{n}" for n in range(100)])
        client.commit(asynchronous=False)
        client.close()


def names_and_passwords_with_equals_signs_and_commas_log_in(broker):
    name = topic(broker)
    for mechanism in MECHANISMS:
        login = librdkafka(broker, mechanism, ODD_USER, ODD_PASSWORD)
        same("acknowledged", len(confluent.produce(broker, name, confluent.numbered(1), **login)), 1)


def kcat_logs_in(broker):
    """By a password alone: Debian's kcat repeats the wrong nonce in SCRAM, which is refused as Apache Kafka 4 does."""
    name = topic(broker)
    kcat.kcat(broker, "-P", "-t", name, "-z", "gzip", stdin=b"a\nb\n")
    same("records", kcat.lines(kcat.kcat(broker, "-C", "-t", name, "-e", "-q")), ["a", "b"])


def kafka_python_logs_in_by_every_mechanism(broker):
    for mechanism in MECHANISMS:
        name = topic(broker)
        login = {**python_login(mechanism), "ssl_cafile": broker.authority}
        kafka_python.produce(broker, name, kafka_python.SENDABLE, **login)
        client = kafka_python.consumer(broker, fresh("secured"), **login)
        client.subscribe([name])
        read = kafka_python.read(client, len(kafka_python.SENDABLE))
        client.close()
        same(f"records with {mechanism}", [kafka_python.as_record(one) for one in read], kafka_python.SENDABLE)


def python_login(mechanism, password=PASSWORD):
    """The words of kafka-python and aiokafka."""
    return {
        "security_protocol": "SASL_SSL", "sasl_mechanism": mechanism, "sasl_plain_username": USER,
        "sasl_plain_password": password,
    }


def asyncio_login(broker, mechanism):
    return {**python_login(mechanism), "ssl_context": ssl.create_default_context(cafile=broker.authority)}


@aio.awaited
async def aiokafka_logs_in_by_every_mechanism(broker):
    for mechanism in MECHANISMS:
        name, login = topic(broker), asyncio_login(broker, mechanism)
        async with AIOKafkaProducer(bootstrap_servers=broker.address, enable_idempotence=True, **login) as producer:
            await producer.send_and_wait(name, b"in", key=b"k")
        async with aio.consumer(broker, name, group_id=fresh("secured"), **login) as client:
            same(f"records with {mechanism}", [one.value for one in await aio.read(client, 1)], [b"in"])
            await client.commit()


def javascript_login(broker, mechanism):
    sasl = {"mechanism": mechanism.lower(), "username": USER, "password": PASSWORD}
    return json.dumps({"ca": broker.authority, "sasl": sasl})


def kafkajs_logs_in_by_every_mechanism(broker):
    for mechanism in MECHANISMS:
        login = javascript_login(broker, mechanism)
        elsewhere.node(broker, "a_group_commits_and_resumes", topic(broker, 2), KAFKA_LOGIN=login)


def the_java_client_logs_in_by_every_mechanism(broker):
    checks = ["the_admin_describes_what_is_there", "a_transaction_counts_as_a_whole", "a_group_commits_and_resumes"]
    for mechanism, check in zip(MECHANISMS, checks):
        who = (ODD_USER, ODD_PASSWORD) if mechanism == "SCRAM-SHA-256" else (USER, PASSWORD)
        login = java_properties(broker, mechanism, *who)
        elsewhere.java(broker, check, topic(broker, 2), KAFKA_LOGIN=login)


def kafkas_own_tools_log_in(broker):
    name, login = topic(broker, 3), java_properties(broker, "SCRAM-SHA-256")
    described = tools.run(broker, "kafka-topics", "--describe", "--topic", name, properties=login)
    tools.contains("described", described, "PartitionCount: 3")
    tools.run(broker, "kafka-console-producer", "--topic", name, stdin="one\ntwo\n")
    offsets = tools.run(broker, "kafka-get-offsets", "--topic", name, properties=java_properties(broker, "PLAIN")).split()
    same("records there", sum(int(offset.rsplit(":", 1)[1]) for offset in offsets), 2)


def refusal(broker, settings):
    """The error that a client of confluent-kafka tells first."""
    told = []
    client = Producer({"bootstrap.servers": broker.address, "error_cb": told.append, "log_level": 0, **settings})

    def it_told():
        client.poll(0.1)
        return [error for error in told if error.code() != KafkaError._ALL_BROKERS_DOWN]

    return eventually("an error is told", it_told)[0]


def a_wrong_password_and_an_unknown_user_are_refused_alike(broker):
    for mechanism in MECHANISMS:
        for wrong in [{"password": "guessed"}, {"user": "nobody"}]:
            error = refusal(broker, librdkafka(broker, mechanism, **wrong))
            same(f"{mechanism} with {wrong}", error.name(), KafkaError(KafkaError._AUTHENTICATION).name())


def who_does_not_speak_tls_or_does_not_log_in_gets_nothing(broker):
    plain = {"security.protocol": "PLAINTEXT"}
    silent = {"security.protocol": "SSL", "ssl.ca.location": broker.authority}
    for settings in [plain, silent, {**librdkafka(broker, "PLAIN"), "security.protocol": "SASL_PLAINTEXT"}]:
        client = Consumer({"bootstrap.servers": broker.address, "group.id": "nobody", "log_level": 0, **settings})
        try:
            client.list_topics(timeout=1)
        except Exception:
            continue
        raise AssertionError(f"topics were told with {settings}")


def a_broker_under_an_unknown_authority_is_not_trusted(broker):
    settings = librdkafka(broker, "SCRAM-SHA-512")
    del settings["ssl.ca.location"]
    same("the error", refusal(broker, settings).name(), KafkaError(KafkaError._SSL).name())


def the_broker_answers_after_all_that(broker):
    client = AdminClient({"bootstrap.servers": broker.address, **librdkafka(broker, "SCRAM-SHA-512")})
    same("brokers", len(client.list_topics(timeout=WAIT_MAX_SECONDS).brokers), 1)


CHECKS = [
    confluent_kafka_logs_in_by_every_mechanism,
    names_and_passwords_with_equals_signs_and_commas_log_in,
    kcat_logs_in,
    kafka_python_logs_in_by_every_mechanism,
    aiokafka_logs_in_by_every_mechanism,
    kafkajs_logs_in_by_every_mechanism,
    the_java_client_logs_in_by_every_mechanism,
    kafkas_own_tools_log_in,
    a_wrong_password_and_an_unknown_user_are_refused_alike,
    who_does_not_speak_tls_or_does_not_log_in_gets_nothing,
    a_broker_under_an_unknown_authority_is_not_trusted,
    the_broker_answers_after_all_that,
]
