"""What several benchmarks share: data, the pass that is their unit, peers that may be absent.

The data is MNIST where ``TEACHKIT_DATA`` leads to it, else random numbers.
"""

import os
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from teachkit import lab
from teachkit.core.types import Batch, Data

PASS = "forward + backward"  # noqa: S105 -- a pass through the network, not a password


def mnist() -> Data | None:
    """MNIST if the environment variable ``TEACHKIT_DATA`` is set; a benchmark downloads nothing."""
    return lab.data.mnist() if os.environ.get("TEACHKIT_DATA") else None


def images(n: int, shape: tuple[int, int, int]) -> tuple[Batch, str]:
    """n images of a shape with class numbers 0 to 9, and what they are."""
    if shape[1:] == (8, 8):
        x, y = lab.data.digits().train
        return (x[:n], y[:n]), "digits"
    data = mnist()
    if data is not None:
        return (data.train[0][:n], data.train[1][:n]), "MNIST"
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(n, *shape, generator=generator)
    return (x, torch.randint(10, (n,), generator=generator)), "random inputs"


def one_pass(net: nn.Module, batch: Batch) -> tuple[Tensor, ...]:
    """The gradient of the mean loss for all parameters."""
    return torch.autograd.grad(cross_entropy(net(batch[0]), batch[1]), list(net.parameters()))


def lazily(make: Callable[..., Callable[[], Any]], *arguments: Any) -> Callable[[], Any]:
    """Prepare at the first run, so that a peer that is absent or cannot do it fails there."""
    made: list[Callable[[], Any]] = []

    def run() -> Any:
        if not made:
            made.append(make(*arguments))
        return made[0]()

    return run
