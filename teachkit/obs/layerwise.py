"""Layer-wise OBS for a whole network: the inputs of every layer, and all layers pruned at once."""

import copy

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, unfold

from teachkit import masks
from teachkit.core import checks
from teachkit.core.layers import weighted
from teachkit.core.recorder import Call, record_calls
from teachkit.core.types import Batch, Masks
from teachkit.obs.layer_fit import pass_gram, refit_gram
from teachkit.obs.layer_trace import Trace, choose, trace_gram
from teachkit.obs.layers import DAMPING, gram, square

CHUNK = 256  # images unfolded at a time, a bound on the memory


def prune_layers(
    model: nn.Module,
    batch: Batch,
    sparsity: float,
    *,
    scope: str = "layer",
    damping: float = DAMPING,
    method: str = "exact",
) -> tuple[nn.Module, Masks]:
    """A new model with every Linear and Conv2d weight pruned by layer-wise OBS, and its masks.

    Each layer is asked to keep its own output on the inputs that the unpruned network gives it;
    no label is used and nothing is retrained. Biases stay.

    Args:
        model: any module; its Linear and Conv2d layers are pruned.
        batch: (x, y), a few hundred samples or more; only x is used.
        sparsity: fraction to remove; exactly ``masks.removed(n, sparsity)`` weights go.
        scope: "row" takes the same share from each row, "layer" from each layer, "global" removes
            where the output error, relative to the layer's output energy ‖XWᵀ‖², is smallest.
        damping: λ in units of the mean of H's diagonal, see :func:`trace_layer`.
        method: "exact", or "pass" for the single pass of SparseGPT (scope "layer" only).

    Raises:
        ValueError: a layer of another kind, e.g. a transposed convolution; the message names it.

    """
    checks.fraction("sparsity", sparsity)
    allowed = {"exact": ("row", "layer", "global"), "pass": ("layer",)}
    if scope not in allowed.get(method, ()):
        raise ValueError(
            f"scope must be 'row', 'layer' or 'global' with method 'exact', 'layer' with 'pass'; "
            f"got scope {scope!r} with method {method!r}"
        )
    weights, grams = matrices(model, batch)
    if method == "pass":
        moved = {n: _passed(w, grams[n], n, sparsity, damping) for n, w in weights.items()}
        pruned = _with(model, moved)
        left = {n: (w.detach() != 0).double() for n, w in masks.prunable(pruned).items()}
        return pruned, masks.keep_top(left, sparsity, "layer")
    traces = {n: traced(w, grams[n], damping, scope) for n, w in weights.items()}
    kept = choose(weights, traces, sparsity, scope)
    pruned = refitted(model, weights, grams, kept, damping)
    return pruned, {n: kept[n].reshape(w.shape) for n, w in masks.prunable(model).items()}


def refit_layers(
    model: nn.Module, batch: Batch, kept: Masks, *, damping: float = DAMPING
) -> nn.Module:
    """A new model that keeps what the masks keep, each layer refitted to its own output.

    Least squares as in :func:`refit`, for masks from any criterion. Layers without a mask stay.
    """
    weights, grams = matrices(model, batch)
    given = checks.masks(kept, masks.prunable(model))
    flat = {name: mask.flatten(1) for name, mask in given.items()}
    return refitted(model, weights, grams, flat, damping)


def patches(layer: nn.Conv2d, x: Tensor) -> Tensor:
    """What each output pixel of a convolution sees, (groups, n · pixels, in / groups · kh · kw).

    A convolution is a linear layer on these rows: its weights, flattened to (out, ...), times them.

    >>> patches(nn.Conv2d(2, 1, 3, padding=1), torch.ones(4, 2, 5, 5)).shape
    torch.Size([1, 100, 18])
    """
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    wide = pad(x.reshape(-1, *x.shape[-3:]), layer._reversed_padding_repeated_twice, mode)
    columns = unfold(wide, layer.kernel_size, layer.dilation, stride=layer.stride)
    apart = columns.reshape(len(wide), layer.groups, -1, columns.shape[2])
    return apart.permute(1, 0, 3, 2).flatten(1, 2)


