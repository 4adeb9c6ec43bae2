"""Does a schedule help? Gradual against one-shot pruning, and what to start retraining from.

``python -m teachkit.experiments.schedules`` writes data/experiments/schedules.jsonl and
data/experiments/retraining.jsonl; about ten minutes on one core. With MNIST in the folder that
``TEACHKIT_DATA`` names it also writes schedules_mnist.jsonl, in half an hour. A run that is
interrupted goes on.
"""

from functools import partial
from typing import Any

import torch
from torch import nn

from teachkit import experiments, magnitude, masks, schedule
from teachkit.experiments.networks import chain, lenet, retrained, trained
from teachkit.lab import data, models
from teachkit.lab.evaluation import accuracy
from teachkit.lab.rounds import Run
from teachkit.lab.sweep import Row

STEPS, END = 10, 7  # ten cuts; the last is reached at step 7, so that four steps train what stays
SHAPES: dict[str, Any] = {
    "one-shot": schedule.constant,
    "restarted": schedule.constant,  # one cut, but Adam starts anew ten times
    "linear": lambda final: schedule.linear(0, final, 0, END),
    "cubic": lambda final: schedule.cubic(0, final, 0, END),
    "exponential": lambda final: schedule.exponential(0, final, 0, END),
}
SCHEDULES: experiments.Grid = {
    "seed": [0, 1, 2, 3, 4],
    "shape": list(SHAPES),
    "budget": [10, 30, 60],
    "sparsity": [0.5, 0.8, 0.9, 0.95, 0.98],
}
STARTS = ["trained, rate / 10", "trained, full rate", "epoch 3", "first weights", "new weights"]
RETRAINING: experiments.Grid = {
    "seed": [0, 1, 2, 3, 4],
    "start": STARTS,
    "sparsity": [0.8, 0.9, 0.95, 0.98],
}
MNIST: experiments.Grid = {
    "seed": [0, 1, 2, 3, 4],
    "shape": ["one-shot", "linear", "cubic"],
    "sparsity": [0.9, 0.95, 0.98, 0.99],
}


def gradual(seed: int, shape: str, budget: int, sparsity: float) -> Row:
    """Prune a trained network along a schedule; every shape trains for ``budget`` epochs."""
    options = {"epochs": budget, "seed": 100 + seed}
    run = _along(chain("A", seed), data.digits(), shape, sparsity, **options)
    return {"accuracy": run.steps[-1].retrained}


def retraining(seed: int, start: str, sparsity: float) -> Row:
    """Cut the trained network once by magnitude, then train the mask for 30 epochs from a start."""
    net = chain("A", seed)
    kept = masks.keep_top(magnitude.scores(net), sparsity)
    if start == "epoch 3":
        net = trained(models.mlp, seed, epochs=3)
    elif start.endswith("weights"):
        net = models.mlp(seed=seed if start == "first weights" else 1000 + seed)
    Adam = partial(torch.optim.Adam, lr=1e-4 if start == STARTS[0] else 1e-3)
    return {"accuracy": retrained(net, seed, kept, optimizer=Adam)}


def gradual_on_mnist(seed: int, shape: str, sparsity: float) -> Row:
    """As :func:`gradual` for LeNet-300-100; every shape trains for ten epochs."""
    net, parts = lenet(seed), experiments.mnist()
    run = _along(net, parts, shape, sparsity, epochs=10, batch_size=128, seed=100 + seed)
    return {"dense": accuracy(net, parts.test), "accuracy": run.steps[-1].retrained}


def _along(net: nn.Module, parts: data.Data, shape: str, sparsity: float, **options: Any) -> Run:
    """Prune along a shape; the options are those of ``schedule.gradual``."""
    steps, rule = 1 if shape == "one-shot" else STEPS, SHAPES[shape](sparsity)
    options |= {"steps": steps, "progress": False}
    return schedule.gradual(net, parts, magnitude.scores, rule, **options)


def sparsest(net: nn.Module, parts: data.Data, drop: float) -> schedule.Search:
    """The sparsest network by magnitude, cut once and trained for ten epochs, within a drop.

    The accuracy is measured on ``parts.test``, which is best not the data that is reported on.
    """
    return schedule.within_bound(
        lambda sparsity: _along(net, parts, "one-shot", sparsity, epochs=10).model,
        lambda model: accuracy(model, parts.test),
        accuracy(net, parts.test) - drop,
        low=0.5,
        tolerance=0.02,
    )


TABLES: experiments.Tables = {
    "schedules": (gradual, SCHEDULES),
    "retraining": (retraining, RETRAINING),
}

if __name__ == "__main__":
    experiments.main(TABLES, {"schedules_mnist": (gradual_on_mnist, MNIST)})
