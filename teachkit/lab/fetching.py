"""MNIST's four files: from a folder of the user's, from the cache, or from a mirror, byte for byte.

How large each file is is known beforehand, and nothing larger is kept or unpacked: a mirror that
sends without end, or a small gzip of many zeros, costs no more than the true file. A download goes
under a name that nobody can guess and takes its place at the end, so that any number of threads and
programs may fetch the same file at once.
"""

import gzip
import hashlib
import os
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

import pooch

from teachkit.core import bars, files


class Content(NamedTuple):
    """What an uncompressed file must be, whatever a mirror has packed it with."""

    size: int
    sha256: str


MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
MNIST = {
    "train-images-idx3-ubyte": Content(
        47_040_016, "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db"
    ),
    "train-labels-idx1-ubyte": Content(
        60_008, "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5"
    ),
    "t10k-images-idx3-ubyte": Content(
        7_840_016, "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7"
    ),
    "t10k-labels-idx1-ubyte": Content(
        10_008, "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2"
    ),
}


class DataError(ValueError):
    """A data file is missing or is not, byte for byte, what it should be."""


def verified(name: str, content: bytes, sha256: str) -> bytes:
    """Return the content if its SHA-256 is the expected one; refuse it otherwise."""
    actual = hashlib.sha256(content).hexdigest()
    if actual != sha256:
        raise DataError(f"{name} has the sha256 {actual}, expected {sha256}")
    return content


def mnist_files(
    mirrors: Sequence[str] = MIRRORS, wanted: Mapping[str, Content] = MNIST
) -> dict[str, bytes]:
    """The verified, uncompressed content of the four files by name."""
    given = os.environ.get("TEACHKIT_DATA")
    if given:
        place = Path(os.path.expanduser(given))
        return {name: from_folder(place, name, content) for name, content in wanted.items()}
    cache = Path(pooch.os_cache("teachkit")) / "mnist"
    return {name: cached(cache / name, content, mirrors) for name, content in wanted.items()}


def from_folder(place: Path, name: str, wanted: Content) -> bytes:
    """Read one file, gzipped or not, from a folder of the user's."""
    for path in (place / name, place / f"{name}.gz"):
        if path.is_file():
            return verified(str(path), uncompressed(path, wanted.size), wanted.sha256)
    raise DataError(f"TEACHKIT_DATA is {str(place)!r}, which holds neither {name} nor {name}.gz")


def uncompressed(path: Path, most: int) -> bytes:
    """At most so many bytes of a file, unpacked if it is a gzip; more is refused, and a damaged gzip."""
    try:
        with path.open("rb") as stream:
            packed = stream.read(2) == b"\x1f\x8b"
            stream.seek(0)
            # One byte more than allowed tells, and at the end of a gzip its checksum is compared.
            content = (gzip.GzipFile(fileobj=stream) if packed else stream).read(most + 1)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path} is a damaged gzip ({error})") from error
    if len(content) > most:
        raise DataError(f"{path} holds more than the {most} bytes of {path.name}")
    return content


def cached(path: Path, wanted: Content, mirrors: Sequence[str]) -> bytes:
    """Read one file from the cache, or download it there from the first mirror that has it right."""
    try:
        return verified(str(path), uncompressed(path, wanted.size), wanted.sha256)
    except (OSError, DataError):
        reasons = []  # absent or damaged: fetch it again
    for mirror in mirrors:
        try:
            return download(f"{mirror}{path.name}.gz", path, wanted)
        except (OSError, ValueError) as error:  # requests' errors are OSErrors
            reasons.append(f"{mirror}: {error}")
    raise DataError(
        f"{path.name} is not in {path.parent} and no mirror gave it. Either connect to the internet "
        "and run again, or put the four MNIST files into a folder and set the environment variable "
        "TEACHKIT_DATA to it.\n" + "\n".join(reasons)
    )


def download(url: str, path: Path, wanted: Content) -> bytes:
    """Fetch a gzip, verify what it holds, and only then keep it under its name."""
    bar = bars.bar(desc=f"{path.name}, bytes", total=1)  # without a total it is no bool
    with files.writing(path) as part, bar:
        with part.open("xb") as stream:
            target = _Bounded(stream, url, wanted.size)
            pooch.HTTPDownloader(progressbar=bar, timeout=30)(url, target, None)  # sets the total
        content = verified(url, uncompressed(part, wanted.size), wanted.sha256)
        part.write_bytes(content)
    return content


class _Bounded:
    """A stream for a gzip that holds ``size`` bytes: what cannot be compressed grows by less than 1 %."""

    def __init__(self, stream: BinaryIO, url: str, size: int) -> None:
        self.stream, self.url, self.size = stream, url, size
        self.left = size + size // 100 + 1024
        self.flush = stream.flush

    def write(self, chunk: bytes) -> int:
        """Write on, or raise: the first byte too many ends the download."""
        self.left -= len(chunk)
        if self.left < 0:
            raise DataError(f"{self.url} sends more than a gzip of {self.size} bytes can have")
        return self.stream.write(chunk)
