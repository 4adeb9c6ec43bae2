"""The random-baseline paradox: which criteria lose to random, on which networks, and why.

``python -m teachkit.experiments.paradox`` writes four tables into data/experiments; about
fifteen minutes on one core. A run that is interrupted goes on. With TEACHKIT_DATA set to a folder
that holds MNIST it writes a fifth, for LeNet-300-100; float32, so that its last digits depend on
the processor.
"""

import os
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import torch
from torch import nn

from teachkit import experiments, magnitude, obd, paradox
from teachkit.core.types import Batch, Scores
from teachkit.lab import data, models
from teachkit.lab.curves import accuracy_curve
from teachkit.lab.evaluation import evaluate
from teachkit.lab.training import fit

SPARSITIES = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
DRAWS = 20
SEEDS = list(range(8))
NETS = {
    "A": "64-64-32-10 ReLU, 30 epochs",
    "B": "as A, tanh",
    "C": "64-256-128-10 ReLU",
    "D": "as A, 60 epochs, rate falling to zero",
    "F": "as A, 300 epochs",
    "I": "as A, full batch, 1000 steps, rate falling to zero",
}
TRAINING: dict[str, dict[str, Any]] = {
    "D": {"epochs": 60, "falling": 3e-3},
    "F": {"epochs": 300},
    "I": {"epochs": 1000, "falling": 5e-3, "batch_size": 1400},
}
MAIN: dict[str, list[Any]] = {"net": list(NETS), "seed": SEEDS}
SAMPLES: dict[str, list[Any]] = {
    "net": ["A", "D"],
    "samples": ["1400 train", "200 train", "200 held out"],
    "seed": SEEDS,
}
STEPS: dict[str, list[Any]] = {"steps": [1, 10, 100, 1000], "seed": SEEDS[:5]}
WIDTHS: dict[str, list[Any]] = {"width": [16, 32, 64, 128, 256], "seed": SEEDS}


def trained(net: str, seed: int, width: int = 64) -> nn.Module:
    """A network of the table; ``width`` is that of the first hidden layer, the second has half."""
    hidden = (256, 128) if net == "C" else (width, width // 2)
    activation = nn.Tanh if net == "B" else nn.ReLU
    return experiments.trained(seed, hidden, activation, **TRAINING.get(net, {}))


CRITERIA: dict[str, Callable[[nn.Module, Batch], Scores]] = {
    "magnitude": lambda model, batch: magnitude.scores(model),
    "T1": paradox.first_order,
    "T2": paradox.second_order,
    "|T2|": paradox.absolute,
    "OBD": obd.scores,
    "SD": paradox.spread,
    "MEAN + SD": paradox.mean_plus_spread,
    "MEAN + 0.1 SD": partial(paradox.mean_plus_spread, weight=0.1),
    "row sums": obd.row_sum_scores,
}


def mean_accuracy(model: nn.Module, scores: Scores, test: Batch) -> float:
    """Test accuracy averaged over the sparsities, one-shot, ranked over all layers."""
    curve = accuracy_curve(model, scores, test, SPARSITIES)
    return sum(curve) / len(curve)


def random_accuracy(model: nn.Module, seed: int, test: Batch) -> float:
    """The mean of 20 random rankings."""
    dice = torch.Generator().manual_seed(5000 + seed)
    draws = [magnitude.random_scores(model, dice) for _ in range(DRAWS)]
    return sum(mean_accuracy(model, scores, test) for scores in draws) / DRAWS


def main_table(net: str, seed: int) -> dict[str, Any]:
    """Every criterion on one network, from all training data."""
    model, (train, test) = trained(net, seed), data.digits()
    found = {
        name: mean_accuracy(model, rule(model, train), test) for name, rule in CRITERIA.items()
    }
    if net == "A":
        found["leave-one-out"] = mean_accuracy(model, paradox.leave_one_out(model, train), test)
    dense = evaluate(model, test).accuracy
    return {"dense": dense, "random": random_accuracy(model, seed, test), **found}


def samples_table(net: str, samples: str, seed: int) -> dict[str, Any]:
    """The criteria estimated on other samples; accuracy on the 197 test images never used."""
    model, (train, test) = trained(net, seed), data.digits()
    source = test if samples.endswith("held out") else train
    batch = tuple(part[: int(samples.split()[0])] for part in source)
    rest = (test[0][200:], test[1][200:])
    found = {
        name: mean_accuracy(model, CRITERIA[name](model, (batch[0], batch[1])), rest)
        for name in ("T2", "OBD", "SD")
    }
    return {"random": random_accuracy(model, seed, rest), **found}


def steps_table(steps: int, seed: int) -> dict[str, Any]:
    """Net A, 30 % removed by T2 in equal steps, with new scores before each."""
    model, (train, test) = trained("A", seed), data.digits()
    *_, (pruned, _) = paradox.stepwise(model, train, 0.3, steps)
    return {"accuracy": evaluate(pruned, test).accuracy}


def widths_table(width: int, seed: int) -> dict[str, Any]:
    """Networks of other widths, 10 % removed."""
    model, (train, test) = trained("A", seed, width), data.digits()
    dice = torch.Generator().manual_seed(5000 + seed)
    draws = [
        accuracy_curve(model, magnitude.random_scores(model, dice), test, [0.1])[0]
        for _ in range(DRAWS)
    ]
    (by_t2,) = accuracy_curve(model, paradox.second_order(model, train), test, [0.1])
    return {"random": sum(draws) / DRAWS, "T2": by_t2}


@cache
def on_mnist(seed: int) -> tuple[nn.Module, data.Data]:
    """LeNet-300-100 after five epochs on MNIST in float32, and the data."""
    parts = experiments.mnist()
    start = models.lenet_300_100(seed=seed).float()
    net = fit(start, parts.train, epochs=5, batch_size=128, seed=seed, progress=False)[0]
    return net, parts


def mnist_table(estimate: str, seed: int) -> dict[str, Any]:
    """LeNet-300-100 on MNIST: the main criteria, from 10,000 training images or 1,000 held out."""
    net, (train, test) = on_mnist(seed)
    rest = (test[0][1000:], test[1][1000:])
    source = (train[0][:10000], train[1][:10000])
    if estimate == "1000 held out":
        source = (test[0][:1000], test[1][:1000])
    names = ("magnitude", "T1", "T2", "|T2|", "OBD", "SD", "row sums")
    found = {name: mean_accuracy(net, CRITERIA[name](net, source), rest) for name in names}
    dense = evaluate(net, rest).accuracy
    return {"dense": dense, "random": random_accuracy(net, seed, rest), **found}


MNIST: dict[str, list[Any]] = {
    "estimate": ["10000 train", "1000 held out"],
    "seed": SEEDS[:5],
}
TABLES: dict[str, tuple[Callable[..., dict[str, Any]], dict[str, list[Any]]]] = {
    "paradox": (main_table, MAIN),
    "paradox_samples": (samples_table, SAMPLES),
    "paradox_widths": (widths_table, WIDTHS),
    "paradox_steps": (steps_table, STEPS),
}


def main() -> None:
    """Run all grids and write their tables."""
    tables = dict(TABLES)
    if "TEACHKIT_DATA" in os.environ:
        tables["paradox_mnist"] = (mnist_table, MNIST)
    experiments.write(tables)


if __name__ == "__main__":
    main()
