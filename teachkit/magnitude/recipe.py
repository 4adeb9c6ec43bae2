"""Han's recipe: a threshold per layer from its standard deviation, retraining, and again."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from tqdm.auto import tqdm

from teachkit import masks
from teachkit.core import checks
from teachkit.core.types import Data, Loss, Masks
from teachkit.lab import training
from teachkit.lab.evaluation import evaluate
from teachkit.magnitude.densities import warn_empty

Quality = float | Mapping[str, float]
TenthAdam = partial(torch.optim.Adam, lr=1e-4)  # a tenth of the rate of training.Adam


def removed_share(quality: float) -> float:
    """The fraction that a threshold of quality × σ removes from Gaussian weights: erf(q / √2).

    P(|w| < qσ) for w normal with mean 0. It is 68 % at q = 1, and not proportional to q.

    >>> [round(removed_share(q), 3) for q in (0.5, 1, 2)]
    [0.383, 0.683, 0.954]
    """
    return math.erf(checks.number("quality", quality) / math.sqrt(2))


def han_masks(model: nn.Module, quality: Quality) -> Masks:
    """Keep |w| > quality × σ in each tensor, σ the standard deviation of its nonzero weights.

    A weight that is zero already stays removed and does not count in σ. So a second round at the
    same quality removes more.

    Source: Han, Pool, Tran & Dally, Learning both Weights and Connections for Efficient Neural
    Networks, NIPS 2015, section 3.

    Args:
        model: any module.
        quality: 0 or more, for all tensors or by name; a tensor left out keeps its nonzero weights.

    >>> layer = nn.Linear(4, 1, bias=False)
    >>> _ = layer.weight.data.copy_(torch.tensor([[3.0, -1.0, 0.0, -2.0]]))
    >>> han_masks(layer, 0.7)
    {'weight': tensor([[ True, False, False,  True]])}

    """
    weights = masks.prunable(model)
    by_name = dict(quality) if isinstance(quality, Mapping) else dict.fromkeys(weights, quality)
    for name, value in by_name.items():
        if name not in weights:
            raise ValueError(f"quality has the key {name!r}; allowed are {sorted(weights)}")
        checks.number(f"quality[{name!r}]" if isinstance(quality, Mapping) else "quality", value)
    found: Masks = {}
    for name, w in weights.items():
        alive = w.detach()[w.detach() != 0]
        sigma = float(alive.std(correction=0)) if alive.numel() else 0.0
        found[name] = w.detach().abs() > by_name.get(name, 0.0) * sigma
    return found


def by_layer(
    model: nn.Module, quality: float, factors: Mapping[str, float] | None = None
) -> dict[str, float]:
    """The quality by tensor: times the tensor's factor, 1 where none is given.

    Without factors the last tensor has 0.6: it has few weights, and each decides about a class
    directly. A sensitivity scan tells which others need less than 1.

    >>> by_layer(nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1)), 1.0)
    {'0.weight': 1.0, '1.weight': 0.6}
    """
    names = list(masks.prunable(model))
    given = {names[-1]: 0.6} if factors is None else dict(factors)
    for name, factor in given.items():
        if name not in names:
            raise ValueError(f"factors has the key {name!r}; allowed are {names}")
        checks.number(f"factors[{name!r}]", factor)
    return {name: checks.number("quality", quality) * given.get(name, 1.0) for name in names}


class Round(NamedTuple):
    """One round: accuracy on the test batch right after pruning and after retraining."""

    quality: float
    sparsity: float
    pruned: float
    retrained: float
    kept: dict[str, int]


def han(
    model: nn.Module,
    data: Data,
    qualities: Sequence[float],
    *,
    epochs: int = 6,
    factors: Mapping[str, float] | None = None,
    batch_size: int = 64,
    optimizer: Callable[[Iterable[nn.Parameter]], Optimizer] = TenthAdam,
    scheduler: Callable[[Optimizer], LRScheduler] | None = None,
    loss: Loss = cross_entropy,
    seed: int = 0,
    progress: bool = True,
) -> tuple[nn.Module, Masks, list[Round]]:
    """Prune by ``han_masks`` and retrain with the masks held, once for each quality.

    From the paper: the threshold, a tenth of the rate for the retraining, and that it is repeated.
    The course's own: σ is that of the survivors, and the last tensor has a smaller quality. The
    paper's correction of dropout does not apply, since the course's networks have none.

    Args:
        model: a trained network; it is unchanged.
        data: training and test batch.
        qualities: one a round; a repeated quality removes more, see ``han_masks``.
        epochs: retraining epochs a round.
        factors: on the quality by tensor name, 1 where none is given; see ``by_layer``.
        batch_size: samples a step.
        optimizer: makes the optimizer of the retraining.
        scheduler: makes the learning-rate schedule of each round, see ``training.fit``.
        loss: a mean loss.
        seed: seed of the order of the samples; round r uses seed + r.
        progress: show a progress bar over the rounds.

    Returns:
        The pruned network, its masks and a list of rounds, as many as qualities.

    """
    net, kept, rounds = model, masks.keep_all(model), []
    for r, quality in enumerate(tqdm(qualities, desc="rounds", disable=not progress, leave=False)):
        kept = warn_empty(han_masks(net, by_layer(net, quality, factors)))
        cut = masks.apply(net, kept)
        net, _ = training.fit(
            cut,
            data.train,
            epochs=epochs,
            batch_size=batch_size,
            optimizer=optimizer,
            scheduler=scheduler,
            loss=loss,
            masks=kept,
            seed=seed + r,
            progress=False,
        )
        pruned, retrained = (evaluate(each, data.test, loss).accuracy for each in (cut, net))
        counts = {name: int(mask.sum()) for name, mask in kept.items()}
        rounds.append(Round(quality, masks.sparsity(kept), pruned, retrained, counts))
    return net, kept, rounds
