"""Lesson 04: what its explorers and figures draw, and its exercises."""

import random
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.func import grad

from teachkit.show import plots, styles
from teachkit.show.exercises import Task, curved, full_hessian, normal, times
from teachkit.show.pictures import Picture


def two_saliencies(b: float, w2: float) -> Picture:
    """A quadratic loss with its minimum at (1, w2) and what removing each weight costs.

    H = [[6, b], [b, 2]]: Optimal Brain Damage reads the diagonal, the row-sum trap the sums of rows.
    """
    H, w = np.array([[6.0, b], [b, 2.0]]), np.array([1.0, w2])
    grid = np.linspace(-1, 4, 121)
    at = np.stack(np.meshgrid(grid, grid), -1) - w
    loss = 0.5 * np.einsum("...i,ij,...j", at, H, at)
    figure, (axes,) = plots.canvas(width=5.4, height=4.4)
    axes.contour(grid, grid, loss, levels=np.arange(0.5, 30, 1.5), cmap="cividis", linewidths=1)
    ends = {"trained": w, "without w1": np.array([0, w2]), "without w2": np.array([1.0, 0])}
    for label, look in styles.looks(ends).items():
        axes.plot(*ends[label], markersize=9, label=label, **look.point)
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    cost, rows = 0.5 * H.diagonal() * w**2, 0.5 * H.sum(1) * w**2
    says = f"removing w1 costs {cost[0]:.2f}, w2 {cost[1]:.2f}; row sums say {rows[0]:.2f}, {rows[1]:.2f}"
    alt = f"Level lines of a quadratic loss with b = {b:g} and w2 = {w2:g}: {says}."
    return plots.finish(figure, alt, "w1", "w2", says, aspect="equal", xlim=(-1, 4), ylim=(-1, 4))


def kept_sets(rng: random.Random) -> tuple[Tensor, Tensor, Tensor]:
    """A positive definite Hessian (4, 4), weights at the minimum, and which of them stay."""
    A, w = normal(rng, 4, 6), normal(rng, 4)
    return A @ A.T, w, torch.tensor(rng.sample([True, True, False, False], 4))


def saliency(h: Tensor, w: Tensor) -> Tensor:
    """½ h w²."""
    return 0.5 * h * w**2


def last_layer(a: Tensor, p: Tensor) -> Any:
    """The diagonal for the weights of the last layer, (outputs, inputs)."""
    return (p * (1 - p)).T @ a**2 / len(a)


def quadratic(H: Tensor, w: Tensor, keep: Tensor) -> Tensor:
    """½ δᵀHδ for the step δ that is −w where a weight goes."""
    step = torch.where(keep, 0.0, -w)
    return 0.5 * step @ H @ step


def alone(H: Tensor, w: Tensor, keep: Tensor) -> Tensor:
    """The sum of the saliencies of those that go."""
    return saliency(H.diagonal(), w)[~keep].sum()


def cross(H: Tensor, w: Tensor, keep: Tensor) -> Tensor:
    """The cross terms: what the saliencies leave out."""
    return quadratic(H, w, keep) - alone(H, w, keep)


TASKS = {
    "04.1": Task(
        draw=lambda rng: normal(rng, 2, 4).unbind(),
        answer=saliency,
        mistakes={
            "the factor ½ is missing": times(2, saliency),
            "the weight must be squared": lambda h, w: 0.5 * h * w,
            "do not take the absolute value: a saliency may be negative": (
                lambda h, w: saliency(h.abs(), w)
            ),
            "keep negative saliencies as they are": lambda h, w: saliency(h.clamp(min=0), w),
            "the curvature is missing": lambda h, w: 0.5 * w**2,
        },
    ),
    "04.2": Task(
        draw=lambda rng: curved(rng)[:2],
        answer=lambda f, at: full_hessian(f, at).diagonal(),
        mistakes={
            "these are the row sums: the gradient was summed before it was differentiated": (
                lambda f, at: full_hessian(f, at).sum(1)
            ),
            "this is the gradient; differentiate once more": lambda f, at: grad(f)(at),
            "this is the whole Hessian; only its diagonal is wanted": full_hessian,
            "this is the squared gradient, which is not the curvature": lambda f, at: (
                grad(f)(at) ** 2
            ),
        },
    ),
    "04.3": Task(
        draw=lambda rng: (normal(rng, 5, 3), normal(rng, 5, 4).softmax(1)),
        answer=last_layer,
        mistakes={
            "divide by the number of samples: the loss is a mean": lambda a, p: (
                (p * (1 - p)).T @ a**2
            ),
            "the input must be squared": lambda a, p: (p * (1 - p)).T @ a / len(a),
            "the curvature at output i is p_i (1 − p_i), not p_i": lambda a, p: p.T @ a**2 / len(a),
            "multiply sample by sample, then average: this is a product of two averages": (
                lambda a, p: torch.outer((p * (1 - p)).mean(0), (a**2).mean(0))
            ),
        },
    ),
    "04.4": Task(
        draw=kept_sets,
        answer=cross,
        mistakes={
            "this is the whole quadratic term; take the saliencies off": quadratic,
            "these are the saliencies; the cross terms are what is missing from them": alone,
            "keep is True where a weight stays; the step is −w where it is False": (
                lambda H, w, keep: cross(H, w, ~keep)
            ),
            "the sign is turned round: the whole less the saliencies": times(-1, cross),
        },
    ),
}
