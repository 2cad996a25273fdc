"""Plays sessions on Apache Kafka and on the embedded broker, and tells what differs."""

import argparse
import concurrent.futures
import faulthandler
import os
import pathlib
import random
import sys
import time
import traceback
import uuid

from foreign_clients.broker import Broker

from . import generated, scripted
from .compare import Known, differences
from .definitions import Definitions
from .session import NotServed, Session, Versions

HERE = pathlib.Path(__file__).parent
RUN_MAX_SECONDS = 900
# Most of a session is waiting, for timeouts or the other side.
SESSIONS_AT_A_TIME = 6
# Some sessions wait for what they do not see, and are too late on a machine that is too busy. What differs is played
# again by itself, and counts if it differs each time. If more sessions than this differ, it is not the machine.
PLAYED_AGAIN_MAX, PLAYS_AGAIN = 20, 2
# The seeds of every run, so that a difference found once is found again; `--seeds` plays others.
SEEDS, FIRST_SEED = 24, 1
HOUR_MS = 60 * 60 * 1000


def main():
    chosen = arguments()
    faulthandler.dump_traceback_later(chosen.seconds_max, exit=True)
    definitions, known = Definitions(chosen.definitions), Known(HERE / "known.toml")
    with Broker() as ackwell:
        runner = Runner(definitions, chosen.kafka, ackwell.address)
        sessions = [session for session in every_session(chosen) if chosen.match in session[0]]
        print(f"{len(sessions)} sessions on Apache Kafka at {chosen.kafka} and Ackwell at {ackwell.address}", flush=True)
        outcomes = runner.run(sessions, known)
    sys.exit(report(outcomes, known, chosen))


def arguments():
    parser = argparse.ArgumentParser(prog="differential.sh")
    parser.add_argument("--kafka", required=True, help="where Apache Kafka answers")
    parser.add_argument("--definitions", required=True, help="kafka-clients' jar")
    parser.add_argument("--match", default="", help="only sessions whose name contains this")
    parser.add_argument("--seeds", type=int, help="how many generated sessions to play")
    parser.add_argument("--first-seed", type=int, default=FIRST_SEED)
    parser.add_argument("--show-known", action="store_true", help="listed differences too")
    parser.add_argument("--seconds-max", type=int, default=RUN_MAX_SECONDS)
    return parser.parse_args()


def every_session(chosen):
    """Names, functions and versions: scripted ones in the oldest, the newest and drawn versions."""
    for name, function in scripted.sessions():
        for choice in getattr(function, "choices", ("oldest", "newest", "drawn")):
            yield f"{name} ({choice})", function, choice
    seeds = SEEDS if chosen.seeds is None else chosen.seeds
    for seed in range(chosen.first_seed, chosen.first_seed + seeds):
        yield f"generated, seed {seed}", generated.session(seed), "drawn"


