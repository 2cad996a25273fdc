"""A broker to check: started here, or named by KAFKA_BOOTSTRAP_SERVERS."""

import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading

READY_MAX_SECONDS = 30
STOP_MAX_SECONDS = 30
ADDRESS = re.compile(r"\d+\.\d+\.\d+\.\d+:\d+")


class Broker:
    """`ackwell broker` on a free port, with a data folder of its own."""

    name = "ackwell"

    def __enter__(self):
        self.folder = tempfile.mkdtemp(prefix="ackwell-foreign-clients-")
        self.address = None
        self.prepare()
        self.start()
        return self

    def prepare(self):
        """Puts what the broker needs into its folder."""

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def start(self):
        """Starts it; after the first time on the port it had, so that clients find it again."""
        command = [os.environ["ACKWELL_BIN"], "broker", *self.arguments(), "--data", self.folder]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        watchdog = threading.Timer(READY_MAX_SECONDS, self.process.kill)
        watchdog.start()
        self.address = next((found[0] for line in self.process.stdout if (found := ADDRESS.search(line))), None)
        watchdog.cancel()
        if self.address is None:
            raise RuntimeError(f"{' '.join(command)} did not say where it listens")
        threading.Thread(target=self.process.stdout.read, daemon=True).start()

    def arguments(self):
        return ["--listen", self.address or "127.0.0.1:0"]

    def kill(self):
        """Ends it as a crash would."""
        self.process.kill()
        self.process.wait()

    def stop(self):
        """Asks it to stop, and expects that it does so well."""
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(STOP_MAX_SECONDS)
        if status != 0:
            raise RuntimeError(f"after SIGTERM the broker ended with status {status}")


class Foreign:
    """A broker that runs elsewhere, for instance Apache Kafka: is it the check that is wrong?"""

    name = "KAFKA_BOOTSTRAP_SERVERS"

    def __init__(self, address):
        self.address = address

    @classmethod
    def from_environment(cls):
        address = os.environ.get("KAFKA_BOOTSTRAP_SERVERS")
        return cls(address) if address else None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass
