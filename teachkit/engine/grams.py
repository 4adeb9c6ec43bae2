"""H = XᵀX of every layer of a network: all that layer-wise surgery asks of a layer's inputs X.

X is what reaches the layer when the network evaluates a batch, recorded call by call
(:mod:`teachkit.core.recorder`). A convolution is a linear layer on its patches, each group of
channels by itself. Nothing of X is kept: a call's rows are added up in float64, in pieces, as they
come, so the memory is that of H, in² numbers a layer, whatever the size of the batch.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from teachkit.core import checks
from teachkit.core.criteria import criterion
from teachkit.core.layers import patches, weighted
from teachkit.core.recorder import Call, record_calls
from teachkit.core.types import Batch, Loss, Scores
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


def add_gram(H: Tensor, x: Tensor, chunk: int = 4096) -> None:
    """Add XᵀX of the rows of x (..., in) to H (in, in), or to a vector (in,) its diagonal alone.

    A chunk's products are in the precision of x, float32 at least, whatever autocast is on; their sum in
    that of H. A network of half precision thus gives a matrix that still has an inverse.
    """
    kind = torch.promote_types(x.dtype, torch.float32)
    with torch.autocast(x.device.type, enabled=False):
        for rows in torch.split(x.detach().reshape(-1, x.shape[-1]).to(kind), chunk):
            H += rows.T @ rows if H.ndim == 2 else rows.square().sum(0)


def layer_grams(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """H = XᵀX of every Linear, Conv1d and Conv2d layer by its weight's name, (groups, in, in) float64.

    X is what reaches the layer when the model evaluates x, a convolution's unfolded. A layer that
    is called twice, or shares its weight with another, adds up all its inputs; one that is never
    reached has H = 0: all its inputs are dead.
    """
    names = {id(w): name for name, w in prunable(checks.model(model, x)).items()}
    layers = [(name, layer) for name, layer in weighted(model) if id(layer.weight) in names]
    grams = {names[id(layer.weight)]: _empty(name, layer) for name, layer in layers}

    def see(call: Call) -> None:
        seen = checks.finite(f"the input of layer {call.name!r}", call.input.detach())
        grams[names[id(call.layer.weight)]] += _gram(call.layer, seen)  # type: ignore[arg-type]

    record_calls(model, x, see, layers)
    return grams


@criterion("Wanda", passes=1, needs=("data",), source="Sun, Liu, Bair & Kolter 2024")
def wanda_scores(model: nn.Module, batch: Batch, loss: Loss = cross_entropy) -> Scores:
    """|w_ij| · ‖x_j‖ with the norm of input j over the batch, the root of H_jj; no label is used.

    The paper compares within a row of weights only: :func:`masks.keep_n_of_m` does so.
    Source: Sun, Liu, Bair & Kolter, A simple and effective pruning approach, ICLR 2024, equation 1.

    >>> net, x = nn.Linear(2, 1), torch.tensor([[3.0, 0.0], [4.0, 1.0]])
    >>> net.weight.data = torch.tensor([[1.0, -2.0]])
    >>> wanda_scores(net, (x, torch.zeros(2)))["weight"].tolist()
    [[5.0, 2.0]]
    """
    grams, scores = layer_grams(model, checks.batch(batch)[0]), {}
    for name, w in prunable(model).items():
        norms = grams[name].diagonal(dim1=1, dim2=2).sqrt().to(w.dtype)  # of each group
        rows = norms.repeat_interleave(len(w) // len(norms), 0)
        scores[name] = w.detach().abs() * rows.view_as(w)
    return scores


def square(width: int, like: Tensor) -> Tensor:
    """Zeros (width, width) in float64 on a tensor's device; refused where they would take too much."""
    if width > WIDEST:
        size = 8e-9 * width**2
        raise ValueError(
            f"H = XᵀX of {width} inputs takes {size:.1f} GB; at most {WIDEST} inputs are allowed"
        )
    return torch.zeros(width, width, dtype=torch.float64, device=like.device)


def _gram(layer: nn.Linear | nn.Conv1d | nn.Conv2d, x: Tensor) -> Tensor:
    """H of one call, (groups, in, in)."""
    if isinstance(layer, nn.Linear):
        return gram(x.reshape(-1, x.shape[-1]))[None]
    H = _empty("", layer)
    for images in torch.split(x.reshape(-1, *x.shape[1 - layer.weight.ndim :]), CHUNK):
        H += torch.stack([gram(rows.flatten(0, 1)) for rows in patches(layer, images).unbind(1)])
    return H


def _empty(name: str, layer: nn.Module) -> Tensor:
    """The H of a layer that has seen nothing."""
    if not isinstance(layer, (nn.Linear, nn.Conv1d, nn.Conv2d)):
        raise ValueError(
            f"layer {name!r} is a {type(layer).__name__}; what looks at the inputs of layers takes "
            "Linear, Conv1d and Conv2d"
        )
    groups = getattr(layer, "groups", 1)
    return torch.stack([square(layer.weight[0].numel(), layer.weight)] * groups)
