"""How many weights each layer keeps: LAMP's shares, densities capped at dense, whole numbers.

A rule gives each layer a pull, and layer l with n_l weights keeps the density ε · pull_l, at most 1.
:func:`capped` finds the ε at which the whole network keeps what it should. Layers that reach 1 leave
the equation for good, since ε only grows when they do: as many rounds as layers are enough, where
bisection on ε (``magnitude.quotas_naive``) goes on to the last bit.

LAMP divides each w² by the sum over the weights at least as large: one sort and one running sum of a
tensor in :func:`lamp_share`.
"""

import warnings
from collections.abc import Sequence
from math import floor

import torch
from torch import Tensor, nn

from teachkit.core import checks
from teachkit.core.ranking import count, keep_top, removed
from teachkit.core.types import Masks
from teachkit.core.weights import prunable

RULES = ("uniform", "erk", "lamp")


def lamp_share(w: Tensor) -> Tensor:
    """w² / Σ v² over the weights v at least as large as w, w included; of equals the first is larger.

    The squares are of w / max |w|, so that none is lost, whatever the scale. A tensor of zeros gives 0.

    >>> lamp_share(torch.tensor([-2.0, 1.0, 2.0])).round(decimals=3)
    tensor([1.0000, 0.1110, 0.5000])
    """
    flat = w.detach().reshape(-1).double().abs()
    if flat.any():
        order = flat.argsort(descending=True, stable=True)
        squares = (flat[order] / flat.max()).square()
        flat[order] = squares / squares.cumsum(0)
    return flat.to(at_least_single(w)).reshape(w.shape)


def at_least_single(w: Tensor) -> torch.dtype:
    """The dtype of scores: half precision has too few numbers to tell them apart."""
    return torch.promote_types(w.dtype, torch.float32)


def quotas(model: nn.Module, sparsity: float, rule: str = "uniform") -> dict[str, int]:
    """How many weights each tensor keeps under a rule, n − round(sparsity · n) in all, exactly.

    "uniform": the same density everywhere. "erk" (Erdős–Rényi kernel): density in proportion to
    (sum of the tensor's sizes) / (product of them), at most 1, so that narrow layers keep more.
    "lamp": what the ranking by ``lamp_scores`` keeps. Give the result to ``masks.keep_quota``.

    Source: Mocanu et al., Nature Communications 2018 (ER); Evci et al., Rigging the Lottery,
    ICML 2020 (ERK); Lee et al., ICLR 2021 (LAMP).

    >>> quotas(nn.Sequential(nn.Linear(100, 10), nn.Linear(10, 2)), 0.5, "erk")
    {'0.weight': 490, '1.weight': 20}
    """
    if rule not in RULES:
        raise ValueError(f"rule must be one of {RULES}, got {rule!r}")
    weights = prunable(model)
    if rule == "lamp":
        kept = keep_top({name: lamp_share(w) for name, w in weights.items()}, sparsity)
        return {name: count(mask) for name, mask in kept.items()}
    sizes = [w.numel() for w in weights.values()]
    pull = [sum(w.shape) / max(w.numel(), 1) if rule == "erk" else 1.0 for w in weights.values()]
    keep = sum(sizes) - removed(sum(sizes), sparsity)
    return dict(zip(weights, whole_shares(capped(pull, sizes, keep), sizes, keep), strict=True))


def capped(pull: Sequence[float], sizes: Sequence[int], keep: int) -> list[float]:
    """Keep ε · pull · size of each, at most its size, with the ε that keeps ``keep`` in all.

    >>> capped([1.0, 3.0], [10, 10], 12)
    [3.0, 9.0]
    >>> capped([1.0, 3.0], [10, 10], 16)
    [6.0, 10.0]
    """
    ask = sum(p * n for p, n in zip(pull, sizes, strict=True))
    scale = keep / ask if ask else 0.0
    over = [scale * p > 1 for p in pull]
    if not any(over):
        return [scale * p * n for p, n in zip(pull, sizes, strict=True)]
    left = keep - sum(n for n, full in zip(sizes, over, strict=True) if full)
    rest = capped([0.0 if full else p for p, full in zip(pull, over, strict=True)], sizes, left)
    return [float(n) if full else r for n, full, r in zip(sizes, over, rest, strict=True)]


def whole_shares(shares: Sequence[float], sizes: Sequence[int], total: int) -> list[int]:
    """Whole numbers next to the shares that add up to the total: the largest remainders go up.

    >>> whole_shares([1.5, 2.25, 0.25], [2, 4, 4], 4)
    [2, 2, 0]
    """
    kept = [min(floor(share + 1e-9), size) for share, size in zip(shares, sizes, strict=True)]
    rest = sorted(range(len(kept)), key=lambda i: kept[i] - shares[i])
    for i in [i for i in rest if kept[i] < sizes[i]][: total - sum(kept)]:
        kept[i] += 1
    return kept


def empty_layers(kept: Masks) -> list[str]:
    """The tensors that keep no weight: through such a layer no input reaches the output.

    >>> empty_layers({"a": torch.tensor([True, False]), "b": torch.tensor([False])})
    ['b']
    """
    given = checks.masks(kept, kept)
    return [name for name, mask in given.items() if mask.numel() and not count(mask)]


def warn_empty(kept: Masks) -> Masks:
    """Return the masks; warn of the layers that they empty while other weights stay."""
    gone = empty_layers(kept)
    if gone and len(gone) < len(kept):
        warnings.warn(
            f"these layers keep no weight, and nothing gets through them: {gone}; "
            "see magnitude.quotas for rules that keep some in each",
            stacklevel=3,
        )
    return kept
