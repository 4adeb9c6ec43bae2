"""Optimal Brain Surgeon one layer at a time: the second-order method that fits any network.

A layer with inputs X (n, in) changes its output by X δ when a row of its weights changes by δ.
The squared change ‖X δ‖² = δᵀHδ is exactly quadratic, with one H = XᵀX for all rows.
"""

import torch
from torch import Tensor

from teachkit.core import checks
from teachkit.obs.layer_fit import pass_gram, refit_gram
from teachkit.obs.layer_trace import Trace, choose, trace_gram

DAMPING = 1e-6  # of the mean of H's diagonal
WIDEST = 8192  # inputs of a layer; their H takes 0.5 GB


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


def square(width: int, like: Tensor) -> Tensor:
    """Zeros (width, width) in float64 on a tensor's device; refused where they would take too much."""
    if width > WIDEST:
        size = 8e-9 * width**2
        raise ValueError(
            f"H = XᵀX of {width} inputs takes {size:.1f} GB; at most {WIDEST} inputs are allowed"
        )
    return torch.zeros(width, width, dtype=torch.float64, device=like.device)


def trace_layer(weight: Tensor, inputs: Tensor, *, damping: float = DAMPING) -> Trace:
    """Remove every weight of every row, one at a time, each time the one that costs least.

    Removing w_q and moving the other weights of its row to make up for it costs
    w_q² / [H⁻¹]_qq. The row then moves by −w_q [H⁻¹]_:q / [H⁻¹]_qq, and its own H⁻¹ loses q. A
    prefix of the order is the greedy choice for that many removals, so one trace serves every
    sparsity. Takes O(out · in³). Weights that are zero, and weights on inputs that are always
    zero (dead), cost nothing and come first, the smallest first.

    Source: Frantar & Alistarh, Optimal Brain Compression, NeurIPS 2022, algorithm 1; carried out
    as a pivoted Cholesky factorisation of H⁻¹ in blocks.

    Args:
        weight: (out, in).
        inputs: X (n, in), what the layer sees.
        damping: λ on H's diagonal, in units of the mean of the diagonal over the live inputs. The
            objective is then ‖Xw′ − Xw‖² + λ‖w′ − w‖².

    Raises:
        ValueError: H is singular and damping too small to mend it.

    >>> trace_layer(torch.tensor([[3.0, 1.0]]), torch.eye(2), damping=0.0).order
    tensor([[1, 0]])

    """
    return trace_gram(*_layer(weight, inputs), damping)


def refit(weight: Tensor, inputs: Tensor, mask: Tensor, *, damping: float = DAMPING) -> Tensor:
    """Least squares for a given mask: in each row the kept weights minimise ‖Xw′ − Xw‖².

    w′_K = w_K + H_KK⁻¹ H_KR w_R for the kept inputs K and the removed ones R of a row.

    Args:
        weight: (out, in), before pruning.
        inputs: X (n, in).
        mask: (out, in), boolean, True keeps. Weights that are zero already stay zero.
        damping: λ in units of the mean of H's diagonal; it adds λ‖w′ − w‖² to the objective.

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
        sparsity: fraction to remove, in [0, 1]. Zeros from before stay and count as removed.
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


def _layer(weight: Tensor, inputs: Tensor) -> tuple[Tensor, Tensor]:
    """The weights in float64 and H, once they fit together."""
    if checks.finite("weight", weight).ndim != 2:
        raise ValueError(f"weight must have the shape (out, in), got {tuple(weight.shape)}")
    if checks.finite("inputs", inputs).ndim != 2 or inputs.shape[1] != weight.shape[1]:
        raise ValueError(
            f"inputs must have the shape (n, {weight.shape[1]}) to fit the weight "
            f"{tuple(weight.shape)}, got {tuple(inputs.shape)}"
        )
    return weight.detach().double(), gram(inputs)
