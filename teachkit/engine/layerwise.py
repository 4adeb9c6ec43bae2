"""Optimal Brain Surgeon one layer at a time: the second-order method that fits any network.

A layer is asked to keep its own output on a batch, ‖X w′ − X w‖² for each row w of its weights. No
label is used and nothing is retrained. All works on H = XᵀX (:mod:`teachkit.engine.grams`,
:mod:`teachkit.engine.refit`): layer by layer or, with the costs in units of each layer's output
energy, with all layers in competition.
"""

import torch
from torch import Tensor, nn

from teachkit.core import checks
from teachkit.core.copies import independent_copy
from teachkit.core.ranking import keep_top
from teachkit.core.types import Batch, Masks
from teachkit.core.weights import prunable
from teachkit.engine.grams import gram, layer_grams
from teachkit.engine.refit import choose, pass_gram, refit_gram, trace_gram
from teachkit.engine.surgeon import Trace

DAMPING = 1e-6  # of the mean of H's diagonal


def trace_layer(weight: Tensor, inputs: Tensor, *, damping: float = DAMPING) -> Trace:
    """Remove every weight of every row, one at a time, each time the one that costs least.

    Removing w_q costs w_q² / [H⁻¹]_qq, once the others of its row have moved to make up for it. A
    prefix of the order is the greedy choice for that many removals, so one trace serves every
    sparsity. Takes O(out · in³). Weights that are zero, and weights on inputs that are always
    zero (dead), cost nothing and come first, the smallest first.

    Source: Frantar & Alistarh, Optimal Brain Compression, NeurIPS 2022, algorithm 1.

    Args:
        weight: (out, in).
        inputs: X (n, in), what the layer sees.
        damping: λ on H's diagonal, in units of the mean of the diagonal over the live inputs. The
            objective is then ‖Xw′ − Xw‖² + λ‖w′ − w‖². Where H stays singular, ValueError.

    >>> trace_layer(torch.tensor([[3.0, 1.0]]), torch.eye(2), damping=0.0).order
    tensor([[1, 0]])

    """
    return trace_gram(*_layer(weight, inputs), damping)


def refit(weight: Tensor, inputs: Tensor, mask: Tensor, *, damping: float = DAMPING) -> Tensor:
    """Least squares for a given mask: in each row the kept weights minimise ‖Xw′ − Xw‖².

    w′_K = w_K + H_KK⁻¹ H_KR w_R for the kept inputs K and the removed ones R of a row. Weights that
    are zero already stay zero; the rest is as in :func:`trace_layer`.

    >>> X = torch.tensor([[1.0, 1.0], [2.0, 2.0]])
    >>> refit(torch.tensor([[1.0, 2.0]]), X, torch.tensor([[True, False]]), damping=0.0)
    tensor([[3., 0.]])
    """
    W, H = _layer(weight, inputs)
    checks.masks({"mask": mask}, {"mask": weight})
    return refit_gram(W, H, mask, damping).to(weight.dtype)


def prune_layer(
    weight: Tensor,
    inputs: Tensor,
    sparsity: float,
    *,
    damping: float = DAMPING,
    scope: str = "row",
    method: str = "exact",
) -> Tensor:
    """The layer's weights (out, in), pruned so that its output on the inputs changes little.

    Args:
        weight: (out, in).
        inputs: X (n, in), what the layer sees.
        sparsity: fraction to remove. Zeros from before stay and count as removed.
        damping: λ in units of the mean of H's diagonal.
        scope: "row" removes round(sparsity · in) from every row, "layer" round(sparsity · out · in)
            from all rows together, the cheapest first.
        method: "exact" for :func:`trace_layer`, "pass" for :func:`prune_layer_pass`.

    >>> X = torch.tensor([[1.0, 0.0], [2.0, 0.1]])
    >>> prune_layer(torch.tensor([[1.0, 1.0]]), X, 0.5, damping=0.0)
    tensor([[1.0400, 0.0000]])

    """
    checks.fraction("sparsity", sparsity)
    if method == "pass" and scope == "layer":
        return prune_layer_pass(weight, inputs, sparsity, damping=damping)
    if method != "exact":
        raise ValueError(f"method must be 'exact', or 'pass' with scope 'layer', got {method!r}")
    if scope not in ("row", "layer"):
        raise ValueError(f"scope must be 'row' or 'layer', got {scope!r}")
    W, H = _layer(weight, inputs)
    trace = {"weight": trace_gram(W, H, damping)}
    mask = choose({"weight": W}, trace, sparsity, scope)["weight"]
    return refit_gram(W, H, mask, damping).to(weight.dtype)


def prune_layer_pass(
    weight: Tensor, inputs: Tensor, sparsity: float, *, damping: float = DAMPING
) -> Tensor:
    """As :func:`prune_layer`, in one pass from left to right: each input is decided on once.

    Blocks of 128 inputs lose the same share each, chosen over all rows by the cost at the start of
    the block; what a removal costs is made up for by the inputs further right only. All rows then
    share one H⁻¹, which makes it O(in³ + out · in²).

    Source: Frantar & Alistarh, SparseGPT, ICML 2023, algorithm 1.
    """
    checks.fraction("sparsity", sparsity)
    W, H = _layer(weight, inputs)
    return pass_gram(W, H, sparsity, damping).to(weight.dtype)


