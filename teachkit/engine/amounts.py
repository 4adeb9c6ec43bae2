"""How much of a matrix goes, and where: a share of each row or of the whole, or n of every m inputs stay."""

from collections.abc import Mapping
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from teachkit.core import checks
from teachkit.core.ranking import keep_n_of_m, keep_top, removed

Scope = Literal["row", "layer"]
Asked = float | str | Mapping[str, float]


class Pattern(NamedTuple):
    """n of every m neighbouring inputs of an output stay."""

    n: int
    m: int


def parsed(sparsity: float | str) -> float | Pattern:
    """A fraction as it is, and "2:4" as a pattern.

    >>> parsed("2:4"), parsed(0.5)
    (Pattern(n=2, m=4), 0.5)
    """
    if not isinstance(sparsity, str):
        return checks.fraction("sparsity", sparsity)
    n, colon, m = sparsity.partition(":")
    if not (colon and n.isdecimal() and m.isdecimal() and 0 < int(n) <= int(m)):
        raise ValueError(
            "sparsity must be a fraction that goes, or 'n:m' with n of every m inputs that stay, "
            f"e.g. '2:4', got {sparsity!r}"
        )
    return Pattern(int(n), int(m))


def of_each(sparsity: Asked, names: list[str]) -> dict[str, float | Pattern]:
    """The amount of each weight: one for all, or one for each by name.

    >>> of_each({"a": 0.5, "b": 0.25}, ["a", "b"])
    {'a': 0.5, 'b': 0.25}
    """
    if not isinstance(sparsity, Mapping):
        return dict.fromkeys(names, parsed(sparsity))
    given = checks.numbers("sparsity", sparsity, names)
    missing = [name for name in names if name not in given]
    if missing:
        raise ValueError(f"sparsity is missing for {missing[0]!r}, one of {len(missing)}")
    return {name: parsed(given[name]) for name in names}


def keep(scores: Tensor, asked: float | Pattern, scope: Scope) -> Tensor:
    """The mask of the largest scores: n of every m, or exactly the asked number of each row or of all.

    >>> keep(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), 0.5, "row").tolist()
    [[False, True], [False, True]]
    >>> keep(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), 0.5, "layer").tolist()
    [[False, False], [True, True]]
    """
    if isinstance(asked, Pattern):
        return keep_n_of_m({"weight": scores}, *asked)["weight"]
    if scope == "layer":
        return keep_top({"weight": scores}, asked)["weight"]
    width = scores.shape[1]
    return keep_n_of_m({"weight": scores}, width - removed(width, asked), width)["weight"]


def zero_first(scores: Tensor, W: Tensor) -> Tensor:
    """Scores of 0 or more with the weights that are zero already below all others."""
    return torch.where(W == 0, -1.0, scores)
