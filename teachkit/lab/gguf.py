"""A reader of GGUF, the file format of llama.cpp: facts by name, and tensors, many of them of few bits.

A Q4_1 block holds 32 weights in 20 bytes: a scale and a minimum in half precision, and 16 bytes of two
4-bit numbers q each; w = scale · q + minimum. A Q8_0 block holds 32 in 34 bytes: a scale, and 8-bit q.

Source: ggml-org/ggml, docs/gguf.md. PyPI's package ``gguf`` reads more kinds and brings four packages along.
"""

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from teachkit.core import door
from teachkit.lab.fetching import DataError

NUMBERS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}
TEXT, LIST, ALIGNED = 8, 9, 32
Bytes = NDArray[np.uint8]


class Kind(NamedTuple):
    """How weights are packed: so many in a block of so many bytes, and how such blocks are read."""

    weights: int
    size: int
    unpack: Callable[[Bytes], NDArray[Any]]


def plain(blocks: Bytes) -> NDArray[Any]:
    """Blocks (n, 4) of one float32 each, as (n, 1)."""
    return blocks.view(np.float32)


def halves(blocks: Bytes, count: int) -> NDArray[np.float32]:
    """The first ``count`` numbers of half precision of each block, (n, count)."""
    made: NDArray[np.float32] = blocks[:, : 2 * count].copy().view(np.float16).astype(np.float32)
    return made


def q8_0(blocks: Bytes) -> NDArray[Any]:
    """Blocks (n, 34) as weights (n, 32).

    >>> q8_0(np.array([[0, 60, *range(32)]], np.uint8))[0, :3]
    array([0., 1., 2.], dtype=float32)
    """
    return halves(blocks, 1) * blocks[:, 2:].copy().view(np.int8)


def q4_1(blocks: Bytes) -> NDArray[Any]:
    """Blocks (n, 20) as weights (n, 32): first the low halves of the 16 bytes, then the high ones.

    >>> q4_1(np.array([[0, 60, 0, 64, *[0x21] * 16]], np.uint8))[0, [0, 31]]
    array([3., 4.], dtype=float32)
    """
    scale = halves(blocks, 2)
    q = np.concatenate([blocks[:, 4:] & 15, blocks[:, 4:] >> 4], 1)
    return q * scale[:, :1] + scale[:, 1:]


KINDS = {
    0: Kind(1, 4, plain),
    1: Kind(1, 2, lambda blocks: halves(blocks, 1)),
    3: Kind(32, 20, q4_1),
    8: Kind(32, 34, q8_0),
}


class Head(NamedTuple):
    """A tensor's name, its sizes with the innermost first, how it is packed and where it begins."""

    name: str
    sizes: list[int]
    kind: int
    place: int


class _Cursor:
    """A place in the bytes, which moves on as values are read."""

    def __init__(self, content: Bytes) -> None:
        self.content, self.at = content, 4

    def number(self, letter: str) -> Any:
        return struct.unpack(f"<{letter}", self.take(struct.calcsize(f"<{letter}")))[0]

    def take(self, size: int) -> bytes:
        found = self.content[self.at : self.at + size].tobytes()
        if len(found) < size:
            raise DataError(f"the file ends after {len(self.content)} bytes, within its head")
        self.at += size
        return found

    def text(self) -> str:
        return self.take(self.number("Q")).decode("utf-8")

    def value(self, kind: int) -> Any:
        if kind == TEXT:
            return self.text()
        if kind == LIST:
            inner, count = self.number("I"), self.number("Q")
            return [self.value(inner) for _ in range(count)]
        if kind not in NUMBERS:
            raise DataError(f"a value is of the kind {kind}, which is not known")
        return self.number(NUMBERS[kind])


def read(path: Path | str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The facts in a GGUF file, and its tensors in float32 by name.

    Raises:
        DataError: it is no whole GGUF file, or a tensor is packed in another way than F32, F16, Q4_1, Q8_0.

    """
    try:
        content: Bytes = np.memmap(path, np.uint8, "r")
    except ValueError as error:
        raise DataError(f"{path} is no GGUF file: it is empty") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error})") from error
    try:
        return _read(content)
    except (DataError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is no whole GGUF file: {error}") from error


def _read(content: Bytes) -> tuple[dict[str, Any], dict[str, Tensor]]:
    cursor = _Cursor(content)
    if content[:4].tobytes() != b"GGUF":
        raise DataError("it does not begin as one does")
    version, tensors, facts = cursor.number("I"), cursor.number("Q"), cursor.number("Q")
    if version not in (2, 3):
        raise DataError(f"it is of version {version}, known are 2 and 3")
    known = dict((cursor.text(), cursor.value(cursor.number("I"))) for _ in range(facts))  # noqa: C402 -- order
    heads = [_head(cursor) for _ in range(tensors)]
    aligned = known.get("general.alignment", ALIGNED)
    start = cursor.at + -cursor.at % aligned
    return known, {head.name: _tensor(content, start, head) for head in heads}


def _head(cursor: _Cursor) -> Head:
    name = cursor.text()
    sizes = [cursor.number("Q") for _ in range(cursor.number("I"))]
    return Head(name, sizes, cursor.number("I"), cursor.number("Q"))


def _tensor(content: Bytes, start: int, head: Head) -> Tensor:
    name, sizes, kind, place = head
    if kind not in KINDS:
        raise DataError(f"{name} is packed in the way {kind}; known are {sorted(KINDS)}")
    count, way, at = int(np.prod(sizes)), KINDS[kind], start + place
    packed = content[at : at + count // way.weights * way.size]
    if count % way.weights or len(packed) < count // way.weights * way.size:
        raise DataError(f"{name} is cut off")
    numbers = way.unpack(np.asarray(packed).reshape(-1, way.size))
    return torch.from_numpy(np.array(numbers, np.float32).reshape(sizes[::-1]))


door.hold(globals())
