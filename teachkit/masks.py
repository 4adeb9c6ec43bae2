"""Pruning is zeroing: masks, how many weights they keep, what they save, and the best one.

A mask has the shape of its weight and is boolean: True keeps. A larger score stays.
"""

import copy
import itertools
from collections.abc import Iterator, Mapping
from math import comb
from typing import Any, NamedTuple

import mpmath
import numpy as np
import torch
from torch import Tensor, nn
from torch.func import vmap
from torch.nn.functional import cross_entropy
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.utils import prune

from teachkit.lab import checks
from teachkit.lab.evaluation import eval_mode, objective
from teachkit.lab.selection import kth_smallest
from teachkit.lab.types import Batch, Loss, Masks, Params, Scores

BRUTE_FORCE_LIMIT = 20  # weights; C(20, 10) = 184,756 networks, C(30, 15) = 155 million


def layers(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The modules whose weights the course prunes, by name: Linear and Conv layers."""
    for name, module in model.named_modules():
        if isinstance(module, (nn.Linear, _ConvNd)):
            yield name, module


def prunable(model: nn.Module, *, biases: bool = False) -> Params:
    """The weights of Linear and Conv layers (and their biases if asked), keyed as named_parameters().

    The tensors are the model's own, not copies. A weight that two layers share appears once. One
    that a module of another kind owns first, as an embedding may, is left out.

    Raises:
        ValueError: a layer carries a mask of torch.nn.utils.prune; see :func:`from_torch`.

    >>> {name: tuple(w.shape) for name, w in prunable(nn.Sequential(nn.Linear(3, 2))).items()}
    {'0.weight': (2, 3)}

    """
    kinds = ("weight", "bias") if biases else ("weight",)
    wanted: set[str] = set()
    for name, module in layers(checks.model(model)):
        if prune.is_pruned(module):
            raise ValueError(
                f"layer {name!r} is masked by torch.nn.utils.prune; "
                "take the mask out with masks.from_torch(model) first"
            )
        wanted.update(_key(name, kind) for kind in kinds)
    return {name: p for name, p in model.named_parameters() if name in wanted}


def keep_all(model: nn.Module) -> Masks:
    """The masks that remove nothing."""
    return {name: torch.ones_like(w, dtype=torch.bool) for name, w in prunable(model).items()}


def nonzero(model: nn.Module) -> Masks:
    """The masks a model carries in its zeros: True where a prunable weight is not zero."""
    return {name: w.detach() != 0 for name, w in prunable(model).items()}


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


def sparsity(masks: Masks) -> float:
    """The fraction of zeros over all masks, in [0, 1]; 0 where there is nothing to remove.

    >>> sparsity({"a": torch.tensor([True, False]), "b": torch.tensor([False, False])})
    0.75
    """
    _boolean(masks)
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


def apply(model: nn.Module, masks: Masks) -> nn.Module:
    """A new model with the weights θ ⊙ M: zero where the mask is False, unchanged elsewhere."""
    checks.masks(masks, dict(checks.model(model).named_parameters()))
    pruned = copy.deepcopy(model)
    params = dict(pruned.named_parameters())
    with torch.no_grad():
        for name, mask in masks.items():
            params[name].masked_fill_(~mask, 0.0)
    return pruned


def combine(*masks: Masks) -> Masks:
    """What all of several masks keep; a key that one of them lacks is not limited by it."""
    for given in masks:
        _boolean(given)
    combined: Masks = {}
    for name, mask in itertools.chain.from_iterable(given.items() for given in masks):
        other = combined.get(name, mask)
        if other.shape != mask.shape:
            raise ValueError(
                f"masks[{name!r}] come as {tuple(other.shape)} and {tuple(mask.shape)}"
            )
        combined[name] = other & mask
    return combined


def change(model: nn.Module, masks: Masks) -> Params:
    """The step δ = θ ⊙ M − θ that pruning takes: −w where the mask is False, 0 elsewhere."""
    params = dict(checks.model(model).named_parameters())
    return {
        name: torch.where(mask, 0.0, -params[name].detach())
        for name, mask in checks.masks(masks, params).items()
    }


class Operations(NamedTuple):
    """Scalar multiplications and additions."""

    multiplications: int
    additions: int


def operations(model: nn.Module, x: Tensor, masks: Masks | None = None) -> dict[str, Operations]:
    """Count the scalar operations of each Linear and Conv layer on the batch x, zeros left out.

    An output with r kept weights takes r multiplications and r − 1 additions, one more with a
    bias, none with r = 0. Padding counts as input, as in most published counts.

    Args:
        model: any module that calls its Linear and Conv layers; a layer called twice counts twice.
        x: the input, e.g. one sample.
        masks: what is kept; without masks every weight counts, zero or not.

    >>> two = nn.Linear(2, 2, bias=False)
    >>> operations(two, torch.ones(2, 2)), operations(two, torch.ones(2, 2), {"weight": torch.eye(2) > 0})
    ({'': Operations(multiplications=8, additions=4)}, {'': Operations(multiplications=4, additions=0)})

    """
    weights = prunable(checks.model(model, checks.finite("x", x)))
    kept = checks.masks(masks or {}, weights)
    calls: dict[str, int] = {}
    hooks = []
    by_weight = {id(weights[name]): mask for name, mask in kept.items()}  # tied layers share a mask
    for name, module in layers(model):
        if isinstance(module, _ConvTransposeNd):
            raise ValueError(f"layer {name!r} is a transposed convolution, which is not counted")
    for name, module in layers(model):

        def record(module: nn.Module, _: Any, output: Tensor, name: str = name) -> None:
            calls[name] = calls.get(name, 0) + output.numel() // max(len(module.weight), 1)  # type: ignore[arg-type]

        hooks.append(module.register_forward_hook(record))
    try:
        with torch.no_grad(), eval_mode(model):
            model(x)
    finally:
        for hook in hooks:
            hook.remove()
    return {
        name: _layer_operations(module, by_weight.get(id(module.weight)), calls[name])
        for name, module in layers(model)
        if name in calls
    }


def total(operations: Mapping[str, Operations]) -> Operations:
    """The sum over the layers."""
    return Operations(
        sum(o.multiplications for o in operations.values()),
        sum(o.additions for o in operations.values()),
    )


def log10_subsets(n: int, k: int) -> float:
    """log₁₀ C(n, k), the number of masks that keep k of n weights, as a power of ten.

    By log-gamma in as many digits as n has and 25 more, so that nothing cancels.

    >>> round(log10_subsets(10**12, 10**9))
    3434077257
    """
    checks.whole("n", n, 0)
    checks.whole("k", k, 0, n)
    with mpmath.workdps(2 * len(str(n)) + 25):
        log = mpmath.loggamma(n + 1) - mpmath.loggamma(k + 1) - mpmath.loggamma(n - k + 1)
        return float(log / mpmath.log(10))


def subset_losses(
    model: nn.Module, batch: Batch, k: int, loss: Loss = cross_entropy
) -> tuple[Tensor, Tensor]:
    """The loss of every network that keeps k of the model's n prunable weights, retraining none.

    Args:
        model: at most 20 prunable weights.
        batch: (x, y) on which the loss is measured.
        k: how many weights stay, 0 to n.
        loss: a mean loss.

    Returns:
        Choices (C(n, k), n), boolean, True keeps, over all weights in the order of
        ``prunable``, flattened; and their losses (C(n, k),).

    Raises:
        ValueError: more than 20 weights; the message gives the number of networks.

    """
    weights = {name: w.detach() for name, w in prunable(model).items()}
    n = sum(w.numel() for w in weights.values())
    if not n:
        raise ValueError("the model has no prunable weight")
    checks.whole("k", k, 0, n)
    if n > BRUTE_FORCE_LIMIT:
        raise ValueError(
            f"brute force is for at most {BRUTE_FORCE_LIMIT} weights; this model has {n}, "
            f"and keeping {k} of them takes 10^{log10_subsets(n, k):.1f} networks"
        )
    choices = torch.zeros(comb(n, k), n, dtype=torch.bool)
    kept = np.fromiter(itertools.chain.from_iterable(itertools.combinations(range(n), k)), int)
    choices.scatter_(1, torch.from_numpy(kept).reshape(len(choices), k), True)
    value, _ = objective(model, batch, loss)

    def masked(choice: dict[str, Tensor]) -> Tensor:
        return value({name: w * choice[name] for name, w in weights.items()})

    parts = torch.split(choices, 4096)
    return choices, torch.cat([vmap(masked)(split(part, weights)) for part in parts])


def best_subset(
    model: nn.Module, batch: Batch, k: int, loss: Loss = cross_entropy
) -> tuple[Masks, float]:
    """The masks that keep k weights at the least loss, and that loss, by trying all of them.

    Solves min over T_k of L(θ ⊙ M), where T_k holds the masks with k ones: what every pruning
    criterion approximates. At most 20 weights; see :func:`subset_losses`.
    """
    choices, losses = subset_losses(model, batch, k, loss)
    best = int(losses.argmin())
    return split(choices[best], prunable(model)), float(losses[best])


def split(flat: Tensor, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Cut the last dimension of a tensor into pieces shaped like the tensors of a dict, in order.

    >>> split(torch.arange(3), {"a": torch.ones(2), "b": torch.ones(1, 1)})
    {'a': tensor([0, 1]), 'b': tensor([[2]])}
    """
    sizes = [tensor.numel() for tensor in like.values()]
    if flat.shape[-1] != sum(sizes):
        raise ValueError(f"{flat.shape[-1]} entries cannot fill {sum(sizes)} weights")
    parts = torch.split(flat, sizes, dim=-1)
    return {
        name: part.reshape(*flat.shape[:-1], *tensor.shape)
        for (name, tensor), part in zip(like.items(), parts, strict=True)
    }


def to_torch(model: nn.Module, masks: Masks) -> nn.Module:
    """A new model that carries the masks in torch.nn.utils.prune's way (weight_orig, weight_mask)."""
    checks.masks(masks, prunable(model, biases=True))
    carrying = copy.deepcopy(model)
    params = dict(carrying.named_parameters())
    owners = [(m, kind, p) for m in carrying.modules() for kind, p in m._parameters.items()]
    for name, mask in masks.items():
        for module, kind, p in owners:
            if p is params[name]:  # more than once where layers share a weight
                prune.custom_from_mask(module, kind, mask)  # type: ignore[no-untyped-call]
    return carrying


def from_torch(model: nn.Module) -> tuple[nn.Module, Masks]:
    """A plain copy of a model that torch.nn.utils.prune has masked, and its masks.

    Weights without a mask get one that keeps everything.
    """
    # torch refuses to copy a masked weight, the product of weight_orig and weight_mask: lend it one.
    products = [v for m in model.modules() for v in vars(m).values() if isinstance(v, Tensor)]
    plain = copy.deepcopy(model, {id(v): v.detach().clone() for v in products})
    found: Masks = {}
    for name, module in plain.named_modules():
        for kind in [
            key.removesuffix("_mask") for key in dict(module.named_buffers(recurse=False))
        ]:
            if f"{kind}_orig" in module._parameters:
                found[_key(name, kind)] = getattr(module, f"{kind}_mask") != 0
                prune.remove(module, kind)  # type: ignore[no-untyped-call]
        for kind in ("weight", "bias"):  # removing a mask moved them to the end
            if kind in module._parameters and isinstance(module, (nn.Linear, _ConvNd)):
                module._parameters[kind] = module._parameters.pop(kind)
    return plain, keep_all(plain) | found


def _key(layer: str, kind: str) -> str:
    """The name of a layer's parameter in named_parameters(); the model itself has the name ''."""
    return f"{layer}.{kind}" if layer else kind


def _boolean(masks: Masks) -> None:
    checks.masks(masks, masks)


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


def _layer_operations(module: nn.Module, mask: Tensor | None, calls: int) -> Operations:
    """Operations of one layer whose every output is computed ``calls`` times."""
    weight: Tensor = module.weight  # type: ignore[assignment]
    kept = torch.ones_like(weight, dtype=torch.bool) if mask is None else mask
    per_output = kept.reshape(len(weight), -1).sum(1)
    multiplications = int(per_output.sum())
    saved = 0 if module.bias is not None else int((per_output > 0).sum())
    return Operations(multiplications * calls, (multiplications - saved) * calls)
