"""The networks of the tables: trained on the digits, and trained on once they are pruned."""

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR

from teachkit import experiments
from teachkit.core.types import Masks
from teachkit.lab import data, models
from teachkit.lab.evaluation import accuracy
from teachkit.lab.training import fit


def annealed(optimizer: Callable[..., Any], rate: float, epochs: int) -> dict[str, Any]:
    """Options of :func:`fit`: the rate falls to zero along a cosine."""
    return {
        "epochs": epochs,
        "optimizer": partial(optimizer, lr=rate),
        "scheduler": partial(CosineAnnealingLR, T_max=epochs),
    }


NETS = {
    "A": "64-64-32-10 ReLU, 30 epochs",
    "B": "as A, tanh",
    "C": "64-256-128-10 ReLU",
    "D": "as A, 60 epochs, rate falling to zero",
    "F": "as A, 300 epochs",
    "I": "as A, full batch, 1000 steps, rate falling to zero",
}
STARTS = {
    "B": partial(models.mlp, activation=nn.Tanh),
    "C": partial(models.mlp, hidden=(256, 128)),
}
OPTIONS: dict[str, dict[str, Any]] = {
    "D": annealed(torch.optim.Adam, 3e-3, 60),
    "F": {"epochs": 300},
    "I": annealed(torch.optim.Adam, 5e-3, 1000) | {"batch_size": 1400},
}


@cache
def trained(start: Callable[..., nn.Module], seed: int, **options: Any) -> nn.Module:
    """A network trained on the digits; ``start`` makes it from a seed, the options are those of ``fit``."""
    return fit(start(seed=seed), data.digits().train, seed=seed, progress=False, **options)[0]


def chain(net: str, seed: int) -> nn.Module:
    """A network of ``NETS``."""
    return trained(STARTS.get(net, models.mlp), seed, **OPTIONS.get(net, {}))


@cache
def lenet(seed: int) -> nn.Module:
    """LeNet-300-100 after five epochs on MNIST in float32, Adam with a rate of 0.001."""
    start, train = models.lenet_300_100(seed=seed).float(), experiments.mnist().train
    return fit(start, train, epochs=5, batch_size=128, seed=seed, progress=False)[0]


def retrained(net: nn.Module, seed: int, masks: Masks | None = None, **options: Any) -> float:
    """Test accuracy after training on the digits; what the masks remove is zero from the start."""
    train, test = data.digits()
    again, _ = fit(net, train, masks=masks, seed=100 + seed, progress=False, **options)
    return accuracy(again, test)
