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


class OddError(Exception):
    """An error that cannot be read back from its pickle."""

    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")


def fails(seed, odd=False):
    """An error with a cause, for the second seed only."""
    if seed == 2:
        if odd:
            raise OddError("this", "that")
        raise KeyError("weights") from OSError("no disk")
    return {"square": seed**2}


def deadly(seed, folder, times):
    """Kill the process it runs in, as often as asked."""
    mark = Path(folder) / f"{seed}-{os.getpid()}-{time.monotonic_ns()}"
    mark.touch()
    time.sleep(0.1)
    if seed == 2 and len(list(Path(folder).glob("2-*"))) <= times:
        os._exit(1)
    return {"square": seed**2}


def timed(seed, folder):
    """A result that is another one each time, and a mark for every call."""
    slow(seed, folder)
    return {"seconds": time.perf_counter()}
