#!/usr/bin/env bash
# Measures what the agent costs a computer that has nothing to do, against `worker mock-backend` on
# loopback, and prints it beside the budget. Exits 1 if a budget is missed.
#
# Needs Linux, bash 5 and nothing else. Measure on a machine that is otherwise quiet.
#
#   STARTS=20 BEATS=30 benches/footprint.sh
set -euo pipefail
export LC_ALL=C
cd "$(dirname "$0")/.."

STARTS=${STARTS:-20}
BEATS=${BEATS:-30}
worker=${CARGO_TARGET_DIR:-target}/release/worker

cargo build --release --locked --quiet

dir=$(mktemp -d)
pids=()
cleanup() {
    if [ "${#pids[@]}" -gt 0 ]; then
        kill -9 "${pids[@]}" 2>/dev/null || true
        wait "${pids[@]}" 2>/dev/null || true
    fi
    rm -rf "$dir"
}
trap cleanup EXIT

die() {
    echo "footprint: $*" >&2
    exit 1
}

# Waits until the command says yes, for at most 30 s.
wait_until() {
    local deadline=$((SECONDS + 30))
    until "$@" 2>/dev/null; do
        [ "$SECONDS" -lt "$deadline" ] || die "gave up waiting for: $*"
        sleep 0.02
    done
}

# The settings of whoever runs this must not count.
unset "${!WORKER_@}" RUST_LOG STATE_DIRECTORY CREDENTIALS_DIRECTORY JOURNAL_STREAM

"$worker" mock-backend --listen 127.0.0.1:0 -v >"$dir/mock.out" 2>>"$dir/mock.log" &
pids+=($!)
wait_until grep -q '^listening on ' "$dir/mock.out"
url=$(sed -n 's/^listening on //p' "$dir/mock.out")

# Starts a worker; its id is its name in the mock's log.
agent=
start_agent() {
    "$worker" --backend "$url" --worker-id "$1" --state-dir "$dir/$1" --heartbeat-interval 1s \
        2>"$dir/$1.log" &
    agent=$!
}

# The mock's line about a worker's registration, and how many of its heartbeats it has answered.
registered() { grep -m1 -F 'path=/api/providers/register reply=200' "$dir/mock.log"; }
beats_of() { grep -cF "path=/api/providers/$1/heartbeat reply=200" "$dir/mock.log" || true; }
has_beats() { [ "$(beats_of "$1")" -ge "$2" ]; }

# Start to registered: from just before the shell starts the process, with an empty state directory,
# to the time on the mock's line that says it has registered it. Both are this machine's wall clock;
# the line's time is cut to milliseconds.
times=()
for n in $(seq "$STARTS"); do
    : >"$dir/mock.log"
    began=${EPOCHREALTIME/./}
    start_agent "start-$n"
    pids+=("$agent")
    wait_until registered >/dev/null
    line=$(registered)
    at=${line%% *}
    at=$(date -u -d "$at" +%s%6N)
    times+=($(((at - began + 500) / 1000)))
    kill -TERM "$agent"
    wait "$agent" || die "worker start-$n ended with $?: $(tail -n 3 "$dir/start-$n.log")"
    unset "pids[-1]"
done
mapfile -t times < <(printf '%s\n' "${times[@]}" | sort -n)
start_median=${times[$((${#times[@]} / 2))]}
start_range="${times[0]} to ${times[-1]}"

# Idle: resident memory, and processor time over a number of heartbeats.
start_agent idle
pids+=("$agent")
wait_until has_beats idle 5
memory() { awk -v key="$1:" '$1 == key { print $2 }' "/proc/$agent/status"; }
cpu_ns() { cat "/proc/$agent/task/"*/schedstat | awk '{ sum += $1 } END { printf "%.0f", sum }'; }
rss=$(memory VmRSS)
anon=$(memory RssAnon)
first=$(beats_of idle)
cpu_before=$(cpu_ns)
while ! has_beats idle $((first + BEATS)); do
    kill -0 "$agent" 2>/dev/null || die "the worker ended: $(tail -n 3 "$dir/idle.log")"
    sleep 0.2
done
beats=$(($(beats_of idle) - first))
cpu_after=$(cpu_ns)
rss_after=$(memory VmRSS)
size=$(stat -c %s "$worker")

missed=0
# row WHAT FIGURE UNIT BUDGET HOW
row() {
    local verdict=ok
    if awk -v a="$2" -v b="$4" 'BEGIN { exit !(a > b) }'; then
        verdict=MISSED
        missed=1
    fi
    printf '%-20s %7s %-4s %7s  %-7s %s\n' "$1" "$2" "$3" "<= $4" "$verdict" "$5"
}
ratio() { awk -v a="$1" -v b="$2" 'BEGIN { printf "%.2f", a / b }'; }
printf '%-20s %7s %-4s %7s  %-7s %s\n' WHAT FIGURE UNIT BUDGET '' HOW
row 'binary' "$(ratio "$size" 1000000)" MB 6 "$size bytes"
row 'start to registered' "$start_median" ms 30 "median of $STARTS, $start_range ms"
row 'idle memory' "$(ratio "$rss_after" 1024)" MiB 6 \
    "VmRSS after $((first + beats)) beats; $(ratio "$rss" 1024) after $first, of it $(ratio "$anon" 1024) anonymous"
row 'CPU a heartbeat' "$(ratio $((cpu_after - cpu_before)) $((beats * 1000000)))" ms 2 \
    "all threads, over $beats beats of 1 s"
[ "$missed" -eq 0 ]
