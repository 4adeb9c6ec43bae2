"""Granularities: which weights of a tensor go together, their scores, and masks of whole groups.

torch stores the weight of a Linear layer as (outputs, inputs) and of a convolution as (outputs,
inputs, height, width). So a unit's incoming weights are a *row*, and its outgoing ones a *column* of
the next layer's weight. A text that calls a neuron pruned "when all values of a column are zero"
stores its matrices the other way round. A transposed convolution does: (inputs, outputs, height,
width). And in a convolution in groups an input is counted within its group.
"""

from math import ceil, prod

import torch
from torch import Tensor

from teachkit import masks
from teachkit.core import checks
from teachkit.core.types import Masks, Scores

Shape = tuple[int, ...]
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
NORMS = ("mean", "sum", "l2")
ON_EMPTY = ("refuse", "keep", "allow")


def group_ids(shape: Shape, granularity: str, block: tuple[int, int] = (4, 4)) -> Tensor:
    """The number of the group that each weight belongs to, shape as given, groups from 0.

    Args:
        shape: of the weight, (outputs, inputs, ...).
        granularity: one of GRANULARITIES but "2:4", whose groups share a fate only in part.
        block: rows and columns of a block; blocks at the edge may be smaller.

    >>> group_ids((2, 3), "column")
    tensor([[0, 1, 2],
            [0, 1, 2]])

    """
    if granularity not in GRANULARITIES or granularity == "2:4":
        allowed = [name for name in GRANULARITIES if name != "2:4"]
        raise ValueError(f"granularity must be one of {allowed}, got {granularity!r}")
    if len(shape) < 2 or not prod(shape):
        raise ValueError(f"a weight has the shape (outputs, inputs, ...), got {tuple(shape)}")
    if granularity in ("kernel", "position") and len(shape) == 2:
        raise ValueError(f"a {granularity!r} needs a convolution, got a weight of {tuple(shape)}")
    outputs, inputs, places = shape[0], shape[1], prod(shape[2:])
    o = torch.arange(outputs)[:, None, None]
    i = torch.arange(inputs)[None, :, None]
    p = torch.arange(places)[None, None, :]
    if granularity in ("row", "filter"):
        ids = o
    elif granularity in ("column", "channel"):
        ids = i
    elif granularity == "kernel":
        ids = o * inputs + i
    elif granularity == "position":
        ids = p
    elif granularity == "block":
        if not isinstance(block, (tuple, list)) or len(block) != 2:
            raise TypeError(f"block must be (rows, columns), got {block!r}")
        height, width = (checks.whole("each side of block", side, 1) for side in block)
        ids = o // height * ceil(inputs * places / width) + (i * places + p) // width
    else:
        ids = (o * inputs + i) * places + p
    return ids.expand(outputs, inputs, places).reshape(shape)


def group_scores(
    scores: Scores, granularity: str, *, block: tuple[int, int] = (4, 4), norm: str = "mean"
) -> Scores:
    """One score a group, (groups,) for each tensor: the mean, sum or L2 norm of its weights' scores.

    Args:
        scores: a score for each weight, larger stays, e.g. ``magnitude.scores(model)``.
        granularity: one of GRANULARITIES but "2:4".
        block: rows and columns of a block.
        norm: "mean", "sum", or "l2" for √Σs². Only the mean makes groups of different size comparable.

    >>> group_scores({"w": torch.tensor([[1.0, 2.0], [3.0, 4.0]])}, "row", norm="sum")
    {'w': tensor([3., 7.])}

    """
    if norm not in NORMS:
        raise ValueError(f"norm must be one of {list(NORMS)}, got {norm!r}")
    found: Scores = {}
    for name, score in checks.entries("scores", scores, scores).items():
        ids = group_ids(tuple(score.shape), granularity, block).reshape(-1)
        values = score.detach().reshape(-1).to(wide(score.dtype))
        total = values.new_zeros(int(ids.max()) + 1).index_add(
            0, ids, values**2 if norm == "l2" else values
        )
        found[name] = {"mean": total / ids.bincount(), "sum": total, "l2": total.sqrt()}[norm]
    return found


