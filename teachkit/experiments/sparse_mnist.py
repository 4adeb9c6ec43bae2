"""Training that prunes on MNIST, each run beside gradual magnitude with exactly as many zeros.

``TEACHKIT_DATA=… python -m teachkit.experiments.sparse_mnist`` writes three tables into data/experiments;
about an hour on one core, float32, so that their last digits depend on the processor. A run that is
interrupted goes on.

LeNet-300-100 learns from all 60,000 images; LeNet-5, whose epoch costs fifteen times as much, from the first
20,000. At equal seconds a method has fewer epochs, by what an epoch of it costs beside one of plain training
(``COST_ON_MNIST``); gradual magnitude has all eight.
"""

from typing import Any

from torch import nn

from teachkit import experiments, masks
from teachkit.core.types import Data
from teachkit.experiments.sparse_training import COST_ON_MNIST, trained
from teachkit.lab import models
from teachkit.lab.sweep import Row

SEEDS = [0, 1, 2, 3, 4]
SETTINGS = {"L1": [0.2, 0.5], "L0": [1.0, 3.0], "variational dropout": [1.0, 3.0]}
EPOCHS, ON_LENET5 = 8, 5
PRICED: experiments.Grid = {"seed": SEEDS, "method": list(SETTINGS), "level": [0, 1]}
FASTER: experiments.Grid = {"seed": SEEDS, "method": list(COST_ON_MNIST), "level": [0]}
CONVOLUTIONS: experiments.Grid = {"seed": SEEDS, "method": ["one-shot", *SETTINGS]}


def compared(
    make: Any, parts: Data, seed: int, method: str, setting: float, epochs: int, full: int
) -> Row:
    """What a method makes of a new network, and what gradual magnitude makes of it with as many zeros."""
    options: dict[str, Any] = {"batch_size": 128, "seed": 100 + seed}
    row = trained(new(make, seed), parts, method, setting, epochs=epochs, **options)
    share = row["zeros"] / sum(w.numel() for w in masks.prunable(new(make, seed)).values())
    options |= {"epochs": full, "every": 100}
    beside = trained(new(make, seed), parts, "gradual", share, **options)
    return row | {"gradual": beside["accuracy"], "gradual_zeros": beside["zeros"]}


def new(make: Any, seed: int) -> nn.Module:
    """A network in float32."""
    net: nn.Module = make(seed=seed).float()
    return net


def priced(seed: int, method: str, level: int) -> Row:
    """LeNet-300-100 at equal epochs."""
    setting, parts = SETTINGS[method][level], experiments.mnist()
    return compared(models.lenet_300_100, parts, seed, method, setting, EPOCHS, EPOCHS)


def faster(seed: int, method: str, level: int) -> Row:
    """LeNet-300-100 at equal seconds."""
    setting, epochs = SETTINGS[method][level], round(EPOCHS / COST_ON_MNIST[method])
    parts = experiments.mnist()
    return compared(models.lenet_300_100, parts, seed, method, setting, epochs, EPOCHS)


def lenet5(seed: int, method: str) -> Row:
    """LeNet-5 at equal epochs, on the first 20,000 images."""
    train, test = experiments.mnist()
    parts = Data((train[0][:20_000], train[1][:20_000]), test)
    setting = 0.95 if method == "one-shot" else SETTINGS[method][0]
    return compared(models.lenet5, parts, seed, method, setting, ON_LENET5, ON_LENET5)


ON_MNIST_TABLES: experiments.Tables = {
    "sparse_mnist_lenet5": (lenet5, CONVOLUTIONS),
    "sparse_mnist_priced": (priced, PRICED),
    "sparse_mnist_faster": (faster, FASTER),
}

if __name__ == "__main__":
    experiments.main({}, ON_MNIST_TABLES)
