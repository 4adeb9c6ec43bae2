"""Which weights of a tensor go together: the number of each weight's group, scores and masks of groups.

torch stores the weight of a Linear layer as (outputs, inputs) and of a convolution as (outputs,
inputs, height, width). So a unit's incoming weights are a *row*, and its outgoing ones a *column* of
the next layer's weight. A text that calls a neuron pruned "when all values of a column are zero"
stores its matrices the other way round. A transposed convolution does: (inputs, outputs, height,
width). And in a convolution in groups an input is counted within its group.

Every granularity is one formula for the number of a weight's group, from its output o, input i and
place p in the kernel. The rest needs no case for any granularity: scores add up by one ``index_add``
over the numbers, whole groups are ranked by the exact selection that ranks single weights, and a mask
of groups becomes one of weights by indexing with the numbers.
"""

from math import ceil, prod

import torch
from torch import Tensor

from teachkit.core import checks
from teachkit.core.ranking import keep_n_of_m, keep_quota, keep_top, removed
from teachkit.core.types import Masks, Scores

Block = tuple[int, int]
# In the words of a convolution a row is a filter, and a column is a channel.
GRANULARITIES = {
    "connection": "each weight alone",
    "row": "the weights into one output, W[o]",
    "filter": "the weights into one output, W[o]",
    "column": "the weights that read one input, W[:, i]",
    "channel": "the weights that read one input, W[:, i]",
    "kernel": "the weights from one input channel to one filter, W[o, i]",
    "position": "the same place in every kernel of a layer, W[:, :, h, w]",
    "block": "a rectangle of the matrix (outputs, the rest)",
    "2:4": "two of every four neighbouring inputs stay, in each row and at each place",
}
ON_EMPTY = ("refuse", "keep", "allow")


def group_ids(
    shape: tuple[int, ...],
    granularity: str,
    block: Block = (4, 4),
    device: torch.device | str | None = None,
) -> Tensor:
    """The number of the group that each weight (outputs, inputs, ...) belongs to, groups from 0.

    A block has ``block`` rows and columns, fewer at the edge. The groups of "2:4" share a fate only
    in part, so they have no numbers.

    >>> group_ids((2, 3), "column")
    tensor([[0, 1, 2],
            [0, 1, 2]])
    """
    _refuse(shape, granularity)
    height, width = _sides(block)
    outputs, inputs, places = shape[0], shape[1], prod(shape[2:])
    o = torch.arange(outputs, device=device)[:, None, None]
    i = torch.arange(inputs, device=device)[:, None]
    p = torch.arange(places, device=device)
    ids = {
        "row": lambda: o,
        "column": lambda: i,
        "kernel": lambda: o * inputs + i,
        "position": lambda: p,
        "connection": lambda: (o * inputs + i) * places + p,
        "block": lambda: o // height * ceil(inputs * places / width) + (i * places + p) // width,
    }[{"filter": "row", "channel": "column"}.get(granularity, granularity)]()
    return ids.expand(outputs, inputs, places).reshape(shape)


def group_scores(scores: Scores, granularity: str, block: Block = (4, 4)) -> Scores:
    """One score a group, (groups,) for each tensor: the mean of its weights' scores.

    A mean, unlike a sum or a norm, makes groups of different size comparable.

    >>> group_scores({"w": torch.tensor([[1.0, 2.0], [3.0, 4.0]])}, "row")
    {'w': tensor([1.5000, 3.5000])}
    """
    means: Scores = {}
    for name, score in checks.entries("scores", scores, scores).items():
        ids = group_ids(tuple(score.shape), granularity, block, score.device).reshape(-1)
        values, sizes = wide(score.detach().reshape(-1)), ids.bincount()
        means[name] = values.new_zeros(len(sizes)).index_add(0, ids, values) / sizes
    return means


