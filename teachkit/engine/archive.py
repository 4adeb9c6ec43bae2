"""One file for a compressed network, which anybody's safetensors reader opens, and which notices damage.

The parts of all tensors stand in the file as ordinary arrays, "1.weight/values" and so on. Its metadata
have one entry: a SHA-256 and, in JSON, the form, shape and dtype of each tensor. safetensors itself does
not notice a flipped bit; the sum is that of the whole file with 64 zeros in its own place, so that a
change anywhere, names and lengths included, is refused before anything is believed.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load as read_arrays
from safetensors.numpy import save as arrays_as_bytes
from torch import Tensor, nn

from teachkit.core import files
from teachkit.core.copies import independent_copy
from teachkit.engine.formats import Packed, pack, smallest, unpack
from teachkit.engine.grids import Quantized

FORMAT = "teachkit compressed 1"
MARK = f'"__metadata__":{{"{FORMAT}":"'.encode()
ZEROS = b"0" * 64


def content(tensors: Mapping[str, Tensor | Quantized], form: str = "smallest") -> bytes:
    """The bytes of a file with these tensors, each in a form of ``formats.FORMS``, or its smallest one.

    Of a :class:`Quantized` weight the whole numbers are in this form, and its scales are dense. A tensor
    without dimensions, or with one only, as a bias, is dense unless the smallest form is asked.
    """
    notes: dict[str, Any] = {}
    arrays: dict[str, Any] = {}
    for name, tensor in tensors.items():
        if "/" in name:
            raise ValueError(f"the name of a tensor must be without '/', got {name!r}")
        note, parts = _written(tensor, form)
        notes[name] = note
        arrays |= {f"{name}/{part}": np.atleast_1d(values) for part, values in parts.items()}
    said = json.dumps(notes, separators=(",", ":"))
    whole: bytes = arrays_as_bytes(arrays, {FORMAT: ZEROS.decode() + said})
    return _signed(whole)


def tensors_of(whole: bytes, name: str = "the file") -> dict[str, Tensor]:
    """The tensors in the bytes of a file, bit by bit as they were; ValueError where a bit has changed."""
    at = whole.find(MARK) + len(MARK)
    if at < len(MARK):
        raise ValueError(
            f"{name} is not a compressed network, or it is damaged: it has no {FORMAT!r}"
        )
    if whole != _signed(whole[:at] + ZEROS + whole[at + 64 :]):
        raise ValueError(f"{name} is damaged: its checksum is another one; make it again")
    header = json.loads(whole[8 : 8 + int.from_bytes(whole[:8], "little")])
    notes = json.loads(header["__metadata__"][FORMAT][64:])
    arrays = read_arrays(whole)
    return {key: _read(note, key, arrays) for key, note in notes.items()}


def save(
    path: Path | str,
    model: nn.Module,
    stored: Mapping[str, Quantized] | None = None,
    form: str = "smallest",
) -> int:
    """Write a network's numbers, and return the bytes of the file, header and all.

    ``stored`` are weights that :func:`round_layers` has put on grids: their whole numbers and scales are
    written, and they must be the model's. The form is one of ``FORMS``, or "smallest" for each tensor.
    """
    numbers: dict[str, Any] = {name: t.detach() for name, t in model.state_dict().items()}
    for name, each in (stored or {}).items():
        if name not in numbers or not torch.equal(each.dense(), numbers[name].cpu()):
            raise ValueError(f"stored[{name!r}] is not this model's weight; round the model anew")
        numbers[name] = each
    made = content(numbers, form)
    files.replace(path, made)
    return len(made)


def load(path: Path | str, model: nn.Module) -> nn.Module:
    """A copy of the model with the numbers of a file, bit by bit; ValueError where the file is damaged."""
    made = independent_copy(model)
    if not Path(path).is_file():
        raise ValueError(f"path must name a file that save has written, got {str(path)!r}")
    tensors, own = tensors_of(Path(path).read_bytes(), Path(path).name), made.state_dict()
    for name in (each for each in own if each in tensors):
        if tensors[name].dtype != own[name].dtype:
            kinds = f"{tensors[name].dtype} in the file and {own[name].dtype} in the model"
            raise ValueError(f"{name!r} is {kinds}; convert the model first")
    made.load_state_dict(tensors)
    return made


def _written(tensor: Tensor | Quantized, form: str) -> tuple[dict[str, Any], dict[str, Any]]:
    if not isinstance(tensor, Quantized):
        packed = _packed(tensor, form)
        return _note(packed), packed.parts
    numbers, scale = _packed(tensor.numbers, form), pack(tensor.scale)
    note = _note(numbers) | {
        "scale": _note(scale),
        "size": tensor.size,
        "whole": list(tensor.shape),
    }
    return note, numbers.parts | {"scale": scale.parts["values"]}


def _packed(tensor: Tensor, form: str) -> Packed:
    if form == "smallest":
        return smallest(tensor)
    return pack(tensor, form if tensor.ndim > 1 else "dense")


def _note(packed: Packed) -> dict[str, Any]:
    return {"form": packed.form, "shape": list(packed.shape), "dtype": packed.dtype}


def _read(note: dict[str, Any], name: str, arrays: Mapping[str, Any]) -> Tensor:
    own = {key[len(name) + 1 :]: a for key, a in arrays.items() if key.startswith(f"{name}/")}
    tensor = unpack(Packed(note["form"], tuple(note["shape"]), note["dtype"], own))
    if "scale" not in note:
        return tensor
    kept = note["scale"]
    scale = unpack(Packed("dense", tuple(kept["shape"]), kept["dtype"], {"values": own["scale"]}))
    return Quantized(tensor, scale, note["size"], tuple(note["whole"])).dense()


def _signed(whole: bytes) -> bytes:
    """The file with its own sum in the place of the zeros."""
    at = whole.index(MARK) + len(MARK)
    return whole[:at] + hashlib.sha256(whole).hexdigest().encode() + whole[at + 64 :]
