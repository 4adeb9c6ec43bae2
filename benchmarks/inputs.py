"""The data of the benchmarks: MNIST where ``TEACHKIT_DATA`` leads to it, else random numbers."""

import os

import torch

from teachkit import lab
from teachkit.core.types import Batch, Data


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
