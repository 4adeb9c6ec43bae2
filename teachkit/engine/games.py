"""What a unit is worth: random dropout masks, a regression on them, Banzhaf and Shapley values.

The units of one layer are players, and a team is a set of units that stay, a mask; its value is what the
network is worth with those alone, and a unit's worth is what it adds to teams. :func:`game` plays many
masks side by side: a mask multiplies what the units put out, and only what follows the reader runs again.

All 2ⁿ teams stand in a vector whose index *is* the team, in binary digits. Seen as an array 2 × … × 2, the
values with unit j and those without it are its two halves along axis j.
"""

import math
from collections.abc import Collection, Iterator, Mapping
from itertools import combinations
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from teachkit.core import checks
from teachkit.core.objective import measured
from teachkit.core.types import Batch, Loss
from teachkit.engine.leave_one_out import AT_ONCE
from teachkit.engine.units import observed, read

MOST_PLAYERS = 16  # 65,536 masks
Team = frozenset[int]


def teams(units: Collection[int]) -> Iterator[Team]:
    """Every set of these units."""
    for size in range(len(units) + 1):
        yield from map(frozenset, combinations(units, size))


def check_teams(v: Mapping[Team, float], n: int) -> None:
    """Raise unless v has a value for every team of n units."""
    for team in teams(range(checks.whole("n", n, 1, 10))):
        if team not in v:
            raise ValueError(
                f"v must have a value for every team of {n} units, got none for {set(team)}"
            )


class Regression(NamedTuple):
    """v ≈ ``intercept`` + Σ_j ``worth``_j m_j; ``errors`` are the standard errors of ``worth``."""

    intercept: float
    worth: Tensor
    errors: Tensor


def every_mask(units: int, device: torch.device | str = "cpu") -> Tensor:
    """All 2ⁿ masks (2ⁿ, n), boolean; row r holds the binary digits of r, the first unit first.

    >>> every_mask(2).int().tolist()
    [[0, 0], [0, 1], [1, 0], [1, 1]]
    """
    checks.whole("units", units, 1, MOST_PLAYERS)
    digits = torch.arange(units - 1, -1, -1, device=device)
    return (torch.arange(2**units, device=device)[:, None] >> digits & 1).bool()


def game(
    model: nn.Module, batch: Batch, layer: str, masks: Tensor, loss: Loss = cross_entropy
) -> Tensor:
    """The value of each mask (m, units) over one hidden layer's units, (m,): minus the loss.

    A unit that is left out puts out 0; the others are not scaled up. The ``loss`` may be minus anything
    else that a team is worth, as its accuracy.
    """
    x, y = checks.batch(batch)
    layers = observed(model, x)
    if layer not in layers:
        raise ValueError(f"layer must be one of {sorted(layers)}, got {layer!r}")
    played = layers[layer]
    _check_boolean(masks, len(played.incoming))
    at_once = max(1, AT_ONCE // (len(x) * max(played.weight.shape)))
    parts = (part[:, None].to(x.device) for part in torch.split(masks, at_once))
    outputs = (output for part in parts for output in played.rest(read(played, part)))
    return -torch.stack([measured(loss, output, y) for output in outputs])


def regress(masks: Tensor, values: Tensor) -> Regression:
    """Least squares of the values (m,) on the masks (m, n), with standard errors.

    The errors are White's with MacKinnon & White's correction (HC3, 1985): a layer is not a sum of its
    units, and what the sum misses varies with the mask. Over all 2ⁿ masks ``worth`` is the Banzhaf value
    (Hammer & Holzman 1992). ValueError: the masks are too few, or too alike to tell the units apart.

    >>> regress(every_mask(2), torch.tensor([0.0, 1.0, 2.0, 3.0])).worth.round(decimals=4).tolist()
    [2.0, 1.0]

    """
    checks.finite("values", values)
    _check_boolean(masks, masks.shape[-1])
    if values.shape != masks.shape[:1]:
        raise ValueError(f"{tuple(values.shape)} values do not fit masks {tuple(masks.shape)}")
    v = values.double()
    X = torch.cat([v.new_ones(len(v), 1), masks.to(v)], 1)
    if len(X) <= X.shape[1] or int(torch.linalg.matrix_rank(X)) < X.shape[1]:
        raise ValueError(
            f"{len(masks)} masks do not determine the worth of {masks.shape[1]} units: draw more"
        )
    pseudo = torch.linalg.pinv(X)
    fit = pseudo @ v
    leverage = (X * pseudo.T).sum(1)
    residual = (v - X @ fit) / (1 - leverage).clamp(min=1e-12)
    errors = ((pseudo * residual) ** 2).sum(1).sqrt()
    return Regression(float(fit[0]), fit[1:], errors[1:])


def banzhaf(values: Tensor, *, keep: float = 0.5) -> Tensor:
    """What each unit adds on average to a random team of the others, (n,), exactly.

    B_j = E[v(S ∪ j) − v(S)], each other unit in S with probability ``keep``; ½ is Banzhaf's. The values
    (2ⁿ,) stand in the order of :func:`every_mask`.

    >>> banzhaf(torch.tensor([0.0, 0.0, 0.0, 1.0]))  # both are needed
    tensor([0.5000, 0.5000])

    """
    n, p = _players(values), checks.fraction("keep", keep)
    return _added(values, [p**size * (1 - p) ** (n - 1 - size) for size in range(n)])


def shapley(values: Tensor) -> Tensor:
    """What each unit adds on average when they join in a random order, (n,), exactly.

    φ_j = Σ_S |S|! (n − 1 − |S|)! / n! · (v(S ∪ j) − v(S)) over the teams S without j. The sum of all is
    v(all) − v(none). It is the mean of the Banzhaf values over all ``keep`` from 0 to 1 (Owen 1972).
    Source: Shapley 1953; for neurons Ghorbani & Zou, Neuron Shapley, NeurIPS 2020.

    >>> shapley(torch.tensor([0.0, 0.0, 0.0, 1.0]))
    tensor([0.5000, 0.5000])

    """
    n = _players(values)
    return _added(values, [1 / (n * math.comb(n - 1, size)) for size in range(n)])


def _added(values: Tensor, share: list[float]) -> Tensor:
    """Σ over the teams S without j of share[|S|] (v(S ∪ j) − v(S)), for each unit j."""
    n = len(share)
    cube, sizes = values.reshape([2] * n), every_mask(n, values.device)[: 2 ** (n - 1)].sum(1)
    weights = torch.tensor(share, dtype=values.dtype, device=values.device)[sizes]
    added = [(cube.select(j, 1) - cube.select(j, 0)).flatten() for j in range(n)]
    return torch.stack([weights @ each for each in added])


def _players(values: Tensor) -> int:
    """n, where there is one value for each of 2ⁿ masks."""
    n = len(checks.finite("values", values)).bit_length() - 1
    if values.ndim != 1 or len(values) != 2**n or not 1 <= n <= MOST_PLAYERS:
        raise ValueError(
            f"values must be one number for each of 2ⁿ masks, n from 1 to {MOST_PLAYERS}, "
            f"got shape {tuple(values.shape)}"
        )
    return n


def _check_boolean(masks: Tensor, units: int) -> None:
    if not isinstance(masks, Tensor) or masks.dtype != torch.bool:
        raise TypeError(f"masks must be boolean (True keeps), got {getattr(masks, 'dtype', masks)}")
    if masks.ndim != 2 or masks.shape[1] != units or not len(masks):
        raise ValueError(f"masks must have the shape (m, {units}), got {tuple(masks.shape)}")
