"""One round of pruning and retraining, by any criterion."""

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import nn
from torch.nn.functional import cross_entropy

from teachkit.core import ranking, weights
from teachkit.core.types import Batch, Data, Loss, Masks, Scores
from teachkit.lab.evaluation import evaluate
from teachkit.lab.training import fit

Criterion = Callable[[nn.Module, Batch, Loss], Scores]


class Round(NamedTuple):
    """The sparsity of one round, and the test accuracy after the cut and after retraining."""

    sparsity: float
    pruned: float
    retrained: float


def prune_and_retrain(
    model: nn.Module,
    data: Data,
    criterion: Criterion,
    sparsity: float,
    *,
    scope: str = "global",
    loss: Loss = cross_entropy,
    **options: Any,
) -> tuple[nn.Module, Masks, Round]:
    """Cut the weights of least score, train what is left; a new model, its masks, the record.

    What is zero already stays zero and counts as removed.

    Args:
        model: a trained network; it is unchanged.
        data: training data, for the scores and the training, and test data for the record.
        criterion: (model, batch, loss) -> scores; a larger score stays.
        sparsity: the fraction of zeros after the cut, or more where more are zero already.
        scope: "global" or "layer", see ``masks.keep_top``.
        loss: a mean loss.
        options: epochs, seed, optimizer, … of ``training.fit``.

    """
    if not isinstance(data, Data):
        raise TypeError(f"data must be lab.data.Data(train, test), got {type(data).__name__}")
    ranked = ranking.zeros_last(criterion(model, data.train, loss), model)
    kept = weights.combine(ranking.keep_top(ranked, sparsity, scope), weights.nonzero(model))
    cut = weights.apply(model, kept)
    trained, _ = fit(cut, data.train, loss=loss, masks=kept, **options)
    accuracy = [evaluate(net, data.test, loss).accuracy for net in (cut, trained)]
    return trained, kept, Round(ranking.sparsity(kept), *accuracy)
