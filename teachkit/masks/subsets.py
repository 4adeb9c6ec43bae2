"""All masks of one sparsity: how many there are, and the best of them."""

import itertools
from math import comb

import mpmath
import numpy as np
import torch
from torch import Tensor, nn
from torch.func import vmap
from torch.nn.functional import cross_entropy

from teachkit.core import checks
from teachkit.core.objective import objective
from teachkit.core.types import Batch, Loss, Masks
from teachkit.core.weights import prunable, split

BRUTE_FORCE_LIMIT = 20  # weights; C(20, 10) = 184,756 networks, C(30, 15) = 155 million


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
