"""The exercises of lesson 05."""

import random

import torch
from torch import Tensor

from teachkit import obs
from teachkit.show.task import Task
from teachkit.show.tasks.taylor import generator


def quadratic(rng: random.Random) -> tuple[Tensor, Tensor]:
    """Four weights and the inverse (4, 4) of a positive definite matrix."""
    A = torch.randn(4, 6, generator=generator(rng), dtype=torch.float64)
    w = torch.randn(4, generator=generator(rng), dtype=torch.float64)
    return w, torch.linalg.inv(A @ A.T)


def with_position(rng: random.Random) -> tuple[Tensor, Tensor, int]:
    """The same, and which weight goes."""
    return *quadratic(rng), rng.randrange(4)


def inverse_and_position(rng: random.Random) -> tuple[Tensor, int]:
    """The inverse (4, 4) and which weight goes."""
    return quadratic(rng)[1], rng.randrange(4)


def with_pair(rng: random.Random) -> tuple[Tensor, Tensor, list[int]]:
    """The same, and two weights that go together."""
    return *quadratic(rng), sorted(rng.sample(range(4), 2))


def zeroed(w: Tensor, q: int) -> Tensor:
    """The step that only sets weight q to zero."""
    return torch.where(torch.arange(len(w)) == q, -w, 0.0)


def one_by_one(w: Tensor, P: Tensor, pair: list[int]) -> Tensor:
    """Two removals with the inverse that belongs to the first only."""
    return w + sum(obs.update(w, P, q) for q in pair)


TASKS = {
    "05.1": Task(
        draw=quadratic,
        answer=obs.saliencies,
        mistakes={
            "this divides by H's diagonal upside down: H⁻¹ is given, divide by its diagonal": (
                lambda w, P: w**2 * P.diagonal() / 2
            ),
            "this is OBD: 1/[H⁻¹]_qq is not h_qq": lambda w, P: (
                w**2 * torch.linalg.inv(P).diagonal() / 2
            ),
            "the factor ½ is missing": lambda w, P: w**2 / P.diagonal(),
        },
    ),
    "05.2": Task(
        draw=with_position,
        answer=obs.update,
        mistakes={
            "the other weights do not move: this is what OBD does": lambda w, P, q: zeroed(w, q),
            "divide by [H⁻¹]_qq, so that weight q lands on zero": lambda w, P, q: -w[q] * P[:, q],
            "the sign is wrong: weight q must move by −w_q": lambda w, P, q: -obs.update(w, P, q),
            "these are the new weights; the step is asked": lambda w, P, q: w + obs.update(w, P, q),
        },
    ),
    "05.3": Task(
        draw=inverse_and_position,
        answer=obs.downdate,
        mistakes={
            "subtract it: the remaining weights are stiffer": lambda P, q: (
                P + torch.outer(P[:, q], P[q]) / P[q, q]
            ),
            "divide by [H⁻¹]_qq": lambda P, q: P - torch.outer(P[:, q], P[q]),
            "row and column q only crossed out: that is the inverse without a change": (
                lambda P, q: P * (torch.arange(4) != q) * (torch.arange(4) != q)[:, None]
            ),
        },
    ),
    "05.4": Task(
        draw=with_pair,
        answer=lambda w, P, pair: obs.remove(w, P, pair)[0],
        mistakes={
            "the two steps added: each spoils what the other has set to zero": one_by_one,
            "the other weights do not move": lambda w, P, pair: w.index_fill(
                0, torch.tensor(pair), 0.0
            ),
        },
    ),
}
