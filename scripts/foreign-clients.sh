#!/usr/bin/env bash
# Checks the embedded broker with clients that we did not write: kcat, confluent-kafka, kafka-python, aiokafka,
# kafkajs, the Java client, Confluent's for Rust, and Kafka's own command-line tools; then all of it again with TLS and
# a login, and every client by every mechanism that it knows.
#
#   scripts/foreign-clients.sh                 builds `ackwell`, starts a broker, runs every check
#   scripts/foreign-clients.sh --only kcat     one client's checks
#   KAFKA_BOOTSTRAP_SERVERS=host:port scripts/foreign-clients.sh    the same checks on another broker
#
# ACKWELL_BIN names a built `ackwell` (default: the dev build). Needs python3 with venv, kcat, node, a JDK and mvn,
# which come from Debian's packages if they are missing. The clients themselves go into ~/.cache/ackwell; that for Rust is
# built by cargo, apart from the workspace, into its target folder.
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
. "$root/scripts/clients.sh"
debian kcat:kcat openssl:openssl javac:default-jdk-headless mvn:maven node:nodejs npm:npm
python=$(python_clients)
NODE_CLIENTS=$(node_clients)
JAVA_CLIENT=$(java_client)
KAFKA_TOOLS=$(kafka_tools)
RUST_CLIENT=$(rust_client "$root")
export NODE_CLIENTS JAVA_CLIENT KAFKA_TOOLS RUST_CLIENT

if [ -z "${KAFKA_BOOTSTRAP_SERVERS:-}" ] && [ -z "${ACKWELL_BIN:-}" ]; then
    (cd "$root" && cargo build --quiet --workspace --bin ackwell)
    ACKWELL_BIN=${CARGO_TARGET_DIR:-$root/target}/debug/ackwell
fi
# Clients that are refused on purpose would fill the log.
export ACKWELL_BIN=${ACKWELL_BIN:-} RUST_LOG=${RUST_LOG:-error}
PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=$root/scripts exec "$python" -m foreign_clients "$@"
