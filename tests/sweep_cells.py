"""Cells for the tests of sweeps: functions of a module, so that workers can import them."""

import os
import time
from pathlib import Path

import torch


def draw(seed, power):
    """A number that depends on the arguments alone, after the session's set-up."""
    assert torch.get_default_dtype() == torch.float64
    generator = torch.Generator().manual_seed(seed)
    return {"value": float(torch.rand(3, generator=generator).sum() ** power)}


def slow(seed, folder):
    """Leave a mark for every call, and take a while."""
    mark = Path(folder) / f"{seed}-{os.getpid()}-{time.monotonic_ns()}"
    mark.touch()
    time.sleep(0.15)
    return {"square": seed**2}


def luck(seed):
    """What the global generator gives right after the set-up."""
    return {"value": float(torch.rand(1, dtype=torch.get_default_dtype()))}


def word(seed):
    """Letters of more than one byte, a line separator, a tuple."""
    return {"pair": (seed, 2), "word": "a\u2028é"}
