"""Small real data sets, checked byte by byte, and MNIST, fetched once.

Images come as (n, 1, height, width) in [0, 1], in torch's default float type; targets as class
numbers (n,), int64.
"""

import io
import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from teachkit.core import checks, door
from teachkit.core.types import Batch
from teachkit.core.types import Data as Data
from teachkit.lab.fetching import DataError as DataError
from teachkit.lab.fetching import mnist_files, verified
from teachkit.lab.smollm2 import smollm2 as smollm2

DIGITS_SHA256 = "b2dab7b501728c22e9119ad76740b2e17c77a231e42d1e592380d90886f1a05e"
MONKS_VALUES = (3, 3, 2, 3, 4, 2)  # how many values each of the six attributes has
MONKS_SHA256 = {  # of the official training rows
    1: "98ec40d25dbc9983bd9e1076f1ad34ac1ca9ef6e80741caad6cac0de0125954c",
    2: "822a2981a0b814ea1e96af2c861647bc445727b7b4e86b843443527d740d26c7",
    3: "c9762be9990d2aaa661d84af295a3fbdc4e06a6b5ab720cdda3e058cc881dc6e",
}


def folder() -> Path:
    """The folder of the course's own data: ``data/`` of the checkout, or the installed copy."""
    package = Path(__file__).resolve().parents[1]
    checkout = package.parent / "data"
    return checkout if checkout.is_dir() else package / "_data"


def shipped(name: str, sha256: str) -> bytes:
    """The verified content of a file of the course's own data."""
    path = folder() / name
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error}); restore it with git checkout") from error
    return verified(str(path), content, sha256)


def digits() -> Data:
    """UCI handwritten digits, 8x8 grey values: 1400 samples to train, 397 to test.

    The 1797 images that scikit-learn ships, divided by 16, split by a fixed permutation.
    Source: Alpaydin & Kaynak, Optical Recognition of Handwritten Digits, UCI repository, 1998.

    >>> [tuple(part.shape) for part in (*digits().train, *digits().test)]
    [(1400, 1, 8, 8), (1400,), (397, 1, 8, 8), (397,)]
    """
    content = shipped("digits.npz", DIGITS_SHA256)
    with np.load(io.BytesIO(content), allow_pickle=False) as npz:
        x = torch.from_numpy(npz["images"]).to(torch.get_default_dtype())[:, None] / 16
        y = torch.from_numpy(npz["labels"]).long()
    order = torch.from_numpy(np.random.default_rng(1797).permutation(len(x)))
    train, test = order[:1400], order[1400:]
    return Data((x[train], y[train]), (x[test], y[test]))


def xor() -> Data:
    """The four points of exclusive or; training and test batch are the same.

    >>> xor().train[1]
    tensor([0, 1, 1, 0])
    """
    kind = torch.get_default_dtype()
    x = torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1]], dtype=kind, device="cpu")
    both = (x, torch.tensor([0, 1, 1, 0], device="cpu"))
    return Data(both, both)


def monks_rule(k: int, a: Sequence[int]) -> bool:
    """The published rule of MONK's problem k for the attribute values a1…a6, counted from 1."""
    checks.whole("k", k, 1, 3)
    if k == 1:
        return a[0] == a[1] or a[4] == 1
    if k == 2:
        return sum(value == 1 for value in a) == 2
    return (a[4] == 3 and a[3] == 1) or (a[4] != 4 and a[1] != 3)


def monks(k: int) -> Data:
    """MONK's problem k: the official rows to train, all 432 rows to test, 17 one-hot inputs.

    The official subsets have 124, 169 and 122 rows; in problem 3 six of the labels are noise. The
    test labels follow the published rules.

    Source: Thrun et al., The MONK's Problems, CMU-CS-91-197, 1991; Wnek, UCI repository, 1993.

    Args:
        k: 1, 2 or 3.

    >>> tuple(monks(1).train[0].shape), int(monks(1).test[1].sum())
    ((124, 17), 216)

    """
    checks.whole("k", k, 1, 3)
    text = shipped(f"monks/monks-{k}.train", MONKS_SHA256[k]).decode("ascii")
    body = text.split("@data", 1)[1].split()
    drawn = [[int(value) for value in line.split(",")] for line in body]  # class, a1, …, a6
    rows = list(itertools.product(*(range(1, n + 1) for n in MONKS_VALUES)))
    labels = torch.tensor([int(monks_rule(k, row)) for row in rows])
    targets = torch.tensor([row[0] for row in drawn])
    return Data((one_hot([row[1:] for row in drawn]), targets), (one_hot(rows), labels))


def one_hot(rows: Sequence[Sequence[int]]) -> Tensor:
    """The 17 inputs of MONK's rows a1…a6: one for each value of each attribute, (n, 17).

    >>> one_hot([(1, 3, 2, 1, 4, 2)]).tolist()[0][:8]
    [1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 1.0]
    """
    hot = [
        [a == v for a, n in zip(row, MONKS_VALUES, strict=True) for v in range(1, n + 1)]
        for row in rows
    ]
    return torch.tensor(hot, dtype=torch.get_default_dtype(), device="cpu")


def mnist() -> Data:
    """MNIST, 28x28: 60,000 samples to train, 10,000 to test.

    Read from the folder in the environment variable ``TEACHKIT_DATA`` if it is set (the four IDX
    files, gzipped or not; ``~`` is the home folder), else from the user's cache, else downloaded
    into it once. DataError where neither way leads to the files; it names both.
    Source: LeCun, Cortes & Burges, The MNIST database of handwritten digits, 1998.
    """
    x, y, x_test, y_test = (read_idx(name, content) for name, content in mnist_files().items())
    return Data(as_batch(x, y), as_batch(x_test, y_test))


def as_batch(images: Tensor, labels: Tensor) -> Batch:
    """Bytes (n, height, width) and (n,) as the course's images and class numbers."""
    if images.dtype != torch.uint8 or labels.is_floating_point():
        raise TypeError(
            f"images must be bytes and labels whole, got {images.dtype}, {labels.dtype}"
        )
    if len(images) != len(labels):
        raise ValueError(f"there are {len(images)} images and {len(labels)} labels")
    return images[:, None].to(torch.get_default_dtype()) / 255, labels.long()


def read_idx(name: str, content: bytes) -> Tensor:
    """Decode an IDX file of unsigned bytes: two zeros, type 8, the rank, the sizes, the bytes."""
    rank = content[3] if len(content) > 3 and content[:3] == b"\0\0\x08" else 0
    sizes = np.frombuffer(content[4 : 4 + 4 * rank], ">u4").astype(int)
    if not rank or len(sizes) < rank or len(content) != 4 + 4 * rank + sizes.prod():
        raise DataError(f"{name} is not an IDX file of unsigned bytes")
    values = np.frombuffer(content, np.uint8, offset=4 + 4 * rank)
    return torch.from_numpy(values.reshape(sizes).copy())


door.hold(globals())
