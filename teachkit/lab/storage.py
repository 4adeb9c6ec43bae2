"""How many bytes a network takes, in the forms in which one could store it.

Each form is really written and can be read back; what is counted is the content, without the names
and headers that a file format adds (``torch.save`` adds about a kilobyte and 200 bytes a tensor).
"""

import gzip
from math import prod
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

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
    _known(form)
    weights = {name: w.detach() for name, w in prunable(model).items()}
    rest = [*(t for n, t in model.named_parameters() if n not in weights), *model.buffers()]
    others = sum(t.numel() * t.element_size() for t in rest)
    if form == "gzip" and weights:
        content = b"".join(packed(w, "dense") for w in weights.values())
        return others + len(gzip.compress(content, 9, mtime=0))
    return others + sum(len(packed(w, form)) for w in weights.values())


def packed(weight: Tensor, form: str) -> bytes:
    """The bytes of one weight in a form; :func:`unpacked` reads them back."""
    _known(form)
    matrix = _numbers(weight)
    if form in ("dense", "gzip"):
        content: bytes = matrix.tobytes()
        return content if form == "dense" else gzip.compress(content, 9, mtime=0)
    shape = (len(matrix), prod(matrix.shape[1:]))
    flat, alive = matrix.reshape(shape), (weight.detach().cpu() != 0).numpy().reshape(shape)
    if form == "bitmask":
        return bytes(np.packbits(alive)) + bytes(flat[alive])
    columns = np.nonzero(alive)[1].astype(np.int32)
    starts = np.concatenate([[0], alive.sum(1).cumsum()]).astype(np.int32)
    return bytes(starts) + bytes(columns) + bytes(flat[alive])


def unpacked(content: bytes, like: Tensor, form: str) -> Tensor:
    """The weight that :func:`packed` wrote, with the shape and dtype of ``like``.

    >>> w = torch.tensor([[0.0, 2.0], [3.0, 0.0]])
    >>> all(torch.equal(unpacked(packed(w, form), w, form), w) for form in FORMS)
    True
    """
    _known(form)
    dtype = _numbers(like[:0]).dtype
    flat = np.zeros((len(like), prod(like.shape[1:])), dtype)
    if form in ("dense", "gzip"):
        raw = gzip.decompress(content) if form == "gzip" else content
        flat[:] = np.frombuffer(raw, dtype).reshape(flat.shape)
    elif form == "bitmask":
        bits = np.frombuffer(content, np.uint8, -(-like.numel() // 8))
        alive = np.unpackbits(bits, count=like.numel()).astype(bool).reshape(flat.shape)
        flat[alive] = np.frombuffer(content, dtype, offset=len(bits))
    else:
        starts = np.frombuffer(content, np.int32, len(like) + 1)
        columns = np.frombuffer(content, np.int32, int(starts[-1]), offset=starts.nbytes)
        rows = np.repeat(np.arange(len(like)), np.diff(starts))
        flat[rows, columns] = np.frombuffer(content, dtype, offset=starts.nbytes + columns.nbytes)
    return torch.from_numpy(flat).view(like.dtype).reshape(like.shape).to(like.device)


def _known(form: str) -> None:
    if form not in FORMS:
        raise ValueError(f"form must be one of {list(FORMS)}, got {form!r}")


def _numbers(weight: Tensor) -> NDArray[Any]:
    """The weight for numpy, which knows no bfloat16: its two bytes pass as a whole number."""
    w = weight.detach().cpu().contiguous()
    numbers: NDArray[Any] = (w.view(torch.int16) if w.dtype == torch.bfloat16 else w).numpy()
    return numbers
