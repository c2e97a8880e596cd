#!/usr/bin/env bash
# Fetches and checks a large input as a job's child does, and the same with curl and sha256sum, in turns,
# from a server on this machine to this disk. Tells the ratio of their medians, and the most memory that the
# child had, and that an agent had which did a whole job with that input. Exits 1 if the child is slower than
# 0.8 of curl or had more than 24 MiB, or the agent more than 12 MiB.
#
# Needs Linux, bash 5, curl, coreutils, Python 3, and what scripts need (bubblewrap).
#
#   MIB=1024 RUNS=5 benches/staging.sh
set -euo pipefail
export LC_ALL=C
cd "$(dirname "$0")/.."
# shellcheck source=tests/steps.sh
source tests/steps.sh
need curl curl
need python3 python3

MIB=${MIB:-1024}
RUNS=${RUNS:-5}
worker=${WORKER:-$(realpath -m "${CARGO_TARGET_DIR:-target}")/release/worker}
[ -n "${WORKER:-}" ] || cargo build --release --locked --quiet

dir=$(mktemp -d)
pids=()
stop() {
    [ "${#pids[@]}" -eq 0 ] || kill "${pids[@]}" 2>/dev/null || true
    rm -rf "$dir"
}
trap stop EXIT

begin "make a file of $MIB MiB"
mkdir -p "$dir/www"
head -c "$((MIB << 20))" /dev/urandom >"$dir/www/file"
hash=$(sha256sum "$dir/www/file" | cut -d ' ' -f 1)

begin 'start the server'
cat >"$dir/server.py" <<'END'
import os, socket, sys
path, told = sys.argv[1:]
size = os.path.getsize(path)
listener = socket.create_server(("127.0.0.1", 0))
with open(told + ".new", "w") as file:
    file.write(str(listener.getsockname()[1]))
os.rename(told + ".new", told)
while True:
    peer, _ = listener.accept()
    with peer, open(path, "rb") as file:
        peer.recv(65536)
        peer.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % size)
        try:
            peer.sendfile(file)
        except OSError:
            pass
END
python3 "$dir/server.py" "$dir/www/file" "$dir/port" &
pids+=($!)
until [ -s "$dir/port" ]; do
    kill -0 "${pids[0]}"
    sleep 0.1
done
url="http://127.0.0.1:$(cat "$dir/port")/file"

seconds() {
    local before after
    before=$(date +%s%N)
    "$@"
    after=$(date +%s%N)
    echo $(((after - before) / 1000000))
}

with_curl() {
    curl --silent --fail "$url" | tee >(sha256sum | cut -d ' ' -f 1 >"$dir/hash") >"$dir/curl"
    # The shell does not wait for what `tee` writes to.
    until [ -s "$dir/hash" ]; do sleep 0.001; done
    [ "$(cat "$dir/hash")" = "$hash" ]
    rm "$dir/hash" "$dir/curl"
}

with_worker() {
    local work=$dir/work pid
    rm -rf "$work"
    mkdir -p "$work/in" "$work/out"
    cat >"$work/charge.json" <<END
{"inputs": [{"origin": {"Url": "$url"}, "path": "file", "sha256": "$hash", "unpack": null}],
 "code": null, "network": {"private": true, "ca_cert": null}, "artefacts": "$work",
 "hugging_face": "", "bytes_max": 10737418240, "unpacked_max": 1, "files_max": 10}
END
    # Its stdin is its lifeline: it is let go by a line, and ends with the end of it.
    rm -f "$dir/lifeline"
    mkfifo "$dir/lifeline"
    env WORKER_INPUT_DIR="$work/in" WORKER_OUTPUT_DIR="$work/out" \
        "$worker" supply <"$dir/lifeline" >/dev/null &
    pid=$!
    exec 3>"$dir/lifeline"
    echo >&3
    note_memory "$pid" "$dir/memory"
    wait "$pid"
    exec 3>&-
}

# How much memory a process had at most, until it ends.
note_memory() {
    while [ -e "/proc/$1/status" ]; do
        grep VmHWM "/proc/$1/status" 2>/dev/null | tr -dc '0-9\n' >>"$2" || break
        sleep 0.02
    done
}

with_agent() {
    local pid
    cat >"$dir/jobs.json" <<END
[{"id": "job-1", "jobType": "script", "inputData": {"script": "test -s \$WORKER_INPUT_DIR/file",
  "interpreter": "bash", "inputs": [{"url": "$url", "path": "file", "sha256": "$hash"}]}}]
END
    "$worker" mock-backend --listen 127.0.0.1:0 --jobs "$dir/jobs.json" >"$dir/backend" 2>/dev/null &
    pids+=($!)
    until grep -q '^listening on ' "$dir/backend" 2>/dev/null; do sleep 0.1; done
    mkdir -m 700 "$dir/state"
    "$worker" bench --state-dir "$dir/state" >/dev/null 2>&1
    "$worker" --backend "$(sed -n 's/^listening on //p' "$dir/backend")" --state-dir "$dir/state" --once \
        --min-free 0 --allow script --allow-private-downloads 2>"$dir/log" &
    pid=$!
    note_memory "$pid" "$dir/agent"
    wait "$pid" || { tail "$dir/log" >&2; return 1; }
}

median() {
    sort -n | sed -n "$(((RUNS + 1) / 2))p"
}

begin 'in turns'
with_curl
for ((run = 0; run < RUNS; run++)); do
    seconds with_curl >>"$dir/theirs"
    seconds with_worker >>"$dir/ours"
done
begin 'a whole job'
with_agent

theirs=$(median <"$dir/theirs")
ours=$(median <"$dir/ours")
memory=$(sort -n "$dir/memory" | tail -n 1)
ratio=$((theirs * 100 / ours))
echo "curl | tee >(sha256sum): $theirs ms at the median; the child: $ours ms; $((ratio)) % of its speed"
agent=$(sort -n "$dir/agent" | tail -n 1)
echo "the child's memory at its highest: $memory KiB; the agent's: $agent KiB"
[ "$ratio" -ge 80 ] && [ "$memory" -le 24576 ] && [ "$agent" -le 12288 ]
