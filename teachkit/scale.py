"""The same ideas on a language model: where the size of the inputs decides, and what one update is worth.

A transformer is too large for one Hessian, and not too large for one of each matrix: a layer is asked to
keep its own output ‖X W′ᵀ − X Wᵀ‖², and H = XᵀX is all that is asked of its inputs. Magnitude looks at none
of it, Wanda at its diagonal, SparseGPT at all of it once, layer-wise OBS at all of it after each removal.
Here stand the formulas and the plain algorithms; ``prune`` goes through a model block by block, each on
what the pruned blocks before it give (:mod:`teachkit.engine.blockwise`, ``onelayer``).

Sources: Frantar & Alistarh, Optimal Brain Compression, NeurIPS 2022, and SparseGPT, ICML 2023; Sun, Liu, Bair
& Kolter, Wanda, ICLR 2024; Yin et al., OWL, ICML 2024; Mishra et al., Accelerating sparse networks, 2021.
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from teachkit.core import bars, checks, door
from teachkit.core.copies import independent_copy
from teachkit.core.types import Masks
from teachkit.engine import amounts, blockwise, onelayer
from teachkit.engine.amounts import Scope
from teachkit.engine.blockwise import blocks_of, layers_of
from teachkit.engine.outliers import input_norms, owl, owl_densities
from teachkit.lab.fingerprint import describe
from teachkit.lab.language import perplexity, says
from teachkit.lab.matrices import Folder
from teachkit.lab.stretching import equalised, stretched
from teachkit.lab.transformers import blocks_by_name
from teachkit.structured import shrink

__all__ = [
    "blocks_of", "equalised", "input_norms", "layers_of", "owl", "owl_densities", "perplexity", "says",
    "stretched",
]  # fmt: skip
METHODS = tuple(onelayer.METHODS)
Name = Literal["random", "magnitude", "wanda", "sparsegpt", "obs"]

# --- Which weight matters? The same row of weights, with three pairs of eyes. ---


def wanda_scores(W: Tensor, X: Tensor) -> Tensor:
    """|w_ij| ‖x_j‖, (out, in): what leaving out a weight alone does to its output, ‖w_ij x_j‖.

    Inputs X are (n, in). Sun et al. 2024, equation 1.

    >>> wanda_scores(torch.tensor([[1.0, -2.0]]), torch.tensor([[3.0, 0.0], [4.0, 1.0]]))
    tensor([[5., 2.]])
    """
    _fitting(W, X)
    return W.abs() * X.square().sum(0).sqrt()


def wanda_naive(W: Tensor, X: Tensor, sparsity: float) -> Tensor:
    """The mask of Wanda, row by row in Python: in each output the round(sparsity · in) least scores go.

    >>> wanda_naive(torch.tensor([[1.0, -2.0]]), torch.tensor([[3.0, 0.0], [4.0, 1.0]]), 0.5)
    tensor([[ True, False]])
    """
    scores, k = wanda_scores(W, X).tolist(), round(sparsity * W.shape[1])
    kept = torch.ones_like(W, dtype=torch.bool)
    for i, row in enumerate(scores):
        order = sorted((score, -j) for j, score in enumerate(row))  # of equals the later one goes
        for _, j in order[:k]:
            kept[i, -j] = False
    return kept


def sparsegpt_naive(
    W: Tensor, X: Tensor, sparsity: float | str, damping: float = 0.01, block: int = 128
) -> Tensor:
    """SparseGPT's weights, as its algorithm 1 says it: one column after the other, all rows at once.

    With the Cholesky factor U of (XᵀX + λI)⁻¹, column j's error is w_j / U_jj where it goes, and what is
    further right moves by −error · U_j:. What goes is chosen at the start of each block, or with "n:m" at
    the start of each m columns, by w² / U_jj².

    >>> sparsegpt_naive(torch.tensor([[1.0, 1.0]]), torch.tensor([[1.0, 1.0], [0.0, 0.1]]), 0.5).round()
    tensor([[0., 2.]])
    """
    H, asked = _damped(X, damping), amounts.parsed(sparsity)
    U = torch.linalg.cholesky(torch.linalg.inv(H), upper=True)
    step = asked.m if isinstance(asked, amounts.Pattern) else checks.whole("block", block, 1)
    w = W.to(H)
    kept = torch.ones_like(W, dtype=torch.bool)
    for j in range(W.shape[1]):
        if j % step == 0:
            cost = (w[:, j : j + step] / U.diagonal()[j : j + step]) ** 2
            kept[:, j : j + step] = amounts.keep(cost, asked, "layer")
        error = torch.where(kept[:, j], 0.0, w[:, j] / U[j, j])
        w = w - torch.outer(error, U[j])
        w[:, j] = w[:, j] * kept[:, j]
    return w.to(W.dtype)


def output_error(W: Tensor, pruned: Tensor, X: Tensor) -> float:
    """‖X Wᵀ − X W′ᵀ‖² / ‖X Wᵀ‖²: the share of a layer's output that is lost, 0 where there is none.

    >>> output_error(torch.tensor([[1.0, 1.0]]), torch.tensor([[1.0, 0.0]]), torch.eye(2))
    0.5
    """
    checks.same_shape(W=W, pruned=pruned)
    _fitting(W, X)
    whole = float((X @ W.T).square().sum())
    return float((X @ (W - pruned).T).square().sum()) / whole if whole else 0.0


# --- A whole model. ---


def prune(
    model: nn.Module,
    tokens: Tensor,
    method: Name = "wanda",
    sparsity: float | str | Mapping[str, float] = 0.5,
    *,
    scope: Scope | None = None,
    refit: bool = False,
    damping: float = 0.01,
    generator: torch.Generator | None = None,
    blocks: str | None = None,
    folder: Path | str | None = None,
    chunk: int = 8,
    progress: bool = True,
) -> tuple[nn.Module, Masks]:
    """A new model whose blocks' Linear layers are pruned, and their masks; all else stays.

    Each block is pruned on what the pruned blocks before it give, so that later ones see the errors.

    Args:
        model: any network that is a chain of blocks, tried out on a sample; else UncoveredError.
        tokens: what the model takes, (n, ...): the calibration set. No label is used.
        method: "random" and "magnitude" look at no input; "wanda" at the inputs' norms; "sparsegpt" and
            "obs" at XᵀX, and they move what they keep.
        sparsity: the fraction that goes, "n:m" (n of m neighbouring inputs stay), or a fraction for
            each weight by name, as :func:`owl` gives.
        scope: choose in each output alone ("row") or in each matrix ("layer"), by default as published:
            "row" for Wanda and OBS, else "layer".
        refit: keep the method's masks and give what they keep the best weights, by least squares.
        damping: λ in units of the mean of the diagonal of XᵀX.
        generator: for "random".
        blocks: where the list of the blocks is; by default the list that holds most weights.
        folder: keep each block's result there; a call with the same arguments then goes on from it.
        chunk: samples that run together.
        progress: show a progress bar where it takes long.

    """
    way = onelayer.chosen(method, refit, scope)
    pruned = independent_copy(checks.model(model)).eval()
    names = [name for own in layers_of(pruned, blocks) for name in own]
    asked = amounts.of_each(sparsity, names)
    seed = _seed(checks.dice(generator))
    given = {"weights": pruned.state_dict(), "tokens": tokens, "method": method, "sparsity": asked}
    given |= {"scope": way.scope, "refit": refit, "damping": damping, "seed": seed}
    masks: Masks = {}
    store = Folder(folder, describe(**given)) if folder else None
    walk = blockwise.walk(pruned, tokens, way.needs, path=blocks, chunk=chunk)
    for stop in bars.bar(walk, "blocks", total=len(blocks_of(pruned, blocks)[1]), show=progress):
        make = partial(blockwise.prune_block, stop, way, asked, damping, seed)
        made = store(stop.number, make) if store else make()
        for name, layer in stop.layers.items():
            layer.weight.data.copy_(made[name])
            masks[name] = made[f"{name}.mask"]
    return pruned, masks


# --- Whole heads and channels, removed for real. ---


def unit_scores(model: nn.Module, tokens: Tensor) -> dict[str, Tensor]:
    """How much each channel of an MLP and each group of heads writes, by ``blocks.0.mlp``, ``….attention``.

    √ Σ ‖w_:j‖² mean x_j² over the columns j of ``down``, one for each channel, or of ``o``, one sum for the
    heads that share a key and a value.
    """
    norms, scores = input_norms(model, tokens), {}
    for at, block in blocks_by_name(model).items():
        for name, columns in (("mlp.down", 1), ("attention.o", block.shared)):
            W = block.get_parameter(f"{name}.weight").detach()
            energy = W.square().sum(0) * norms[f"{at}.{name}.weight"].square()
            scores[f"{at}.{name.split('.')[0]}"] = energy.view(-1, columns).sum(1).sqrt()
    return scores


def without_units(model: nn.Module, keep: Mapping[str, Tensor]) -> nn.Module:
    """A smaller transformer without the channels and groups of heads that ``keep`` marks False.

    Keys are those of :func:`unit_scores`; MLPs are shrunk by ``structured.shrink``. It computes what the
    large one does with zeros in those columns of ``down`` and ``o``.
    """
    small = independent_copy(model)
    blocks = blocks_by_name(small).items()
    parts = {f"{at}.{part}": (block, part) for at, block in blocks for part in ("mlp", "attention")}
    for name, mask in keep.items():
        if name not in parts:
            raise ValueError(f"keep has the key {name!r}; allowed are {sorted(parts)}")
        block, part = parts[name]
        if part == "mlp":
            block.mlp = shrink(block.mlp, {"up": mask})
        else:
            block.attention = block.attention.only(mask)
    return small


def _seed(dice: torch.Generator) -> int:
    """Each block draws for itself, so that one that is read from a file leaves the others' draws alone."""
    return int(torch.randint(2**31, (1,), generator=dice, device=dice.device))


def _fitting(W: Tensor, X: Tensor) -> None:
    if W.ndim != 2 or X.ndim != 2 or W.shape[1] != X.shape[1]:
        shapes = f"{tuple(W.shape)} and {tuple(X.shape)}"
        raise ValueError(f"W must be (out, in) and X (n, in), got {shapes}")


def _damped(X: Tensor, damping: float) -> Tensor:
    H = X.T.double() @ X.double()
    return H + damping * H.diagonal().mean() * torch.eye(len(H)).to(H)


door.hold(globals())
