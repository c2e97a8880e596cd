#!/usr/bin/env bash
# Holds the worker's models and answers against PyTorch and NumPy, see benches/model_check.py, and prints
# how long an answer takes. Exits 1 if anything differs.
#
# Needs what benches/learning.sh needs.
#
#   benches/models.sh
set -euo pipefail
export LC_ALL=C
cd "$(dirname "$0")/.."

cargo build --release --locked --quiet
. benches/python.sh
"$python" benches/model_check.py
