"""Keep the state of a run in a file that says when it is damaged, and whose run it is.

Such a file is a line with the format, a line with the SHA-256 of the rest, and what ``torch.save``
writes. It holds the description of what the run was given (``lab.fingerprint``) as it was when the
file was written: a criterion or a loss whose state has moved on since then is another one.
"""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from teachkit.core import checks, files
from teachkit.lab import identity

FORMAT = b"teachkit run 1\n"
PARTS = {"known": dict, "weights": Mapping, "masks": Mapping, "steps": list}


def save(path: Path, state: Mapping[str, Any]) -> None:
    """Write a state whole or not at all."""
    content = io.BytesIO()
    torch.save(dict(state), content)
    body = content.getvalue()
    files.replace(path, FORMAT + identity.digest(body).encode() + b"\n" + body)


def load(path: Path) -> dict[str, Any]:
    """The state in a file; a ValueError that says what is wrong with it."""
    content = path.read_bytes()
    start = len(FORMAT) + 65
    if content[: len(FORMAT)] != FORMAT:
        raise unreadable(path, "it does not begin as one does")
    body = content[start:]
    if content[len(FORMAT) : start] != identity.digest(body).encode() + b"\n":
        raise unreadable(path, "it is damaged: its checksum is another one")
    try:
        state = torch.load(io.BytesIO(body), weights_only=True, map_location="cpu")
    except Exception as error:  # whatever torch and pickle say
        raise unreadable(path, f"{type(error).__name__}: {error}") from error
    for part, kind in PARTS.items():
        if not isinstance(state, dict) or not isinstance(state.get(part), kind):
            raise unreadable(path, f"it lacks {part!r}")
    for name, tensor in state["weights"].items():
        if isinstance(tensor, torch.Tensor):
            try:
                checks.finite(f"{name!r}", tensor)
            except ValueError as error:
                raise unreadable(path, str(error)) from None
    return dict(state)


def unreadable(path: Path, why: str) -> ValueError:
    """The error for a file that is no run, or no whole one."""
    return ValueError(f"{path} is not a run of gradual ({why}); name another file")


def compare(path: Path, there: Mapping[str, str], here: Mapping[str, str]) -> None:
    """Refuse a file of another run: the first difference is named, the others are counted."""
    names = [name for name in {**here, **there} if there.get(name) != here.get(name)]
    if names:
        was, is_now = (each.get(names[0], "not there") for each in (there, here))
        more = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
        raise ValueError(
            f"{path} is of another run: {names[0]} was {was} and is {is_now}{more}; "
            "name another file or delete this one"
        )
