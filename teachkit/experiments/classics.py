"""The small networks of the 1992 paper and the MONK's problems, many seeds side by side.

A network is a vector θ: inputs → tanh units → one sigmoid unit, all with biases, which count as
weights. Source: Hassibi & Stork, Second order derivatives for network pruning, NIPS 1992.
"""

import itertools
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from teachkit import obs
from teachkit.core import bars, checks
from teachkit.core.types import Batch
from teachkit.lab import data, levenberg

METHODS = ("OBS", "OBD", "magnitude")
START = 0.5  # standard deviation of the first weights
RIDGE = 1e-4
ATTEMPTS = 8  # starts per network that is wanted, at most


class Setting(NamedTuple):
    """How a problem is learned and pruned, and the published numbers of weights, before and after.

    A network must reach the training ``accuracy``; ``ridge`` is added to H.
    """

    hidden: int
    decay: float
    ridge: float
    accuracy: float
    published: tuple[int, int]


MONKS = {
    1: Setting(3, 2e-3, 1e-3, 1.0, (58, 14)),
    2: Setting(2, 2e-3, 1e-3, 1.0, (39, 15)),
    3: Setting(2, 1e-2, 1e-4, 0.93, (39, 4)),
}


class Trail(NamedTuple):
    """B networks after 0, 1, …, m removals: θ (m + 1, B, n) and training accuracy (m + 1, B)."""

    theta: Tensor
    accuracy: Tensor


def count(inputs: int, hidden: int) -> int:
    """How many weights a network has, biases included.

    >>> count(17, 3), count(17, 2), count(2, 2)
    (58, 39, 9)
    """
    return hidden * (inputs + 2) + 1


