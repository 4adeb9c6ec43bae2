"""How many weights each layer keeps, and which layer is left with none."""

import warnings
from collections.abc import Sequence
from math import floor

import numpy as np
from torch import Tensor, nn

from teachkit import masks
from teachkit.core.types import Masks
from teachkit.magnitude.criteria import lamp_scores, scores

RULES = ("uniform", "erk", "lamp")


def quotas(model: nn.Module, sparsity: float, rule: str = "uniform") -> dict[str, int]:
    """How many weights each tensor keeps under a rule, n − round(sparsity · n) in all, exactly.

    "uniform": the same density everywhere. "erk" (Erdős–Rényi kernel): the density of a tensor is
    proportional to (sum of its sizes) / (product of its sizes), at most 1, so that narrow layers
    keep more. "lamp": what the ranking by ``lamp_scores`` keeps. Fractions are rounded by largest
    remainder. Give the result to ``masks.keep_quota``.

    Source: Mocanu et al., Scalable training of artificial neural networks, Nature Communications
    2018 (ER); Evci et al., Rigging the Lottery, ICML 2020 (ERK); Lee et al., ICLR 2021 (LAMP).

    Args:
        model: any module.
        sparsity: fraction to remove over all tensors, in [0, 1].
        rule: "uniform", "erk" or "lamp".

    >>> quotas(nn.Sequential(nn.Linear(100, 10), nn.Linear(10, 2)), 0.5, "erk")
    {'0.weight': 490, '1.weight': 20}

    """
    if rule not in RULES:
        raise ValueError(f"rule must be one of {RULES}, got {rule!r}")
    weights = masks.prunable(model)
    if rule == "lamp":
        kept = masks.keep_top(lamp_scores(model), sparsity)
        return {name: int(np.count_nonzero(mask.cpu().numpy())) for name, mask in kept.items()}
    sizes = [w.numel() for w in weights.values()]
    keep = sum(sizes) - masks.removed(sum(sizes), sparsity)
    pull = [_erk(w) if rule == "erk" else 1.0 for w in weights.values()]
    return dict(zip(weights, whole_shares(_capped(pull, sizes, keep), sizes, keep), strict=True))


def _erk(w: Tensor) -> float:
    """(Sum of the sizes) / (product of the sizes) of a weight tensor."""
    return sum(w.shape) / max(w.numel(), 1)


def _capped(pull: Sequence[float], sizes: Sequence[int], keep: int) -> list[float]:
    """Keep ε · pull · size of each, at most its size, with the ε that keeps ``keep`` in all."""
    dense: set[int] = set()
    while True:
        free = [i for i in range(len(sizes)) if i not in dense]
        left = keep - sum(sizes[i] for i in dense)
        ask = sum(pull[i] * sizes[i] for i in free)
        scale = left / ask if ask else 0.0
        over = {i for i in free if scale * pull[i] > 1}
        if not over:
            return [
                float(sizes[i]) if i in dense else scale * pull[i] * sizes[i]
                for i in range(len(sizes))
            ]
        dense |= over


def whole_shares(shares: Sequence[float], sizes: Sequence[int], total: int) -> list[int]:
    """Whole numbers next to the shares that add up to the total: the largest remainders go up.

    >>> whole_shares([1.5, 2.25, 0.25], [2, 4, 4], 4)
    [2, 2, 0]
    """
    found = [min(floor(share + 1e-9), size) for share, size in zip(shares, sizes, strict=True)]
    rest = sorted(range(len(found)), key=lambda i: found[i] - shares[i])
    for i in [i for i in rest if found[i] < sizes[i]][: total - sum(found)]:
        found[i] += 1
    return found


def keep_by_rule(model: nn.Module, sparsity: float, rule: str = "global") -> Masks:
    """The masks of magnitude pruning: one ranking ("global"), or a quota by layer, see ``quotas``.

    >>> net = nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 2))
    >>> {name: int(mask.sum()) for name, mask in keep_by_rule(net, 0.5, "uniform").items()}
    {'0.weight': 12, '1.weight': 4}
    """
    if rule == "global":
        return masks.keep_top(scores(model), sparsity)
    if rule not in RULES:
        raise ValueError(f"rule must be 'global' or one of {RULES}, got {rule!r}")
    return masks.keep_quota(scores(model), quotas(model, sparsity, rule))


def empty_layers(kept: Masks) -> list[str]:
    """The tensors that keep no weight: through such a layer no input reaches the output.

    >>> import torch
    >>> empty_layers({"a": torch.tensor([True, False]), "b": torch.tensor([False])})
    ['b']
    """
    return [name for name, mask in kept.items() if mask.numel() and not mask.cpu().numpy().any()]


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
