"""The k-th smallest of many numbers, exactly, with little more than one pass over the memory."""

from collections.abc import Iterator, Sequence
from math import sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from teachkit.core import checks

Numbers = NDArray[Any]

CHUNK = 1 << 18  # numbers at a time: a megabyte of float32 stays in the processor's cache
SMALL = 1 << 16  # up to here a plain partition is quicker
DRAWN = 30  # sampled numbers are this times n^0.45: 42,000 of 10 million
WIDTH = 2.5  # half the bracket's width, in standard deviations of a sample's quantile


def kth_smallest(parts: Sequence[Numbers], k: int, *, absolute: bool = False) -> Any:
    """The k-th smallest number (k from 1) over all arrays, or the k-th smallest absolute value.

    A random sample of 30 n^0.45 numbers brackets the answer. One pass in pieces that fit into the
    cache counts what lies below the bracket and collects the 1 % that lies inside, and that 1 % is
    partitioned. Where the bracket misses, because of chance or of ties, further passes find the
    answer, so the result is exact for any input. After Floyd & Rivest, Expected time bounds for
    selection, CACM 1975.

    Args:
        parts: one-dimensional arrays of one dtype.
        k: 1 to the number of all entries.
        absolute: rank |v| instead of v.

    Raises:
        ValueError: a NaN, which has no rank; infinities have one.

    >>> float(kth_smallest([np.array([3.0, -1.0]), np.array([-2.0])], 2, absolute=True))
    2.0

    """
    n = sum(part.size for part in parts)
    checks.whole("k", k, 1, n)
    if n <= SMALL or parts[0].dtype.kind != "f":
        values = np.concatenate([np.abs(part) if absolute else part for part in parts])
        return _partition(values, k - 1)
    low, high = bracket(parts, n, k, absolute)
    below, inside = _split(parts, low, high, absolute)
    rank = k - 1 - below
    if 0 <= rank < inside.size:
        return _partition(inside, rank)
    return _outside(parts, k, low if rank < 0 else high, absolute)


def bracket(parts: Sequence[Numbers], n: int, k: int, absolute: bool) -> tuple[Any, Any]:
    """Two numbers of a sample between which the k-th smallest probably lies."""
    rng = np.random.default_rng(n)
    share = DRAWN * n**0.45 / n
    drawn = []
    for part in parts:
        m = int(part.size * share) + (part.size > 0)
        at = (np.arange(m) + rng.random(m)) * (part.size / max(m, 1))  # one in each m-th, in order
        drawn.append(part[at.astype(np.int64)])
    sample = np.concatenate(drawn)
    if absolute:
        np.abs(sample, out=sample)
    m, q = sample.size, k / n
    gap = WIDTH * sqrt(m * q * (1 - q)) + 2
    first, last = max(0, int(m * q - gap)), min(m - 1, int(m * q + gap))
    sample.partition((first, last))
    low, high = sample[first], sample[last]
    return low, high if high > low else np.nextafter(low, sample.dtype.type(np.inf))


def pieces(parts: Sequence[Numbers], absolute: bool) -> Iterator[Numbers]:
    """The numbers, or their absolute values, a cacheful at a time, all in one buffer."""
    buffer = np.empty(CHUNK, parts[0].dtype)
    for part in parts:
        for start in range(0, part.size, CHUNK):
            piece = part[start : start + CHUNK]
            yield np.abs(piece, out=buffer[: piece.size]) if absolute else piece


def _split(parts: Sequence[Numbers], low: Any, high: Any, absolute: bool) -> tuple[int, Numbers]:
    """How many are ≤ low, and all that lie strictly between low and high."""
    flags, others = np.empty((2, CHUNK), bool)
    below, inside = 0, []
    for v in pieces(parts, absolute):
        under, over = flags[: v.size], others[: v.size]
        np.less_equal(v, low, out=under)
        np.greater_equal(v, high, out=over)
        below += int(np.count_nonzero(under))
        np.equal(under, over, out=over)  # neither, as no number is both; a NaN is neither, too
        inside.append(v[over.nonzero()[0]])
    found = np.concatenate(inside)
    return below, _without_nan(found)


def _outside(parts: Sequence[Numbers], k: int, edge: Any, absolute: bool) -> Any:
    """The k-th smallest where the bracket missed it: the edge itself, or what lies beyond."""
    less = sum(int(np.count_nonzero(v < edge)) for v in pieces(parts, absolute))
    if less >= k:
        values = np.concatenate([v[v < edge] for v in pieces(parts, absolute)])
        return _partition(values, k - 1)
    up_to = less + sum(int(np.count_nonzero(v == edge)) for v in pieces(parts, absolute))
    if k <= up_to:
        return edge
    values = np.concatenate([v[v > edge] for v in pieces(parts, absolute)])
    return _partition(values, k - 1 - up_to)


def _partition(values: Numbers, rank: int) -> Any:
    values = _without_nan(values)
    return np.partition(values, rank)[rank]


def _without_nan(values: Numbers) -> Numbers:
    if values.dtype.kind == "f" and np.isnan(values).any():
        raise ValueError(f"NaN has no rank; there are {int(np.isnan(values).sum())} of them")
    return values
