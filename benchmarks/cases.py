"""A case of a benchmark: the same work done by several, timed side by side.

One process, one thread. All competitors of a case run in turn, in an order that reverses from round
to round, and each time is divided by the reference's time of the same round, so that a slow moment
of the machine hits all alike. What is reported is the median of these ratios.
"""

import contextlib
import ctypes
import math
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from teachkit.lab import timing

SHORTEST = 0.03  # seconds; what takes less is repeated, so that the clock's step does not count
ROUNDS, BUDGET = 7, 15.0  # rounds a case, fewer (at least 3) when they take longer than this
SLOW = 2.0  # seconds; a part that takes longer, and is scaled up anyway, runs in one round only


class Competitor(NamedTuple):
    """One way to do the work: ``factor`` scales the time up where ``run`` does a part only."""

    run: Callable[[], Any]
    factor: float = 1.0
    note: str = ""


class Case(NamedTuple):
    """Work and who does it.

    ``reference`` is the competitor whose time is 1; values (dicts of tensors, NaN where not
    computed) are compared with those of ``truth``.
    """

    title: str
    reference: str
    competitors: dict[str, Competitor]
    truth: str = ""


class Row(NamedTuple):
    """What was measured of one competitor; None where it could not be.

    ``ratio`` with its quartiles ``low`` and ``high``; ``seconds`` the median; ``memory`` the peak in
    MB above what was in use before; ``difference`` from the truth, relative to its largest value.
    """

    case: str
    competitor: str
    ratio: float | None
    low: float | None
    high: float | None
    seconds: float | None
    memory: float | None
    difference: float | None
    note: str


class Table(NamedTuple):
    """Results that are not times: a title, column heads, rows of text, and what to know about them."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    text: str = ""


class Section(NamedTuple):
    """What one module of :mod:`benchmarks` gave."""

    name: str
    title: str
    rows: list[Row]
    tables: list[Table]


def peak(run: Callable[[], Any]) -> float | None:
    """MB that a run takes at its peak above what the process holds before; None where not available.

    Linux counts it (VmHWM, reset through clear_refs); memory that was freed is handed back before.
    """
    try:
        with contextlib.suppress(AttributeError, OSError):
            ctypes.CDLL(None).malloc_trim(0)
        before = _status("VmRSS")
        Path("/proc/self/clear_refs").write_text("5", "ascii")
        run()
        return max(_status("VmHWM") - before, 0) / 1000
    except OSError:
        run()
        return None


def _status(name: str) -> int:
    """A line of /proc/self/status, in kB."""
    for line in Path("/proc/self/status").read_text("ascii").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1])
    raise OSError(f"/proc/self/status has no {name}")


def difference(values: Any, truth: Any) -> float | None:
    """The largest deviation from the truth, relative to its largest value, tensor by tensor.

    >>> import torch
    >>> difference({"a": torch.tensor([1.0, math.nan])}, {"a": torch.tensor([1.0, 2.0])})
    0.0
    """
    if not (isinstance(values, dict) and isinstance(truth, dict)):
        return None
    gaps = [
        (values[name] - truth[name]).abs().nan_to_num(0.0).max() / truth[name].abs().max()
        for name in truth.keys() & values.keys()
    ]
    return float(max(gaps, default=0.0))


def measure(
    case: Case, *, quick: bool = False, bar: Callable[[str], Any] | None = None
) -> list[Row]:
    """Warm up, measure the memory, then time all competitors round by round."""
    values: dict[str, Any] = {}
    failed: dict[str, str] = {}
    memory: dict[str, float | None] = {}
    repeats: dict[str, int] = {}
    now = timing.clock()
    for name, competitor in case.competitors.items():
        if bar:
            bar(f"{case.title}: {name}")
        try:
            values[name] = competitor.run()
            start = now()
            memory[name] = peak(competitor.run)
            once = max(now() - start, 1e-6)
            repeats[name] = 1 if quick else math.ceil(SHORTEST / once)
        except Exception as error:  # a peer that cannot do it is a result, not an end
            failed[name] = f"not measured: {type(error).__name__}: {error}".split("\n")[0][:160]
    times = _rounds(case, repeats, quick)
    rows = []
    for name, competitor in case.competitors.items():
        note = failed.get(name, competitor.note)
        off = difference(values.get(name), values.get(case.truth))
        spread = _spread(times.get(name), times.get(case.reference))
        rows.append(Row(case.title, name, *spread, memory.get(name), off, note))
    return rows


def _rounds(case: Case, repeats: dict[str, int], quick: bool) -> dict[str, list[float]]:
    """Seconds of each competitor by round, scaled up where only a part was run."""
    times: dict[str, list[float]] = {name: [] for name in repeats}
    start = time.perf_counter()
    for turn in range(1 if quick else ROUNDS):
        for name in list(repeats)[:: -1 if turn % 2 else 1]:
            competitor = case.competitors[name]
            if turn and competitor.factor > 1 and times[name][0] > SLOW * competitor.factor:
                continue
            took = timing.seconds(competitor.run, repeats[name])
            times[name].append(took * competitor.factor)
        if turn >= 2 and time.perf_counter() - start > BUDGET:
            break
    return times


def _spread(
    own: list[float] | None, reference: list[float] | None
) -> tuple[float | None, float | None, float | None, float | None]:
    """The median ratio, its quartiles, and the median of the seconds."""
    if not own or not reference:
        return None, None, None, None
    pairs = zip(own, reference, strict=False)  # who is slow has fewer rounds
    ratios = sorted(t / max(base, 1e-12) for t, base in pairs)
    low, _, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
    return statistics.median(ratios), low, high, statistics.median(own)
