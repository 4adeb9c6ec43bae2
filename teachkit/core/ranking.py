"""Which weights stay: an exact number of the largest scores, over all layers or by layer."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from teachkit.core import checks
from teachkit.core.selection import kth_smallest
from teachkit.core.types import Masks, Scores
from teachkit.core.weights import boolean, combine, nonzero, split


def sparsity(masks: Masks) -> float:
    """The fraction of zeros over all masks, in [0, 1]; 0 where there is nothing to remove.

    >>> sparsity({"a": torch.tensor([True, False]), "b": torch.tensor([False, False])})
    0.75
    """
    boolean(masks)
    total = sum(mask.numel() for mask in masks.values())
    kept = sum(_count(mask) for mask in masks.values())
    return 1 - kept / total if total else 0.0


def removed(n: int, sparsity: float) -> int:
    """How many of n weights go at a sparsity: n times sparsity, rounded to the nearest whole number.

    >>> removed(10, 0.25), removed(6464, 0.9)
    (2, 5818)
    """
    return round(checks.fraction("sparsity", sparsity) * n)


def keep_top(
    scores: Scores, sparsity: float, scope: str = "global", *, within: Masks | None = None
) -> Masks:
    """Keep the weights with the largest scores, exactly n − round(sparsity · n) of them.

    Of equal scores the one that comes first (by key, then by position) stays. A rule such as
    ``score <= threshold`` would remove one weight too many, or all of them where scores tie.

    Args:
        scores: one tensor per weight, any real dtype.
        sparsity: fraction to remove, in [0, 1].
        scope: "global" ranks all weights together, "layer" each tensor by itself.
        within: masks from before; what they removed stays removed and counts as removed.

    >>> keep_top({"w": torch.tensor([1.0, 3.0, 3.0, 2.0])}, 0.5)
    {'w': tensor([False,  True,  True, False])}

    """
    fraction = checks.fraction("sparsity", sparsity)
    if scope == "layer":
        keep = {
            name: s.numel() - removed(s.numel(), fraction) for name, s in _scores(scores).items()
        }
        return keep_quota(scores, keep, within=within)
    if scope != "global":
        raise ValueError(f"scope must be 'global' or 'layer', got {scope!r}")
    total = sum(s.numel() for s in _scores(scores).values())
    return _largest(scores, total - removed(total, fraction), within)


def keep_quota(scores: Scores, keep: Mapping[str, int], *, within: Masks | None = None) -> Masks:
    """Keep exactly ``keep[name]`` weights with the largest scores in each tensor.

    >>> keep_quota({"w": torch.tensor([1.0, 3.0, 2.0])}, {"w": 1})
    {'w': tensor([False,  True, False])}
    """
    if set(keep) != set(_scores(scores)):
        raise ValueError(f"keep has the keys {sorted(keep)}, scores have {sorted(scores)}")
    before = {} if within is None else checks.masks(within, scores)
    masks: Masks = {}
    for name, s in scores.items():
        k = checks.whole(f"keep[{name!r}]", keep[name], 0, s.numel())
        masks |= _largest({name: s}, k, {name: before[name]} if name in before else None)
    return masks


def keep_n_of_m(scores: Scores, n: int, m: int) -> Masks:
    """Keep the n largest scores of every m neighbouring inputs of an output (the n:m pattern).

    Neighbours run along the inputs, dimension 1; in a convolution at each place of the kernel by
    itself. 2:4 is what sparse tensor cores compute with (Mishra et al. 2021).

    >>> keep_n_of_m({"w": torch.tensor([[4.0, 1.0, 2.0, 3.0]])}, 2, 4)
    {'w': tensor([[ True, False, False,  True]])}
    """
    checks.whole("m", m, 1)
    checks.whole("n", n, 0, m)
    masks: Masks = {}
    for name, s in _scores(scores).items():
        across = s.detach().movedim(min(1, s.ndim - 1), -1)
        if across.shape[-1] % m:
            raise ValueError(
                f"scores[{name!r}] has {across.shape[-1]} inputs, not a multiple of m={m}"
            )
        groups = across.reshape(-1, m)
        order = groups.argsort(dim=1, descending=True, stable=True)
        mask = torch.zeros_like(groups, dtype=torch.bool).scatter_(1, order[:, :n], True)
        masks[name] = mask.reshape(across.shape).movedim(-1, min(1, s.ndim - 1)).contiguous()
    return masks


def zeros_last(scores: Scores, model: nn.Module) -> Scores:
    """The scores with every weight that is zero already ranked below all others.

    A weight that was removed before then stays removed, whatever its score, and counts as removed.

    >>> layer = nn.Linear(2, 1, bias=False)
    >>> _ = layer.weight.data.copy_(torch.tensor([[0.0, 2.0]]))
    >>> zeros_last({"weight": torch.tensor([[5.0, -1.0]])}, layer)["weight"][0, 0] < -1
    tensor(True)
    """
    alive = {name: mask for name, mask in nonzero(model).items() if name in _scores(scores)}
    if not alive:
        return dict(scores)
    lowest = min(float(s.min()) for s in scores.values() if s.numel())
    return {
        name: torch.where(
            alive[name], s, torch.nextafter(s.new_tensor(lowest), -s.new_tensor(torch.inf))
        )
        for name, s in scores.items()
    }


def _count(mask: Tensor) -> int:
    """How many are True; numpy counts 40 times faster than torch's bool sum."""
    return int(np.count_nonzero(mask.detach().cpu().numpy()))


def _scores(scores: Scores) -> Scores:
    return checks.entries("scores", scores, scores)


def _largest(scores: Scores, k: int, within: Masks | None) -> Masks:
    """Keep the k largest of all scores together, the first ones where they tie."""
    if not scores:
        return {}
    flat = torch.cat([s.detach().reshape(-1) for s in scores.values()])
    if within is None:
        return split(_top(flat, k), scores)
    before = combine(checks.masks(within, scores), {n: s == s for n, s in scores.items()})
    allowed = torch.cat([before[name].reshape(-1) for name in scores])
    alive = allowed.nonzero().reshape(-1)
    if k > len(alive):
        raise ValueError(
            f"{k} of {len(flat)} weights were asked to stay, but the masks in within keep only {len(alive)}"
        )
    kept = torch.zeros_like(allowed)
    kept[alive[_top(flat[alive], k)]] = True
    return split(kept, scores)


def _top(values: Tensor, k: int) -> Tensor:
    """A boolean vector with k ones on the largest values, the first ones where they tie."""
    n = len(values)
    if k in (0, n):
        return torch.full((n,), bool(k), device=values.device)
    # bfloat16, which numpy lacks, fits into float32 without loss.
    exact = values.float() if values.dtype == torch.bfloat16 else values
    array = exact.cpu().numpy()
    threshold = kth_smallest([array], n - k + 1)
    kept = array > threshold
    ties = np.flatnonzero(array == threshold)
    kept[ties[: k - np.count_nonzero(kept)]] = True
    return torch.from_numpy(kept).to(values.device)
