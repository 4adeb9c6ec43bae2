"""Numbers in as few bits as they need: fixed widths, Huffman's codes, the entropy.

A Huffman code is given by the lengths of its words alone, if the words are dealt out in order: the
shortest first, of one length by the number of the symbol, each the last one plus 1 (a *canonical* code).
Filled up with zeros to 64 bits on the right, the words rise, and every bit sequence that begins with a word
lies between that word and the next: a binary search finds the symbol. So all positions of a file are looked
up at once, and only the walk from word to word is done one by one.
"""

import heapq
from typing import Any

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[Any]
LONGEST = 56  # bits of a word; a code of this depth needs more than 10¹¹ numbers
PIECE = 2**20  # bits whose words are looked up at a time


def entropy(counts: Numbers) -> float:
    """H = −Σ p log₂ p in bits a symbol, of how often each occurs: no code needs less.

    >>> entropy(np.array([4, 2, 1, 1]))
    1.75
    """
    p = counts[counts > 0] / counts.sum()
    return float(-(p * np.log2(p)).sum()) + 0.0


def lengths(counts: Numbers) -> Numbers:
    """How many bits Huffman's word for each symbol has, uint8; 0 for one that does not occur.

    The two rarest symbols are joined to one, again and again; each joining makes the words below one bit
    longer. A symbol that is alone gets one bit. Source: Huffman, Proceedings of the IRE 1952.

    >>> lengths(np.array([4, 2, 1, 0, 1])).tolist()
    [1, 2, 3, 0, 3]
    """
    at = np.flatnonzero(counts)
    depth = np.zeros(len(counts), np.uint8)
    heap = [(int(counts[i]), n) for n, i in enumerate(at)]
    if len(heap) == 1:
        depth[at] = 1
        return depth
    heapq.heapify(heap)
    parent, fresh = np.zeros(2 * len(at), np.int64), len(at)
    while len(heap) > 1:
        (a, m), (b, n) = heapq.heappop(heap), heapq.heappop(heap)
        parent[[m, n]] = fresh
        heapq.heappush(heap, (a + b, fresh))
        fresh += 1
    levels = np.zeros(fresh, np.int64)
    for node in range(fresh - 2, -1, -1):  # a parent has a larger number
        levels[node] = levels[parent[node]] + 1
    depth[at] = levels[: len(at)]
    return depth


def words(depth: Numbers) -> tuple[Numbers, Numbers]:
    """The symbols in the order of their words, and the words, filled up to 64 bits (uint64, rising)."""
    order = np.lexsort((np.arange(len(depth)), depth))[int((depth == 0).sum()) :]
    steps = np.uint64(1) << (64 - depth[order].astype(np.uint64))
    return order, np.concatenate([[np.uint64(0)], np.cumsum(steps[:-1], dtype=np.uint64)])


def encode(numbers: Numbers, depth: Numbers) -> Numbers:
    """The words of numbers (n,) one after the other, as bytes; the last is filled up with zeros."""
    order, found = words(depth)
    word = np.zeros(len(depth), np.uint64)
    word[order] = found
    size = depth[numbers].astype(np.int64)
    which = np.repeat(np.arange(len(numbers)), size)
    place = np.arange(len(which)) - np.repeat(np.cumsum(size) - size, size)
    bits = (word[numbers][which] >> (63 - place).astype(np.uint64)) & np.uint64(1)
    return np.packbits(bits.astype(np.uint8))


def decode(content: Numbers, depth: Numbers, count: int) -> Numbers:
    """So many numbers of what :func:`encode` has made.

    >>> decode(encode(np.array([0, 2, 1]), np.array([1, 2, 2])), np.array([1, 2, 2]), 3).tolist()
    [0, 2, 1]
    """
    order, found = words(depth)
    if int(depth.max(initial=0)) > LONGEST:
        raise ValueError(f"words have at most {LONGEST} bits, got {int(depth.max())}")
    symbols, sizes = [], []
    for start in range(0, 8 * len(content), PIECE):
        windows = _windows(content, start, min(PIECE, 8 * len(content) - start))
        at = order[np.searchsorted(found, windows, side="right") - 1]
        symbols.append(at)
        sizes.append(depth[at])
    walk = _walk(np.concatenate(sizes).tolist() if sizes else [], count)
    every = np.concatenate(symbols) if symbols else np.zeros(0, np.int64)
    return every[walk].astype(np.int64)


def pack(numbers: Numbers, width: int) -> Numbers:
    """Whole numbers from 0 to 2^width − 1 in so many bits each, as bytes.

    >>> pack(np.array([1, 2, 3]), 2).tolist()
    [108]
    """
    shifts = np.arange(width - 1, -1, -1, dtype=np.uint64)
    bits = (numbers.astype(np.uint64)[:, None] >> shifts) & np.uint64(1)
    return np.packbits(bits.astype(np.uint8))


def unpack(content: Numbers, width: int, count: int) -> Numbers:
    """The numbers that :func:`pack` was given, int64."""
    bits = np.unpackbits(content)[: count * width].reshape(count, width)
    return bits @ (np.int64(1) << np.arange(width - 1, -1, -1, dtype=np.int64))


def _windows(content: Numbers, start: int, count: int) -> Numbers:
    """The 64 bits that begin at each bit from ``start`` on, a multiple of 8; 57 of them are right."""
    first, last = start // 8, -(-(start + count) // 8)
    part = np.concatenate([content[first : last + 8], np.zeros(8, np.uint8)])[: last - first + 8]
    part = np.pad(part, (0, last - first + 8 - len(part)))
    rows = np.ascontiguousarray(np.lib.stride_tricks.sliding_window_view(part, 8)[: last - first])
    whole = rows.view(">u8")[:, 0].astype(np.uint64)
    return (whole[:, None] << np.arange(8, dtype=np.uint64)).reshape(-1)[:count]


def _walk(sizes: list[int], count: int) -> Numbers:
    """Where words begin: each where the last one ends."""
    places, at = np.zeros(count, np.int64), 0
    for i in range(count):
        if at >= len(sizes):
            raise ValueError(f"the bits hold {i} numbers, not {count}")
        places[i] = at
        at += sizes[at]
    return places