def group_masks(
    scores: Scores,
    sparsity: float,
    granularity: str,
    scope: str = "layer",
    *,
    block: Block = (4, 4),
    on_empty: str = "refuse",
) -> Masks:
    """Masks that remove whole groups, exactly round(sparsity · groups) of them, lowest scores first.

    The sparsity of "2:4" is 0.5; what ``scope`` and ``on_empty`` mean says :func:`keep_groups`.

    >>> group_masks({"w": torch.tensor([[1.0, 2.0], [3.0, 4.0]])}, 0.5, "row")
    {'w': tensor([[False, False],
            [ True,  True]])}
    """
    if granularity == "2:4":
        return _two_of_four(scores, sparsity, scope)
    kept = keep_groups(group_scores(scores, granularity, block), sparsity, scope, on_empty)
    return {
        name: kept[name][group_ids(tuple(score.shape), granularity, block, score.device)]
        for name, score in scores.items()
    }


def keep_groups(
    scores: Scores, sparsity: float, scope: str = "layer", on_empty: str = "refuse"
) -> dict[str, Tensor]:
    """Which groups stay, from one score each: boolean (groups,) for each layer, True keeps.

    Works on units too: ``keep_groups(unit_scores(model), 0.5)`` is a ``keep`` for ``shrink``. Scope
    "layer" removes the fraction in every layer, "global" ranks all groups together. Where a layer
    would lose its last group, ``on_empty`` can "refuse", with a ValueError that names the layer,
    "keep" its best group and remove another instead, or "allow" it.

    >>> keep_groups({"a": torch.tensor([1.0, 9.0]), "b": torch.tensor([2.0, 3.0])}, 0.5)
    {'a': tensor([False,  True]), 'b': tensor([False,  True])}
    """
    if on_empty not in ON_EMPTY:
        raise ValueError(f"on_empty must be one of {list(ON_EMPTY)}, got {on_empty!r}")
    kept = keep_top(scores, sparsity, scope)
    empty = [name for name, mask in kept.items() if not mask.any()]
    if not empty or on_empty == "allow":
        return kept
    total = sum(s.numel() for s in scores.values())
    gone = removed(total, sparsity)
    if on_empty == "refuse" or scope == "layer" or total - gone < len(scores):
        layers = ", ".join(map(repr, empty))
        other = "" if on_empty == "keep" else ", or rank globally with on_empty='keep'"
        raise ValueError(
            f"at sparsity {sparsity:g}, scope {scope!r}, nothing is left of {layers}; "
            f"remove less{other}"
        )
    best = keep_quota(scores, dict.fromkeys(scores, 1))
    others = {name: s[~best[name]] for name, s in scores.items()}
    rest = keep_top(others, gone / (total - len(scores)))
    return {name: mask.masked_scatter(~mask, rest[name]) for name, mask in best.items()}


def wide(numbers: Tensor) -> Tensor:
    """The same numbers in a dtype to add up in: half precision and integers would lose or overflow."""
    return numbers if numbers.dtype in (torch.float32, torch.float64) else numbers.double()


def _refuse(shape: tuple[int, ...], granularity: str) -> None:
    """Refuse a granularity that has no groups, or none in a weight of this shape."""
    allowed = [name for name in GRANULARITIES if name != "2:4"]
    if granularity not in allowed:
        raise ValueError(f"granularity must be one of {allowed}, got {granularity!r}")
    if len(shape) < 2 or not prod(shape):
        raise ValueError(f"a weight has the shape (outputs, inputs, ...), got {tuple(shape)}")
    if granularity in ("kernel", "position") and len(shape) == 2:
        raise ValueError(f"a {granularity!r} needs a convolution, got a weight of {tuple(shape)}")


def _sides(block: object) -> list[int]:
    """The rows and columns of a block, checked."""
    if not isinstance(block, (tuple, list)) or len(block) != 2:
        raise TypeError(f"block must be (rows, columns), got {block!r}")
    return [checks.whole("each side of block", side, 1) for side in block]


def _two_of_four(scores: Scores, sparsity: float, scope: str) -> Masks:
    if scope != "layer":
        raise ValueError(f"2:4 removes half of every layer: scope must be 'layer', got {scope!r}")
    if checks.fraction("sparsity", sparsity) != 0.5:
        raise ValueError(f"2:4 removes half of the weights: sparsity must be 0.5, got {sparsity!r}")
    return keep_n_of_m(scores, 2, 4)
