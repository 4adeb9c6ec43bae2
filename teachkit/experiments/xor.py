"""Which weight of an XOR network can go? Every single removal tried, and what each method picks.

Source: Hassibi & Stork, Second order derivatives for network pruning, NIPS 1992, figure 2.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from teachkit.experiments import classics
from teachkit.experiments.classics import METHODS, RIDGE, accuracy, train
from teachkit.lab import data


class Xor(NamedTuple):
    """What the first removal does to B XOR networks, boolean, (B,), by method.

    ``deletable``: the weight chosen can go, XOR is solved after retraining without it. ``solved``:
    with the method's own step, XOR is solved at once. ``updated``: it is with the step of OBS for
    the weight chosen. ``any_deletable`` and ``any_solved`` say the same of the best of all n single
    removals, the yardstick.
    """

    deletable: dict[str, Tensor]
    solved: dict[str, Tensor]
    updated: dict[str, Tensor]
    any_deletable: Tensor
    any_solved: dict[str, Tensor]


def nets(seeds: int = 80, *, decay: float = 1e-3) -> Tensor:
    """The 2-2-1 networks, of this many random starts, that solve XOR, (B, 9)."""
    batch = data.xor().train
    theta = train(classics.starts(range(seeds), classics.count(2, 2)), batch, decay=decay)
    return theta[accuracy(theta, batch) == 1]


def removals(theta: Tensor, *, decay: float = 1e-3, ridge: float = RIDGE) -> Xor:
    """Try every single removal from XOR networks (B, 9), and look at those that the methods choose."""
    batch = data.xor().train
    all_keep = torch.ones_like(theta, dtype=torch.bool)
    H = classics.gauss_newton(theta, batch[0], all_keep, ridge)
    chosen = {m: classics.choice(theta, H, all_keep, m)[0][:, None] for m in METHODS}
    zeroed, updated, keep = _every_removal(theta, H)
    retrained = train(zeroed, batch, decay=decay, keep=keep)
    works = {"OBS": updated, "OBD": zeroed, "magnitude": zeroed, "retrained": retrained}
    right = {m: (accuracy(t, batch) == 1).reshape(theta.shape) for m, t in works.items()}
    return Xor(
        {m: right["retrained"].gather(1, q)[:, 0] for m, q in chosen.items()},
        {m: right[m].gather(1, q)[:, 0] for m, q in chosen.items()},
        {m: right["OBS"].gather(1, q)[:, 0] for m, q in chosen.items()},
        right["retrained"].any(1),
        {m: right[m].any(1) for m in METHODS},
    )


def _every_removal(theta: Tensor, H: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Each network without each weight: zeroed, with the step of OBS, and what is kept, (B·n, n)."""
    B, n = theta.shape
    keep = ~torch.eye(n, dtype=torch.bool).repeat(B, 1)
    updated = (theta[:, None] + classics.every_update(theta, torch.linalg.inv(H))).reshape(B * n, n)
    return theta.repeat_interleave(n, 0) * keep, updated * keep, keep
