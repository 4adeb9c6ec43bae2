"""The vocabulary of the course as types: said once here, held everywhere."""

from collections.abc import Callable
from typing import NamedTuple, Protocol

from torch import Tensor, nn

Params = dict[str, Tensor]
"""One tensor per prunable weight, keyed as ``model.named_parameters()``."""

Scores = dict[str, Tensor]
"""The same keys; a larger score stays."""

Masks = dict[str, Tensor]
"""The same keys, boolean; True keeps."""

Batch = tuple[Tensor, Tensor]
"""Inputs and targets, ``(x, y)``."""

Loss = Callable[[Tensor, Tensor], Tensor]
"""A mean loss over the samples, ``(output, target) -> scalar``; a sum or a mean with weights is refused
where an algorithm would come out wrong, see ``core.objective``."""


class Data(NamedTuple):
    """A training batch and a test batch, each a tuple (x, y)."""

    train: Batch
    test: Batch


class Criterion(Protocol):
    """Scores of every prunable weight, from a model and a batch; a larger score stays.

    Every criterion of the course has this signature, also one that looks at no data.
    """

    def __call__(self, model: nn.Module, batch: Batch, loss: Loss = ..., /) -> Scores:
        """Score the weights."""
        ...
