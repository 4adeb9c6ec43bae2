"""Which layer bears pruning: the accuracy when one layer at a time is pruned."""

from collections.abc import Sequence

from torch import nn
from torch.nn.functional import cross_entropy

from teachkit import masks
from teachkit.core.types import Batch, Loss
from teachkit.lab.evaluation import evaluate
from teachkit.magnitude.criteria import scores


def sensitivity(
    model: nn.Module,
    batch: Batch,
    sparsities: Sequence[float],
    loss: Loss = cross_entropy,
    *,
    threshold: float = 0.5,
) -> dict[str, list[float]]:
    """Accuracy after magnitude pruning of one tensor alone, for each tensor and each sparsity.

    Nothing is retrained. Source: Han et al., NIPS 2015, figure 6.

    Args:
        model: a trained network; it is unchanged.
        batch: (x, y) to measure on.
        sparsities: of the tensor that is pruned, each in [0, 1].
        loss: a mean loss that fits the network's outputs.
        threshold: for a single output, see ``evaluation.evaluate``.

    Returns:
        By name of the tensor one accuracy for each sparsity.

    >>> from teachkit.lab import data, models
    >>> [len(found) for found in sensitivity(models.mlp(), data.digits().test, [0.0, 0.5]).values()]
    [2, 2, 2]

    """
    found: dict[str, list[float]] = {}
    for name, score in scores(model).items():
        kept = (masks.keep_top({name: score}, sparsity) for sparsity in sparsities)
        pruned = (masks.apply(model, mask) for mask in kept)
        found[name] = [evaluate(net, batch, loss, threshold=threshold).accuracy for net in pruned]
    return found
