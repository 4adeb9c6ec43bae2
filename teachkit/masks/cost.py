"""What masks save: the scalar operations that are left."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvTransposeNd

from teachkit.core import checks
from teachkit.core.layers import weighted
from teachkit.core.recorder import Call, record_calls
from teachkit.core.types import Masks
from teachkit.core.weights import prunable


class Operations(NamedTuple):
    """Scalar multiplications and additions."""

    multiplications: int
    additions: int


def operations(model: nn.Module, x: Tensor, masks: Masks | None = None) -> dict[str, Operations]:
    """Count the scalar operations of each Linear and Conv layer on the batch x, zeros left out.

    An output with r kept weights takes r multiplications and r − 1 additions, one more with a
    bias, none with r = 0. Padding counts as input, as in most published counts.

    Args:
        model: any module that calls its Linear and Conv layers; a layer called twice counts twice.
        x: the input, e.g. one sample.
        masks: what is kept; without masks every weight counts, zero or not.

    >>> two = nn.Linear(2, 2, bias=False)
    >>> operations(two, torch.ones(2, 2)), operations(two, torch.ones(2, 2), {"weight": torch.eye(2) > 0})
    ({'': Operations(multiplications=8, additions=4)}, {'': Operations(multiplications=4, additions=0)})

    """
    weights = prunable(checks.model(model, checks.finite("x", x)))
    kept = checks.masks(masks or {}, weights)
    calls: dict[str, int] = {}
    by_weight = {id(weights[name]): mask for name, mask in kept.items()}  # tied layers share a mask
    for name, module in weighted(model):
        if isinstance(module, _ConvTransposeNd):
            raise ValueError(f"layer {name!r} is a transposed convolution, which is not counted")

    def see(call: Call) -> None:
        units = max(len(call.layer.weight), 1)  # type: ignore[arg-type]
        calls[call.name] = calls.get(call.name, 0) + call.output.numel() // units

    record_calls(model, x, see)
    return {
        name: _layer_operations(module, by_weight.get(id(module.weight)), calls[name])
        for name, module in weighted(model)
        if name in calls
    }


def total(operations: Mapping[str, Operations]) -> Operations:
    """The sum over the layers."""
    return Operations(
        sum(o.multiplications for o in operations.values()),
        sum(o.additions for o in operations.values()),
    )


def _layer_operations(module: nn.Module, mask: Tensor | None, calls: int) -> Operations:
    """Operations of one layer whose every output is computed ``calls`` times."""
    weight: Tensor = module.weight  # type: ignore[assignment]
    kept = torch.ones_like(weight, dtype=torch.bool) if mask is None else mask
    per_output = kept.reshape(len(weight), -1).sum(1)
    multiplications = int(per_output.sum())
    saved = 0 if module.bias is not None else int((per_output > 0).sum())
    return Operations(multiplications * calls, (multiplications - saved) * calls)
