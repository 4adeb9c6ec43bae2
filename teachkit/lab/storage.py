"""How many bytes a network takes, in the forms in which one could store it.

Each form is really written, and tests read it back; counted is the content, without the names and
headers that a file format adds (``torch.save`` adds about a kilobyte and 200 bytes a tensor).
"""

import gzip
from math import prod
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from teachkit.core import door
from teachkit.core.weights import prunable

FORMS = ("dense", "gzip", "csr", "bitmask")


def stored(model: nn.Module, form: str = "dense") -> int:
    """Bytes of all parameters and buffers, the prunable weights in one of four forms.

    - "dense": every number, zero or not. A mask changes nothing.
    - "gzip": the dense bytes of all prunable weights, compressed by gzip at level 9.
    - "csr": the numbers that are not zero, a column index of 4 bytes for each, and where each row
      begins, 4 bytes a row and 4 more.
    - "bitmask": the numbers that are not zero, and one bit for each weight.

    Biases and buffers are dense in all of them.

    >>> net = nn.Linear(8, 2, bias=False).float()
    >>> net.weight.data[:, 2:] = 0
    >>> [stored(net, form) for form in ("dense", "csr", "bitmask")]
    [64, 44, 18]
    """
    if form not in FORMS:
        raise ValueError(f"form must be one of {list(FORMS)}, got {form!r}")
    weights = prunable(model)
    rest = [*(t for n, t in model.named_parameters() if n not in weights), *model.buffers()]
    others = sum(t.numel() * t.element_size() for t in rest)
    if form == "gzip" and weights:
        content = b"".join(packed(w, "dense") for w in weights.values())
        return others + len(gzip.compress(content, 9, mtime=0))
    return others + sum(len(packed(w, form)) for w in weights.values())


def packed(weight: Tensor, form: str) -> bytes:
    """The bytes of one weight: "dense", "csr" or "bitmask".

    >>> list(packed(torch.tensor([[0, 2], [3, 0]], dtype=torch.uint8), "bitmask"))
    [96, 2, 3]
    """
    if form not in ("dense", "csr", "bitmask"):
        raise ValueError(f"form must be 'dense', 'csr' or 'bitmask', got {form!r}")
    matrix, alive = _numbers(weight), _numbers(weight != 0)
    if form == "dense":
        return bytes(matrix)
    values = bytes(matrix[alive])
    if form == "bitmask":
        return bytes(np.packbits(alive)) + values
    columns = np.nonzero(alive)[1].astype(np.int32)
    starts = np.concatenate([[0], alive.sum(1).cumsum()]).astype(np.int32)
    return bytes(starts) + bytes(columns) + values


def _numbers(tensor: Tensor) -> NDArray[Any]:
    """A matrix (outputs, the rest) for numpy, which knows no bfloat16: it passes as whole numbers."""
    t = tensor.detach().cpu().reshape(len(tensor), prod(tensor.shape[1:])).contiguous()
    numbers: NDArray[Any] = (t.view(torch.int16) if t.dtype == torch.bfloat16 else t).numpy()
    return numbers


door.hold(globals())
