"""H = XᵀX of every layer of a network: all that layer-wise surgery asks of a layer's inputs X.

X is what reaches the layer when the network evaluates a batch, recorded call by call
(:mod:`teachkit.core.recorder`). A convolution is a linear layer on its patches, each group of
channels by itself. Nothing of X is kept: a call's rows are added up in float64, in pieces, as they
come, so the memory is that of H, in² numbers a layer, whatever the size of the batch.
"""

import torch
from torch import Tensor, nn

from teachkit.core import checks
from teachkit.core.layers import patches, weighted
from teachkit.core.recorder import Call, record_calls
from teachkit.core.weights import prunable

WIDEST = 8192  # inputs of a layer; their H takes 0.5 GB
CHUNK = 256  # images whose patches are made at a time, a bound on the memory


def gram(inputs: Tensor, chunk: int = 4096) -> Tensor:
    """H = XᵀX, (in, in), added up in float64 whatever the precision of X (n, in).

    >>> gram(torch.tensor([[1.0, 2.0], [0.0, 1.0]])).tolist()
    [[1.0, 2.0], [2.0, 5.0]]
    """
    if checks.finite("inputs", inputs).ndim != 2 or not len(inputs):
        raise ValueError(f"inputs must have the shape (n, in), n ≥ 1, got {tuple(inputs.shape)}")
    H = square(inputs.shape[1], inputs)
    for rows in torch.split(inputs.detach(), chunk):
        H.addmm_(rows.double().T, rows.double())
    return H


def layer_grams(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """H = XᵀX of every Linear and Conv2d layer by the name of its weight, (groups, in, in) float64.

    X is what reaches the layer when the model evaluates x, a convolution's unfolded. A layer that
    is called twice, or shares its weight with another, adds up all its inputs; one that is never
    reached has H = 0: all its inputs are dead.
    """
    names = {id(w): name for name, w in prunable(checks.model(model, x)).items()}
    grams = {names[id(layer.weight)]: _empty(name, layer) for name, layer in weighted(model)}

    def see(call: Call) -> None:
        seen = checks.finite(f"the input of layer {call.name!r}", call.input.detach())
        grams[names[id(call.layer.weight)]] += _gram(call.layer, seen)  # type: ignore[arg-type]

    record_calls(model, x, see)
    return grams


def square(width: int, like: Tensor) -> Tensor:
    """Zeros (width, width) in float64 on a tensor's device; refused where they would take too much."""
    if width > WIDEST:
        size = 8e-9 * width**2
        raise ValueError(
            f"H = XᵀX of {width} inputs takes {size:.1f} GB; at most {WIDEST} inputs are allowed"
        )
    return torch.zeros(width, width, dtype=torch.float64, device=like.device)


def _gram(layer: nn.Linear | nn.Conv2d, x: Tensor) -> Tensor:
    """H of one call, (groups, in, in)."""
    if isinstance(layer, nn.Linear):
        return gram(x.reshape(-1, x.shape[-1]))[None]
    H = _empty("", layer)
    for images in torch.split(x.reshape(-1, *x.shape[-3:]), CHUNK):
        H += torch.stack([gram(rows.flatten(0, 1)) for rows in patches(layer, images).unbind(1)])
    return H


def _empty(name: str, layer: nn.Module) -> Tensor:
    """The H of a layer that has seen nothing."""
    if not isinstance(layer, (nn.Linear, nn.Conv2d)):
        raise ValueError(
            f"layer {name!r} is a {type(layer).__name__}; layer-wise OBS takes Linear and Conv2d"
        )
    groups = layer.groups if isinstance(layer, nn.Conv2d) else 1
    return torch.stack([square(layer.weight[0].numel(), layer.weight)] * groups)
