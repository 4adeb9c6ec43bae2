"""Small real data sets, checked byte by byte, and MNIST, fetched once.

Images come as (n, 1, height, width) in [0, 1], in torch's default float type; targets as class
numbers (n,), int64.
"""

import gzip
import hashlib
import io
import itertools
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pooch
import torch
from torch import Tensor
from tqdm.auto import tqdm

from teachkit.core import checks, door, files
from teachkit.core.types import Batch
from teachkit.core.types import Data as Data

DIGITS_SHA256 = "b2dab7b501728c22e9119ad76740b2e17c77a231e42d1e592380d90886f1a05e"
MNIST_MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
MNIST_SHA256 = {  # of the uncompressed content, so that any mirror's gzip will do
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
MONKS_VALUES = (3, 3, 2, 3, 4, 2)  # how many values each of the six attributes has
MONKS_SHA256 = {  # of the official training rows
    1: "98ec40d25dbc9983bd9e1076f1ad34ac1ca9ef6e80741caad6cac0de0125954c",
    2: "822a2981a0b814ea1e96af2c861647bc445727b7b4e86b843443527d740d26c7",
    3: "c9762be9990d2aaa661d84af295a3fbdc4e06a6b5ab720cdda3e058cc881dc6e",
}


class DataError(ValueError):
    """A data file is missing or is not, byte for byte, what it should be."""


def folder() -> Path:
    """The folder of the course's own data: ``data/`` of the checkout, or the installed copy."""
    package = Path(__file__).resolve().parents[1]
    checkout = package.parent / "data"
    return checkout if checkout.is_dir() else package / "_data"


def verified(name: str, content: bytes, sha256: str) -> bytes:
    """Return the content if its SHA-256 is the expected one; refuse it otherwise."""
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise DataError(f"{name} has the sha256 {found}, expected {sha256}")
    return content


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
    files, gzipped or not), else from the user's cache, else downloaded into it once. DataError
    where neither way leads to the files; it names both.
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
    return images[:, None].to(torch.get_default_dtype()) / 255, labels.long()


def mnist_files(
    mirrors: Sequence[str] = MNIST_MIRRORS, hashes: dict[str, str] = MNIST_SHA256
) -> dict[str, bytes]:
    """The verified, uncompressed content of the four files by name."""
    given = os.environ.get("TEACHKIT_DATA")
    if given:
        return {name: from_folder(Path(given), name, sha256) for name, sha256 in hashes.items()}
    cache = Path(pooch.os_cache("teachkit")) / "mnist"
    return {name: cached(cache / name, sha256, mirrors) for name, sha256 in hashes.items()}


def from_folder(place: Path, name: str, sha256: str) -> bytes:
    """Read one file, gzipped or not, from a folder of the user's."""
    for path in (place / name, place / f"{name}.gz"):
        if path.is_file():
            return verified(str(path), uncompressed(path), sha256)
    raise DataError(f"TEACHKIT_DATA is {str(place)!r}, which holds neither {name} nor {name}.gz")


def uncompressed(path: Path) -> bytes:
    """The content of a file, unpacked if it is a gzip; a damaged gzip is refused."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"path cannot be read: {error}") from error
    if content[:2] != b"\x1f\x8b":
        return content
    try:
        return gzip.decompress(content)
    except (EOFError, OSError, ValueError) as error:
        raise DataError(f"{path} is a damaged gzip ({error})") from error


def cached(path: Path, sha256: str, mirrors: Sequence[str]) -> bytes:
    """Read one file from the cache, or download it there from the first mirror that has it right."""
    try:
        return verified(str(path), path.read_bytes(), sha256)
    except (OSError, DataError):
        reasons = []  # absent or damaged: fetch it again
    for mirror in mirrors:
        try:
            return download(f"{mirror}{path.name}.gz", path, sha256)
        except (OSError, ValueError) as error:  # requests' errors are OSErrors
            reasons.append(f"{mirror}: {error}")
    raise DataError(
        f"{path.name} is not in {path.parent} and no mirror gave it. Either connect to the internet "
        "and run again, or put the four MNIST files into a folder and set the environment variable "
        "TEACHKIT_DATA to it.\n" + "\n".join(reasons)
    )


def download(url: str, path: Path, sha256: str) -> bytes:
    """Fetch a gzip, verify what it holds, and only then keep it under its name."""
    bar = tqdm(desc=path.name, total=1, unit="B", unit_scale=True)  # without a total it is no bool
    with files.writing(path) as part, bar:
        pooch.HTTPDownloader(progressbar=bar, timeout=30)(url, str(part), None)  # sets the total
        content = verified(url, uncompressed(part), sha256)
        part.write_bytes(content)
    return content


def read_idx(name: str, content: bytes) -> Tensor:
    """Decode an IDX file of unsigned bytes: two zeros, type 8, the rank, the sizes, the bytes."""
    rank = content[3] if len(content) > 3 and content[:3] == b"\0\0\x08" else 0
    sizes = np.frombuffer(content[4 : 4 + 4 * rank], ">u4").astype(int)
    if not rank or len(sizes) < rank or len(content) != 4 + 4 * rank + sizes.prod():
        raise DataError(f"{name} is not an IDX file of unsigned bytes")
    values = np.frombuffer(content, np.uint8, offset=4 + 4 * rank)
    return torch.from_numpy(values.reshape(sizes).copy())


door.hold(globals())
