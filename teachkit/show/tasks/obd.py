"""The exercises of lesson 04."""

import random
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from teachkit.show.task import Task
from teachkit.show.tasks.taylor import curved, full, generator


def saliencies(rng: random.Random) -> tuple[Tensor, Tensor]:
    """Curvatures, not all positive, and weights."""
    h, w = torch.randn(2, 4, generator=generator(rng), dtype=torch.float64)
    return h, w


def place(rng: random.Random) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """A function of three numbers with a full Hessian, and a place."""
    f, at, _ = curved(rng)
    return f, at


def softmax(rng: random.Random) -> tuple[Tensor, Tensor]:
    """Inputs (5, 3) of a layer and the probabilities (5, 4) after it."""
    a = torch.randn(5, 3, generator=generator(rng), dtype=torch.float64)
    z = torch.randn(5, 4, generator=generator(rng), dtype=torch.float64)
    return a, z.softmax(1)


def kept_sets(rng: random.Random) -> tuple[Tensor, Tensor, Tensor]:
    """A positive definite Hessian (4, 4), weights at the minimum, and which of them stay."""
    A = torch.randn(4, 6, generator=generator(rng), dtype=torch.float64)
    w = torch.randn(4, generator=generator(rng), dtype=torch.float64)
    keep = torch.tensor(rng.choice([[True, False, True, False], [False, False, True, True]]))
    return A @ A.T, w, keep


def last_layer(a: Tensor, p: Tensor) -> Any:
    """The diagonal for the weights of the last layer, (outputs, inputs)."""
    return (p * (1 - p)).T @ a**2 / len(a)


def step(w: Tensor, keep: Tensor) -> Tensor:
    """δ: −w where a weight goes."""
    return torch.where(keep, 0.0, -w)


TASKS = {
    "04.1": Task(
        draw=saliencies,
        answer=lambda h, w: 0.5 * h * w**2,
        mistakes={
            "the factor ½ is missing": lambda h, w: h * w**2,
            "the weight must be squared": lambda h, w: 0.5 * h * w,
            "do not take the absolute value: a saliency may be negative": lambda h, w: (
                0.5 * h.abs() * w**2
            ),
        },
    ),
    "04.2": Task(
        draw=place,
        answer=lambda f, at: full(f, at).diagonal(),
        mistakes={
            "these are the row sums: the gradient was summed before it was differentiated": (
                lambda f, at: full(f, at).sum(1)
            ),
            "this is the gradient; differentiate once more": lambda f, at: torch.func.grad(f)(at),
            "this is the whole Hessian; only its diagonal is wanted": full,
        },
    ),
    "04.3": Task(
        draw=softmax,
        answer=last_layer,
        mistakes={
            "divide by the number of samples: the loss is a mean": lambda a, p: (
                (p * (1 - p)).T @ a**2
            ),
            "the input must be squared": lambda a, p: (p * (1 - p)).T @ a / len(a),
            "the curvature at output i is p_i (1 − p_i), not p_i": lambda a, p: p.T @ a**2 / len(a),
        },
    ),
    "04.4": Task(
        draw=kept_sets,
        answer=lambda H, w, keep: (
            0.5 * step(w, keep) @ H @ step(w, keep)
            - (0.5 * H.diagonal() * step(w, keep) ** 2).sum()
        ),
        mistakes={
            "this is the whole quadratic term; take the saliencies off": lambda H, w, keep: (
                0.5 * step(w, keep) @ H @ step(w, keep)
            ),
            "these are the saliencies; the cross terms are what is missing from them": (
                lambda H, w, keep: (0.5 * H.diagonal() * step(w, keep) ** 2).sum()
            ),
            "keep is True where a weight stays; the step is −w where it is False": (
                lambda H, w, keep: (
                    0.5 * step(w, ~keep) @ H @ step(w, ~keep)
                    - (0.5 * H.diagonal() * step(w, ~keep) ** 2).sum()
                )
            ),
        },
    ),
}
