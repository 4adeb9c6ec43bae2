"""Which weights stay: an exact number of the largest scores, over all layers or by layer."""

from collections.abc import Iterable, Mapping
from functools import reduce

import numpy as np
import torch
from torch import Tensor, nn

from teachkit.core import checks, door
from teachkit.core.selection import Numbers, kth_smallest, largest
from teachkit.core.types import Masks, Scores
from teachkit.core.weights import boolean, nonzero, prunable, split


def sparsity(masks: Masks) -> float:
    """The fraction of zeros over all masks, in [0, 1]; 0 where there is nothing to remove.

    >>> sparsity({"a": torch.tensor([True, False]), "b": torch.tensor([False, False])})
    0.75
    """
    boolean(masks)
    total = sum(mask.numel() for mask in masks.values())
    kept = sum(count(mask) for mask in masks.values())
    return 1 - kept / total if total else 0.0


def removed(n: int, sparsity: float) -> int:
    """How many of n weights go at a sparsity: n times sparsity, rounded to the nearest whole number.

    >>> removed(10, 0.25), removed(6464, 0.9)
    (2, 5818)
    """
    return round(checks.fraction("sparsity", sparsity) * n)


@door.own
def threshold(weights: Mapping[str, Tensor] | Iterable[Tensor] | Tensor, k: int) -> float:
    """The k-th smallest |w| (k from 1) over all tensors together, which have one floating dtype.

    Beyond half a million weights it costs four to seven reads of them and a hundredth of their
    memory, see ``core.selection``; ``torch.kthvalue`` takes fifteen times as long or more.

    >>> threshold({"a": torch.tensor([-3.0, 1.0]), "b": torch.tensor([[2.0]])}, 2)
    2.0
    """
    given = weights.values() if isinstance(weights, Mapping) else weights
    if not isinstance(given, Iterable):
        raise TypeError(f"weights must be tensors of one floating dtype, got {weights!r}")
    tensors = [given] if isinstance(given, Tensor) else list(given)
    kinds = {w.dtype if isinstance(w, Tensor) else type(w).__name__ for w in tensors}
    if len(kinds) != 1 or not isinstance(tensors[0], Tensor) or not tensors[0].is_floating_point():
        found = sorted(map(str, kinds)) or "nothing"
        raise TypeError(f"weights must be tensors of one floating dtype, got {found}")
    if any(w.is_meta or w.layout != torch.strided for w in tensors):
        raise ValueError("weights must be dense and have values; on the meta device are none")
    return float(kth_smallest(_arrays(tensors), k, absolute=True))


def keep_top(
    scores: Scores,
    sparsity: float,
    scope: str = "global",
    *,
    within: Masks | None = None,
    absolute: bool = False,
) -> Masks:
    """Keep the weights with the largest scores, exactly n − round(sparsity · n) of them.

    Of equal scores the one that comes first (by key, then by position) stays. A rule such as
    ``score <= threshold`` would remove one weight too many, or all of them where scores tie.

    Args:
        scores: tensors of any real dtype.
        sparsity: fraction to remove, in [0, 1].
        scope: "global" ranks all weights together, "layer" each tensor by itself.
        within: masks from before; what they removed stays removed and counts as removed.
        absolute: rank |score|, e.g. weights by their magnitude, without a copy of them.

    >>> keep_top({"w": torch.tensor([1.0, 3.0, 3.0, 2.0])}, 0.5)
    {'w': tensor([False,  True,  True, False])}

    """
    sizes = {name: s.numel() for name, s in _scores(scores).items()}
    if scope == "layer":
        keep = {name: n - removed(n, sparsity) for name, n in sizes.items()}
        return keep_quota(scores, keep, within=within, absolute=absolute)
    if scope != "global":
        raise ValueError(f"scope must be 'global' or 'layer', got {scope!r}")
    total = sum(sizes.values())
    limits = {} if within is None else checks.masks(within, scores)
    return _largest(scores, total - removed(total, sparsity), limits, absolute)


