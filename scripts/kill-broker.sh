#!/usr/bin/env bash
# Kills `ackwell broker` with SIGKILL again and again under idempotent producers, transactions and a
# group that commits, starts it again on its data, and reads everything back in the end: what was acknowledged is
# there, once; transactions are whole; positions did not go back.
#
#   scripts/kill-broker.sh [--kills 30] [--per-second 500] [--seed N]
#
# ACKWELL_BIN names a built `ackwell` (default: the dev build). The client (confluent-kafka) goes into ~/.cache/ackwell.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
. "$root/scripts/clients.sh"
python=$(python_clients)
if [ -z "${ACKWELL_BIN:-}" ]; then
    (cd "$root" && cargo build --quiet --workspace --bin ackwell)
    ACKWELL_BIN=${CARGO_TARGET_DIR:-$root/target}/debug/ackwell
fi
export ACKWELL_BIN RUST_LOG=${RUST_LOG:-error}
PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=$root/scripts exec "$python" -m broker_load --kills 30 "$@"
