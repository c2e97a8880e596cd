#!/usr/bin/env bash
# Measures `worker bench` against NumPy's matrix product (OpenBLAS, as its wheel is installed) on the
# same cores, in turns, for the same time each, and prints the ratio. Exits 1 if ours is the slower.
#
# Needs Linux, bash 5, and python3 with venv; takes numpy from the package index, or from NUMPY, a
# python that has it. Measure on a machine that is otherwise quiet.
#
#   ROUNDS=5 SIZES="512 1024 2048 4096" benches/compute_power.sh
set -euo pipefail
export LC_ALL=C
cd "$(dirname "$0")/.."

ROUNDS=${ROUNDS:-5}
# NumPy is measured at each and counts with the one that it is best at.
SIZES=${SIZES:-512 1024 2048 4096}
worker=${CARGO_TARGET_DIR:-target}/release/worker

cargo build --release --locked --quiet

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

python=${NUMPY:-}
if [ -z "$python" ]; then
    python3 -m venv "$dir/venv"
    "$dir/venv/bin/pip" install --quiet --disable-pip-version-check numpy
    python=$dir/venv/bin/python
fi

# The settings of whoever runs this must not count.
unset "${!WORKER_@}" "${!OPENBLAS_@}" "${!OMP_@}" RUST_LOG STATE_DIRECTORY

cat >"$dir/sgemm.py" <<'EOF'
"""sgemm.py SIZE SECONDS: GFLOP/s, and the share of the time that its threads got."""
import os
import sys
import time

import numpy as np

n, seconds = int(sys.argv[1]), float(sys.argv[2])
a, b = (np.random.default_rng(s).random((n, n), np.float32) for s in (1, 2))
c = np.empty_like(a)
cores = len(os.sched_getaffinity(0))
begin = time.perf_counter()
while time.perf_counter() - begin < 0.5:
    np.matmul(a, b, out=c)
products, begin, cpu = 0, time.perf_counter(), time.process_time()
while time.perf_counter() - begin < seconds:
    np.matmul(a, b, out=c)
    products += 1
wall = time.perf_counter() - begin
share = (time.process_time() - cpu) / wall / cores
print(f"{2 * n**3 * products / wall / 1e9:.1f} {share:.2f}")
EOF

cat >"$dir/about.py" <<'EOF'
import ctypes
import glob
import os

import numpy as np

print("NumPy", np.__version__, end="")
for file in glob.glob(os.path.join(os.path.dirname(np.__file__), "..", "numpy.libs", "*openblas*")):
    library = ctypes.CDLL(file)
    for name in ("scipy_openblas_get_config64_", "scipy_openblas_get_config"):
        if hasattr(library, name):
            function = getattr(library, name)
            function.restype = ctypes.c_char_p
            print(",", function().decode().strip(), end="")
            break
print()
EOF

ours() {
    "$worker" bench --json --state-dir "$dir/state" |
        "$python" -c 'import json, sys; s = json.load(sys.stdin); print(s["gflops"], s["cpuShare"])'
}

printf '%s\n' "$("$python" "$dir/about.py")"
printf '%s cores, %s rounds of 3 s each\n' "$(nproc)" "$ROUNDS"
for _ in $(seq "$ROUNDS"); do
    ours >>"$dir/ours"
    for size in $SIZES; do
        "$python" "$dir/sgemm.py" "$size" 3 >>"$dir/numpy-$size"
    done
done

# summary FILE: median, least, most, mean share of the time
summary() {
    sort -n "$1" | awk '{ figure[NR] = $1; share += $2 }
        END { print figure[int((NR + 1) / 2)], figure[1], figure[NR], share / NR }'
}
# row WHAT FILE
row() {
    local median least most share
    read -r median least most share <<<"$(summary "$2")"
    printf '%-20s %8s GFLOP/s  (%s to %s; got %.0f %% of the cores)\n' "$1" "$median" "$least" "$most" \
        "$(awk -v s="$share" 'BEGIN { print s * 100 }')"
}
most() { summary "$1" | cut -d' ' -f3; }
median() { summary "$1" | cut -d' ' -f1; }
greater() { awk -v a="$1" -v b="$2" 'BEGIN { print (a > b ? a : b) }'; }

row 'worker bench' "$dir/ours"
best_median=0
best_most=0
for size in $SIZES; do
    row "NumPy, n = $size" "$dir/numpy-$size"
    best_median=$(greater "$best_median" "$(median "$dir/numpy-$size")")
    best_most=$(greater "$best_most" "$(most "$dir/numpy-$size")")
done
awk -v a="$(median "$dir/ours")" -v b="$best_median" -v c="$(most "$dir/ours")" -v d="$best_most" 'BEGIN {
    printf "ours / NumPy at its best size: %.2f by medians (%.2f by best rounds)  %s\n",
        a / b, c / d, (a < b ? "MISSED" : "ok")
    exit (a < b)
}'
