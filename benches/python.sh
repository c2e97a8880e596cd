# shellcheck shell=bash
# Sourced by the benches that need Python: puts a python with NumPy, scikit-learn, safetensors and PyTorch
# in $python, by default one below the target directory. PYTHON names one that has them.
#
# PyTorch's wheel is taken without the CUDA libraries that it asks for, 3 GB that nothing here calls.
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
export CARGO_TARGET_DIR=$target

python=${PYTHON:-}
if [ -z "$python" ]; then
    python=$target/bench/venv/bin/python
    pip() { "$python" -m pip install --quiet --disable-pip-version-check "$@"; }
    if [ ! -e "$target/bench/venv/complete" ]; then
        python3 -m venv "$target/bench/venv"
        pip numpy scikit-learn safetensors
        pip --no-deps torch
        pip filelock typing-extensions sympy networkx jinja2 fsspec 2>/dev/null
        "$python" benches/torch_without_cuda.py
        touch "$target/bench/venv/complete"
    fi
fi

# The settings of whoever runs this must not count.
unset "${!WORKER_@}" "${!OPENBLAS_@}" "${!OMP_@}" "${!MKL_@}" "${!MALLOC_@}" RUST_LOG STATE_DIRECTORY
