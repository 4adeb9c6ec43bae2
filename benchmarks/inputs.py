"""What several benchmarks share: data, the pass that is their unit, peers that may be absent.

The data is MNIST where ``TEACHKIT_DATA`` leads to it, else random numbers.
"""

import os
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from teachkit import lab
from teachkit.core.types import Batch, Data
from teachkit.lab.curves import interval
from teachkit.lab.evaluation import evaluate

PASS = "forward + backward"  # noqa: S105 -- a pass through the network, not a password


def mnist() -> Data | None:
    """MNIST if the environment variable ``TEACHKIT_DATA`` is set; a benchmark downloads nothing."""
    return lab.data.mnist() if os.environ.get("TEACHKIT_DATA") else None


def images(n: int, shape: tuple[int, int, int]) -> tuple[Batch, str]:
    """n images of a shape with class numbers 0 to 9, and what they are."""
    if shape[1:] == (8, 8):
        x, y = lab.data.digits().train
        return (x[:n], y[:n]), "digits"
    if data := mnist():
        return (data.train[0][:n], data.train[1][:n]), "MNIST"
    dice = torch.Generator().manual_seed(0)
    x = torch.rand(n, *shape, generator=dice)
    return (x, torch.randint(10, (n,), generator=dice)), "random inputs"


def one_pass(net: nn.Module, batch: Batch) -> tuple[Tensor, ...]:
    """The gradient of the mean loss for all parameters."""
    return torch.autograd.grad(cross_entropy(net(batch[0]), batch[1]), list(net.parameters()))


def accuracy(net: nn.Module, data: Data) -> float:
    """On the test batch."""
    return evaluate(net, data.test).accuracy


def words(runs: Sequence[float]) -> str:
    """The mean over runs and its 95 % interval."""
    i = interval(runs)
    return f"{i.mean:.3g} ({i.low:.3g} to {i.high:.3g})"


def lazily(make: Callable[..., Callable[[], Any]], *arguments: Any) -> Callable[[], Any]:
    """Prepare at the first run, so that a peer that is absent or cannot do it fails there."""
    made = cache(lambda: make(*arguments))
    return lambda: made()()
