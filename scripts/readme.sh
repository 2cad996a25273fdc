#!/usr/bin/env bash
# Runs the two commands with which the README receives its readers, as they stand there, on a built program.
#
#   scripts/readme.sh [FOLDER OF BINARIES]    default: target/debug
#
# `cargo run --release --bin orders --` becomes the program in that folder; the first such command is
# the system itself, the others must succeed while it runs. Its data goes to a temporary folder.
set -euo pipefail
cd "$(dirname "$0")/.."

bins=${1:-${CARGO_TARGET_DIR:-target}/debug}
ready_max_seconds=30
data=$(mktemp -d)
export ACKWELL_DATA=$data
server=
trap '[ -z "$server" ] || kill -9 "$server" 2>/dev/null || true; rm -rf "$data"' EXIT

mapfile -t commands < <(sed -n '/^## Two commands$/,/^## [^T]/p' README.md | sed -n 's/^cargo run --release --bin \([a-z]*\)\( -- \)\{0,1\}/\1 /p')
[ "${#commands[@]}" -ge 3 ] || { echo "README.md no longer names a system, an import and an audit" >&2; exit 1; }

read -r -a system <<<"${commands[0]}"
"$bins/${system[0]}" "${system[@]:1}" &
server=$!
for _ in $(seq $((ready_max_seconds * 10))); do
    kill -0 "$server" 2>/dev/null || { echo "${commands[0]} ended by itself" >&2; exit 1; }
    (exec 3<>/dev/tcp/127.0.0.1/8080 && exec 3<>/dev/tcp/127.0.0.1/8081) 2>/dev/null && break
    sleep 0.1
done
kill -0 "$server" 2>/dev/null || { echo "something else answers on the ports of ${commands[0]}" >&2; exit 1; }

for command in "${commands[@]:1}"; do
    read -r -a words <<<"$command"
    echo "\$ $command"
    "$bins/${words[0]}" "${words[@]:1}"
done

kill -TERM "$server"
wait "$server"
server=
echo "the README's commands work"
