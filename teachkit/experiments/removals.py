"""Recursive Optimal Brain Surgeon against its slower relatives, and how far it drifts."""

import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from teachkit import magnitude, masks, obd, obs
from teachkit.core.types import Batch
from teachkit.lab.timing import seconds

Row = dict[str, Any]


def quadratic(n: int, condition: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    """A random positive definite matrix (n, n) of this condition number, and weights (n,)."""
    generator = torch.Generator().manual_seed(seed)
    Q = torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=torch.float64))[0]
    H = (Q * torch.logspace(0, -math.log10(condition), n, dtype=torch.float64)) @ Q.T
    return (H + H.T) / 2, torch.randn(n, generator=generator, dtype=torch.float64)


def downdate_in_place(H: Tensor, weights: Tensor, k: int) -> tuple[Tensor, list[int]]:
    """The textbook recursion: a rank-one change of the whole inverse for each removal."""
    P, w = torch.cholesky_inverse(torch.linalg.cholesky(H)), weights.clone()
    gone, order = torch.zeros_like(w), list[int]()
    d = P.diagonal()  # a view: it follows P
    for _ in range(k):
        q = int((w * w / d + gone).argmin())
        p, pivot = P[q].clone(), float(P[q, q])
        w.sub_(p, alpha=float(w[q]) / pivot)
        P.addr_(p, p, alpha=-1 / pivot)
        w[q], P[q, q], gone[q] = 0.0, 1.0, torch.inf
        order.append(q)
    return w, order


def recompute(H: Tensor, weights: Tensor, sizes: Sequence[int]) -> None:
    """One removal from each of these leading blocks of H, with a new inverse each time."""
    for m in sizes:
        P = torch.cholesky_inverse(torch.linalg.cholesky(H[:m, :m]))
        w = weights[:m]
        q = int((w * w / P.diagonal()).argmin())
        w = w - w[q] / P[q, q] * P[q]


def speed_rows(sizes: Sequence[int] = (500, 1000, 2000), repeats: int = 5) -> list[Row]:
    """Removing half of n weights: medians of the ratios of time to ``obs.surgeon``, alternating.

    ``recompute`` is extrapolated from 10 of its inverses.
    """
    return [_speed(n, repeats) for n in sizes]


def _speed(n: int, repeats: int) -> Row:
    H, w = quadratic(n, 1e4)
    k = n // 2
    few = [n - round(i * (k - 1) / 9) for i in range(10)]
    runs: dict[str, Callable[[], Any]] = {
        "ours": lambda: obs.surgeon(H, w, k),
        "downdate": lambda: downdate_in_place(H, w, k),
        "recompute": lambda: recompute(H, w, few),
    }
    runs["ours"]()  # warm up
    times = np.array([[_seconds(run) for run in runs.values()] for _ in range(repeats)])
    times[:, 2] *= k / len(few)
    ratios = np.median(times / times[:, :1], axis=0)
    return {
        "n": n,
        "removed": k,
        "seconds": float(np.median(times[:, 0])),
        "downdate / ours": float(ratios[1]),
        "recompute / ours": float(ratios[2]),
    }


def drift_rows(n: int = 400, conditions: Sequence[float] = (1e4, 1e8, 1e12)) -> list[Row]:
    """After n/2 removals: what the recursion in each precision has lost.

    ``objective`` is how far ½ δᵀHδ is off its least value for the same removed weights, and
    ``same`` the share of removed weights that recomputing the inverse each time, in double
    precision, removes too. float32 runs the in-place recursion in single precision.
    """
    rows = []
    for condition in conditions:
        H, w = quadratic(n, condition)
        k = n // 2
        wanted = recomputed_order(H, w, k)
        runs = {
            "surgeon, float64": partial(_surgeon, H, w, k),
            "surgeon, float32 input": partial(_surgeon, H.float(), w.float(), k),
            "downdate, float64": partial(downdate_in_place, H, w, k),
            "downdate, float32": partial(downdate_in_place, H.float(), w.float(), k),
        }
        rows += [
            {"condition": condition, "way": way} | _lost(H, w, run, wanted)
            for way, run in runs.items()
        ]
    return rows


def cost_rows(model: nn.Module, batch: Batch, sparsity: float = 0.5) -> list[Row]:
    """Seconds of three methods on one network, the shortest of three runs, and their matrices."""
    n = sum(w.numel() for w in masks.prunable(model).values())
    runs = {
        "magnitude": (lambda: masks.keep_top(magnitude.scores(model), sparsity), 0),
        "OBD": (lambda: masks.keep_top(obd.scores(model, batch), sparsity), 8 * n),
        "OBS": (lambda: obs.prune(model, batch, sparsity), 8 * n * n),
    }
    return [
        {"method": name, "seconds": min(_seconds(run) for _ in range(3)), "bytes": size}
        for name, (run, size) in runs.items()
    ]


def recomputed_order(H: Tensor, weights: Tensor, k: int) -> list[int]:
    """What is removed when the inverse and the weights are computed anew for each removal."""
    alive, w = list(range(len(weights))), weights
    order = []
    for _ in range(k):
        P = obs.inverse(H[alive][:, alive])
        v = w[alive]
        q = int(obs.saliencies(v, P).argmin())
        w = w.index_copy(0, torch.tensor(alive), v + obs.update(v, P, q))
        order.append(alive.pop(q))
    return order


def _lost(
    H: Tensor, w: Tensor, run: Callable[[], tuple[Tensor, list[int]]], wanted: list[int]
) -> Row:
    try:
        after, order = run()
    except (ValueError, RuntimeError) as error:  # Cholesky refuses
        return {"objective": math.inf, "same": 0.0, "error": str(error).split(":")[0]}
    gone = torch.tensor(order)
    alive = torch.tensor(sorted(set(range(len(w))) - set(order)))
    best = -w.clone()
    best[alive] = torch.linalg.solve(H[alive][:, alive], H[alive][:, gone] @ w[gone])
    step = after.double() - w
    objective = abs(float((step @ H @ step) / (best @ H @ best)) - 1)
    return {"objective": objective, "same": len(set(order) & set(wanted)) / len(wanted)}


def _surgeon(H: Tensor, w: Tensor, k: int) -> tuple[Tensor, list[int]]:
    after, order, _ = obs.surgeon(H, w, k)
    return after, order.tolist()


_seconds = partial(seconds, now=time.perf_counter)
