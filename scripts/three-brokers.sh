#!/usr/bin/env bash
# The README's way from one machine to a cluster, as it stands there, and then everything that can happen to a
# cluster under the order system: brokers killed, frozen and restarted under load, replicas missing.
#
#   scripts/three-brokers.sh [readme] [orders] [containers]    default: all three
#
#   readme       the README's three lines, an import of the sample, and an audit of the books
#   orders       orders/tests/orders_cluster.rs: no order lost or doubled, and health says what is the matter
#   containers   suites of the listeners that stand for the others, on three replicas a topic
#
# Ports are drawn, since several runs may share a machine; KAFKA_PORT and POSTGRES_PORT name others. ORDERS_BIN names a
# program that is built already. What runs is built at the start; the tree may be changed meanwhile.
set -euo pipefail
cd "$(dirname "$0")/.."

ready_max_seconds=120
suites=(container_delivery container_group container_transactions)
parts=("$@")
[ $# -gt 0 ] || parts=(readme orders containers)
for part in "${parts[@]}"; do
    case $part in readme | orders | containers) ;; *) echo "usage: $0 [readme] [orders] [containers]" >&2; exit 2 ;; esac
done

export KAFKA_PORT=${KAFKA_PORT:-$((16000 + RANDOM % 600 * 6))}
export POSTGRES_PORT=${POSTGRES_PORT:-$((10000 + RANDOM % 1000))}
unset KAFKA_BOOTSTRAP_SERVERS DATABASE_URL
work=$(mktemp -d)
server=
finish() {
    local status=$?
    [ -z "$server" ] || kill -KILL "$server" 2>/dev/null || true
    [ $status -eq 0 ] || tail -n 40 "$work"/* 2>/dev/null >&2 || true
    scripts/kafka.sh stop
    scripts/postgres.sh stop
    rm -rf "$work"
}
trap finish EXIT
fail() { echo "$*" >&2; exit 1; }
timed() { local since=$SECONDS; "$@"; printf '%4d s  %s\n' $((SECONDS - since)) "${1##*/}"; }

build() {
    [ -n "${ORDERS_BIN:-}" ] || cargo build --quiet --locked --workspace --bins
    orders=${ORDERS_BIN:-${CARGO_TARGET_DIR:-target}/debug/orders}
    if ! cargo test --locked --workspace --no-run --test orders_cluster "${suites[@]/#/--test=}" >"$work/build" 2>&1; then
        fail "the tests are not built"
    fi
}

# Prints the program of a suite.
suite() {
    local found
    found=$(sed -nE "s|^ *Executable tests/$1\.rs \((.*)\)$|\1|p" "$work/build")
    [ -n "$found" ] || fail "$1 is not built"
    realpath "$found"
}

# What the README says, up to the line that runs the system.
cluster() {
    mapfile -t lines < <(sed -n '/^## From one machine to a cluster$/,/^## [^F]/p' README.md | sed -n '/^```sh$/,/^```$/{/^```/d;p}')
    [ "${#lines[@]}" = 3 ] && [ "${lines[2]}" = "cargo run --release --bin orders" ] ||
        fail "README.md no longer leads to a cluster in three lines: ${lines[*]}"
    eval "${lines[0]}"
    eval "${lines[1]}"
    [ -n "${KAFKA_BOOTSTRAP_SERVERS:-}" ] && [ -n "${DATABASE_URL:-}" ] || fail "the README's lines name no brokers and no database"
}

readme() {
    local order product
    ORDERS_ORDER_PORT=0 ORDERS_PRODUCT_PORT=0 ORDERS_PAYMENT_PORT=0 ORDERS_USER_PORT=0 ORDERS_NOTIFICATION_PORT=0 ACKWELL_DATA=$work/data "$orders" >"$work/out" 2>"$work/orders.log" &
    server=$!
    for _ in $(seq $((ready_max_seconds * 10))); do
        ! grep -q '^ready' "$work/out" || break
        kill -0 $server 2>/dev/null || fail "orders ended at its start"
        sleep 0.1
    done
    order=$(sed -n 's/^order service *//p' "$work/out")
    product=$(sed -n 's/^product service *//p' "$work/out")
    "$orders" import orders/data/sample.csv --order-url "$order" --product-url "$product"
    "$orders" audit --data "$work/data"
    kill -TERM $server
    wait $server || fail "orders did not stop cleanly"
    server=
}

orders() {
    (cd orders && "$(suite orders_cluster)" --ignored --nocapture --test-threads 1)
}

containers() {
    local name
    for name in "${suites[@]}"; do (cd crates/ackwell && timed "$(suite "$name")" --quiet --test-threads 4); done
}

timed build
timed cluster
for part in "${parts[@]}"; do timed "$part"; done
