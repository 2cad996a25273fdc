#!/usr/bin/env bash
# Holds what each service says of itself (/openapi.json) against what it does, by schemathesis: requests made
# from the description, allowed and not, and answers that must be as described.
#
#   scripts/openapi.sh              builds `orders`, starts it on free ports, asks every service
#
# ORDERS_BIN names a built `orders` (default: the dev build). SEED chooses other requests (default: 1, so that a
# run that passes passes again). schemathesis goes into ~/.cache/ackwell.
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
. "$root/scripts/clients.sh"
orders=${ORDERS_BIN:-}
if [ -z "$orders" ]; then
    (cd "$root" && cargo build --quiet --locked --workspace --bins)
    orders=${CARGO_TARGET_DIR:-$root/target}/debug/orders
fi
orders=$(realpath "$orders")

work=$(mktemp -d)
pid=
finish() {
    local status=$?
    [ -z "$pid" ] || { kill "$pid" 2>/dev/null && wait "$pid" || true; }
    if [ $status -eq 0 ]; then rm -rf "$work"; else tail -n 20 "$work/log" >&2; echo "failed; everything is in $work" >&2; fi
}
trap finish EXIT
cd "$work"

# That a request is as described does not mean that it is granted: a key may belong to another order.
cat > schemathesis.toml <<'TOML'
[checks.positive_data_acceptance]
expected-statuses = ["2xx", 404, 409, 412, 422, 503]
TOML

services=(order product payment user notification)
ports=(--broker-port 0)
for service in "${services[@]}"; do ports+=("--$service-port" 0); done
"$orders" all --data "$work/data" "${ports[@]}" > out 2> log &
pid=$!
for _ in $(seq 600); do
    ! grep -q '^ready' out || break
    kill -0 "$pid" 2>/dev/null || { echo "orders ended before it was ready" >&2; exit 1; }
    sleep 0.1
done
grep -q '^ready' out || { echo "orders is not ready after a minute" >&2; exit 1; }

for service in "${services[@]}"; do
    address=$(sed -n "s/^$service service *//p" out)
    echo "--- $service"
    schemathesis run "$address/openapi.json" --phases examples,coverage,fuzzing --max-examples 15 \
        --seed "${SEED:-1}" --warnings off --no-color > "$service.said" || { cat "$service.said" >&2; exit 1; }
    grep -E 'generated|No issues' "$service.said"
done
