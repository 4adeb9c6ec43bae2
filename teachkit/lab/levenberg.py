"""Levenberg–Marquardt: train many small networks to their minimum at once.

Second-order pruning assumes a minimum. Adam stops near one; this method arrives, in some tens of
steps, where a matrix of n × n is affordable. Source: Marquardt, SIAM J. Appl. Math. 1963.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from teachkit.core import checks, door

Respond = Callable[[Tensor], tuple[Tensor, Tensor]]


class Fit(NamedTuple):
    """Parameters (B, n) of B networks, their objectives (B,) and gradient norms (B,)."""

    theta: Tensor
    objective: Tensor
    gradient: Tensor


def fit(
    respond: Respond,
    theta: Tensor,
    target: Tensor,
    *,
    decay: float = 0.0,
    keep: Tensor | None = None,
    steps: int = 100,
) -> Fit:
    """Minimise (1/2N) Σ (o − t)² + ½ decay ‖θ‖² for B networks side by side.

    Each step solves (JᵀJ/N + (decay + μ) I) δ = −gradient. μ falls by 3 after a step that lowers
    the objective and rises by 4 after one that does not, which is not taken.

    ``respond`` takes θ (B, n) to outputs (B, N) and their derivatives J (B, N, n). It starts at
    ``theta`` (B, n); ``target`` is (N,); where ``keep`` (B, n) is False the parameter stays zero.

    >>> line = lambda theta: (theta @ X.T, X.expand(len(theta), -1, -1))
    >>> X = torch.tensor([[1.0], [2.0]])
    >>> fit(line, torch.zeros(1, 1), torch.tensor([2.0, 4.0])).theta.round(decimals=3)
    tensor([[2.]])
    """
    checks.whole("steps", steps)
    if checks.finite("theta", theta).ndim != 2:
        raise ValueError(f"theta must have shape (networks, n), got {tuple(theta.shape)}")
    if not 0 <= decay < float("inf"):
        raise ValueError(f"decay must be a number of 0 or more, got {decay!r}")
    free = torch.ones_like(theta, dtype=torch.bool) if keep is None else keep
    if free.shape != theta.shape or free.dtype != torch.bool:
        found = f"{free.dtype} of shape {tuple(free.shape)}"
        raise ValueError(f"keep must be boolean of shape {tuple(theta.shape)}, got {found}")
    theta, mu = theta * free, theta.new_full((len(theta), 1), 1e-2)
    state: tuple[Tensor, ...] = _quadratic(respond, theta, target, decay, free)
    eye = torch.eye(theta.shape[1], dtype=theta.dtype, device=theta.device)
    for _ in range(steps):
        now, slope, bend = state
        step = torch.linalg.solve(bend + mu[:, :, None] * eye, -slope)
        tried = _quadratic(respond, theta + step, target, decay, free)
        better = (tried[0] < now)[:, None]
        theta = torch.where(better, theta + step, theta)
        mu = torch.where(better, mu / 3, mu * 4).clamp(1e-12, 1e8)
        taken = better[:, 0], better, better[:, :, None]
        state = tuple(map(torch.where, taken, tried, state))
    return Fit(theta, state[0], state[1].norm(dim=1))


def _quadratic(
    respond: Respond, theta: Tensor, target: Tensor, decay: float, free: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Objective (B,), gradient (B, n) and Gauss-Newton matrix with decay (B, n, n)."""
    output, J = respond(theta)
    J = J * free[:, None, :]
    if output.shape[1:] != target.shape:
        raise ValueError(
            f"target has shape {tuple(target.shape)}, the outputs of a network {tuple(output.shape[1:])}"
        )
    error = output - target
    n = len(target)
    value = error.square().mean(1) / 2 + decay / 2 * theta.square().sum(1)
    slope = torch.einsum("bkn,bk->bn", J, error) / n + decay * theta
    bend = J.mT @ J / n
    bend.diagonal(dim1=1, dim2=2).add_(decay)
    return value, slope, bend


door.hold(globals())
