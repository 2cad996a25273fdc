#!/usr/bin/env bash
# A mixed load on `ackwell broker` for a long time: producers, transactions, a group, clients that come
# and go, retention. Memory is printed all the while and must not grow, and so are file handles: those of segments,
# connections and others each stay within a bound that is named.
#
#   scripts/soak.sh [--seconds 3600] [--per-second 2000]
#
# ACKWELL_BIN names a built `ackwell` (default: a release build). The client (confluent-kafka) goes into ~/.cache/ackwell.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
. "$root/scripts/clients.sh"
python=$(python_clients)
if [ -z "${ACKWELL_BIN:-}" ]; then
    (cd "$root" && cargo build --quiet --release --workspace --bin ackwell)
    ACKWELL_BIN=${CARGO_TARGET_DIR:-$root/target}/release/ackwell
fi
export ACKWELL_BIN RUST_LOG=${RUST_LOG:-error}
PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=$root/scripts exec "$python" -m broker_load --seconds 3600 --per-second 2000 "$@"
