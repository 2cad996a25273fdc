"""kcat: the command-line client most people have at hand."""

import json
import subprocess

from .check import CODECS, WAIT_MAX_SECONDS, fresh, same


def kcat(broker, *arguments, stdin=b""):
    login = [part for setting in getattr(broker, "kcat_login", {}).items() for part in ("-X", "=".join(setting))]
    command = ["kcat", "-b", broker.address, "-m", str(WAIT_MAX_SECONDS), *login, *arguments]
    done = subprocess.run(command, input=stdin, capture_output=True, timeout=2 * WAIT_MAX_SECONDS)
    if done.returncode != 0:
        raise AssertionError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr.decode()}")
    return done.stdout


def lines(output):
    return output.decode().splitlines()


def topic(broker, partitions=1):
    """kcat cannot create topics."""
    from . import confluent

    name = fresh("kcat")
    confluent.create_topic(broker, name, partitions)
    return name


def it_lists_brokers_and_topics(broker):
    name = topic(broker, partitions=3)
    told = json.loads(kcat(broker, "-L", "-J"))
    found = [entry for entry in told["topics"] if entry["topic"] == name]
    same("partitions of the topic", [len(entry["partitions"]) for entry in found], [3])
    same("every partition has a leader", {part["leader"] for part in found[0]["partitions"]}, {told["brokers"][0]["id"]})


def what_it_produces_it_reads_back_with_keys_and_headers(broker):
    name = topic(broker)
    kcat(broker, "-P", "-t", name, "-K", ":", "-H", "eventType=Greeted", "-H", "n=1", stdin=b"k1:first\nk2:second\n")
    read = lines(kcat(broker, "-C", "-t", name, "-e", "-q", "-f", "%o %k %s %h\\n"))
    same("records", read, ["0 k1 first eventType=Greeted,n=1", "1 k2 second eventType=Greeted,n=1"])


def every_compression_codec_survives(broker):
    name = topic(broker)
    values = [f"{codec} {'x' * 2000}" for codec in ["none", *CODECS]]
    for codec, value in zip(["none", *CODECS], values):
        kcat(broker, "-P", "-t", name, "-z", codec, stdin=value.encode() + b"\n")
    same("values", lines(kcat(broker, "-C", "-t", name, "-e", "-q")), values)


def a_large_file_comes_back_byte_for_byte(broker):
    name = topic(broker)
    sent = "".join(f"{number:08} {'payload ' * 10}\n" for number in range(50_000)).encode()
    kcat(broker, "-P", "-t", name, "-X", "enable.idempotence=true", stdin=sent)
    same("the file", kcat(broker, "-C", "-t", name, "-e", "-q") == sent, True)


def it_reads_from_an_offset_from_the_end_and_between_times(broker):
    name = topic(broker)
    kcat(broker, "-P", "-t", name, stdin=b"a\nb\nc\nd\n")
    same("from 2", lines(kcat(broker, "-C", "-t", name, "-p", "0", "-o", "2", "-e", "-q")), ["c", "d"])
    same("last one", lines(kcat(broker, "-C", "-t", name, "-p", "0", "-o", "-1", "-e", "-q")), ["d"])
    stamps = lines(kcat(broker, "-C", "-t", name, "-e", "-q", "-f", "%T\\n"))
    same("from the first time", lines(kcat(broker, "-C", "-t", name, "-o", f"s@{stamps[0]}", "-e", "-q")), list("abcd"))


def it_looks_up_offsets_by_time(broker):
    name = topic(broker)
    kcat(broker, "-P", "-t", name, stdin=b"a\nb\n")
    same("beginning", lines(kcat(broker, "-Q", "-t", f"{name}:0:0")), [f"{name} [0] offset 0"])
    same("end", lines(kcat(broker, "-Q", "-t", f"{name}:0:-1")), [f"{name} [0] offset 2"])


def a_group_resumes_after_its_commit(broker):
    name, group = topic(broker, partitions=2), fresh("kcat-group")
    kcat(broker, "-P", "-t", name, "-K", ":", stdin=b"a:1\nb:2\nc:3\nd:4\n")
    settings = ["-X", "auto.offset.reset=earliest", "-X", "session.timeout.ms=6000"]
    first = lines(kcat(broker, "-G", group, *settings, "-e", "-q", name))
    same("the first time", sorted(first), ["1", "2", "3", "4"])
    kcat(broker, "-P", "-t", name, "-K", ":", stdin=b"e:5\n")
    same("the second time", lines(kcat(broker, "-G", group, *settings, "-e", "-q", name)), ["5"])


CHECKS = [
    it_lists_brokers_and_topics,
    what_it_produces_it_reads_back_with_keys_and_headers,
    every_compression_codec_survives,
    a_large_file_comes_back_byte_for_byte,
    it_reads_from_an_offset_from_the_end_and_between_times,
    it_looks_up_offsets_by_time,
    a_group_resumes_after_its_commit,
]