def layer_grams(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """H = XᵀX of every Linear and Conv2d layer by the name of its weight, (groups, in, in) float64.

    X is what reaches the layer when the model evaluates x, a convolution's unfolded. A layer that
    is called twice, or shares its weight with another, adds up all its inputs; one that is never
    reached has H = 0: all its inputs are dead.
    """
    names = {id(w): name for name, w in masks.prunable(checks.model(model, x)).items()}
    grams = {names[id(layer.weight)]: _empty(name, layer) for name, layer in weighted(model)}

    def see(call: Call) -> None:
        seen = checks.finite(f"the input of layer {call.name!r}", call.input.detach())
        grams[names[id(call.layer.weight)]] += _gram(call.layer, seen)  # type: ignore[arg-type]

    record_calls(model, x, see)
    return grams


def _gram(layer: nn.Linear | nn.Conv2d, x: Tensor) -> Tensor:
    """H of one call, (groups, in, in)."""
    if isinstance(layer, nn.Linear):
        return gram(x.reshape(-1, x.shape[-1]))[None]
    images = torch.split(x.reshape(-1, *x.shape[-3:]), CHUNK)
    parts = [torch.stack([gram(group) for group in patches(layer, part)]) for part in images]
    return torch.stack(parts).sum(0)


def _empty(name: str, layer: nn.Module) -> Tensor:
    """The H of a layer that has seen nothing."""
    if not isinstance(layer, (nn.Linear, nn.Conv2d)):
        raise ValueError(
            f"layer {name!r} is a {type(layer).__name__}; layer-wise OBS takes Linear and Conv2d"
        )
    groups = layer.groups if isinstance(layer, nn.Conv2d) else 1
    return torch.stack([square(layer.weight[0].numel(), layer.weight)] * groups)


def matrices(model: nn.Module, batch: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Each weight as a float64 matrix (out, in), and each layer's H."""
    x, _ = checks.batch(batch)
    grams = layer_grams(model, x)
    weights = masks.prunable(model)
    return {n: w.detach().double().flatten(1) for n, w in weights.items()}, grams


def traced(W: Tensor, grams: Tensor, damping: float, scope: str) -> Trace:
    """The trace of a layer, group by group; relative to its output energy if layers compete."""
    rows = W.chunk(len(grams))
    parts = [trace_gram(part, H, damping) for part, H in zip(rows, grams, strict=True)]
    order, losses = (torch.cat(both) for both in zip(*parts, strict=True))
    if scope == "global":
        energy = sum(float((part @ H * part).sum()) for part, H in zip(rows, grams, strict=True))
        losses = losses / max(energy, torch.finfo(losses.dtype).tiny)
    return Trace(order, losses)


def _passed(W: Tensor, grams: Tensor, name: str, sparsity: float, damping: float) -> Tensor:
    if len(grams) > 1:
        raise ValueError(
            f"method 'pass' takes no grouped convolution; {name!r} has {len(grams)} groups"
        )
    return pass_gram(W, grams[0], sparsity, damping)


def refitted(
    model: nn.Module,
    weights: dict[str, Tensor],
    grams: dict[str, Tensor],
    kept: Masks,
    damping: float,
) -> nn.Module:
    """A copy of the model with the least-squares weights of these masks, (out, in) each."""
    return _with(model, {n: _refit(weights[n], grams[n], kept[n], damping) for n in kept})


def _refit(W: Tensor, grams: Tensor, kept: Tensor, damping: float) -> Tensor:
    groups = zip(W.chunk(len(grams)), grams, kept.chunk(len(grams)), strict=True)
    return torch.cat([refit_gram(part, H, mask, damping) for part, H, mask in groups])


@torch.no_grad()
def _with(model: nn.Module, matrices: dict[str, Tensor]) -> nn.Module:
    """A copy of the model with these weights."""
    made = copy.deepcopy(model)
    params = dict(made.named_parameters())
    for name, matrix in matrices.items():
        params[name].copy_(matrix.reshape(params[name].shape))
    return made
