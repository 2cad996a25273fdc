"""Runs the checks one after another and prints a line for each; fails when one of them does."""

import argparse
import faulthandler
import sys
import time
import traceback

from . import aio, confluent, kafka_python, kcat, secured, together, tools
from .broker import Broker, Foreign
from .check import served
from .elsewhere import Java, KafkaJs, Rust

SUITES = {
    "kcat": kcat, "confluent-kafka": confluent, "kafka-python": kafka_python, "aiokafka": aio, "kafkajs": KafkaJs,
    "java": Java, "rust": Rust, "tools": tools, "together": together,
}
# One check needs a few seconds; a whole run that hangs must end by itself.
RUN_MAX_SECONDS = 1800


def main():
    arguments = argparse.ArgumentParser(prog="foreign-clients.sh")
    arguments.add_argument("--only", choices=[*SUITES, "secured"], help="one client's checks")
    arguments.add_argument("--match", default="", help="only checks whose sentence contains this")
    chosen = arguments.parse_args()
    faulthandler.dump_traceback_later(RUN_MAX_SECONDS, exit=True)
    failed = []
    broker = Foreign.from_environment() or Broker()
    with broker:
        print(f"broker: {broker.name} at {broker.address}", flush=True)
        for client, suite in SUITES.items():
            if chosen.only in (None, client):
                failed += run(client, suite, broker, chosen.match)
    if not isinstance(broker, Foreign):
        # Else it goes on asking after a broker that is no more.
        confluent.admin.cache_clear()
        with secured.Broker() as broker:
            print(f"broker: {broker.name} at {broker.address}, TLS and logins", flush=True)
            for client, suite in {"secured": secured, **SUITES}.items():
                if chosen.only in (None, client):
                    failed += run(f"{client}, logged in", suite, broker, chosen.match)
    if failed:
        print(f"{len(failed)} checks failed: " + "; ".join(failed))
        sys.exit(1)
    print("every check passed")


def run(client, suite, broker, match):
    failed = []
    for check in suite.CHECKS:
        sentence = f"{client}: {check.__name__.replace('_', ' ')}"
        if match not in sentence:
            continue
        if isinstance(broker, Foreign) and getattr(check, "restarts_broker", False):
            print(f"skip  {sentence} (the broker is not ours to restart)", flush=True)
            continue
        if hasattr(broker, "login") and getattr(check, "without_login", False):
            print(f"skip  {sentence} (its client can't log in)", flush=True)
            continue
        # A broker that asks for logins is ours, and serves them all.
        needed = None if hasattr(broker, "login") else getattr(check, "needs", None)
        if needed is not None and needed not in served(broker.address):
            print(f"skip  {sentence} (the broker does not serve API {check.needs})", flush=True)
            continue
        started = time.monotonic()
        try:
            check(broker)
        except Exception:
            failed.append(sentence)
            print(f"FAIL  {sentence}", flush=True)
            print("".join("      " + line for line in traceback.format_exc().splitlines(keepends=True)), flush=True)
        else:
            print(f"ok    {sentence} ({time.monotonic() - started:.2f} s)", flush=True)
    return failed


if __name__ == "__main__":
    main()
