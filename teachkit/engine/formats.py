"""Forms in which a weight can be stored, each written and read back to the last bit.

A weight is a matrix (out, the rest) of numbers, taken here as what they are on a disk: whole numbers of
1 to 8 bytes. Zero is the number whose bits are all 0; −0 and NaN pass like any other. A form is a pair of
functions: one from the matrix to a few flat arrays by name, and one back. What the arrays hold is all that
a reader needs beside shape and dtype, so that their bytes are what the form costs.

- "dense": every number.
- "gzip", "lzma": the dense bytes, by a packer that knows nothing of networks.
- "bitmask": one bit for each number, and those that are not zero.
- "csr": where each row begins and a column for each number that is not zero, 4 bytes each, and these.
- "2:4": the two that may be there of every four inputs, and 2 bits for the place of each.
- "relative": how many zeros stand before each number, in b bits, and the numbers; a run of zeros too
  long for b bits gets a zero among the numbers. b is what makes it smallest (Han et al. 2016, figure 2).
- "indexed": as "relative", with a palette of the numbers.
- "palette": the different numbers, and for each weight which one, in as few bits as tell them apart.
- "huffman": the same, with Huffman's words in place of fixed widths.
- "deep": as "relative", with Huffman's words for the runs of zeros, and for the numbers where they repeat.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from teachkit.engine import codes
from teachkit.engine.codes import Numbers
from teachkit.engine.forms import FORMS, Parts


class Packed(NamedTuple):
    """A tensor in one of ``FORMS``: its parts, its shape and its dtype."""

    form: str
    shape: tuple[int, ...]
    dtype: str
    parts: Parts

    @property
    def bytes(self) -> int:
        """What the parts take."""
        return sum(part.nbytes for part in self.parts.values())


def pack(tensor: Tensor, form: str = "dense") -> Packed:
    """A tensor in a form; ValueError where the form cannot hold it.

    >>> w = torch.tensor([[0.0, 2.0], [3.0, 0.0]], dtype=torch.float32)
    >>> [pack(w, form).bytes for form in ("dense", "bitmask", "csr")]
    [16, 9, 28]
    """
    known(form)
    dtype = str(tensor.dtype).removeprefix("torch.")
    parts = FORMS[form][0](_bits(tensor))
    return Packed(form, tuple(tensor.shape), dtype, parts)


def unpack(packed: Packed) -> Tensor:
    """The tensor that :func:`pack` was given, bit by bit, on the CPU."""
    dtype = getattr(torch, packed.dtype)
    size = torch.empty(0, dtype=dtype, device="cpu").element_size()
    rows = packed.shape[0] if packed.shape else 1
    count = int(np.prod(packed.shape, dtype=np.int64))
    shape = rows, count // max(rows, 1)
    try:
        A = FORMS[known(packed.form)][1](packed.parts, shape, np.dtype(f"u{size}"))
    except KeyError as missing:
        raise ValueError(f"packed lacks the part {missing} of the form {packed.form!r}") from None
    whole = torch.from_numpy(np.ascontiguousarray(A).view(f"i{size}").reshape(packed.shape).copy())
    return whole.bool() if dtype == torch.bool else whole.view(dtype)


def smallest(tensor: Tensor, forms: tuple[str, ...] | None = None) -> Packed:
    """The form with the fewest bytes of those that can hold the tensor, the first of equal ones."""
    tried = []
    for form in forms or tuple(FORMS):
        try:
            tried.append(pack(tensor, form))
        except ValueError:
            known(form)
    if not tried:
        raise ValueError(f"none of the forms {list(forms or ())} can hold this tensor; 'dense' can")
    return min(tried, key=lambda each: each.bytes)


def bound(tensor: Tensor) -> float:
    """The entropy of the numbers in a tensor, in bytes: no code for one number after another needs less.

    What tells the numbers apart, a palette, is not counted, nor what neighbours say about each other.
    """
    counts = np.unique(_bits(tensor), return_counts=True)[1]
    return codes.entropy(counts) * tensor.numel() / 8 if tensor.numel() else 0.0


def known(form: str) -> str:
    """Refuse a form that there is not."""
    if form not in FORMS:
        raise ValueError(f"form must be one of {list(FORMS)}, got {form!r}")
    return form


def _bits(tensor: Tensor) -> Numbers:
    """The numbers (out, the rest) as whole ones of the same bytes."""
    t = tensor.detach().cpu().contiguous()
    t = t.to(torch.uint8) if t.dtype == torch.bool else t
    whole = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}.get(t.element_size())
    if whole is None or t.is_complex() or t.is_quantized:
        raise TypeError(f"tensor must hold real numbers of 1, 2, 4 or 8 bytes, got {tensor.dtype}")
    rows = len(t) if t.ndim else 1
    flat: Numbers = t.reshape(-1).view(whole).numpy().view(f"u{t.element_size()}")
    return flat.reshape(rows, flat.size // max(rows, 1))