def keep_quota(
    scores: Scores,
    keep: Mapping[str, int],
    *,
    within: Masks | None = None,
    absolute: bool = False,
) -> Masks:
    """Keep exactly ``keep[name]`` weights with the largest scores in each tensor.

    >>> keep_quota({"w": torch.tensor([1.0, 3.0, 2.0])}, {"w": 1})
    {'w': tensor([False,  True, False])}
    """
    if set(keep) != set(_scores(scores)):
        raise ValueError(f"keep has the keys {sorted(keep)}, scores have {sorted(scores)}")
    limits = {} if within is None else checks.masks(within, scores)
    masks: Masks = {}
    for name, s in scores.items():
        k = checks.whole(f"keep[{name!r}]", keep[name], 0, s.numel())
        masks |= _largest({name: s}, k, limits, absolute)
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
        dim = min(1, s.ndim - 1)
        across = s.detach().movedim(dim, -1)
        if across.shape[-1] % m:
            raise ValueError(
                f"scores[{name!r}] has {across.shape[-1]} inputs, not a multiple of m={m}"
            )
        groups = across.reshape(-1, m)
        order = groups.argsort(dim=1, descending=True, stable=True)
        mask = torch.zeros_like(groups, dtype=torch.bool).scatter_(1, order[:, :n], True)
        masks[name] = mask.reshape(across.shape).movedim(-1, dim).contiguous()
    return masks


def zeros_last(scores: Scores, model: nn.Module) -> Scores:
    """The scores with every weight that is zero already ranked below all others.

    A weight that was removed before then stays removed, whatever its score, and counts as removed.

    >>> layer = nn.Linear(2, 1, bias=False)
    >>> _ = layer.weight.data.copy_(torch.tensor([[0.0, 2.0]]))
    >>> zeros_last({"weight": torch.tensor([[5.0, -1.0]])}, layer)["weight"][0, 0] < -1
    tensor(True)
    """
    checks.entries("scores", scores, prunable(model))
    alive = {name: mask for name, mask in nonzero(model).items() if name in scores}
    if not alive:
        return dict(scores)
    if not all(s.is_floating_point() for s in scores.values()):
        scores = _ranks(scores)
    lowest = min(float(s.min()) for s in scores.values() if s.numel())
    below = {
        n: torch.nextafter(s.new_tensor(lowest), -s.new_tensor(torch.inf))
        for n, s in scores.items()
    }
    return {n: torch.where(alive[n], s, below[n]) for n, s in scores.items()}


def complete(scores: Scores, model: nn.Module) -> Scores:
    """The scores, if there is one for every prunable weight; who leaves out a layer would not prune it.

    >>> complete({}, nn.Linear(2, 1))
    Traceback (most recent call last):
    ValueError: scores are missing for ['weight']; each prunable weight needs one
    """
    weights = prunable(model)
    given = checks.entries("scores", scores, weights)
    missing = [name for name in weights if name not in given]
    if missing:
        raise ValueError(f"scores are missing for {missing}; each prunable weight needs one")
    return scores


def _ranks(scores: Scores) -> Scores:
    """Whole numbers by their place in the order of all: float64 holds a place exactly, not any number."""
    flat = torch.cat([s.reshape(-1) for s in scores.values()])
    return split(torch.unique(flat, return_inverse=True)[1].double(), scores)


def count(mask: Tensor) -> int:
    """How many are True; numpy counts 40 times faster than torch's bool sum."""
    return int(np.count_nonzero(mask.detach().cpu().numpy()))


def _scores(scores: Scores) -> Scores:
    return checks.entries("scores", scores, scores)


def _largest(scores: Scores, k: int, within: Masks, absolute: bool) -> Masks:
    """Keep the k largest of all scores together that the masks keep, the first ones where they tie."""
    arrays = _arrays(scores.values())
    if not any(name in within for name in scores):
        kept = largest(arrays, k, absolute=absolute)
    else:
        before = [
            within.get(name, torch.ones_like(s, dtype=torch.bool)) for name, s in scores.items()
        ]
        flat, alive = np.concatenate(arrays), np.concatenate(_arrays(before)).nonzero()[0]
        if k > len(alive):
            raise ValueError(
                f"{k} of {len(flat)} weights were asked to stay, but the masks in within keep "
                f"only {len(alive)}"
            )
        kept = np.zeros(len(flat), bool)
        kept[alive[largest([flat[alive]], k, absolute=absolute)]] = True
    masks = split(torch.from_numpy(kept), scores)
    return {name: mask.to(scores[name].device) for name, mask in masks.items()}


def _arrays(tensors: Iterable[Tensor]) -> list[Numbers]:
    """Flat views where numpy can look at the memory, else copies, of one dtype."""
    flat = [t.detach().reshape(-1).cpu() for t in tensors]
    common = reduce(torch.promote_types, [t.dtype for t in flat], torch.bool)
    # bfloat16, which numpy lacks, fits into float32 without loss.
    return [t.to(torch.float32 if common == torch.bfloat16 else common).numpy() for t in flat]


door.hold(globals())
