"""The two criteria that look at no data: the absolute weight, and chance."""

import torch
from torch import nn

from teachkit import masks
from teachkit.lab.types import Scores


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
        name: torch.rand(w.shape, generator=generator, dtype=w.dtype)
        for name, w in masks.prunable(model).items()
    }
