"""Lesson 05: what its explorers and figures draw, and its exercises."""

import random
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from teachkit import obs
from teachkit.show import plots, styles
from teachkit.show.exercises import Task, normal, times
from teachkit.show.pictures import Picture


def surgery(method: str, correlation: float, damping: float) -> Picture:
    """Two weights, the level lines of their loss, and where a pruning method moves them.

    H = [[5, c], [c, 1]] with c = correlation · √5, weights (1, 2) at the minimum.
    """
    H, w, step, q = operation(method, correlation, damping)
    rise = float(0.5 * step @ H @ step)
    grid = np.linspace(-1, 4, 101)
    u, v = np.meshgrid(grid - 1, grid - 2)
    loss = 2.5 * u**2 + float(H[0, 1]) * u * v + 0.5 * v**2
    figure, (axes,) = plots.canvas(width=5.4, height=4.0)
    levels = axes.contour(grid, grid, loss, [0.1, 0.4, 1, 2, 4, 8], colors="0.6", linewidths=1)
    axes.clabel(levels, fontsize=8)
    look = styles.look(method)
    axes.plot(*zip(w.tolist(), (w + step).tolist(), strict=True), **look.line)
    start = styles.look("minimum")
    axes.plot(*w.tolist(), label="minimum (1, 2)", markersize=11, **start.point)
    axes.plot(*(w + step).tolist(), label=f"after {method}", **look.point)
    axes.axhline(0, **plots.THIN)
    axes.axvline(0, **plots.THIN)
    axes.legend(loc="upper right", fontsize=8)
    axes.grid(False)
    says = f"{method} removes w{q + 1}; the loss rises by {rise:.2f}"
    end = ", ".join(f"{value:.2f}" for value in (w + step).tolist())
    alt = (
        f"Level lines of a loss of two weights with correlation {correlation:g}. {says}; "
        f"the weights move from (1, 2) to ({end})."
    )
    return plots.finish(figure, alt, "w1", "w2", says, aspect="equal", xlim=(-1, 4), ylim=(-1, 4))


def operation(
    method: str, correlation: float, damping: float
) -> tuple[Tensor, Tensor, Tensor, int]:
    """H, the weights, the step of a method, and the weight that it removes."""
    c = correlation * 5**0.5
    H, w = torch.tensor([[5.0, c], [c, 1.0]]), torch.tensor([1.0, 2.0])
    P = obs.inverse(H, damping=damping)
    scores = {
        "magnitude": w.abs(),
        "OBD": 0.5 * H.diagonal() * w**2,
        "OBS": obs.saliencies(w, P),
    }[method]
    q = int(scores.argmin())
    return H, w, obs.update(w, P, q) if method == "OBS" else zeroed(w, q), q


def damped(correlation: float, dampings: Sequence[float]) -> list[dict[str, object]]:
    """What OBS removes at each damping, how much the loss rises, and where the weights end."""
    rows: list[dict[str, object]] = []
    for damping in dampings:
        H, w, step, q = operation("OBS", correlation, damping)
        row = {
            "damping": damping,
            "removes": f"w{q + 1}",
            "rise of the loss": 0.5 * step @ H @ step,
        }
        rows.append(row | {"w1": (w + step)[0], "w2": (w + step)[1]})
    return rows


TERMS: dict[str, tuple[int, ...]] = {
    "|gradient term|": (0,),
    "Gauss-Newton": (1,),
    "true Hessian": (2,),
    "truth": (3,),
    "truth / true Hessian": (3, 2),
    "half: predicted": (4,),
    "half: truth": (5,),
    "half: truth / predicted": (5, 4),
}


def extremes(terms: Sequence[Sequence[float]]) -> list[dict[str, object]]:
    """Of each part of a prediction, and of two ratios, the lowest and the highest network."""
    parts = torch.tensor(terms).T
    rows: list[dict[str, object]] = []
    for name, which in TERMS.items():
        found = parts[which[0]] / (parts[which[1]] if len(which) > 1 else 1)
        rows.append({"part": name, "lowest": found.min(), "highest": found.max()})
    return rows


def quadratic(rng: random.Random) -> tuple[Tensor, Tensor]:
    """Four weights and the inverse (4, 4) of a positive definite matrix."""
    A, w = normal(rng, 4, 6), normal(rng, 4)
    return w, torch.linalg.inv(A @ A.T)


def zeroed(w: Tensor, q: int) -> Tensor:
    """The step that only sets weight q to zero."""
    return torch.where(torch.arange(len(w)) == q, -w, 0.0)


def one_by_one(w: Tensor, P: Tensor, pair: list[int]) -> Tensor:
    """Two removals with the inverse that belongs to the first only."""
    return w + sum(obs.update(w, P, q) for q in pair)


def stale(w: Tensor, P: Tensor, pair: list[int]) -> Tensor:
    """Two removals one after the other with the inverse that belongs to the first."""
    for q in pair:
        w = w + obs.update(w, P, q)
    return w


TASKS = {
    "05.1": Task(
        draw=quadratic,
        answer=obs.saliencies,
        mistakes={
            "it is upside down: P is the inverse already, so divide by its diagonal": (
                lambda w, P: w**2 * P.diagonal() / 2
            ),
            "this is OBD: 1/[H⁻¹]_qq is not h_qq": lambda w, P: (
                w**2 * torch.linalg.inv(P).diagonal() / 2
            ),
            "the factor ½ is missing": times(2, obs.saliencies),
            "the weight must be squared": lambda w, P: w / (2 * P.diagonal()),
        },
    ),
    "05.2": Task(
        draw=lambda rng: (*quadratic(rng), rng.randrange(4)),
        answer=obs.update,
        mistakes={
            "the other weights do not move: this is what OBD does": lambda w, P, q: zeroed(w, q),
            "divide by [H⁻¹]_qq, so that weight q lands on zero": lambda w, P, q: -w[q] * P[:, q],
            "the sign is wrong: weight q must move by −w_q": times(-1, obs.update),
            "these are the new weights; the step is asked": lambda w, P, q: w + obs.update(w, P, q),
            "this moves along a column of H; the update takes that of its inverse": lambda w, P, q: (
                obs.update(w, torch.linalg.inv(P), q)
            ),
        },
    ),
    "05.3": Task(
        draw=lambda rng: (quadratic(rng)[1], rng.randrange(4)),
        answer=obs.downdate,
        mistakes={
            "subtract it: the remaining weights are stiffer": lambda P, q: (
                P + torch.outer(P[:, q], P[q]) / P[q, q]
            ),
            "keep the shape, with zeros in row and column q": lambda P, q: obs.downdate(P, q)[
                torch.arange(4) != q
            ][:, torch.arange(4) != q],
            "divide by [H⁻¹]_qq": lambda P, q: P - torch.outer(P[:, q], P[q]),
            "row and column q only crossed out: that is the inverse without a change": (
                lambda P, q: P * (torch.arange(4) != q) * (torch.arange(4) != q)[:, None]
            ),
        },
    ),
    "05.4": Task(
        draw=lambda rng: (*quadratic(rng), sorted(rng.sample(range(4), 2))),
        answer=lambda w, P, pair: obs.remove(w, P, pair)[0],
        mistakes={
            "the two steps added: each spoils what the other has set to zero": one_by_one,
            "a stale inverse: after the first removal it is the smaller one of exercise 05.3": stale,
            "this is the step; the new weights are asked": lambda w, P, pair: (
                obs.remove(w, P, pair)[0] - w
            ),
            "the other weights do not move": lambda w, P, pair: w.index_fill(
                0, torch.tensor(pair), 0.0
            ),
        },
    ),
}
