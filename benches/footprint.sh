#!/usr/bin/env bash
# Measures what the agent costs a computer that has nothing to do, against `worker mock-backend` on
# loopback, and prints it beside the budget; then the same with eight GPUs, by the scripted driver of
# the tests. Exits 1 if a budget is missed.
#
# Needs Linux, bash 5 and nothing else. Measure on a machine that is otherwise quiet.
#
#   STARTS=20 BEATS=30 GPU_BEATS=12 benches/footprint.sh
set -euo pipefail
export LC_ALL=C
cd "$(dirname "$0")/.."

STARTS=${STARTS:-20}
BEATS=${BEATS:-30}
GPU_BEATS=${GPU_BEATS:-12}
built=${CARGO_TARGET_DIR:-target}/release
worker=$built/worker

cargo build --release --locked --quiet --workspace

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
    local name=$1
    shift
    # Its own measuring of the processor is no part of being idle.
    mkdir -p "$dir/$name"
    [ ! -e "$dir/speed.json" ] || cp "$dir/speed.json" "$dir/$name/"
    "$worker" --backend "$url" --worker-id "$name" --state-dir "$dir/$name" "$@" \
        2>"$dir/$name.log" &
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
    start_agent "start-$n" --heartbeat-interval 1s
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
"$worker" bench --quiet --state-dir "$dir" >/dev/null
start_agent idle --heartbeat-interval 1s
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
kill -TERM "$agent"

# With eight GPUs. Its thread samples them every 5 s, whatever the beats do.
processes="\"compute\": [{\"pid\": 1}, {\"pid\": $$}], \"graphics\": [{\"pid\": $$}]"
gpus=$(printf ", {$processes}%.0s" {1..8})
echo "{\"gpus\": [${gpus#, }]}" >"$dir/gpus.json"
SCRIPTED_NVML=$dir/gpus.json start_agent gpus --heartbeat-interval 5s \
    --nvml-library "$built/libscripted_nvml.so"
pids+=("$agent")
wait_until has_beats gpus 2
gpu_thread=$(dirname "$(grep -lx gpu "/proc/$agent/task/"*/comm)")
sampler_ns() { awk '{ print $1 }' "$gpu_thread/schedstat"; }
gpus_rss=$(memory VmRSS)
gpus_first=$(beats_of gpus)
gpus_before=$(cpu_ns)
sampler_before=$(sampler_ns)
began=${EPOCHREALTIME/./}
while ! has_beats gpus $((gpus_first + GPU_BEATS)); do
    kill -0 "$agent" 2>/dev/null || die "the worker ended: $(tail -n 3 "$dir/gpus.log")"
    sleep 0.2
done
samples=$(((${EPOCHREALTIME/./} - began + 2500000) / 5000000))
gpus_beats=$(($(beats_of gpus) - gpus_first))
sampler_after=$(sampler_ns)
gpus_after=$(cpu_ns)
gpus_rss_after=$(memory VmRSS)

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
row 'CPU a beat, 8 GPUs' "$(ratio $((gpus_after - gpus_before)) $((gpus_beats * 1000000)))" ms 2 \
    "all threads, over $gpus_beats beats of 5 s"
row 'sample of 8 GPUs' "$(ratio $((sampler_after - sampler_before)) $((samples * 1000000)))" ms 1 \
    "over $samples samples"
row 'growth, 8 GPUs' "$(ratio $((gpus_rss_after - gpus_rss)) 1024)" MiB 0.1 \
    "VmRSS, to $(ratio "$gpus_rss_after" 1024) over the same beats"
[ "$missed" -eq 0 ]
