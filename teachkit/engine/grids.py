"""Grids for weights: how far the values lie apart, and which of them a weight becomes.

A grid has the values scale · (q − zero), q a whole number from ``low`` to ``high``. Each run of ``size``
inputs of a row has a scale and a zero of its own; with one run a row this is "per channel", and one
scale for the whole matrix is "per tensor". Zero is always one of the values, so that pruned weights stay
zero; all arithmetic is that of torch's ``fake_quantize``, which the tests compare with.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from teachkit.core import checks

Kind = Literal["symmetric", "affine"]
Per = Literal["tensor", "channel"] | int
CLIPS = 36  # shares of the range that are tried, from 0.3 to 1


class Grid(NamedTuple):
    """Scales and zeros (1 or rows, runs), the whole numbers' bounds, and how many inputs a run has."""

    scale: Tensor
    zero: Tensor
    low: int
    high: int
    size: int


class Quantized(NamedTuple):
    """A weight as stored: whole numbers q − zero (rows, inputs), a scale for each run, and its shape."""

    numbers: Tensor
    scale: Tensor
    size: int
    shape: tuple[int, ...]

    def dense(self) -> Tensor:
        """The weight itself, numbers · scale."""
        width = checks.finite("the numbers stored", self.numbers).shape[1]
        _fits("the scale stored", self.scale, self.size, width)
        values = self.numbers.to(self.scale.dtype) * _wide(self.scale, self.size, width)
        return values.reshape(self.shape)


def grid(
    W: Tensor,
    bits: int = 8,
    *,
    kind: Kind = "symmetric",
    per: Per = "channel",
    clip: float | Literal["best"] = 1.0,
) -> Grid:
    """The grid of a matrix W (out, in): 2^bits values, or one less, from its smallest to its largest.

    Args:
        W: the weights.
        bits: 2 to 16.
        kind: "symmetric" has q from −(2^(bits − 1) − 1) to 2^(bits − 1) − 1 and zero 0; "affine" has q from
            0 to 2^bits − 1, from the smallest weight (or 0) to the largest (or 0).
        per: one scale for the "tensor", for each "channel" (row), or for each so many inputs of a row.
        clip: the share of the range that the grid spans; "best" tries 36 from 0.3 to 1 for each run and
            takes the one with the least squared error.

    >>> grid(torch.tensor([[-0.5, 1.5]]), 2).scale, grid(torch.tensor([[-0.5, 1.0]]), 2, kind="affine").zero
    (tensor([[1.5000]]), tensor([[1.]]))

    """
    checks.whole("bits", bits, 2, 16)
    matrix("W", W)
    size = W.shape[1] if isinstance(per, str) else checks.whole("per", per, 1)
    low, high = _ends(W, max(size, 1), alone=per != "tensor")
    if clip != "best":
        share = checks.number("clip", clip)
        if not 0 < share <= 1:
            raise ValueError(f"clip must be 'best' or lie above 0 and up to 1, got {clip!r}")
        return _spanned(low * share, high * share, bits, kind, max(size, 1))
    return _best(W, low, high, lambda a, b: _spanned(a, b, bits, kind, max(size, 1)))


def quantize(W: Tensor, to: Grid) -> Tensor:
    """The whole numbers q (out, in) of the nearest values, int32: round(W / scale) + zero, within bounds.

    >>> quantize(torch.tensor([[-0.6, 1.5]]), grid(torch.tensor([[-0.6, 1.5]]), 3))
    tensor([[-1,  3]], dtype=torch.int32)
    """
    matrix("W", W)
    return whole_numbers(W, *columns(to, W.shape[1]), to).int()


def dequantize(numbers: Tensor, to: Grid) -> Tensor:
    """The values scale · (q − zero) of whole numbers q (out, in)."""
    scale, zero = columns(to, numbers.shape[1])
    return (numbers.to(scale.dtype) - zero) * scale


def rounded(W: Tensor, to: Grid) -> Tensor:
    """The nearest values: ``dequantize(quantize(W))``."""
    return dequantize(quantize(W, to), to)


