#!/usr/bin/env bash
# What the agent adds to a script, against bubblewrap alone that runs the same script in the same sandbox;
# all in one run, bubblewrap's before, between and after the agent's. A job is timed in two ways:
#
#   whole  from the agent's log line that it was taken to the backend's that its completion is there
#   own    what the job's own metrics tell: processingTimeSeconds, from its program's start to its outcome
#
# once with the agent's state in memory and once on the disk of TMPDIR: the difference is what it costs that
# each step is on the disk before the next is taken. Exits 1 if the medians of bubblewrap and of the whole,
# with the state on the disk, differ by more than MOST_MS.
#
# Needs Linux with /dev/shm, bash 5, python3, bubblewrap, and util-linux where it is run by root. Measure on
# a machine that is otherwise quiet.
#
#   JOBS=41 MOST_MS=30 benches/sandbox.sh
set -euo pipefail
export LC_ALL=C
cd "$(dirname "$0")/.."

JOBS=${JOBS:-41}
MOST_MS=${MOST_MS:-30}
worker=${WORKER:-${CARGO_TARGET_DIR:-target}/release/worker}
[ -n "${WORKER:-}" ] || cargo build --release --locked --quiet

dir=$(mktemp -d)
memory=$(mktemp -d -p /dev/shm)
pids=()
cleanup() {
    if [ "${#pids[@]}" -gt 0 ]; then
        kill -9 "${pids[@]}" 2>/dev/null || true
        wait "${pids[@]}" 2>/dev/null || true
    fi
    rm -rf "$dir" "$memory"
}
trap cleanup EXIT

# The settings of whoever runs this must not count.
unset "${!WORKER_@}" RUST_LOG STATE_DIRECTORY CREDENTIALS_DIRECTORY JOURNAL_STREAM

mkdir -p "$dir"/job/{in,out,code,tmp,shm}
echo 'print(1)' >"$dir/job/code/script"
user=(--unshare-user --disable-userns --uid 65534 --gid 65534)
become=()
if [ "$(id -u)" -eq 0 ]; then
    user=(--cap-drop ALL --cap-add CAP_SETUID --cap-add CAP_SETGID)
    become=(setpriv --reuid=65534 --regid=65534 --clear-groups --inh-caps=-all --no-new-privs --)
    chown -R 65534:65534 "$dir/job"
fi
roots=()
for root in bin lib lib32 lib64 sbin; do
    [ ! -L "/$root" ] || roots+=(--symlink "$(readlink "/$root")" "/$root")
done

bare() {
    # As low as a job, or a busy machine would count against the agent.
    nice -n 10 bwrap --unshare-ipc --unshare-net --unshare-pid --unshare-uts --unshare-cgroup-try \
        --die-with-parent --new-session --hostname sandbox "${user[@]}" --ro-bind /usr /usr \
        "${roots[@]}" --dir /etc --ro-bind-try /etc/ld.so.cache /etc/ld.so.cache --proc /proc \
        --dev /dev --ro-bind "$dir/job/in" /input --ro-bind "$dir/job/code" /code \
        --bind "$dir/job/out" /output --bind "$dir/job/tmp" /tmp \
        --bind "$dir/job/shm" /dev/shm --remount-ro /dev --remount-ro / --chdir / -- \
        "${become[@]}" /usr/bin/python3 /code/script >"$dir/said" </dev/null
    grep -qx 1 "$dir/said"
}

# So many times, each in microseconds.
time_bare() {
    local i begin
    for ((i = 0; i < $1; i++)); do
        begin=${EPOCHREALTIME/./}
        bare
        echo "$((${EPOCHREALTIME/./} - begin))" >>"$dir/bare"
    done
}

python3 - "$JOBS" >"$dir/jobs.json" <<'END'
import json, sys
jobs = [{"id": f"job-{n}", "jobType": "script", "inputData": {"script": "print(1)\n"}}
        for n in range(int(sys.argv[1]))]
print(json.dumps(jobs))
END

# The jobs of an agent whose state is in this folder, each a line: whole and own, in microseconds.
time_agent() {
    local state=$1/state told=$2 url
    : >"$dir/mock.out"
    "$worker" mock-backend --listen 127.0.0.1:0 --jobs "$dir/jobs.json" >"$dir/mock.out" 2>"$dir/mock.log" &
    pids+=($!)
    until grep -q '^listening on ' "$dir/mock.out"; do
        kill -0 "${pids[-1]}" || { cat "$dir/mock.log" >&2; exit 1; }
        sleep 0.02
    done
    url=$(sed -n 's/^listening on //p' "$dir/mock.out")
    # Its own measuring of the processor is no part of this.
    mkdir -m 700 "$state"
    "$worker" bench --state-dir "$state" >/dev/null 2>&1 || true
    timeout 300 "$worker" --backend "$url" --state-dir "$state" --min-free 0 --allow script \
        --max-jobs "$JOBS" --heartbeat-interval 1s 2>"$dir/log" || { tail "$dir/log" >&2; exit 1; }
    python3 - "$dir" "$url" "$JOBS" >"$told" <<'END'
import datetime, json, re, sys, urllib.request
folder, url, jobs = sys.argv[1], sys.argv[2], int(sys.argv[3])

def times(file, what):
    found = (re.match(rf"(\S+)Z .*job {what} job=(\S+)", line) for line in open(f"{folder}/{file}"))
    return {one[2]: datetime.datetime.fromisoformat(one[1]) for one in found if one}

taken, completed = times("log", "taken"), times("mock.log", "completed")
assert len(completed) == jobs, completed
for job, at in completed.items():
    told = json.load(urllib.request.urlopen(f"{url}/api/jobs/{job}"))
    own = told["metrics"]["processingTimeSeconds"]
    print((at - taken[job]).total_seconds() * 1e6, own * 1e6)
END
}

bare # Once for the page cache.
third=$((JOBS / 3))
time_bare "$third"
time_agent "$memory" "$dir/in-memory"
time_bare "$third"
time_agent "$dir" "$dir/on-disk"
time_bare $((JOBS - third - third))

python3 - "$dir" "$MOST_MS" <<'END'
import statistics, sys
folder, most = sys.argv[1], float(sys.argv[2])

def columns(file):
    rows = [[float(word) / 1000 for word in line.split()] for line in open(f"{folder}/{file}")]
    return list(zip(*rows))

def tell(what, values):
    print("{:34} median {:6.1f} ms, {:.1f} to {:.1f}".format(
        what, statistics.median(values), min(values), max(values)))
    return statistics.median(values)

bare = tell("bubblewrap alone", columns("bare")[0])
whole, own = columns("in-memory")
whole, _ = tell("the agent, whole, in memory", whole), tell("the agent, own, in memory", own)
disk, own = columns("on-disk")
disk, _ = tell("the agent, whole, on the disk", disk), tell("the agent, own, on the disk", own)
print(f"the agent adds {disk - bare:.1f} ms of at most {most:.0f} ms, {disk - whole:.1f} ms of them for the disk")
sys.exit(disk - bare > most)
END
