"""learning_peers.py PEER DATA EPOCHS BATCH HIDDEN SEED: trains what the worker trains by scikit-learn, by
PyTorch or by PyTorch's fused Adam alone, and prints for each optimiser the examples a second and the
accuracy on the rows of the test. Reading, starting and judging are not in the time.
"""
import json
import os
import sys
import time
import warnings

import numpy as np


def by_sklearn(data, epochs, batch, hidden, seed):
    from sklearn.neural_network import MLPClassifier

    warnings.simplefilter("ignore")
    net = MLPClassifier(
        (hidden,), solver="adam", alpha=0, batch_size=batch, learning_rate_init=1e-3, max_iter=epochs, tol=0,
        n_iter_no_change=epochs, random_state=seed)
    begin = time.perf_counter()
    net.fit(data["training"], data["training_labels"])
    seconds = time.perf_counter() - begin
    return seconds, float((net.predict(data["test"]) == data["test_labels"]).mean())


def by_torch(data, epochs, batch, hidden, seed, fused):
    """Keeps the best epoch by the rows for validation, as the worker does."""
    import torch

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    torch.manual_seed(seed)
    parts = {name: torch.from_numpy(data[name]) for name in data}
    rows, labels = parts["training"], parts["training_labels"]
    classes = int(labels.max()) + 1
    net = torch.nn.Sequential(
        torch.nn.Linear(rows.shape[1], hidden), torch.nn.ReLU(), torch.nn.Linear(hidden, classes))
    adam = torch.optim.Adam(net.parameters(), lr=1e-3, fused=fused)
    judge = torch.nn.CrossEntropyLoss()
    seconds, least, accuracy = 0.0, float("inf"), 0.0
    for _ in range(epochs):
        begin = time.perf_counter()
        for picks in torch.randperm(len(rows)).split(batch):
            loss = judge(net(rows[picks]), labels[picks])
            adam.zero_grad()
            loss.backward()
            adam.step()
        seconds += time.perf_counter() - begin
        with torch.no_grad():
            found = float(judge(net(parts["validation"]), parts["validation_labels"]))
            if found < least:
                right = net(parts["test"]).argmax(1) == parts["test_labels"]
                least, accuracy = found, float(right.float().mean())
    return seconds, accuracy


def main():
    peer, path = sys.argv[1:3]
    epochs, batch, hidden, seed = map(int, sys.argv[3:])
    data = dict(np.load(path))
    if peer == "sklearn":
        found = {"sklearn": by_sklearn(data, epochs, batch, hidden, seed)}
    else:
        names = {"torch": {"PyTorch": False, "PyTorch fused": True}, "tuned": {"PyTorch tuned": True}}[peer]
        found = {name: by_torch(data, epochs, batch, hidden, seed, fused) for name, fused in names.items()}
    learnt = epochs * len(data["training"])
    print(json.dumps({name: (learnt / seconds, accuracy) for name, (seconds, accuracy) in found.items()}))


if __name__ == "__main__":
    main()