class Runner:
    def __init__(self, definitions, kafka, ackwell):
        self.definitions, self.kafka, self.ackwell = definitions, kafka, ackwell
        self.run_id = uuid.uuid4().hex[:6]
        self.clock = int(time.time() * 1000) - HOUR_MS
        self.shared = self.shared_versions()
        for address in (kafka, ackwell):
            self.warm(address)

    def shared_versions(self):
        served = [self.served(address) for address in (self.kafka, self.ackwell)]
        # Produce is offered from 0 for old clients that take it for a feature, and served from 3.
        lowest = {"Produce": 3}
        return {
            api: [v for v in range(max(*(s[api][0] for s in served), lowest.get(api, 0)), min(s[api][1] for s in served) + 1)]
            for api in served[0].keys() & served[1].keys()
        }

    def warm(self, address):
        """A broker that has just started gives no producer ids yet."""
        session = Session(address, self.definitions, Versions(self.shared, "newest"), "", 0)
        session.until(lambda: not session.quietly("InitProducerId", TransactionalId=None, TransactionTimeoutMs=1)["ErrorCode"])
        session.close()

    def served(self, address):
        session = Session(address, self.definitions, Versions({"ApiVersions": [3]}, "newest"), "", 0)
        told = session.quietly("ApiVersions", ClientSoftwareName="differential", ClientSoftwareVersion="1")
        session.close()
        names = {api.key: name for name, api in self.definitions.apis.items()}
        return {names[one["ApiKey"]]: (one["MinVersion"], one["MaxVersion"]) for one in told["ApiKeys"]}

    def run(self, sessions, known):
        with concurrent.futures.ThreadPoolExecutor(SESSIONS_AT_A_TIME) as pool:
            outcomes = list(pool.map(lambda one: self.play(one[0], *one[1]), enumerate(sessions)))
        odd = [number for number, outcome in enumerate(outcomes) if outcome.is_odd(known)]
        if len(odd) <= PLAYED_AGAIN_MAX:
            for number in odd:
                outcomes[number] = self.again(number, sessions[number], outcomes[number], known)
        return outcomes

    def again(self, number, session, first, known):
        """A play in which nothing is odd, if there is one."""
        for turn in range(PLAYS_AGAIN):
            outcome = self.play(f"{number}again{turn}", *session)
            if not outcome.is_odd(known):
                print(f"once  {next(first.oddities(known))}")
                return outcome
        return first

    def play(self, number, name, function, choice):
        """Both brokers at the same time."""
        prefix = f"d{self.run_id}{number}-"
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            sides = [pool.submit(self.one, address, name, function, choice, prefix) for address in (self.kafka, self.ackwell)]
            kafka, ackwell = (side.result() for side in sides)
        return Outcome(name, kafka, ackwell)

    def one(self, address, name, function, choice, prefix):
        draws = random.Random(name)
        versions = Versions({api: span for api, span in self.shared.items() if span}, choice, draws)
        session = Session(address, self.definitions, versions, prefix, self.clock)
        try:
            function(session)
            session.final()
        except NotServed as error:
            return Played(session.steps, skipped=str(error))
        except Exception:
            return Played(session.steps, failed=traceback.format_exc())
        finally:
            session.close()
        return Played(session.steps)


class Played:
    def __init__(self, steps, skipped=None, failed=None):
        self.steps, self.skipped, self.failed = steps, skipped, failed


class Outcome:
    def __init__(self, name, kafka, ackwell):
        self.name, self.kafka, self.ackwell = name, kafka, ackwell
        self.skipped = kafka.skipped
        self.differences = differences(name, kafka.steps, ackwell.steps)

    def is_odd(self, known):
        """Whether something differs that is not listed, or a side failed."""
        return any(self.oddities(known))

    def oddities(self, known):
        yield from self.failures()
        yield from (one for one in self.differences if not known.lists(one))

    def failures(self):
        for side, played in (("Kafka", self.kafka), ("Ackwell", self.ackwell)):
            if played.failed:
                yield f"{self.name} on {side}, after step {len(played.steps)}:\n{played.failed}"


def report(outcomes, known, chosen):
    new, listed, failures, skipped = [], 0, [], {}
    for outcome in outcomes:
        failures += outcome.failures()
        if outcome.skipped:
            skipped.setdefault(outcome.skipped, []).append(outcome.name)
        for difference in outcome.differences:
            if known.take(difference):
                listed += 1
                if chosen.show_known:
                    print(f"known {difference}")
            else:
                new.append(difference)
    for alike in grouped(new):
        more = f" (and {len(alike) - 1} more like it)" if len(alike) > 1 else ""
        print(f"NEW   {alike[0]}{more}")
    for failure in failures:
        print(f"FAIL  {failure}")
    for api, names in sorted(skipped.items()):
        print(f"skip  {len(names)} sessions that need {api}, which not both brokers serve")
    whole = not chosen.match and chosen.seeds is None
    gone = known.not_met() if whole else []
    for entry in gone:
        print(f"GONE  listed as known, and met nowhere: {entry}")
    steps = sum(len(outcome.kafka.steps) for outcome in outcomes)
    played = len(outcomes) - sum(map(len, skipped.values()))
    print(f"{played} sessions with {steps} answers compared; {listed} differences are known by {len(known.entries)} entries")
    if not (new or failures or gone):
        print("no new difference")
        return 0
    print(f"{len(new)} new differences, {len(failures)} sessions failed, {len(gone)} listed differences are gone")
    return 1


def grouped(differences):
    """Those that one mend or one entry would end."""
    groups = {}
    for one in differences:
        groups.setdefault((one.api, one.note, one.field, one.kafka, one.ackwell), []).append(one)
    return groups.values()


if __name__ == "__main__":
    main()
