"""Accuracy against sparsity: training that prunes beside magnitude, at equal epochs and at equal seconds.

``python -m teachkit.experiments.sparse_training`` writes four tables into data/experiments; about a quarter
of an hour on one core. With MNIST in the folder that ``TEACHKIT_DATA`` names it also writes one for
magnitude on LeNet-300-100, in ten minutes; float32, so that its last digits depend on the processor. A run
that is interrupted goes on.

All train from new weights for as many epochs as "gradual", pruning included, and all with the same finish:
the last fifth of the epochs with fixed masks, at a rate that falls. At equal seconds a method has fewer
epochs, by what an epoch of it cost beside one of plain training when it was measured (``COST``).
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

from teachkit import experiments, magnitude, masks, schedule, sparse_training, structured
from teachkit.core.types import Data, Masks
from teachkit.engine.sampled import Sampled, as_it_is
from teachkit.lab import data, models
from teachkit.lab.evaluation import accuracy
from teachkit.lab.jointly import finish_with, jointly
from teachkit.lab.sweep import Row, select
from teachkit.lab.training import fit

SEEDS = [0, 1, 2, 3, 4]
FINISH, RATE = 0.2, 3e-3  # on the digits; on MNIST 1e-3
SPARSITIES = [0.8, 0.9, 0.95, 0.98]
ON_MNIST = [0.95, 0.98, 0.99]
SETTINGS: dict[str, dict[str, list[float]]] = {
    "digits": {
        **dict.fromkeys(("one-shot", "gradual", "movement"), SPARSITIES),
        "L1": [0.1, 0.3, 0.5, 0.7],
        "L1, subgradient": [1e-3, 2e-3, 4e-3, 7e-3],
        "L0": [0.3, 1.0, 3.0, 10.0],
        "variational dropout": [0.3, 1.0, 4.0, 8.0],
    },
    "mnist": dict.fromkeys(("one-shot", "gradual"), ON_MNIST),
}
COST = {"movement": 2.0, "L0": 1.7, "variational dropout": 2.5}  # of an epoch, the least of five
COST_ON_MNIST = {"L0": 3.3, "variational dropout": 4.1}  # with LeNet-300-100, the least of three
UNITS: dict[str, list[float]] = {
    "magnitude": [0.25, 0.5, 0.625, 0.75],
    "group lasso": [0.2, 0.3, 0.4, 0.5],
    "L0": [0.3, 0.6, 1.0, 1.5],
}
LEVELS = [0, 1, 2, 3]
FRONTIER: experiments.Grid = {"seed": SEEDS, "method": list(SETTINGS["digits"]), "level": LEVELS}
FASTER: experiments.Grid = {"seed": SEEDS, "method": list(COST), "level": LEVELS}
MATCHED: experiments.Grid = {**FASTER, "method": ["L1", *COST], "budget": ["epochs", "seconds"]}
SMALLER: experiments.Grid = {"seed": SEEDS, "method": list(UNITS), "level": LEVELS}
PLAIN: experiments.Grid = {"seed": SEEDS, "method": ["one-shot", "gradual"], "level": LEVELS[:3]}


def one_shot(
    net: nn.Module, parts: Data, sparsity: float, epochs: int, rate: float = 1e-3, **options: Any
) -> Any:
    """Train, cut once by magnitude, train what is left."""
    last, options["optimizer"] = round(FINISH * epochs), partial(torch.optim.Adam, lr=rate)
    dense, _ = fit(net, parts.train, epochs=epochs - last, **options)
    kept = masks.keep_top(magnitude.scores(dense), sparsity)
    return finish_with(masks.apply(dense, kept), parts, kept, last, **options)[0], kept


def gradual(net: nn.Module, parts: Data, sparsity: float, every: int = 10, **options: Any) -> Any:
    """Cut by magnitude along a cubic while training, all of it until seven eighths of the first phase.

    Zhu & Gupta 2017: what is small is cut at every tenth step, and may come back in between.
    """
    start = Sampled(net, {}, as_it_is, as_it_is)
    move = partial(_cut, every, schedule.cubic(0, sparsity, 0, 1))
    return jointly(start, parts, move=move, warm=0.875, on_empty="allow", **options)


def _cut(every: int, rule: schedule.Schedule, net: Sampled, rate: float) -> None:
    share = net.ramp.share
    if net.ramp.at % every == 0 or share == 1:
        weights = {name: w.detach() for name, w in masks.prunable(net.model).items()}
        kept = masks.keep_top(weights, rule(share), absolute=True)
        for name, mask in kept.items():
            weights[name].masked_fill_(~mask, 0.0)


METHODS: dict[str, Callable[..., Any]] = {
    "one-shot": one_shot,
    "gradual": gradual,
    "movement": partial(sparse_training.movement, on_empty="allow"),
    "L1": partial(sparse_training.l1, on_empty="allow"),
    "L1, subgradient": partial(sparse_training.l1, way="subgradient", on_empty="allow"),
    "L0": partial(sparse_training.l0, warm=0.3, on_empty="allow"),
    "variational dropout": partial(sparse_training.variational_dropout, warm=0.5, on_empty="allow"),
}


def trained(net: nn.Module, parts: Data, method: str, setting: float, **options: Any) -> Row:
    """What a method makes of a new network."""
    made = METHODS[method](net, parts, setting, progress=False, **options)
    return described(made[0], made[1], parts) | {"setting": setting}


def described(model: nn.Module, kept: Masks, parts: Data) -> Row:
    """Test accuracy, the weights that are exactly zero, and how many are left in the emptiest layer."""
    zeros = sum(int((w == 0).sum()) for w in masks.prunable(model).values())
    least = min(int(mask.sum()) for mask in kept.values())
    return {"accuracy": accuracy(model, parts.test), "zeros": zeros, "least": least}


def on_digits(seed: int, method: str, level: int, epochs: int = 60) -> Row:
    """The network 64-64-32-10."""
    setting = SETTINGS["digits"][method][level]
    options = {"epochs": epochs, "rate": RATE, "seed": 100 + seed}
    return trained(models.mlp(seed=seed), data.digits(), method, setting, **options)


def faster_on_digits(seed: int, method: str, level: int) -> Row:
    """As :func:`on_digits`, in the seconds that sixty epochs of plain training take."""
    return on_digits(seed, method, level, epochs=round(60 / COST[method]))


def matched(seed: int, method: str, level: int, budget: str) -> Row:
    """Gradual magnitude in sixty epochs with exactly as many zeros as a method's network has.

    An epoch of L1 costs what one of plain training does: its two budgets are one.
    """
    faster = budget == "seconds" and method in COST
    saved = experiments.table("sparse_faster" if faster else "sparse_frontier")
    (row,) = select(saved, seed=seed, method=method, level=level)
    net, options = models.mlp(seed=seed), {"epochs": 60, "rate": RATE, "seed": 100 + seed}
    share = row["zeros"] / sum(w.numel() for w in masks.prunable(net).values())
    found = trained(net, data.digits(), "gradual", share, **options)
    return {"zeros": row["zeros"], "accuracy": row["accuracy"], "gradual": found["accuracy"]}


BY_UNIT: dict[str, Callable[..., Any]] = {
    "group lasso": sparse_training.l1,
    "L0": partial(sparse_training.l0, warm=0.3),
}


def units(seed: int, method: str, level: int) -> Row:
    """Whole units of the same network: parameters and accuracy of the really smaller one."""
    setting, test = UNITS[method][level], data.digits().test
    try:
        small = smaller(models.mlp(seed=seed), method, setting, 100 + seed)
    except ValueError as error:
        if "nothing would be left" not in str(error):
            raise
        return {"setting": setting, "accuracy": 0.0, "parameters": 0, "units": 0, "emptied": True}
    left = sum(len(w) for w in masks.prunable(small).values()) - 10
    size = structured.count(small).parameters
    row = {"setting": setting, "accuracy": accuracy(small, test), "parameters": size}
    return row | {"units": left, "emptied": False}


def smaller(net: nn.Module, method: str, setting: float, seed: int) -> nn.Module:
    """The network without the units that a method removes; it computes what the masked one does."""
    parts, options = data.digits(), {"seed": seed, "progress": False}
    if method == "magnitude":
        train: dict[str, Any] = options | {"optimizer": partial(torch.optim.Adam, lr=RATE)}
        dense, _ = fit(net, parts.train, epochs=48, **train)
        keep = structured.keep_groups(structured.unit_scores(dense), setting)
        return finish_with(structured.shrink(dense, keep), parts, {}, 12, **train)[0]
    by_unit: dict[str, Any] = {"epochs": 60, "rate": RATE, "per": "unit", **options}
    made, _, _ = BY_UNIT[method](net, parts, setting, **by_unit)
    small = structured.shrink(made, sparse_training.alive(made))
    if not torch.allclose(small(parts.test[0]), made(parts.test[0])):
        raise ValueError("the smaller network computes something else")
    return small


def on_mnist(seed: int, method: str, level: int, epochs: int = 8) -> Row:
    """LeNet-300-100, in float32."""
    setting = SETTINGS["mnist"][method][level]
    options: dict[str, Any] = {"epochs": epochs, "batch_size": 128, "seed": 100 + seed}
    options |= {"every": 100} if method == "gradual" else {}
    net = models.lenet_300_100(seed=seed).float()
    return trained(net, experiments.mnist(), method, setting, **options)


TABLES: experiments.Tables = {
    "sparse_frontier": (on_digits, FRONTIER),
    "sparse_faster": (faster_on_digits, FASTER),
    "sparse_units": (units, SMALLER),
    "sparse_matched": (matched, MATCHED),
}
ON_MNIST_TABLES: experiments.Tables = {
    "sparse_mnist": (on_mnist, PLAIN),
}

if __name__ == "__main__":
    experiments.main(TABLES, ON_MNIST_TABLES)
