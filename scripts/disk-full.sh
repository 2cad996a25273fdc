#!/usr/bin/env bash
# Lets the disk of a running `orders` become full in the middle of an import, frees it again, and
# audits the books.
#
#   scripts/disk-full.sh [--disk data|broker] [--rows N] [--file FILE.csv] [--release]
#
# --disk data: the one with the whole data folder. --disk broker: that of the broker's log alone; then
# orders are still accepted, and wait. Without --disk: first the one, then the other. While it is full,
# services must say so (503 with a reason, /readyz not ready) and nothing may panic; once there is room
# again, everything goes on by itself, without a restart. Mounts a small file system in memory; who is
# not root does so in a user namespace, and where the system has none either, this says so and exits
# with 0. ORDERS_BIN names a program that is built already.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/mounting.sh
who_may_mount scripts/disk-full.sh "$@"

rows=3000 profile=debug file= full=
options=("$@")
while [ $# -gt 0 ]; do
  case $1 in
    --disk) full=$2; shift 2 ;;
    --rows) rows=$2; shift 2 ;;
    --file) file=$2; shift 2 ;;
    --release) profile=release; shift ;;
    *) echo "usage: $0 [--disk data|broker] [--rows N] [--file FILE.csv] [--release]" >&2; exit 2 ;;
  esac
done
if [ -z "$full" ]; then
  "$0" "${options[@]}" --disk data
  exec "$0" "${options[@]}" --disk broker
fi
case $full in data|broker) ;; *) echo "--disk is data or broker" >&2; exit 2 ;; esac
if [ -z "$file" ]; then
  file=../shared/data/cdnow.csv
  [ -e "$file" ] || file=orders/data/sample.csv
fi
orders=${ORDERS_BIN:-}
if [ -z "$orders" ]; then
  if [ $profile = release ]; then cargo build --quiet --workspace --bins --release; else cargo build --quiet --workspace --bins; fi
  orders=${CARGO_TARGET_DIR:-target}/$profile/orders
fi

work=$(mktemp -d)
data=$work/data disk=$work/data
[ $full = data ] || disk=$data/broker
mkdir -p "$disk"
if ! mount -t tmpfs -o size=256m ackwell-disk-full "$disk" 2>/dev/null; then
  rm -r "$work"
  echo "skipped: nobody here may mount a small file system" >&2
  exit 0
fi
pid=
import=
finish() {
  status=$?
  [ -z "$import" ] || kill "$import" 2>/dev/null || true
  [ -z "$pid" ] || kill -KILL "$pid" 2>/dev/null || true
  wait 2>/dev/null || true
  if [ $status -eq 0 ]; then
    umount "$disk" && rm -rf "$work"
  else
    tail -n 20 "$work"/*.log >&2
    cp -r "$disk" "$work/disk-copy" && umount "$disk"
    echo "failed; logs and data are in $work" >&2
  fi
}
trap finish EXIT
fail() { echo "$*" >&2; exit 1; }

total=$(($(wc -l < "$file") - 1))
[ $total -le "$rows" ] || total=$rows
head -n $((total + 1)) "$file" > "$work/orders.csv"

"$orders" all --data "$data" --payment-port 0 --user-port 0 --notification-port 0 --order-port 0 --product-port 0 --broker-port 0 > "$work/out" 2>> "$work/orders.log" &
pid=$!
for _ in $(seq 600); do
  ! grep -q '^ready' "$work/out" || break
  kill -0 $pid 2>/dev/null || fail "orders ended at its start"
  sleep 0.1
done
broker=$(sed -n 's/^broker *//p' "$work/out")
order=$(sed -n 's/^order service *//p' "$work/out")
product=$(sed -n 's/^product service *//p' "$work/out")

# Status and body of a request.
ask() { curl --silent --show-error --max-time 20 --write-out '\n%{http_code}\n' "$@"; }
placed=0
# An order of its own each time: one that was accepted before would be answered from the database.
place() {
  placed=$((placed + 1))
  ask "$order/orders" -H 'content-type: application/json' -H "idempotency-key: disk-full-$placed" \
    -d '{"customer_id":"1","items":[{"product_id":"cd-01","quantity":1,"unit_price":"1.00"}]}'
}
# Repeats a check until it holds.
until_holds() {
  local what=$1; shift
  for _ in $(seq 300); do
    if "$@"; then return; fi
    kill -0 $pid 2>/dev/null || fail "orders ended while it was waited for: $what"
    sleep 0.2
  done
  fail "waited a minute in vain for: $what"
}
# Whether the answer, which is kept in $work/answer, has this status.
answers() { local status=$1; shift; "$@" > "$work/answer" && [ "$(tail -n 1 "$work/answer")" = "$status" ]; }
# Up to the last byte, also what was given back meanwhile, as by a write-ahead log that begins anew.
fill() { cat /dev/zero >> "$disk/ballast" 2>/dev/null || true; }
refused() { fill; answers 503 place; }
not_ready() { fill; answers 503 ask "$1/readyz"; }
import() {
  "$orders" import "$work/orders.csv" --json --patience "$1" --standstill "$1" \
    --order-url "$order" --product-url "$product" 2>> "$work/import.log"
}
some_accepted() { [ "$(ask "$order/orders?limit=1000" | grep -o '"order_id"' | wc -l)" -ge "$1" ]; }

echo "importing $total orders; the disk of $full becomes full on the way"
import 300 > "$work/report" & import=$!
until_holds "some orders" some_accepted $((total / 4 < 500 ? total / 4 : 500))
fill
if [ $full = data ]; then
  services=("$order" "$product")
  until_holds "an order refused with 503" refused
  grep -q '"title"' "$work/answer" || fail "no problem details: $(cat "$work/answer")"
  grep -q 'disk .* full' "$work/answer" || fail "the answer does not say that the disk is full: $(cat "$work/answer")"
  echo "refused:  $(head -n 1 "$work/answer")"
else
  # The one with events that wait. The others have nothing to write, once they are through with what the log holds.
  services=("$order")
  until_holds "an order accepted" answers 202 place
fi
for service in "${services[@]}"; do
  until_holds "$service/readyz not ready" not_ready "$service"
  grep -q '"reasons":\["' "$work/answer" || fail "no reason why it is not ready: $(cat "$work/answer")"
  echo "ready:    $(sed -n 's/.*\("reasons":.*\)}$/\1/p' "$work/answer")"
  answers 200 ask "$service/healthz" || fail "$service/healthz says that only a restart helps"
done
answers 200 ask "$order/orders" || fail "orders cannot be read while the disk is full"
sleep 5 # Long enough for retries of every kind to fail some times.

rm "$disk/ballast"
for service in "${services[@]}"; do
  until_holds "$service/readyz ready again" answers 200 ask "$service/readyz"
done
until_holds "an order accepted again" answers 202 place
wait $import || fail "the import did not go on: $(cat "$work/report")"
import=
echo "import:   $(cat "$work/report")"
import 60 > "$work/repeated" || fail "the repetition failed: $(cat "$work/repeated")"
echo "repeated: $(cat "$work/repeated")"
for field in "\"rows\":$total" "\"repeated\":$total" '"accepted":0' '"failed":0'; do
  grep -q "$field[,}]" "$work/repeated" || fail "the repetition does not say $field"
done
"$orders" audit --data "$data" --bootstrap-servers "$broker"
kill -TERM $pid
wait $pid || fail "orders did not stop cleanly"
pid=
"$orders" audit --data "$data" > /dev/null
! grep -n 'panicked' "$work"/*.log || fail "something panicked"
echo "the disk of $full was full and is not any more; nothing was lost, nothing had to be restarted"
