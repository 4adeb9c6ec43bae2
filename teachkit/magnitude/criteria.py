"""The criteria that look at no data: the absolute weight, its share in the layer, and chance."""

import torch
from torch import Tensor, nn

from teachkit import masks
from teachkit.core.types import Scores


def scores(model: nn.Module) -> Scores:
    """|w| for every prunable weight: the smallest go first.

    Source: Han, Pool, Tran & Dally, Learning both Weights and Connections, 2015 (per layer, with
    retraining); the idea is older.

    >>> layer = nn.Linear(2, 1, bias=False)
    >>> _ = layer.weight.data.copy_(torch.tensor([[-3.0, 2.0]]))
    >>> scores(layer)
    {'weight': tensor([[3., 2.]])}
    """
    return {name: w.detach().abs() for name, w in masks.prunable(model).items()}


def lamp_scores(model: nn.Module) -> Scores:
    """W² / Σ v² over the weights v of the same tensor that are at least as large, w included.

    The largest weight of every tensor scores 1, so a global ranking empties no layer before it has
    reached one weight in each. Of equal weights the first counts as the larger. A tensor of zeros
    scores 0.

    Source: Lee, Park, Mo, Ahn & Shin, Layer-adaptive sparsity for the Magnitude-based Pruning,
    ICLR 2021, equation 3.

    >>> layer = nn.Linear(3, 1, bias=False)
    >>> _ = layer.weight.data.copy_(torch.tensor([[-2.0, 1.0, 2.0]]))
    >>> lamp_scores(layer)["weight"].round(decimals=3)
    tensor([[1.0000, 0.1110, 0.5000]])
    """
    return {name: _lamp(w.detach()) for name, w in masks.prunable(model).items()}


def _lamp(w: Tensor) -> Tensor:
    flat = w.reshape(-1).double().abs()
    largest = flat.max() if len(flat) else flat.sum()
    if largest == 0:
        return torch.zeros_like(w, dtype=_at_least_single(w))
    order = flat.argsort(descending=True, stable=True)
    squares = (flat[order] / largest).square()  # without overflow or loss, whatever the scale
    found = torch.empty_like(flat)
    found[order] = squares / squares.cumsum(0)
    return found.to(_at_least_single(w)).reshape(w.shape)


def _at_least_single(w: Tensor) -> torch.dtype:
    """The dtype of scores: half precision has too few numbers to tell them apart."""
    return torch.promote_types(w.dtype, torch.float32)


def random_scores(model: nn.Module, generator: torch.Generator) -> Scores:
    """Uniform scores in [0, 1): the baseline that a criterion must beat.

    Args:
        model: any module.
        generator: a generator of its own. Do not seed it like the initialisation: ``rand`` and
            ``randn`` of one seed are correlated, and the baseline would be half a magnitude pruning.

    """
    if not isinstance(generator, torch.Generator):
        raise TypeError(f"generator must be a torch.Generator, got {type(generator).__name__}")
    return {
        name: torch.rand(w.shape, generator=generator, dtype=_at_least_single(w))
        for name, w in masks.prunable(model).items()
    }
