#!/usr/bin/env bash
# Lets the disk of `ackwell broker` become full again and again under idempotent producers, transactions and a group
# that commits. Writes must be refused with KAFKA_STORAGE_ERROR, reads go on, and all goes on by itself when there
# is room; in the end what was acknowledged is there, once, and is so after a restart.
#
#   scripts/broker-disk-full.sh [--fills 3] [--per-second 500] [--seed N]
#
# Mounts a small file system in memory; who is not root does so in a user namespace, and where the system has none
# either, this says so and exits with 0. ACKWELL_BIN names a built `ackwell` (default: the dev build). The client
# (confluent-kafka) goes into ~/.cache/ackwell.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
. "$root/scripts/clients.sh"
. "$root/scripts/mounting.sh"
who_may_mount "$0" "$@"
disk=$(mktemp -d)
if ! mount -t tmpfs -o size=96m ackwell-broker-disk-full "$disk" 2>/dev/null; then
    rmdir "$disk"
    echo "skipped: nobody here may mount a small file system" >&2
    exit 0
fi
trap 'umount "$disk" && rmdir "$disk"' EXIT
python=$(python_clients)
if [ -z "${ACKWELL_BIN:-}" ]; then
    (cd "$root" && cargo build --quiet --workspace --bin ackwell)
    ACKWELL_BIN=${CARGO_TARGET_DIR:-$root/target}/debug/ackwell
fi
# Every refusal is logged, and there are many.
export ACKWELL_BIN RUST_LOG=${RUST_LOG:-off}
TMPDIR=$disk PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=$root/scripts "$python" -m broker_load --disk "$disk" --fills 3 "$@"
