#!/usr/bin/env bash
# What the agent adds to a container: from the line of its log that a job was taken to the one that it was
# completed, against `podman run` of the same image with the same flags. Both in one run, half of podman's
# before and half after. Exits 1 if the medians' ratio is above MOST.
#
# Runs where tests/containers/run has started an engine and made the images:
#
#   JOBS=15 SECONDS_EACH=2.5 MOST=1.15 tests/containers/run benches/container.sh
#
# Needs what that needs, and bash 5 and python3. Measure on a machine that is otherwise quiet.
set -euo pipefail
export LC_ALL=C
cd "$(dirname "$0")/.."

JOBS=${JOBS:-15}
SECONDS_EACH=${SECONDS_EACH:-2.5}
MOST=${MOST:-1.15}
image=localhost/busybox
worker=${CARGO_TARGET_DIR:-target}/release/worker

podman image exists "$image" || {
    echo "benches/container.sh: no image $image: run it by tests/containers/run" >&2
    exit 1
}
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

# The settings of whoever runs this must not count.
unset "${!WORKER_@}" RUST_LOG STATE_DIRECTORY CREDENTIALS_DIRECTORY JOURNAL_STREAM

mkdir -p "$dir"/job/{in,out}
chown 65534:65534 "$dir"/job/{in,out}

bare() {
    podman run --rm --pull=never --network=none --read-only --read-only-tmpfs=false \
        --security-opt=label=disable --tmpfs=/tmp:rw,nosuid,nodev,exec,mode=1777,notmpcopyup \
        --cap-drop=all --security-opt=no-new-privileges --user=65534:65534 --init --memory=1g \
        --memory-swap=1g --cpus=1 --pids-limit=4096 --cpu-shares=128 --oom-score-adj=500 \
        --ulimit=nofile=4096:4096 --ulimit=nproc=4096:4096 --ulimit=core=0:0 --timeout=600 \
        --mount="type=bind,src=$dir/job/in,dst=/input,ro=true" \
        --mount="type=bind,src=$dir/job/out,dst=/output" --log-driver=k8s-file \
        --log-opt=max-size=16m --entrypoint=/bin/sh "$image" -c "sleep $SECONDS_EACH; echo done" \
        </dev/null >"$dir/said"
    grep -qx 'done' "$dir/said"
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

python3 - "$JOBS" "$SECONDS_EACH" "$image" >"$dir/jobs.json" <<'END'
import json, sys
command = ["/bin/sh", "-c", f"sleep {sys.argv[2]}; echo done"]
print(json.dumps([{"id": f"job-{n}", "jobType": "container", "inputData": {
    "image": sys.argv[3], "command": command, "memoryGb": 1, "cpus": 1}}
    for n in range(int(sys.argv[1]))]))
END

bare # Once for the page cache.
time_bare $((JOBS / 2))
"$worker" mock-backend --listen 127.0.0.1:0 --jobs "$dir/jobs.json" >"$dir/mock.out" 2>"$dir/mock.log" &
pids+=($!)
until grep -q '^listening on ' "$dir/mock.out"; do
    kill -0 "${pids[0]}" || { cat "$dir/mock.log" >&2; exit 1; }
    sleep 0.02
done
url=$(sed -n 's/^listening on //p' "$dir/mock.out")
# Its own measuring of the processor is no part of this.
mkdir -m 700 "$dir/state"
"$worker" bench --state-dir "$dir/state" >/dev/null 2>&1 || true
timeout 300 "$worker" --backend "$url" --state-dir "$dir/state" --min-free 0 --allow container \
    --container-engine podman --container-pull never --max-jobs "$JOBS" --heartbeat-interval 1s \
    2>"$dir/log" || { tail "$dir/log" >&2; exit 1; }
time_bare $((JOBS - JOBS / 2))

python3 - "$dir" "$JOBS" "$MOST" <<'END'
import datetime, re, statistics, sys
folder, jobs, most = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
at, ms = {}, []
for line in open(f"{folder}/log"):
    found = re.match(r"(\S+)Z .*job (taken|completed) job=(\S+)", line)
    if found:
        time = datetime.datetime.fromisoformat(found[1])
        if found[2] == "taken":
            at[found[3]] = time
        else:
            ms.append((time - at[found[3]]).total_seconds() * 1000)
bare = [float(line) / 1000 for line in open(f"{folder}/bare")]
assert len(ms) == len(bare) == jobs, (len(ms), len(bare))
tell = lambda values: "median {:.0f} ms, {:.0f} to {:.0f}".format(
    statistics.median(values), min(values), max(values))
ratio = statistics.median(ms) / statistics.median(bare)
more = statistics.median(ms) - statistics.median(bare)
print(f"podman alone     {tell(bare)}\nthe agent's job  {tell(ms)}\n"
      f"the agent adds   {more:.0f} ms: {ratio:.3f} times as long, of at most {most}")
sys.exit(ratio > most)
END
