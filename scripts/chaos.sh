#!/usr/bin/env bash
# An import of real orders, while what it needs is killed, paused and restarted at random: afterwards every order is in
# one final state, the books balance, and nobody was charged or told twice.
#
#   scripts/chaos.sh [embedded] [cluster] [--rows N] [--strikes N] [--seed N] [--file FILE.csv] [--release]
#
#   embedded    `orders` on the embedded broker and SQLite: one process, struck as a whole
#   cluster     order, product, payment and notification service on Apache Kafka and PostgreSQL, two instances each;
#               struck are instances, the broker and the database
#
# Default: both, 1,000 rows, 8 strikes each, a seed that is drawn and printed; the same seed strikes the same victims in
# the same ways. Between two strikes the import goes on for a moment, so that each strikes a system at work. ORDERS_FLOW
# chooses the flow. Ports are drawn; KAFKA_PORT and POSTGRES_PORT name others.
set -euo pipefail
cd "$(dirname "$0")/.."

usage() { sed -n '2,14s/^# \{0,1\}//p' "$0"; exit 2; }
setups=() rows=1000 strikes=8 seed=$RANDOM profile=debug file=
while [ $# -gt 0 ]; do
    case $1 in
        embedded | cluster) setups+=("$1"); shift ;;
        --rows) rows=$2; shift 2 ;;
        --strikes) strikes=$2; shift 2 ;;
        --seed) seed=$2; shift 2 ;;
        --file) file=$2; shift 2 ;;
        --release) profile=release; shift ;;
        *) usage ;;
    esac
done
[ ${#setups[@]} -gt 0 ] || setups=(embedded cluster)
if [ -z "$file" ]; then
    file=../shared/data/cdnow.csv
    [ -e "$file" ] || file=orders/data/sample.csv
fi

# How long anything may take to come back; a loaded machine with two cores starts eight services in half a minute.
ready_max_seconds=180
# Seconds of the import that are planned for each strike and what follows it.
strike_seconds=12
# A pause is longer than what sessions, leases and deadlines wait for in half of the cases.
pause_seconds=(1 3 12 14)

if [ -z "${ORDERS_BIN:-}" ]; then
    if [ $profile = release ]; then cargo build --quiet --locked --workspace --bins --release; else cargo build --quiet --locked --workspace --bins; fi
fi
orders=$(realpath "${ORDERS_BIN:-${CARGO_TARGET_DIR:-target}/$profile/orders}")
work=$(mktemp -d)
import_pid=
servers=no
declare -A pids ports
finish() {
    local status=$?
    [ -z "$import_pid" ] || kill "$import_pid" 2>/dev/null || true
    for instance in "${!pids[@]}"; do kill -KILL "${pids[$instance]}" 2>/dev/null || true; done
    wait 2>/dev/null
    if [ $status -ne 0 ]; then
        echo "failed with --seed $seed; logs and data are in $work" >&2
        tail -n 15 "$work"/*.log >&2
    fi
    [ $servers = no ] || { scripts/kafka.sh stop; scripts/postgres.sh stop; } >/dev/null 2>&1
    [ $status -ne 0 ] || rm -rf "$work"
}
trap finish EXIT
fail() { echo "$*" >&2; exit 1; }

# Instances have names like product.2; `orders.1` is all of them in one process.
service_of() { echo "${1%.*}"; }

start() {
    local instance=$1 service out=$work/$1.out port names
    service=$(service_of "$instance")
    : >"$out"
    port=${ports[$instance]:-0}
    if [ "$service" = orders ]; then
        names=${ports[$instance]:-"--order-port 0 --product-port 0 --broker-port 0"}
        # shellcheck disable=SC2086 # several words
        "$orders" all --data "$data" --payment-port 0 --user-port 0 --notification-port 0 $names >"$out" 2>>"$work/$instance.log" &
    else
        "$orders" serve "$service" --data "$data" "--$service-port" "$port" >"$out" 2>>"$work/$instance.log" &
    fi
    pids[$instance]=$!
}

# An address as it was printed.
address() { sed -n "s/^$2 *//p" "$work/$1.out"; }

# Waits until an instance is at work, and notes its ports, which it keeps.
await() {
    local instance=$1 service until=$((SECONDS + ready_max_seconds))
    service=$(service_of "$instance")
    until grep -q '^ready' "$work/$instance.out"; do
        kill -0 "${pids[$instance]}" 2>/dev/null || fail "$instance ended at its start"
        [ $SECONDS -lt $until ] || fail "$instance was not ready after $ready_max_seconds s"
        sleep 0.1
    done
    if [ "$service" = orders ]; then
        ports[$instance]="--order-port $(address "$instance" 'order service' | sed 's/.*://') --product-port $(address "$instance" 'product service' | sed 's/.*://') --broker-port $(address "$instance" broker | sed 's/.*://')"
    else
        ports[$instance]=$(address "$instance" "$service service" | sed 's/.*://')
    fi
}

# Ends an instance by this signal, whatever it answers.
end() {
    kill "-$2" "${pids[$1]}" 2>/dev/null || true
    wait "${pids[$1]}" 2>/dev/null || true
}

# What is done to one victim; it is back at work when this returns.
strike() {
    local victim=$1 way=$2 seconds=$3
    case $victim-$way in
        kafka-kill) scripts/kafka.sh kill 1; sleep "$seconds"; scripts/kafka.sh restart 1 ;;
        kafka-pause) scripts/kafka.sh pause 1; sleep "$seconds"; scripts/kafka.sh continue 1 ;;
        kafka-restart) scripts/kafka.sh restart 1 ;;
        postgres-restart) scripts/postgres.sh restart ;;
        postgres-*) scripts/postgres.sh crash ;;
        *-kill) end "$victim" KILL; sleep "$seconds"; start "$victim"; await "$victim" ;;
        *-pause) kill -STOP "${pids[$victim]}"; sleep "$seconds"; kill -CONT "${pids[$victim]}" ;;
        *-restart) end "$victim" TERM; start "$victim"; await "$victim" ;;
    esac >>"$work/strikes.log" 2>&1
}

