#!/usr/bin/env bash
# Holds the embedded broker against Apache Kafka: the same sessions on both, answer by answer.
#
#   scripts/differential.sh                        every scripted session and the seeds of every run
#   scripts/differential.sh --match 'groups:'      only sessions whose name contains this
#   scripts/differential.sh --seeds 500 --first-seed 1000    other generated sessions
#   KAFKA_BOOTSTRAP_SERVERS=host:port scripts/differential.sh    against an Apache Kafka that runs already
#
# A difference that scripts/differential/known.toml does not list fails, and so does a listed one that is met nowhere.
# ACKWELL_BIN names a built `ackwell` (default: the dev build). Needs what foreign-clients.sh and kafka.sh need.
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
. "$root/scripts/clients.sh"
debian javac:default-jdk-headless mvn:maven
python=$(python_clients)
if [ -z "${ACKWELL_BIN:-}" ]; then
    (cd "$root" && cargo build --quiet --workspace --bin ackwell)
    ACKWELL_BIN=${CARGO_TARGET_DIR:-$root/target}/debug/ackwell
fi
export ACKWELL_BIN RUST_LOG=${RUST_LOG:-off}

kafka=${KAFKA_BOOTSTRAP_SERVERS:-}
if [ -z "$kafka" ]; then
    port=${KAFKA_PORT:-$((14000 + RANDOM % 1000 * 2))}
    trap '"$root/scripts/kafka.sh" stop "$port"' EXIT
    "$root/scripts/kafka.sh" start "$port"
    kafka=127.0.0.1:$port
fi
PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=$root/scripts "$python" -m differential \
    --kafka "$kafka" --definitions "$(java_client)/kafka-clients-$java_client_version.jar" "$@"
