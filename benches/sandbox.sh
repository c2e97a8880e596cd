#!/usr/bin/env bash
# What the agent adds to a script: from the line of its log that a job was taken to the one that it was
# completed, against bubblewrap alone that runs the same script in the same sandbox. Both in one run, half
# of bubblewrap's before and half after. Exits 1 if the medians differ by more than MOST_MS.
#
# Needs Linux, bash 5, python3, bubblewrap, and util-linux where it is run by root. Measure on a machine
# that is otherwise quiet.
#
#   JOBS=41 MOST_MS=30 benches/sandbox.sh
set -euo pipefail
export LC_ALL=C
cd "$(dirname "$0")/.."

JOBS=${JOBS:-41}
MOST_MS=${MOST_MS:-30}
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

# The settings of whoever runs this must not count.
unset "${!WORKER_@}" RUST_LOG STATE_DIRECTORY CREDENTIALS_DIRECTORY JOURNAL_STREAM

mkdir -p "$dir"/work/{in,out,code,tmp,shm}
echo 'print(1)' >"$dir/work/code/script"
user=(--unshare-user --disable-userns --uid 65534 --gid 65534)
become=()
if [ "$(id -u)" -eq 0 ]; then
    user=(--cap-drop ALL --cap-add CAP_SETUID --cap-add CAP_SETGID)
    become=(setpriv --reuid=65534 --regid=65534 --clear-groups --inh-caps=-all --no-new-privs --)
    chown -R 65534:65534 "$dir/work"
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
        --dev /dev --ro-bind "$dir/work/in" /input --ro-bind "$dir/work/code" /code \
        --bind "$dir/work/out" /output --bind "$dir/work/tmp" /tmp \
        --bind "$dir/work/shm" /dev/shm --remount-ro /dev --remount-ro / --chdir / -- \
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
timeout 300 "$worker" --backend "$url" --state-dir "$dir/state" --min-free 0 --allow script \
    --max-jobs "$JOBS" --heartbeat-interval 1s 2>"$dir/log" || { tail "$dir/log" >&2; exit 1; }
time_bare $((JOBS - JOBS / 2))

python3 - "$dir" "$JOBS" "$MOST_MS" <<'END'
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
tell = lambda values: "median {:.1f} ms, {:.1f} to {:.1f}".format(
    statistics.median(values), min(values), max(values))
more = statistics.median(ms) - statistics.median(bare)
print(f"bubblewrap alone  {tell(bare)}\nthe agent's job   {tell(ms)}\n"
      f"the agent adds    {more:.1f} ms of at most {most:.0f} ms")
sys.exit(more > most)
END
