"""A small network that is taught: beside training from new weights, beside pruning, and after pruning.

``python -m teachkit.experiments.distillation`` writes five tables into data/experiments; about twenty
minutes on one core. A run that is interrupted goes on.
"""

from functools import partial
from typing import Any

import torch
from torch import nn

from teachkit import compression, experiments, magnitude, masks, neurons
from teachkit.core import criteria
from teachkit.core.types import Data, Masks
from teachkit.experiments import settings
from teachkit.experiments.networks import annealed
from teachkit.lab import models
from teachkit.lab.evaluation import accuracy
from teachkit.lab.sweep import Row
from teachkit.lab.training import fit

SEEDS = [0, 1, 2, 3, 4]
EPOCHS = 30  # of every student
TEACHERS = {"digits": "C, rate falling", "MNIST-1D": "1D, 256"}
NEW = ["labels", *(f"teacher, T = {T}" for T in (1, 2, 4, 16))]
PRUNED = ["units, labels", "units, teacher", "weights, labels", "weights, teacher"]
EQUAL: experiments.Grid = {
    "data": ["digits"],
    "seed": SEEDS,
    "share": [0.75, 0.875, 0.9375],
    "way": NEW + PRUNED,
}
HARDER: experiments.Grid = {
    "data": ["MNIST-1D"],
    "seed": SEEDS,
    "share": [0.75],
    "way": [*NEW[:2], NEW[3], *PRUNED[:2]],
}
LONGER: experiments.Grid = {
    "seed": SEEDS,
    "share": [0.875],
    "way": [NEW[0], NEW[1], NEW[3]],
    "epochs": [30, 120, 480],
}
FEW: experiments.Grid = {"seed": SEEDS, "samples": [50, 100, 200, 400, 1400], "way": NEW}
CRITERIA = ["random", "magnitude", "Wanda", "OBD", "OBS by layers", "OBS in one pass"]
RANKING: experiments.Grid = {"seed": SEEDS, "sparsity": [0.95], "criterion": CRITERIA}
QUIET: dict[str, Any] = {"progress": False}


def equal_cell(data: str, seed: int, share: float, way: str, epochs: int = EPOCHS) -> Row:
    """Test accuracy at equally many weights after 30 epochs, the rate falling to zero, T = 4 if not said.

    New weights; or the teacher without a share of its units, or with as many of its weights as these have.
    """
    parts, teacher = settings.samples(TEACHERS[data]), settings.network(TEACHERS[data], seed)
    small = neurons.prune(teacher, parts.train, share, "magnitude")
    start, kept = small, None
    if way in NEW:
        widths = [len(small.get_parameter(f"{at.name}.weight")) for at in neurons.hidden(small)]
        start = models.mlp(parts.train[0].shape[1:], hidden=widths, seed=100 + seed)
    elif way.startswith("weights"):
        kept = magnitude.keep_largest(teacher, 1 - _weights(small) / _weights(teacher))
        start = teacher
    options: dict[str, Any] = annealed(torch.optim.Adam, 3e-3, epochs) | QUIET
    options |= {"seed": 200 + seed, "masks": kept}
    made = taught(start, teacher, parts, way, **options)
    row = {"weights": _weights(small), "accuracy": accuracy(made, parts.test)}
    return row | {"teacher": accuracy(teacher, parts.test)}


def taught(
    start: nn.Module, teacher: nn.Module, parts: Data, way: str, **options: Any
) -> nn.Module:
    """Trained on the labels, or by the teacher at the temperature that the way names, else 4."""
    if "labels" in way:
        return fit(start, parts.train, **options)[0]
    T = float(way.rpartition(" ")[2]) if "=" in way else 4.0
    told = compression.soft_targets(teacher, parts).train
    return fit(start, told, loss=compression.soft_loss(T), **options)[0]


def few_cell(seed: int, samples: int, way: str) -> Row:
    """Network A on the first samples only, in equally many steps; its teacher has seen all 1400."""
    (x, y), test = settings.samples(TEACHERS["digits"])
    teacher = settings.network(TEACHERS["digits"], seed)
    options = annealed(torch.optim.Adam, 3e-3, EPOCHS * len(x) // samples) | QUIET
    start = models.mlp(seed=100 + seed)
    made = taught(start, teacher, Data((x[:samples], y[:samples]), test), way, seed=seed, **options)
    return {"accuracy": accuracy(made, test)}


def _weights(model: nn.Module) -> int:
    return sum(w.numel() for w in masks.prunable(model).values())


def ranking_cell(seed: int, sparsity: float, criterion: str) -> Row:
    """Network C pruned by a criterion: accuracy at once, after 3 epochs, and after 20, of each kind."""
    name = TEACHERS["digits"]
    net, parts = settings.network(name, seed), settings.samples(name)
    cut, kept = _pruned(net, parts, criterion, sparsity, seed)
    row: Row = {"before": accuracy(cut, parts.test)}
    for epochs in (3, 20):
        options: dict[str, Any] = {"epochs": epochs, "seed": 300 + seed, "masks": kept, **QUIET}
        row[f"labels, {epochs}"] = accuracy(fit(cut, parts.train, **options)[0], parts.test)
        taught, _ = compression.distil(net, cut, parts, **options)
        row[f"teacher, {epochs}"] = accuracy(taught, parts.test)
    return row


def _pruned(
    net: nn.Module, parts: Data, criterion: str, sparsity: float, seed: int
) -> tuple[nn.Module, Masks]:
    if criterion in criteria.PRUNES:
        made: tuple[nn.Module, Masks] = criteria.PRUNES[criterion].function(
            net, parts.train, sparsity
        )
        return made
    dice = torch.Generator().manual_seed(seed)
    scores = (
        magnitude.random_scores(net, dice)
        if criterion == "random"
        else criteria.SCORES[criterion].function(net, parts.train)
    )
    kept = masks.keep_top(scores, sparsity)
    return masks.apply(net, kept), kept


TABLES: experiments.Tables = {
    "distillation": (equal_cell, EQUAL),
    "distillation_few": (few_cell, FEW),
    "distillation_ranking": (ranking_cell, RANKING),
    "distillation_1d": (equal_cell, HARDER),
    "distillation_longer": (partial(equal_cell, "digits"), LONGER),
}

if __name__ == "__main__":
    experiments.write(TABLES)
