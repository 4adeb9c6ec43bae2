"""The exercise of lesson 00."""

import random

import torch
from torch import Tensor

from teachkit import masks
from teachkit.show.task import Task


def weights(rng: random.Random) -> tuple[Tensor]:
    """A weight matrix with some zeros, never half of them."""
    w = torch.tensor(
        [[rng.choice([0.0, 0.0, 0.0, rng.gauss(0, 1)]) for _ in range(5)] for _ in range(3)]
    )
    w[0, 0], w[1, 1] = 1.0, 0.0
    return (w,)


TASKS = {
    "00.1": Task(
        draw=weights,
        answer=lambda w: masks.sparsity({"w": w != 0}),
        mistakes={
            "this is the density, the fraction that stays; sparsity is the fraction of zeros": (
                lambda w: 1 - masks.sparsity({"w": w != 0})
            ),
            "this is the number of zeros; sparsity is their fraction": lambda w: int(
                (w == 0).sum()
            ),
        },
    ),
}
