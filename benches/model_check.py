"""Holds what the worker says against PyTorch and NumPy: trains, reads the model file with safetensors, and
reproduces the reported accuracy and each answer of an inference job for the rows of the test. Exits 1 if
one class differs, or one confidence by more than 1e-5. Last, how long answers to 10,000 rows take.
"""
import json
import sys
import tempfile

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from market import Market, embedded, split

ROWS = 10_000


def network(tensors):
    """A plain network of PyTorch's that takes the file's weights by their names."""
    layers = []
    for name, weight in tensors.items():
        if name.endswith(".weight"):
            layers += [torch.nn.Linear(weight.shape[1], weight.shape[0]), torch.nn.ReLU()]
    net = torch.nn.Sequential(*layers[:-1])
    net.load_state_dict({name: tensor for name, tensor in tensors.items() if name in net.state_dict()})
    return net


def by_numpy(path, rows):
    with safe_open(path, "np") as file:
        about = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}
    rows = (rows - tensors["input.mean"]) * tensors["input.scale"]
    weights = sorted((name for name in tensors if name.endswith(".weight")), key=lambda name: int(name.split(".")[0]))
    for n, name in enumerate(weights):
        rows = rows @ tensors[name].T + tensors[name.replace("weight", "bias")]
        rows = np.maximum(rows, 0) if n + 1 < len(weights) else rows
    shares = np.exp(rows - rows.max(1, keepdims=True))
    return about, shares / shares.sum(1, keepdims=True)


def by_torch(path, rows):
    tensors = load_file(path)
    names = sorted(tensors, key=lambda name: (name.startswith("input"), name.split(".")[0].zfill(4), name))
    net = network({name: tensors[name] for name in names})
    with torch.no_grad():
        inputs = (torch.from_numpy(rows) - tensors["input.mean"]) * tensors["input.scale"]
        return torch.softmax(net(inputs), 1).numpy()


def check(market, name, least, epochs):
    values, labels, classes = embedded(name)
    _, _, test = split(labels)
    trained = market.run("training", dataset=name, epochs=epochs)
    path = market.artefact(trained["modelUrl"])
    about, numpy_says = by_numpy(path, values[test])
    torch_says = by_torch(path, values[test])
    answers = market.run("inference", model=trained["modelUrl"], input=values[test].tolist())["predictions"]
    ours = np.array([classes.index(answer["prediction"]) for answer in answers])
    confidence = np.array([answer["confidence"] for answer in answers])
    reported = trained["finalMetrics"]["finalAccuracy"]
    faults = [] if reported >= least else [f"accuracy below {least}"]
    noted = float(json.loads(about["notes"])["testAccuracy"])
    if trained["dataset"]["testRows"] != len(test) or noted != reported:
        faults.append("the model, the result and the split do not agree about the test")
    for who, says in (("PyTorch", torch_says), ("NumPy", numpy_says)):
        same = int((says.argmax(1) == ours).sum())
        off = float(np.abs(says.max(1) - confidence).max())
        accuracy = float((says.argmax(1) == labels[test]).mean())
        print(f"{name:8} {who:8} {same}/{len(test)} answers equal, confidence within {off:.1e}, "
              f"accuracy {accuracy:.4f}, reported {reported:.4f}")
        if same != len(test) or off > 1e-5 or abs(accuracy - reported) > 1e-9:
            faults.append(f"{who} says something else")
    return [f"{name}: {fault}" for fault in faults], trained["modelUrl"]


def latency(market, model):
    values, _, _ = embedded("digits")
    rows = np.resize(values, (ROWS, values.shape[1]))
    found = market.run("inference", model=model, input=rows.tolist())
    assert found["rows"] == ROWS
    told = market.artefact(found["predictionsUrl"]).read_text().splitlines()
    assert len(told) == ROWS and json.loads(told[0]) == found["predictions"][0]
    p50, p99 = (found["latency"][key] * 1000 for key in ("p50_ms", "p99_ms"))
    print(f"{ROWS} rows of digits in one job: p50 {p50:.2f} us, p99 {p99:.2f} us a row")


def main():
    with tempfile.TemporaryDirectory() as folder, Market(folder) as market:
        faults, model = check(market, "digits", 0.95, 30)
        faults += check(market, "iris", 0.93, 100)[0]
        latency(market, model)
    for fault in faults:
        print("MISSED", fault)
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
