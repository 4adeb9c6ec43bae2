"""The exact threshold of millions of weights, and the masks it gives, without sorting or copying."""

from collections.abc import Iterable, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from teachkit import masks
from teachkit.core.selection import Numbers, kth_smallest
from teachkit.core.types import Masks
from teachkit.magnitude.densities import warn_empty

PIECE = 1 << 16  # weights at a time: what the masks need beside themselves stays small


def threshold(weights: Mapping[str, Tensor] | Iterable[Tensor] | Tensor, k: int) -> float:
    """The k-th smallest |w| (k from 1) over all tensors together, exactly.

    Costs five to nine reads of 10 million weights, fewer where the memory is slow, and a hundredth
    of their memory; see ``core.selection.kth_smallest``. ``torch.kthvalue`` gives the same number
    fifteen times slower or more.

    Args:
        weights: a dict of tensors, a sequence of tensors or one tensor, of one floating dtype.
        k: 1 to the number of all weights.

    Raises:
        ValueError: a NaN, or k out of range.

    >>> threshold({"a": torch.tensor([-3.0, 1.0]), "b": torch.tensor([[2.0]])}, 2)
    2.0

    """
    return float(kth_smallest([_array(w) for w in _tensors(weights)], k, absolute=True))


def keep_largest(model: nn.Module, sparsity: float) -> Masks:
    """The masks that keep the largest |w| of the whole model, exactly the asked number.

    Equal to ``masks.keep_top(magnitude.scores(model), sparsity)``, ties included, without a copy
    of the weights: what it needs is the masks and a few per cent. A layer that comes out empty is
    named in a warning.

    >>> layer = nn.Linear(4, 1, bias=False)
    >>> _ = layer.weight.data.copy_(torch.tensor([[2.0, -1.0, -3.0, 0.5]]))
    >>> keep_largest(layer, 0.5)
    {'weight': tensor([[ True, False,  True, False]])}
    """
    weights = masks.prunable(model)
    arrays = [_array(w) for w in _tensors(weights)] if weights else []
    n = sum(a.size for a in arrays)
    gone = masks.removed(n, sparsity)
    if gone in (0, n):
        kept = [np.full(a.size, not gone) for a in arrays]
    else:
        kept = _at_least(arrays, kth_smallest(arrays, gone + 1, absolute=True), n - gone)
    found = {
        name: torch.from_numpy(mask).reshape(w.shape).to(w.device)
        for (name, w), mask in zip(weights.items(), kept, strict=True)
    }
    return warn_empty(found)


def _at_least(arrays: list[Numbers], smallest: float, keep: int) -> list[Numbers]:
    """Flags for |v| ≥ smallest, all but the last of those that tie, so that ``keep`` are set."""
    flags = [np.empty(a.size, bool) for a in arrays]
    buffer = np.empty(PIECE, arrays[0].dtype)
    spans = [(a, f, i) for a, f in zip(arrays, flags, strict=True) for i in range(0, a.size, PIECE)]
    found = 0
    for a, f, i in spans:
        piece = a[i : i + PIECE]
        np.greater_equal(np.abs(piece, out=buffer[: piece.size]), smallest, out=f[i : i + PIECE])
        found += int(np.count_nonzero(f[i : i + PIECE]))
    for a, f, i in reversed(spans):
        if found == keep:
            break
        ties = np.flatnonzero(np.abs(a[i : i + PIECE]) == smallest)[keep - found :]
        f[i + ties] = False
        found -= len(ties)
    return flags


def _tensors(weights: Mapping[str, Tensor] | Iterable[Tensor] | Tensor) -> list[Tensor]:
    """The tensors, all of one floating dtype."""
    if isinstance(weights, Tensor):
        weights = [weights]
    if not isinstance(weights, Iterable):
        raise TypeError(f"weights must be tensors of one floating dtype, got {weights!r}")
    found = list(weights.values() if isinstance(weights, Mapping) else weights)
    kinds = {w.dtype if isinstance(w, Tensor) else type(w).__name__ for w in found}
    if len(kinds) != 1 or not isinstance(found[0], Tensor) or not found[0].is_floating_point():
        allowed = "tensors of one floating dtype"
        raise TypeError(f"weights must be {allowed}, got {sorted(map(str, kinds)) or 'nothing'}")
    return found


def _array(w: Tensor) -> Numbers:
    """A flat view where numpy can look at the memory, else a copy; bfloat16 fits into float32."""
    flat = w.detach().reshape(-1).cpu()
    return (flat.float() if flat.dtype == torch.bfloat16 else flat).numpy()