def prune_layers(
    model: nn.Module,
    batch: Batch,
    sparsity: float,
    *,
    scope: str = "layer",
    damping: float = DAMPING,
    method: str = "exact",
) -> tuple[nn.Module, Masks]:
    """A new model with every weight of its layers pruned by layer-wise OBS, and its masks.

    Each layer keeps its own output on the inputs that the unpruned network gives it. Biases stay.

    Args:
        model: any module; its Linear, Conv1d and Conv2d layers are pruned.
        batch: (x, y), a few hundred samples or more; only x is used.
        sparsity: exactly ``masks.removed(n, sparsity)`` weights go.
        scope: "row" takes the same share from each row, "layer" from each layer, "global" removes
            where the output error, relative to the layer's output energy ‖XWᵀ‖², is smallest.
        damping: λ in units of the mean of H's diagonal, see :func:`trace_layer`.
        method: "exact", or "pass" for the single pass of SparseGPT (scope "layer" only).

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
        for name, H in grams.items():
            if len(H) > 1:
                raise ValueError(
                    f"method 'pass' takes no grouped convolution; {name!r} has {len(H)} groups"
                )
        moved = {n: pass_gram(w, grams[n][0], sparsity, damping) for n, w in weights.items()}
        pruned = with_matrices(model, moved)
        left = {n: (w.detach() != 0).double() for n, w in prunable(pruned).items()}
        return pruned, keep_top(left, sparsity, "layer")
    traces = {n: _trace(w, grams[n], damping, scope) for n, w in weights.items()}
    kept = choose(weights, traces, sparsity, scope)
    pruned = _refitted(model, weights, grams, kept, damping)
    return pruned, {n: kept[n].reshape(w.shape) for n, w in prunable(model).items()}


def refit_layers(
    model: nn.Module, batch: Batch, kept: Masks, *, damping: float = DAMPING
) -> nn.Module:
    """A new model that keeps what the masks keep, each layer refitted to its own output.

    Least squares as in :func:`refit`, for masks from any criterion. Layers without a mask stay.
    """
    weights, grams = matrices(model, batch)
    given = checks.masks(kept, prunable(model))
    flat = {name: mask.flatten(1) for name, mask in given.items()}
    return _refitted(model, weights, grams, flat, damping)


def matrices(model: nn.Module, batch: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Each weight as a float64 matrix (out, in), and each layer's H."""
    grams = layer_grams(model, checks.batch(batch)[0])
    return {n: w.detach().double().flatten(1) for n, w in prunable(model).items()}, grams


def _trace(W: Tensor, grams: Tensor, damping: float, scope: str) -> Trace:
    """The trace of a layer, group by group; relative to its output energy if layers compete."""
    rows = W.chunk(len(grams))
    parts = [trace_gram(part, H, damping) for part, H in zip(rows, grams, strict=True)]
    order, losses = (torch.cat(both) for both in zip(*parts, strict=True))
    if scope == "global":
        energy = sum(float((part @ H * part).sum()) for part, H in zip(rows, grams, strict=True))
        losses = losses / max(energy, torch.finfo(losses.dtype).tiny)
    return Trace(order, losses)


def _refitted(
    model: nn.Module,
    weights: dict[str, Tensor],
    grams: dict[str, Tensor],
    kept: Masks,
    damping: float,
) -> nn.Module:
    """A copy of the model with the least-squares weights of these masks, (out, in) each."""
    fitted = {}
    for name, mask in kept.items():
        H = grams[name]
        groups = zip(weights[name].chunk(len(H)), H, mask.chunk(len(H)), strict=True)
        fitted[name] = torch.cat([refit_gram(*group, damping) for group in groups])
    return with_matrices(model, fitted)


@torch.no_grad()
def with_matrices(model: nn.Module, matrices: dict[str, Tensor]) -> nn.Module:
    """A copy of the model with these weights."""
    made = independent_copy(model)
    params = dict(made.named_parameters())
    for name, matrix in matrices.items():
        params[name].copy_(matrix.reshape(params[name].shape))
    return made


def _layer(weight: Tensor, inputs: Tensor) -> tuple[Tensor, Tensor]:
    """The weights in float64 and H, once they fit together."""
    if not checks.finite("weight", weight).is_floating_point():
        raise TypeError(f"weight must be of a floating type, got {weight.dtype}")
    if weight.ndim != 2:
        raise ValueError(f"weight must have the shape (out, in), got {tuple(weight.shape)}")
    if checks.finite("inputs", inputs).ndim != 2 or inputs.shape[1] != weight.shape[1]:
        raise ValueError(
            f"inputs must have the shape (n, {weight.shape[1]}) to fit the weight "
            f"{tuple(weight.shape)}, got {tuple(inputs.shape)}"
        )
    return weight.detach().double(), gram(inputs)
