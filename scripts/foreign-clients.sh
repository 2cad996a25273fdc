#!/usr/bin/env bash
# Checks the embedded broker with clients that we did not write: kcat, confluent-kafka, kafka-python.
#
#   scripts/foreign-clients.sh                 builds `ackwell`, starts a broker, runs every check
#   scripts/foreign-clients.sh --only kcat     one client's checks
#   KAFKA_BOOTSTRAP_SERVERS=host:port scripts/foreign-clients.sh    the same checks on another broker
#
# ACKWELL_BIN names a built `ackwell` (default: the dev build). Needs python3 with venv; kcat comes
# from Debian's packages if it is missing. The Python clients go into ~/.cache/ackwell, outside the tree.
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/ackwell
# Changing a version here makes a new environment.
clients=(confluent-kafka==2.16.1 kafka-python==3.0.12 crc32c==2.9.post0 lz4==4.4.5 python-snappy==0.7.3 zstandard==0.25.0)
venv=$cache/clients-$(printf '%s\n' "${clients[@]}" | cksum | cut -d' ' -f1)

missing=()
command -v kcat >/dev/null || missing+=(kcat)
python3 -c 'import ensurepip' 2>/dev/null || missing+=(python3-venv)
if [ ${#missing[@]} -gt 0 ]; then
    sudo=; [ "$(id -u)" = 0 ] || sudo=sudo
    $sudo apt-get update -qq
    $sudo apt-get install -y -qq --no-install-recommends "${missing[@]}"
fi
if [ ! -e "$venv/complete" ]; then
    mkdir -p "$cache"
    python3 -m venv --clear "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check "${clients[@]}"
    touch "$venv/complete"
fi

if [ -z "${KAFKA_BOOTSTRAP_SERVERS:-}" ] && [ -z "${ACKWELL_BIN:-}" ]; then
    (cd "$root" && cargo build --quiet --bin ackwell)
    ACKWELL_BIN=${CARGO_TARGET_DIR:-$root/target}/debug/ackwell
fi
export ACKWELL_BIN
PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=$root/scripts exec "$venv/bin/python" -m foreign_clients "$@"
