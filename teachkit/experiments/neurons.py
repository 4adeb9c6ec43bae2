"""Whole units: delete, merge or repair, on three networks; and what equal parameters are worth.

``python -m teachkit.experiments.neurons`` writes three tables into data/experiments; about
ten minutes on one core. A run that is interrupted goes on.
"""

from functools import partial

import torch
from torch import nn

from teachkit import experiments, magnitude, masks, neurons, obd, obs
from teachkit.experiments.networks import chain, retrained
from teachkit.lab import data, models
from teachkit.lab.evaluation import accuracy
from teachkit.lab.sweep import Row

DRAWS = 20
SEEDS = [0, 1, 2, 3, 4]
SHARES = [0.125, 0.25, 0.5, 0.75, 0.875]
REPAIR = " + least squares"
GREEDY: experiments.Grid = {"net": ["A", "D"], "seed": SEEDS, "share": SHARES}
MAIN: experiments.Grid = {
    "net": ["A", "C", "D"],
    "seed": SEEDS,
    "method": [m for m in neurons.METHODS if m != "greedy"]
    + [m + REPAIR for m in neurons.CRITERIA],
    "share": SHARES,
}
EQUAL: experiments.Grid = {
    "net": ["A", "C"],
    "seed": SEEDS,
    "way": [
        *("units, surgeon", "units, magnitude"),
        *("weights, magnitude", "weights, repaired", "weights, OBD"),
        "from scratch",
    ],
    "share": [0.5, 0.75, 0.875],
}


def main_cell(net: str, seed: int, method: str, share: float) -> Row:
    """Test accuracy without a share of every hidden layer, nothing fine-tuned; random: of 20 draws."""
    whole, (train, test) = chain(net, seed), data.digits()
    criterion, repaired = method.removesuffix(REPAIR), method.endswith(REPAIR)
    draws = DRAWS if criterion == "random" else 1
    total = 0.0
    for draw in range(draws):
        dice = torch.Generator().manual_seed(1000 * seed + draw)
        small = neurons.prune(whole, train, share, criterion, repaired=repaired, generator=dice)
        total += accuracy(small, test)
    return {"accuracy": total / draws}


def equal_cell(net: str, seed: int, way: str, share: float) -> Row:
    """Test accuracy at equally many weights; pruned networks are fine-tuned for 3 epochs.

    The network from scratch has the widths of the one without units and trains for 33 epochs.
    "weights, repaired" are chosen by magnitude, and every layer is then refitted by least squares.
    """
    whole, train = chain(net, seed), data.digits().train
    small = neurons.prune(whole, train, share, "surgeon" if "surgeon" in way else "magnitude")
    start, kept, epochs = small, None, 3
    if way == "from scratch":
        widths = [len(small.get_parameter(f"{at.name}.weight")) for at in neurons.hidden(small)]
        start, epochs = models.mlp(hidden=widths, seed=100 + seed), 33
    elif way.startswith("weights"):
        scores = obd.scores(whole, train) if way.endswith("OBD") else magnitude.scores(whole)
        kept = masks.keep_top(scores, 1 - _weights(small) / _weights(whole))
        start = obs.refit_layers(whole, train, kept) if way.endswith("repaired") else whole
    return {"weights": _weights(small), "accuracy": retrained(start, seed, kept, epochs=epochs)}


def _weights(model: nn.Module) -> int:
    return sum(w.numel() for w in masks.prunable(model).values())


TABLES: experiments.Tables = {
    "neurons": (main_cell, MAIN),
    "neurons_greedy": (partial(main_cell, method="greedy"), GREEDY),
    "neurons_equal": (equal_cell, EQUAL),
}

if __name__ == "__main__":
    experiments.write(TABLES)
