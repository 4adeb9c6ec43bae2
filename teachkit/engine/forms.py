"""The pairs of functions behind :mod:`teachkit.engine.formats`: a matrix to flat arrays by name, and back.

A matrix (out, the rest) holds whole numbers of 1 to 8 bytes; zero is the number whose bits are all 0.
"""

import gzip
import lzma
from collections.abc import Callable
from typing import Any

import numpy as np

from teachkit.engine import codes
from teachkit.engine.codes import Numbers

Parts = dict[str, Numbers]
PALETTE = 2**16  # more different numbers than this are no palette
WIDEST = 8  # bits of a run of zeros in the form "deep"


def _dense(A: Numbers) -> Parts:
    return {"values": A.reshape(-1)}


def _from_dense(parts: Parts, shape: tuple[int, int], kind: np.dtype[Any]) -> Numbers:
    return parts["values"].view(kind).reshape(shape)


def _packer(squeeze: Callable[[bytes], bytes]) -> Callable[[Numbers], Parts]:
    return lambda A: {"bytes": np.frombuffer(squeeze(A.tobytes()), np.uint8)}


def _unpacker(free: Callable[[bytes], bytes]) -> Callable[..., Numbers]:
    return lambda parts, shape, kind: np.frombuffer(free(parts["bytes"].tobytes()), kind).reshape(
        shape
    )


def _bitmask(A: Numbers) -> Parts:
    return {"mask": np.packbits(A != 0), "values": A[A != 0]}


def _from_bitmask(parts: Parts, shape: tuple[int, int], kind: np.dtype[Any]) -> Numbers:
    flat = np.zeros(shape[0] * shape[1], kind)
    flat[np.unpackbits(parts["mask"], count=flat.size).astype(bool)] = parts["values"]
    return flat.reshape(shape)


def _csr(A: Numbers) -> Parts:
    starts = np.concatenate([[0], (A != 0).sum(1).cumsum()]).astype(np.int32)
    return {"starts": starts, "columns": np.nonzero(A)[1].astype(np.int32), "values": A[A != 0]}


def _from_csr(parts: Parts, shape: tuple[int, int], kind: np.dtype[Any]) -> Numbers:
    A = np.zeros(shape, kind)
    A[np.repeat(np.arange(shape[0]), np.diff(parts["starts"])), parts["columns"]] = parts["values"]
    return A


def _two_of_four(A: Numbers) -> Parts:
    fours = np.pad(A, ((0, 0), (0, -A.shape[1] % 4))).reshape(-1, 4)
    if ((fours != 0).sum(1) > 2).any():
        raise ValueError("form '2:4' needs at most 2 numbers that are not zero in every 4 inputs")
    at = np.sort(np.argsort(fours == 0, axis=1, kind="stable")[:, :2], axis=1)
    return {
        "places": codes.pack(at.reshape(-1), 2),
        "values": np.take_along_axis(fours, at, 1).reshape(-1),
    }


