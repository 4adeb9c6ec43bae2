"""Lesson 10: its exercises, one of which is an experiment."""

import math
import random
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from teachkit import lab, masks, sparse_training
from teachkit.lab.evaluation import accuracy
from teachkit.show.exercises import Task, normal, uniform
from teachkit.show.trials import Scored, Trial

ENOUGH = 0.9  # test accuracy that a deep network must keep


def drawn_gates(rng: random.Random) -> tuple[Tensor, Tensor, float]:
    """log α, uniform draws and a temperature: some gates shut, some open, some between."""
    u = torch.tensor([0.002, 0.998, 0.4, 0.5, 0.6, rng.uniform(0.1, 0.9)])
    return uniform(rng, -1, 1, 6), u, rng.choice([0.5, 2 / 3, 0.8])


def unclipped(log_alpha: Tensor, u: Tensor, beta: float) -> Tensor:
    """The gate before it is cut off at 0 and 1."""
    return 1.2 * torch.sigmoid((torch.logit(u) + log_alpha) / beta) - 0.1


def rows_of(rng: random.Random) -> tuple[Tensor, float]:
    """Weights of units, some of which go, and a threshold."""
    W, t = normal(rng, 4, 3), rng.uniform(0.4, 0.7)
    return W * torch.tensor([[0.1], [2.0], [0.2], [3.0]]), t


def rescued(answer: Any) -> Scored:
    """L0 on eight hidden layers with these settings: the zeros count, if the network still reads."""
    given = list(answer) if isinstance(answer, Sequence) and not isinstance(answer, str) else []
    real = [a for a in given if isinstance(a, (int, float)) and math.isfinite(a)]
    if len(given) != 3 or len(real) != 3:
        raise ValueError("return three numbers: strength, initial, warm")
    strength, initial, warm = map(float, real)
    if not 0 <= strength <= 100 or not 0 < initial < 1 or not 0 <= warm <= 1:
        raise ValueError("strength must lie in 0 … 100, initial between 0 and 1, warm in 0 … 1")
    digits = lab.data.digits()
    net, kept, _ = sparse_training.l0(
        lab.models.mlp(hidden=(64,) * 8, seed=73),
        digits,
        strength,
        initial=initial,
        warm=warm,
        epochs=40,
        seed=73,
        on_empty="allow",
        progress=False,
    )
    reached, zeros = accuracy(net, digits.test), masks.sparsity(kept)
    told = f"Test accuracy {reached:.3f} with {zeros:.1%} zeros"
    if reached < ENOUGH:
        return Scored(False, f"{told}; {ENOUGH} is asked for.")
    return Scored(True, f"{told}. Score: {100 * zeros:.1f}.")


WITH = torch.tensor([-1.7, 1.9, 0.2])  # weights that go to each side of a threshold

TASKS = {
    "10.1": Task(
        draw=lambda rng: (
            *(torch.cat([normal(rng, 6), WITH]), rng.uniform(0.5, 1.2)),
            rng.uniform(0.4, 1.5),
        ),
        answer=lambda w, t, d: sparse_training.soft_threshold(w, t) / (1 + d),
        mistakes={
            "this is the hard threshold: what stays must move towards zero, too": lambda w, t, d: (
                torch.where(w.abs() > t, w, 0.0) / (1 + d)
            ),
            "the sign is lost: a negative weight stays negative": lambda w, t, d: (
                (w.abs() - t).clamp(min=0) / (1 + d)
            ),
            "nothing is zero yet: below the threshold the answer is 0": lambda w, t, d: (
                (w - t * w.sign()) / (1 + d)
            ),
            "this is what v² does: it shrinks all and makes no zero": lambda w, t, d: w / (1 + d),
            "½ d v² is left out: its slope is d v": lambda w, t, d: sparse_training.soft_threshold(
                w, t
            ),
            "1 + d divides all that is left of w, after t is taken away": lambda w, t, d: (
                sparse_training.soft_threshold(w / (1 + d), t)
            ),
        },
    ),
    "10.2": Task(
        draw=drawn_gates,
        answer=sparse_training.gate,
        mistakes={
            "cut off at 0 and 1": unclipped,
            "stretch first, from (0, 1) to (−0.1, 1.1)": lambda a, u, beta: torch.sigmoid(
                (torch.logit(u) + a) / beta
            ),
            "divide by the temperature": lambda a, u, beta: sparse_training.gate(a, u, 1.0),
            "this is the gate without chance; u is missing": lambda a, u, beta: (
                sparse_training.settled_gate(a)
            ),
        },
    ),
    "10.3": Task(
        draw=rows_of,
        answer=lambda W, t: W * sparse_training.group_factor(W, t)[:, None],
        mistakes={
            "this makes single weights zero; a row goes as a whole": sparse_training.soft_threshold,
            "the root of the size of a group is missing": lambda W, t: (
                W * sparse_training.group_factor(W, t / 3**0.5)[:, None]
            ),
            "the units are the rows": lambda W, t: (
                (W.T * sparse_training.group_factor(W.T, t)[:, None]).T
            ),
        },
    ),
}
TRIALS = {"10.4": Trial(ask=lambda: (), judge=rescued)}
