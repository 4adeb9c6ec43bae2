"""What a network scores on data."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from teachkit.core import checks
from teachkit.core.objective import eval_mode, measured
from teachkit.core.types import Batch, Loss


class Evaluation(NamedTuple):
    """Mean loss and the share of samples classified correctly, both over one batch."""

    loss: float
    accuracy: float


def predictions(output: Tensor, threshold: float = 0.5) -> Tensor:
    """The predicted class: the largest of several outputs, or output > threshold for a single one."""
    if output.ndim == 1 or output.shape[1] == 1:
        return (output.reshape(-1) > threshold).long()
    return output.argmax(1)


@torch.no_grad()
def evaluate(
    model: nn.Module,
    batch: Batch,
    loss: Loss = cross_entropy,
    *,
    threshold: float = 0.5,
    chunk: int = 1000,
) -> Evaluation:
    """Mean loss and accuracy of a model on a batch, in evaluation mode; the model is unchanged.

    Args:
        model: any module with one output per class, or one output in all.
        batch: (x, y); y holds class numbers, (n,), or for a single output 0 or 1, (n,) or (n, 1).
        loss: a mean loss.
        threshold: for a single output, class 1 is output > threshold (0 for a logit).
        chunk: samples per forward pass, a bound on the memory.

    """
    x, y = checks.batch(batch)
    checks.whole("chunk", chunk, 1)
    if y.ndim > 1 and y.shape[1:].numel() != 1:
        raise ValueError(f"targets must be class numbers, one a sample, got shape {tuple(y.shape)}")
    with eval_mode(checks.model(model, x)):
        parts = [(model(x[i : i + chunk]), y[i : i + chunk]) for i in range(0, len(x), chunk)]
    total = sum(float(measured(loss, output, target)) * len(target) for output, target in parts)
    right = sum(
        int((predictions(output, threshold) == target.reshape(len(target), -1)[:, 0]).sum())
        for output, target in parts
    )
    return Evaluation(total / len(x), right / len(x))