def stored_as(W: Tensor, to: Grid, shape: tuple[int, ...] | None = None) -> Quantized:
    """The nearest values of W (out, in) as they are stored: whole numbers and scales."""
    zero = columns(to, W.shape[1])[1]
    most = max(-to.low, to.high)
    kind = torch.int8 if most < 2**7 else torch.int16 if most < 2**15 else torch.int32
    numbers = (quantize(W, to) - zero.to(torch.int32)).to(kind)
    return Quantized(numbers, to.scale, to.size, tuple(W.shape if shape is None else shape))


def matrix(name: str, W: Tensor) -> None:
    """Refuse what is no matrix of a floating type."""
    if not checks.finite(name, W).is_floating_point():
        raise TypeError(f"{name} must be of a floating type, got {W.dtype}")
    if W.ndim != 2 or not W.numel():
        raise ValueError(f"{name} must have the shape (out, in), not empty, got {tuple(W.shape)}")


def _ends(W: Tensor, size: int, alone: bool) -> tuple[Tensor, Tensor]:
    """The smallest and the largest weight of each run, 0 if none is below or above it, (rows, runs)."""
    runs = _runs(W.detach(), size)
    low, high = runs.amin(2).clamp(max=0), runs.amax(2).clamp(min=0)
    return (low, high) if alone else (low.amin()[None, None], high.amax()[None, None])


def _spanned(low: Tensor, high: Tensor, bits: int, kind: str, size: int) -> Grid:
    if kind == "symmetric":
        most = 2 ** (bits - 1) - 1
        scale = _positive(torch.maximum(-low, high) / most)
        return Grid(scale, torch.zeros_like(scale), -most, most, size)
    most = 2**bits - 1
    scale = _positive((high - low) / most)
    return Grid(scale, (-low / scale).round().clamp(0, most), 0, most, size)


def _positive(scale: Tensor) -> Tensor:
    """A run of zeros has the scale 1."""
    return torch.where(scale > 0, scale, torch.ones_like(scale))


def _best(W: Tensor, low: Tensor, high: Tensor, span: Callable[[Tensor, Tensor], Grid]) -> Grid:
    """For each run the range, a share of its own, with the least squared error."""
    found, least = span(low, high), torch.full_like(low, torch.inf)
    for i in range(CLIPS):
        share = 0.3 + 0.7 * i / (CLIPS - 1)
        tried = span(low * share, high * share)
        wrong = (W.detach() - rounded(W, tried)).square()
        runs = _runs(wrong, found.size).sum(2)
        error = runs if runs.shape == low.shape else runs.sum()[None, None]
        better = error <= least
        least = torch.where(better, error, least)
        scale, zero = (torch.where(better, a, b) for a, b in zip(tried[:2], found[:2], strict=True))
        found = found._replace(scale=scale, zero=zero)
    return found


def whole_numbers(W: Tensor, scale: Tensor, zero: Tensor, to: Grid) -> Tensor:
    """The nearest q, where scale and zero are those of each weight."""
    return ((W / scale).round() + zero).clamp(to.low, to.high)


def columns(to: Grid, width: int) -> tuple[Tensor, Tensor]:
    """Scale and zero of each column, (1 or rows, width)."""
    checks.whole("to.high", to.high, checks.whole("to.low", to.low, -(2**16), 0))
    for name, part in (("to.scale", to.scale), ("to.zero", to.zero)):
        _fits(name, part, to.size, width)
    return _wide(to.scale, to.size, width), _wide(to.zero, to.size, width)


def _wide(part: Tensor, size: int, width: int) -> Tensor:
    return part.repeat_interleave(size, 1)[:, :width]


def _runs(W: Tensor, size: int) -> Tensor:
    """The inputs in runs of a size, the last one filled up with zeros, (rows, runs, size)."""
    return pad(W, (0, -W.shape[1] % size)).reshape(len(W), -1, size)


def _fits(name: str, part: Tensor, size: int, width: int) -> None:
    """Refuse scales or zeros of another number of inputs."""
    runs = -(-width // checks.whole("size", size, 1))
    if not checks.finite(name, part).is_floating_point():
        raise TypeError(f"{name} must be of a floating type, got {part.dtype}")
    if part.ndim != 2 or part.shape[1] != runs:
        want = f"(1 or out, {runs}), for {width} inputs in runs of {size}"
        raise ValueError(f"{name} must have the shape {want}, got {tuple(part.shape)}")
