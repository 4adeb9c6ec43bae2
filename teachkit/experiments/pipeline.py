"""Pruning, sharing values and distillation together: in which order, and how small at no loss.

``python -m teachkit.experiments.pipeline`` writes two tables into data/experiments; about ten minutes on one
core. A run that is interrupted goes on.
"""

from collections.abc import Mapping
from copy import copy, deepcopy
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import nn

from teachkit import compression, experiments, masks, obd
from teachkit.core.types import Data, Masks
from teachkit.engine.sharing import Shared
from teachkit.experiments import settings
from teachkit.experiments.distillation import QUIET, SEEDS, TEACHERS
from teachkit.experiments.networks import annealed
from teachkit.lab import data, models
from teachkit.lab.evaluation import accuracy
from teachkit.lab.sweep import Row
from teachkit.lab.training import fit

ORDERS: experiments.Grid = {
    "seed": SEEDS,
    "level": ["mild", "hard"],
    "order": ["PDQ", "PQD", "DPQ", "DQP", "QPD", "QDP", "P-Q", "---"],
}
LEVELS = {"mild": (0.8, 3), "hard": (0.9, 2)}  # sparsity, bits
STAGE = 15  # epochs of each of the four stages
SMALLEST: experiments.Grid = {
    "seed": SEEDS,
    "taught": [False, True],
    "sparsity": [0.0, 0.8, 0.9, 0.95],
    "bits": [32, 4, 3, 2],
}
HELD_BACK = 300  # training samples by which a setting is chosen; the test samples only judge it


class Stand:
    """A network on its way: what is pruned stays zero, what is shared stays shared, whoever trains it."""

    def __init__(self, model: nn.Module, teacher: nn.Module, parts: Data, seed: int) -> None:
        self.model, self.teacher, self.parts, self.seed = model, teacher, parts, seed
        self.kept: Masks | None = None
        self.books: Mapping[str, Shared] | None = None

    def prune(self, sparsity: float) -> None:
        """Cut by OBD's saliency, which tells weights of one value apart."""
        self.kept = masks.keep_top(obd.scores(self.model, self.parts.train), sparsity)
        self.model = masks.apply(self.model, self.kept)
        if self.books:
            self.books = {
                name: book._replace(labels=book.labels.masked_fill(~self.kept[name], -1))
                for name, book in self.books.items()
            }

    def share(self, bits: int) -> None:
        """Give each layer 2^bits values; the smallest file has them as words of Huffman's."""
        self.model, self.books = compression.share_layers(self.model, bits)

    def train(self, epochs: int, taught: bool) -> None:
        """Train what is free, on the labels or on the teacher's soft targets, the rate falling to zero."""
        self.seed += 1
        options: dict[str, Any] = (
            annealed(torch.optim.Adam, 3e-3, epochs) | QUIET | {"seed": self.seed}
        )
        parts = self.parts
        if taught:
            parts = compression.soft_targets(self.teacher, parts)
            options["loss"] = compression.soft_loss()
        if self.books:
            self.model, self.books, _ = compression.tune(
                self.model, self.books, parts.train, **options
            )
        else:
            self.model, _ = fit(self.model, parts.train, masks=self.kept, **options)

    def bytes(self) -> int:
        """The smallest file of the network in float32."""
        with TemporaryDirectory() as folder:
            return compression.save(Path(folder) / "a", deepcopy(self.model).float())


def orders_cell(seed: int, level: str, order: str) -> Row:
    """Network A: 15 epochs on labels, then P, D and Q in some order with 15 epochs each.

    P prunes and Q shares values before their epochs on labels; D's epochs are the teacher's. A "-" is 15
    more epochs on labels. What was done before is held: zeros stay, and of shared values the centres train.
    """
    name, (sparsity, bits) = TEACHERS["digits"], LEVELS[level]
    teacher, parts = settings.network(name, seed), settings.samples(name)
    on = Stand(models.mlp(seed=100 + seed), teacher, parts, 1000 * seed)
    on.train(STAGE, taught=False)
    for stage in order:
        if stage == "P":
            on.prune(sparsity)
        if stage == "Q":
            on.share(bits)
        on.train(STAGE, taught=stage == "D")
    return {"accuracy": accuracy(on.model, parts.test), "bytes": on.bytes()}


@cache
def _start(seed: int, taught: bool) -> tuple[Stand, Data]:
    """Network A on its way, with the samples to choose by, and the data to judge by."""
    (x, y), test = data.digits()
    train, held = (x[:-HELD_BACK], y[:-HELD_BACK]), (x[-HELD_BACK:], y[-HELD_BACK:])
    options: dict[str, Any] = annealed(torch.optim.Adam, 3e-3, 60) | QUIET | {"seed": seed}
    teacher, _ = fit(models.mlp(hidden=(256, 128), seed=seed), train, **options)
    on = Stand(models.mlp(seed=100 + seed), teacher, Data(train, held), 1000 * seed)
    on.train(40, taught)
    return on, Data(train, test)


@cache
def _sparse(seed: int, taught: bool, sparsity: float) -> Stand:
    on = copy(_start(seed, taught)[0])
    for share in (1 - (1 - sparsity) ** 0.5, sparsity):
        if sparsity:
            on.prune(share)
        on.train(20, taught)
    return on


def smallest_cell(seed: int, taught: bool, sparsity: float, bits: int) -> Row:
    """Network A pruned in two steps, then with 2^bits shared values a layer; 20 epochs after each.

    Accuracy on samples held back, by which one chooses, and on the test samples; bytes of the smallest file.
    """
    on, judged = copy(_sparse(seed, taught, sparsity)), _start(seed, taught)[1].test
    if bits < 32:
        on.share(bits)
    on.train(20, taught)
    held = accuracy(on.model, on.parts.test)
    return {"held back": held, "accuracy": accuracy(on.model, judged), "bytes": on.bytes()}


TABLES: experiments.Tables = {
    "compression_orders": (orders_cell, ORDERS),
    "compression_smallest": (smallest_cell, SMALLEST),
}

if __name__ == "__main__":
    experiments.write(TABLES)
