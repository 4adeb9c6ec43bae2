"""The exercises of lesson 09."""

import random

import torch
from torch import Tensor

from teachkit.show.task import Task


def weight(rng: random.Random) -> tuple[Tensor]:
    """A weight (outputs, inputs) as torch stores it, square so that a swap keeps its shape."""
    return (torch.tensor([[rng.uniform(-2, 2) for _ in range(4)] for _ in range(4)]),)


def channels(rng: random.Random) -> tuple[Tensor, int]:
    """Which channels stay, and how many places each has after a flatten."""
    keep = torch.tensor([True, False, *(rng.random() < 0.5 for _ in range(3))])
    return keep, rng.choice([4, 9])


def sparse(rng: random.Random) -> tuple[Tensor, int]:
    """A mask (outputs, inputs) and the bytes of one number."""
    mask = torch.tensor([[rng.random() < 0.4 for _ in range(7)] for _ in range(5)])
    mask[0, 0] = True
    return mask, rng.choice([2, 4, 8])


def csr_bytes(mask: Tensor, value: int) -> int:
    """A value and a column of 4 bytes for each weight, 4 bytes for each row, and 4 more."""
    return int(mask.sum()) * (value + 4) + 4 * (len(mask) + 1)


def constant(rng: random.Random) -> tuple[Tensor, Tensor, Tensor]:
    """The next layer's weight (outputs, units) and bias, and which units stay."""
    V = torch.tensor([[rng.uniform(-2, 2) for _ in range(5)] for _ in range(3)])
    b = torch.tensor([rng.uniform(-1, 1) for _ in range(3)])
    keep = torch.tensor([True, True, False, False, rng.random() < 0.5])
    return V, b, keep


TASKS = {
    "09.1": Task(
        draw=weight,
        answer=lambda W: W.norm(dim=1),
        mistakes={
            "these are the norms of the columns: torch stores (outputs, inputs)": (
                lambda W: W.norm(dim=0)
            ),
            "this is the L1 norm, Σ|w|; the root of Σ w² is asked for": lambda W: W.abs().sum(1),
            "take the square root": lambda W: (W**2).sum(1),
        },
    ),
    "09.2": Task(
        draw=channels,
        answer=lambda keep, places: keep.repeat_interleave(places),
        mistakes={
            "the places of one channel are neighbours: repeat each entry, not the whole row": (
                lambda keep, places: keep.repeat(places)
            ),
            "the mask is inverted: True keeps": (
                lambda keep, places: ~keep.repeat_interleave(places)
            ),
        },
    ),
    "09.3": Task(
        draw=sparse,
        answer=csr_bytes,
        mistakes={
            "every number needs its column, 4 bytes": lambda m, v: int(m.sum()) * v,
            "where each row begins is stored, too": lambda m, v: int(m.sum()) * (v + 4),
            "the row pointers are one more than the rows: the last says where the data ends": (
                lambda m, v: int(m.sum()) * (v + 4) + 4 * len(m)
            ),
            "these are the bytes of the zeros: True keeps": lambda m, v: csr_bytes(~m, v),
        },
    ),
    "09.4": Task(
        draw=constant,
        answer=lambda V, b, keep: b + 0.5 * V[:, ~keep].sum(1),
        mistakes={
            "sigmoid(0) is ½": lambda V, b, keep: b + V[:, ~keep].sum(1),
            "these are the units that stay; the others are gone": (
                lambda V, b, keep: b + 0.5 * V[:, keep].sum(1)
            ),
            "the constant must be added, so that nothing changes": (
                lambda V, b, keep: b - 0.5 * V[:, ~keep].sum(1)
            ),
            "this is what must be added to the bias; return the new bias": (
                lambda V, b, keep: 0.5 * V[:, ~keep].sum(1)
            ),
        },
    ),
}