def wide(dtype: torch.dtype) -> torch.dtype:
    """The dtype to add up in: half precision and whole numbers would lose or overflow."""
    return dtype if dtype in (torch.float32, torch.float64) else torch.float64


def group_masks(
    scores: Scores,
    sparsity: float,
    granularity: str,
    scope: str = "layer",
    *,
    block: tuple[int, int] = (4, 4),
    norm: str = "mean",
    on_empty: str = "refuse",
) -> Masks:
    """Masks that remove whole groups, exactly round(sparsity · groups) of them, lowest scores first.

    Args:
        scores: a score for each weight, larger stays.
        sparsity: the fraction of *groups* to remove, in [0, 1]; 0.5 for "2:4".
        granularity: one of GRANULARITIES.
        scope: "layer" removes the fraction in every tensor, "global" ranks all groups together.
        block: rows and columns of a block.
        norm: how a group's score comes from its weights', see :func:`group_scores`.
        on_empty: what to do where a layer would lose its last group: "refuse", or "keep" its best
            group and remove another instead, or "allow" it.

    Raises:
        ValueError: a layer would be emptied; the message names it.

    >>> group_masks({"w": torch.tensor([[1.0, 2.0], [3.0, 4.0]])}, 0.5, "row")
    {'w': tensor([[False, False],
            [ True,  True]])}

    """
    if granularity == "2:4":
        if scope != "layer":
            raise ValueError(
                f"2:4 removes half of every layer: scope must be 'layer', got {scope!r}"
            )
        if checks.fraction("sparsity", sparsity) != 0.5:
            raise ValueError(
                f"2:4 removes half of the weights: sparsity must be 0.5, got {sparsity!r}"
            )
        return masks.keep_n_of_m(scores, 2, 4)
    kept = keep_groups(
        group_scores(scores, granularity, block=block, norm=norm), sparsity, scope, on_empty
    )
    return {
        name: kept[name][group_ids(tuple(score.shape), granularity, block)]
        for name, score in scores.items()
    }


def keep_groups(
    scores: Scores, sparsity: float, scope: str = "layer", on_empty: str = "refuse"
) -> dict[str, Tensor]:
    """Which groups stay, from one score each: boolean (groups,) for each layer, True keeps.

    Works on units too: ``keep_groups(unit_scores(model), 0.5)`` is a ``keep`` for ``shrink``.

    >>> keep_groups({"a": torch.tensor([1.0, 9.0]), "b": torch.tensor([2.0, 3.0])}, 0.5)
    {'a': tensor([False,  True]), 'b': tensor([False,  True])}
    """
    if on_empty not in ON_EMPTY:
        raise ValueError(f"on_empty must be one of {list(ON_EMPTY)}, got {on_empty!r}")
    kept = masks.keep_top(scores, sparsity, scope)
    empty = [name for name, mask in kept.items() if not mask.any()]
    if not empty or on_empty == "allow":
        return kept
    total = sum(s.numel() for s in scores.values())
    stay = total - masks.removed(total, sparsity)
    if on_empty == "refuse" or scope == "layer" or stay < len(scores):
        raise ValueError(
            f"at sparsity {sparsity:g}, scope {scope!r}, nothing is left of {', '.join(map(repr, empty))}; "
            + (
                "remove less"
                if on_empty == "keep"
                else "remove less, or rank globally with on_empty='keep'"
            )
        )
    return _with_best(scores, stay)


def _with_best(scores: Scores, stay: int) -> dict[str, Tensor]:
    """Keep the best group of every layer, and of the others the best of all."""
    best = {name: torch.zeros_like(s, dtype=torch.bool) for name, s in scores.items()}
    for name, s in scores.items():
        best[name][s.argmax()] = True
    others = {name: s[~best[name]] for name, s in scores.items()}
    flat = torch.cat(list(others.values()))
    rest = masks.keep_quota({"all": flat}, {"all": stay - len(scores)})["all"]
    for name, mask in masks.split(rest, others).items():
        best[name][~best[name]] = mask
    return best
