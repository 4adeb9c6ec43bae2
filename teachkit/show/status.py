"""The environment check of the first notebook."""

import re
import sys
from importlib import metadata

import torch

from teachkit.lab import data

SHOWN = ("torch", "numpy", "sympy", "matplotlib", "ipywidgets", "jupyterlab")


def environment() -> None:
    """Print one [ OK ] or [FAIL] line for each thing the course needs, and what to do."""
    print(_line("Python 3.11 or newer", sys.version_info >= (3, 11), "install a newer Python"))
    print(*map(_package, SHOWN), sep="\n")
    print(_line("data: 1797 digits, every byte as published", _digits(), "git checkout data"))
    ready = torch.get_default_dtype() == torch.float64 and torch.get_num_threads() == 1
    print(_line("session: float64, one thread", ready, "run lab.setup()"))


def wanted(name: str) -> str:
    """The lowest version of a package that teachkit's own metadata allows.

    >>> wanted("torch")
    '2.13'
    """
    for requirement in metadata.requires("teachkit") or []:
        low = re.match(rf"{name}>=([\d.]+)", requirement)
        if low:
            return low.group(1)
    raise ValueError(f"teachkit does not ask for {name!r}")


def _package(name: str) -> str:
    low = wanted(name)
    try:
        have = metadata.version(name)
    except metadata.PackageNotFoundError:
        have = "0"
    enough = _numbers(have) >= _numbers(low)
    return _line(f"{name} {low} or newer", enough, "run python -m teachkit lab")


def _numbers(version: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", version.split("+")[0])]


def _digits() -> bool:
    try:
        data.digits()
    except data.DataError:
        return False
    return True


def _line(what: str, good: bool, advice: str) -> str:
    return f"[ OK ] {what}" if good else f"[FAIL] {what}: {advice}"
