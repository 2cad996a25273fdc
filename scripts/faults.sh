#!/usr/bin/env bash
# Shows that the process suites can fail: builds each fault of `mutation.rs` into the processes that
# they kill, stop and cut off, and looks whether the test that is named here finds it.
#
#   scripts/faults.sh                     each fault by its test, and the tests without any fault
#   scripts/faults.sh NAME..              only these faults
#   scripts/faults.sh --suite NAME..      the whole suite against these faults: who else finds them?
#   scripts/faults.sh --build             only builds what the others run
#
# JOBS tests run at a time (default 3); they mostly wait. The faults of `ackwell-core` are found by
# its simulation. Exits with 0 if every fault is found and nothing fails without one.
set -euo pipefail
cd "$(dirname "$0")/.."

table() {
  cat <<'TABLE'
SettledBeforeHandled      sql_process_kills    killed_while_a_record_is_handled
CommitErrorIgnored        sql_process_network  commits_of_which_one_partition_is_refused
GonePartitionsCommitted   container_snapshots  a_commit_that_waits_takes_nothing_back_from_the_next_owner
DeadLetterNotAwaited      sql_process_kills    killed_before_its_dead_letter_is_written
RetryNotAwaited           sql_process_kills    killed_before_its_copy_for_a_retry_topic_is_written
DrainSkipped              sql_process_storms   orderly_rebalances_have_no_record_handled_twice
MetadataNotRead           container_snapshots  a_killed_listener_with_thousands_of_gaps_repeats_exactly_what_was_unsettled
MarkOutsideTransaction    sql_process_retries  killed_while_records_wait_in_place
MarkUnchecked             sql_process_kills    killed_between_the_databases_commit_and_the_offsets
SettledBeforeDurable      sql_process_kills    killed_inside_the_transaction
OwnerUnchecked            sql_process_zombies  stopped_and_replaced_it_does_not_get_ahead_of_a_parked_record
ParkedOutsideTransaction  sql_process_retries  killed_while_records_wait_behind_those_of_their_key
KeyDoesNotWait            sql_process_retries  stopped_while_records_wait_behind_those_of_their_key
DeletedBeforePublished    sql_relay            a_broker_that_is_away_is_waited_for
TABLE
}

suite= build=
if [ "${1-}" = --suite ]; then suite=yes; shift; fi
if [ "${1-}" = --build ]; then build=yes; shift; fi
jobs=${JOBS:-3}
work=$(mktemp -d)
trap '[ $? -ne 0 ] && echo "the logs are in $work" >&2 || rm -rf "$work"' EXIT

# A fault without a test, or a test for a fault that is gone, is an error of this file.
declared=$(sed -nE 's/^    ([A-Z][A-Za-z]+),$/\1/p' crates/ackwell/src/mutation.rs crates/sql/src/mutation.rs | sort)
listed=$(table | awk '{ print $1 }' | sort)
if ! difference=$(diff <(echo "$declared") <(echo "$listed")); then
  echo "the faults in mutation.rs (<) are not those of this table (>):" >&2
  echo "$difference" >&2
  exit 2
fi
wanted=("$@")
[ ${#wanted[@]} -gt 0 ] || mapfile -t wanted < <(table | awk '{ print $1 }')
for fault in "${wanted[@]}"; do
  grep -qx "$fault" <<<"$listed" || { echo "no such fault: $fault" >&2; exit 2; }
done

# The same build as that of the other tests, but for the crates that have faults.
if ! cargo test --locked --workspace --features ackwell-sql/mutations --no-run \
  --test 'sql_process_*' --test sql_relay --test container_snapshots > "$work/build" 2>&1; then
  cat "$work/build" >&2
  exit 2
fi
[ -z "$build" ] || exit 0
binary() { sed -nE "s|^ *Executable tests/$1\.rs \((.*)\)$|\1|p" "$work/build"; }

# Runs one test, or all of a file, with a fault or `-` for none.
try() {
  local fault=$1 file=$2 test=${3-} program
  program=$PWD/$(binary "$file"); [ -x "$program" ] || program=$(binary "$file")
  local filter=(); [ -z "$test" ] || filter=(--exact "$test")
  [ "$fault" = - ] || export ACKWELL_FAULT=$fault
  cd "crates/$([ "${file%%_*}" = sql ] && echo sql || echo ackwell)"
  RUST_TEST_THREADS=4 timeout 900 "$program" "${filter[@]}" > "$work/$fault.$file.$test.log" 2>&1 \
    && echo passed > "$work/$fault.$file.$test" || echo failed > "$work/$fault.$file.$test"
}

turn() { while [ "$(jobs -rp | wc -l)" -ge "$jobs" ]; do wait -n || true; done; }

# Why the test has failed, in its own words: the first panic of the test itself.
why() { grep -A1 -m1 "panicked at" "$1" | tail -n 1 | cut -c 1-110; }

run() {
  local fault file test
  while read -r fault file test; do
    turn; try - "$file" "$test" &
  done < <(table | grep -E "^($(IFS='|'; echo "${wanted[*]}")) " )
  while read -r fault file test; do
    turn; try "$fault" "$file" "$test" &
  done < <(table | grep -E "^($(IFS='|'; echo "${wanted[*]}")) ")
  wait
  local wrong=0
  while read -r fault file test; do
    if [ "$(cat "$work/-.$file.$test")" = failed ]; then
      wrong=$((wrong + 1))
      echo "FAILS WITHOUT A FAULT  $file $test: $(why "$work/-.$file.$test.log")"
    elif [ "$(cat "$work/$fault.$file.$test")" = failed ]; then
      echo "found      $fault by $file $test: $(why "$work/$fault.$file.$test.log")"
    else
      wrong=$((wrong + 1))
      echo "NOT FOUND  $fault by $file $test"
    fi
  done < <(table | grep -E "^($(IFS='|'; echo "${wanted[*]}")) ")
  return $((wrong > 0))
}

run_suite() {
  local fault file wrong=0
  local files; files=$(sed -nE 's|^ *Executable tests/(.*)\.rs .*$|\1|p' "$work/build")
  for fault in "${wanted[@]}"; do
    for file in $files; do turn; try "$fault" "$file" & done
  done
  wait
  for fault in "${wanted[@]}"; do
    echo "$fault is found by"
    sed -nE 's/^test (.*) \.\.\. FAILED$/  \1/p' "$work/$fault".*.log | sort > "$work/finders"
    cat "$work/finders"
    [ -s "$work/finders" ] || { echo "  NONE"; wrong=1; }
  done
  return $wrong
}

if [ -n "$suite" ]; then run_suite; else run; fi
