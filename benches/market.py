"""What the benches of the engine share: a marketplace of one worker, its data, and the split of its rows.

The split is written after the words at the head of src/engine/data/split.rs and src/engine/splitmix.rs,
and not after the code, so that it checks them.
"""
import gzip
import http.server
import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time
import urllib.request

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parent.parent
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve()
WORKER = TARGET / "release/worker"
PATIENCE = 600


class Market:
    """A backend, and one worker that may run on the first `threads` of our cores."""

    def __init__(self, folder, threads=None):
        self.state = pathlib.Path(folder, "state")
        self.state.mkdir(parents=True, exist_ok=True)
        cores = sorted(os.sched_getaffinity(0))[:threads]
        clean = {key: value for key, value in os.environ.items() if not key.startswith("WORKER_")}

        def start(*args, **more):
            return subprocess.Popen([WORKER, *args], env=clean, **more)

        if not (self.state / "speed.json").exists():
            # Else the worker measures the processor while we do.
            bench = [WORKER, "bench", "--quiet", "--state-dir", self.state]
            subprocess.run(bench, env=clean, check=True, stdout=subprocess.DEVNULL, timeout=60)
        listen = ["--listen", "127.0.0.1:0"]
        self.backend = start("mock-backend", *listen, stdout=subprocess.PIPE, text=True, stderr=subprocess.DEVNULL)
        self.url = self.backend.stdout.readline().split()[-1]
        self.log = pathlib.Path(folder, "worker.log")
        self.worker = start(
            "--backend", self.url, "--state-dir", self.state, "--heartbeat-interval", "1s",
            "--allow-private-downloads", stderr=self.log.open("w"),
            preexec_fn=lambda: os.sched_setaffinity(0, cores))
        self.jobs = 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in (self.worker, self.backend):
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def ask(self, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        with urllib.request.urlopen(urllib.request.Request(self.url + path, data), timeout=30) as reply:
            return json.load(reply)

    def run(self, kind, **inputs):
        """The result of one job."""
        self.jobs += 1
        job = {"id": f"job-{self.jobs}", "jobType": kind, "computeNeeded": 1, "inputData": inputs}
        self.ask("/api/jobs/submit", job)
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end and self.worker.poll() is None:
            found = self.ask("/api/jobs/" + job["id"])
            found = found.get("job", found)
            if found["status"] == "COMPLETED":
                return found["result"]
            if found["status"] in ("FAILED", "CANCELLED"):
                raise SystemExit(f"{kind} failed: {found.get('error')}\n{self.log.read_text()[-2000:]}")
            time.sleep(0.1)
        raise SystemExit(f"{kind} did not end\n{self.log.read_text()[-2000:]}")

    def artefact(self, url):
        """Where a result's file lies in the worker's store."""
        return self.state / "artefacts" / url.removeprefix("ipfs://")


class Files:
    """Serves a folder to the worker."""

    def __init__(self, folder):
        class Handler(http.server.SimpleHTTPRequestHandler):
            def __init__(self, *args):
                super().__init__(*args, directory=folder)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def url(self, name):
        return f"http://127.0.0.1:{self.server.server_port}/{name}"


def embedded(name):
    """The numbers and the classes of one of the worker's own datasets, and what the classes are called."""
    with gzip.open(ROOT / f"src/engine/data/embedded/{name}.csv.gz", "rt") as file:
        rows = [line.rstrip("\n").split(",") for line in file][1:]
    values = np.array([row[:-1] for row in rows], np.float32)
    classes = sorted({row[-1] for row in rows})
    return values, np.array([classes.index(row[-1]) for row in rows]), classes


def synthetic(folder, rows=60_000, features=784, classes=10):
    """Ten classes that are four overlapping clouds each, in MNIST's format."""
    drawn = np.random.default_rng(1)
    clouds = drawn.normal(0, 0.25, (4 * classes, features)).astype(np.float32)
    picked = drawn.integers(0, 4 * classes, rows)
    values = clouds[picked] + drawn.standard_normal((rows, features), np.float32)
    values = np.clip(values * 32 + 128, 0, 255).astype(np.uint8)
    labels = (picked % classes).astype(np.uint8)
    side = int(features**0.5)
    for name, items, shape in (("images", values, (rows, side, side)), ("labels", labels, (rows,))):
        head = bytes([0, 0, 8, len(shape)]) + b"".join(size.to_bytes(4, "big") for size in shape)
        pathlib.Path(folder, name).write_bytes(head + items.tobytes())
    return values.astype(np.float32), labels.astype(np.int64)


# Whoever stops a bench stops what it started, too.
signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))

MASK = 2**64 - 1


def mix(x):
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 & MASK
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB & MASK
    return x ^ (x >> 31)


def first(state):
    return mix((state + 0x9E3779B97F4A7C15) & MASK)


def split(labels, test=0.2, seed=0):
    """The rows for training, validation and the test."""
    state = first(first(seed) ^ int.from_bytes(b"split   ", "little"))
    classes = [list(np.flatnonzero(labels == label)) for label in range(int(max(labels)) + 1)]
    for rows in classes:
        for last in range(len(rows) - 1, 0, -1):
            state = (state + 0x9E3779B97F4A7C15) & MASK
            other = (last + 1) * mix(state) >> 64
            rows[last], rows[other] = rows[other], rows[last]

    def take(millionths):
        taken, seen = [], 0
        for rows in classes:
            seen += len(rows)
            count = max(0, (seen * millionths + 500_000) // 1_000_000 - len(taken))
            count = min(count, len(rows) - 1)
            taken += rows[:count]
            del rows[:count]
        return np.sort(taken)

    tested = take(round(test * 1_000_000))
    validated = take(100_000)
    return np.sort(np.concatenate(classes)).astype(int), validated.astype(int), tested.astype(int)
