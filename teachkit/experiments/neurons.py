"""Whole units: delete, merge or repair, on three networks; and what equal parameters are worth.

``python -m teachkit.experiments.neurons`` writes three tables into data/experiments; about
ten minutes on one core. A run that is interrupted goes on.
"""

from typing import Any

import torch
from torch import nn

from teachkit import experiments, magnitude, masks, neurons, obd, obs
from teachkit.lab import data, models, sweep
from teachkit.lab.evaluation import evaluate
from teachkit.lab.training import fit

DRAWS = 20
SEEDS = list(range(5))
SHARES = [0.125, 0.25, 0.5, 0.75, 0.875]
NETS = {
    "A": "64-64-32-10 ReLU, 30 epochs",
    "C": "64-256-128-10 ReLU, 30 epochs",
    "D": "as A, 60 epochs, rate falling to zero",
}
REPAIR = " + least squares"
MAIN: dict[str, list[Any]] = {
    "net": list(NETS),
    "seed": SEEDS,
    "method": [m for m in neurons.METHODS if m != "greedy"]
    + [m + REPAIR for m in neurons.CRITERIA],
    "share": SHARES,
}
GREEDY: dict[str, list[Any]] = {"net": ["A", "D"], "seed": SEEDS, "share": SHARES}
WAYS = [
    *("units, surgeon", "units, magnitude"),
    *("weights, magnitude", "weights, repaired", "weights, OBD"),
    "from scratch",
]
EQUAL: dict[str, list[Any]] = {
    "net": ["A", "C"],
    "seed": SEEDS,
    "way": WAYS,
    "share": [0.5, 0.75, 0.875],
}


def trained(net: str, seed: int) -> nn.Module:
    """A network of the tables, trained on the digits with Adam."""
    if net == "D":
        return experiments.trained(seed, epochs=60, falling=3e-3)
    return experiments.trained(seed, hidden=(256, 128) if net == "C" else (64, 32))


def main_cell(net: str, seed: int, method: str, share: float) -> dict[str, Any]:
    """Test accuracy without a share of every hidden layer, nothing fine-tuned.

    Random: the mean of 20 draws.
    """
    whole, parts = trained(net, seed), data.digits()
    criterion, repaired = method.removesuffix(REPAIR), method.endswith(REPAIR)
    draws = DRAWS if criterion == "random" else 1
    found = []
    for draw in range(draws):
        dice = torch.Generator().manual_seed(1000 * seed + draw)
        small = neurons.prune(
            whole, parts.train, share, criterion, repaired=repaired, generator=dice
        )
        found.append(evaluate(small, parts.test).accuracy)
    return {"accuracy": sum(found) / draws}


def greedy_cell(net: str, seed: int, share: float) -> dict[str, Any]:
    """As :func:`main_cell`, for leave-one-out measured again after every unit."""
    return main_cell(net, seed, "greedy", share)


def equal_cell(net: str, seed: int, way: str, share: float) -> dict[str, Any]:
    """Test accuracy at equally many weights; pruned networks are fine-tuned for 3 epochs.

    The network from scratch has the widths of the one without units and trains for 33 epochs.
    "weights, repaired" are chosen by magnitude, and every layer is then refitted by least squares.
    """
    whole, parts = trained(net, seed), data.digits()
    method = "surgeon" if way == "units, surgeon" else "magnitude"
    small = neurons.prune(whole, parts.train, share, method)
    weights = sum(w.numel() for w in masks.prunable(small).values())
    start, kept, epochs = small, None, 3
    if way == "from scratch":
        start, epochs = models.mlp(hidden=_widths(small), seed=100 + seed), 33
    elif way.startswith("weights"):
        scores = obd.scores(whole, parts.train) if way.endswith("OBD") else magnitude.scores(whole)
        total = sum(w.numel() for w in masks.prunable(whole).values())
        kept = masks.keep_top(scores, 1 - weights / total)
        start = masks.apply(whole, kept)
        if way.endswith("repaired"):
            start = obs.refit_layers(whole, parts.train, kept)
    done, _ = fit(start, parts.train, epochs=epochs, masks=kept, seed=100 + seed, progress=False)
    return {"weights": weights, "accuracy": evaluate(done, parts.test).accuracy}


def _widths(model: nn.Module) -> list[int]:
    """The widths of the hidden layers."""
    return [len(model.get_parameter(f"{layer.name}.weight")) for layer in neurons.hidden(model)]


TABLES: dict[str, tuple[sweep.Cell, dict[str, list[Any]]]] = {
    "neurons": (main_cell, MAIN),
    "neurons_greedy": (greedy_cell, GREEDY),
    "neurons_equal": (equal_cell, EQUAL),
}


def main() -> None:
    """Run the grids and write their tables."""
    experiments.write(TABLES)


if __name__ == "__main__":
    main()
