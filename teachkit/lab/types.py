"""The vocabulary of the course as types: said once here, held everywhere.

``Params``, ``Scores``: one tensor per prunable weight, keyed as ``model.named_parameters()``.
``Masks``: the same keys, boolean, True keeps. A larger score stays.
``Batch``: inputs and targets, ``(x, y)``. ``Loss``: a mean loss, ``(output, target) -> scalar``.
"""

from collections.abc import Callable

from torch import Tensor

Params = dict[str, Tensor]
Scores = dict[str, Tensor]
Masks = dict[str, Tensor]
Batch = tuple[Tensor, Tensor]
Loss = Callable[[Tensor, Tensor], Tensor]
