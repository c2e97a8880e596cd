"""Examples a second of training, and what is learnt, of the worker and of its peers; see learning.sh."""
import collections
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

import numpy as np

from market import TARGET, Files, Market, embedded, split, synthetic

HERE = pathlib.Path(__file__).resolve().parent
ROUNDS = int(os.environ.get("ROUNDS", 5))
THREADS = (1, 2)
# The worker's jobs are so much nicer than the worker.
NICE = ["nice", "-n", "10"]
Work = collections.namedtuple("Work", "name widths batch epochs share ratio")
WORKS = (
    Work("digits", (64, 128, 10), 64, int(os.environ.get("DIGITS_EPOCHS", 100)), 0.5, 8.0),
    Work("synthetic", (784, 256, 10), 128, int(os.environ.get("SYNTHETIC_EPOCHS", 3)), 0.6, 2.5),
)
OURS = "worker"
# Of MKL and glibc, as who wants speed sets them; the library tells MKL that any processor is Intel's.
TUNED = {
    "MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "1000000000", "MALLOC_TOP_PAD_": "67108864",
    "MKL_ENABLE_INSTRUCTIONS": "AVX512", "LD_PRELOAD": str(TARGET / "bench/intel.so"),
}


def cores(threads):
    return ",".join(str(core) for core in sorted(os.sched_getaffinity(0))[:threads])


def peak(threads):
    """Of threads at the same time, each on its core, in flop a second."""
    runs = [
        subprocess.Popen([*NICE, "taskset", "-c", core, TARGET / "bench/fma", "0.5"], stdout=subprocess.PIPE)
        for core in cores(threads).split(",")]
    return sum(float(run.communicate()[0]) for run in runs) * 1e9


def write(path, values, labels, seed):
    """The parts of a dataset as the worker splits and standardises it."""
    parts = dict(zip(("training", "validation", "test"), split(labels, seed=seed)))
    known = values[parts["training"]].astype(np.float64)
    mean, deviation = known.mean(0), known.std(0)
    deviation[deviation == 0] = 1
    out = {}
    for name, rows in parts.items():
        out[name] = ((values[rows] - mean) / deviation).astype(np.float32)
        out[name + "_labels"] = labels[rows].astype(np.int64)
    np.savez(path, **out)


def peers(work, path, threads, seed):
    env = {**os.environ, **{key: str(threads) for key in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}}
    found = {}
    for peer in ("sklearn", "torch", "tuned"):
        what = [peer, path, work.epochs, work.batch, work.widths[1], seed]
        command = [*NICE, "taskset", "-c", cores(threads), sys.executable, HERE / "learning_peers.py", *what]
        more = TUNED if peer == "tuned" else {}
        run = subprocess.run([str(word) for word in command], env={**env, **more}, capture_output=True, text=True)
        if run.returncode != 0:
            raise SystemExit(f"{peer}: {run.stderr[-2000:]}")
        found.update(json.loads(run.stdout))
    return found


def ours(market, work, dataset, seed):
    result = market.run(
        "training", dataset=dataset, epochs=work.epochs, batchSize=work.batch, hidden=[work.widths[1]], seed=seed)
    return result["examplesPerSecond"], result["finalMetrics"]["finalAccuracy"]


def measure(folder):
    """By work, threads and engine: the rates and the accuracies of the rounds."""
    found = collections.defaultdict(list)
    files = Files(folder)
    held = {"digits": (*embedded("digits")[:2], "digits")}
    urls = [{"url": files.url(name)} for name in ("images", "labels")]
    held["synthetic"] = (*synthetic(folder), urls)
    markets = {threads: Market(f"{folder}/{threads}", threads) for threads in THREADS}
    try:
        for seed in range(ROUNDS):
            for threads, market in markets.items():
                found["peak", threads, ""].append((peak(threads), 0.0))
            for work in WORKS:
                values, labels, dataset = held[work.name]
                path = f"{folder}/{work.name}.npz"
                write(path, values, labels, seed)
                for threads, market in markets.items():
                    found[work.name, threads, OURS].append(ours(market, work, dataset, seed))
                    for name, what in peers(work, path, threads, seed).items():
                        found[work.name, threads, name].append(what)
            print(f"round {seed + 1} of {ROUNDS} is done", file=sys.stderr)
    finally:
        for market in markets.values():
            market.__exit__()
    return found


def median(found, *key):
    return statistics.median(rate for rate, _ in found[key])


def accuracy(found, *key):
    return statistics.mean(share for _, share in found[key])


def table(found, work):
    flop = 4 * work.widths[0] * work.widths[1] + 6 * work.widths[1] * work.widths[2]
    engines = [engine for name, threads, engine in found if (name, threads) == (work.name, 1)]
    print(f"\n{work.name}, {'-'.join(map(str, work.widths))}, batch {work.batch}, {work.epochs} epochs: examples/s")
    print(f"{'':15}" + "".join(f"{f'{n} threads':>12} {'least-most':>13} {'limit':>6} {'ours x':>6}" for n in THREADS) + "  ACCURACY")
    for engine in engines:
        line = f"{engine:15}"
        for threads in THREADS:
            rates = [rate / 1000 for rate, _ in found[work.name, threads, engine]]
            rate = statistics.median(rates) * 1000
            limit = rate / (median(found, "peak", threads, "") / flop)
            ratio = median(found, work.name, threads, OURS) / rate
            line += f"{rate / 1000:10.0f} k {f'{min(rates):.0f}-{max(rates):.0f}':>13} {limit:6.1%} {ratio:6.2f}"
        print(f"{line}  {accuracy(found, work.name, 1, engine):.4f}")
    return flop


def verdicts(found, work, flop):
    mine = median(found, work.name, 1, OURS)
    torch = max(median(found, work.name, 1, name) for name in ("PyTorch", "PyTorch fused"))
    off = abs(accuracy(found, work.name, 1, OURS) - accuracy(found, work.name, 1, "PyTorch")) * 100
    yield f"{work.name}: times PyTorch as installed, 1 thread", mine / torch, work.ratio
    yield f"{work.name}: share of the limit, 1 thread", mine * flop / median(found, "peak", 1, ""), work.share
    yield f"{work.name}: points of accuracy off PyTorch's, to 0.5 spare", 0.5 - off, 0
    if work.name == "synthetic":
        yield f"{work.name}: 2 threads against 1", median(found, work.name, 2, OURS) / mine, 1.5


def main():
    with tempfile.TemporaryDirectory() as folder:
        found = measure(folder)
    for threads in THREADS:
        print(f"FMA peak, {threads} threads: {median(found, 'peak', threads, '') / 1e9:.1f} GFLOP/s")
    missed = False
    rows = [row for work in WORKS for row in verdicts(found, work, table(found, work))]
    print()
    for what, figure, wanted in rows:
        missed |= figure < wanted
        print(f"{what:58} {figure:6.2f} >= {wanted:<5} {'MISSED' if figure < wanted else 'ok'}")
    sys.exit(missed)


if __name__ == "__main__":
    main()
