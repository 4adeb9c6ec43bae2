"""Does a schedule help? Gradual against one-shot pruning, and what to start retraining from.

``python -m teachkit.experiments.schedules`` writes data/experiments/schedules.jsonl and
data/experiments/retraining.jsonl; about ten minutes on one core. With MNIST in the folder that
``TEACHKIT_DATA`` names it also writes schedules_mnist.jsonl, in half an hour. A run that is
interrupted goes on.
"""

import os
from functools import cache, partial
from typing import Any

import torch
from torch import nn

from teachkit import experiments, magnitude, masks, schedule
from teachkit.lab import data, models
from teachkit.lab.evaluation import evaluate
from teachkit.lab.sweep import Cell
from teachkit.lab.training import fit

STEPS, END = 10, 7  # ten cuts; the last is reached at step 7, so that four steps train what stays
SHAPES: dict[str, Any] = {
    "one-shot": lambda final: schedule.constant(final),
    "restarted": lambda final: schedule.constant(final),  # one cut, but Adam starts anew ten times
    "linear": lambda final: schedule.linear(0, final, 0, END),
    "cubic": lambda final: schedule.cubic(0, final, 0, END),
    "exponential": lambda final: schedule.exponential(0, final, 0, END),
}
SCHEDULES: dict[str, list[Any]] = {
    "seed": [0, 1, 2, 3, 4],
    "shape": list(SHAPES),
    "budget": [10, 30, 60],
    "sparsity": [0.5, 0.8, 0.9, 0.95, 0.98],
}
STARTS = ["trained, rate / 10", "trained, full rate", "epoch 3", "first weights", "new weights"]
RETRAINING: dict[str, list[Any]] = {
    "seed": [0, 1, 2, 3, 4],
    "start": STARTS,
    "sparsity": [0.8, 0.9, 0.95, 0.98],
}


def trained(seed: int, epochs: int = 30) -> nn.Module:
    """A 64-64-32-10 network on the digits, Adam with a rate of 0.001."""
    return experiments.trained(seed, epochs=epochs)


def gradual(seed: int, shape: str, budget: int, sparsity: float) -> dict[str, Any]:
    """Prune a trained network along a schedule; every shape trains for ``budget`` epochs."""
    return {"accuracy": _accuracy(trained(seed), data.digits(), seed, shape, sparsity, budget)}


def retraining(seed: int, start: str, sparsity: float) -> dict[str, Any]:
    """Cut the trained network once by magnitude, then train the mask for 30 epochs from a start."""
    net = trained(seed)
    kept = masks.keep_top(magnitude.scores(net), sparsity)
    begin = net
    if start == "epoch 3":
        begin = trained(seed, 3)
    elif start.endswith("weights"):
        begin = models.mlp(seed=seed if start == "first weights" else 1000 + seed)
    rate = 1e-4 if start == STARTS[0] else 1e-3
    again, _ = fit(
        masks.apply(begin, kept),
        data.digits(),
        masks=kept,
        optimizer=partial(torch.optim.Adam, lr=rate),
        seed=100 + seed,
        progress=False,
    )
    return {"accuracy": evaluate(again, data.digits().test).accuracy}


MNIST: dict[str, list[Any]] = {
    "seed": [0, 1, 2, 3, 4],
    "shape": ["one-shot", "linear", "cubic"],
    "sparsity": [0.9, 0.95, 0.98, 0.99],
}


@cache
def trained_on_mnist(seed: int) -> nn.Module:
    """LeNet-300-100 after five epochs, Adam with a rate of 0.001."""
    start = models.lenet_300_100(seed=seed).float()
    return fit(
        start, experiments.mnist().train, epochs=5, batch_size=128, seed=seed, progress=False
    )[0]


def gradual_on_mnist(seed: int, shape: str, sparsity: float) -> dict[str, Any]:
    """As :func:`gradual` for LeNet-300-100; every shape trains for ten epochs."""
    net, parts = trained_on_mnist(seed), experiments.mnist()
    found = _accuracy(net, parts, seed, shape, sparsity, 10, batch_size=128)
    return {"dense": evaluate(net, parts.test).accuracy, "accuracy": found}


def _accuracy(
    net: nn.Module,
    parts: data.Data,
    seed: int,
    shape: str,
    sparsity: float,
    budget: int,
    batch_size: int = 64,
) -> float:
    """Test accuracy after pruning along a shape, at a budget of epochs in all."""
    run = schedule.gradual(
        net,
        parts,
        magnitude.scores,
        SHAPES[shape](sparsity),
        steps=1 if shape == "one-shot" else STEPS,
        epochs=budget,
        batch_size=batch_size,
        seed=100 + seed,
        progress=False,
    )
    return run.steps[-1].retrained


def sparsest(net: nn.Module, parts: data.Data, drop: float) -> schedule.Search:
    """The sparsest network by magnitude, cut once and trained for ten epochs, within a drop.

    The accuracy is measured on ``parts.test``, which is best not the data that is reported on.
    """

    def make(sparsity: float) -> nn.Module:
        rule = schedule.constant(sparsity)
        run = schedule.gradual(
            net, parts, magnitude.scores, rule, steps=1, epochs=10, progress=False
        )
        return run.model

    def accuracy(model: nn.Module) -> float:
        return evaluate(model, parts.test).accuracy

    return schedule.within_bound(make, accuracy, accuracy(net) - drop, low=0.5, tolerance=0.02)


def main() -> None:
    """Run both grids and write their tables."""
    tables: dict[str, tuple[Cell, experiments.Grid]] = {
        "schedules": (gradual, SCHEDULES),
        "retraining": (retraining, RETRAINING),
    }
    if "TEACHKIT_DATA" in os.environ:
        tables["schedules_mnist"] = (gradual_on_mnist, MNIST)
    experiments.write(tables)


if __name__ == "__main__":
    main()
