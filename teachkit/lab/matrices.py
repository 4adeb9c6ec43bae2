"""Tensors in files: safetensors, read and written whole or not at all, and the folder of a long job.

A job that goes block by block keeps each block's result in a file of its own, with a word on what the
job was given. When it runs again, what is there is read, and a folder of another job is refused.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load as _load
from safetensors.torch import save as _save
from torch import Tensor

from teachkit.core import checks, door, files
from teachkit.lab import saving
from teachkit.lab.fetching import DataError

Tensors = dict[str, Tensor]


def read(name: str, content: bytes) -> Tensors:
    """The tensors in the content of a safetensors file; DataError where it is none.

    >>> import torch
    >>> read("a", packed({"w": torch.ones(2)}))
    {'w': tensor([1., 1.])}
    """
    try:
        found: Tensors = _load(content)
    except (SafetensorError, ValueError) as error:
        raise DataError(f"{name} is no whole safetensors file ({error})") from error
    for key, tensor in found.items():
        checks.finite(f"{name}'s {key!r}", tensor)
    return found


def packed(tensors: Mapping[str, Tensor], about: Mapping[str, str] | None = None) -> bytes:
    """Tensors as a safetensors file; ``about`` goes into its head.

    >>> import torch
    >>> len(packed({"w": torch.ones(2, dtype=torch.float16)}))
    68
    """
    whole = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    return bytes(_save(whole, metadata=dict(about) if about else None))


class Folder:
    """Results by number, each kept in a file; ``known`` says what they are of (``lab.fingerprint``)."""

    def __init__(self, path: Path | str, known: Mapping[str, str]) -> None:
        self.path, self.known = Path(path), dict(known)

    def __call__(self, number: int, make: Callable[[], Tensors]) -> Tensors:
        """What is kept under a number, or else what ``make`` gives, which is kept from now on."""
        file = self.path / f"{number:04d}.safetensors"
        if file.exists():
            return self._kept(file)
        made = make()
        files.replace(file, packed(made, self.known))
        return made

    def _kept(self, file: Path) -> Tensors:
        content = file.read_bytes()
        try:
            found = read(str(file), content)
        except DataError as error:
            raise DataError(f"{error}; delete it, and its block is computed again") from error
        head = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        saving.compare(file, head.get("__metadata__", {}), self.known)
        return found


door.hold(globals())