# Draws one of these. A subshell would draw from numbers of its own, which no seed repeats.
draw() { local all=("$@"); drawn=${all[RANDOM % $#]}; }

# Whether the import is at work; if it has failed, that is the end.
imports() {
    kill -0 "$import_pid" 2>/dev/null
}
# How many orders the import has posted, by its progress lines.
posted() { sed -n 's/^\([0-9]*\) of .* posted.*/\1/p' "$work/import.log" | tail -n 1; }
# Waits until the import has posted some more, or has ended.
goes_on() {
    local before until=$((SECONDS + ready_max_seconds))
    before=$(posted)
    while imports && [ "$(posted || true)" = "$before" ]; do
        [ $SECONDS -lt $until ] || fail "no order was taken for $ready_max_seconds s after a strike"
        sleep 0.1
    done
}

import() {
    "$orders" import "$work/orders.csv" --json --patience $ready_max_seconds --standstill $ready_max_seconds "$@" \
        --order-url "$order_url" --product-url "$product_url" 2>>"$work/import.log"
}

embedded() {
    instances=(orders.1)
    victims=(orders.1)
    start orders.1
    await orders.1
    order_url=$(address orders.1 'order service')
    product_url=$(address orders.1 'product service')
}

cluster() {
    export KAFKA_PORT=${KAFKA_PORT:-$((16000 + RANDOM % 600 * 6))} POSTGRES_PORT=${POSTGRES_PORT:-$((10000 + RANDOM % 1000))}
    servers=yes
    local settings
    settings=$(scripts/kafka.sh start && scripts/postgres.sh start)
    # shellcheck disable=SC2046,SC2163 # two settings
    export $(grep -E '^(KAFKA_BOOTSTRAP_SERVERS|DATABASE_URL)=' <<<"$settings")
    instances=({order,product,payment,notification}.{1,2})
    victims=("${instances[@]}" kafka kafka postgres postgres)
    for instance in "${instances[@]}"; do start "$instance"; done
    for instance in "${instances[@]}"; do await "$instance"; done
    order_url=$(address order.1 'order service')
    product_url=$(address product.1 'product service')
}

run() {
    local setup=$1 struck=0 total victim way seconds
    RANDOM=$seed
    data=$work/data-$setup
    pids=() ports=()
    # One file for every repetition: its name is part of the idempotency keys.
    head -n $((rows + 1)) "$file" >"$work/orders.csv"
    total=$(($(wc -l <"$work/orders.csv") - 1))
    echo "$setup: $total orders, $strikes strikes, --seed $seed"
    "$setup"
    : >"$work/import.log"
    import --rate $((total / (strikes * strike_seconds) + 1)) >"$work/report" &
    import_pid=$!
    while [ $struck -lt "$strikes" ]; do
        goes_on
        imports || break
        draw "${victims[@]}" && victim=$drawn
        draw kill kill pause pause restart && way=$drawn
        draw "${pause_seconds[@]}" && seconds=$drawn
        printf '  %-8s %-16s after %s orders\n' "$way" "$victim" "$(posted)"
        strike "$victim" "$way" "$seconds"
        struck=$((struck + 1))
    done
    wait $import_pid || { cat "$work/report" >&2; fail "the import did not end well"; }
    import_pid=
    [ $struck -gt 0 ] || fail "the import was over before a strike: take more --rows"
    echo "  import    $(cat "$work/report")"
    import >"$work/repeated" || { cat "$work/repeated" >&2; fail "the repetition did not end well"; }
    for field in "\"rows\":$total" "\"repeated\":$total" '"accepted":0' '"failed":0'; do
        grep -q "$field[,}]" "$work/repeated" || fail "the repetition does not say $field: $(cat "$work/repeated")"
    done
    "$orders" audit --data "$data" --settle 60
    for instance in "${instances[@]}"; do
        kill -TERM "${pids[$instance]}"
        wait "${pids[$instance]}" || fail "$instance did not stop cleanly"
        unset "pids[$instance]"
    done
    echo "  $struck strikes in $setup: every order is final once, and the books are clean"
}

for setup in "${setups[@]}"; do run "$setup"; done
