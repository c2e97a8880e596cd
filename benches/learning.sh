#!/usr/bin/env bash
# Measures training by real jobs against scikit-learn, PyTorch (eager and fused Adam as installed, and
# fused with its libraries tuned) and the processor's own limit, on one core and on two, in turns; and
# compares what was learnt from the same rows. Examples/s, medians of the rounds; accuracy on rows that
# nobody learnt from, means over the rounds, each of which splits anew. Exits 1 if a target is missed.
#
# The limit: what fused multiply-adds in registers reach (benches/fma.c), over the 4·D·H + 6·H·C operations
# that an example takes in D-H-C. Of our time it is the epochs, as the result tells it; so it is of theirs.
#
# Needs Linux, bash 5, a C compiler, readelf, taskset, two cores, and python3 with venv; takes 1.5 GB below
# the target directory. Measure on a machine that is otherwise quiet.
#
#   ROUNDS=5 DIGITS_EPOCHS=100 SYNTHETIC_EPOCHS=3 benches/learning.sh
set -euo pipefail
export LC_ALL=C
cd "$(dirname "$0")/.."

cargo build --release --locked --quiet
. benches/python.sh

mkdir -p "$target/bench"
"${CC:-cc}" -O3 -march=native -ffp-contract=fast -o "$target/bench/fma" benches/fma.c
echo 'int mkl_serv_intel_cpu_true(void) { return 1; }' |
    "${CC:-cc}" -shared -fPIC -x c -o "$target/bench/intel.so" -
"$python" benches/learning.py
