"""What a network scores on data."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from teachkit.core import checks, door
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
    """Loss and accuracy of a model on a batch, in evaluation mode; the model is unchanged.

    The loss is what the function given says of all outputs together, whatever the chunk: also one with
    class weights, with labels to ignore, or a sum.

    Args:
        model: any module with one output per class, or one output in all.
        batch: (x, y); y holds class numbers, (n,), or for a single output 0 or 1, (n,) or (n, 1).
        loss: from outputs and targets to one number.
        threshold: for a single output, class 1 is output > threshold (0 for a logit).
        chunk: samples per forward pass.

    """
    y = checks.batch(batch)[1]
    if y.ndim > 1 and y.shape[1:].numel() != 1:
        raise ValueError(f"targets must be class numbers, one a sample, got shape {tuple(y.shape)}")
    parts = _outputs(model, batch, chunk)
    output, target = (torch.cat(pieces) for pieces in zip(*parts, strict=True))
    return Evaluation(float(measured(loss, output, target)), _share_right(parts, threshold))


def accuracy(model: nn.Module, batch: Batch, *, threshold: float = 0.5, chunk: int = 1000) -> float:
    """The share of samples classified correctly, whatever loss the network was trained with.

    The arguments are those of :func:`evaluate`; y may also be soft targets (n, C), the probabilities
    of C classes, of which the largest is taken for the class.

    >>> x, soft = torch.eye(2), torch.tensor([[0.9, 0.1], [0.6, 0.4]])
    >>> accuracy(nn.Identity(), (x, soft))
    0.5
    """
    x, y = checks.batch(batch)
    return _share_right(_outputs(model, (x, _classes(y)), chunk), threshold)


def _classes(y: Tensor) -> Tensor:
    """Class numbers, one a sample, also of soft targets."""
    if y.ndim == 1 or y.shape[1:].numel() == 1:
        return y
    whole = torch.ones(len(y), dtype=y.dtype, device=y.device)
    if y.ndim > 2 or bool((y < 0).any()) or not torch.allclose(y.sum(1), whole, atol=1e-2):
        raise ValueError(
            "targets must be class numbers, one a sample, or probabilities of classes (n, C), "
            f"got shape {tuple(y.shape)}"
        )
    return y.argmax(1)


@torch.no_grad()
def _outputs(model: nn.Module, batch: Batch, chunk: int) -> list[Batch]:
    """What the model gives and what it should give, in pieces, where the model is."""
    x, y = batch
    checks.whole("chunk", chunk, 1)
    device = next(checks.model(model, x).parameters(), x).device
    pairs = zip(torch.split(x, chunk), torch.split(y, chunk), strict=True)
    with eval_mode(model):
        parts = [(model(part.to(device)), target.to(device)) for part, target in pairs]
    if not all(isinstance(output, Tensor) for output, _ in parts):
        raise ValueError(f"model must give one tensor, got {type(parts[0][0]).__name__}")
    if any(len(output) != len(target) for output, target in parts):
        shape = tuple(parts[0][0].shape)
        raise ValueError(f"model must give one output a sample, got {shape} for {len(parts[0][1])}")
    return parts


def _share_right(parts: list[Batch], threshold: float) -> float:
    right = 0
    for output, target in parts:
        said = predictions(output, threshold).flatten()
        if said.shape != target.flatten().shape:  # torch would compare all with all
            raise ValueError(
                f"targets must be one for each prediction, got {tuple(target.shape)} for outputs of "
                f"shape {tuple(output.shape)}"
            )
        right += int((said == target.flatten()).sum())
    return right / sum(len(target) for _, target in parts)


door.hold(globals())