def _from_two_of_four(parts: Parts, shape: tuple[int, int], kind: np.dtype[Any]) -> Numbers:
    width = -(-shape[1] // 4) * 4
    fours = np.zeros((shape[0] * width // 4, 4), kind)
    at = codes.unpack(parts["places"], 2, 2 * len(fours)).reshape(-1, 2)
    np.put_along_axis(fours, at, parts["values"].reshape(-1, 2), 1)
    return fours.reshape(shape[0], width)[:, : shape[1]]


def runs(A: Numbers, width: int) -> tuple[Numbers, Numbers]:
    """Zeros before each number, at most 2^width − 1, and the numbers, with fillers where runs are longer."""
    flat = A.reshape(-1)
    at = np.flatnonzero(flat)
    gaps = np.diff(at, prepend=-1) - 1
    fillers = gaps >> width
    first = np.arange(len(at)) + np.cumsum(fillers)  # where each number itself comes
    skipped = np.full(len(at) + int(fillers.sum()), 2**width - 1)
    skipped[first] = gaps & (2**width - 1)
    values = np.zeros(len(skipped), flat.dtype)
    values[first] = flat[at]
    return skipped, values


def _placed(
    skipped: Numbers, values: Numbers, shape: tuple[int, int], kind: np.dtype[Any]
) -> Numbers:
    flat = np.zeros(shape[0] * shape[1], kind)
    flat[np.cumsum(skipped + 1) - 1] = values
    return flat.reshape(shape)


def _relative(A: Numbers) -> Parts:
    gaps = np.diff(np.flatnonzero(A.reshape(-1)), prepend=-1) - 1
    width = _width(gaps, 8 * A.itemsize)
    skipped, values = runs(A, width)
    return {
        "width": np.array([width], np.uint8),
        "runs": codes.pack(skipped, width),
        "values": values,
    }


def _from_relative(parts: Parts, shape: tuple[int, int], kind: np.dtype[Any]) -> Numbers:
    skipped = codes.unpack(parts["runs"], int(parts["width"][0]), len(parts["values"]))
    return _placed(skipped, parts["values"], shape, kind)


def _indexed(A: Numbers) -> Parts:
    gaps = np.diff(np.flatnonzero(A.reshape(-1)), prepend=-1) - 1
    bits = max(len(np.unique(A)) - 1, 1).bit_length()
    width = _width(gaps, bits)
    skipped, values = runs(A, width)
    count = {"width": np.array([width], np.uint8), "count": np.array([len(values)])}
    return count | {"runs": codes.pack(skipped, width)} | _palette(values)


def _from_indexed(parts: Parts, shape: tuple[int, int], kind: np.dtype[Any]) -> Numbers:
    count = int(parts["count"][0])
    skipped = codes.unpack(parts["runs"], int(parts["width"][0]), count)
    return _placed(skipped, _from_palette(parts, (1, count), kind)[0], shape, kind)


def _width(gaps: Numbers, bits: int) -> int:
    """For how many bits a run of zeros is cheapest, where a number takes so many."""
    return 1 + int(np.argmin([(b + bits) * (len(gaps) + (gaps >> b).sum()) for b in range(1, 25)]))


def _labels(A: Numbers) -> tuple[Numbers, Numbers, Numbers]:
    """The different numbers, how often each occurs, and which one each weight is."""
    palette, labels, counts = np.unique(A.reshape(-1), return_inverse=True, return_counts=True)
    if len(palette) > PALETTE:
        raise ValueError(f"a palette has at most {PALETTE} numbers; here {len(palette)} differ")
    return palette, counts, labels.reshape(-1)


def _palette(A: Numbers) -> Parts:
    palette, _, labels = _labels(A)
    return {"palette": palette, "labels": codes.pack(labels, max(len(palette) - 1, 0).bit_length())}


def _from_palette(parts: Parts, shape: tuple[int, int], kind: np.dtype[Any]) -> Numbers:
    width = max(len(parts["palette"]) - 1, 0).bit_length()
    labels = codes.unpack(parts["labels"], width, shape[0] * shape[1])
    return parts["palette"][labels].reshape(shape) if labels.size else np.zeros(shape, kind)


def _huffman(A: Numbers) -> Parts:
    palette, counts, labels = _labels(A)
    depth = codes.lengths(counts)
    return {"palette": palette, "depth": depth, "words": codes.encode(labels, depth)}


def _from_huffman(parts: Parts, shape: tuple[int, int], kind: np.dtype[Any]) -> Numbers:
    labels = codes.decode(parts["words"], parts["depth"], shape[0] * shape[1])
    return parts["palette"][labels].reshape(shape) if labels.size else np.zeros(shape, kind)


def _deep(A: Numbers) -> Parts:
    skipped, values = runs(A, WIDEST)
    depth = codes.lengths(np.bincount(skipped, minlength=1))
    parts = {
        "run depth": depth,
        "run words": codes.encode(skipped, depth),
        "count": np.array([len(values)]),
    }
    repeated = len(np.unique(values)) <= min(PALETTE, len(values) // 2)
    return parts | (_huffman(values) if repeated else _dense(values))


def _from_deep(parts: Parts, shape: tuple[int, int], kind: np.dtype[Any]) -> Numbers:
    count = int(parts["count"][0])
    skipped = codes.decode(parts["run words"], parts["run depth"], count)
    read = _from_huffman if "words" in parts else _from_dense
    return _placed(skipped, read(parts, (1, count), kind)[0], shape, kind)


FORMS: dict[str, tuple[Callable[[Numbers], Parts], Callable[..., Numbers]]] = {
    "dense": (_dense, _from_dense),
    "gzip": (_packer(lambda b: gzip.compress(b, 9, mtime=0)), _unpacker(gzip.decompress)),
    "lzma": (_packer(lzma.compress), _unpacker(lzma.decompress)),
    "bitmask": (_bitmask, _from_bitmask),
    "csr": (_csr, _from_csr),
    "2:4": (_two_of_four, _from_two_of_four),
    "relative": (_relative, _from_relative),
    "indexed": (_indexed, _from_indexed),
    "palette": (_palette, _from_palette),
    "huffman": (_huffman, _from_huffman),
    "deep": (_deep, _from_deep),
}
