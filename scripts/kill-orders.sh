#!/usr/bin/env bash
# Kills the running `orders` with SIGKILL, several times in the middle of an import, starts it
# again each time, repeats the import, and audits the books.
#
#   scripts/kill-orders.sh [--rows N] [--kills N] [--file FILE.csv] [--release]
#
# Without --file: the whole shared file if it is at hand, else the sample. Exits with 0 if every
# order is there once, in one final state, and the books are clean.
set -euo pipefail
cd "$(dirname "$0")/.."

rows=0 kills=5 profile=debug file=
while [ $# -gt 0 ]; do
  case $1 in
    --rows) rows=$2; shift 2 ;;
    --kills) kills=$2; shift 2 ;;
    --file) file=$2; shift 2 ;;
    --release) profile=release; shift ;;
    *) echo "usage: $0 [--rows N] [--kills N] [--file FILE.csv] [--release]" >&2; exit 2 ;;
  esac
done
if [ -z "$file" ]; then
  file=../shared/data/cdnow.csv
  [ -e "$file" ] || file=orders/data/sample.csv
fi

if [ $profile = release ]; then cargo build --quiet --workspace --bins --release; else cargo build --quiet --workspace --bins; fi
orders=${CARGO_TARGET_DIR:-target}/$profile/orders
work=$(mktemp -d)
data=$work/data
pid=
import=
finish() {
  status=$?
  [ -z "$import" ] || kill "$import" 2>/dev/null || true
  [ -z "$pid" ] || kill -KILL "$pid" 2>/dev/null || true
  if [ $status -eq 0 ]; then rm -rf "$work"; else echo "failed; logs and data are in $work" >&2; tail -n 20 "$work"/*.log >&2; fi
}
trap finish EXIT

# No faster than this, so that there is a middle to be killed in: two seconds between kills.
pace() { echo $((total / ((kills + 1) * 2) + 1)); }

total=$(($(wc -l < "$file") - 1))
if [ "$rows" -gt 0 ] && [ "$rows" -lt $total ]; then total=$rows; fi
# One file for every repetition: its name is part of the idempotency keys.
head -n $((total + 1)) "$file" > "$work/orders.csv"

order_port=0 product_port=0 broker_port=0
start() {
  : > "$work/out"
  "$orders" all --data "$data" --payment-port 0 --user-port 0 --notification-port 0 --order-port $order_port --product-port $product_port --broker-port $broker_port \
    > "$work/out" 2>> "$work/orders.log" &
  pid=$!
  for _ in $(seq 600); do
    if grep -q '^ready' "$work/out"; then
      broker_port=$(sed -n 's/^broker .*://p' "$work/out")
      order_port=$(sed -n 's/^order service .*://p' "$work/out")
      product_port=$(sed -n 's/^product service .*://p' "$work/out")
      return
    fi
    kill -0 $pid 2>/dev/null || { echo "orders ended at its start" >&2; return 1; }
    sleep 0.1
  done
  echo "orders was not ready within a minute" >&2
  return 1
}
import() {
  "$orders" import "$work/orders.csv" --json --patience 120 --standstill 120 "$@" \
    --order-url "http://127.0.0.1:$order_port" --product-url "http://127.0.0.1:$product_port" 2>> "$work/import.log"
}
posted() {  # how many orders the import has posted, from its progress lines
  sed -n 's/^\([0-9]*\) of .* posted.*/\1/p' "$work/import.log" | tail -n 1
}

echo "importing $total orders, killing orders $kills times"
start
import --rate "$(pace)" > "$work/report" & import=$!
killed=0
for kill in $(seq "$kills"); do
  goal=$((total * kill / (kills + 1)))
  while :; do
    count=$(posted)
    [ "${count:-0}" -ge $goal ] && break
    kill -0 $import 2>/dev/null || break 2
    sleep 0.05
  done
  kill -KILL $pid
  wait $pid 2>/dev/null || true
  killed=$((killed + 1))
  echo "killed after $count of $total orders"
  start
done
wait $import || { cat "$work/report"; exit 1; }
import=
[ $killed -gt 0 ] || { echo "the import was over before a kill: take more --rows" >&2; exit 1; }
echo "import:   $(cat "$work/report")"
echo "repeated: $(import | tee "$work/repeated")"
for field in "\"rows\":$total" "\"repeated\":$total" '"accepted":0' '"failed":0'; do
  grep -q "$field[,}]" "$work/repeated" || { echo "the repetition does not say $field" >&2; exit 1; }
done
"$orders" audit --data "$data"
kill -TERM $pid
wait $pid
pid=
"$orders" audit --data "$data" > /dev/null
echo "no order twice, none missing, the books are clean, at work and at rest"