def respond(theta: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Outputs (B, N) of B networks (B, n) on x (N, inputs), and their derivatives (B, N, n)."""
    B, inputs = len(theta), x.shape[1]
    hidden = (theta.shape[1] - 1) // (inputs + 2)
    W, b, v, c = torch.split(theta, [hidden * inputs, hidden, hidden, 1], dim=1)
    h = torch.tanh(x @ W.reshape(B, hidden, inputs).mT + b[:, None])
    o = torch.sigmoid((h @ v[:, :, None])[:, :, 0] + c)
    slope = (o * (1 - o))[:, :, None]
    at_hidden = slope * v[:, None] * (1 - h**2)
    at_inputs = (at_hidden[..., None] * x[:, None]).reshape(B, len(x), -1)
    return o, torch.cat([at_inputs, at_hidden, slope * h, slope], dim=2)


def accuracy(theta: Tensor, batch: Batch) -> Tensor:
    """The share of samples that each of B networks (B, n) classifies correctly, (B,)."""
    x, y = batch
    return ((respond(theta, x)[0] > 0.5) == (y > 0.5)).double().mean(1)


def train(theta: Tensor, batch: Batch, *, steps: int = 200, **settings: Any) -> Tensor:
    """θ (B, n) after Levenberg–Marquardt from θ, with the settings of :func:`levenberg.fit`."""
    x, y = batch
    return levenberg.fit(partial(respond, x=x), theta, y.to(x.dtype), steps=steps, **settings).theta


def starts(seeds: range, n: int) -> Tensor:
    """Random first weights (len(seeds), n), normal with standard deviation 0.5."""
    drawn = [torch.randn(n, generator=torch.Generator().manual_seed(s)) for s in seeds]
    return START * torch.stack(drawn)


def monks_nets(k: int, nets: int = 10, *, decay: float | None = None) -> tuple[Tensor, int]:
    """The first ``nets`` networks that learn MONK's problem k, (nets, n), and how many were started.

    Learned means: the training accuracy in ``MONKS``. Some starts end in a poor local minimum.
    """
    problem = MONKS[checks.whole("k", k, 1, 3)]
    batch, rate = data.monks(k).train, problem.decay if decay is None else decay
    n = count(batch[0].shape[1], problem.hidden)
    tried, chosen = torch.zeros(0, n), torch.zeros(0)
    while len(chosen) < nets and len(tried) < ATTEMPTS * nets:
        theta = train(starts(range(len(tried), len(tried) + nets), n), batch, decay=rate)
        tried = torch.cat([tried, theta])
        chosen = (accuracy(tried, batch) >= problem.accuracy).nonzero().reshape(-1)[:nets]
    if len(chosen) < nets:
        raise ValueError(f"only {len(chosen)} of {len(tried)} networks learned problem {k}")
    return tried[chosen], int(chosen[-1]) + 1


def monks_trails(
    k: int, theta: Tensor, *, ridge: float | None = None, retrain: int = 0
) -> dict[str, Trail]:
    """MONK's networks (B, n) pruned to nothing by each of the three methods, see :func:`trail`."""
    problem, batch = MONKS[checks.whole("k", k, 1, 3)], data.monks(k).train
    added = problem.ridge if ridge is None else ridge
    one = partial(trail, theta, batch, ridge=added, decay=problem.decay, retrain=retrain)
    return {method: one(method) for method in METHODS}


def trail(
    theta: Tensor,
    batch: Batch,
    method: str,
    *,
    ridge: float = RIDGE,
    decay: float = 0.0,
    retrain: int = 0,
) -> Trail:
    """Remove the weights of B networks (B, n) one at a time until none is left; H is new each time.

    After each removal come ``retrain`` steps of Levenberg–Marquardt with this weight decay.
    """
    keep = torch.ones_like(theta, dtype=torch.bool)
    passed = [theta]
    for _ in bars.bar(range(theta.shape[1]), f"weights removed by {method}"):
        H = gauss_newton(theta, batch[0], keep, ridge)
        q, step = choice(theta, H, keep, method)
        keep = keep.scatter(1, q[:, None], False)
        theta = (theta + step) * keep
        if retrain:
            theta = train(theta, batch, decay=decay, keep=keep, steps=retrain)
        passed.append(theta)
    return Trail(torch.stack(passed), torch.stack([accuracy(t, batch) for t in passed]))


def gauss_newton(theta: Tensor, x: Tensor, keep: Tensor, ridge: float = RIDGE) -> Tensor:
    """JᵀJ/N + ridge · I of B networks, (B, n, n); removed weights keep the ridge alone."""
    J = respond(theta, x)[1] * keep[:, None]
    H = J.mT @ J / len(x)
    H.diagonal(dim1=1, dim2=2).add_(ridge)
    return H


def choice(theta: Tensor, H: Tensor, keep: Tensor, method: str) -> tuple[Tensor, Tensor]:
    """Which weight (B,) a method removes from each network, and its step for all weights (B, n)."""
    if method not in METHODS:
        raise ValueError(f"method must be one of {METHODS}, got {method!r}")
    P = torch.linalg.inv(H)
    scores = {
        "OBS": obs.saliencies(theta, P),
        "OBD": 0.5 * H.diagonal(dim1=1, dim2=2) * theta**2,
        "magnitude": theta.abs(),
    }[method]
    q = scores.masked_fill(~keep, torch.inf).argmin(1)
    if method != "OBS":
        return q, -theta * nn.functional.one_hot(q, theta.shape[1]).to(theta.dtype)
    return q, every_update(theta, P)[torch.arange(len(q)), q]


def every_update(theta: Tensor, P: Tensor) -> Tensor:
    """The step of OBS for each weight of each network: entry [b, q] removes weight q, (B, n, n)."""
    return torch.stack([obs.update(theta, P, q) for q in range(theta.shape[1])], 1)


def remaining(trail: Trail) -> Tensor:
    """The fewest weights (B,) before the training accuracy first falls below the full network's."""
    fell = trail.accuracy < trail.accuracy[0] - 1e-12
    return len(fell) - (fell.cumsum(0) == 0).sum(0)


def at_remaining(trail: Trail) -> Tensor:
    """The networks (B, n) with the number of weights that :func:`remaining` counts."""
    steps = len(trail.theta) - 1 - remaining(trail)
    return trail.theta[steps, torch.arange(len(steps))]


def wiring(theta: Tensor, inputs: list[str]) -> list[str]:
    """The non-zero weights of one network (n,) in words, e.g. "a2=3 to h1: -2.31"."""
    hidden = (len(theta) - 1) // (len(inputs) + 2)
    units = [f"h{j + 1}" for j in range(hidden)]
    names = [f"{i} to {u}" for u, i in itertools.product(units, inputs)]
    names += [f"bias of {u}" for u in units] + [f"{u} to output" for u in units]
    names.append("bias of output")
    return [f"{name}: {w:.2f}" for name, w in zip(names, theta.tolist(), strict=True) if w]


def monks_inputs() -> list[str]:
    """The names of the 17 inputs: attribute and value.

    >>> monks_inputs()[:4]
    ['a1=1', 'a1=2', 'a1=3', 'a2=1']
    """
    return [f"a{i + 1}={v + 1}" for i, n in enumerate(data.MONKS_VALUES) for v in range(n)]
